//! The process that follows a worker and its descendants, stops them at the calls that map memory, and notes what was
//! refused. Everything else passes: signals are handed on, group stops are left alone. A thread that was refused something
//! is stopped at every system call for a while, as what it says and gives back bears on the verdict.
//!
//! It is forked from the supervisor, and must be a process of its own: a tracer in the supervisor's process would have
//! its stops reported to every wait(2) there, and would take the worker along when the supervisor dies. So it follows
//! the rules for signal handlers: it neither allocates, locks nor panics. Unsafe code is allowed here, for the start of that
//! process.

use super::calls::{Call, map_calls};
use super::deaths::may_be_death;
use super::findings::{Findings, map_findings, note_holders};
use super::refusals::{Access, End, Outcome, Sought, enough, is_for_words};
use super::room::{Answer, Room};
use super::sys;
use super::sys::memory::{MemoryUse, Rlimit, rlimit, set_rlimit};
use super::sys::trace::{CallStop, Event, Origin, Unlimited, Waited};
use super::terms::Terms;
use super::troubled::{Facts, Troubled, is_of_rust, now_of};
use crate::contract::{Cause, EXIT_RUST_PANIC, Evidence, LimitSource, Measure};
use crate::growth::laid_over;
use crate::ledger::Ledger;
use crate::overrun::STAND_STILL;
use crate::record::{Armed, Page, passes_on};
use crate::text::{Text, until};
use oomguard_core::report::{Request, Snapshot};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

/// How many processes with refusals are kept in mind at once; the oldest gives way.
const MOST_PROCESSES: usize = 64;

/// So much of a file's name is looked at.
const PATH_BYTES: usize = 256;

/// A thread that is left where it was refused, as others who share its budget have what it wants.
#[derive(Clone, Copy)]
struct Waiter {
    tid: u32,
    /// What the call has returned; `None`: it is yet to be made.
    result: Option<i64>,
    pause_ms: u64,
    due_ms: u64,
}

/// How many can wait at once; the next is refused.
const MOST_WAITERS: usize = 256;

/// A thread that is held still, as those who share its budget are about to fill the container.
#[derive(Clone, Copy)]
struct Still {
    tid: u32,
    pid: u32,
}

/// How many can stand still at once; the next goes on.
const MOST_STILL: usize = 64;
/// How often it is asked whether they are to go on.
const STILL_PAUSE_MS: u64 = 2;

/// The longest that a waiter is not asked for, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 16;

/// What a thread does that has made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoesOn,
    /// It is left where it stands.
    Waits,
}

pub(super) struct Tracer {
    terms: Terms,
    /// The worker; or the descendant that is followed.
    worker: u32,
    follows_descendant: bool,
    started_ms: u64,
    room: Option<Room>,
    troubled: [Option<Troubled>; MOST_PROCESSES],
    next: usize,
    waiters: [Option<Waiter>; MOST_WAITERS],
    still: [Option<Still>; MOST_STILL],
    /// When it is to be asked whether they are to go on.
    still_due_ms: u64,
    /// The parent of the descendant that last died of what it was refused, and how that ended.
    fallen: Option<(u32, i32)>,
}

impl Tracer {
    pub(super) fn new(terms: Terms) -> Box<Tracer> {
        let started_ms = sys::clock::monotonic_ms();
        let room = terms.resident_limit.map(|limit| Room::new(limit, terms.budget));
        Box::new(Tracer {
            terms,
            room,
            worker: 0,
            follows_descendant: false,
            started_ms,
            troubled: [None; MOST_PROCESSES],
            next: 0,
            waiters: [None; MOST_WAITERS],
            still: [None; MOST_STILL],
            still_due_ms: 0,
            fallen: None,
        })
    }

    /// The life of the tracer: until nobody is left to follow. `descendant`: whom it is for, where that is not the worker.
    pub(super) fn run(&mut self, socket: RawFd, findings: RawFd, descendant: Option<u32>) {
        sys::trace::withdraw(c"oomguard-tracer", [socket, findings]);
        lift_own_limits();
        sys::trace::hear_of_events();
        if let (Some(findings), Some(calls)) = (map_findings(findings), map_calls(self.terms.numbers))
            && let Some(followed) = sys::trace::answer(socket, descendant)
        {
            (self.worker, self.follows_descendant) = (followed, descendant.is_some());
            self.follow(findings, calls);
        }
    }

    fn follow(&mut self, findings: &Findings, calls: &mut [Call]) {
        loop {
            // Relaxed: a number by itself.
            if let (Some(limit), Some(room)) =
                (findings.limit_now.load(Ordering::Relaxed).checked_sub(1), &mut self.room)
            {
                room.set_limit(limit);
                self.terms.resident_limit = Some(limit);
            }
            let (tid, event) = match self.wait() {
                Waited::For(tid, event) => (tid, event),
                Waited::Nothing => {
                    self.let_go_on(calls);
                    self.ask_for_waiters(calls, findings);
                    continue;
                }
                Waited::Nobody => return,
            };
            // A number beyond the table has no slot of its own; it is let run, unseen.
            let Some(call) = calls.get_mut(tid as usize) else {
                let_run(tid, event);
                continue;
            };
            match event {
                Event::Call => {
                    // Relaxed: a number by itself.
                    findings.stops.fetch_add(1, Ordering::Relaxed);
                    call.is_noted = call.note(tid);
                    if !call.is_noted {
                        sys::trace::follow_hidden_child(tid);
                    }
                    if call.unlimited != Unlimited::Nothing && self.ask_before(tid, call) == Then::Waits {
                        continue;
                    }
                    if call.is_noted {
                        sys::trace::go_on_to_call(tid, 0);
                    } else {
                        call.go_on(tid, 0);
                    }
                }
                Event::CallStop => {
                    if self.stop_at_call(tid, call, findings) == Then::GoesOn {
                        call.go_on(tid, 0);
                    }
                }
                Event::Exec => {
                    // Its number is the process's from now on, whichever thread it was.
                    *call = Call { process: tid, ..Call::default() };
                    self.forget_waiter(tid);
                    self.forget(tid, findings);
                    if self.fallen.is_some_and(|(parent, _)| parent == tid) {
                        self.forget_fallen(findings);
                    }
                    if let Some(room) = &self.room {
                        room.settle(tid);
                    }
                    call.go_on(tid, 0);
                }
                Event::Ending => {
                    self.judge_end(tid, call, findings);
                    sys::trace::go_on(tid, 0);
                }
                Event::Gone(status) => {
                    self.end_pledge(call, false);
                    *call = Call::default();
                    self.forget_waiter(tid);
                    self.still.iter_mut().for_each(|slot| *slot = slot.filter(|still| still.tid != tid));
                    self.note_death(tid, status, findings);
                }
                Event::Forked => {
                    self.note_forked(tid, call);
                    if let Some(room) = &self.room
                        && let Some(child) = sys::trace::started_by(tid)
                    {
                        let parent = if call.process == 0 { tid } else { call.process };
                        room.settle_child(child, parent);
                    }
                    call.go_on(tid, 0);
                }
                Event::GroupStop => sys::trace::leave_stopped(tid),
                Event::Signal(libc::SIGSTOP) if sys::trace::is_told(tid, STAND_STILL) => {
                    if !self.hold_still(tid, call) {
                        call.go_on(tid, 0);
                    }
                }
                Event::Signal(signal) => {
                    self.note_signal(tid, call, signal);
                    call.go_on(tid, signal);
                }
                Event::Other => call.go_on(tid, 0),
            }
        }
    }

    /// A thread is about to get a signal: what that tells of its end.
    fn note_signal(&mut self, tid: u32, call: &Call, signal: i32) {
        if ![libc::SIGSEGV, libc::SIGINT, libc::SIGABRT].contains(&signal)
            || self.troubled.iter().all(Option::is_none)
        {
            return;
        }
        let process = if call.process == 0 { sys::memory::process_of(tid).0 } else { Some(call.process) };
        let Some(troubled) = self.find(process.unwrap_or(tid), false) else { return };
        let now = now_of(troubled.pid);
        let mut note_access = |address, is_mapped| {
            let is_sought = call.has_sought(address, &troubled.refusals);
            let stack_pointer = sys::trace::stack_pointer_of(tid);
            let access = Access { address, is_mapped, is_sought, stack_pointer };
            troubled.refusals.note_fault(tid, Some(access), now);
        };
        match sys::trace::origin_of_signal(tid) {
            Origin::NotMapped(address) => note_access(address, false),
            Origin::Denied(address) => note_access(address, true),
            Origin::Forbidden => troubled.refusals.note_fault(tid, None, now),
            Origin::Sent(sender) if signal == libc::SIGINT && sender == troubled.pid => {
                troubled.refusals.note_signal_to_itself(now);
            }
            Origin::Sent(sender) if signal == libc::SIGABRT && sender == troubled.pid => {
                troubled.refusals.note_abort();
                troubled.refusals.note_end_by(tid);
            }
            Origin::Sent(_) | Origin::Other => {}
        }
    }

    /// Leaves a thread where it stands, if it is still to. Nobody else is told.
    fn hold_still(&mut self, tid: u32, call: &Call) -> bool {
        let pid = if call.process == 0 { tid } else { call.process };
        if !self.room.as_ref().is_some_and(|room| room.is_to_stand_still(pid)) {
            return false;
        }
        let Some(slot) = self.still.iter_mut().find(|slot| slot.is_none()) else { return false };
        *slot = Some(Still { tid, pid });
        self.still_due_ms = sys::clock::monotonic_ms() + STILL_PAUSE_MS;
        true
    }

    /// Lets those go on that are to.
    fn let_go_on(&mut self, calls: &[Call]) {
        let (Some(room), now_ms) = (&self.room, sys::clock::monotonic_ms()) else { return };
        if now_ms < self.still_due_ms {
            return;
        }
        self.still_due_ms = now_ms + STILL_PAUSE_MS;
        for slot in &mut self.still {
            if let Some(Still { tid, pid }) = *slot
                && !room.is_to_stand_still(pid)
            {
                *slot = None;
                calls.get(tid as usize).inspect(|call| call.go_on(tid, 0));
            }
        }
    }

    /// The next event of anybody's; where somebody waits or stands still, it is not waited for longer than until that one is to be
    /// asked for.
    fn wait(&self) -> Waited {
        let still = self.still.iter().any(Option::is_some).then_some(self.still_due_ms);
        let waiters = self.waiters.iter().flatten().map(|waiter| waiter.due_ms);
        let Some(due_ms) = waiters.chain(still).min() else {
            return sys::trace::wait_any().map_or(Waited::Nobody, |(tid, event)| Waited::For(tid, event));
        };
        match due_ms.saturating_sub(sys::clock::monotonic_ms()) {
            0 => Waited::Nothing,
            ms => sys::trace::wait_any_within(ms),
        }
    }

    /// Asks again for those who wait, where it is time to.
    fn ask_for_waiters(&mut self, calls: &mut [Call], findings: &Findings) {
        let now_ms = sys::clock::monotonic_ms();
        for index in 0..MOST_WAITERS {
            let Some(slot) = self.waiters.get_mut(index) else { return };
            let Some(waiter) = slot.as_mut().filter(|waiter| waiter.due_ms <= now_ms) else { continue };
            waiter.pause_ms = (waiter.pause_ms * 2).min(LONGEST_PAUSE_MS);
            waiter.due_ms = now_ms + waiter.pause_ms;
            let Waiter { tid, result, .. } = *waiter;
            let Some(call) = calls.get_mut(tid as usize) else { continue };
            // Its handler runs first, and the call is made again: so it is with a call that a signal interrupts.
            let is_interrupted = sys::proc::has_signal_pending(tid);
            let then = match result {
                Some(_) if is_interrupted && sys::trace::make_call_again(tid, call.first) => Then::GoesOn,
                None if is_interrupted && sys::trace::come_to_call_again(tid) => {
                    call.is_noted = false;
                    Then::GoesOn
                }
                Some(result) => self.judge_call(tid, call, result, findings),
                None => self.ask_before(tid, call),
            };
            if then == Then::GoesOn {
                self.forget_waiter(tid);
                if call.is_noted { sys::trace::go_on_to_call(tid, 0) } else { call.go_on(tid, 0) }
            }
        }
    }

    /// Has a thread wait, unless too many do.
    fn keep_waiting(&mut self, tid: u32, result: Option<i64>) -> bool {
        let is_it = |slot: &Option<Waiter>| slot.is_some_and(|waiter| waiter.tid == tid);
        if self.waiters.iter().any(is_it) {
            return true;
        }
        let Some(slot) = self.waiters.iter_mut().find(|slot| slot.is_none()) else { return false };
        *slot = Some(Waiter { tid, result, pause_ms: 1, due_ms: sys::clock::monotonic_ms() + 1 });
        true
    }

    fn forget_waiter(&mut self, tid: u32) {
        for slot in &mut self.waiters {
            *slot = slot.filter(|waiter| waiter.tid != tid);
        }
    }

    fn stop_at_call(&mut self, tid: u32, call: &mut Call, findings: &Findings) -> Then {
        let Some(stop) = sys::trace::call_stop_of(tid) else { return Then::GoesOn };
        let no_memory = self.terms.no_memory;
        if let CallStop::Returned(result) = stop {
            let mut then = Then::GoesOn;
            self.end_pledge(call, !(-4095..0).contains(&result));
            if call.is_noted {
                then = self.judge_call(tid, call, result, findings);
            } else if (call.released > 0 || call.reads)
                && let Some(troubled) = self.find(call.process, false)
            {
                if call.reads && result > 0 {
                    let no_memory = no_memory.as_bytes();
                    troubled.take_in(tid, call.read_to, call.read_parts, result.cast_unsigned(), no_memory);
                }
                if call.released > 0 {
                    troubled.note_released(call.released, Some(call.began_ns));
                }
            }
            if (-4095..0).contains(&result)
                && !call.is_noted
                && !call.is_for_words
                && let Some(troubled) = self.find(call.process, false)
            {
                troubled.refusals.note_failed(-result as i32);
            }
            (call.is_noted, call.released, call.reads, call.is_for_words) = (false, 0, false, false);
            return then;
        }
        let no_memory = no_memory.as_bytes();
        let troubled = self.find(call.process, false);
        let Some(troubled) = troubled.filter(|troubled| troubled.is_watched()) else {
            call.is_watched = false;
            return Then::GoesOn;
        };
        call.released = if let CallStop::Unmap { bytes } = stop { bytes } else { 0 };
        if call.released > 0 {
            call.began_ns = now_of(call.process).used_ns;
        }
        call.reads = match stop {
            CallStop::Read { fd, at, parts } => {
                (call.read_to, call.read_parts) = (at, parts);
                !is_for_words(sys::proc::file_of(tid, fd as i32).as_bytes())
            }
            _ => false,
        };
        match stop {
            CallStop::Wait => troubled.refusals.note_wait(),
            CallStop::WaitForThread => troubled.refusals.note_wait_for_thread(),
            CallStop::Write { fd, at, len } => troubled.hear(tid, fd, at, len, no_memory),
            CallStop::WriteParts { fd, parts, count } => {
                troubled.hear_parts(tid, fd, parts, count, no_memory);
            }
            CallStop::Send { at, len } => troubled.hear_sent(tid, at, len, no_memory),
            CallStop::Connect { at } => {
                let mut address = [0; PATH_BYTES];
                call.is_for_words = is_for_words(sys::trace::read_memory(tid, at, &mut address));
            }
            CallStop::Open { path } => {
                let mut name = [0; PATH_BYTES];
                let name = sys::trace::read_memory(tid, path, &mut name);
                let name = until(name, 0);
                call.is_for_words = is_for_words(name);
                troubled.refusals.note_opened(name);
            }
            _ => {}
        }
        Then::GoesOn
    }

    /// A thread of a process that may have been refused something has started another process.
    fn note_forked(&mut self, tid: u32, call: &Call) {
        if self.troubled.iter().all(Option::is_none) {
            return;
        }
        let process = if call.process == 0 { sys::memory::process_of(tid).0 } else { Some(call.process) };
        if let Some(troubled) = self.find(process.unwrap_or(tid), false) {
            troubled.refusals.note_forked(tid, now_of(troubled.pid));
        }
    }

    fn judge_call(&mut self, tid: u32, call: &mut Call, result: i64, findings: &Findings) -> Then {
        let failed = (-4095..0).contains(&result);
        let refused = if call.is_break {
            result >= 0 && result.cast_unsigned() < call.value
        } else {
            // EAGAIN would be about locked memory, which is another limit.
            result == -i64::from(libc::ENOMEM)
        };
        call.was_refused = refused;
        let tries = std::mem::take(&mut call.tries);
        if !refused && (failed || self.troubled.iter().all(Option::is_none)) {
            return Then::GoesOn;
        }
        let now_ms = sys::clock::monotonic_ms();
        let mut memory = None;
        if call.process == 0 {
            let (process, found) = sys::memory::process_of(tid);
            call.process = process.unwrap_or(tid);
            memory = Some(found);
        }
        let mut waited_ms = None;
        if std::mem::take(&mut call.is_refused) {
            waited_ms = call.wait.refused_after_ms();
        } else if refused && call.is_writable && self.room.is_some() {
            let used = *memory.get_or_insert_with(|| sys::memory::process_of(tid).1);
            let missing =
                if call.is_break { call.value.saturating_sub(result.cast_unsigned()) } else { call.value };
            match self.ask(tid, call, &used, missing, Some(result), tries) {
                Answer::Again if sys::trace::make_call_again(tid, call.first) => {
                    call.tries = tries + 1;
                    return Then::GoesOn;
                }
                Answer::Later => {
                    call.tries = tries;
                    return Then::Waits;
                }
                Answer::No | Answer::Again => waited_ms = call.wait.refused_after_ms(),
            }
        }
        let limit = self.room.as_ref().filter(|_| waited_ms.is_some()).map(Room::limit);
        let (terms, is_worker) = (self.terms, call.process == self.worker);
        let Some(troubled) = self.find(call.process, refused) else { return Then::GoesOn };
        let outcome = match (call.is_break, refused) {
            (true, _) => troubled.refusals.of_break(call.value, result.cast_unsigned()),
            (false, true) => Outcome::Refused { bytes: call.value, writable: call.is_writable },
            (false, false) => Outcome::Mapped { bytes: call.value, writable: call.is_writable },
        };
        match outcome {
            Outcome::Mapped { bytes, writable } => {
                let before = troubled.refusals.is_wanting();
                let enough = enough(troubled.facts.limit.unwrap_or(u64::MAX));
                troubled.refusals.note_mapped(tid, bytes, writable, enough);
                let recovered = before && !troubled.refusals.is_wanting();
                if recovered && is_worker {
                    let troubled = *troubled;
                    self.arm(findings, &troubled);
                }
            }
            Outcome::Released { bytes } => troubled.note_released(bytes, None),
            Outcome::Refused { bytes, writable } => {
                // Thousands a second are met with; the figures of the same millisecond will do.
                if troubled.at_ms != now_ms || memory.is_some() {
                    troubled.at_ms = now_ms;
                    troubled.childrens_pages = sys::proc::childrens_pages_of(call.process);
                    troubled.facts.memory = memory.unwrap_or_else(|| sys::memory::process_of(tid).1);
                }
                troubled.facts.waited_ms = waited_ms;
                if limit.is_some() {
                    (troubled.facts.measure, troubled.facts.limit) = (Measure::Resident, limit);
                } else if !troubled.facts.explain(call.process, bytes, writable, &terms) {
                    return Then::GoesOn;
                }
                let new = !troubled.refusals.is_wanting() || troubled.facts.tid != tid;
                let asked = Sought { bytes, grown_from: call.grown_from };
                troubled.refusals.note_refused(tid, asked, writable, now_of(call.process));
                troubled.refusals.is_of_stack = call.is_stack;
                call.is_watched = troubled.is_watched();
                if new || bytes > troubled.facts.bytes {
                    troubled.facts.bytes = bytes;
                }
                if new {
                    troubled.facts.tid = tid;
                    let is_main = tid == call.process;
                    troubled.facts.thread =
                        if is_main { Text::from_bytes(b"main") } else { sys::proc::name_of(tid) };
                    troubled.facts.program = sys::proc::program_of(call.process);
                }
                let troubled = *troubled;
                if let Some(ledger) = self.ledger().filter(|_| limit.is_some()) {
                    note_holders(findings, ledger.greatest());
                }
                if is_worker {
                    self.write(&findings.own, &troubled);
                }
            }
        }
        Then::GoesOn
    }

    /// A thread was refused something by a limit that may be moved: whether that is to be, now or later.
    fn ask(
        &mut self,
        tid: u32,
        call: &mut Call,
        used: &MemoryUse,
        bytes: u64,
        result: Option<i64>,
        tries: u32,
    ) -> Answer {
        let Some(room) = &mut self.room else { return Answer::No };
        let is_pledged = call.pledged > 0;
        let answer = room.ask(call.process, used, bytes, is_pledged, tries, &mut call.wait);
        if answer != Answer::Later || self.keep_waiting(tid, result) {
            return answer;
        }
        call.wait.hurry();
        let Some(room) = &mut self.room else { return Answer::No };
        match room.ask(call.process, used, bytes, is_pledged, tries, &mut call.wait) {
            // Nobody would come back to it.
            Answer::Later => Answer::No,
            answer => answer,
        }
    }

    /// A thread is about to take memory that no limit refuses: private memory over whatever is there, of which the kernel takes off
    /// what lies below, whether that was counted or not (mmap_region in mm/vma.c), or memory that may be shared. In a budget it is
    /// asked for before. What is granted is pledged until the call has been made.
    fn ask_before(&mut self, tid: u32, call: &mut Call) -> Then {
        /// Less than this is found by a look.
        const UNSEEN_BYTES: u64 = 1 << 20;
        if self.ledger().is_none() || call.value < UNSEEN_BYTES {
            return Then::GoesOn;
        }
        let (process, used) = sys::memory::process_of(tid);
        call.process = process.unwrap_or(tid);
        let Some(room) = self.room.as_ref().filter(|room| room.moves_limit_of(call.process)) else {
            return Then::GoesOn;
        };
        let of_file = |fd: i32| sys::fd::kept_in_memory_of(tid, fd);
        let wanted = match call.unlimited {
            Unlimited::LaidOver => {
                // Before anything is looked at that it rests on.
                call.pledge(room, call.value);
                let soft = sys::memory::soft_limit_on_data_of(call.process).unwrap_or(u64::MAX);
                let others = room.pledged(call.process).saturating_sub(call.value);
                let Some(data) = used.data else { return Then::GoesOn };
                let room_now = soft.saturating_sub(data).saturating_sub(others);
                let end = call.first.saturating_add(call.value);
                let replaced =
                    || sys::memory::data_of_within(call.process, call.first as usize..end as usize);
                match laid_over(room_now, call.value, replaced) {
                    Some(bytes) => bytes,
                    None => return Then::GoesOn,
                }
            }
            Unlimited::Nothing => 0,
            Unlimited::Shared => call.value,
            Unlimited::SharedFile { fd, offset } => {
                of_file(fd).map_or(0, |file| file.more_mapped(offset, call.value))
            }
            Unlimited::Allocated { fd, offset } => {
                of_file(fd).map_or(0, |file| file.more_with(offset, call.value))
            }
        };
        self.end_pledge(call, false);
        let Some(room) = &self.room else { return Then::GoesOn };
        // What one process could never have it may map all the same, as it cannot mean to use all of that.
        if call.unlimited != Unlimited::LaidOver && (wanted < UNSEEN_BYTES || wanted > room.limit()) {
            return Then::GoesOn;
        }
        call.pledge(room, wanted);
        let answer = self.ask(tid, call, &used, wanted, None, 0);
        if answer == Answer::Again {
            return Then::GoesOn;
        }
        // Others may take back what one does not use that waits.
        self.end_pledge(call, false);
        if answer == Answer::Later {
            return Then::Waits;
        }
        call.is_refused = sys::trace::refuse_call(tid);
        Then::GoesOn
    }

    /// The call for which so much was pledged has been made, or will not be.
    fn end_pledge(&self, call: &mut Call, has_worked: bool) {
        let pledged = std::mem::take(&mut call.pledged);
        let Some(room) = self.room.as_ref().filter(|_| pledged > 0) else { return };
        if has_worked && call.unlimited != Unlimited::LaidOver {
            room.note_new_shared(call.process, pledged);
        }
        room.end_pledge(call.process, pledged);
    }

    fn ledger(&self) -> Option<&'static Ledger> {
        self.room.as_ref().and_then(Room::ledger)
    }

    /// The process's entry; made, where that is asked for.
    fn find(&mut self, pid: u32, make: bool) -> Option<&mut Troubled> {
        let is_it = |slot: &Option<Troubled>| slot.as_ref().is_some_and(|troubled| troubled.pid == pid);
        let index = match self.troubled.iter().position(is_it) {
            Some(index) => index,
            None if !make => return None,
            None => {
                let free = self.troubled.iter().position(Option::is_none).unwrap_or(self.next);
                self.next = (free + 1) % MOST_PROCESSES;
                let slot = self.troubled.get_mut(free)?;
                *slot = Some(Troubled::new(pid));
                free
            }
        };
        self.troubled.get_mut(index)?.as_mut()
    }

    /// A thread ends, and its process with it, if it is the last one. It still has its memory: whether it dies of what it
    /// was refused.
    fn judge_end(&mut self, tid: u32, call: &Call, findings: &Findings) {
        self.compare_with_fallen(tid, findings);
        if self.troubled.iter().all(Option::is_none) {
            return;
        }
        let (process, memory) = sys::memory::process_of(tid);
        let pid = process.unwrap_or(call.process);
        let is_worker = pid == self.worker;
        let left = self
            .room
            .as_ref()
            .map(|room| room.limit_of_a_moment(pid, memory.of(Measure::Resident).unwrap_or(0)));
        let status = sys::trace::status_of_ending(tid).unwrap_or(0);
        let Some(troubled) = self.find(pid, false) else { return };
        if status == 0 && tid != pid {
            // By itself: its process goes on.
            troubled.refusals.note_thread_ended(tid);
        }
        if libc::WIFEXITED(status) && sys::proc::call_of(tid) == u64::try_from(libc::SYS_exit_group).ok() {
            troubled.refusals.note_end_by(tid);
        }
        let facts = &troubled.facts;
        let whole = facts.limit.unwrap_or(u64::MAX);
        let end = End {
            now: now_of(pid),
            limit: left.filter(|_| facts.waited_ms.is_some()).unwrap_or(whole),
            whole,
            in_use: memory.of(facts.measure),
            has_waited_for_child: sys::proc::childrens_pages_of(pid) > troubled.childrens_pages,
            signal: libc::WTERMSIG(status),
            code: libc::WEXITSTATUS(status),
            has_left_handler: troubled.refusals.has_aborted()
                && libc::WIFEXITED(status)
                && sys::proc::handles(tid, libc::SIGABRT),
            is_of_panic: (status == libc::SIGABRT || status == EXIT_RUST_PANIC << 8) && is_of_rust(pid),
        };
        troubled.is_innocent = !troubled.refusals.are_fatal(end);
        troubled.parent = sys::proc::parent_of(pid);
        troubled.ending_ms = end.now.at_ms;
        let troubled = *troubled;
        if let Some(ledger) = self.ledger().filter(|_| !troubled.is_innocent) {
            let (held, name) = (memory.of(Measure::Resident).unwrap_or(0), sys::proc::name_of(pid));
            let at = sys::clock::wall_clock_s();
            ledger.note_death(pid, held, Some(troubled.facts.bytes), at, name.as_bytes());
        }
        if is_worker {
            if troubled.is_innocent {
                self.arm(findings, &troubled);
            } else {
                self.write(&findings.own, &troubled);
            }
        }
    }

    /// A sibling of the descendant that fell last ends as that did: if their parent passes that on, it is the sibling's. Their
    /// parent itself passes its end on, or gets over it.
    fn compare_with_fallen(&mut self, tid: u32, findings: &Findings) {
        let Some((parent, end)) = self.fallen else { return };
        let Some(status) = sys::trace::status_of_ending(tid) else { return };
        let is_siblings = || status == end && sys::proc::parent_of(tid) == Some(parent);
        if tid == parent && passes_on(status, end) {
            self.keep_fallen(sys::proc::parent_of(tid), status, findings);
            // Relaxed, as all the page.
            findings.fallen_ms.store(sys::clock::monotonic_ms(), Ordering::Relaxed);
        } else if tid == parent || is_siblings() {
            self.forget_fallen(findings);
        }
    }

    /// Process `parent` may pass on that its child ended so.
    fn keep_fallen(&mut self, parent: Option<u32>, status: i32, findings: &Findings) {
        self.fallen = parent.map(|parent| (parent, status));
        // Relaxed, as all the page.
        findings.fallen_parent.store(parent.unwrap_or(0).into(), Ordering::Relaxed);
    }

    /// Nobody passes its end on.
    fn forget_fallen(&mut self, findings: &Findings) {
        self.fallen = None;
        // Relaxed, as all the page.
        findings.fallen_ms.store(0, Ordering::Relaxed);
    }

    /// Process `pid` runs another program, or is gone: what it was refused is over.
    fn forget(&mut self, pid: u32, findings: &Findings) -> Option<Troubled> {
        let is_it = |slot: &&mut Option<Troubled>| slot.as_ref().is_some_and(|troubled| troubled.pid == pid);
        let gone = self.troubled.iter_mut().find(is_it)?.take()?;
        if pid == self.worker {
            self.arm(findings, &gone);
        }
        Some(gone)
    }

    fn note_death(&mut self, pid: u32, status: i32, findings: &Findings) {
        // The worker's own page says already what there is to say, and is read from now on. Of a descendant nobody else
        // tells how it ended.
        if pid == self.worker && !self.follows_descendant {
            return;
        }
        let Some(gone) = self.forget(pid, findings) else { return };
        if gone.refusals.is_wanting() && !gone.is_innocent && may_be_death(status) {
            self.write(&findings.fallen, &gone);
            // Relaxed, as all the page: it is read when the worker is dead, which this process sees first.
            self.keep_fallen(gone.parent, status, findings);
            findings.fallen_ms.store(sys::clock::monotonic_ms(), Ordering::Relaxed);
            findings.fell_ms.store(gone.ending_ms, Ordering::Relaxed);
            findings.fallen_status.store(u64::from(status.cast_unsigned()) + 1, Ordering::Relaxed);
        }
    }

    /// What was refused is over; that it was is told.
    fn arm(&self, findings: &Findings, troubled: &Troubled) {
        findings.own.write_owner(troubled.pid);
        findings.own.write_armed(&self.armed(&troubled.facts));
        let request = Request { bytes: troubled.facts.bytes, align: None };
        findings.own.write_refusal(request, troubled.refusals.count);
    }

    fn armed<'a>(&'a self, facts: &'a Facts) -> Armed<'a> {
        Armed {
            program: facts.program.as_bytes(),
            token: self.terms.token.as_ref().map(Text::as_bytes),
            limit: facts.limit,
            limit_source: Some(self.terms.source),
            measure: facts.measure,
            exit_code: self.terms.exit_code,
        }
    }

    fn write(&self, page: &Page, troubled: &Troubled) {
        let facts = &troubled.facts;
        page.write_owner(troubled.pid);
        page.write_armed(&self.armed(facts));
        page.write_last_words(&Snapshot {
            cause: Cause::Mapping,
            pid: troubled.pid,
            tid: facts.tid,
            program: facts.program.as_bytes(),
            thread: facts.thread.as_bytes(),
            request: Some(Request { bytes: facts.bytes, align: None }),
            limit: facts.limit,
            limit_source: Some(match facts.waited_ms {
                Some(_) => LimitSource::Budget,
                None => self.terms.source,
            }),
            measure: facts.measure,
            limit_refused: Some(true),
            memory: facts.memory,
            refusals: troubled.refusals.count,
            exit_code: self.terms.exit_code,
            uptime_ms: sys::clock::monotonic_ms().saturating_sub(self.started_ms),
            token: self.terms.token.as_ref().map(Text::as_bytes),
            evidence: Some(Evidence::Outside),
            // The parent knows, who reaps it.
            own_exit_code: None,
            own_signal: None,
            budget: self.ledger().map(Ledger::budget),
            budget_used: self.ledger().map(Ledger::leased),
            waited_ms: self.ledger().map(|_| facts.waited_ms.unwrap_or(0)),
            holders: &[],
            inferred: true,
        });
    }
}

/// Starts a tracer in a process of its own.
pub(super) fn start(
    tracer: &mut Tracer,
    socket: RawFd,
    findings: RawFd,
    descendant: Option<u32>,
) -> io::Result<u32> {
    // SAFETY: `run` makes system calls, touches atomics, mappings of its own and the memory it was given, which was
    // allocated before; and it has no way to panic.
    unsafe { sys::trace::start_unseen(|| tracer.run(socket, findings, descendant)) }
        .map_err(io::Error::from_raw_os_error)
}

/// Events that are not about memory.
fn let_run(tid: u32, event: Event) {
    match event {
        Event::GroupStop => sys::trace::leave_stopped(tid),
        Event::Signal(signal) => sys::trace::go_on(tid, signal),
        Event::Gone(_) => {}
        _ => sys::trace::go_on(tid, 0),
    }
}

/// The supervisor may have a small soft limit of its own; this process is not what it is for.
fn lift_own_limits() {
    for measure in [Measure::AddressSpace, Measure::Data] {
        let hard = rlimit(measure.into()).hard;
        set_rlimit(measure.into(), Rlimit { soft: hard, hard });
    }
}
