//! The examples, run as a user runs them: a guarded worker on a real file, and the parents that retry it.
//!
//! Cargo builds the examples before it runs all tests. The right answer is worked out here from the same input, in
//! another way than the worker's.

#[path = "common/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

const OUT_OF_MEMORY: Option<i32> = Some(oomguard::EXIT_OUT_OF_MEMORY as i32);

/// Too small a limit to start with for a parent: the worker needs more than twice as much.
const FIRST_MIB: &str = "24";
const CEILING_MIB: &str = "1024";

#[test]
fn the_worker_with_enough_memory_gives_the_right_answer() {
    let output = run(guarded(&example("worker"), "1Gi").arg(&INPUT.path));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout, INPUT.answer);
    assert_eq!(output.stderr, "");
}

#[test]
fn the_worker_with_too_little_memory_says_so_and_exits_with_the_reserved_code() {
    let dir = TempDir::new().unwrap();
    let report_path = dir.path().join("report");
    let mut worker = guarded(&example("worker"), "32Mi");
    worker.env("OOMGUARD_REPORT", &report_path).env("OOMGUARD_TOKEN", "mine");
    let output = run(worker.arg(&INPUT.path));

    assert_eq!(output.code, OUT_OF_MEMORY, "{output:?}");
    assert!(output.stderr.starts_with("oomguard: out of memory: worker (pid "), "{output:?}");
    let last_words = output.stderr.lines().last().unwrap();
    let rows_read: usize = between(last_words, "worker: memory ran out after ", " rows").parse().unwrap();
    assert!(0 < rows_read && rows_read < INPUT_ROWS, "{last_words}");

    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&report_path).unwrap()).unwrap();
    assert_eq!(report["event"], "out_of_memory");
    assert_eq!(report["program"], "worker");
    assert_eq!(report["limit"], 32 << 20);
    assert_eq!(report["limit_source"], "environment");
    assert_eq!(report["measure"], "address_space");
    assert_eq!(report["exit_code"], oomguard::EXIT_OUT_OF_MEMORY);
    assert_eq!(report["token"], "mine");
}

#[test]
fn the_worker_keeps_its_own_exit_codes() {
    let usage = run(&mut guarded(&example("worker"), "1Gi"));
    assert_eq!((usage.code, usage.stderr.as_str()), (Some(2), "usage: worker INPUT\n"));

    let dir = TempDir::new().unwrap();
    let bad = bad_input(&dir);
    let output = run(guarded(&example("worker"), "1Gi").arg(&bad));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.starts_with(&format!("worker: {}: ", bad.display())), "{output:?}");
}

#[test]
fn the_supervisor_retries_until_the_answer_is_right() {
    retries_until_the_answer_is_right(Parent::supervisor(), "address-space");
}

#[test]
fn the_supervisor_retries_until_the_answer_is_right_where_the_limit_counts_data() {
    retries_until_the_answer_is_right(Parent::supervisor(), "data");
}

#[test]
fn the_supervisor_returns_at_once_what_is_not_a_lack_of_memory() {
    returns_at_once_what_is_not_a_lack_of_memory(Parent::supervisor());
}

#[test]
fn the_supervisor_does_not_believe_an_exit_code_without_a_report() {
    does_not_believe_an_exit_code_without_a_report(Parent::supervisor());
}

#[test]
fn the_supervisor_gives_up_at_its_ceiling() {
    gives_up_at_its_ceiling(Parent::supervisor());
}

#[test]
fn the_python_parent_retries_until_the_answer_is_right() {
    let Some(python) = Parent::python() else { return };
    retries_until_the_answer_is_right(python, "address-space");
}

#[test]
fn the_python_parent_retries_until_the_answer_is_right_where_the_limit_counts_data() {
    let Some(python) = Parent::python() else { return };
    retries_until_the_answer_is_right(python, "data");
}

#[test]
fn the_python_parent_returns_at_once_what_is_not_a_lack_of_memory() {
    let Some(python) = Parent::python() else { return };
    returns_at_once_what_is_not_a_lack_of_memory(python);
}

#[test]
fn the_python_parent_does_not_believe_an_exit_code_without_a_report() {
    let Some(python) = Parent::python() else { return };
    does_not_believe_an_exit_code_without_a_report(python);
}

#[test]
fn the_python_parent_gives_up_at_its_ceiling() {
    let Some(python) = Parent::python() else { return };
    gives_up_at_its_ceiling(python);
}

#[test]
fn the_kubernetes_job_fails_at_once_on_the_reserved_codes() {
    let text = fs::read_to_string(in_source("kubernetes/job.yaml")).unwrap();
    let documents = yaml_rust2::YamlLoader::load_from_str(&text).unwrap();
    let [job] = &documents[..] else { panic!("one document expected: {documents:?}") };
    let pod = &job["spec"]["template"]["spec"];
    let worker = &pod["containers"][0];
    assert_eq!(job["kind"].as_str(), Some("Job"));
    assert_eq!(pod["restartPolicy"].as_str(), Some("Never"), "podFailurePolicy is refused with any other");
    assert!(
        worker["resources"]["limits"]["memory"].as_str().is_some(),
        "the guard takes its limit from there"
    );

    let rules = job["spec"]["podFailurePolicy"]["rules"].as_vec().unwrap();
    let fails_the_job = |code: u8| {
        rules.iter().any(|rule| {
            let on = &rule["onExitCodes"];
            rule["action"].as_str() == Some("FailJob")
                && on["operator"].as_str() == Some("In")
                && on["containerName"] == worker["name"]
                && on["values"].as_vec().is_some_and(|v| v.iter().any(|v| v.as_i64() == Some(code.into())))
        })
    };
    assert!(fails_the_job(oomguard::EXIT_OUT_OF_MEMORY));
    assert!(fails_the_job(oomguard::contract::EXIT_CANNOT_GUARD));
    assert!(!fails_the_job(1), "the worker's own failures are retried");
}

// What every parent is held to.

fn retries_until_the_answer_is_right(parent: Parent, measure: &str) {
    let dir = TempDir::new().unwrap();
    let answer = dir.path().join("answer.txt");
    let mut command =
        parent.command(FIRST_MIB, CEILING_MIB, &answer, &[example("worker").as_ref(), INPUT.path.as_ref()]);
    let output = run(command.env("OOMGUARD_MEASURE", measure));

    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout, INPUT.answer);
    assert_eq!(fs::read_to_string(&answer).unwrap(), INPUT.answer);
    assert_eq!(names_in(&dir), ["answer.txt"], "nothing else is left behind");

    let retries = count(&output.stderr, &format!("{}: ", parent.name));
    assert!(retries >= 2, "{output:?}");
    assert_eq!(count(&output.stderr, "oomguard: out of memory: worker "), retries, "{output:?}");
    assert!(output.stderr.contains(&format!(" of {measure}, from OOMGUARD_LIMIT")), "{output:?}");
}

fn returns_at_once_what_is_not_a_lack_of_memory(parent: Parent) {
    let dir = TempDir::new().unwrap();
    let bad = bad_input(&dir);
    let answer = dir.path().join("answer.txt");
    let output =
        run(&mut parent.command("256", CEILING_MIB, &answer, &[example("worker").as_ref(), bad.as_ref()]));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(count(&output.stderr, "worker: "), 1, "{output:?}");
    assert_eq!(names_in(&dir), ["bad.csv"], "no partial output is left behind");

    let output = run(&mut parent.command("256", CEILING_MIB, &answer, &shell("kill -KILL $$")));
    assert_eq!(output.code, Some(128 + 9), "{output:?}");

    let output = run(&mut parent.command("256", CEILING_MIB, &answer, &["/no/such/worker".as_ref()]));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(count(&output.stderr, &format!("{}: ", parent.name)), 1, "{output:?}");
    assert_eq!(names_in(&dir), ["bad.csv"], "no partial output is left behind");
}

fn does_not_believe_an_exit_code_without_a_report(parent: Parent) {
    let dir = TempDir::new().unwrap();
    let runs = dir.path().join("runs");
    let answer = dir.path().join("answer.txt");
    let liar = format!("echo run >> '{}'; exit 198", runs.display());
    let output = run(&mut parent.command(FIRST_MIB, CEILING_MIB, &answer, &shell(&liar)));
    assert_eq!(output.code, OUT_OF_MEMORY, "{output:?}");
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");

    // The same with a report in the right place that is somebody else's.
    fs::remove_file(&runs).unwrap();
    let other = format!("OOMGUARD_TOKEN=other '{}' '{}'", example("worker").display(), INPUT.path.display());
    let borrower = format!("{other}; {liar}");
    let output = run(&mut parent.command(FIRST_MIB, CEILING_MIB, &answer, &shell(&borrower)));
    assert_eq!(output.code, OUT_OF_MEMORY, "{output:?}");
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");
    assert_eq!(count(&output.stderr, "oomguard: out of memory: "), 1, "a report there was: {output:?}");
}

fn gives_up_at_its_ceiling(parent: Parent) {
    let dir = TempDir::new().unwrap();
    let answer = dir.path().join("answer.txt");
    fs::write(&answer, "yesterday's\n").unwrap();
    let output = run(&mut parent.command(
        FIRST_MIB,
        "40",
        &answer,
        &[example("worker").as_ref(), INPUT.path.as_ref()],
    ));
    assert_eq!(output.code, OUT_OF_MEMORY, "{output:?}");
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(" limit: 40 MiB "), "the last attempt has all of it: {output:?}");
    assert_eq!(count(&output.stderr, "oomguard: out of memory: "), 2, "{output:?}");
    assert_eq!(names_in(&dir), ["answer.txt"], "no partial output is left behind");
    assert_eq!(fs::read_to_string(&answer).unwrap(), "yesterday's\n", "the old answer is untouched");
}

fn shell(script: &str) -> [&OsStr; 3] {
    ["sh", "-c", script].map(OsStr::new)
}

struct Parent {
    name: &'static str,
    program: PathBuf,
    script: Option<PathBuf>,
}

impl Parent {
    fn supervisor() -> Parent {
        Parent { name: "supervisor", program: example("supervisor"), script: None }
    }

    fn python() -> Option<Parent> {
        let program = PathBuf::from("python3");
        let found = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            skip::skipped("there is no python3 here");
            return None;
        }
        Some(Parent { name: "parent.py", program, script: Some(in_source("python/parent.py")) })
    }

    fn command(&self, first_mib: &str, ceiling_mib: &str, output: &Path, worker: &[&OsStr]) -> Command {
        let mut command = without_settings(&self.program);
        command.args(&self.script).args([first_mib, ceiling_mib]).arg(output).args(worker);
        command
    }
}

// The input, and what its summary has to be.

const INPUT_ROWS: usize = 150_000;

struct Input {
    path: PathBuf,
    answer: String,
}

static INPUT: LazyLock<Input> = LazyLock::new(|| {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = tmp.join("requests.csv");
    // Renamed when complete, as another run of this test may share the folder.
    let partial = tmp.join(format!("requests.csv.{}", std::process::id()));
    let file = File::create(&partial).unwrap();
    let status =
        Command::new(example("make_input")).arg(INPUT_ROWS.to_string()).stdout(file).status().unwrap();
    assert!(status.success());
    fs::rename(&partial, &path).unwrap();
    let answer = expected_answer(&fs::read_to_string(&path).unwrap());
    Input { path, answer }
});

#[derive(Default)]
struct Service<'a> {
    requests_by_millis: BTreeMap<u64, u64>,
    slowest: (u64, &'a str),
}

impl Service<'_> {
    fn requests(&self) -> u64 {
        self.requests_by_millis.values().sum()
    }

    fn total_ms(&self) -> u64 {
        self.requests_by_millis.iter().map(|(millis, requests)| millis * requests).sum()
    }

    /// The least time within which at least that share of all requests was done.
    fn percentile(&self, percent: u64) -> u64 {
        let mut done = 0;
        let reached = |(millis, requests): (&u64, &u64)| {
            done += requests;
            (done * 100 >= self.requests() * percent).then_some(*millis)
        };
        self.requests_by_millis.iter().find_map(reached).unwrap()
    }
}

fn expected_answer(log: &str) -> String {
    let mut services = BTreeMap::<&str, Service<'_>>::new();
    for line in log.lines().skip(1) {
        let columns: Vec<&str> = line.split(',').collect();
        let [id, name, _url, _agent, millis] = columns[..] else { panic!("five columns expected: {line}") };
        let millis = millis.parse().unwrap();
        let service = services.entry(name).or_default();
        *service.requests_by_millis.entry(millis).or_default() += 1;
        service.slowest = service.slowest.max((millis, id));
    }
    let mut table = String::from("service    requests     total_ms    p50    p99  slowest\n");
    for (name, service) in &services {
        table += &format!(
            "{name:<10} {:>8} {:>12} {:>6} {:>6}  {}\n",
            service.requests(),
            service.total_ms(),
            service.percentile(50),
            service.percentile(99),
            service.slowest.1,
        );
    }
    table
}

/// A log whose third line is cut.
fn bad_input(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("bad.csv");
    fs::write(&path, "id,service,url,agent,millis\nr1,cart,/,-,5\nr2,cart,/\n").unwrap();
    path
}

// Running things.

/// An example's executable.
fn example(name: &str) -> PathBuf {
    let this_test = std::env::current_exe().unwrap();
    let path = this_test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    let built = fs::metadata(&path).and_then(|file| file.modified());
    let source = fs::metadata(in_source(&format!("{name}.rs"))).and_then(|file| file.modified()).unwrap();
    assert!(
        built.is_ok_and(|built| built >= source),
        "{} is missing or older than its source: a test run that is filtered by target does not build it; \
         run `cargo build --package examples --examples` (with the same profile) first",
        path.display()
    );
    path
}

fn in_source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)
}

/// A command that sees no settings of ours but those that a test gives it.
fn without_settings(program: &Path) -> Command {
    // From coreutils: ends the whole process group, and says 124.
    let mut command = Command::new("timeout");
    command.arg("120").arg(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OOMGUARD_") {
            command.env_remove(name);
        }
    }
    command
}

fn guarded(program: &Path, limit: &str) -> Command {
    let mut command = without_settings(program);
    command.env("OOMGUARD_LIMIT", limit);
    command
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// How many lines start so.
fn count(text: &str, start: &str) -> usize {
    text.lines().filter(|line| line.starts_with(start)).count()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.strip_prefix(before).and_then(|text| text.strip_suffix(after)).unwrap_or_else(|| panic!("{text}"))
}

fn names_in(dir: &TempDir) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}
