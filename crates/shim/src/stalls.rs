//! Programs that are refused again and again and get nowhere: they ask in a loop, and would for ever. Such a program ends
//! here, after a time that is the user's to choose (`OOMGUARD_STALL`).
//!
//! Looked at only in refusals themselves, each so many of them, and told by what it did *not* do meanwhile. It got
//! nowhere if, since it was last seen to get anywhere,
//!
//! - it asked an allocator for blocks, or for threads: who maps memory by itself may probe for as long as it likes;
//! - the refused calls themselves took nearly all of the time: who computes between its tries gets somewhere;
//! - nothing was allocated or mapped, by any thread (V8 near its limit is refused hundreds of thousands of times, and gets
//!   what it needs in between);
//! - no page was touched for the first time, by any thread, and hardly a byte written (we read ourselves);
//! - those threads that were refused were at work for all of that time: one that sleeps between its tries waits, and may
//!   be right to. Where it is the only one, nobody can give anything back meanwhile: then it is told by the time that has
//!   gone by, in which it has read nothing either;
//! - the other threads were not.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use oomguard_core::contract::{Cause, Evidence};
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;
use oomguard_core::sys::process::Effort;
use oomguard_engine::armed::armed;
use oomguard_engine::exhaustion::{self, Own, Verdict};
use oomguard_engine::{filter, notes, owner, refused, standing};

/// Each so many refusals of a thread are looked at, those of its mappings left out.
const LOOKED_AT: u32 = 64;

/// More than this a refusal takes nowhere, with what leads to it: beyond, a thread does something else. Measured: 4 µs in
/// C and Python, 8 µs in OpenBLAS, which tries a mapping and a block in turn.
const MOST_NS_EACH: u64 = 20_000;

/// With fewer, a thread is not in a loop; one that sleeps between its tries is refused more seldom.
const LEAST_REFUSALS: u64 = 1000;
const LEAST_REFUSALS_ASLEEP: u64 = 2 * LOOKED_AT as u64;

/// So many pages a loop may touch for the first time, by our own trims as well, and so many calls may write: a library
/// that warns once.
const FEW_PAGES: u64 = 64;
const FEW_CALLS: u64 = 64;

/// What a thread has done since the process was last seen to get anywhere. All bytes zero is its first state.
struct Here {
    /// Which time that was.
    since: Cell<u64>,
    processor_ns: Cell<u64>,
    /// How many refusals it had met when it was looked at last, and how many that were not of mappings it has met so far.
    refused: Cell<u32>,
    looked_for: Cell<u32>,
}

// SAFETY: cells of numbers; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_stall_here");

// Relaxed throughout: two threads that look at once may count a little of one time to another, which is a threshold.

/// The number of times that it was seen to get somewhere, and how things stood then.
static TIMES: AtomicU64 = AtomicU64::new(1);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static PAGES: AtomicU64 = AtomicU64::new(0);
static AT_NS: AtomicU64 = AtomicU64::new(0);
static PROCESSOR_NS: AtomicU64 = AtomicU64::new(0);
/// How often the thread had waited that saw so.
static WAITS: AtomicU64 = AtomicU64::new(0);
/// What the refused threads have spent on it since, and their refusals.
static SPENT_NS: AtomicU64 = AtomicU64::new(0);
static REFUSALS: AtomicU64 = AtomicU64::new(0);
/// How many calls had written when half of the time was over, plus one; zero before. And how much had been read.
static CALLS: AtomicU64 = AtomicU64::new(0);
static READ: AtomicU64 = AtomicU64::new(0);

/// A child of fork(2) begins anew.
pub(super) fn forget() {
    begin(notes::allocations(), &sys::process::effort());
}

fn begin(allocations: u64, effort: &Effort) {
    ALLOCATIONS.store(allocations, Relaxed);
    PAGES.store(effort.new_pages, Relaxed);
    AT_NS.store(sys::clock::monotonic_ns(), Relaxed);
    PROCESSOR_NS.store(effort.processor_ns, Relaxed);
    WAITS.store(sys::process::thread_waits(), Relaxed);
    SPENT_NS.store(0, Relaxed);
    REFUSALS.store(0, Relaxed);
    CALLS.store(0, Relaxed);
    TIMES.fetch_add(1, Relaxed);
}

/// A refusal was passed on to the program.
#[inline]
pub(crate) fn note(cause: Cause, request: Request) {
    if cause == Cause::Mapping {
        return;
    }
    let met = here().looked_for.get().wrapping_add(1);
    here().looked_for.set(met);
    if met.is_multiple_of(LOOKED_AT) {
        look(cause, request);
    }
}

#[cold]
fn look(cause: Cause, request: Request) {
    let Some(armed) = armed() else { return };
    let Some(stall_ns) = armed.stall_ms.map(|ms| ms.saturating_mul(1_000_000)) else { return };
    if !owner::is_guarded() || standing::is_under_way() {
        return;
    }
    let (allocations, effort) = (notes::allocations(), sys::process::effort());
    let got_somewhere = allocations != ALLOCATIONS.load(Relaxed)
        || effort.new_pages.saturating_sub(PAGES.load(Relaxed)) > FEW_PAGES;
    if got_somewhere {
        begin(allocations, &effort);
    }
    let spent_ns = take_in(sys::clock::thread_processor_ns());
    let refusals = REFUSALS.fetch_add(u64::from(LOOKED_AT), Relaxed) + u64::from(LOOKED_AT);
    let all_ns = effort.processor_ns.saturating_sub(PROCESSOR_NS.load(Relaxed));
    let gone_by_ns = sys::clock::monotonic_ns().saturating_sub(AT_NS.load(Relaxed));
    // It has waited as often as it asked, and done little else. Who only had no processor has not waited.
    let waited = sys::process::thread_waits().saturating_sub(WAITS.load(Relaxed));
    let sleeps = all_ns < gone_by_ns / 4 && waited >= refusals / 2;
    let (lasted_ns, least_refusals) =
        if sleeps { (gone_by_ns, LEAST_REFUSALS_ASLEEP) } else { (spent_ns, LEAST_REFUSALS) };
    if lasted_ns < stall_ns / 2 || refusals < least_refusals {
        return;
    }
    // Where no file may be opened, the other signs have to do.
    let calls = || if filter::may_ask() { sys::process::calls_that_wrote().unwrap_or(0) + 1 } else { 1 };
    if CALLS.load(Relaxed) == 0 {
        CALLS.store(calls(), Relaxed);
        READ.store(bytes_read(), Relaxed);
        return;
    }
    if lasted_ns < stall_ns {
        return;
    }
    let works_or_waits = if sleeps {
        !is_alone() || bytes_read().saturating_sub(READ.load(Relaxed)) > FEW_BYTES
    } else {
        // A machine may have much else to do; but who sleeps between its tries is at work for far less.
        gone_by_ns / 10 > spent_ns || all_ns.saturating_sub(spent_ns) > spent_ns / 16
    };
    if works_or_waits || calls().saturating_sub(CALLS.load(Relaxed)) > FEW_CALLS || !is_still_refused(request)
    {
        begin(allocations, &effort);
    } else {
        let (evidence, own) = (Evidence::Missing, Own::Unknown);
        exhaustion::end(armed, Verdict { cause, request: Some(request), evidence, own });
        // Its user wants better evidence than that, and lets it run.
        begin(allocations, &effort);
    }
}

/// So much a loop may read: what a library looks up for its messages.
const FEW_BYTES: u64 = 4096;

fn bytes_read() -> u64 {
    if filter::may_ask() { sys::process::bytes_read().unwrap_or(0) } else { 0 }
}

/// Whether the process has no other thread, and nobody it shares its limit with, who might give something back.
fn is_alone() -> bool {
    filter::may_ask() && sys::memory::memory_use().threads == Some(1)
}

fn is_still_refused(request: Request) -> bool {
    usize::try_from(request.bytes).map_or(true, oomguard_engine::resident::would_be_refused)
}

/// Counts what this thread has spent on refusals since it was last here, if that was since the process got somewhere; what
/// all have spent since then. What it spent otherwise is among what the other threads did.
fn take_in(processor_ns: u64) -> u64 {
    let (here, times) = (here(), TIMES.load(Relaxed));
    let before = here.processor_ns.replace(processor_ns);
    let now_refused = refused::count_here();
    let refusals = now_refused.saturating_sub(here.refused.replace(now_refused));
    if here.since.replace(times) != times {
        return SPENT_NS.load(Relaxed);
    }
    let more = processor_ns.saturating_sub(before).min(u64::from(refusals) * MOST_NS_EACH);
    SPENT_NS.fetch_add(more, Relaxed) + more
}
