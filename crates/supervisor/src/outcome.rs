//! How a worker ended, as users are told it.

use super::descendants::LeftBehind;
use super::kernel_kills::OomKill;
use super::report::{LastLook, Report};
use crate::contract::{EXIT_OUT_OF_MEMORY, Measure};
use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// How a worker ended.
///
/// `Display` says in one line what led to the verdict.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Exit code 0.
    Success,
    /// The worker reached its own limit: its exit code and the record that it left agree, or that of a descendant whose
    /// exit code it passed on, as shells do; or, where the report [is inferred](Report::is_inferred), it failed after a
    /// refusal by that limit which nothing made good.
    OutOfMemory(Report),
    /// The kernel's out-of-memory killer ended it: SIGKILL that this process did not send, while the kernel's counter
    /// of such kills rose.
    OomKilled(OomKill),
    /// Any other exit code; 198 too, if there is no record that proves it.
    Exited(i32),
    /// Any other signal, by its number: signal(7).
    Signaled(i32),
}

impl Outcome {
    /// Returns whether memory was the cause: the worker's own limit, or the kernel's killer.
    pub fn is_memory(&self) -> bool {
        matches!(self, Outcome::OutOfMemory(_) | Outcome::OomKilled(_))
    }

    /// Returns whether the worker ended with exit code 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Success)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Success => f.write_str("succeeded: exit code 0"),
            Outcome::OutOfMemory(report) if report.is_inferred() => {
                write!(f, "out of memory, inferred from its refused calls and its end: {}", report.summary())
            }
            Outcome::OutOfMemory(report) => write!(
                f,
                "out of memory: exit code {} and the record agree: {}",
                report.exit_code(),
                report.summary()
            ),
            Outcome::OomKilled(kill) => write!(f, "killed by the kernel's out-of-memory killer: {kill}"),
            Outcome::Exited(code) if *code == i32::from(EXIT_OUT_OF_MEMORY) => write!(
                f,
                "exit code {code}, which would mean out of memory, but there is no record that proves it"
            ),
            Outcome::Exited(code) => write!(f, "exit code {code}"),
            Outcome::Signaled(libc::SIGKILL) => f.write_str(
                "killed by signal 9 (SIGKILL), not by the kernel's out-of-memory killer as far as is known",
            ),
            Outcome::Signaled(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
        }
    }
}

/// Who ended a worker that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndedBy {
    /// [`Running::kill`](super::Running::kill).
    Kill,
    /// The time limit.
    TimeLimit,
}

/// The end of a worker in full: the [`Outcome`] and what else was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The verdict.
    pub outcome: Outcome,
    /// The status as the kernel told it.
    pub status: ExitStatus,
    /// The process number; free for others by now.
    pub pid: u32,
    /// The soft limit that the worker was started with, in bytes; `None` where it was given none.
    pub limit: Option<u64>,
    /// What that limit counted; [`Resident`](Measure::Resident) is counted as [`Data`](Measure::Data) where there is no `/proc`.
    pub measure: Measure,
    /// The most that was ever resident, in bytes, as the kernel counts it (getrusage(2)): of the worker and of those
    /// children that it waited for, whichever was largest. Known for every program.
    pub resident_peak: u64,
    /// What a guarded worker last said of itself, whatever it died of; `None` where no guard filled the record.
    pub last_look: Option<LastLook>,
    /// What those descendants said that ran out of memory, in the order of their ends: the last ones, if there were
    /// many. Known of guarded ones that found the worker's record: [`Worker::preload`](super::Worker::preload).
    pub descendants: Vec<Report>,
    /// The worker's program ended while it was being loaded, with the guard that is preloaded: there was no room for it
    /// under the limit, and there would be without.
    pub could_not_load: bool,
    /// Why the worker's guard could not do its job (exit code 125), as it said on stderr: nothing of the program ran.
    pub could_not_guard: Option<String>,
    /// How many requests were refused, to the worker and to those descendants that are known; with an outcome other
    /// than memory, they were survived.
    pub refusals: u64,
    /// The last of these requests, in bytes: the worker's, or else a descendant's.
    pub last_refused: Option<u64>,
    /// A report whose evidence is not [`Sufficient`](super::Sufficient).
    pub doubtful: Option<Report>,
    /// Whether this process ended it.
    pub ended_by: Option<EndedBy>,
    /// How many calls that map memory were looked at from outside; zero without
    /// [`Worker::infer_refusals`](super::Worker::infer_refusals).
    pub traced_calls: u64,
    /// Processes that the worker started and that were still there when it had died.
    pub left_behind: LeftBehind,
    /// How often it was started in all; more than once only by a [`Retry`](super::Retry).
    pub tries: u32,
    /// How long the last try ran.
    pub ran_for: Duration,
    /// What the last try wrote to its stdout, where that was piped and nobody else took it.
    pub stdout: Vec<u8>,
    /// The same for stderr.
    pub stderr: Vec<u8>,
    /// Whether it wrote more than was kept.
    pub output_cut: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}: ", self.pid)?;
        match (self.ended_by, &self.outcome) {
            (Some(EndedBy::Kill), Outcome::Signaled(libc::SIGKILL)) => {
                f.write_str("killed by this process (SIGKILL)")?;
            }
            (Some(EndedBy::TimeLimit), Outcome::Signaled(libc::SIGKILL)) => {
                f.write_str("killed by this process (SIGKILL): its time was up")?;
            }
            (_, outcome) => write!(f, "{outcome}")?,
        }
        if !self.outcome.is_memory() && self.last_look.as_ref().is_some_and(LastLook::had_run_out) {
            f.write_str(", although its record says that it had run out of memory")?;
        }
        write!(f, "; after {:.3} s", self.ran_for.as_secs_f64())?;
        if self.tries > 1 {
            write!(f, ", try {}", self.tries)?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit {}", super::size(limit))?;
        }
        write!(f, ", resident at most {}", super::size(self.resident_peak))?;
        if self.left_behind.is_any() {
            write!(f, "; {}", self.left_behind)?;
        }
        Ok(())
    }
}

/// The line for a log, where there is one.
pub(super) fn announce(ended: &Ended) {
    #[cfg(feature = "log")]
    match &ended.outcome {
        Outcome::Success => log::info!(target: "oomguard", "worker {ended}"),
        _ => log::warn!(target: "oomguard", "worker {ended}"),
    }
    #[cfg(not(feature = "log"))]
    let _ = ended;
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}
