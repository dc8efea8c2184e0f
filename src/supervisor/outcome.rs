//! From what was seen of a death to its name: status, record and the kernel's counter. The verdict is a pure function.

use super::descendants::LeftBehind;
use super::kernel_kills::OomKill;
use super::report::{LastLook, Report};
use crate::contract::{EXIT_OUT_OF_MEMORY, Evidence};
use crate::record::{Claims, State};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// How a worker ended.
///
/// `Display` says in one line what led to the verdict.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Exit code 0.
    Success,
    /// The worker reached its own limit: its exit code and the record that it left agree; or, where the report
    /// [is inferred](Report::is_inferred), it failed after a refusal by that limit which nothing made good.
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
    /// Whether memory was the cause: the worker's own limit, or the kernel's killer.
    pub fn is_memory(&self) -> bool {
        matches!(self, Outcome::OutOfMemory(_) | Outcome::OomKilled(_))
    }

    /// Whether the worker ended with exit code 0.
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
    /// The most that was ever resident, in bytes, as the kernel counts it (getrusage(2)): of the worker and of those
    /// children that it waited for, whichever was largest. Known for every program.
    pub resident_peak: u64,
    /// What a guarded worker last said of itself, whatever it died of; `None` where no guard filled the record.
    pub last_look: Option<LastLook>,
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

/// Names a death. `inferred` is what a tracer makes of it, if one followed the worker: less than what the worker says
/// itself, but the only word about a descendant that says nothing. `take_kill` asks the kernel's counter, and is only
/// called where the answer matters.
pub(super) fn judge(
    status: ExitStatus,
    claims: Option<&Claims>,
    inferred: Option<Claims>,
    ended_by: Option<EndedBy>,
    ended_at_ms: u64,
    take_kill: impl FnOnce() -> Option<OomKill>,
) -> Outcome {
    let inferred = inferred.filter(|inferred| claims.is_none_or(|claims| claims.pid != inferred.pid));
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Success,
        (Some(code), _) => match claims {
            Some(claims) if claims.state == State::Exhausted && i32::from(claims.exit_code) == code => {
                Outcome::OutOfMemory(Report::new(claims.clone()))
            }
            Some(claims) if says_so_to_the_end(claims, ended_at_ms) => {
                Outcome::OutOfMemory(Report::new(Claims {
                    inferred: true,
                    evidence: Some(Evidence::Outside),
                    own_exit_code: u8::try_from(code).ok(),
                    ..claims.clone()
                }))
            }
            _ => inferred.map_or(Outcome::Exited(code), |claims| Outcome::OutOfMemory(Report::new(claims))),
        },
        (None, Some(libc::SIGKILL)) if ended_by.is_none() => {
            take_kill().map_or(Outcome::Signaled(libc::SIGKILL), Outcome::OomKilled)
        }
        (None, signal) => match inferred.filter(|_| ended_by.is_none()) {
            Some(claims) => Outcome::OutOfMemory(Report::new(claims)),
            None => Outcome::Signaled(signal.unwrap_or(0)),
        },
    }
}

/// Whether a worker that ended by a call that its guard does not see (exit_group(2), made by itself) had just said that
/// memory is gone, after a refusal that it had not got over.
fn says_so_to_the_end(claims: &Claims, ended_at_ms: u64) -> bool {
    const LATELY_MS: u64 = 2000;
    claims.state == State::Armed
        && claims.said_at_ms.is_some_and(|said_ms| ended_at_ms.saturating_sub(said_ms) <= LATELY_MS)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Cause, Measure};
    use crate::record::Untold;
    use crate::report::Request;
    use crate::sys::memory::MemoryUse;
    use crate::text::Text;

    fn claims(state: State, exit_code: u8) -> Claims {
        Claims {
            state,
            pid: 7,
            cause: Cause::Heap,
            tid: 7,
            program: Text::from_bytes(b"worker"),
            thread: Text::from_bytes(b"main"),
            token: None,
            request: Some(Request { bytes: 4096, align: None }),
            limit: Some(64 << 20),
            limit_source: None,
            measure: Measure::Data,
            limit_refused: None,
            memory: MemoryUse::default(),
            refusals: 1,
            exit_code,
            uptime_ms: 5,
            evidence: None,
            own_exit_code: None,
            own_signal: None,
            budget: None,
            budget_used: None,
            waited_ms: None,
            inferred: false,
            profile: None,
            said_at_ms: None,
            untold: Untold::default(),
        }
    }

    fn verdict(
        raw: i32,
        claims: Option<Claims>,
        ended_by: Option<EndedBy>,
        kill: Option<OomKill>,
    ) -> Outcome {
        judge(ExitStatus::from_raw(raw), claims.as_ref(), None, ended_by, 0, || kill)
    }

    fn exit(code: i32) -> i32 {
        code << 8
    }

    #[test]
    fn every_exit_code_is_itself_without_a_record() {
        for code in 1..=255 {
            for record in [None, Some(claims(State::Armed, 198))] {
                assert!(
                    matches!(verdict(exit(code), record, None, None), Outcome::Exited(got) if got == code)
                );
            }
        }
        assert!(verdict(0, Some(claims(State::Exhausted, 198)), None, None).is_success());
    }

    #[test]
    fn out_of_memory_needs_code_and_record_to_agree() {
        let agreed = verdict(exit(198), Some(claims(State::Exhausted, 198)), None, None);
        assert!(matches!(agreed, Outcome::OutOfMemory(_)));
        let other_code = verdict(exit(77), Some(claims(State::Exhausted, 77)), None, None);
        assert!(matches!(other_code, Outcome::OutOfMemory(_)));
        for (raw, record) in [
            (exit(198), None),
            (exit(198), Some(claims(State::Armed, 198))),
            (exit(198), Some(claims(State::Exhausted, 77))),
            (exit(1), Some(claims(State::Exhausted, 198))),
            (libc::SIGABRT, Some(claims(State::Exhausted, 198))),
        ] {
            assert!(!verdict(raw, record, None, None).is_memory(), "{raw}");
        }
    }

    #[test]
    fn a_sigkill_is_the_kernels_only_if_its_counter_rose_and_nobody_here_sent_it() {
        let kill = Some(OomKill::example());
        assert!(matches!(verdict(libc::SIGKILL, None, None, kill), Outcome::OomKilled(_)));
        for (raw, ended_by, kill) in [
            (libc::SIGKILL, None, None),
            (libc::SIGKILL, Some(EndedBy::Kill), kill),
            (libc::SIGKILL, Some(EndedBy::TimeLimit), kill),
            (libc::SIGTERM, None, kill),
            (exit(137), None, kill),
        ] {
            assert!(!verdict(raw, None, ended_by, kill).is_memory(), "{raw} {ended_by:?}");
        }
    }

    #[test]
    fn what_a_tracer_saw_counts_where_the_worker_says_nothing_itself() {
        let inferred = |pid| Some(Claims { pid, inferred: true, ..claims(State::Exhausted, 198) });
        let of = |raw, own: Option<Claims>, seen, ended_by| {
            judge(ExitStatus::from_raw(raw), own.as_ref(), seen, ended_by, 0, || None).is_memory()
        };
        assert!(of(exit(1), None, inferred(7), None));
        assert!(of(libc::SIGSEGV, None, inferred(7), None));
        assert!(!of(exit(0), None, inferred(7), None));
        assert!(!of(libc::SIGSEGV, None, inferred(7), Some(EndedBy::Kill)));
        assert!(!of(libc::SIGKILL, None, inferred(7), None));
        let armed = || Some(claims(State::Armed, 198));
        assert!(!of(exit(1), armed(), inferred(7), None), "a guarded program knows better");
        assert!(of(exit(1), armed(), inferred(8), None), "a guarded wrapper does not speak for its child");
    }

    #[test]
    fn each_outcome_says_what_led_to_it() {
        let text = |raw, record, kill| verdict(raw, record, None, kill).to_string();
        assert_eq!(text(0, None, None), "succeeded: exit code 0");
        assert_eq!(text(exit(3), None, None), "exit code 3");
        assert!(text(exit(198), None, None).contains("no record that proves it"));
        assert_eq!(
            text(exit(198), Some(claims(State::Exhausted, 198)), None),
            "out of memory: exit code 198 and the record agree: worker (pid 7) was refused 4096 bytes at its limit of \
             64 MiB (data)"
        );
        assert!(text(9, None, Some(OomKill::example())).contains("oom_kill in memory.events rose by 1"));
        assert!(text(9, None, None).contains("not by the kernel's"));
        assert_eq!(text(11, None, None), "killed by signal 11 (SIGSEGV)");
    }
}
