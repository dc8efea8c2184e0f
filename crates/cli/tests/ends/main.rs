//! Ends that only the program itself can tell, and programs that do not end: what Python knows of its last exception, an
//! exhaustion that nobody catches, and loops of refusals.
//!
//! `TEST_PYTHONS` names more interpreters, parted by colons.

#[path = "../../../../tests/common/skip.rs"]
mod skip;
#[path = "../run/started.rs"]
#[allow(dead_code)]
mod started;
#[path = "../../../../tests/common/trials.rs"]
#[allow(dead_code)]
mod trials;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use started::{Seen, launcher, seen};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let mut trials = Vec::new();
    let pythons = pythons();
    if pythons.is_empty() {
        skip::skipped("python: no python3 in PATH");
    }
    for python in &pythons {
        add_ends(&mut trials, python);
        add_services(&mut trials, python);
    }
    add_other_runtimes(&mut trials);
    add_stalls(&mut trials);
    add_words(&mut trials);
    trials::add(&mut trials, "what_is_no_span_of_time_is_refused_with_what_would_be_one", || {
        for stall in ["5", "0s", "1.5s", "+3s", "never", ""] {
            let seen = seen(launcher().args(["run", "--stall", stall, "--", "true"]));
            assert_eq!(seen.code, Some(125), "{stall}: {}", seen.stderr);
            assert!(seen.stderr.contains("10s or 2min"), "{}", seen.stderr);
            let seen = started::seen(launcher().args(["run", "--", "true"]).env("OOMGUARD_STALL", stall));
            assert_eq!(seen.code, Some(125), "{stall}: {}", seen.stderr);
            assert!(seen.stderr.contains("OOMGUARD_STALL=\""), "{}", seen.stderr);
        }
        for stall in ["off", "1ms", "10s", "2min", "1h"] {
            assert_eq!(
                seen(launcher().args(["run", "--stall", stall, "--", "true"])).code,
                Some(0),
                "{stall}"
            );
        }
    });
    trials::add(&mut trials, "on_refusal_is_an_option", || {
        let script = "import os\ntry: bytearray(1 << 30)\nexcept MemoryError: os._exit(3)\n";
        let Some(python) = self::pythons().into_iter().next() else { return };
        for (word, code) in [("deferred", 198), ("immediate", 198)] {
            let options = ["run", "-m", "100Mi", "--json", "--on-refusal", word, "--"];
            let seen = seen(launcher().args(options).arg(&python.path).args(["-c", script]));
            assert_eq!(seen.code, Some(code), "{}", seen.stderr);
            let last: Value = serde_json::from_str(seen.stderr.lines().last().unwrap()).unwrap();
            // Ended inside the allocator, it never came to its own code.
            let own = &last["report"]["own_exit_code"];
            assert_eq!(own.is_null(), word != "deferred", "{last}");
        }
        let seen = seen(launcher().args(["run", "--on-refusal", "later", "--", "true"]));
        assert_eq!(seen.code, Some(125));
        assert!(seen.stderr.contains("deferred, immediate"), "{}", seen.stderr);
    });
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

#[derive(Clone)]
struct Python {
    path: PathBuf,
    /// As in `3.11`, and how it is built.
    name: String,
    minor: u32,
}

/// Those that are here, each version and way of building once.
fn pythons() -> Vec<Python> {
    const PROBE: &str = "import sys, sysconfig\n\
        assert sys.implementation.name == 'cpython' and sys.version_info >= (3, 8)\n\
        print(sys.executable, sys.version_info[1], 'shared' if sysconfig.get_config_var('Py_ENABLE_SHARED') else 'static')";
    let more = std::env::var("TEST_PYTHONS").unwrap_or_default();
    let names =
        ["python3", "/usr/bin/python3"].into_iter().chain(more.split(':').filter(|name| !name.is_empty()));
    let mut found: Vec<Python> = Vec::new();
    for name in names {
        let Ok(output) = Command::new(name).args(["-c", PROBE]).output() else { continue };
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let [path, minor, built] = output.split_whitespace().collect::<Vec<_>>()[..] else { continue };
        let name = format!("3.{minor} {built}");
        if found.iter().all(|python| python.name != name) {
            found.push(Python { path: path.into(), name, minor: minor.parse().unwrap() });
        }
    }
    found
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/languages/python").join(name)
}

/// How it ended, and the report.
fn ended(command: &mut Command) -> (Seen, Option<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report");
    let seen = seen(command.env("OOMGUARD_REPORT", &report).current_dir(directory.path()));
    let report = std::fs::read_to_string(&report).ok().filter(|content| !content.is_empty());
    (seen, report.map(|line| serde_json::from_str(&line).expect("one report")))
}

fn expect(command: &mut Command, code: i32, evidence: Option<&str>) -> Result<(), Failed> {
    let (seen, report) = ended(command);
    let told = report.as_ref().map(|report| report["evidence"].as_str().unwrap_or("none"));
    if seen.code == Some(code) && told == evidence {
        return Ok(());
    }
    Err(format!("{:?} {told:?} instead of {code} {evidence:?}\n{}\n{report:?}", seen.code, seen.stderr)
        .into())
}

fn add_ends(trials: &mut Vec<Trial>, python: &Python) {
    // Way, code, evidence.
    const OWN: Option<&str> = None;
    const ENDS: [(&str, i32, Option<&str>); 48] = [
        ("d-exit-at-once", 198, Some("exact")),
        ("d-extension-slow-end", 198, Some("said")),
        ("h-of-a-device", 1, None),
        ("h-of-jax-device", 1, None),
        ("h-of-cupy", 1, None),
        ("d-exit-word", 198, Some("exact")),
        ("d-exit-raised", 198, Some("exact")),
        ("d-exit-subclass", 198, Some("exact")),
        ("d-exit-of-site", 198, Some("exact")),
        ("d-from-none", 198, Some("exact")),
        ("d-from-kept", 198, Some("exact")),
        ("d-group", 198, Some("exact")),
        ("d-silent-hook", 198, Some("exact")),
        ("d-tidied", 198, Some("exact")),
        ("d-os-exit", 198, Some("exact")),
        ("d-forked", 198, Some("exact")),
        ("d-future", 198, Some("exact")),
        ("d-logged-by-main", 198, Some("said")),
        ("d-worker", 198, Some("said")),
        ("d-after-ignored", 198, Some("exact")),
        ("h-exit", 3, OWN),
        ("h-os-exit", 3, OWN),
        ("h-os-exit-of-other", 3, OWN),
        ("h-own-hook", 3, OWN),
        ("h-ignored-by-callback", 3, OWN),
        ("h-ignored-chain", 3, OWN),
        ("h-ignored-and-left", 3, OWN),
        ("h-ignored-at-end", 3, OWN),
        ("h-ignored-in-teardown", 3, OWN),
        ("h-exit-later", 3, OWN),
        ("h-full-exit", 3, OWN),
        ("h-words", 3, OWN),
        ("h-logged-and-worked", 3, OWN),
        ("h-logged-and-told", 3, OWN),
        ("h-thread", 3, OWN),
        ("h-forked", 3, OWN),
        ("h-raised-its-own", 1, OWN),
        ("h-raised-a-bare-one", 1, OWN),
        ("d-raised-its-own", 198, Some("exact")),
        ("d-raised-again", 198, Some("exact")),
        ("d-told-by-main", 198, Some("said")),
        ("h-told-after-work", 3, OWN),
        ("h-told-then-childs", 3, OWN),
        ("d-told-then-child-tidied", 198, Some("said")),
        ("h-logged-and-ended", 3, OWN),
        ("h-raised", 1, OWN),
        ("h-full-raised", 1, OWN),
        ("h-raised-earlier", 3, OWN),
    ];
    for (way, code, evidence) in ENDS {
        let python = python.clone();
        // Groups of exceptions are of 3.11; who raises what is not known beyond 3.13.
        let is_known = match way {
            "d-group" => python.minor >= 11,
            "h-raised-its-own" | "h-raised-a-bare-one" => python.minor <= 13,
            _ => true,
        };
        if !is_known {
            continue;
        }
        trials.push(Trial::test(format!("python {}: {way}", python.name), move || {
            // Without site, with nothing read from the environment: nothing of it is needed.
            let flags: &[&str] = match way {
                "d-exit-raised" => &["-I", "-S"],
                // Each piece of a line is a write of its own.
                "h-ignored-chain" => &["-u"],
                _ => &[],
            };
            let mut command = launcher();
            command.args(["run", "-m", "100Mi", "--"]).arg(&python.path).args(flags);
            expect(command.arg(program("ends.py")).args([way, "3"]), code, evidence)
        }));
    }
}

fn add_services(trials: &mut Vec<Trial>, python: &Python) {
    let services = [
        ("thread", 198),
        ("bare-thread", 198),
        ("request", 198),
        ("logged", 198),
        ("handled", 0),
        ("other", 0),
    ];
    for (way, code) in services {
        let python = python.clone();
        trials.push(Trial::test(format!("python {}: service {way}", python.name), move || {
            let run = |options: &[&str]| {
                let mut command = launcher();
                command.arg("run").args(options).args(["-m", "200Mi", "--"]).arg(&python.path);
                command.arg(program("serve.py")).arg(way);
                command
            };
            expect(&mut run(&["--exit-on-uncaught"]), code, (code == 198).then_some("exact"))?;
            let (seen, _) = ended(&mut run(&["--exit-on-uncaught"]));
            // What it died of is told as ever.
            if code == 198 && !seen.stderr.contains("\nMemoryError") {
                return Err(format!("no traceback: {}", seen.stderr).into());
            }
            // Who has not said so keeps a service that lives on.
            expect(&mut run(&[]), 0, None)
        }));
    }
}

/// A thread that dies of its exception, and one that handles it; the service serves on, and ends with 0.
const RUBY: &str = r#"
thread = Thread.new do
  begin
    rows = []
    loop { rows << "x" * (64 << 20) }
  rescue NoMemoryError
    raise if ARGV[0] == "thread"
  end
end
begin; thread.join; rescue NoMemoryError; end
puts "served"
"#;
const JAVA: &str = r#"
class Serve {
    public static void main(String[] ways) throws Exception {
        Thread thread = new Thread(() -> {
            var rows = new java.util.ArrayList<byte[]>();
            while (ways[0].equals("thread")) rows.add(new byte[4 << 20]);
        });
        thread.start();
        thread.join();
        System.out.println("served");
    }
}
"#;
/// A callback and a promise end a process of Node's by themselves. What a handler of its has caught in silence is no reason
/// for what it ends of later.
const NODE: &str = r#"
const [way] = process.argv.slice(1);
const eat = () => { for (const rows = [];;) rows.push(Buffer.alloc(16 << 20, 1)); };
if (way === "callback") setImmediate(eat);
if (way === "promise") Promise.resolve().then(eat);
if (way === "handled") try { eat(); } catch { setTimeout(() => process.exit(3), 700); }
if (way === "held") { const rows = []; try { for (;;) rows.push(Buffer.alloc(16 << 20, 1)); } catch { setTimeout(() => process.exit(rows.length ? 3 : 4), 700); } }
"#;

fn add_other_runtimes(trials: &mut Vec<Trial>) {
    let is_there =
        |name: &str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let serves = |options: &[&str], words: &[&str], code, evidence| {
        let mut command = launcher();
        command.arg("run").args(options).arg("--").args(words);
        expect(&mut command, code, evidence)
    };
    if is_there("ruby") {
        trials.push(Trial::test("ruby: service", move || {
            let run = |options: &[&str], way, code, evidence| {
                serves(&[&["-m", "200Mi"], options].concat(), &["ruby", "-e", RUBY, way], code, evidence)
            };
            run(&["--exit-on-uncaught"], "thread", 198, Some("said"))?;
            run(&["--exit-on-uncaught"], "handled", 0, None)?;
            run(&["--on-refusal", "immediate"], "handled", 198, Some("exact"))?;
            run(&[], "thread", 0, None)
        }));
    } else {
        skip::skipped("service: no ruby");
    }
    if is_there("java") {
        trials.push(Trial::test("java: service", move || {
            let directory = tempfile::tempdir().unwrap();
            let source = directory.path().join("Serve.java");
            std::fs::write(&source, JAVA).unwrap();
            let run = |options: &[&str], way, code, evidence| {
                let options = [&["-m", "500Mi", "--hints"], options].concat();
                serves(&options, &["java", source.to_str().unwrap(), way], code, evidence)
            };
            run(&["--exit-on-uncaught"], "thread", 198, Some("said"))?;
            run(&["--exit-on-uncaught"], "other", 0, None)?;
            run(&[], "thread", 0, None)
        }));
    } else {
        skip::skipped("service: no java");
    }
    if is_there("node") {
        for (way, code, evidence) in [
            ("callback", 198, Some("said")),
            ("promise", 198, Some("said")),
            ("handled", 3, None),
            ("held", 3, None),
        ] {
            let run = move || serves(&["-m", "300Mi"], &["node", "-e", NODE, way], code, evidence);
            trials.push(Trial::test(format!("node: service {way}"), run));
        }
    } else {
        skip::skipped("service: no node");
    }
}

fn add_stalls(trials: &mut Vec<Trial>) {
    let built = build("stall");
    let Ok(program) = built else {
        return skip::skipped(format!("stall: {}", built.unwrap_err()));
    };
    // Way, how long it may stall, how long it asks in vain, its end.
    let stalls = [
        ("spins", "200ms", "60000", 198),
        ("maps-and-spins", "200ms", "60000", 198),
        ("maps", "100ms", "1000", 0),
        ("computes", "100ms", "2000", 0),
        ("spins", "off", "1000", 0),
        ("allocates", "100ms", "1000", 0),
        ("writes", "100ms", "1000", 0),
        ("waits", "50ms", "60000", 198),
        ("waits-among-others", "50ms", "3000", 0),
        ("waits-and-reads", "50ms", "3000", 0),
        ("others-work", "500ms", "3000", 0),
    ];
    for (way, stall, ms, code) in stalls {
        let program = program.clone();
        trials.push(Trial::test(format!("stall {stall}: {way}"), move || {
            let mut command = launcher();
            command.args(["run", "-m", "64Mi", "--stall", stall, "--"]).arg(&program).args([way, ms]);
            expect(&mut command, code, (code == 198).then_some("missing"))
        }));
    }
}

/// A text that is looked up with next to no memory left.
fn add_words(trials: &mut Vec<Trial>) {
    let program = match build("words") {
        Ok(program) => program,
        Err(error) => return skip::skipped(format!("words: {error}")),
    };
    for measure in ["data", "resident", "address-space"] {
        let program = program.clone();
        trials.push(Trial::test(format!("what is looked up to be said is had: {measure}"), move || {
            let directory = tempfile::tempdir().unwrap();
            let mut command = launcher();
            command
                .args(["run", "-m", "30Mi", "--measure", measure, "--"])
                .arg(&program)
                .arg(directory.path());
            let seen = seen(&mut command);
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "0 crashed\n"), "{}", seen.stderr);
            Ok(())
        }));
    }
}

fn build(name: &str) -> Result<PathBuf, String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/ends/{name}.c"));
    let arguments = ["-O1", "-fno-builtin", "-pthread", "-w", "-o"];
    let built = Command::new("cc").args(arguments).arg(&program).arg(source).output();
    match built {
        Ok(output) if output.status.success() => Ok(program),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("no cc: {error}")),
    }
}
