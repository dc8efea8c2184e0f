//! One child process: started with a clean set of our variables, watched under a hard time limit, and kept as what it
//! left behind. Output goes to files, so that nobody has to read while it runs.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No role takes longer than this, unless it hangs: most take milliseconds, and none that is right more than some
/// seconds. A busy machine may take many times as long, so no test may hold the time against anybody.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A child to be started: the command, and the directory that it works in.
pub struct Start {
    pub command: Command,
    pub directory: TempDir,
}

/// What a child left behind.
#[derive(Debug)]
pub struct Remains {
    pub pid: u32,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// The report file; `None` where there is none.
    pub report: Option<String>,
    pub took: Duration,
}

impl Start {
    /// This test binary again, in `role`, with a report file and none of our variables but those.
    pub fn role(role: &str) -> Start {
        Start::program(std::env::current_exe().expect("a test binary has a path"), role)
    }

    /// Another binary that plays roles.
    pub fn program(program: PathBuf, role: &str) -> Start {
        let directory = TempDir::with_prefix("oomguard-test-").expect("a directory for the child");
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"OOMGUARD_") {
                command.env_remove(name);
            }
        }
        command
            .env(super::ROLE, role)
            .env("OOMGUARD_REPORT", directory.path().join("report"))
            .env("RUST_BACKTRACE", "0")
            .env_remove("RUST_LIB_BACKTRACE")
            .env_remove("RUST_MIN_STACK")
            .current_dir(directory.path())
            .stdin(Stdio::null());
        Start { command, directory }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Start {
        self.command.env(name, value);
        self
    }

    /// Runs the child to its end.
    pub fn run(self) -> Result<Remains, String> {
        self.run_within(TIME_LIMIT)
    }

    /// The same for a program of others, which may take longer than one of ours.
    pub fn run_within(mut self, time_limit: Duration) -> Result<Remains, String> {
        let stderr = self.file("stderr");
        self.command.stderr(stderr);
        self.finish(time_limit)
    }

    /// The same, with the standard error that the command has already.
    pub fn run_with_stderr_as_it_is(self) -> Result<Remains, String> {
        self.finish(TIME_LIMIT)
    }

    fn finish(mut self, time_limit: Duration) -> Result<Remains, String> {
        let stdout = self.file("stdout");
        self.command.stdout(stdout);
        let started = Instant::now();
        let mut child = spawn(&mut self.command).map_err(|error| format!("not started: {error}"))?;
        let ended = wait_for_end(&child, time_limit);
        let took = started.elapsed();
        if !ended {
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| format!("not waited for: {error}"))?;
        let remains = Remains {
            pid: child.id(),
            status,
            stdout: self.text("stdout").unwrap_or_default(),
            stderr: self.text("stderr").unwrap_or_default(),
            report: self.text("report"),
            took,
        };
        if ended { Ok(remains) } else { Err(format!("still running after {time_limit:?}; {remains:#?}")) }
    }

    fn file(&self, name: &str) -> fs::File {
        fs::File::create(self.directory.path().join(name)).expect("a file for the child's output")
    }

    fn text(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.directory.path().join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// How a process ended, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
}

impl Remains {
    pub fn end(&self) -> End {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => unreachable!("a process that was waited for has ended"),
        }
    }
}

/// A program that was copied just now may be open for writing in a child of another test, until that one executes.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let until = Instant::now() + TIME_LIMIT;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// Sleeps until the child has ended; false if it has not within `limit`.
fn wait_for_end(child: &Child, limit: Duration) -> bool {
    // SAFETY: pidfd_open takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) } as i32;
    assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    let until = Instant::now() + limit;
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let ended = loop {
        let left = until.saturating_duration_since(Instant::now());
        // SAFETY: one pollfd, writable during the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) };
        if ready > 0 || left.is_zero() {
            break ready > 0;
        }
    };
    // SAFETY: the descriptor was opened above and is used by nobody else.
    unsafe { libc::close(fd) };
    ended
}
