//! A program's own allocator on trial below the limit, before anything else allocates.

use super::hook::Hook;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use oomguard_core::contract::Measure;

/// The measure, by its number, and the limit in bytes; zero where no allocator is on trial. Relaxed for both: read back by the
/// thread that wrote them.
static ON_TRIAL: AtomicU8 = AtomicU8::new(0);
static LIMIT: AtomicU64 = AtomicU64::new(0);

type GivesUp = fn(u64, Measure) -> !;

/// What is said of an allocator that gives up by an abort.
static GIVES_UP: Hook<GivesUp> = Hook::new();

/// Whether it can allocate.
pub(super) fn run(can_allocate: fn() -> bool, limit: u64, measure: Measure, gives_up: GivesUp) -> bool {
    GIVES_UP.set(gives_up);
    LIMIT.store(limit, Ordering::Relaxed);
    ON_TRIAL.store(measure.number(), Ordering::Relaxed);
    let can = can_allocate();
    ON_TRIAL.store(0, Ordering::Relaxed);
    can
}

/// The program aborts: is it the allocator on trial?
pub(super) fn heed_abort() {
    let measure = match ON_TRIAL.load(Ordering::Relaxed) {
        0 => return,
        1 => Measure::AddressSpace,
        2 => Measure::Data,
        _ => Measure::Resident,
    };
    if let Some(gives_up) = GIVES_UP.get() {
        gives_up(LIMIT.load(Ordering::Relaxed), measure)
    }
}
