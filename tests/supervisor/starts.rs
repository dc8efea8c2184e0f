//! A command that is known in all its parts is started without a fork, and otherwise as std starts it.

use super::{add, limit, role};
use libtest_mimic::Trial;
use oomguard::supervisor::{Command, Outcome, Stdio, Worker};
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "what_a_command_says_is_what_the_child_finds", what_a_command_says_is_found);
    add(trials, "names_are_looked_up_in_the_childs_path", names_are_looked_up);
    add(trials, "what_cannot_be_started_is_the_same_error_as_with_std", the_same_errors);
    add(trials, "streams_are_what_the_command_says", streams_are_what_the_command_says);
    add(trials, "each_of_a_thousand_starts_from_eight_threads_gets_its_own", a_thousand_starts_at_once);
    add(trials, "no_handler_of_the_parent_runs_in_the_child", no_handler_runs_in_the_child);
    add(trials, "signals_are_as_std_leaves_them", signals_are_as_std_leaves_them);
    add(trials, "a_parent_without_memory_or_descriptors_says_so", a_parent_without_memory);
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn said(mut command: Command) -> String {
    command.stdout(Stdio::piped());
    let ended = Worker::new(command).limit(limit("300MiB")).run_to_end().unwrap();
    assert!(ended.outcome.is_success(), "{ended}");
    String::from_utf8(ended.stdout).unwrap()
}

fn what_a_command_says_is_found() {
    // SAFETY: takes nothing.
    let own_group = unsafe { libc::getpgrp() };
    let mut command = shell(
        "echo $0 $1; pwd; echo $MINE $GONE; ulimit -Sv; [ $(ps -o pgid= -p $$) = $$ ] && echo leads; \
         tr '\\0' '\\n' < /proc/$$/cmdline | head -n 1",
    );
    command.args(["zero", "one two"]).arg0("renamed").current_dir("/usr").process_group(0);
    command.env("MINE", "1").env("GONE", "1").env_remove("GONE");
    let expected = "zero one two\n/usr\n1\n307200\nleads\nrenamed\n";
    assert_eq!(said(command), expected);
    let mut command = shell("ps -o pgid= -p $$");
    command.process_group(own_group);
    assert_eq!(said(command).trim(), own_group.to_string());

    let mut command = Command::new("/usr/bin/env");
    command.env("LOST", "1").env_clear().env("KEPT", "1");
    let all = said(command);
    let names = all.lines().filter(|line| !line.starts_with("OOMGUARD_")).collect::<Vec<_>>();
    assert_eq!(names, ["KEPT=1"]);
    let inherited = said(Command::new("/usr/bin/env"));
    for (name, value) in std::env::vars().filter(|(_, value)| !value.contains('\n')) {
        assert!(inherited.lines().any(|line| line == format!("{name}={value}")), "{name}");
    }
}

fn executable(path: &Path, content: &str) {
    // By another process: a file that is open to be written cannot be executed, and a child that is just being started
    // by another thread has it open.
    let mut copy = process::Command::new("/bin/cp");
    let source = path.with_extension("source");
    std::fs::write(&source, content).unwrap();
    assert!(copy.arg(&source).arg(path).status().unwrap().success());
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

fn names_are_looked_up() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    for place in [&first, &second] {
        std::fs::create_dir(place).unwrap();
    }
    std::fs::write(first.join("tool"), "not executable").unwrap();
    executable(&second.join("tool"), "#!/bin/sh\necho found\n");
    // Without a first line: what glibc's execvp(3) has run by the shell.
    executable(&second.join("script"), "echo script $0 $1\n");
    let path = format!("/no/such/place:{}:{}:/bin:/usr/bin", first.display(), second.display());
    let mut command = Command::new("tool");
    command.env("PATH", &path);
    assert_eq!(said(command), "found\n");
    let mut command = Command::new("script");
    command.arg("x").env("PATH", &path);
    assert_eq!(said(command), format!("script {} x\n", second.join("script").display()));
    // The directory is entered first.
    let mut command = Command::new("./tool");
    command.current_dir(&second);
    assert_eq!(said(command), "found\n");
    let mut command = Command::new("tool");
    command.env("PATH", "").current_dir(&second);
    assert_eq!(said(command), "found\n");
    let mut command = Command::new("true");
    command.env_clear();
    assert_eq!(said(command), "");
}

fn the_same_errors() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "not executable").unwrap();
    let cut = directory.path().join("cut");
    executable(&cut, "\x7fELF");
    let beneath = plain.join("x");
    let huge = "x".repeat(200 << 10);
    type Said<'a> = (&'a str, &'a str, &'a [&'a str], Option<&'a str>, Option<&'a str>);
    let path = directory.path().to_str().unwrap();
    let cases: [Said<'_>; 9] = [
        ("a file that is not there", "/no/such/program", &[], None, None),
        ("a name that is nowhere", "no-such-program", &[], None, None),
        ("no name", "", &[], None, None),
        ("a file that is not executable", plain.to_str().unwrap(), &[], None, None),
        ("not executable in PATH", "plain", &[], None, Some(path)),
        ("a file as a directory", beneath.to_str().unwrap(), &[], None, None),
        ("a directory that is not there", "/bin/true", &[], Some("/no/such/directory"), None),
        ("an argument that is too long", "/bin/true", &[&huge], None, None),
        ("a null byte", "/bin/true", &["a\0b"], None, None),
    ];
    for (name, program, arguments, directory, path) in cases {
        let mut std = process::Command::new(program);
        let mut ours = Command::new(program);
        std.args(arguments);
        ours.args(arguments);
        if let Some(directory) = directory {
            std.current_dir(directory);
            ours.current_dir(directory);
        }
        if let Some(path) = path {
            std.env("PATH", path);
            ours.env("PATH", path);
        }
        let start = |worker: Worker| worker.limit(limit("300MiB")).spawn().map(drop).unwrap_err();
        let (expected, got) = (start(Worker::new(std)), start(Worker::new(ours)));
        assert_eq!(
            (got.raw_os_error(), got.kind(), got.to_string()),
            (expected.raw_os_error(), expected.kind(), expected.to_string()),
            "{name}"
        );
    }
}

fn streams_are_what_the_command_says() {
    let mut command = shell("cat; echo error >&2");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Worker::new(command).limit(limit("300MiB")).spawn().unwrap();
    running.stdin.take().unwrap().write_all(b"said").unwrap();
    let (mut out, mut error) = (String::new(), String::new());
    running.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    running.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert!(running.wait().unwrap().is_success());
    assert_eq!((out.as_str(), error.as_str()), ("said", "error\n"));

    let mut file = tempfile::tempfile().unwrap();
    let mut command = shell("cat; echo out; echo error >&2");
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file.try_clone().unwrap());
    let mut worker = Worker::new(command).limit(limit("300MiB"));
    // More than once, as a retry does.
    for _ in 0..2 {
        assert!(worker.run().unwrap().is_success());
    }
    io::Seek::rewind(&mut file).unwrap();
    let mut written = String::new();
    file.read_to_string(&mut written).unwrap();
    assert_eq!(written, "out\nerror\nout\nerror\n");
}

/// In a process of its own: a child that is being started has all that is open there.
fn a_thousand_starts_at_once() {
    let output = role(&["start-at-once"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn start_at_once() {
    const THREADS: usize = 8;
    const STARTS: usize = 125;
    // Its own record, and nobody else's pipe.
    let count = |threads: usize, starts: usize| {
        std::thread::scope(|scope| {
            let each = || {
                (0..starts)
                    .map(|_| said(shell("for fd in /proc/self/fd/*; do echo x; done")).lines().count())
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let alone = count(1, 1)[0];
    let all = count(THREADS, STARTS);
    assert_eq!(all, vec![alone; THREADS * STARTS]);
}

/// In a process of its own, for its group.
fn no_handler_runs_in_the_child() {
    let mut command = role(&["start-under-signals"]);
    command.process_group(0);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

static OWN: AtomicU32 = AtomicU32::new(0);
static ELSEWHERE: AtomicU32 = AtomicU32::new(0);
static HERE: AtomicU32 = AtomicU32::new(0);

extern "C" fn note_where(_: i32) {
    let here = OWN.load(Ordering::Relaxed) == process::id();
    (if here { &HERE } else { &ELSEWHERE }).fetch_add(1, Ordering::Relaxed);
}

pub fn start_under_signals() {
    OWN.store(process::id(), Ordering::Relaxed);
    let handler = note_where as extern "C" fn(i32);
    // SAFETY: the handler touches atomics only.
    unsafe { libc::signal(libc::SIGUSR1, handler as usize) };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // SAFETY: takes no pointer.
                unsafe { libc::kill(0, libc::SIGUSR1) };
            }
        });
        let mut started = 0;
        while started < 300 || HERE.load(Ordering::Relaxed) == 0 {
            let outcome = Worker::new(Command::new("/bin/true")).limit(limit("300MiB")).run().unwrap();
            let is_by_it = matches!(outcome, Outcome::Signaled(libc::SIGUSR1));
            assert!(outcome.is_success() || is_by_it, "{outcome}");
            started += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(ELSEWHERE.load(Ordering::Relaxed), 0);
}

fn signals_are_as_std_leaves_them() {
    // glibc's posix_spawn(3) ignores the two that the C library keeps to itself.
    const KEPT_BY_LIBC: u64 = 0b111 << 31;
    let masks = |status: &str| {
        let of = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        ["SigBlk:", "SigIgn:"].map(|name| u64::from_str_radix(of(name), 16).unwrap() & !KEPT_BY_LIBC)
    };
    // What this thread blocks is blocked there.
    // SAFETY: all-zero is a valid set of signals.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is writable during the call.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR2) };
    // SAFETY: the set is readable during the call.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    let mut std = process::Command::new("/bin/cat");
    let mut ours = Command::new("/bin/cat");
    std.arg("/proc/self/status");
    ours.arg("/proc/self/status");
    let expected = String::from_utf8(std.output().unwrap().stdout).unwrap();
    // SAFETY: as above.
    let restored =
        || unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
    assert_eq!(masks(&said(ours)), masks(&expected));
    assert_eq!(masks(&expected)[0], 1 << (libc::SIGUSR2 - 1));
    restored();
}

/// In a process of its own, for its limits.
fn a_parent_without_memory() {
    let output = role(&["start-without-anything"]).output().unwrap();
    let expected = "no memory: succeeded: exit code 0\nno descriptor: 24\n";
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{error}");
}

pub fn start_without_anything() {
    let start = || Worker::new(Command::new("/bin/true")).limit(limit("300MiB")).run();
    // It warms up whatever is made at the first start, and leaves a little room in the heap.
    start().unwrap();
    drop(std::hint::black_box(vec![1u8; 100 << 10]));
    let set_soft = |resource, soft| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is writable during the call.
        assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
        let before = std::mem::replace(&mut limit.rlim_cur, soft);
        // SAFETY: `limit` is readable during the call.
        assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
        before
    };
    let before = set_soft(libc::RLIMIT_AS, 1);
    let outcome = start();
    set_soft(libc::RLIMIT_AS, before);
    println!("no memory: {}", outcome.unwrap());
    set_soft(libc::RLIMIT_NOFILE, 3);
    println!("no descriptor: {}", start().unwrap_err().raw_os_error().unwrap());
}
