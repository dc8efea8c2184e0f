//! Signals that the launcher gets are the command's; those that the command has got already are not sent again.

use crate::add;
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
            sleeping = read(&format!("/proc/{id}/task/{id}/children")).trim().to_owned();
            read(&format!("/proc/{sleeping}/comm")) == "sleep\n"
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
    add(trials, "stop_and_continue_are_left_to_job_control", || {
        let mut command = run_shell(&[], "echo $$; read line; exit 3");
        // A group that nobody would continue is not stopped (setpgid(2), "orphaned"): this one has us as its parent.
        let mut started = Started::new(command.process_group(0));
        let command = started.line();
        started.send(libc::SIGTSTP);
        wait_until("the launcher stops", || state_of(&started.id().to_string()) == 'T');
        assert_ne!(state_of(&command), 'T');
        started.send(libc::SIGCONT);
        assert_eq!(started.end().0, Some(3));
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
fn state_of(pid: &str) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}
