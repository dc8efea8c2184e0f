//! Starting the launcher, or a command in its place, in a state that is given exactly, and judging it from outside.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// No test takes longer, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a program is started.
#[derive(Clone, Copy, Default)]
pub struct State<'a> {
    pub blocked: &'a [i32],
    pub ignored: &'a [i32],
    pub closed: &'a [i32],
    /// As a process that orphans come to: PR_SET_CHILD_SUBREAPER, which survives exec.
    pub reaper: bool,
    pub own_group: bool,
}

pub fn launcher() -> Command {
    bare(Path::new(env!("CARGO_BIN_EXE_oomguard")))
}

/// `oomguard run OPTIONS -- sh -c SCRIPT`.
pub fn run_shell(options: &[&str], script: &str) -> Command {
    let mut command = launcher();
    command.arg("run");
    if !options.contains(&"-m") {
        // Where there is no container, it would be said that nothing is limited.
        command.args(["-m", "off"]);
    }
    command.args(options).args(["--", "/bin/sh", "-c", script]);
    command
}

pub fn shell(script: &str) -> Command {
    let mut command = bare(Path::new("/bin/sh"));
    command.args(["-c", script]);
    command
}

/// Nothing of what whoever runs the tests may have set.
pub fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy().starts_with("OOMGUARD_");
        if ours || name == "LD_PRELOAD" || name == "LD_LIBRARY_PATH" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Has the command start in that state, and without core dumps.
pub fn in_state<'c>(command: &'c mut Command, state: State<'_>) -> &'c mut Command {
    let [blocked, ignored, closed] = [state.blocked, state.ignored, state.closed].map(<[i32]>::to_vec);
    let hook = move || {
        // SAFETY: all-zero is a valid set of signals.
        let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
        for signal in &blocked {
            // SAFETY: the set is this function's own.
            unsafe { libc::sigaddset(&raw mut mask, *signal) };
        }
        for signal in &ignored {
            // SAFETY: every signal named in these tests may be ignored.
            unsafe { libc::signal(*signal, libc::SIG_IGN) };
        }
        if state.reaper {
            // SAFETY: takes an integer.
            unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        }
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: readable during the call.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
        for fd in &closed {
            // SAFETY: nothing in this child uses it any more.
            unsafe { libc::close(*fd) };
        }
        // SAFETY: readable during the call.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()) };
        Ok(())
    };
    if state.own_group {
        command.process_group(0);
    }
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(hook) };
    command
}

/// What became of it.
pub struct Seen {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs it to its end; kills it when that takes too long.
pub fn seen(command: &mut Command) -> Seen {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id().cast_signed();
    let (ended, waits) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // SAFETY: kill takes no pointer; nobody has reaped it, as only the wait below does.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    Seen::of(output)
}

impl Seen {
    fn of(output: Output) -> Seen {
        Seen {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command that runs, killed when it is dropped.
pub struct Started {
    child: Child,
    stdout: ChildStdout,
}

impl Started {
    pub fn new(command: &mut Command) -> Started {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Started { child, stdout }
    }

    pub fn id(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn send(&self, signal: i32) {
        // SAFETY: kill takes no pointer; the child has not been reaped.
        assert_eq!(unsafe { libc::kill(self.id(), signal) }, 0);
    }

    /// The next line of its stdout.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Its exit code and the rest of what it wrote.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        wait_until("the command ends", || self.child.try_wait().unwrap().is_some());
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _: io::Result<()> = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether `ulimit -d` told so many KiB, or, of a limit that moves with what is resident, a little more: what is mapped and not
/// used.
pub fn is_about(told: &str, kib: &str) -> bool {
    let (told, kib) = (told.trim_end(), kib.trim_end());
    let number = |text: &str| text.parse::<u64>().ok();
    told == kib || number(told).zip(number(kib)).is_some_and(|(told, kib)| (kib..=kib + 2048).contains(&told))
}
