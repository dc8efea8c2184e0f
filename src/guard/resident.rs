//! The measure `resident`. The kernel has no limit on what is in use, but one on what may be: RLIMIT_DATA. Its soft limit is
//! kept low, and where it refuses, one question is asked: with what is asked for, is more in use than the limit allows? If
//! not, the soft limit moves to what is mapped and what is free, and the call is repeated; nobody sees anything of it.
//!
//! What was mapped and is used later asks nobody. So somebody looks now and then: see `watch`.
//!
//! No allocation and no lock, and nothing that a signal handler may not do. Two threads may move the limit at once: who is
//! refused again asks again.

use super::armed::{Armed, armed};
use super::backoff::Backoff;
use super::exhaustion::{self, Own, Standing, Verdict};
use super::refusal;
use crate::contract::{Cause, Evidence, Measure};
use crate::overrun;
use crate::shortage::LEAST_STEP_BYTES;
use crate::sys;
use crate::sys::memory::{Resource, Rlimit, is_marked, marked, memory_use, rlimit, set_rlimit, with_refusal};
use core::sync::atomic::{AtomicU64, Ordering};

/// How far the soft limit may be moved, in bytes: the hard limit, or the soft one that was there before; MAX for no end.
static CEILING: AtomicU64 = AtomicU64::new(u64::MAX);

/// How far the soft limit on data may be moved at most: what is in force of that measure.
pub(super) fn ceiling() -> Option<u64> {
    // Relaxed, here and below: a number that stands by itself, written before `main` or by a call that is made early.
    Some(CEILING.load(Ordering::Relaxed)).filter(|ceiling| *ceiling != u64::MAX)
}

/// The limit on what is resident, if that is the measure and there is one.
fn limit(armed: &Armed) -> Option<u64> {
    if armed.measure == Measure::Resident { armed.limit.bytes() } else { None }
}

/// Sets the soft limit for a limit of so many bytes, or for none; it never goes above `ceiling`. False with errno where it
/// cannot be set.
pub(super) fn set(limit: Option<u64>, ceiling: Option<u64>) -> bool {
    CEILING.store(ceiling.unwrap_or(u64::MAX), Ordering::Relaxed);
    let soft = match limit {
        Some(limit) => room(limit).map(|room| room.soft(0)),
        None => None,
    };
    move_soft_limit(soft)
}

/// What the process holds of its limit.
struct Room {
    data: u64,
    free: u64,
}

impl Room {
    /// The soft limit that leaves what is free, and at least `more`.
    fn soft(&self, more: u64) -> u64 {
        self.data.saturating_add(self.free.max(more))
    }
}

/// `None` where it cannot be told.
fn room(limit: u64) -> Option<Room> {
    let used = memory_use();
    Some(Room { data: used.data?, free: limit.saturating_sub(used.of(Measure::Resident)?) })
}

/// To so many bytes, or as far as it may go.
fn move_soft_limit(soft: Option<u64>) -> bool {
    let ceiling = ceiling();
    let now = rlimit(Resource::Data);
    let soft = match (soft, ceiling) {
        (Some(soft), Some(ceiling)) if soft >= ceiling => Some(ceiling),
        (Some(soft), ceiling) => Some(marked(soft, ceiling.is_some() && ceiling != now.hard)),
        (None, ceiling) => ceiling,
    };
    let soft = match (soft, now.hard) {
        (Some(soft), Some(hard)) => Some(soft.min(hard)),
        (soft, hard) => soft.or(hard),
    };
    now.soft == soft || set_rlimit(Resource::Data, Rlimit { soft, hard: now.hard })
}

/// What was granted earlier may have been used since: nothing more is to be had for it without a question. And that it was
/// refused is written down where whoever looks at this process sees it.
fn refuse(room: &Room) {
    let now = rlimit(Resource::Data);
    let Some(soft) = now.soft.filter(|soft| is_marked(*soft)) else { return };
    let room = marked(room.soft(0), ceiling().is_some_and(|ceiling| ceiling != now.hard.unwrap_or(u64::MAX)));
    let refused = with_refusal(if room < soft { room } else { soft });
    if refused != soft {
        set_rlimit(Resource::Data, Rlimit { soft: Some(refused), hard: now.hard });
    }
}

/// Takes back what the soft limit leaves beyond what is free.
fn lower_soft_limit(room: &Room) {
    let soft = rlimit(Resource::Data).soft;
    if soft.is_some_and(|soft| is_marked(soft) && soft > room.soft(0)) {
        move_soft_limit(Some(room.soft(0)));
    }
}

/// Somebody else may have set a soft limit since, as `ulimit -d` does in a shell: then it is that one which stays in force.
fn heed_soft_limit(now: Option<u64>) {
    if let Some(soft) = now.filter(|soft| !is_marked(*soft)) {
        CEILING.fetch_min(soft, Ordering::Relaxed);
    }
}

/// An allocator may ask the kernel for more than it was asked for: so much more is let pass, and at each further try four
/// times as much.
fn beside(tries: u32) -> u64 {
    LEAST_STEP_BYTES << (2 * tries.min(4))
}

/// What was refused, and why.
enum Answer {
    /// More would be in use than the limit allows.
    No,
    /// The soft limit has been moved.
    Yes,
    /// There was room already: something else has refused it, or another thread has moved the limit meanwhile.
    HasRoom,
}

fn answer(limit: u64, bytes: u64, tries: u32) -> Answer {
    if !refusal::may_ask() {
        return Answer::No;
    }
    let used = memory_use();
    let (Some(data), Some(held)) = (used.data, used.of(Measure::Resident)) else { return Answer::No };
    let wanted = bytes.checked_next_multiple_of(sys::memory::page_bytes()).unwrap_or(u64::MAX);
    let mut free = limit.saturating_sub(held);
    if wanted > free {
        // Others may share it.
        free = limit.saturating_sub(held.saturating_sub(shared(held, limit)));
    }
    let room = Room { data, free };
    if wanted > free {
        refuse(&room);
        return Answer::No;
    }
    let more = wanted.saturating_add(beside(tries));
    let now = rlimit(Resource::Data).soft;
    heed_soft_limit(now);
    if now.is_none_or(|soft| soft >= room.soft(more).min(CEILING.load(Ordering::Relaxed))) {
        return Answer::HasRoom;
    }
    if move_soft_limit(Some(room.soft(more))) { Answer::Yes } else { Answer::No }
}

/// When it was last looked how much of what this process holds is counted for others, as they share it; and how much that was.
static SHARED_AT: Backoff = Backoff::new();
static SHARED: AtomicU64 = AtomicU64::new(0);

fn shared(held: u64, limit: u64) -> u64 {
    let now_ms = sys::process::monotonic_ms();
    if SHARED_AT.is_due(now_ms) {
        let shared = sys::memory::share_held().map_or(0, |share| held.saturating_sub(share));
        SHARED.store(shared.min(limit), Ordering::Relaxed);
        SHARED_AT.note_attempt(now_ms, sys::process::monotonic_ms() + 1);
    }
    SHARED.load(Ordering::Relaxed)
}

/// So many bytes were refused: may the process have more? If so, `again` repeats the call. Whether it worked. `errno` may be
/// another one then.
pub(super) fn ask(armed: &Armed, bytes: u64, again: &mut dyn FnMut() -> bool) -> bool {
    /// As often as another thread takes what was meant for this one.
    const MOST_TRIES: u32 = 64;
    /// As often as there was room already: that may have been another thread's doing.
    const MOST_IN_VAIN: u32 = 2;
    let Some(limit) = limit(armed) else { return false };
    let mut in_vain = 0;
    for tries in 0..MOST_TRIES {
        match answer(limit, bytes, tries) {
            Answer::No => return false,
            Answer::Yes => {}
            Answer::HasRoom => in_vain += 1,
        }
        let worked = again();
        if tries > 0 && (worked || in_vain == MOST_IN_VAIN) {
            // More was let pass than was asked for: what is left of that is not to be had.
            if let Some(room) = room(limit) {
                lower_soft_limit(&room);
            }
        }
        if worked {
            return true;
        }
        if in_vain == MOST_IN_VAIN {
            return false;
        }
    }
    false
}

/// Whether a new private writable mapping of `bytes` would be refused right now, for good.
pub(super) fn would_be_refused(bytes: usize) -> bool {
    if let Some(armed) = armed()
        && let Some(limit) = limit(armed)
        && refusal::may_ask()
        && matches!(answer(limit, bytes as u64, 0), Answer::No)
    {
        return true;
    }
    sys::memory::would_be_refused(bytes)
}

/// SIGABRT has come: ends the process, if it was sent as this process is over its limit, and it is. True: it was sent for that.
pub(super) fn heed(armed: &Armed, info: &libc::siginfo_t) -> bool {
    // SAFETY: a queued signal has a value; of any other these are bytes all the same.
    let value = unsafe { info.si_value() }.sival_ptr as u64;
    let is_told = info.si_code == libc::SI_QUEUE && value == overrun::TOLD;
    let Some(limit) = limit(armed).filter(|_| is_told) else { return false };
    // Whoever says the last words goes on.
    if exhaustion::standing() == Standing::Alive {
        end_if_over(armed, limit);
    }
    true
}

/// What others share of it may explain that it holds too much.
fn end_if_over(armed: &Armed, limit: u64) {
    let most = overrun::most(limit);
    let is_over = memory_use().held().is_some_and(|held| held > most)
        && sys::memory::share_held().is_none_or(|share| share > most);
    if is_over {
        let (cause, evidence, own) = (Cause::Resident, Evidence::Exact, Own::Unknown);
        exhaustion::end_for_certain(armed, Verdict { cause, request: None, evidence, own });
    }
}

/// Calls to posix_spawn(3) and the like that are under way, for which the soft limit is lifted.
#[cfg(feature = "shim")]
static LIFTED: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// What the soft limit is to be for a program that this process becomes, or starts.
#[cfg(feature = "shim")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// It moves its limit itself. Its dynamic linker maps before it can: the soft limit is what this process was started with.
    Guarded,
    /// Nobody moves it: it counts data, which is never less than what is resident.
    Unguarded,
}

#[cfg(feature = "shim")]
fn lift(limit: u64, whom: For) {
    if whom == For::Guarded || ceiling().is_some_and(|ceiling| ceiling <= limit) {
        move_soft_limit(None);
    } else {
        let soft = Some(sys::memory::marked_standing(limit));
        set_rlimit(Resource::Data, Rlimit { soft, ..rlimit(Resource::Data) });
    }
}

/// Calls execve(2) or its kin with the soft limit that such a program needs. Also in a child of vfork(2), which has limits of
/// its own.
#[cfg(feature = "shim")]
pub(super) fn while_becoming<T>(whom: For, exec: impl FnOnce() -> T) -> T {
    let Some(limit) = armed().and_then(limit) else { return exec() };
    let errno = sys::fd::errno();
    let before = rlimit(Resource::Data);
    heed_soft_limit(before.soft);
    lift(limit, whom);
    sys::fd::set_errno(errno);
    let result = exec();
    // It has not come about.
    let errno = sys::fd::errno();
    set_rlimit(Resource::Data, before);
    sys::fd::set_errno(errno);
    result
}

/// The same for posix_spawn(3): the child inherits what this process has meanwhile.
#[cfg(feature = "shim")]
pub(super) fn while_starting<T>(whom: For, spawn: impl FnOnce() -> T) -> T {
    let Some(limit) = armed().and_then(limit) else { return spawn() };
    let errno = sys::fd::errno();
    // Relaxed: the limit is the kernel's, and whoever lowers it reads what is in use anew.
    if LIFTED.fetch_add(1, Ordering::Relaxed) == 0 {
        heed_soft_limit(rlimit(Resource::Data).soft);
    }
    lift(limit, whom);
    sys::fd::set_errno(errno);
    let result = spawn();
    let errno = sys::fd::errno();
    if LIFTED.fetch_sub(1, Ordering::Relaxed) == 1
        && let Some(room) = room(limit)
    {
        move_soft_limit(Some(room.soft(0)));
    }
    sys::fd::set_errno(errno);
    result
}
