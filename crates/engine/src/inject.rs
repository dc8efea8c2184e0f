//! Refusals on purpose: sweep a program for allocations whose refusal it does not survive.
//!
//! Built with the feature `inject`, a guarded program counts its allocations from start-up on, and refuses those that
//! `OOMGUARD_INJECT` or [`refuse`] name: the 17th (`17`), or the 17th and all that come after it (`17+`). A refusal
//! is passed on as any other one is, with the report's cause `injected`. Run the program with 1, 2, 3, … until it
//! completes: each run must end in exit 198 with a report, or in the program's own handling of the refusal.
//!
//! ```sh
//! n=0
//! while n=$((n+1)); do
//!     OOMGUARD_INJECT=$n ./program; code=$?
//!     case $code in 0) break ;; 198) ;; *) echo "allocation $n: exit $code" ;; esac
//! done
//! ```
//!
//! The feature costs one atomic addition per allocation; it is for test builds.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use oomguard_core::text::leading_number;

/// Which allocations to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// None.
    Nothing,
    /// The Nth from now, counted from 1.
    Nth(u64),
    /// The Nth from now and all after it.
    From(u64),
}

/// Allocations so far. Relaxed throughout: a counter; which of two simultaneous allocations is the Nth does not matter.
static COUNTED: AtomicU64 = AtomicU64::new(0);
/// The first to be refused; zero for none. Relaxed: set before the threads that it is for are started.
static FIRST: AtomicU64 = AtomicU64::new(0);
static ONWARDS: AtomicBool = AtomicBool::new(false);

thread_local! {
    static REFUSING: Cell<bool> = const { Cell::new(false) };
}

/// Plans refusals, counted from this call on.
pub fn refuse(plan: Plan) {
    let (nth, onwards) = match plan {
        Plan::Nothing => (0, false),
        Plan::Nth(nth) => (nth, false),
        Plan::From(nth) => (nth, true),
    };
    FIRST.store(0, Ordering::Relaxed);
    ONWARDS.store(onwards, Ordering::Relaxed);
    let first = if nth == 0 { 0 } else { COUNTED.load(Ordering::Relaxed) + nth };
    FIRST.store(first, Ordering::Relaxed);
}

/// Allocations counted since start-up: how far a sweep has to go.
pub fn allocations() -> u64 {
    COUNTED.load(Ordering::Relaxed)
}

/// Reads `N` or `N+`.
pub(super) fn plan_from(value: &[u8]) -> bool {
    let (number, onwards) = match value.strip_suffix(b"+") {
        Some(number) => (number, true),
        None => (value, false),
    };
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
        return false;
    }
    match leading_number(number) {
        Some(nth) if nth > 0 => {
            refuse(if onwards { Plan::From(nth) } else { Plan::Nth(nth) });
            true
        }
        _ => false,
    }
}

/// Counts an allocation; whether it is to be refused.
pub(super) fn refuses_next() -> bool {
    let this = COUNTED.fetch_add(1, Ordering::Relaxed) + 1;
    let first = FIRST.load(Ordering::Relaxed);
    let refuses = first != 0 && (this == first || this > first && ONWARDS.load(Ordering::Relaxed));
    let _ = REFUSING.try_with(|refusing| refusing.set(refuses));
    refuses
}

/// Whether the refusal that this thread is handling was injected.
pub(super) fn is_refusing() -> bool {
    REFUSING.try_with(Cell::get).unwrap_or(false)
}
