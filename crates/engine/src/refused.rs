//! What was refused so far, and by which limit: numbers for whoever tells of it.

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use oomguard_core::contract::{Cause, Measure};
use oomguard_core::report::Request;
use oomguard_core::shortage::Full;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;

/// What this thread was refused last, and whether it is busy with a refusal. No destructor, so it can be used at any moment
/// of a thread's life. All bytes zero is its first state.
struct Here {
    last: Cell<MaybeUninit<(Cause, Request)>>,
    /// The process that it was refused in; zero while there is none.
    last_in: Cell<u32>,
    refused: Cell<u32>,
    /// The process in which this thread is busy with a refusal; zero while it is not.
    handling_in: Cell<u32>,
    /// What it asked for last was refused as others who share its budget had it.
    is_short: Cell<bool>,
}

// SAFETY: cells of numbers, and of memory that need not be initialized; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_refused_here");

/// Refusals passed on to the program, and the process that they are of, in one word so that neither is read without the
/// other: a child that is forked begins with none.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// The number of a process has 22 bits at most: PID_MAX_LIMIT in the kernel's threads.h.
const COUNT_BITS: u32 = 40;
const MOST_COUNTED: u64 = (1 << COUNT_BITS) - 1;

/// How many refusals were passed on so far.
pub fn count() -> u64 {
    // Relaxed: a counter that observes; nothing is ordered by it.
    let refused = REFUSED.load(Ordering::Relaxed);
    // Asked for each line that a program writes: no system call for one that was never refused anything.
    if refused != 0 && refused >> COUNT_BITS == u64::from(sys::process::pid()) {
        refused & MOST_COUNTED
    } else {
        0
    }
}

/// Counts one more.
fn count_one() -> u64 {
    let pid = u64::from(sys::process::pid());
    let one_more = |refused: u64| {
        let count = if refused >> COUNT_BITS == pid { refused & MOST_COUNTED } else { 0 };
        pid << COUNT_BITS | (count + 1).min(MOST_COUNTED)
    };
    // Relaxed: as above.
    let before =
        REFUSED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |refused| Some(one_more(refused)));
    before.map_or(0, one_more) & MOST_COUNTED
}

/// What the calling thread was refused last.
pub fn last_here() -> Option<(Cause, Request)> {
    let here = here();
    let last = (here.last_in.get() == sys::process::pid()).then(|| here.last.get());
    // SAFETY: `note` writes it before it says that it is there.
    last.map(|last| unsafe { last.assume_init() })
}

/// How many refusals were passed on to the calling thread so far.
pub fn count_here() -> u32 {
    here().refused.get()
}

/// This thread begins to try what can be tried.
pub(super) fn begin_handling() {
    here().handling_in.set(sys::process::pid());
}

/// It has tried it.
pub(super) fn end_handling() {
    here().handling_in.set(0);
}

/// Whether this thread is trying what can be tried after a refusal. A child that a callback forks is as much inside as its parent: it must
/// not call that callback again, and fork the next one. A child of vfork(2) that ended in there, and left its word in the
/// memory that it shared, is not in the way.
pub(super) fn is_handling() -> bool {
    match here().handling_in.get() {
        0 => false,
        pid => pid == sys::process::pid() || pid == sys::process::parent_pid(),
    }
}

/// This is refused to the calling thread: how many were refused so far.
pub(super) fn note(cause: Cause, request: Request) -> u64 {
    let here = here();
    here.last.set(MaybeUninit::new((cause, request)));
    here.last_in.set(sys::process::pid());
    here.refused.set(here.refused.get().saturating_add(1));
    count_one()
}

/// This thread asked the budget, or is about to: whether that had no room.
pub(super) fn note_answer_of_the_budget(is_short: bool) {
    here().is_short.set(is_short);
}

/// Whether it had none when this thread asked last; told once.
pub(super) fn take_answer_of_the_budget() -> bool {
    here().is_short.take()
}

/// The limit that had no room for what was refused last, plus one, and the place of its measure in `MEASURES`; zero where
/// none is known. Relaxed: two threads that are refused at once are refused by the same limit.
static FULL_LIMIT: AtomicU64 = AtomicU64::new(0);
static FULL_MEASURE: AtomicU8 = AtomicU8::new(0);
const MEASURES: [Measure; 3] = [Measure::AddressSpace, Measure::Data, Measure::Resident];
/// For how much that was found out, and when, in monotonic milliseconds.
static FULL_FOR: AtomicU64 = AtomicU64::new(0);
static FULL_AT_MS: AtomicU64 = AtomicU64::new(0);

/// The limit that refused what was refused last, as it was then; `None` where that was not looked at.
pub(super) fn last_full() -> Option<Full> {
    let limit = FULL_LIMIT.load(Ordering::Relaxed).checked_sub(1)?;
    let measure = *MEASURES.get(usize::from(FULL_MEASURE.load(Ordering::Relaxed)))?;
    Some(Full { measure, limit })
}

/// Whether that was found out in this millisecond, for no more than is asked for now. Runtimes near their limit are
/// refused thousands of times a second; what was full in it still is.
pub(super) fn was_full_just_now(bytes: u64, now_ms: u64) -> bool {
    last_full().is_some()
        && FULL_AT_MS.load(Ordering::Relaxed) == now_ms
        && bytes >= FULL_FOR.load(Ordering::Relaxed)
}

/// This limit had no room for so much.
pub(super) fn note_full(full: Full, bytes: u64, now_ms: u64) {
    let place = MEASURES.iter().position(|measure| *measure == full.measure).unwrap_or(0);
    FULL_MEASURE.store(place as u8, Ordering::Relaxed);
    FULL_FOR.store(bytes, Ordering::Relaxed);
    FULL_AT_MS.store(now_ms, Ordering::Relaxed);
    FULL_LIMIT.store(full.limit.saturating_add(1), Ordering::Relaxed);
}

pub(super) fn forget_full() {
    FULL_LIMIT.store(0, Ordering::Relaxed);
}
