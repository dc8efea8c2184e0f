//! Whether the program dies of a refusal. It asked, was refused, and now it ends: evidence in the order of its weight.
//!
//! 1. It said so: a message about memory, and hardly anything allocated since.
//! 2. It still could not have it: as much would be refused again now, and less than that was allocated since.
//! 3. It did nothing else: hardly an allocation between the refusal and the end.
//!
//! A message that tells of another death speaks against all three.

use super::messages;
use super::notes::{self, Noted};
use crate::contract::{Cause, Evidence};
use crate::guard::armed::Armed;
use crate::guard::exhaustion::{Own, Verdict};
use crate::guard::refusal;
use crate::message::Message;
use crate::report::Request;
use crate::sys;

/// Why the process ends, and how that is known.
pub(super) struct Guilt {
    pub(super) cause: Cause,
    pub(super) request: Option<Request>,
    pub(super) evidence: Evidence,
}

impl Guilt {
    /// The end of a process that would have ended so by itself.
    pub(super) fn verdict(self, own: Own) -> Verdict {
        let Guilt { cause, request, evidence } = self;
        Verdict { cause, request, evidence, own }
    }
}

/// What a program may allocate on the straight way from a refusal to its end: a message, a flush, a handler.
const STRAIGHT_ALLOCATIONS: u64 = 32;
const STRAIGHT_BYTES: u64 = 64 << 10;

/// What the C library takes from the kernel beside a block, at once (M_TOP_PAD in mallopt(3)), and a page for rounding:
/// with less than both left, the block is refused although it alone would fit.
const LEAST_STEP_BYTES: u64 = (128 + 4) << 10;

/// The program exits with a code that tells of failure. Straight from a refusal that is convincing; after words about
/// something else only if the memory is still missing.
pub(super) fn of_exit(armed: &Armed) -> Option<Guilt> {
    judge(armed, |noted| {
        messages::last(notes::last_bytes(armed)) != Some(Message::Unrelated) || would_be_refused(noted)
    })
}

/// The program aborts, and nothing tells for certain why: it may have got over a refusal and found something else.
pub(super) fn of_abort(armed: &Armed) -> Option<Guilt> {
    judge(armed, would_be_refused)
}

/// The program stops itself by an instruction that faults, as V8 and HotSpot do.
pub(super) fn of_trap(armed: &Armed) -> Option<Guilt> {
    by_message(armed).or_else(|| if is_other_death(armed) { None } else { by_size(armed) })
}

fn judge(armed: &Armed, confirm_straight: impl Fn(&Noted) -> bool) -> Option<Guilt> {
    by_message(armed).or_else(|| {
        if is_other_death(armed) {
            None
        } else {
            by_size(armed).or_else(|| by_straightness(confirm_straight))
        }
    })
}

fn is_other_death(armed: &Armed) -> bool {
    messages::last(notes::last_bytes(armed)) == Some(Message::OtherDeath)
}

pub(super) fn by_message(armed: &Armed) -> Option<Guilt> {
    if messages::last(notes::last_bytes(armed)) != Some(Message::OutOfMemory) {
        return None;
    }
    // What was got over since may have been refused for the same reason; without any, a runtime's own limit spoke.
    let (cause, request) = notes::requested().or_else(notes::mapped).map_or_else(
        || refusal::last_here().map_or((Cause::Heap, None), |(cause, request)| (cause, Some(request))),
        |noted| (noted.cause, Some(noted.request())),
    );
    Some(Guilt { cause, request, evidence: Evidence::Said })
}

fn by_size(armed: &Armed) -> Option<Guilt> {
    [notes::requested(), notes::mapped()]
        .into_iter()
        .flatten()
        .find(|noted| is_still_missing(armed, noted))
        .map(|noted| guilt(&noted, Evidence::Missing))
}

fn is_still_missing(armed: &Armed, noted: &Noted) -> bool {
    let bytes = noted.bytes.max(LEAST_STEP_BYTES);
    armed.limit.bytes().is_none_or(|limit| bytes <= limit)
        && noted.bytes_since < bytes
        && would_be_refused(noted)
}

fn by_straightness(confirm: impl Fn(&Noted) -> bool) -> Option<Guilt> {
    notes::requested()
        .filter(|noted| {
            noted.allocations_since <= STRAIGHT_ALLOCATIONS && noted.bytes_since <= STRAIGHT_BYTES
        })
        .filter(|noted| confirm(noted))
        .map(|noted| guilt(&noted, Evidence::Straight))
}

/// Whether as much would be refused again right now, possible or not.
pub(super) fn would_be_refused(noted: &Noted) -> bool {
    usize::try_from(noted.bytes.saturating_add(LEAST_STEP_BYTES)).map_or(true, sys::memory::would_be_refused)
}

pub(super) fn guilt(noted: &Noted, evidence: Evidence) -> Guilt {
    Guilt { cause: noted.cause, request: Some(noted.request()), evidence }
}
