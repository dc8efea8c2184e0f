//! What is tried before a refusal is passed on, and what is noted of it. How a process ends is decided elsewhere.

use super::arenas;
use super::armed::{Armed, armed};
use super::backoff::Backoff;
use super::callbacks::RECLAIM;
use super::exhaustion::{self, Own, Standing, Verdict};
use super::notes::{self, Asker};
use super::{interpose, panics, profile, record, said};
use crate::contract::{Cause, Evidence, OnRefusal};
use crate::report::Request;
use crate::sys;
use crate::sys::local::{Zeroed, thread_own};
use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What this thread was refused last, and whether it is busy with a refusal. No destructor, so it can be used at any
/// moment of a thread's life. All bytes zero is its first state.
struct Here {
    last: Cell<MaybeUninit<(Cause, Request)>>,
    has_last: Cell<bool>,
    handling: Cell<bool>,
    refused: Cell<u32>,
}

// SAFETY: cells of a flag that is false, of memory that need not be initialized; nothing to drop.
unsafe impl Zeroed for Here {}

thread_own!(fn here() -> Here, "oomguard_refusal_here");

/// Refusals passed on to the program.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// How many refusals were passed on so far.
pub(super) fn refused_count() -> u64 {
    // Relaxed: a counter that observes; nothing is ordered by it.
    REFUSED.load(Ordering::Relaxed)
}

/// What the calling thread was refused last.
pub(super) fn last_here() -> Option<(Cause, Request)> {
    let here = here();
    let last = here.has_last.get().then(|| here.last.get());
    // SAFETY: `note` writes it before it says that it is there.
    last.map(|last| unsafe { last.assume_init() })
}

/// How many refusals were passed on to the calling thread so far.
pub(super) fn refused_here() -> u32 {
    here().refused.get()
}

/// An allocation was refused: `again` repeats it. The block, or null where the program has to cope.
pub(super) fn handle_allocation(request: Request, again: &mut dyn FnMut() -> *mut u8) -> *mut u8 {
    let mut block = core::ptr::null_mut();
    let cause = if injected() { Cause::Injected } else { Cause::Heap };
    handle(cause, Asker::Rust, request, &mut || {
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

/// Something was refused: `again` repeats it and tells whether it worked. True if it did in the end. `errno` is left as
/// it is.
pub(super) fn handle(cause: Cause, asker: Asker, request: Request, again: &mut dyn FnMut() -> bool) -> bool {
    let Some(armed) = armed() else { return false };
    let errno = sys::fd::errno();
    let survived = handle_armed(armed, cause, asker, request, again);
    sys::fd::set_errno(errno);
    survived
}

fn handle_armed(
    armed: &Armed,
    cause: Cause,
    asker: Asker,
    request: Request,
    again: &mut dyn FnMut() -> bool,
) -> bool {
    match exhaustion::standing() {
        Standing::Dying => return exhaustion::lend_reserve(armed, again),
        Standing::Outlived => exhaustion::park(armed),
        Standing::Alive => {}
    }
    // A refusal inside a callback, or inside what we call: no recursion, it is simply a refusal.
    if here().handling.replace(true) {
        note(cause, asker, request);
        return false;
    }
    let survived = match cause {
        Cause::Injected => false,
        Cause::Heap if arenas::try_again(armed, request.bytes, again) => true,
        _ => reclaim_and_try_again(armed, request, again),
    };
    here().handling.set(false);
    if !survived {
        note(cause, asker, request);
        // A thread that cannot be started is for its starter to handle, unless the user says otherwise.
        let is_end = if cause == Cause::Thread {
            armed.on_refusal.threads_end
        } else {
            armed.on_refusal.allocation == OnRefusal::Immediate
        };
        if is_end {
            let (evidence, own) = (Evidence::Exact, Own::Unknown);
            exhaustion::end(armed, Verdict { cause, request: Some(request), evidence, own });
        }
    }
    survived
}

/// A refusal is passed on to the program.
pub(super) fn note(cause: Cause, asker: Asker, request: Request) {
    notes::note(cause, asker, request);
    listen();
    // Relaxed: as in `refused_count`.
    let refusals = REFUSED.fetch_add(1, Ordering::Relaxed) + 1;
    record::note_refusal(request, refusals);
    profile::note_refusal(request);
    let here = here();
    here.last.set(MaybeUninit::new((cause, request)));
    here.has_last.set(true);
    here.refused.set(here.refused.get().saturating_add(1));
}

/// What the program says from now on may be about a refusal.
fn listen() {
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        return super::foreign::note_refusal();
    }
    // What a panic needs for its last words is no new refusal to speak of.
    if !std::thread::panicking() {
        panics::forget();
        said::begin();
    }
    interpose::listen(true);
}

/// Only one thread gives memory back at a time.
static RECLAIMING: AtomicBool = AtomicBool::new(false);

/// How long a thread waits for another one's reclaiming, in milliseconds. Bounded, as that one may run a callback that
/// waits for a lock which this one holds.
const PATIENCE_MS: u64 = 50;

fn reclaim_and_try_again(armed: &Armed, request: Request, again: &mut dyn FnMut() -> bool) -> bool {
    let asked_ms = sys::process::monotonic_ms();
    // Acquire, paired with the Release below: what the other thread freed is seen.
    while RECLAIMING.swap(true, Ordering::Acquire) {
        if sys::process::monotonic_ms() - asked_ms >= PATIENCE_MS || exhaustion::is_under_way() {
            return again();
        }
        sys::process::sleep_ms(1);
        if again() {
            return true;
        }
    }
    let worked = trim(armed, request) && again() || run_callbacks() && again();
    RECLAIMING.store(false, Ordering::Release);
    worked
}

static TRIM: Backoff = Backoff::new();

/// Gives the C library's free memory back to the system. A trim walks all that is free, which can take long.
fn trim(armed: &Armed, request: Request) -> bool {
    if armed.limit.bytes().is_some_and(|limit| request.bytes > limit) {
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
