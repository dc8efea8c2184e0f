//! Workers that do not end, that leave others behind, and supervisors that die.

use super::{add, is_gone, limit, role, shell, state_of, wait_for};
use libtest_mimic::Trial;
use oomguard::supervisor::{EndedBy, OnLeftBehind, Outcome, Running, Worker};
use oomguard::{Limit, Measure};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_limit_can_be_changed_while_the_worker_runs", a_limit_can_be_changed);
    add(trials, "a_time_limit_ends_a_worker_that_ignores_everything", a_time_limit_ends_a_worker);
    add(trials, "killing_a_group_leader_kills_its_group", killing_a_group_leader_kills_its_group);
    add(trials, "a_worker_can_be_polled_waited_for_and_killed", a_worker_can_be_polled);
    add(trials, "a_worker_is_waited_for_without_a_descriptor", waited_for_without_a_descriptor);
    add(trials, "a_dropped_worker_leaves_no_zombie", a_dropped_worker_leaves_no_zombie);
    add(trials, "what_is_left_of_a_group_is_counted_or_killed", what_is_left_of_a_group);
    add(trials, "whatever_its_name_who_is_left_is_counted", whatever_its_name);
    add(trials, "an_escape_into_another_session_is_reported", an_escape_is_reported);
    add(trials, "workers_die_with_their_supervisor_if_told_to", workers_die_with_their_supervisor);
    add(trials, "the_verdict_is_there_at_once", the_verdict_is_there_at_once);
}

/// What it can have of 30, 60 and 120 MiB.
fn what_it_gets(running: &mut Running) -> Vec<&'static str> {
    let (stdin, stdout) = (running.stdin.as_mut().unwrap(), running.stdout.as_mut().unwrap());
    let ask = |mib: &str| {
        writeln!(stdin, "{mib}").unwrap();
        let mut answer = String::new();
        BufReader::with_capacity(1, &mut *stdout).read_line(&mut answer).unwrap();
        if answer == "got\n" { "got" } else { "refused" }
    };
    ["30", "60", "120"].into_iter().map(ask).collect()
}

/// The same as `role try`, in a program without a guard.
fn try_in_python() -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args([
        "-c",
        "import sys\nfor mib in sys.stdin:\n try: bytearray(int(mib) << 20); print('got', flush=True)\n \
         except MemoryError: print('refused', flush=True)",
    ]);
    command
}

fn a_limit_can_be_changed() {
    for (measure, is_guarded) in
        [(Measure::Data, true), (Measure::Resident, true), (Measure::Resident, false)]
    {
        let mut command = if is_guarded { role(&["try"]) } else { try_in_python() };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Worker::new(command).limit(limit("90MiB")).measure(measure).spawn().unwrap();
        assert_eq!(what_it_gets(&mut running), ["got", "got", "refused"], "{measure:?}");
        running.set_limit(limit("200MiB")).unwrap();
        assert_eq!(what_it_gets(&mut running), ["got", "got", "got"], "{measure:?}");
        running.set_limit(limit("50MiB")).unwrap();
        assert_eq!(running.limit(), Some(50 << 20));
        // What the soft limit left is taken back by a look.
        let started = Instant::now();
        while what_it_gets(&mut running) != ["got", "refused", "refused"] {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{measure:?}: the lower limit does not hold"
            );
        }
        assert!(running.set_limit(Limit::Off).is_err());
        assert!(matches!(running.wait().unwrap(), Outcome::Success));
        assert!(running.set_limit(limit("90MiB")).is_err());
    }
    let mut unlimited = Worker::new(role(&["sleep"])).spawn().unwrap();
    assert!(unlimited.set_limit(limit("90MiB")).is_err());
    unlimited.kill().unwrap();
    unlimited.wait().unwrap();
}

const DEAF: &str = "trap '' TERM INT HUP; while :; do sleep 1000 & wait; done";

fn a_time_limit_ends_a_worker() {
    let mut command = shell(&format!("echo started; {DEAF}"));
    command.stdout(Stdio::piped()).process_group(0);
    let started = Instant::now();
    // Deaf to everything else, it would run for ever.
    let ended = Worker::new(command).time_limit(Duration::from_millis(300)).run_to_end().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(matches!(ended.outcome, Outcome::Signaled(9)), "{ended}");
    assert_eq!((ended.ended_by, ended.stdout.as_slice()), (Some(EndedBy::TimeLimit), &b"started\n"[..]));
    assert!(ended.to_string().contains("its time was up"), "{ended}");
    assert_eq!(ended.left_behind.in_group, 0, "{ended}");
}

fn killing_a_group_leader_kills_its_group() {
    let mut command = shell("sleep 1000 & echo $!; trap '' TERM; wait");
    command.process_group(0).stdout(Stdio::piped());
    let mut running = Worker::new(command).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let grandchild: u32 = line.trim().parse().unwrap();
    assert!(!is_gone(grandchild));
    running.kill().unwrap();
    let ended = running.wait_to_end().unwrap();
    assert_eq!(ended.ended_by, Some(EndedBy::Kill));
    wait_for("the grandchild is gone", || is_gone(grandchild));
    // Too late, and harmless.
    running.kill().unwrap();
}

fn a_worker_can_be_polled() {
    let mut running = Worker::new(role(&["sleep"])).spawn().unwrap();
    assert!(running.try_wait().unwrap().is_none());
    let started = Instant::now();
    assert!(running.wait_timeout(Duration::from_millis(100)).unwrap().is_none());
    assert!(started.elapsed() >= Duration::from_millis(100));
    running.kill().unwrap();
    assert!(matches!(running.wait_timeout(Duration::from_secs(60)).unwrap(), Some(Outcome::Signaled(9))));
    // The end can be asked for again.
    assert!(matches!(running.try_wait().unwrap(), Some(Outcome::Signaled(9))));
    assert!(matches!(running.wait().unwrap(), Outcome::Signaled(9)));
    assert_eq!(state_of(running.id()), None, "it was not reaped");
}

fn waited_for_without_a_descriptor() {
    let output = role(&["no-descriptor-left"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn a_dropped_worker_leaves_no_zombie() {
    let quick = Worker::new(shell("exit 0")).spawn().unwrap();
    wait_for("the worker is dead", || state_of(quick.id()) == Some('Z'));
    let pid = quick.id();
    drop(quick);
    assert_eq!(state_of(pid), None, "one that is dead already is reaped at once");
    let slow = Worker::new(shell("sleep 0.1")).spawn().unwrap().id();
    wait_for("the worker was reaped", || state_of(slow).is_none());
}

fn what_is_left_of_a_group() {
    for what in [OnLeftBehind::Report, OnLeftBehind::Kill] {
        let mut command = shell("sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & echo $!");
        command.process_group(0).stdout(Stdio::piped());
        let ended = Worker::new(command).on_left_behind(what).watch_descendants().run_to_end().unwrap();
        assert!(ended.outcome.is_success(), "{ended}");
        let last: u32 = String::from_utf8(ended.stdout.clone()).unwrap().trim().parse().unwrap();
        match what {
            OnLeftBehind::Report => {
                assert_eq!(
                    (ended.left_behind.in_group, ended.left_behind.anywhere),
                    (2, Some(true)),
                    "{ended}"
                );
                assert!(ended.to_string().contains("left 2"), "{ended}");
                assert!(!is_gone(last));
                let group = format!("-{}", ended.pid);
                std::process::Command::new("/bin/kill").args(["-9", "--", &group]).status().unwrap();
            }
            _ => {
                assert_eq!(ended.left_behind.in_group, 0, "{ended}");
                assert!(is_gone(last));
            }
        }
    }
}

/// A name is any 15 bytes: prctl(2).
fn whatever_its_name() {
    let names: [&[u8]; 6] = [b"plain", b"caf\xc3", b"\xff\xfe", b"a) Z 1 1 (", b"a\n1 (b) Z 1", b") "];
    for name in names {
        let mut command = role(&["leave-behind", &hex(name)]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let ended = Worker::new(command).run_to_end().unwrap();
        assert!(ended.outcome.is_success(), "{}: {ended}", name.escape_ascii());
        let group = format!("-{}", ended.pid);
        std::process::Command::new("/bin/kill").args(["-9", "--", &group]).status().unwrap();
        assert_eq!(ended.left_behind.in_group, 1, "{}: {ended}", name.escape_ascii());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn an_escape_is_reported() {
    let mut command = shell("setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' & wait; :");
    command.stdout(Stdio::piped());
    // setsid(1) forks only if it leads a group; so the shell itself has to go while its child lives.
    let mut running = Worker::new(command).watch_descendants().spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let escaped: u32 = line.trim().parse().unwrap();
    running.kill().unwrap();
    let ended = running.wait_to_end().unwrap();
    assert_eq!((ended.left_behind.in_group, ended.left_behind.anywhere), (0, Some(true)), "{ended}");
    assert!(ended.to_string().contains("outside its process group"), "{ended}");
    std::process::Command::new("/bin/kill").args(["-9", &escaped.to_string()]).status().unwrap();

    let ended = Worker::new(shell("true & wait")).watch_descendants().run_to_end().unwrap();
    assert_eq!(ended.left_behind.anywhere, Some(false), "{ended}");
}

fn workers_die_with_their_supervisor() {
    for (what, dies) in [("kill", true), ("live", false)] {
        let mut command = role(&["supervise", what]);
        let mut supervisor = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let worker: u32 = line.trim().parse().expect("the worker's number");
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        if dies {
            wait_for("the worker died with its supervisor", || is_gone(worker));
        } else {
            std::thread::sleep(Duration::from_millis(100));
            assert!(!is_gone(worker));
            std::process::Command::new("/bin/kill").args(["-9", &worker.to_string()]).status().unwrap();
        }
    }
}

fn the_verdict_is_there_at_once() {
    // The same with what std has, in turn: what a death takes here and now.
    let (mut plain, mut delays) = (Vec::new(), Vec::new());
    for round in 0..40 {
        let mut child = role(&["sleep"]).spawn().unwrap();
        plain.push(delay_after_kill(child.id(), || assert!(!child.wait().unwrap().success())));
        let mut running = Worker::new(role(&["sleep"])).watch_descendants().spawn().unwrap();
        delays.push(delay_after_kill(running.id(), || {
            if round % 2 == 0 {
                running.wait().unwrap();
            } else {
                running.wait_timeout(Duration::from_secs(60)).unwrap();
            }
        }));
    }
    plain.sort_unstable();
    delays.sort_unstable();
    println!("verdict after the signal: median {:?}, 90 % {:?}; std {:?}", delays[20], delays[36], plain[20]);
    // From the signal, so the death itself is in it. The median, as other tests run beside this one. On a busy machine
    // each of the threads that see to a death waits for its turn.
    assert!(delays[20] < Duration::from_millis(5) + 5 * plain[20], "{delays:?}; std: {plain:?}");
}

/// How long after the signal `wait` comes back.
fn delay_after_kill(pid: u32, wait: impl FnOnce()) -> Duration {
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        let killed = Instant::now();
        // SAFETY: kill takes no pointer; nobody reaps the process before it is dead.
        assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
        killed
    });
    wait();
    Instant::now().saturating_duration_since(killer.join().unwrap())
}
