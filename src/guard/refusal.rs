//! What is tried before a refusal is passed on, and what is noted of it. How a process ends is decided elsewhere.

use super::arenas;
use super::armed::{Armed, armed};
use super::callbacks::RECLAIM;
use super::exhaustion::{self, Own, Standing, Verdict};
use super::lease::Kind;
use super::notes::{self, Asker};
use super::{interpose, panics, profile, record, resident, rust, said};
use crate::backoff::Backoff;
use crate::busy::Busy;
use crate::contract::{Cause, Evidence, Measure, OnRefusal};
use crate::report::Request;
use crate::shortage::{Asked, Full};
use crate::sys;
use crate::sys::local::Zeroed;
use crate::sys::memory::rlimit;
use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What this thread was refused last, and whether it is busy with a refusal. No destructor, so it can be used at any
/// moment of a thread's life. All bytes zero is its first state.
struct Here {
    last: Cell<MaybeUninit<(Cause, Request)>>,
    /// The process that it was refused in; zero while there is none.
    last_in: Cell<u32>,
    /// The process in which this thread is busy with a refusal; zero while it is not.
    handling_in: Cell<u32>,
    refused: Cell<u32>,
    /// What it asked for last was refused as others who share its budget had it.
    is_short: Cell<bool>,
}

// SAFETY: cells of numbers, and of memory that need not be initialized; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_refusal_here");

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
    // Asked for each line that a program writes: no system call for one that was never refused anything.
    if refused != 0 && refused >> COUNT_BITS == u64::from(sys::process::pid()) {
        refused & MOST_COUNTED
    } else {
        0
    }
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
    #[cfg(feature = "shim")]
    if super::foreign::is_asking_python() {
        return exhaustion::lend_reserve(armed, again);
    }
    // May it have more? From here on each try may ask again: what is given back makes room.
    let try_again = again;
    let mut ask_again = || try_again() || resident::ask(armed, request.bytes, try_again);
    let again: &mut dyn FnMut() -> bool = &mut ask_again;
    if cause != Cause::Injected && resident::ask(armed, request.bytes, again) {
        return true;
    }
    // A refusal inside a callback, or inside what we call: no recursion, it is simply a refusal.
    if is_handling() {
        note(cause, asker, request);
        return false;
    }
    // The C library says ENOMEM for more than one reason. Asked before anything is given back.
    if cause == Cause::Heap && asker == Asker::Other && !is_by_limit(armed, Asked::of_heap(request.bytes)) {
        return again();
    }
    here().handling_in.set(sys::process::pid());
    let survived = match cause {
        Cause::Injected => false,
        Cause::Heap if arenas::try_again(armed, request.bytes, again) => true,
        _ => reclaim_and_try_again(armed, request, again),
    };
    here().handling_in.set(0);
    let survived =
        survived || cause != Cause::Injected && resident::wait(armed, request.bytes, Kind::Block, try_again);
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
            exhaustion::end_for_certain(armed, Verdict { cause, request: Some(request), evidence, own });
        }
    }
    survived
}

/// A mapping was refused: what Python needs to tell what it dies of comes from the reserve, as what it gets by malloc does.
#[cold]
pub(super) fn lend_to_python(again: &mut dyn FnMut() -> bool) {
    #[cfg(feature = "shim")]
    if let Some(armed) = armed()
        && super::foreign::is_asking_python()
        && exhaustion::standing() == Standing::Alive
    {
        exhaustion::lend_reserve(armed, again);
    }
    let _ = again;
}

/// Whether this thread is inside `handle` already. A child that a callback forks is as much inside as its parent: it must
/// not call that callback again, and fork the next one. A child of vfork(2) that ended in there, and left its word in the
/// memory that it shared, is not in the way.
pub(super) fn is_handling() -> bool {
    match here().handling_in.get() {
        0 => false,
        pid => pid == sys::process::pid() || pid == sys::process::parent_pid(),
    }
}

/// A refusal is passed on to the program.
pub(super) fn note(cause: Cause, asker: Asker, request: Request) {
    // Nobody gives up for a translation.
    if notes::is_translating() {
        return;
    }
    // What the C library is refused while a panic prints its backtrace is nobody's who would give up for it.
    if asker == Asker::Rust || !rust::is_panicking() {
        notes::note(cause, asker, request);
    }
    if asker == Asker::Rust && cause != Cause::Thread {
        // Nobody asked what refused it: Rust's own allocators have no other reason.
        forget_full();
    }
    listen();
    let refusals = count_refusal();
    record::note_refusal(request, refusals);
    profile::note_refusal(request);
    let here = here();
    here.last.set(MaybeUninit::new((cause, request)));
    here.last_in.set(sys::process::pid());
    here.refused.set(here.refused.get().saturating_add(1));
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        super::foreign::note_for_stall(cause, request);
    }
}

/// The C library's heap has refused a block: code that does not check for null will fault.
pub(super) fn watch_for_unchecked() {
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        return;
    }
    if rust::IS_THERE && armed().is_some() {
        super::unchecked::watch();
    }
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

pub(super) fn forget_full() {
    FULL_LIMIT.store(0, Ordering::Relaxed);
}

/// Whether it was a limit that refused this just now: there was no room for it below the rlimit that holds now.
pub(super) fn is_by_limit(armed: &Armed, asked: Asked) -> bool {
    let now_ms = sys::process::monotonic_ms();
    // Runtimes near their limit are refused thousands of times a second; what was full in this millisecond still is.
    if last_full().is_some()
        && FULL_AT_MS.load(Ordering::Relaxed) == now_ms
        && asked.is_possible()
        && asked.bytes >= FULL_FOR.load(Ordering::Relaxed)
    {
        return true;
    }
    let full = limit_of_the_budget(armed, asked).or_else(|| limit_in_the_way(armed, asked));
    if let Some(full) = full {
        let place = MEASURES.iter().position(|measure| *measure == full.measure).unwrap_or(0);
        FULL_MEASURE.store(place as u8, Ordering::Relaxed);
        FULL_FOR.store(asked.bytes, Ordering::Relaxed);
        FULL_AT_MS.store(now_ms, Ordering::Relaxed);
        FULL_LIMIT.store(full.limit.saturating_add(1), Ordering::Relaxed);
    }
    full.is_some()
}

/// This thread asked the budget, or is about to: whether that had no room is for `limit_of_the_budget`.
pub(super) fn note_answer_of_the_budget(is_short: bool) {
    here().is_short.set(is_short);
}

/// Where it was the budget that had no room when this was asked for. Others may have given back what was missing since.
fn limit_of_the_budget(armed: &Armed, asked: Asked) -> Option<Full> {
    let is_short = here().is_short.take() && asked.writable && asked.is_possible();
    let limit = resident::limit(armed).filter(|_| is_short)?;
    Some(Full { measure: Measure::Resident, limit })
}

fn limit_in_the_way(armed: &Armed, asked: Asked) -> Option<Full> {
    if may_ask() {
        let used = sys::memory::memory_use();
        if used.of(armed.measure).is_some() {
            let limit_of = |measure: Measure| match (armed.measure, measure) {
                (Measure::Resident, Measure::Resident) => resident::limit_of_a_moment(armed, &used),
                (Measure::Resident, Measure::Data) => resident::ceiling(),
                _ => rlimit(measure.into()).soft,
            };
            return asked.refused_by(armed.measure, limit_of, &used);
        }
    }
    // No file may be opened, or there is no descriptor left for one: the kernel is asked as the program asked it.
    let limit = armed.limit.bytes()?;
    let bytes = usize::try_from(asked.bytes).ok().filter(|_| asked.is_possible())?;
    resident::would_be_refused(bytes).then_some(Full { measure: armed.measure, limit })
}

/// Whether files may be opened here: a filter of the program's own may kill it for that.
pub(super) fn may_ask() -> bool {
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        return !has_filter_of_its_own();
    }
    !sys::process::is_filtered()
}

/// Whether the program has set a filter for its own calls, as far as that was seen.
pub(super) fn has_filter_of_its_own() -> bool {
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        return super::foreign::has_filter_of_its_own();
    }
    false
}

/// A mapping was refused that the program asked for itself. Allocators and runtimes probe, so it counts for little: in a
/// program with a guard of its own for nothing, unless its words say otherwise.
pub(super) fn note_mapping(request: Request) {
    #[cfg(feature = "shim")]
    if super::foreign::is_asking_python() {
        return;
    }
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        return note(Cause::Mapping, Asker::Other, request);
    }
    notes::note(Cause::Mapping, Asker::Rust, request);
    listen();
}

/// A mapping worked. In a program with a guard of its own, what Rust's and C's heaps give is counted, and not what they
/// take for it.
pub(super) fn count_mapping(bytes: usize) {
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        notes::count(bytes);
    }
    let _ = bytes;
}

/// What the program says from now on may be about a refusal.
fn listen() {
    #[cfg(feature = "shim")]
    if super::foreign::is_in_charge() {
        super::foreign::ask_python();
        return super::foreign::note_refusal();
    }
    if !rust::IS_THERE {
        return;
    }
    // What a panic needs for its last words is no new refusal to speak of.
    if !rust::is_panicking() {
        panics::forget();
        said::begin();
    }
    interpose::listen(true);
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
