//! On a terminal: the command stays in the launcher's process group, so that keys reach it as they do without.

use crate::add;
use crate::started::{Started, run_shell, wait_until};
use libtest_mimic::Trial;
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_key_on_the_terminal_reaches_the_command_once", || {
        // Once it has it, there is time for a second one.
        let script = "trap 'echo got; got=1' INT; echo ready; while [ -z \"$got\" ]; do sleep 0.03; done; \
                      for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.03; done; exit 5";
        let (mut keyboard, mut started) = on_terminal(&mut run_shell(&[], script));
        assert_eq!(started.line(), "ready");
        keyboard.write_all(b"\x03").unwrap();
        assert_eq!(started.end(), (Some(5), "got\n".into()));
    });
    add(trials, "a_terminal_that_hangs_up_tells_the_command", || {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let script =
            format!("trap 'echo >{}; exit 4' HUP; echo ready; while :; do sleep 0.02; done", told.display());
        let (keyboard, mut started) = on_terminal(&mut run_shell(&[], &script));
        assert_eq!(started.line(), "ready");
        drop(keyboard);
        wait_until("the command is told", || told.exists());
        assert_eq!(started.end().0, Some(4));
    });
    add(trials, "the_command_keeps_the_terminal_and_the_process_group", || {
        let (_keyboard, mut started) =
            on_terminal(&mut run_shell(&[], "ps -o pgid=,tpgid= -p $$ || echo 1 1"));
        let line = started.line();
        let mut numbers = line.split_ascii_whitespace();
        assert_eq!(numbers.next(), numbers.next(), "{line}");
        assert_eq!(started.end().0, Some(0));
    });
}

/// Starts the command as the leader of a session on a terminal of its own; stdout is a pipe.
fn on_terminal(command: &mut Command) -> (File, Started) {
    let (mut keyboard, mut terminal) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: both numbers are writable during the call; name, modes and size are not asked for.
    let opened =
        unsafe { libc::openpty(&raw mut keyboard, &raw mut terminal, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0);
    for fd in [keyboard, terminal] {
        // SAFETY: F_SETFD takes an integer.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: just opened, and known to nobody else.
    let keyboard = unsafe { OwnedFd::from_raw_fd(keyboard) };
    // SAFETY: as above.
    let terminal = unsafe { OwnedFd::from_raw_fd(terminal) };
    command.stdin(terminal);
    let hook = || {
        // SAFETY: setsid takes nothing.
        unsafe { libc::setsid() };
        // SAFETY: makes descriptor 0, the terminal, this session's.
        unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        Ok(())
    };
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(hook) };
    let started = Started::new(command);
    // This process must not keep the terminal open.
    command.stdin(std::process::Stdio::null());
    (File::from(keyboard), started)
}
