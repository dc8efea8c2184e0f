//! Which code holds the memory: a sample of the live allocations with their stacks, kept ready in fixed memory for
//! whoever looks after the process's death.
//!
//! The rule of the guard holds here all the more, as this code runs in the midst of allocations and of deaths: it
//! allocates nothing, takes no lock, panics never, and waits for nothing: where only one thread at a time may do
//! something, a flag says that one does, and the others go on without.
//!
//! | file | what it holds |
//! |---|---|
//! | `sampler` | the hot path: each thread's countdowns |
//! | `distance` | the arithmetic of sampling; pure |
//! | `live` | the samples that are live, and the filter that finds them |
//!
//! ```text
//!   allocation ── countdown over? ── sampler::event ── unwind ── site ── live ┐
//!   release ───── in the filter? ─── sampler::release ────────────────── live ┘  Tables (shared with the parent)
//! ```

mod distance;
mod live;
mod sampler;

#[cfg(feature = "std")]
pub(super) use sampler::{
    count_release, note_allocation, note_release, note_release_before_realloc, take_back,
};

use super::armed::{Armed, ReportTarget};
use super::settings::Profile;
use super::unwind;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use oomguard_core::busy::Busy;
use oomguard_core::profile::{DEFAULT_DISTANCE, PROFILE_BYTES, Tables};
use oomguard_core::record::ProfileState;
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::memory::HeapUse;
use oomguard_core::text::Text;

/// What a profiled process keeps for itself. A child that is forked finds zeroes in it (MADV_WIPEONFORK, madvise(2)),
/// and so neither writes into its parent's tables nor takes its parent's samples for its own.
#[repr(C)]
struct Own {
    /// One in the process that the profile is of.
    is_ours: AtomicU64,
    live: live::Live,
    rules: unwind::Rules,
    files: unwind::Files,
}

/// All that the profiler ever takes.
const _: () = assert!(size_of::<Own>() + PROFILE_BYTES + live::FILTER_SLOTS <= 3 << 19);

/// Null until the profile begins, and for ever where there is none.
static OWN: AtomicPtr<Own> = AtomicPtr::new(core::ptr::null_mut());
static TABLES: AtomicPtr<Tables> = AtomicPtr::new(core::ptr::null_mut());
static MEAN_DISTANCE: AtomicU64 = AtomicU64::new(0);

/// A profile under way, of this very process.
#[derive(Clone, Copy)]
struct Profiling {
    own: &'static Own,
    tables: &'static Tables,
}

/// The profile, if it is on in this process.
fn profiling() -> Option<Profiling> {
    // Acquire: pairs with the Release in `start`.
    let own = OWN.load(Ordering::Acquire);
    // SAFETY: null, or a mapping made by `start` that is never unmapped; its words are atomics.
    let own = unsafe { own.as_ref() }?;
    // Relaxed, here and below: written before what Acquire has seen.
    if own.is_ours.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: as above; set before `OWN`.
    let tables = unsafe { TABLES.load(Ordering::Relaxed).as_ref() }?;
    Some(Profiling { own, tables })
}

/// Begins the profile, unless source and environment say otherwise. What it cannot do is no reason for a program not
/// to start: the record says so.
///
/// # Safety
/// From the constructor, while the process has one thread.
pub(super) unsafe fn start(from_source: Profile, armed: &Armed) {
    static STARTED: AtomicBool = AtomicBool::new(false);
    // Relaxed: constructors run one after the other in one thread.
    if STARTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let state = match armed.profile_from_environment.unwrap_or(from_source) {
        Profile::Off => ProfileState::Off,
        // SAFETY: by this function's contract, and once by the flag above.
        Profile::On(distance) => match unsafe { begin(distance.unwrap_or(DEFAULT_DISTANCE)) } {
            Some(()) => ProfileState::On,
            None => ProfileState::Failed,
        },
    };
    if state != ProfileState::On {
        sampler::never();
    }
    super::record::note_profile(state);
}

/// # Safety
/// Once, while the process has one thread.
unsafe fn begin(distance: u64) -> Option<()> {
    let own: *mut Own = sys::memory::map_wiped_on_fork(size_of::<Own>())?.cast();
    let at: *mut Tables = match super::record::profile_tables() {
        Some(at) => at,
        None => {
            let at = sys::memory::map_private(PROFILE_BYTES)?.cast();
            IS_OWN_MEMORY.store(true, Ordering::Relaxed);
            at
        }
    };
    // SAFETY: a mapping of that size, zeroed, which is never unmapped; its words are atomics.
    let tables = unsafe { &*at };
    tables.begin(sys::process::pid(), distance, sys::clock::coarse_ms());
    // SAFETY: a mapping of that size, just made, which is never unmapped; its words are atomics.
    let own_now = unsafe { &*own };
    own_now.files.refresh(Some(tables));
    own_now.is_ours.store(1, Ordering::Relaxed);
    MEAN_DISTANCE.store(distance, Ordering::Relaxed);
    TABLES.store(at, Ordering::Relaxed);
    sampler::watch_thread_ends();
    // Release: pairs with the Acquire in `profiling`.
    OWN.store(own, Ordering::Release);
    Some(())
}

/// Whether nobody but this process sees the tables.
static IS_OWN_MEMORY: AtomicBool = AtomicBool::new(false);

/// Bytes live and at most, as far as the threads have told.
pub(super) fn heap_use() -> HeapUse {
    let Some(Profiling { tables, .. }) = profiling() else { return HeapUse::default() };
    sampler::flush();
    let (live, peak) = tables.live_and_peak();
    HeapUse { live: Some(live), peak: Some(peak) }
}

/// A refusal was passed on to the program: where that was.
#[inline(never)]
pub(super) fn note_refusal(request: Request) {
    let Some(Profiling { own, tables }) = profiling() else { return };
    static NOTING: Busy = Busy::new();
    // One at a time, and nobody waits.
    let Some(_inside) = NOTING.try_enter() else { return };
    let stack = unwind::walk(unwind::here(), &own.rules, &own.files);
    tables.note_refused(request.bytes, stack.frames());
}

/// The process ends: what is still to be told.
pub(super) fn note_end() {
    let Some(Profiling { own, tables }) = profiling() else { return };
    own.files.refresh(Some(tables));
    tables.end(sys::clock::coarse_ms());
}

/// The longest path that open(2) takes, with what is put behind it.
pub(super) const BESIDE_MAX_BYTES: usize = 4096 + 16;

/// Writes the tables beside the report, where no parent reads them. `beside` is room for the file's path: the stack
/// may be a signal handler's.
pub(super) fn write_beside(report: &ReportTarget, beside: &mut Text<BESIDE_MAX_BYTES>, patience_ms: i32) {
    let Some(Profiling { tables, .. }) = profiling() else { return };
    let ReportTarget::File(path) = report else { return };
    if !IS_OWN_MEMORY.load(Ordering::Relaxed) {
        return;
    }
    beside.truncate(0);
    beside.push_bytes(path.to_bytes());
    beside.push(oomguard_core::contract::PROFILE_FILE_SUFFIX);
    beside.push_bytes(&[0]);
    let Ok(beside) = core::ffi::CStr::from_bytes_until_nul(beside.as_bytes()) else { return };
    if let Some(file) = sys::fd::open_to_append(beside) {
        let start = (&raw const *tables).cast();
        // SAFETY: the mapping behind the tables, of that length and never unmapped. Other threads may still add to it.
        unsafe { sys::fd::write_memory_patiently(file.number(), start, PROFILE_BYTES, patience_ms) };
    }
}
