//! On a terminal: the command stays in the launcher's process group, so that keys reach it as they do without.

use crate::add;
use crate::skip::skipped;
use crate::started::{PATIENCE, Started, bare, run_shell, wait_until};
use libtest_mimic::Trial;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

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
    add(trials, "a_shell_stops_it_by_a_key_and_lets_it_go_on", || {
        for preload in ["", "--no-preload"] {
            let mut shell = Interactive::start();
            let run = format!("{} run -m 1Gi {preload} -- cat", env!("CARGO_BIN_EXE_oomguard"));
            shell.starts(&format!("{run}\n"));
            shell.types("one\n");
            shell.shows("one\r\none\r\n");
            shell.types("\x1a");
            shell.shows("Stopped");
            shell.types("jobs; echo still-$((40 + 2))\n");
            shell.shows("still-42");
            shell.starts("fg\n");
            shell.types("two\n");
            shell.shows("two\r\ntwo\r\n");
            shell.types("\x1a");
            shell.shows("Stopped");
            // It reads in the background, which stops it again.
            shell.types("bg; wait -f; echo reads-$((40 + 3))\n");
            shell.shows("reads-43");
            shell.starts("fg\n");
            // The next prompt, and not the one that this was typed at.
            shell.shows("-- cat\r\n");
            shell.types("\x03");
            shell.shows("$ ");
            shell.types("echo code-$?\n");
            shell.shows("code-130");
        }
    });
    add(trials, "another_shell_stops_it_by_a_key_and_lets_it_go_on zsh", || stop_and_go_on(ZSH));
    add(trials, "another_shell_stops_it_by_a_key_and_lets_it_go_on fish", || stop_and_go_on(FISH));
    add(trials, "a_pane_of_tmux_stops_it_by_a_key_and_lets_it_go_on", || {
        if !is_there("tmux") {
            return skipped("tmux is not there");
        }
        let directory = tempfile::tempdir().unwrap();
        let tmux = |words: &[&str]| {
            let mut command = bare(Path::new("tmux"));
            command.arg("-S").arg(directory.path().join("socket")).args(["-f", "/dev/null"]).args(words);
            String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
        };
        let shows = |text: &str| wait_until(text, || tmux(&["capture-pane", "-p"]).contains(text));
        let shell = ["new-session", "-d", "-x", "200", "-y", "50", "env", "PS1=$ "];
        tmux(&[&shell[..], &BASH].concat());
        let shell: i32 = tmux(&["display-message", "-p", "#{pane_pid}"]).trim().parse().unwrap();
        let types = |keys: &[&str], for_job: bool| {
            wait_until("the one who is meant reads from the terminal", || {
                let group = foreground_of(shell);
                (group != shell) == for_job && reads_terminal(group)
            });
            tmux(&[&["send-keys"][..], keys].concat());
        };
        let run = format!("{} run -m 1Gi -- cat", env!("CARGO_BIN_EXE_oomguard"));
        types(&[&run, "Enter"], false);
        types(&["one", "Enter"], true);
        shows("one\none");
        types(&["C-z"], true);
        shows("Stopped");
        types(&["fg", "Enter"], false);
        types(&["two", "Enter"], true);
        shows("two\ntwo");
        types(&["C-c"], true);
        types(&["echo code-$?", "Enter"], false);
        shows("code-130");
        tmux(&["kill-server"]);
    });
    add(trials, "an_interactive_shell_below_it_is_suspended_and_has_the_terminal_again", || {
        let mut shell = Interactive::start();
        let run = format!("{} run -m 1Gi -- {}", env!("CARGO_BIN_EXE_oomguard"), BASH.join(" "));
        shell.starts(&format!("{run}\n"));
        for turn in 0..2 {
            shell.types(&format!("echo in-$((40 + {turn}))\n"));
            shell.shows(&format!("in-{}", 40 + turn));
            shell.types("suspend\n");
            shell.shows("Stopped");
            shell.types(&format!("echo out-$((40 + {turn}))\n"));
            shell.shows(&format!("out-{}", 40 + turn));
            shell.starts("fg\n");
        }
        shell.types("exit 9\n");
        shell.shows("exit 9\r\n");
        shell.shows("$ ");
        shell.types("echo code-$?\n");
        shell.shows("code-9");
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

const BASH: [&str; 4] = ["/bin/bash", "--norc", "--noprofile", "-i"];

/// And what it says of a job that is stopped.
type Shell = (&'static [&'static str], &'static str);
const ZSH: Shell = (&["zsh", "-f", "-i"], "suspended");
const FISH: Shell = (
    &["fish", "--no-config", "--private", "-i", "-C", "function fish_prompt; echo -n '$ '; end"],
    "has stopped",
);

fn stop_and_go_on((words, stopped): Shell) {
    if !is_there(words[0]) {
        return skipped(format!("{} is not there", words[0]));
    }
    let mut shell = Interactive::of(words);
    shell.starts(&format!("{} run -m 1Gi -- cat\n", env!("CARGO_BIN_EXE_oomguard")));
    shell.types("one\n");
    shell.shows("one\r\none\r\n");
    shell.types("\x1a");
    shell.shows(stopped);
    // What is typed before a shell asks for it is lost: it changes the terminal's modes first.
    shell.shows("$ ");
    shell.types("expr 40 + 2\n");
    shell.shows("\n42");
    shell.shows("$ ");
    shell.starts("fg\n");
    shell.types("two\n");
    shell.shows("two\r\ntwo\r\n");
    shell.types("\x03");
    shell.shows("$ ");
    shell.types("expr 40 + 3\n");
    shell.shows("\n43");
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// An interactive shell on a terminal, and what the terminal shows.
struct Interactive {
    keyboard: File,
    shown: String,
    shell: std::process::Child,
}

impl Interactive {
    fn start() -> Interactive {
        Interactive::of(&BASH)
    }

    fn of(words: &[&str]) -> Interactive {
        let (keyboard, terminal) = terminal();
        let mut command = bare(Path::new(words[0]));
        command.args(&words[1..]).env("PS1", "$ ").env("TERM", "dumb");
        let again = || terminal.try_clone().unwrap();
        command.stdin(again()).stdout(again()).stderr(again());
        lead_session(&mut command);
        let shell = command.spawn().unwrap();
        // SAFETY: F_SETFL takes an integer.
        unsafe { libc::fcntl(keyboard.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let mut shell = Interactive { keyboard: File::from(keyboard), shown: String::new(), shell };
        shell.shows("$ ");
        shell
    }

    fn types(&mut self, keys: &str) {
        // What a job reads must not be typed before it is there: the terminal throws away what waits at a key's signal.
        self.settle();
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Types what gives the terminal to a job, and waits until that reads: what is typed in between is lost when the shell
    /// changes the terminal's modes.
    fn starts(&mut self, keys: &str) {
        self.types(keys);
        let shell = self.shell.id().cast_signed();
        wait_until("the job reads from the terminal", || {
            self.look();
            // SAFETY: tcgetpgrp takes a descriptor.
            let group = unsafe { libc::tcgetpgrp(self.keyboard.as_raw_fd()) };
            group != shell && reads_terminal(group)
        });
    }

    /// Waits until the foreground is asleep, reading.
    fn settle(&mut self) {
        wait_until("somebody reads from the terminal", || {
            self.look();
            // SAFETY: tcgetpgrp takes a descriptor.
            let group = unsafe { libc::tcgetpgrp(self.keyboard.as_raw_fd()) };
            reads_terminal(group)
        });
    }

    fn look(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = self.keyboard.read(&mut bytes) {
            self.shown += &String::from_utf8_lossy(&bytes[..len]);
        }
    }

    /// Waits until it is shown, and forgets all up to there.
    fn shows(&mut self, text: &str) {
        let mut at = None;
        let start = Instant::now();
        while at.is_none() {
            self.look();
            at = self.shown.find(text);
            assert!(start.elapsed() < PATIENCE, "{text:?} is not shown: {:?}", self.shown);
            std::thread::sleep(Duration::from_millis(2));
        }
        self.shown.drain(..at.unwrap() + text.len());
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        let _: io::Result<()> = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The process group that a terminal listens to, of which the shell is: proc_pid_stat(5).
fn foreground_of(shell: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{shell}/stat")).unwrap();
    let rest = stat.rsplit_once(") ").unwrap().1;
    rest.split(' ').nth(5).unwrap().parse().unwrap()
}

/// Whether a process of that group waits for input from a terminal, as the kernel calls it.
fn reads_terminal(group: i32) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = rest.split(' ');
        let sleeps = fields.next() == Some("S");
        let in_group = fields.nth(1).and_then(|field| field.parse().ok()) == Some(group);
        // The first word is the call's number: read, pselect6 of readline's, or poll of fish's.
        let call = || read("syscall").split(' ').next().and_then(|number| number.parse::<i64>().ok());
        sleeps && in_group && call().is_some_and(|call| READS.contains(&call))
    })
}

#[cfg(target_arch = "x86_64")]
const READS: [i64; 4] = [libc::SYS_read, libc::SYS_pselect6, libc::SYS_ppoll, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const READS: [i64; 3] = [libc::SYS_read, libc::SYS_pselect6, libc::SYS_ppoll];

/// Starts the command as the leader of a session on a terminal of its own; stdout is a pipe.
fn on_terminal(command: &mut Command) -> (File, Started) {
    let (keyboard, terminal) = terminal();
    command.stdin(terminal);
    lead_session(command);
    let started = Started::new(command);
    // This process must not keep the terminal open.
    command.stdin(std::process::Stdio::null());
    (File::from(keyboard), started)
}

/// A new terminal: the end of whoever sits at it, and the other one.
fn terminal() -> (OwnedFd, OwnedFd) {
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
    (keyboard, terminal)
}

/// Has the command lead a session whose terminal is its stdin.
fn lead_session(command: &mut Command) {
    let hook = || {
        // SAFETY: setsid takes nothing.
        unsafe { libc::setsid() };
        // SAFETY: makes descriptor 0, the terminal, this session's.
        unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        Ok(())
    };
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(hook) };
}
