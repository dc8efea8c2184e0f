//! The hot path of a profiled program: two countdowns per thread, one of bytes allocated, one of bytes released.
//!
//! When one of them is over, the thread tells what it allocated and released since, and how far it is to its next
//! sample has come that much nearer. Nearly all calls are a subtraction, a comparison, and for a release one load.

use super::distance::{Random, stands_for};
use super::live::{self, Sample};
use super::{MEAN_DISTANCE, Profiling, profiling, unwind};
use core::cell::Cell;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use oomguard_core::profile::Loss;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;

/// How much a thread allocates before it tells what it allocated and released.
const TELL_EVERY: i64 = 64 << 10;

/// How much it releases, if it allocates less than that meanwhile.
const TELL_RELEASES_EVERY: i64 = 512 << 10;

/// Never reached.
const FOR_EVER: i64 = i64::MAX / 2;

/// A thread's part. No destructor, so it can be used at any moment of a thread's life.
struct Here {
    /// Bytes to allocate until the next event; negative when it is there.
    allocate: Cell<i64>,
    /// Bytes to release until the next event.
    release: Cell<i64>,
    /// What `allocate` began at.
    allocate_from: Cell<i64>,
    release_from: Cell<i64>,
    /// Bytes from where `allocate` began to the next sample.
    to_sample: Cell<i64>,
    random: Cell<Random>,
    stage: Cell<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Nothing was set up yet.
    New = 0,
    Counting,
    /// An event is being handled: what allocates meanwhile, a signal handler, is not looked at.
    Busy,
}

// SAFETY: numbers and a stage whose first one is zero, in cells; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_profile_here");

/// Counts down; whether that is over.
#[inline(always)]
fn is_over(countdown: &Cell<i64>, bytes: usize) -> bool {
    let left = countdown.get().wrapping_sub(bytes as i64);
    countdown.set(left);
    left < 0
}

/// A block was allocated, and the program does not have it yet.
#[inline(always)]
pub(crate) fn note_allocation(block: *mut u8, bytes: usize) {
    if is_over(&here().allocate, bytes) {
        allocation_event(block, bytes);
    }
}

/// A block is about to be released.
#[inline(always)]
pub(crate) fn note_release(block: *mut u8, bytes: usize) {
    // One branch for both.
    if is_over(&here().release, bytes) | live::may_hold(block as usize) {
        release_event(block, bytes);
    }
}

/// As many bytes were released, of a block that is no sample any more.
#[inline(always)]
pub(crate) fn count_release(bytes: usize) {
    if is_over(&here().release, bytes) {
        count_event(bytes);
    }
}

/// The same before a reallocation, which may yet be refused: then the sample is put back.
#[inline(always)]
pub(crate) fn note_release_before_realloc(block: *mut u8) -> Option<Taken> {
    if live::may_hold(block as usize) { take(block) } else { None }
}

/// A sample that was taken out before its block was gone.
#[derive(Clone, Copy)]
pub(crate) struct Taken(Sample);

#[cold]
#[inline(never)]
fn take(block: *mut u8) -> Option<Taken> {
    let Profiling { own, tables } = profiling()?;
    let sample = own.live.remove(block as usize)?;
    tables.note_freed(sample.site, sample.stands_for);
    Some(Taken(sample))
}

/// The block is still there.
#[cold]
#[inline(never)]
pub(crate) fn take_back(block: *mut u8, Taken(sample): Taken) {
    let Some(Profiling { own, tables }) = profiling() else { return };
    if own.live.insert(block as usize, sample) {
        tables.note_live(sample.site, sample.stands_for);
    } else {
        note_lost(tables, sample);
    }
}

fn note_lost(tables: &oomguard_core::profile::Tables, sample: Sample) {
    tables.note_loss(Loss::LiveSamples, 1);
    tables.note_loss(Loss::LiveBytes, sample.stands_for);
}

#[cold]
#[inline(never)]
fn release_event(block: *mut u8, bytes: usize) {
    if live::may_hold(block as usize) {
        take(block);
    }
    if here().release.get() < 0 {
        count_event(bytes);
    }
}

#[cold]
#[inline(never)]
fn count_event(released: usize) {
    let errno = sys::errno::errno();
    if event(0, released as i64) {
        // It was due while this thread was busy; no allocation is at hand.
        here().stage.set(Stage::Counting);
    }
    sys::errno::set_errno(errno);
}

#[cold]
#[inline(never)]
fn allocation_event(block: *mut u8, bytes: usize) {
    let errno = sys::errno::errno();
    if event(bytes as i64, 0) {
        sample(block, bytes, unwind::here());
        here().stage.set(Stage::Counting);
    }
    sys::errno::set_errno(errno);
}

/// A countdown is over. Tells what there is to tell and sets both anew; whether the allocation that ended it is to be
/// sampled: then the thread is left busy.
fn event(allocated: i64, released: i64) -> bool {
    let Some(profiling) = profiling() else {
        stop_here();
        return false;
    };
    let here = here();
    match here.stage.replace(Stage::Busy) {
        Stage::Busy => {
            profiling.tables.note_loss(Loss::Nested, 1);
            return false;
        }
        Stage::New => {
            begin_here(here);
            here.allocate.set(-allocated);
            here.release.set(-released);
        }
        Stage::Counting => {}
    }
    let is_due = tell(here, profiling);
    if !is_due {
        here.stage.set(Stage::Counting);
    }
    is_due
}

/// Not profiled, or not yet, or a forked child.
fn stop_here() {
    // Relaxed: set before `main`.
    if NEVER.load(Ordering::Relaxed) != 0 || !super::OWN.load(Ordering::Relaxed).is_null() {
        here().allocate.set(FOR_EVER);
        here().release.set(FOR_EVER);
    }
}

static NEVER: AtomicU8 = AtomicU8::new(0);

/// There will be no profile: each thread stops at its next event.
pub(super) fn never() {
    NEVER.store(1, Ordering::Relaxed);
}

fn begin_here(here: &Here) {
    let seed = sys::clock::monotonic_ns() ^ (&raw const *here as u64).rotate_left(32);
    let mut random = Random::seeded(seed);
    // Relaxed: set before `main`.
    let to_sample = random.distance(MEAN_DISTANCE.load(Ordering::Relaxed));
    here.random.set(random);
    here.to_sample.set(to_sample);
    here.allocate.set(0);
    here.release.set(0);
    here.allocate_from.set(0);
    here.release_from.set(0);
    watch_end_of_this_thread();
}

/// Tells what was allocated and released, and begins anew. Whether a sample is due. The thread is busy meanwhile.
fn tell(here: &Here, Profiling { tables, .. }: Profiling) -> bool {
    let allocated = here.allocate_from.get().wrapping_sub(here.allocate.get());
    let released = here.release_from.get().wrapping_sub(here.release.get());
    let live = tables.add_live(allocated.wrapping_sub(released));
    tables.note_moment(sys::clock::coarse_ms(), live);
    let to_sample = here.to_sample.get().wrapping_sub(allocated);
    let is_due = to_sample < 0;
    let to_sample = if is_due {
        let mut random = here.random.get();
        // Relaxed: set before `main`.
        let distance = random.distance(MEAN_DISTANCE.load(Ordering::Relaxed));
        here.random.set(random);
        distance
    } else {
        to_sample
    };
    let next = to_sample.min(TELL_EVERY);
    here.to_sample.set(to_sample);
    here.allocate.set(next);
    here.allocate_from.set(next);
    here.release.set(TELL_RELEASES_EVERY);
    here.release_from.set(TELL_RELEASES_EVERY);
    is_due
}

/// Enters an allocation with its stack.
#[inline(always)]
fn sample(block: *mut u8, bytes: usize, registers: unwind::Registers) {
    let Some(Profiling { own, tables }) = profiling() else { return };
    let mut stack = unwind::walk(registers, &own.rules, &own.files);
    if stack.steps.met_unknown {
        own.files.refresh_now_and_then(tables);
        stack = unwind::walk(registers, &own.rules, &own.files);
    }
    tables.note_walk(stack.steps.by_table, stack.steps.by_pointer, stack.is_cut);
    let site = tables.site_of(stack.frames());
    // Relaxed: set before `main`.
    let sample = Sample::new(site, stands_for(bytes as u64, MEAN_DISTANCE.load(Ordering::Relaxed)));
    tables.note_sampled(site, sample.stands_for);
    if own.live.insert(block as usize, sample) {
        tables.note_live(site, sample.stands_for);
    } else {
        note_lost(tables, sample);
    }
}

/// Tells what this thread has not told yet.
pub(super) fn flush() {
    let Some(profiling) = profiling() else { return };
    let here = here();
    if here.stage.get() == Stage::Counting {
        here.stage.set(Stage::Busy);
        // No sample can be due: the countdown is not over.
        tell(here, profiling);
        here.stage.set(Stage::Counting);
    }
}

const NO_KEY: u32 = u32::MAX;

/// The key whose destructor tells what a thread has left to tell at its end.
static THREAD_END: AtomicU32 = AtomicU32::new(NO_KEY);

/// Keys below this have their place in the thread's own block, in every C library: setting them does not allocate.
const FIRST_DEAR_KEY: u32 = 32;

/// Made before the program makes its own keys.
pub(super) fn watch_thread_ends() {
    extern "C" fn end(_: *mut libc::c_void) {
        flush();
        // What other destructors allocate and release after this begins anew, and is told by another round of them.
        let here = here();
        here.stage.set(Stage::New);
        here.allocate.set(0);
        here.release.set(0);
    }
    if let Some(key) = sys::process::thread_key(end)
        && key < FIRST_DEAR_KEY
    {
        // Relaxed: before the process has a second thread.
        THREAD_END.store(key, Ordering::Relaxed);
    }
}

fn watch_end_of_this_thread() {
    let key = THREAD_END.load(Ordering::Relaxed);
    if key != NO_KEY {
        sys::process::set_thread_key(key);
    }
}
