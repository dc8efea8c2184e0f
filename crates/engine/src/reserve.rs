//! The reserve: memory above the limit for the last words, lent for moments, as a limit is the whole process's.

use super::armed::{Armed, armed};
use super::limits::{lowered_to_keep_reserve, raised_for_last_words};
use super::standing::{self, Standing};
use super::{onlooker, rust};
use core::sync::atomic::{AtomicU64, Ordering};
use oomguard_core::contract::Measure;
use oomguard_core::sys;
use oomguard_core::sys::bare;
use oomguard_core::sys::memory::{MemoryUse, Rlimit, rlimit, set_rlimit};

/// What could be mapped under the measure `resident`, whose rlimit follows what is mapped, when the last words began. Relaxed:
/// the speaker's own.
static ROOM_BEFORE: AtomicU64 = AtomicU64::new(0);

/// The last words begin: the reserve lies above what there is now.
pub(super) fn begin(armed: &Armed, memory: &MemoryUse) {
    if let (Measure::Resident, Some(soft)) = (armed.measure, rlimit(armed.measure.into()).soft) {
        // The rlimit may have fallen behind what is mapped.
        ROOM_BEFORE.store(soft.max(memory.data.unwrap_or(0)), Ordering::Relaxed);
    }
}

/// The rlimit with the reserve, and as it is now. `taken`: what others have had of the reserve.
fn with_and_without_reserve(armed: &Armed, taken: u64) -> Option<(Rlimit, Rlimit)> {
    let now = rlimit(armed.measure.into());
    let limit = match (armed.measure, standing::here()) {
        (Measure::Resident, Standing::Dying) => now.soft.map(|_| ROOM_BEFORE.load(Ordering::Relaxed))?,
        (Measure::Resident, _) => now.soft?.max(sys::memory::memory_use().data.unwrap_or(0)),
        _ => armed.limit_now()?.bytes,
    };
    let raised = raised_for_last_words(Some(limit.saturating_add(taken)), armed.reserve_bytes, now.hard)?;
    Some((Rlimit { soft: Some(raised), ..now }, now))
}

/// An allocation was refused that the process is to have nevertheless: tries it again with the reserve. The limit is
/// raised only for that moment, as it is the whole process's: another thread that needs memory in between is refused.
pub(super) fn lend(armed: &Armed, again: &mut dyn FnMut() -> bool) -> bool {
    lend_above(armed, 0, again)
}

fn lend_above(armed: &Armed, taken: u64, again: &mut dyn FnMut() -> bool) -> bool {
    let Some((raised, kept)) = with_and_without_reserve(armed, taken) else { return again() };
    set_rlimit(armed.measure.into(), raised);
    let worked = again();
    set_rlimit(armed.measure.into(), kept);
    worked
}

/// The same for the thread that says the last words. Others that are not parked yet may meet that moment, the longer the
/// fewer processors there are, and take what was lent. It is lent once more then: they park as soon as they want more.
pub(super) fn lend_to_speaker(armed: &Armed, again: &mut dyn FnMut() -> bool) -> bool {
    const MOST_TRIES: u32 = 8;
    /// What others took so far. Relaxed: the speaker's own.
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let in_use = || {
        // A filter of the program's own may let nothing be opened.
        let used = if sys::process::is_filtered() { MemoryUse::default() } else { sys::memory::memory_use() };
        // The rlimit's count: what is only mapped counts, too.
        let used = if armed.measure == Measure::AddressSpace { used.address_space } else { used.data };
        used.unwrap_or(0)
    };
    for _ in 0..MOST_TRIES {
        // Whoever takes more than all these tries lend is none who meets such a moment by chance.
        let before_it = TAKEN.load(Ordering::Relaxed);
        if before_it > armed.reserve_bytes.saturating_mul(MOST_TRIES.into()) {
            return again();
        }
        let before = in_use();
        if lend_above(armed, before_it, again) {
            return true;
        }
        let taken = in_use().saturating_sub(before);
        if taken == 0 {
            return false;
        }
        TAKEN.fetch_add(taken, Ordering::Relaxed);
        sys::clock::sleep_ms(1);
    }
    false
}

/// Whether there is no other thread that may want memory: two are this one and the watchdog.
pub(super) fn is_alone(memory: &MemoryUse) -> bool {
    memory.threads.is_some_and(|threads| threads <= 2 + rust::idle_threads() + onlooker::threads())
}

/// With nobody else to eat it, the reserve is there for everything, the C library's own allocations included.
pub(super) fn lend_for_good(armed: &Armed) {
    if let Some((raised, _)) = with_and_without_reserve(armed, 0) {
        set_rlimit(armed.measure.into(), raised);
    }
}

/// Gives the threads that are eating the time to be refused, and parked, while there is nothing to be had: those that
/// meet the moment in which the reserve is lent would take their part of it.
pub(super) fn let_others_park() {
    /// Nobody parked for so long: whoever is left does not need memory, unless it waits for its turn at a processor.
    const QUIET_MS: u32 = 10;
    /// Nobody parked for so long: whoever runs computes.
    const COMPUTES_MS: u32 = 100;
    const MOST_MS: u64 = 1000;
    // A filter of the program's own may not let the threads be listed.
    let may_list = !sys::process::is_filtered();
    let until = sys::clock::monotonic_ms() + MOST_MS;
    let mut parked = standing::parked();
    let mut quiet_ms = 0;
    while sys::clock::monotonic_ms() < until {
        sys::clock::sleep_ms(1);
        let now = standing::parked();
        quiet_ms = if now == parked { quiet_ms + 1 } else { 0 };
        parked = now;
        if quiet_ms >= COMPUTES_MS || quiet_ms >= QUIET_MS && !(may_list && does_another_run()) {
            return;
        }
    }
}

/// Whether another thread runs, waits for a processor or for the kernel. Those that wait for one another's locks wait for
/// one that does.
fn does_another_run() -> bool {
    let me = sys::process::tid();
    let mut runs = false;
    bare::each_thread(|tid| {
        let mut text = [0; 128];
        let state = bare::read_of_thread(tid, "/stat\0", &mut text).and_then(sys::proc::behind_name);
        runs = tid != me && state.is_some_and(|state| matches!(state, [b'R' | b'D', ..]));
        !runs
    });
    runs
}

/// There are last words to be said: where the hard limit leaves no room above the soft one, makes room below it.
pub fn keep() {
    let Some(armed) = armed() else { return };
    let now = rlimit(armed.measure.into());
    if let (Some(limit), Some(in_use)) = (armed.limit.bytes(), sys::memory::memory_use().of(armed.measure))
        && now.soft == Some(limit)
        && let Some(lowered) = lowered_to_keep_reserve(limit, armed.reserve_bytes, now.hard, in_use)
    {
        armed.limit.note_lowered(lowered);
        set_rlimit(armed.measure.into(), Rlimit { soft: Some(lowered), ..now });
    }
}
