//! Programs that nothing can be preloaded into, followed from outside: what memory ended is told, and what it did not
//! is left as it is. A compiler that is not there takes its tests with it, by name.

use libtest_mimic::{Arguments, Failed, Trial};
use oomguard::contract::{Cause, Evidence};
use oomguard::supervisor::{Ended, InferRefusals, Outcome, Retry, Running, Worker, can_infer};
use oomguard::{Limit, Measure};
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

#[path = "../common/skip.rs"]
mod skip;

fn main() {
    if let [_, role, program] = &std::env::args().collect::<Vec<_>>()[..]
        && role == SUPERVISE
    {
        return supervise(Path::new(program));
    }
    let arguments = Arguments::from_args();
    let directory = tempfile::tempdir().unwrap();
    let mut trials = Vec::new();
    if let Err(error) = can_infer() {
        return skip::skipped(format!("all of it: {error}"));
    }
    for kind in Kind::ALL {
        let program = directory.path().join(kind.name());
        if !kind.build(&program) {
            continue;
        }
        for (role, expected) in kind.cases().into_iter().chain(kind.own_cases()) {
            for measure in [Measure::AddressSpace, Measure::Data, Measure::Resident] {
                // A Go program reserves more than this address space.
                if kind == Kind::Go && measure == Measure::AddressSpace {
                    continue;
                }
                let program = program.clone();
                let test = move || -> Result<(), Failed> { expected.check(&run(&program, role, measure)) };
                let name = format!("{} {}: {role}", kind.name(), measure.as_str());
                trials.push(Trial::test(name, test));
            }
        }
    }
    let c = directory.path().join(Kind::GnuC.name());
    if c.exists() {
        for (name, test) in SINGLE {
            let c = c.clone();
            trials.push(Trial::test(*name, move || {
                test(&c);
                Ok(())
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(directory);
    conclusion.exit();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    GnuC,
    MuslC,
    Go,
    Rust,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::GnuC, Kind::MuslC, Kind::Go, Kind::Rust];

    fn name(self) -> &'static str {
        match self {
            Kind::GnuC => "static C",
            Kind::MuslC => "static musl C",
            Kind::Go => "Go",
            Kind::Rust => "static Rust",
        }
    }

    fn build(self, program: &Path) -> bool {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inference");
        let c = ["-static", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-Wno-alloc-size-larger-than"];
        let mut command = match self {
            Kind::GnuC | Kind::MuslC => {
                let mut command = Command::new(if self == Kind::GnuC { "gcc" } else { "musl-gcc" });
                command.args(c).arg("-o").arg(program).arg(sources.join("eater.c"));
                command
            }
            Kind::Go => {
                let mut command = Command::new("go");
                command.args(["build", "-o"]).arg(program).arg(sources.join("eater.go"));
                command.env("CGO_ENABLED", "0").env("GOCACHE", program.with_file_name("go-cache"));
                command
            }
            Kind::Rust => {
                let mut command = Command::new("rustc");
                command.args(["-C", "target-feature=+crt-static", "--edition", "2024", "-o"]).arg(program);
                command.arg(sources.join("eater.rs"));
                command
            }
        };
        match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => true,
            Ok(output) => panic!("{}: {}", self.name(), String::from_utf8_lossy(&output.stderr)),
            Err(_) => {
                let missing = command.get_program().display();
                skip::skipped(format!("{}: {missing} is not there", self.name()));
                false
            }
        }
    }

    fn cases(self) -> Vec<(&'static str, Expected)> {
        use Expected::{Code, OutOfMemory, Signal, Success};
        match self {
            Kind::Go => vec![
                ("checked", OutOfMemory),
                ("goroutines", OutOfMemory),
                ("threads", Success),
                ("tell of it, and unlock what is not locked", Code(2)),
                ("tell of another's end, and fail", Code(3)),
                ("another sleeps, tells of a worker, and fails", Code(3)),
                ("another is told, and fails", OutOfMemory),
                ("fail", Code(3)),
            ],
            Kind::Rust => {
                vec![("checked", OutOfMemory), ("grow", OutOfMemory), ("cope", Success), ("fail", Code(3))]
            }
            Kind::GnuC | Kind::MuslC => vec![
                ("checked", OutOfMemory),
                ("unchecked", OutOfMemory),
                ("small", OutOfMemory),
                ("huge", OutOfMemory),
                ("grow", OutOfMemory),
                ("threads eat", OutOfMemory),
                ("another program, then refused", OutOfMemory),
                ("another program in a thread", OutOfMemory),
                ("fork passes on", OutOfMemory),
                ("fork passes a signal on", OutOfMemory),
                ("spawn passes on", OutOfMemory),
                ("vfork passes on", OutOfMemory),
                ("fork passes on through another", OutOfMemory),
                ("tell, tidy up and fail", OutOfMemory),
                ("tidy up and fail", OutOfMemory),
                ("tidy up, tell the system's log and fail", OutOfMemory),
                ("refused, with results in the buffer", OutOfMemory),
                ("assert the block", OutOfMemory),
                ("sleep, try again and give up", OutOfMemory),
                ("abort after words", OutOfMemory),
                ("words in colours, tidy up and fail", OutOfMemory),
                ("interrupt itself after words", OutOfMemory),
                ("unchecked, with a handler of its own", OutOfMemory),
                ("assert the mapping", OutOfMemory),
                ("cope", Success),
                ("threads", Success),
                ("start a child that is not to be traced", Success),
                ("signals", Success),
                ("job control", Success),
                ("fork ignores", Success),
                ("cope and fail", Code(3)),
                ("full and recovered", Code(3)),
                ("refused, then another program", Code(3)),
                ("fork fails otherwise", Code(9)),
                ("fork gets over it, and its parent fails alike", Code(1)),
                ("fork passes another failure on", Code(3)),
                ("fork passes a recovered one on", Code(3)),
                ("tidy up, go on and fail", Code(3)),
                ("tidy up, take some of it again and fail", Code(3)),
                ("tidy up, miss a file and fail", Code(3)),
                ("cope and fail otherwise", Code(3)),
                ("go without, start a helper and print the usage", Code(1)),
                ("go without, start a helper in the background", Code(2)),
                ("go without and pass a helper's end on", Code(3)),
                ("go without and sleep", Code(3)),
                ("go without, read on and fail", Code(3)),
                ("go without and miss a file", Code(3)),
                ("fail", Code(3)),
                ("a thread copes, and another fails", Code(3)),
                ("interrupted by a child after words", Signal(libc::SIGINT)),
                ("go without, and write to a page that is to be read", Signal(libc::SIGSEGV)),
                #[cfg(target_arch = "x86_64")]
                ("full, and crash of something else", Signal(libc::SIGSEGV)),
                ("assert something else", Signal(libc::SIGABRT)),
                ("cope and be killed", Signal(libc::SIGTERM)),
                ("tidy up and abort", Signal(libc::SIGABRT)),
                ("go without, and abort in another thread", Signal(libc::SIGABRT)),
                ("crash", Signal(libc::SIGABRT)),
            ],
        }
    }

    /// glibc says of a mapping that it is a stack.
    fn own_cases(self) -> Option<(&'static str, Expected)> {
        let waits = "wait for the threads that there are, and fail";
        (self == Kind::GnuC).then_some((waits, Expected::Code(3)))
    }
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    OutOfMemory,
    Success,
    Code(i32),
    Signal(i32),
}

impl Expected {
    fn check(self, ended: &Ended) -> Result<(), Failed> {
        let right = match (self, &ended.outcome) {
            (Expected::OutOfMemory, Outcome::OutOfMemory(report)) => {
                report.is_inferred() && !ended.status.success()
            }
            (Expected::Success, Outcome::Success) => true,
            (Expected::Code(expected), Outcome::Exited(code)) => expected == *code,
            (Expected::Signal(expected), Outcome::Signaled(signal)) => expected == *signal,
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("expected {self:?}, got {ended:?}").into()) }
    }
}

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

fn worker(program: &Path, role: &str) -> Worker {
    let mut command = Command::new(program);
    command.arg(role).stdout(Stdio::piped()).stderr(Stdio::piped());
    Worker::new(command)
        .limit(limit("256MiB"))
        .time_limit(Duration::from_secs(300))
        .infer_refusals(InferRefusals::WhereNothingPreloads)
}

fn run(program: &Path, role: &str, measure: Measure) -> Ended {
    worker(program, role).measure(measure).run_to_end().unwrap()
}

type Test = fn(&Path);

const SINGLE: &[(&str, Test)] = &[
    ("the_report_says_what_was_refused_and_that_it_is_inferred", the_report_says_what_was_refused),
    ("the_status_stays_the_programs_own", the_status_stays_the_programs_own),
    ("without_being_asked_nothing_is_inferred", without_being_asked_nothing_is_inferred),
    ("a_dynamic_program_is_followed_only_if_asked_for_always", a_dynamic_program_is_followed_only_if_asked),
    ("a_retry_follows_an_inferred_verdict", a_retry_follows_an_inferred_verdict),
    ("a_stopped_worker_stays_stopped_and_ends_by_its_signal", a_stopped_worker_stays_stopped),
    ("the_tracer_is_no_child_that_anybody_sees", the_tracer_is_no_child_that_anybody_sees),
    ("without_permission_the_worker_runs_all_the_same", without_permission_the_worker_runs),
];

fn the_report_says_what_was_refused(c: &Path) {
    let ended = worker(c, "huge").measure(Measure::Data).token("mine").run_to_end().unwrap();
    let Outcome::OutOfMemory(report) = &ended.outcome else { panic!("{ended}") };
    assert_eq!((report.cause(), report.pid(), report.tid()), (Cause::Mapping, ended.pid, ended.pid));
    assert_eq!((report.program(), report.token().unwrap()), ("static C".into(), "mine".into()));
    assert_eq!((report.limit(), report.measure()), (Some(256 << 20), Measure::Data));
    assert!(report.requested().is_some_and(|bytes| bytes >= 1 << 40), "{report:?}");
    assert!(report.data().is_some_and(|bytes| bytes < 256 << 20), "{report:?}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let usual = oomguard::contract::REPORT_KEYS;
    assert_eq!(keys[..usual.len()], usual);
    assert_eq!((keys[usual.len()..].to_vec(), &json["inferred"]), (vec!["inferred"], &true.into()));
    assert_eq!(report.evidence(), Some(Evidence::Outside));
    assert_eq!(report.own_exit_code().map(i32::from), ended.status.code());
    assert_eq!(report.own_signal().map(i32::from), ended.status.signal());
    assert!(report.own_exit_code().is_some() || report.own_signal().is_some(), "{report:?}");
    assert!(report.to_string().lines().next().unwrap().contains("inferred"), "{report}");
    assert!(ended.to_string().contains("inferred"), "{ended}");
    assert!(ended.traced_calls > 0, "{ended:?}");
}

fn the_status_stays_the_programs_own(c: &Path) {
    for (role, code, signal) in [("checked", Some(1), None), ("unchecked", None, Some(libc::SIGSEGV))] {
        let ended = run(c, role, Measure::Data);
        assert_eq!((ended.status.code(), ended.status.signal()), (code, signal), "{ended}");
    }
}

fn without_being_asked_nothing_is_inferred(c: &Path) {
    let ended = worker(c, "checked").infer_refusals(InferRefusals::Never).run_to_end().unwrap();
    assert!(matches!(ended.outcome, Outcome::Exited(1)), "{ended}");
    assert_eq!(ended.traced_calls, 0);
}

fn a_dynamic_program_is_followed_only_if_asked(_: &Path) {
    let shell = |when| {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 5"]);
        Worker::new(command).limit(limit("1GiB")).infer_refusals(when).run_to_end().unwrap()
    };
    for (when, followed) in [(InferRefusals::WhereNothingPreloads, false), (InferRefusals::Always, true)] {
        let ended = shell(when);
        assert!(matches!(ended.outcome, Outcome::Exited(5)), "{ended}");
        assert_eq!(ended.traced_calls > 0, followed, "{ended:?}");
    }
}

fn a_retry_follows_an_inferred_verdict(c: &Path) {
    let retry = Retry::grow(2.0).up_to(limit("512MiB"));
    let ended = worker(c, "checked").limit(limit("128MiB")).retry(retry).run_to_end().unwrap();
    assert!(ended.outcome.is_memory(), "{ended}");
    assert_eq!(ended.tries, 3);
}

fn ready(running: &mut Running) {
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

fn state_of(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.trim_start().chars().next().unwrap()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < until, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(pid: u32, signal: i32) {
    // SAFETY: kill takes no pointer.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

fn a_stopped_worker_stays_stopped(c: &Path) {
    for last in [libc::SIGTERM, libc::SIGKILL] {
        let mut running = worker(c, "sleep").spawn().unwrap();
        assert!(running.is_inferring());
        ready(&mut running);
        let pid = running.id();
        send(pid, libc::SIGSTOP);
        wait_for("the stop", || matches!(state_of(pid), 'T' | 't'));
        // It must not be let run by its tracer.
        assert!(running.wait_timeout(Duration::from_millis(50)).unwrap().is_none());
        assert!(matches!(state_of(pid), 'T' | 't'));
        send(pid, libc::SIGCONT);
        wait_for("its going on", || state_of(pid) == 'S');
        send(pid, last);
        let outcome = running.wait().unwrap();
        assert!(matches!(outcome, Outcome::Signaled(signal) if signal == last), "{outcome}");
    }
}

fn tracer_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
    line.trim().parse().unwrap()
}

fn the_tracer_is_no_child_that_anybody_sees(c: &Path) {
    let mut running = worker(c, "sleep").spawn().unwrap();
    ready(&mut running);
    let tracer = tracer_of(running.id());
    let descriptors: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{tracer}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    assert!(descriptors.len() <= 1, "{descriptors:?}");
    // SAFETY: no status is asked for.
    let waited = unsafe { libc::waitpid(tracer as i32, std::ptr::null_mut(), libc::WNOHANG) };
    assert_eq!((waited, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ECHILD)));
    running.kill().unwrap();
    running.wait().unwrap();
    wait_for("the tracer's end", || {
        can_infer().unwrap();
        !Path::new(&format!("/proc/{tracer}")).exists()
    });
}

/// Containers may forbid ptrace(2) or seccomp(2).
fn without_permission_the_worker_runs(c: &Path) {
    for forbidden in [libc::SYS_ptrace, libc::SYS_seccomp] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(SUPERVISE).arg(c);
        let hook = move || forbid(forbidden);
        // SAFETY: the closure makes system calls, and does not allocate.
        unsafe { command.pre_exec(hook) };
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let what = if forbidden == libc::SYS_ptrace { "ptrace(2)" } else { "seccomp(2)" };
        assert!(said.starts_with("refusals cannot be inferred here: ") && said.contains(what), "{said}");
        assert!(said.ends_with("false\nexit code 1\n"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The role of a supervisor that is not allowed everything.
const SUPERVISE: &str = "supervise";

fn supervise(program: &Path) {
    println!("{}", can_infer().unwrap_err());
    let mut running = worker(program, "checked").spawn().unwrap();
    println!("{}", running.is_inferring());
    println!("{}", running.wait().unwrap());
}

/// From now on, system call `number` is not permitted to this process.
fn forbid(number: libc::c_long) -> std::io::Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: integers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is readable during the call.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
