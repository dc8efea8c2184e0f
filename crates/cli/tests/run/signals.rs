//! Signals that the launcher gets are the command's; those that the command has got already are not sent again.

use crate::add;
use crate::every_signal::stopped_by;
use crate::started::{Started, State, in_state, launcher, run_shell, wait_until};
use libtest_mimic::Trial;
use std::os::unix::process::CommandExt;
use std::process::Command;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "the_signals_of_the_contract_are_passed_on", || {
        for name in ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"] {
            let script =
                format!("trap 'echo {name}; exit 7' {name}; echo ready; while :; do sleep 0.02; done");
            let mut started = Started::new(&mut run_shell(&[], &script));
            assert_eq!(started.line(), "ready");
            started.send(number(name));
            assert_eq!(started.end(), (Some(7), format!("{name}\n")));
        }
    });
    add(trials, "a_signal_that_the_command_does_not_handle_ends_it", || {
        for name in ["TERM", "INT", "HUP", "USR1", "USR2"] {
            let mut started = Started::new(&mut run_shell(&[], "echo ready; exec sleep 60"));
            assert_eq!(started.line(), "ready");
            started.send(number(name));
            assert_eq!(started.end(), (Some(128 + number(name)), String::new()), "{name}");
        }
    });
    add(trials, "a_signal_blocked_at_the_start_waits_in_the_command", || {
        // Not the shell, which empties its mask.
        let mut command = launcher();
        command.args(["run", "--", "sleep", "60"]);
        let state = State { blocked: &[libc::SIGTERM], ..State::default() };
        let started = Started::new(in_state(&mut command, state));
        let mut sleeping = String::new();
        wait_until("the command runs", || {
            let id = started.id();
            let children = read(&format!("/proc/{id}/task/{id}/children"));
            let is_sleep = |pid: &&str| read(&format!("/proc/{pid}/comm")) == "sleep\n";
            sleeping = children.split_ascii_whitespace().find(is_sleep).unwrap_or_default().to_owned();
            !sleeping.is_empty()
        });
        started.send(libc::SIGTERM);
        wait_until("the signal waits", || {
            read(&format!("/proc/{sleeping}/status")).contains("\nShdPnd:\t0000000000004000\n")
        });
        // SAFETY: kill takes no pointer; its parent has not reaped it.
        unsafe { libc::kill(sleeping.parse().unwrap(), libc::SIGKILL) };
        assert_eq!(started.end().0, Some(128 + libc::SIGKILL));
    });
    add(trials, "a_command_that_signals_its_whole_group_gets_it_once", || {
        let script =
            "trap 'echo got' TERM; kill 0; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.02; done; exit 5";
        let state = State { own_group: true, ..State::default() };
        let started = Started::new(in_state(&mut run_shell(&[], script), state));
        assert_eq!(started.end(), (Some(5), "got\n".into()));
    });
    add(trials, "a_signal_to_end_is_the_end_of_trying_again", || {
        let hungry = std::env::current_exe().unwrap();
        // The last of them asks for something else, and there is another try: the shell, which finds the mark, ends.
        for (name, end) in [("TERM", 198), ("INT", 198), ("HUP", 198), ("QUIT", 198), ("USR1", 5)] {
            let directory = tempfile::tempdir().unwrap();
            let mark = directory.path().join("tried");
            let script = format!(
                "test -e {mark} && exit 5; touch {mark}; trap 'exec {hungry} role need 100' {name}; echo ready; \
                 while :; do sleep 0.02; done",
                mark = mark.display(),
                hungry = hungry.display()
            );
            let options = ["-m", "50Mi", "--retries", "1", "--grow", "10", "--max-limit", "500Mi"];
            let mut command = run_shell(&options, &script);
            command.stderr(std::process::Stdio::null());
            let mut started = Started::new(&mut command);
            assert_eq!(started.line(), "ready");
            started.send(number(name));
            assert_eq!(started.end(), (Some(end), String::new()), "{name}");
        }
    });
    add(trials, "a_command_that_handles_the_key_to_stop_is_not_stopped_and_nor_is_the_launcher", || {
        let script = "trap 'echo got; exit 3' TSTP; echo ready; while :; do sleep 0.02; done";
        let mut started = Started::new(in_state(&mut run_shell(&[], script), OWN_GROUP));
        assert_eq!(started.line(), "ready");
        started.send(libc::SIGTSTP);
        assert_eq!(started.end(), (Some(3), "got\n".into()));
    });
    add(trials, "a_command_that_stops_itself_and_goes_on_takes_the_launcher_along", || {
        // Nobody but a process that the command started lets it go on.
        let script = "(while ! grep -q '^State:.T' /proc/$$/status; do sleep 0.02; done; sleep 0.2; kill -CONT $$) & \
                      kill -STOP $$; wait; exit 4";
        let started = Started::new(in_state(&mut run_shell(&[], script), OWN_GROUP));
        assert_eq!(stopped_by(&started), libc::SIGSTOP);
        assert_eq!(started.end().0, Some(4));
    });
    add(trials, "a_stopped_command_that_is_killed_ends_the_launcher", || {
        let mut started = Started::new(in_state(&mut run_shell(&[], "echo $$; kill -STOP $$"), OWN_GROUP));
        let command: i32 = started.line().parse().unwrap();
        assert_eq!(stopped_by(&started), libc::SIGSTOP);
        // SAFETY: kill takes no pointer; its parent has not reaped it.
        unsafe { libc::kill(command, libc::SIGKILL) };
        assert_eq!(started.end().0, Some(128 + libc::SIGKILL));
    });
    add(trials, "a_killed_launcher_leaves_nobody_behind", || {
        for options in [&[][..], &["--no-preload"]] {
            // With a descendant in a process group of its own, where nothing but the library's variables tells of it.
            // The launcher may still be about to begin its watch.
            let script = "set -m; sleep 77 & echo $$ $!; kill -KILL $PPID; wait";
            let mut started = Started::new(&mut run_shell(options, script));
            let line = started.line();
            let pids: Vec<&str> = line.split(' ').collect();
            wait_until("the command ends", || is_gone(pids[0]));
            if options.is_empty() {
                wait_until("its descendant ends", || is_gone(pids[1]));
            } else {
                // SAFETY: kill takes no pointer; it runs for longer than this test.
                unsafe { libc::kill(pids[1].parse().unwrap(), libc::SIGKILL) };
            }
        }
    });
    add(trials, "a_daemon_lives_on_when_the_launcher_is_killed", || {
        let script = "setsid sleep 77 >/dev/null & echo $!; read line";
        let mut command = run_shell(&[], script);
        let mut started = Started::new(command.stdin(std::process::Stdio::piped()));
        let daemon = started.line();
        wait_until("it is one", || read(&format!("/proc/{daemon}/comm")) == "sleep\n");
        let id = started.id();
        let children = read(&format!("/proc/{id}/task/{id}/children"));
        started.send(libc::SIGKILL);
        for pid in children.split_ascii_whitespace() {
            wait_until("the command and the witness end", || is_gone(pid));
        }
        assert!(!is_gone(&daemon));
        // SAFETY: kill takes no pointer; it runs for longer than this test.
        unsafe { libc::kill(daemon.parse().unwrap(), libc::SIGKILL) };
    });
    add(trials, "a_launcher_dies_with_its_parent_if_it_is_told_to", || {
        for (option, dies) in [("--die-with-parent", true), ("", false)] {
            let oomguard = env!("CARGO_BIN_EXE_oomguard");
            // Its parent ends once the command runs.
            let script = format!(
                "{oomguard} run {option} -- sh -c 'echo $PPID $$; exec sleep 77 >/dev/null' & read line"
            );
            let mut command = crate::started::shell(&script);
            let mut started = Started::new(command.stdin(std::process::Stdio::piped()));
            let line = started.line();
            let pids: Vec<&str> = line.split(' ').collect();
            started.send(libc::SIGKILL);
            if dies {
                for pid in &pids {
                    wait_until("both end", || is_gone(pid));
                }
            } else {
                drop(started);
                assert!(pids.iter().all(|pid| !is_gone(pid)));
                // SAFETY: kill takes no pointer; it runs for longer than this test.
                unsafe { libc::kill(pids[0].parse().unwrap(), libc::SIGKILL) };
            }
        }
    });
    add(trials, "a_clock_that_was_set_before_the_launcher_ends_the_command", || {
        // alarm(2) survives execve(2), as those know who write `perl -e 'alarm 5; exec @ARGV'`.
        let mut command = run_shell(&[], "exec sleep 77");
        let set = || {
            // SAFETY: alarm takes a number.
            unsafe { libc::alarm(1) };
            Ok(())
        };
        // SAFETY: the closure makes a system call only.
        unsafe { command.pre_exec(set) };
        assert_eq!(Started::new(&mut command).end().0, Some(128 + libc::SIGALRM));
    });
    add(trials, "orphans_are_reaped", || {
        let state = State { reaper: true, ..State::default() };
        let mut command = run_shell(&[], ORPHAN);
        assert_eq!(Started::new(in_state(&mut command, state)).end(), (Some(6), "orphan gone\n".into()));
    });
    let may_unshare = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    let may_unshare = may_unshare.is_ok_and(|output| output.status.success());
    if !may_unshare {
        return crate::skip::skipped(
            "orphans_are_reaped_as_process_1: no namespace of processes can be made here",
        );
    }
    let as_first = Trial::test("orphans_are_reaped_as_process_1", || {
        let mut command = Command::new("unshare");
        let launcher = env!("CARGO_BIN_EXE_oomguard");
        command.args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--",
            launcher,
            "run",
            "--",
            "/bin/sh",
            "-c",
            ORPHAN,
        ]);
        assert_eq!(Started::new(&mut command).end(), (Some(6), "orphan gone\n".into()));
        Ok(())
    });
    trials.push(as_first);
}

const OWN_GROUP: State<'_> =
    State { blocked: &[], ignored: &[], closed: &[], reaper: false, own_group: true };

/// Dead, though perhaps nobody has reaped it yet.
fn is_gone(pid: &str) -> bool {
    let stat = read(&format!("/proc/{pid}/stat"));
    stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// A grandchild whose parent ends first; the end of it is seen once nobody keeps its number any more.
const ORPHAN: &str = "\
orphan=$(/bin/sh -c 'sleep 0.1 >/dev/null & echo $!')
while test -e /proc/$orphan; do sleep 0.02; done
echo orphan gone
exit 6";

fn number(name: &str) -> i32 {
    match name {
        "TERM" => libc::SIGTERM,
        "INT" => libc::SIGINT,
        "HUP" => libc::SIGHUP,
        "QUIT" => libc::SIGQUIT,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "WINCH" => libc::SIGWINCH,
        _ => panic!("{name}"),
    }
}

/// Empty where there is no such file.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// proc_pid_stat(5): the letter behind the name.
pub fn state_of(pid: &str) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}
