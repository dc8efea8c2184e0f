//! All signals, both ways, counted: the table in docs/launcher.md.

use crate::add;
use crate::started::{Started, State, bare, in_state, launcher, wait_until};
use libtest_mimic::Trial;
use std::fmt::Write as _;
use std::process::Command;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "every_signal_takes_the_way_that_the_documents_tell", || {
        let table = table();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/launcher.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (before, rest) = document.split_once(BEGIN).unwrap();
        let (told, after) = rest.split_once(END).unwrap();
        if std::env::var_os("OOMGUARD_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert_eq!(told, table, "measured:\n{table}");
        }
    });
    add(trials, "the_tests_that_the_documents_name_exist", || {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run");
        let sources: String = std::fs::read_dir(here)
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/launcher.md");
        let document = std::fs::read_to_string(document).unwrap();
        let (_, rest) = document.split_once("<!-- each of these tests exists").unwrap();
        let (table, _) = rest.split_once("<!-- end of these tests -->").unwrap();
        let names: Vec<&str> =
            table.lines().filter_map(|row| row.strip_suffix("` |")?.rsplit('`').next()).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(sources.contains(&format!("add(trials, \"{name}\"")), "{name}");
        }
    });
    add(trials, "a_value_that_was_queued_with_a_signal_arrives_with_it", || {
        let mut catcher = catcher(&[]);
        for value in [1234, 5] {
            // SAFETY: sigqueue takes no pointer that it follows.
            let sent = unsafe {
                let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
                libc::sigqueue(catcher.id(), libc::SIGRTMIN() + 3, value)
            };
            assert_eq!(sent, 0);
            let got = format!("{} {} {value}", libc::SIGRTMIN() + 3, libc::SI_QUEUE);
            assert_eq!(catcher.line(), got);
        }
    });
    add(trials, "as_many_real_time_signals_arrive_as_were_sent", || {
        let mut catcher = catcher(&[]);
        let signal = libc::SIGRTMIN();
        for _ in 0..20 {
            catcher.send(signal);
            send_to_group(&catcher, signal);
        }
        for _ in 0..40 {
            assert_eq!(catcher.line(), format!("{signal} {} 0", libc::SI_USER));
        }
        assert_eq!(fence(&mut catcher, false), Vec::<String>::new());
    });
}

const BEGIN: &str = "<!-- measured by crates/cli/tests/run/every_signal.rs -->\n";
const END: &str = "<!-- end -->\n";

const STOPPING: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// The command of these tests: writes each signal that it gets on a line of its own, with its code and value.
pub fn catch() -> ! {
    block_all();
    println!("ready");
    loop {
        let (signal, code, value) = next_signal();
        println!("{signal} {code} {value}");
    }
}

/// Starts the command as its child, and writes each signal that it has got when that has ended.
pub fn start_and_catch(command: &[String]) {
    block_all();
    let mut child = Command::new(&command[0]).args(&command[1..]).spawn().unwrap();
    child.wait().unwrap();
    // One's own comes last of all that wait.
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    let own = std::process::id().cast_signed();
    let last = libc::SIGRTMAX();
    // SAFETY: sigqueue takes no pointer that it follows.
    unsafe { libc::sigqueue(own, last, value) };
    loop {
        match next_signal() {
            (libc::SIGCHLD, ..) => {}
            (_, libc::SI_QUEUE, _) => break,
            (signal, ..) => println!("{signal}"),
        }
    }
}

fn block_all() {
    let all = !0u64;
    // SAFETY: the set is readable for the length that is given; the raw call, as libc keeps two signals to itself.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0usize, 8usize) };
}

fn next_signal() -> (i32, i32, usize) {
    let all = !0u64;
    loop {
        // SAFETY: all-zero is a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is readable for the length that is given, and `info` writable during the call.
        let signal = unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const all, &raw mut info, 0usize, 8usize)
        };
        if signal > 0 {
            // SAFETY: zero, or filled in by the kernel.
            let value = unsafe { info.si_value() }.sival_ptr.addr();
            let value = if info.si_code == libc::SI_QUEUE { value } else { 0 };
            return (signal as i32, info.si_code, value);
        }
    }
}

/// In a process group of its own, as a shell starts a job.
fn catcher(options: &[&str]) -> Started {
    let mut command = launcher();
    command.arg("run").args(options).arg("--").arg(std::env::current_exe().unwrap()).args(["role", "catch"]);
    let mut started = Started::new(in_state(&mut command, State { own_group: true, ..State::default() }));
    assert_eq!(started.line(), "ready");
    started
}

fn send_to_group(started: &Started, signal: i32) {
    // SAFETY: kill takes no pointer; the group's leader has not been reaped.
    assert_eq!(unsafe { libc::kill(-started.id(), signal) }, 0);
}

/// What has arrived before a last one that was sent the same way.
fn fence(catcher: &mut Started, to_group: bool) -> Vec<String> {
    // Of those that wait, the one with the least number comes first; and of one number, the oldest.
    let last = libc::SIGRTMAX();
    if to_group {
        send_to_group(catcher, last)
    } else {
        catcher.send(last)
    };
    let mut got = Vec::new();
    loop {
        let line = catcher.line();
        let signal = line.split(' ').next().unwrap().to_owned();
        if signal == last.to_string() {
            return got;
        }
        got.push(signal);
    }
}

fn table() -> String {
    let mut table = String::from(
        "| signal | to `oomguard` | to its process group | from the command to `oomguard` |\n|---|---|---|---|\n",
    );
    let mut catcher = catcher(&[]);
    let up = from_the_command();
    let mut rows: Vec<(String, [String; 3])> = Vec::new();
    for signal in (1..=64).filter(|signal| *signal != libc::SIGKILL) {
        let cells = if STOPPING.contains(&signal) {
            stopping(signal)
        } else {
            let [direct, group] = [false, true].map(|to_group| {
                if to_group {
                    send_to_group(&catcher, signal)
                } else {
                    catcher.send(signal)
                }
                if signal == libc::SIGRTMAX() {
                    let before = fence(&mut catcher, to_group);
                    let own = catcher.line();
                    assert!(before.is_empty() && own.starts_with(&format!("{signal} ")), "{before:?} {own}");
                    return times(1, "the command gets it");
                }
                let got = fence(&mut catcher, to_group);
                assert!(got.iter().all(|got| *got == signal.to_string()), "{signal}: {got:?}");
                times(got.len(), "the command gets it")
            });
            let up = up.iter().filter(|got| **got == signal).count();
            [direct, group, times(up, "its parent gets it")]
        };
        let name = match NAMES.get(signal as usize - 1) {
            Some(name) => format!("SIG{name}"),
            None => "real-time".into(),
        };
        rows.push((format!("{name} ({signal})"), cells));
    }
    // Rows that say the same are one.
    let mut kinds: Vec<(Vec<String>, [String; 3])> = Vec::new();
    for (name, cells) in rows {
        match kinds.iter_mut().find(|(_, other)| *other == cells) {
            Some((names, _)) => names.push(name),
            None => kinds.push((vec![name], cells)),
        }
    }
    for (names, [direct, group, up]) in kinds {
        writeln!(table, "| {} | {direct} | {group} | {up} |", shortened(&names)).unwrap();
    }
    table
}

/// The real-time ones in a row.
fn shortened(names: &[String]) -> String {
    let (real_time, mut named): (Vec<String>, Vec<String>) =
        names.iter().cloned().partition(|name| name.starts_with("real-time"));
    if let [first, .., last] = real_time.as_slice() {
        let number = |name: &str| name.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
        named.push(format!("real-time ({} to {})", number(first), number(last)));
    }
    named.join(", ")
}

fn times(count: usize, what: &str) -> String {
    match count {
        0 => "–".into(),
        1 => format!("{what} once"),
        count => format!("{what} {count} times"),
    }
}

/// What the parent of a launcher gets, whose command signals its own parent.
fn from_the_command() -> Vec<i32> {
    let signals: Vec<String> = (1..=64)
        .filter(|signal| *signal != libc::SIGKILL && !STOPPING.contains(signal))
        .map(|signal| signal.to_string())
        .collect();
    let script = format!("for n in {}; do kill -$n $PPID; done", signals.join(" "));
    let mut parent = bare(&std::env::current_exe().unwrap());
    parent.args(["role", "start-and-catch", env!("CARGO_BIN_EXE_oomguard"), "run", "--", "/bin/sh", "-c"]);
    let started = Started::new(parent.arg(script));
    let (code, got) = started.end();
    assert_eq!(code, Some(0));
    got.lines().map(|line| line.parse().unwrap()).collect()
}

/// A command that does not handle it: who stops, and by what.
fn stopping(signal: i32) -> [String; 3] {
    let [direct, group] = [false, true].map(|to_group| {
        let mut command = launcher();
        // It forks nothing: who waits in vfork(2) for a child that is stopped cannot be stopped, launcher or not.
        let script = "trap 'echo passed on' USR1; echo $$; while :; do read line; done";
        command.args(["run", "--", "/bin/sh", "-c", script]).stdin(std::process::Stdio::piped());
        let mut started = Started::new(in_state(&mut command, State { own_group: true, ..State::default() }));
        let worker = started.line();
        // From then on the launcher is done with starting it.
        started.send(libc::SIGUSR1);
        assert_eq!(started.line(), "passed on");
        if to_group {
            send_to_group(&started, signal)
        } else {
            started.send(signal)
        }
        assert_eq!(stopped_by(&started), signal);
        wait_until("the command stops", || crate::signals::state_of(&worker) == 'T');
        started.send(libc::SIGCONT);
        wait_until("the command goes on", || crate::signals::state_of(&worker) != 'T');
        wait_until("the launcher goes on", || crate::signals::state_of(&started.id().to_string()) != 'T');
        "both stop, by this signal".to_owned()
    });
    [direct, group, "–".into()]
}

/// What its parent learns by waitpid(2).
pub fn stopped_by(started: &Started) -> i32 {
    let mut stopped = None;
    wait_until("the launcher is seen stopped", || {
        let mut status = 0;
        // SAFETY: the status is writable during the call.
        let got = unsafe { libc::waitpid(started.id(), &raw mut status, libc::WUNTRACED | libc::WNOHANG) };
        if got > 0 {
            assert!(libc::WIFSTOPPED(status), "{status:#x}");
            stopped = Some(libc::WSTOPSIG(status));
        }
        stopped.is_some()
    });
    stopped.unwrap()
}

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
