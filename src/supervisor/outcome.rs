//! From what was seen of a death to its name: status, record and the kernel's counter. The verdict is a pure function.

use super::descendants::LeftBehind;
use super::kernel_kills::OomKill;
use super::report::{LastLook, Report};
use super::sys;
use super::tracer::is_death;
use crate::contract::{Cause, EXIT_OUT_OF_MEMORY, Evidence, Sufficient};
use crate::message::Message;
use crate::record::{Claims, Open, State};
use crate::report::Request;
use crate::text::Text;
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
    /// How many requests were refused, to the worker and to those descendants that are known; with an outcome other
    /// than memory, they were survived.
    pub refusals: u64,
    /// The last of these requests, in bytes: the worker's, or else a descendant's.
    pub last_refused: Option<u64>,
    /// A report whose evidence is not [`Sufficient`].
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

/// What was seen of a worker's end.
pub(super) struct Seen<'a> {
    pub(super) status: ExitStatus,
    pub(super) ended_by: Option<EndedBy>,
    pub(super) pid: u32,
    /// What it said itself; or, where it says nothing, the first one of its descendants that does.
    pub(super) claims: Option<&'a Claims>,
    /// What its descendants said: those that ended of a refusal in the order of their ends.
    pub(super) descendants: &'a [Claims],
    /// What tracers make of it: less than what a process says itself, but the only word about one that says nothing.
    pub(super) inferred: Option<Claims>,
    /// Those that were found over their limit without having asked, and were told to end, as reports.
    pub(super) over: &'a [Claims],
    /// A descendant that could not be loaded, and whose end it passed on.
    pub(super) unloaded: Option<&'a Claims>,
    /// When it ended, by the clock that all processes share.
    pub(super) at_ms: u64,
    /// Whether a descendant counts whose end the worker did not pass on.
    pub(super) any_descendant: bool,
    pub(super) sufficient: Sufficient,
}

/// Names a death; with the report that did not suffice. `take_kill` asks the kernel's counter, and is only called where
/// the answer matters.
pub(super) fn judge(
    seen: Seen<'_>,
    take_kill: impl FnOnce() -> Option<OomKill>,
) -> (Outcome, Option<Report>) {
    let own = match (seen.status.code(), seen.status.signal()) {
        (Some(0), _) => Outcome::Success,
        (Some(code), _) => Outcome::Exited(code),
        (None, Some(libc::SIGKILL)) if seen.ended_by.is_none() => {
            take_kill().map_or(Outcome::Signaled(libc::SIGKILL), Outcome::OomKilled)
        }
        (None, signal) => Outcome::Signaled(signal.unwrap_or(0)),
    };
    match seen.of_memory() {
        Some(claims) if seen.sufficient.allows(claims.evidence) => {
            (Outcome::OutOfMemory(Report::new(claims)), None)
        }
        Some(claims) => {
            let without_us = match (claims.own_exit_code, claims.own_signal) {
                _ if claims.inferred => own,
                (Some(code), _) => Outcome::Exited(code.into()),
                (None, Some(signal)) => Outcome::Signaled(signal.into()),
                (None, None) => own,
            };
            (without_us, Some(Report::new(claims)))
        }
        None => {
            let doubtful = seen.doubtful().map(Report::new);
            (own, doubtful)
        }
    }
}

impl Seen<'_> {
    /// What was refused to the process whose end this is, if that is what it died of.
    fn of_memory(&self) -> Option<Claims> {
        if self.ended_by.is_some() {
            return None;
        }
        let passed_on = match self.status.code() {
            Some(0) => None,
            Some(code) => self.own_word(code).or_else(|| self.descendants_word(code)),
            None => None,
        };
        let unsaid = || if is_death(self.status.into_raw()) { self.unsaid() } else { None };
        let any = || {
            let suffices = |claims: &&Claims| {
                claims.state == State::Exhausted && self.sufficient.allows(claims.evidence)
            };
            let ended = self.descendants.iter().rfind(suffices);
            let by_itself = self.status.code().is_some() || is_death(self.status.into_raw());
            ended.filter(|_| self.any_descendant && by_itself).cloned()
        };
        passed_on.or_else(|| self.found_over()).or_else(unsaid).or_else(any)
    }

    /// What it would have been ended for, or one of its descendants, had the evidence been enough.
    fn doubtful(&self) -> Option<Claims> {
        let failed = self.ended_by.is_none() && !ExitStatus::success(&self.status);
        let claims = self.claims.into_iter().filter(|claims| claims.pid == self.pid);
        claims.chain(self.descendants.iter().rev()).find(|claims| failed && claims.is_doubtful).cloned()
    }

    /// It was found over its limit and ended by a signal, without a word of its own; or passed on that this happened to one
    /// of its descendants, by a code as shells do, or by the same signal as sudo does.
    fn found_over(&self) -> Option<Claims> {
        const SIGNALS: [i32; 2] = [libc::SIGKILL, libc::SIGABRT];
        let own = || self.over.iter().find(|claims| claims.pid == self.pid);
        let descendants = |code| {
            let is_passed_on = SIGNALS.iter().any(|signal| code == 128 + signal);
            self.over.iter().rfind(|claims| is_passed_on && claims.pid != self.pid)
        };
        match (self.status.code(), self.status.signal()) {
            (None, Some(signal)) if SIGNALS.contains(&signal) => own()
                .map(|claims| Claims { own_signal: None, ..claims.clone() })
                .or_else(|| descendants(128 + signal).cloned()),
            (Some(code), _) => descendants(code).cloned(),
            _ => None,
        }
    }

    fn own_word(&self, code: i32) -> Option<Claims> {
        self.claims
            .filter(|claims| claims.state == State::Exhausted && i32::from(claims.exit_code) == code)
            .cloned()
    }

    /// A shell, or another wrapper, passes on how its child ended.
    fn descendants_word(&self, code: i32) -> Option<Claims> {
        let is_it = |claims: &&Claims| {
            claims.state == State::Exhausted && !claims.inferred && i32::from(claims.exit_code) == code
        };
        self.descendants.iter().rfind(is_it).cloned()
    }

    /// The process was gone before its guard could say anything: system calls of its own, or a crash without a stack.
    fn unsaid(&self) -> Option<Claims> {
        let inferred = self.inferred.as_ref();
        let inferred = inferred.filter(|inferred| {
            self.claims.is_none_or(|claims| !claims.is_acquitted || claims.pid != inferred.pid)
        });
        self.claims
            .filter(|claims| claims.state == State::Armed && claims.pid == self.pid)
            .filter(|claims| claims.open.is_some_and(|open| is_fatal(&open, self.at_ms)))
            .map(|claims| self.speak_for(claims, self.status.code(), self.status.signal()))
            .or_else(|| inferred.cloned())
            .or_else(|| {
                let fallen = |claims: &&Claims| {
                    claims.state == State::Armed
                        && claims.open.is_some_and(|open| is_announced(&open, self.at_ms))
                        && !sys::child::is_alive(claims.pid)
                };
                self.descendants.iter().find(fallen).map(|claims| self.speak_for(claims, None, None))
            })
            .or_else(|| self.unloaded.map(|claims| self.speak_for(claims, self.status.code(), None)))
    }

    /// The report that a process would have made.
    fn speak_for(&self, claims: &Claims, code: Option<i32>, signal: Option<i32>) -> Claims {
        let small = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
        let open = claims.open;
        Claims {
            state: State::Exhausted,
            inferred: true,
            cause: open.map_or(claims.cause, |open| open.cause),
            refusals: claims.refusals.max(1),
            thread: Text::from_bytes(if claims.tid == claims.pid { b"main" } else { b"?" }),
            request: open.map(|open| Request { bytes: open.bytes, align: None }),
            limit_refused: Some(true),
            evidence: Some(Evidence::Outside),
            own_exit_code: small(code),
            own_signal: small(signal),
            ..claims.clone()
        }
    }
}

/// How long ago the words may be that a program dies with, or the refusal that it dies of without a word.
const SAID_MS: u64 = 10_000;
const STRAIGHT_MS: u64 = 1000;
/// What it may have allocated since: as the guard judges it.
const STRAIGHT_ALLOCATIONS: u64 = 32;
const STRAIGHT_BYTES: u64 = 64 << 10;

/// Whether a process that is gone without having been looked at by its guard died of what it was refused.
fn is_fatal(open: &Open, at_ms: u64) -> bool {
    let since = |ms: u64| at_ms.saturating_sub(ms);
    match open.said {
        Some((Message::OutOfMemory, said_ms, bytes_since)) => {
            since(said_ms) <= SAID_MS && bytes_since <= STRAIGHT_BYTES
        }
        Some((Message::OtherDeath | Message::Unrelated, ..)) => false,
        None => {
            open.cause != Cause::Mapping
                && since(open.since_ms) <= STRAIGHT_MS
                && open.allocations_since <= STRAIGHT_ALLOCATIONS
                && open.bytes_since <= STRAIGHT_BYTES
        }
    }
}

/// How soon a wrapper passes on what its child has just said that it ends of. Who takes longer has done something else: Jest
/// ends a worker that says so, and then tells of its tests.
const PASSED_ON_MS: u64 = 100;

/// The same of a descendant, of which nobody here knows how it ended: it must have said so, just before the worker
/// failed.
fn is_announced(open: &Open, at_ms: u64) -> bool {
    matches!(open.said, Some((Message::OutOfMemory, said_ms, _)) if at_ms.saturating_sub(said_ms) <= PASSED_ON_MS)
        && is_fatal(open, at_ms)
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
    use crate::contract::Measure;
    use crate::supervisor::sys::memory::MemoryUse;

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
            holders: [None; crate::report::HOLDERS],
            inferred: false,
            profile: None,
            told: None,
            open: None,
            order: 0,
            loading: None,
            is_acquitted: false,
            is_doubtful: false,
        }
    }

    const NOW_MS: u64 = 100_000;

    fn seen(raw: i32, claims: Option<&Claims>) -> Seen<'_> {
        Seen {
            status: ExitStatus::from_raw(raw),
            ended_by: None,
            pid: 7,
            claims,
            descendants: &[],
            inferred: None,
            unloaded: None,
            over: &[],
            at_ms: NOW_MS,
            any_descendant: false,
            sufficient: Sufficient::Likely,
        }
    }

    fn verdict(
        raw: i32,
        claims: Option<Claims>,
        ended_by: Option<EndedBy>,
        kill: Option<OomKill>,
    ) -> Outcome {
        judge(Seen { ended_by, ..seen(raw, claims.as_ref()) }, || kill).0
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
        let of = |raw, own: Option<Claims>, inferred, ended_by| {
            judge(Seen { inferred, ended_by, ..seen(raw, own.as_ref()) }, || None).0.is_memory()
        };
        assert!(of(exit(1), None, inferred(7), None));
        assert!(of(libc::SIGSEGV, None, inferred(7), None));
        assert!(!of(exit(0), None, inferred(7), None));
        assert!(!of(libc::SIGSEGV, None, inferred(7), Some(EndedBy::Kill)));
        assert!(!of(libc::SIGKILL, None, inferred(7), None));
        let armed = |is_acquitted| Some(Claims { is_acquitted, ..claims(State::Armed, 198) });
        assert!(!of(exit(1), armed(true), inferred(7), None), "a guarded program knows better …");
        assert!(of(exit(1), armed(false), inferred(7), None), "… if it was asked");
        assert!(
            of(exit(1), armed(true), inferred(8), None),
            "a guarded wrapper does not speak for its child"
        );
    }

    #[test]
    fn a_descendants_record_proves_the_code_that_was_passed_on() {
        let wrapper = claims(State::Armed, 198);
        let child = |exit_code, order| Claims {
            pid: 70 + order as u32,
            order,
            ..claims(State::Exhausted, exit_code)
        };
        let judged = |raw, descendants: &[Claims], any_descendant| {
            let seen = Seen { descendants, any_descendant, ..seen(raw, Some(&wrapper)) };
            match judge(seen, || None).0 {
                Outcome::OutOfMemory(report) => Some(report.pid()),
                _ => None,
            }
        };
        assert_eq!(judged(exit(198), &[child(198, 1), child(198, 2)], false), Some(72), "the last one");
        assert_eq!(judged(exit(77), &[child(77, 1), child(198, 2)], false), Some(71));
        assert_eq!(judged(exit(198), &[], false), None);
        assert_eq!(judged(exit(2), &[child(198, 1)], false), None, "swallowed");
        assert_eq!(judged(0, &[child(198, 1)], false), None);
        for raw in [exit(2), 0, libc::SIGABRT] {
            assert_eq!(judged(raw, &[child(198, 1)], true), Some(71), "{raw}");
            assert_eq!(judged(raw, &[claims(State::Armed, 198)], true), None);
        }
        assert_eq!(judged(libc::SIGTERM, &[child(198, 1)], true), None, "somebody ended it");
    }

    #[test]
    fn who_leaves_by_a_door_that_nobody_watches_is_spoken_for() {
        let open = Open {
            cause: Cause::Heap,
            bytes: 4096,
            since_ms: NOW_MS,
            allocations_since: 0,
            bytes_since: 0,
            said: None,
        };
        let said = |message, ago_ms, bytes| Open { said: Some((message, NOW_MS - ago_ms, bytes)), ..open };
        let of = |raw, open| {
            let own = Claims { open, ..claims(State::Armed, 198) };
            judge(seen(raw, Some(&own)), || None).0
        };
        let old = Open { since_ms: 0, ..said(Message::OutOfMemory, 0, 0) };
        for open in [open, said(Message::OutOfMemory, 0, 0), old] {
            let Outcome::OutOfMemory(report) = of(exit(2), Some(open)) else { panic!("{open:?}") };
            assert_eq!((report.evidence(), report.own_exit_code()), (Some(Evidence::Outside), Some(2)));
            assert!(report.is_inferred());
            assert!(of(libc::SIGSEGV, Some(open)).is_memory());
            let another = Claims { pid: 8, open: Some(open), ..claims(State::Armed, 198) };
            assert!(
                !judge(seen(exit(2), Some(&another)), || None).0.is_memory(),
                "a descendant's, which may live"
            );
            for raw in [0, libc::SIGTERM, libc::SIGKILL] {
                assert!(!of(raw, Some(open)).is_memory(), "{raw}");
            }
        }
        for open in [
            None,
            Some(Open { since_ms: NOW_MS - STRAIGHT_MS - 1, ..open }),
            Some(Open { allocations_since: STRAIGHT_ALLOCATIONS + 1, ..open }),
            Some(Open { bytes_since: STRAIGHT_BYTES + 1, ..open }),
            Some(Open { cause: Cause::Mapping, ..open }),
            Some(said(Message::Unrelated, 0, 0)),
            Some(said(Message::OtherDeath, 0, 0)),
            Some(said(Message::OutOfMemory, SAID_MS + 1, 0)),
            Some(said(Message::OutOfMemory, 0, STRAIGHT_BYTES + 1)),
        ] {
            assert!(!of(exit(2), open).is_memory(), "{open:?}");
        }
    }

    #[test]
    fn a_wrapper_passes_on_that_its_child_was_over_its_limit() {
        let over =
            [Claims { pid: 70, cause: Cause::Resident, inferred: true, ..claims(State::Exhausted, 198) }];
        let is_memory = |raw, over| judge(Seen { over, ..seen(raw, None) }, || None).0.is_memory();
        for (raw, is) in [
            (exit(137), true),
            (libc::SIGKILL, true),
            (exit(134), true),
            (exit(1), false),
            (0, false),
            (libc::SIGTERM, false),
        ] {
            assert_eq!(is_memory(raw, &over[..]), is, "{raw}");
            assert!(!is_memory(raw, &[]), "{raw}");
        }
    }

    #[test]
    fn what_a_child_announced_counts_if_its_wrapper_fails_at_once() {
        let own = claims(State::Armed, 198);
        let is_memory = |ago_ms| {
            let open = Open {
                cause: Cause::Heap,
                bytes: 4096,
                since_ms: NOW_MS - ago_ms,
                allocations_since: 0,
                bytes_since: 0,
                said: Some((Message::OutOfMemory, NOW_MS - ago_ms, 0)),
            };
            // No process has such a number.
            let fallen = [Claims { pid: i32::MAX.unsigned_abs(), open: Some(open), ..own.clone() }];
            judge(Seen { descendants: &fallen, ..seen(exit(1), Some(&own)) }, || None).0.is_memory()
        };
        assert!(is_memory(PASSED_ON_MS));
        assert!(!is_memory(PASSED_ON_MS + 1), "it has done something else");
    }

    #[test]
    fn evidence_that_does_not_suffice_leaves_the_end_as_it_was() {
        let judged = |evidence, own_exit_code, own_signal| {
            let own = Claims { evidence, own_exit_code, own_signal, ..claims(State::Exhausted, 198) };
            judge(Seen { sufficient: Sufficient::Exact, ..seen(exit(198), Some(&own)) }, || None)
        };
        for evidence in [Evidence::Exact, Evidence::Fault] {
            let (outcome, doubtful) = judged(Some(evidence), Some(1), None);
            assert!(outcome.is_memory() && doubtful.is_none());
        }
        for evidence in [Evidence::Said, Evidence::Missing, Evidence::Straight, Evidence::Outside] {
            let (outcome, doubtful) = judged(Some(evidence), Some(1), None);
            assert!(matches!(outcome, Outcome::Exited(1)), "{outcome}");
            assert_eq!(doubtful.and_then(|report| report.evidence()), Some(evidence));
            assert!(matches!(judged(Some(evidence), None, Some(6)).0, Outcome::Signaled(6)));
        }
        assert!(matches!(judged(None, None, None).0, Outcome::Exited(198)));
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
