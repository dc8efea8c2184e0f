//! From what was seen of a death to its name: status, record and the kernel's counter. The verdict is a pure function.

use super::deaths::{is_death, may_be_death};
use super::kernel_kills::OomKill;
use super::outcome::{EndedBy, Outcome};
use super::report::Report;
use super::sys;
use crate::contract::{Cause, Evidence, Sufficient};
use crate::message::Message;
use crate::record::{Child, Claims, Failed, Open, PASSED_ON_MS, State, may_be};
use crate::text::Text;
use oomguard_core::report::Request;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

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
    /// The child whose end it has passed on, or a child of that one's: the last one that it has waited for.
    pub(super) failed: Option<Failed>,
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
        let unsaid = || match self.status.into_raw() {
            status if is_death(status) => self.unsaid(),
            // Only who followed it knows that it has sent that signal itself.
            status if may_be_death(status) => self.inferred.clone(),
            _ => None,
        };
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
            .filter(|claims| {
                claims.open.is_some_and(|open| is_fatal(&open, self.status.into_raw(), self.at_ms))
            })
            .map(|claims| self.speak_for(claims, self.status.code(), self.status.signal()))
            .or_else(|| inferred.cloned())
            .or_else(|| self.unsaid_by_child())
            .or_else(|| self.unloaded.map(|claims| self.speak_for(claims, self.status.code(), None)))
    }

    /// The same of a child whose end it passed on, or a child's of its: that must have said so, just before it failed.
    fn unsaid_by_child(&self) -> Option<Claims> {
        let is_at_once = |failed: &Failed| self.at_ms.saturating_sub(failed.at_ms) <= PASSED_ON_MS;
        let failed = self.failed.filter(|failed| is_death(failed.status)).filter(is_at_once)?;
        let has_said_so = |open: Open| {
            open.said.is_some() && is_fatal(&open, failed.status, failed.at_ms.max(open.since_ms))
        };
        let is_child = |claims: &Claims| match failed.child {
            Child::Number(child) => claims.pid == child,
            Child::DeadAfter(ms) => {
                claims.open.is_some_and(|open| open.since_ms > ms)
                    && may_be(claims.parent, failed.of)
                    && !sys::child::is_alive(claims.pid)
            }
        };
        let is_it = |claims: &&Claims| {
            is_child(claims) && claims.state == State::Armed && claims.open.is_some_and(has_said_so)
        };
        let child = ExitStatus::from_raw(failed.status);
        self.descendants
            .iter()
            .rfind(is_it)
            .map(|claims| self.speak_for(claims, child.code(), child.signal()))
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
            request: open.map(|open| {
                let noted = claims.request.filter(|request| request.bytes == open.bytes);
                noted.unwrap_or(Request { bytes: open.bytes, align: None })
            }),
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

/// Whether a process that is gone without having been looked at by its guard died of what it was refused. No missing block
/// raises the signals that a guard does not look at.
fn is_fatal(open: &Open, status: i32, at_ms: u64) -> bool {
    const UNWATCHED: [i32; 3] = [libc::SIGBUS, libc::SIGFPE, libc::SIGSYS];
    let is_of_another_fault = libc::WIFSIGNALED(status) && UNWATCHED.contains(&libc::WTERMSIG(status));
    let since = |ms: u64| at_ms.saturating_sub(ms);
    match open.said {
        Some((Message::OutOfMemory, said_ms, bytes_since)) => {
            since(said_ms) <= SAID_MS && bytes_since <= STRAIGHT_BYTES
        }
        Some((Message::OtherDeath | Message::Unrelated, ..)) => false,
        None => {
            open.cause != Cause::Mapping
                && !is_of_another_fault
                && since(open.since_ms) <= STRAIGHT_MS
                && open.allocations_since <= STRAIGHT_ALLOCATIONS
                && open.bytes_since <= STRAIGHT_BYTES
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Measure;
    use crate::sys::memory::MemoryUse;

    fn claims(state: State, exit_code: u8) -> Claims {
        Claims {
            state,
            pid: 7,
            parent: 0,
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
            holders: [None; oomguard_core::report::HOLDERS],
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
            failed: None,
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
        for signal in [libc::SIGFPE, libc::SIGBUS, libc::SIGSYS] {
            assert!(!of(signal, Some(open)).is_memory(), "{signal}");
            assert!(of(signal, Some(said(Message::OutOfMemory, 0, 0))).is_memory(), "{signal}");
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
    fn what_a_child_said_that_it_ends_of_counts_if_its_wrapper_passes_its_end_on() {
        let own = claims(State::Armed, 198);
        // No process has it.
        let child = 1 << 30;
        let report_of = |raw, failed, said| {
            let open = Open {
                cause: Cause::Heap,
                bytes: 4096,
                since_ms: NOW_MS - 5000,
                allocations_since: 0,
                bytes_since: 0,
                said,
            };
            let fallen = [Claims { pid: child, parent: 7, open: Some(open), ..own.clone() }];
            match judge(Seen { descendants: &fallen, failed, ..seen(raw, Some(&own)) }, || None).0 {
                Outcome::OutOfMemory(report) => Some(report),
                _ => None,
            }
        };
        let said = Some((Message::OutOfMemory, NOW_MS - 3000, 0));
        let failed = Failed {
            child: Child::Number(child),
            of: 7,
            parent: 7,
            above: 0,
            status: exit(2),
            at_ms: NOW_MS - PASSED_ON_MS,
        };
        let report = report_of(exit(2), Some(failed), said).unwrap();
        assert_eq!((report.pid(), report.own_exit_code(), report.own_signal()), (child, Some(2), None));
        let crashed = Failed { status: libc::SIGABRT, ..failed };
        let report = report_of(exit(134), Some(crashed), said).unwrap();
        assert_eq!((report.own_exit_code(), report.own_signal()), (None, Some(6)));
        let unknown = Failed { child: Child::DeadAfter(NOW_MS - 6000), ..failed };
        assert!(report_of(exit(2), Some(unknown), said).is_some());
        for (raw, failed, said) in [
            (exit(2), None, said),
            // Another process's child.
            (exit(2), Some(Failed { of: 8, ..unknown }), said),
            // Another child; too late.
            (exit(2), Some(Failed { child: Child::Number(71), ..failed }), said),
            (exit(2), Some(Failed { at_ms: failed.at_ms - 1, ..failed }), said),
            // Somebody ended it.
            (exit(143), Some(Failed { status: libc::SIGTERM, ..failed }), said),
            (exit(2), Some(failed), None),
            (exit(2), Some(failed), Some((Message::Unrelated, NOW_MS - 3000, 0))),
        ] {
            assert!(report_of(raw, failed, said).is_none(), "{raw} {failed:?} {said:?}");
        }
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
