//! What is tried before a refusal is passed on, and what is noted of it. How a process ends is decided elsewhere.

use super::arenas;
use super::armed::{Armed, armed};
use super::backoff::Backoff;
use super::busy::Busy;
use super::callbacks::RECLAIM;
use super::exhaustion::{self, Own, Standing, Verdict};
use super::{profile, record};
use crate::contract::{Cause, Evidence, OnRefusal};
use crate::report::Request;
use crate::sys;
use crate::sys::local::{Zeroed, thread_own};
use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

/// What this thread was refused last, and whether it is busy with a refusal. No destructor, so it can be used at any
/// moment of a thread's life. All bytes zero is its first state.
struct Here {
    last: Cell<MaybeUninit<(Cause, Request)>>,
    /// The process that it was refused in; zero while there is none.
    last_in: Cell<u32>,
    /// The process in which this thread is busy with a refusal; zero while it is not.
    handling_in: Cell<u32>,
}

// SAFETY: cells of numbers, and of memory that need not be initialized; nothing to drop.
unsafe impl Zeroed for Here {}

thread_own!(fn here() -> Here, "oomguard_refusal_here");

/// Refusals passed on to the program, and the process that they are of, in one word so that neither is read without the
/// other: a child that is forked begins with none.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// The number of a process has 22 bits at most: PID_MAX_LIMIT in the kernel's threads.h.
const COUNT_BITS: u32 = 40;
const MOST_COUNTED: u64 = (1 << COUNT_BITS) - 1;

/// How many refusals were passed on so far.
pub(super) fn refused_count() -> u64 {
    // Relaxed: a counter that observes; nothing is ordered by it.
    let refused = REFUSED.load(Ordering::Relaxed);
    if refused >> COUNT_BITS == u64::from(sys::process::pid()) { refused & MOST_COUNTED } else { 0 }
}

/// Whether anything was refused here, or before this process was forked: for who asks often, as it makes no system call.
pub(super) fn may_have_refused() -> bool {
    // Relaxed: as above.
    REFUSED.load(Ordering::Relaxed) != 0
}

/// Counts one more.
fn count_refusal() -> u64 {
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
pub(super) fn last_here() -> Option<(Cause, Request)> {
    let here = here();
    let last = (here.last_in.get() == sys::process::pid()).then(|| here.last.get());
    // SAFETY: `note` writes it before it says that it is there.
    last.map(|last| unsafe { last.assume_init() })
}

/// An allocation was refused: `again` repeats it. The block, or null where the program has to cope.
pub(super) fn handle_allocation(request: Request, again: &mut dyn FnMut() -> *mut u8) -> *mut u8 {
    let mut block = core::ptr::null_mut();
    let cause = if injected() { Cause::Injected } else { Cause::Heap };
    handle(cause, request, &mut || {
        block = again();
        !block.is_null()
    });
    block
}

#[cfg(feature = "inject")]
fn injected() -> bool {
    super::inject::is_refusing()
}

#[cfg(not(feature = "inject"))]
fn injected() -> bool {
    false
}

/// Something was refused: `again` repeats it and tells whether it worked. True if it did in the end.
pub(super) fn handle(cause: Cause, request: Request, again: &mut dyn FnMut() -> bool) -> bool {
    let Some(armed) = armed() else { return false };
    match exhaustion::standing() {
        Standing::Dying => return exhaustion::lend_reserve(armed, again),
        Standing::Outlived => exhaustion::park(armed),
        Standing::Alive => {}
    }
    // A refusal inside a callback, or inside what we call: no recursion, it is simply a refusal.
    if is_handling() {
        note(cause, request);
        return false;
    }
    here().handling_in.set(sys::process::pid());
    let survived = match cause {
        Cause::Injected => false,
        Cause::Heap if arenas::try_again(armed, request.bytes, again) => true,
        _ => reclaim_and_try_again(armed, request, again),
    };
    here().handling_in.set(0);
    if !survived {
        note(cause, request);
        // A thread that cannot be started is for its starter to handle; only allocations end at once.
        if armed.on_refusal == OnRefusal::Immediate && cause != Cause::Thread {
            let (evidence, own) = (Evidence::Exact, Own::Unknown);
            exhaustion::end(armed, Verdict { cause, request: Some(request), evidence, own });
        }
    }
    survived
}

/// Whether this thread is inside `handle` already. A child that a callback forks is as much inside as its parent: it must
/// not call that callback again, and fork the next one. A child of vfork(2) that ended in there, and left its word in the
/// memory that it shared, is not in the way.
fn is_handling() -> bool {
    match here().handling_in.get() {
        0 => false,
        pid => pid == sys::process::pid() || pid == sys::process::parent_pid(),
    }
}

/// A refusal is passed on to the program.
pub(super) fn note(cause: Cause, request: Request) {
    #[cfg(feature = "shim")]
    super::foreign::note(cause, request);
    let refusals = count_refusal();
    record::note_refusal(request, refusals);
    profile::note_refusal(request);
    let here = here();
    here.last.set(MaybeUninit::new((cause, request)));
    here.last_in.set(sys::process::pid());
}

/// Only one thread gives memory back at a time.
static RECLAIMING: Busy = Busy::new();

/// How long a thread waits for another one's reclaiming, in milliseconds. Bounded, as that one may run a callback that
/// waits for a lock which this one holds.
const PATIENCE_MS: u64 = 50;

fn reclaim_and_try_again(armed: &Armed, request: Request, again: &mut dyn FnMut() -> bool) -> bool {
    let asked_ms = sys::process::monotonic_ms();
    let _inside = loop {
        if let Some(inside) = RECLAIMING.try_enter() {
            break inside;
        }
        if sys::process::monotonic_ms() - asked_ms >= PATIENCE_MS || exhaustion::is_under_way() {
            return again();
        }
        sys::process::sleep_ms(1);
        if again() {
            return true;
        }
    };
    trim(armed, request) && again() || run_callbacks() && again()
}

static TRIM: Backoff = Backoff::new();

/// Gives the C library's free memory back to the system. A trim walks all that is free, which can take long.
fn trim(armed: &Armed, request: Request) -> bool {
    if armed.limit_now().is_some_and(|limit| request.bytes > limit.bytes) {
        return false;
    }
    let before_ms = sys::process::monotonic_ms();
    if !TRIM.is_due(before_ms) {
        return false;
    }
    sys::memory::trim_heap();
    TRIM.note_attempt(before_ms, sys::process::monotonic_ms());
    true
}

fn run_callbacks() -> bool {
    if RECLAIM.is_empty() {
        return false;
    }
    RECLAIM.run_all();
    true
}
