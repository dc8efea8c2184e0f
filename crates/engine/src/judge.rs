//! Whether the program dies of a refusal. It asked, was refused, and now it ends: evidence in the order of its weight.
//!
//! 1. It said so: a message about memory, and hardly anything allocated since.
//! 2. It still could not have it: as much would be refused again now, and less than that was allocated since.
//! 3. It did nothing else: hardly an allocation between the refusal and the end.
//!
//! A message that tells of another death speaks against all three. The second and the third are evidence only for as long as
//! a program takes for its way out. Of a request of Rust's own allocator the third is no
//! evidence before an abort: who cannot go on without it would be inside `handle_alloc_error`.
//!
//! What the program said is for the caller to know: `said` is the last of it that bears on a death, and what was refused
//! and not got over when it said so.

use super::armed::{Armed, armed};
use super::exhaustion::{Own, Verdict};
use super::notes::{self, Asker, Noted};
use super::{filter, gone_on, resident};
use oomguard_core::contract::{Cause, Evidence, Measure};
use oomguard_core::message::Message;
use oomguard_core::report::Request;
use oomguard_core::shortage::{LEAST_STEP_BYTES, is_of_another_thing};
use oomguard_core::sys;

/// Why the process ends, and how that is known.
pub struct Guilt {
    pub cause: Cause,
    pub request: Option<Request>,
    pub evidence: Evidence,
}

impl Guilt {
    /// The end of a process that would have ended so by itself.
    pub fn verdict(self, own: Own) -> Verdict {
        let Guilt { cause, request, evidence } = self;
        Verdict { cause, request, evidence, own }
    }
}

/// What a program may allocate on the straight way from a refusal to its end: a message, a flush, a handler.
const STRAIGHT_ALLOCATIONS: u64 = 32;
pub(super) const STRAIGHT_BYTES: u64 = 64 << 10;

/// How long a request of Rust's own may be unanswered and still be why the program ends without a word, in
/// milliseconds.
pub const UNSAID_MS: u64 = 1000;

/// What a program has said last.
#[derive(Clone, Copy)]
pub struct Said {
    pub message: Message,
    /// What it was about, where it was about memory.
    pub about: Option<(Cause, Request)>,
    /// That it failed at something else.
    pub fails_otherwise: bool,
    /// No more than that it could not have something.
    pub fails_to_make: bool,
}

impl Said {
    fn is(said: Option<Said>, message: Message) -> bool {
        said.is_some_and(|said| said.message == message)
    }

    /// That it failed at something else.
    pub fn of_another_failure() -> Said {
        Said { message: Message::Unrelated, about: None, fails_otherwise: true, fails_to_make: false }
    }

    /// That memory is gone, where something was refused and is not got over.
    pub(super) fn of_open_refusal(message: Message) -> Said {
        let open = notes::requested().or_else(notes::mapped);
        let about = open.map(|noted| (noted.cause, noted.request()));
        let about = about.filter(|_| message == Message::OutOfMemory);
        Said { message, about, fails_otherwise: false, fails_to_make: false }
    }
}

/// The program exits with a code that tells of failure. Straight from a refusal that is convincing; after words about
/// something else only if memory is full to the brim. `errno`: what the last call of this thread that failed has left.
pub fn of_exit(armed: &Armed, said: Option<Said>, errno: i32) -> Option<Guilt> {
    /// What a message takes.
    const MOST_ALLOCATIONS: u64 = 4;
    let said_other = said.filter(|said| said.message == Message::Unrelated);
    if let Some(said) = said_other {
        if said.fails_otherwise {
            return None;
        }
        if !is_full() {
            // It tells what it wanted the memory for, and nothing more.
            let is_for_it =
                |noted: &Noted| noted.asker == Asker::Other && noted.allocations_since <= MOST_ALLOCATIONS;
            return if said.fails_to_make { by_straightness(&is_for_it) } else { None };
        }
    }
    let fails_otherwise = |noted: &Noted| noted.tid == sys::process::tid() && is_of_another_thing(errno);
    // A handler for a crash may read much: of an abort, reading tells nothing.
    judge(armed, said, &|noted| !has_gone_on(noted) && !fails_otherwise(noted), &|noted| {
        noted.asker == Asker::Other && !fails_otherwise(noted)
    })
}

/// The program aborts, and nothing tells for certain why: it may have got over a refusal and found something else.
pub fn of_abort(armed: &Armed, said: Option<Said>) -> Option<Guilt> {
    // After words about something else, that does not tell of what would be refused at any time.
    of_own_signal(armed, said, &|noted| said.is_none_or(|said| said.fails_to_make || can_be_met(noted)))
}

/// A handler of the program's own has seen a fault, and ends it. What it says is about the fault.
pub fn of_handled_fault(armed: &Armed, said: Option<Said>) -> Option<Guilt> {
    of_own_signal(armed, said, &|noted| can_be_met(noted) || is_straight(noted))
}

fn of_own_signal(armed: &Armed, said: Option<Said>, is_of_it: &dyn Fn(&Noted) -> bool) -> Option<Guilt> {
    if said.is_some_and(|said| said.fails_otherwise) {
        return None;
    }
    let confirm = |noted: &Noted| noted.asker == Asker::Other && is_of_it(noted) && would_be_refused(noted);
    judge(armed, said, &|_| true, &confirm)
        .or_else(|| if said.is_none() { by_refused_mapping() } else { None })
}

/// A mapping of the program's own was refused, and the very next thing that this thread does is to give up. Others that
/// are refused one, allocators and those who probe, map something else.
fn by_refused_mapping() -> Option<Guilt> {
    mapping_refused_at_once().map(|noted| guilt(&noted, Evidence::Straight))
}

pub fn mapping_refused_at_once() -> Option<Noted> {
    let is_at_once = |noted: &Noted| noted.allocations_since == 0 && noted.since.is_a_moment();
    notes::mapped().filter(|noted| {
        noted.asker == Asker::Other
            && noted.tid == sys::process::tid()
            && is_at_once(noted)
            && would_be_refused(noted)
    })
}

/// The program stops itself by an instruction that faults, as V8 and HotSpot do.
pub fn of_trap(armed: &Armed, said: Option<Said>) -> Option<Guilt> {
    // Who checks what it got, and traps if that is nothing.
    let is_at_once = |noted: &Noted| noted.allocations_since == 0 && noted.tid == sys::process::tid();
    by_message(said).or_else(|| match said {
        Some(Said { message: Message::OtherDeath, .. } | Said { fails_otherwise: true, .. }) => None,
        Some(_) => by_size(armed, &|_| true),
        None => by_size(armed, &|_| true)
            .or_else(|| by_straightness(&|noted| is_at_once(noted) && is_straight(noted)))
            .or_else(by_refused_mapping),
    })
}

/// Whether hardly anything is to be had. One large request that is refused leaves room to go on.
fn is_full() -> bool {
    const LITTLE_BYTES: usize = 1 << 20;
    resident::would_be_refused(LITTLE_BYTES)
}

fn judge(
    armed: &Armed,
    said: Option<Said>,
    confirm_missing: &dyn Fn(&Noted) -> bool,
    confirm_straight: &dyn Fn(&Noted) -> bool,
) -> Option<Guilt> {
    by_message(said).or_else(|| {
        if Said::is(said, Message::OtherDeath) {
            None
        } else {
            by_size(armed, confirm_missing).or_else(|| by_straightness(confirm_straight))
        }
    })
}

pub fn by_message(said: Option<Said>) -> Option<Guilt> {
    let said = said.filter(|said| said.message == Message::OutOfMemory)?;
    let open = notes::requested().or_else(notes::mapped).map(|noted| (noted.cause, noted.request()));
    // Without a request, a runtime's own limit spoke, which the launcher had set.
    let (cause, request) =
        open.or(said.about).map_or((Cause::Heap, None), |(cause, request)| (cause, Some(request)));
    Some(Guilt { cause, request, evidence: Evidence::Said })
}

fn by_size(armed: &Armed, confirm: &dyn Fn(&Noted) -> bool) -> Option<Guilt> {
    // A thread that cannot be had is missed by nobody who goes on with fewer. A mapping that a program with a guard of its own was refused is no evidence by itself.
    let mapped = notes::mapped().filter(|noted| noted.asker == Asker::Other);
    [notes::requested().filter(|noted| noted.cause != Cause::Thread), mapped]
        .into_iter()
        .flatten()
        .find(|noted| is_still_missing(armed, noted))
        .filter(|noted| confirm(noted))
        .map(|noted| guilt(&noted, Evidence::Missing))
}

fn is_still_missing(armed: &Armed, noted: &Noted) -> bool {
    let bytes = noted.bytes.max(LEAST_STEP_BYTES);
    let is_unsaid_too_long = noted.asker == Asker::Rust && noted.ms_since > UNSAID_MS;
    armed.could_hold(bytes)
        && !is_unsaid_too_long
        && noted.bytes_since < bytes
        && noted.since.is_way_out()
        && would_be_refused(noted)
}

fn by_straightness(confirm: &dyn Fn(&Noted) -> bool) -> Option<Guilt> {
    notes::requested()
        .filter(|noted| {
            noted.allocations_since <= STRAIGHT_ALLOCATIONS
                && noted.bytes_since <= STRAIGHT_BYTES
                && noted.since.is_way_out()
        })
        .filter(is_straight_for_its_size)
        .filter(|noted| confirm(noted))
        .filter(|noted| !has_gone_on(noted))
        .map(|noted| guilt(&noted, Evidence::Straight))
}

fn has_gone_on(noted: &Noted) -> bool {
    noted.since.has_slept(UNSAID_MS) || gone_on::has_gone_on(noted.cause == Cause::Thread, can_be_met(noted))
}

/// Whether the limit could hold it.
fn can_be_met(noted: &Noted) -> bool {
    armed().is_none_or(|armed| armed.could_hold(noted.bytes))
}

/// What can never be met is missing at any time: it is why the program ends only where the refused thread itself comes to its end,
/// and does nothing else.
fn is_straight_for_its_size(noted: &Noted) -> bool {
    let limit = armed().and_then(|armed| armed.limit.bytes()).unwrap_or(0);
    can_be_met(noted) || noted.tid == sys::process::tid() && noted.since.is_straight_way_out(limit)
}

/// Whether hardly anything has happened since then.
pub fn is_straight(noted: &Noted) -> bool {
    noted.allocations_since <= STRAIGHT_ALLOCATIONS
        && noted.bytes_since <= STRAIGHT_BYTES
        && noted.ms_since <= UNSAID_MS
        && is_straight_for_its_size(noted)
}

/// Whether hardly anything has happened since C code was refused what is still missing: its caller finds that it has got
/// nothing, and gives up.
pub(super) fn comes_straight_from_refusal() -> bool {
    /// What a panic's message may take.
    const MOST_ALLOCATIONS: u64 = 16;
    notes::requested().is_some_and(|noted| {
        noted.asker == Asker::Other
            && noted.cause == Cause::Heap
            && noted.allocations_since <= MOST_ALLOCATIONS
            && noted.ms_since <= UNSAID_MS
            && would_be_refused(&noted)
    })
}

/// Whether as much would be refused again right now, possible or not, and there is a limit that may be why.
pub fn would_be_refused(noted: &Noted) -> bool {
    is_missing(noted.bytes)
}

pub(super) fn is_missing(bytes: u64) -> bool {
    let is_limited = |measure: Measure| sys::memory::rlimit(measure.into()).soft.is_some();
    // A filter of the program's own may kill it for the question.
    (filter::is_the_programs() || is_limited(Measure::AddressSpace) || is_limited(Measure::Data))
        && usize::try_from(bytes.saturating_add(LEAST_STEP_BYTES)).map_or(true, resident::would_be_refused)
}

pub fn guilt(noted: &Noted, evidence: Evidence) -> Guilt {
    Guilt { cause: noted.cause, request: Some(noted.request()), evidence }
}
