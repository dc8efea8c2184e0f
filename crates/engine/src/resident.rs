//! The measure `resident`. The kernel has no limit on what is in use, but one on what may be: RLIMIT_DATA. Its soft limit is
//! kept low, and where it refuses, one question is asked: with what is asked for, is more in use than the limit allows? If
//! not, the soft limit moves to what is mapped and what is free, and the call is repeated; nobody sees anything of it.
//!
//! What was mapped and is used later asks nobody. So somebody looks now and then: see `watch`.
//!
//! No allocation and no lock, and nothing that a signal handler may not do. Two threads may move the limit at once: who is
//! refused again asks again.

use super::armed::{Armed, armed};
use super::lease::Pledge;
use super::{filter, lease, record, refused};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use oomguard_core::backoff::Backoff;
use oomguard_core::contract::{LimitSource, Measure};
use oomguard_core::growth::{Grant, Use};
use oomguard_core::ledger::Seen;
use oomguard_core::shortage::LEAST_STEP_BYTES;
use oomguard_core::sys;
use oomguard_core::sys::memory::{
    MemoryUse, Resource, Rlimit, is_marked, marked, memory_use, rlimit, set_rlimit, with_refusal,
};

/// How far the soft limit may be moved, in bytes: the hard limit, or the soft one that was there before; MAX for no end.
static CEILING: AtomicU64 = AtomicU64::new(u64::MAX);

/// How far the soft limit on data may be moved at most: what is in force of that measure.
pub(super) fn ceiling() -> Option<u64> {
    // Relaxed, here and below: a number that stands by itself, written before `main` or by a call that is made early.
    Some(CEILING.load(Ordering::Relaxed)).filter(|ceiling| *ceiling != u64::MAX)
}

/// The limit on what is resident, if that is the measure and there is one. One that is no less than the budget is as the
/// budget is now.
pub(super) fn limit(armed: &Armed) -> Option<u64> {
    if armed.measure != Measure::Resident {
        return None;
    }
    let set = armed.limit.bytes()?;
    // What was said to this process itself has the last word.
    let set = if armed.limit.source() == Some(LimitSource::Source) {
        set
    } else {
        record::limit_now().unwrap_or(set)
    };
    if armed.limit.source() == Some(LimitSource::Budget) { lease::budget().or(Some(set)) } else { Some(set) }
}

/// How much this process could hold at the moment: its limit, or what others who share its budget leave it.
pub(super) fn limit_of_a_moment(armed: &Armed, used: &MemoryUse) -> Option<u64> {
    let limit = limit(armed)?;
    let leased = used.of(Measure::Resident).and_then(lease::most);
    Some(leased.map_or(limit, |leased| limit.min(leased)))
}

/// Sets the soft limit for a limit of so many bytes, or for none, where this process uses so much now; it never goes above
/// `ceiling`. False with errno where it cannot be set.
pub(super) fn set(limit: Option<u64>, ceiling: Option<u64>, now: &MemoryUse, is_looked_at: bool) -> bool {
    CEILING.store(ceiling.unwrap_or(u64::MAX), Ordering::Relaxed);
    let soft = match limit {
        // Who cannot say what is in use, as there is no `/proc`, is looked at from outside, or is given what it may map.
        Some(limit) => match room_beside(limit, now) {
            Some(room) => Some(room.soft(0)),
            None => Some(limit).filter(|_| !is_looked_at),
        },
        None => None,
    };
    move_soft_limit(soft)
}

/// This process is a child that was just forked: nothing is lifted in it. Where it shares a budget it has nothing of that yet, and
/// asks before it takes more.
pub fn settle_child() {
    let was_lifted = LIFTED.swap(0, Ordering::Relaxed) != 0;
    LOADING.store(0, Ordering::Relaxed);
    if was_lifted || lease::is_shared() && filter::may_ask() {
        settle();
    }
}

/// The soft limit leaves what is free.
fn settle() {
    if let Some(room) = armed().and_then(limit).and_then(room) {
        move_soft_limit(Some(room.soft(0)));
    }
}

/// The limit, where this process may ask what it uses of it.
fn asked_limit() -> Option<u64> {
    armed().and_then(limit).filter(|_| filter::may_ask())
}

/// Whether so many bytes more are within what this process could hold at the moment.
pub(super) fn has_room_for(bytes: u64) -> bool {
    asked_limit()
        .is_none_or(|limit| !matches!(answer(limit, bytes, 0, Asking::Whether), Answer::No | Answer::Short))
}

/// What the process holds of its limit.
struct Room {
    data: u64,
    free: u64,
}

impl Room {
    /// The soft limit that leaves what is free, and at least `more`.
    fn soft(&self, more: u64) -> u64 {
        lease::soft_limit(self.data.saturating_add(self.free.max(more)))
    }
}

/// `None` where it cannot be told.
fn room(limit: u64) -> Option<Room> {
    room_beside(limit, &memory_use())
}

fn room_beside(limit: u64, now: &MemoryUse) -> Option<Room> {
    let pledged = lease::pledged();
    let seen = Seen::of(now)?;
    let free = limit.saturating_sub(seen.held);
    Some(Room { data: seen.data, free: lease::free(seen, pledged).map_or(free, |leased| free.min(leased)) })
}

/// To so many bytes, or as far as it may go: there it stays while a library is loaded.
fn move_soft_limit(soft: Option<u64>) -> bool {
    let soft = soft.filter(|_| LOADING.load(Ordering::Relaxed) == 0);
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
    /// It would be within the limit, but others who share its budget have what is missing.
    Short,
    /// The same, but meanwhile others went first, or took back what it had: it is to ask anew.
    Later,
    /// The soft limit has been moved.
    Yes,
    /// There was room already: something else has refused it, or another thread has moved the limit meanwhile.
    HasRoom,
}

/// Whether it is asked for memory, or whether there would be any.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Others who share its budget may go first.
    InTurn,
    For,
    /// For what is pledged already, and taken by a call that no limit refuses.
    ForPledged,
    Whether,
}

/// In a budget the soft limit leaves hardly more than what is in use. A process that cannot say that any more would be refused
/// what there is room for: it is let off, and is looked at from outside. Whether its soft limit was moved.
pub fn stop_asking() -> bool {
    if !lease::is_shared() {
        return false;
    }
    let now = rlimit(Resource::Data).soft;
    heed_soft_limit(now);
    lease::leave_it_to_a_look();
    now.is_some_and(is_marked) && move_soft_limit(None)
}

/// How much the lease leaves once it has grown as far as it can; `None`: there is no budget. `pledged`: what its other threads
/// are about to take.
fn lease_for(seen: Seen, limit: u64, wanted: u64, more: u64, pledged: u64) -> Option<Grant> {
    let leased = lease::make_room(Use { seen, shared: 0, pledged }, more)?;
    if leased.left >= wanted {
        return Some(leased);
    }
    // Others may share what it holds.
    match shared(seen.held, limit) {
        0 => Some(leased),
        shared => lease::make_room(Use { seen, shared, pledged }, more),
    }
}

fn answer(limit: u64, bytes: u64, tries: u32, asking: Asking) -> Answer {
    if !filter::may_ask() {
        return Answer::No;
    }
    let own = if asking == Asking::ForPledged { bytes } else { 0 };
    let pledged = lease::pledged().saturating_sub(own);
    let Some(seen) = Seen::of(&memory_use()) else {
        // Its root directory has no `/proc`, as that of many a daemon.
        return if asking != Asking::Whether && stop_asking() { Answer::Yes } else { Answer::No };
    };
    let Seen { data, held, .. } = seen;
    let wanted = bytes.checked_next_multiple_of(sys::memory::page_bytes()).unwrap_or(u64::MAX);
    let mut free = limit.saturating_sub(held);
    if wanted > free && wanted <= limit {
        // Others may share it.
        free = limit.saturating_sub(held.saturating_sub(shared(held, limit)));
    }
    let room = Room { data, free };
    if wanted > free {
        refuse(&room);
        return Answer::No;
    }
    if asking == Asking::Whether && lease::most(held).is_some_and(|most| wanted > most.saturating_sub(held)) {
        return Answer::Short;
    }
    if asking == Asking::InTurn && lease::yield_to_others(wanted) {
        return Answer::Later;
    }
    let more = wanted.saturating_add(beside(tries));
    let grant = if asking == Asking::Whether { None } else { lease_for(seen, limit, wanted, more, pledged) };
    if let Some(Grant { left, .. }) = grant {
        if wanted > left {
            refuse(&Room { data, free: left });
            return Answer::Short;
        }
        free = free.min(left);
        if asking == Asking::ForPledged {
            // It is not for what a limit refuses.
            lower_soft_limit(&Room { data, free: free - wanted });
            return Answer::Yes;
        }
    }
    let room = Room { data, free };
    let now = rlimit(Resource::Data).soft;
    heed_soft_limit(now);
    if now.is_none_or(|soft| soft >= room.soft(more).min(CEILING.load(Ordering::Relaxed))) {
        return Answer::HasRoom;
    }
    if !move_soft_limit(Some(room.soft(more))) {
        return Answer::No;
    }
    // What was taken back meanwhile must not be used after all.
    if let (Some(grant), Some(now)) = (grant, lease::hold())
        && now < grant.lease
    {
        move_soft_limit(Some(Room { data, free: 0 }.soft(0)));
        return Answer::Later;
    }
    Answer::Yes
}

/// When it was last looked how much of what this process holds is counted for others, as they share it; and how much that was.
static SHARED_AT: Backoff = Backoff::new();
static SHARED: AtomicU64 = AtomicU64::new(0);

fn shared(held: u64, limit: u64) -> u64 {
    let now_ms = sys::clock::monotonic_ms();
    if SHARED_AT.is_due(now_ms) {
        let shared = sys::memory::share_held().map_or(0, |share| held.saturating_sub(share));
        SHARED.store(shared.min(limit), Ordering::Relaxed);
        SHARED_AT.note_attempt(now_ms, sys::clock::monotonic_ms() + 1);
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
    refused::note_answer_of_the_budget(false);
    let mut in_vain = 0;
    // A callback of the program's may hold anything: whoever calls it is not to wait in there.
    let mut asking = if refused::is_handling() { Asking::For } else { Asking::InTurn };
    for tries in 0..MOST_TRIES {
        match answer(limit, bytes, tries, core::mem::replace(&mut asking, Asking::For)) {
            Answer::Later => continue,
            Answer::No => {
                lease::acquit();
                return false;
            }
            Answer::Short => {
                refused::note_answer_of_the_budget(true);
                return false;
            }
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

/// There is no room for what was asked for.
pub(super) struct Refused;

/// So many bytes are to be had by a call that no limit refuses, in a budget: may the process? If so they are pledged, where anything
/// limits them. It waits for them as `wait` does.
pub(super) fn pledge(armed: &Armed, bytes: u64) -> Result<Option<Pledge>, Refused> {
    let Some(limit) = limit(armed) else { return Ok(None) };
    refused::note_answer_of_the_budget(false);
    let may_wait = !refused::is_handling();
    if may_wait && limit >= bytes {
        lease::yield_to_others(bytes);
    }
    let mut pledge = pledge_now(limit, bytes);
    if let Err(Answer::No) = pledge {
        lease::acquit();
        return Err(Refused);
    }
    if pledge.is_err() && may_wait {
        lease::wait(bytes, lease::Kind::Mapping, &mut || {
            pledge = pledge_now(limit, bytes);
            pledge.is_ok()
        });
    }
    refused::note_answer_of_the_budget(pledge.is_err());
    pledge.map_err(|_| Refused)
}

/// Nothing is pledged while it waits: others may take back what it does not use.
fn pledge_now(limit: u64, bytes: u64) -> Result<Option<Pledge>, Answer> {
    /// As often as others take back what it had.
    const MOST_TRIES: u32 = 8;
    let pledge = Pledge::new(bytes);
    for tries in 0..MOST_TRIES {
        match answer(limit, bytes, tries, Asking::ForPledged) {
            Answer::Later => {}
            Answer::Yes | Answer::HasRoom => return Ok(pledge),
            no => return Err(no),
        }
    }
    Err(Answer::Later)
}

/// The same once it has been refused: if others who share its budget have what is missing, it waits until there is room, as
/// long as its patience lasts.
pub(super) fn wait(armed: &Armed, bytes: u64, kind: lease::Kind, again: &mut dyn FnMut() -> bool) -> bool {
    let Some(limit) = limit(armed).filter(|_| lease::is_shared()) else { return false };
    match answer(limit, bytes, 0, Asking::For) {
        Answer::No | Answer::HasRoom => return false,
        Answer::Yes if again() => return true,
        Answer::Yes | Answer::Short | Answer::Later => {}
    }
    lease::wait(bytes, kind, &mut || ask(armed, bytes, again))
}

/// Whether a new private writable mapping of `bytes` would be refused right now, for good.
pub fn would_be_refused(bytes: usize) -> bool {
    let limit = asked_limit();
    if !has_room_for(bytes as u64) {
        return true;
    }
    let is_refused = sys::memory::would_be_refused(bytes);
    // What was made room for so as to try was not granted.
    if let Some(limit) = limit
        && lease::is_shared()
        && let Some(room) = room(limit)
    {
        lower_soft_limit(&room);
    }
    is_refused
}

/// Calls to posix_spawn(3) and the like that are under way, and libraries that are loaded, for which the soft limit is lifted.
static LIFTED: AtomicU32 = AtomicU32::new(0);
/// The libraries of these.
static LOADING: AtomicU32 = AtomicU32::new(0);

/// What the soft limit is to be for a program that this process becomes, or starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// It moves its limit itself. Its dynamic linker maps before it can: the soft limit is what this process was started with.
    Guarded,
    /// Nobody moves it: it counts data, which is never less than what is resident.
    Unguarded,
}

/// Whether there is a limit that would be in the way of the dynamic linker.
pub(super) fn may_lift() -> bool {
    asked_limit().is_some()
}

/// The dynamic linker is about to map a library, by calls that cannot ask: no limit of ours is in its way. What comes of it is
/// charged once it is touched, and some of that is made room for now. Whether the limit was lifted.
pub(super) fn lift_for_loading() -> bool {
    /// More than all but the largest libraries touch.
    const LOADING_BYTES: u64 = 16 << 20;
    let Some(limit) = asked_limit() else { return false };
    LIFTED.fetch_add(1, Ordering::Relaxed);
    LOADING.fetch_add(1, Ordering::Relaxed);
    let soft = rlimit(Resource::Data).soft;
    heed_soft_limit(soft);
    let pledged = lease::pledged();
    if let Some(soft) = soft.filter(|soft| is_marked(*soft))
        && let Some(seen) = Seen::of(&memory_use())
    {
        let wanted = LOADING_BYTES.min(limit.saturating_sub(seen.held));
        if soft < seen.data.saturating_add(wanted) {
            // Where nothing is to be had, it is mapped all the same.
            lease::make_room(Use { seen, shared: 0, pledged }, wanted);
        }
    }
    let is_lifted = move_soft_limit(None);
    if !is_lifted {
        LOADING.fetch_sub(1, Ordering::Relaxed);
        LIFTED.fetch_sub(1, Ordering::Relaxed);
    }
    is_lifted
}

/// It has been mapped.
pub(super) fn settle_after_loading() {
    LOADING.fetch_sub(1, Ordering::Relaxed);
    settle_if_last();
}

/// Whoever had the limit lifted needs that no longer.
fn settle_if_last() {
    if LIFTED.fetch_sub(1, Ordering::Relaxed) == 1 {
        settle();
    }
    // What a program that is started inherits is less; and somebody may have begun to load just now.
    if LOADING.load(Ordering::Relaxed) != 0 {
        move_soft_limit(None);
    }
}

fn lift(limit: u64, whom: For) {
    if whom == For::Guarded || ceiling().is_some_and(|ceiling| ceiling <= limit) {
        move_soft_limit(None);
    } else {
        let soft = Some(sys::memory::marked_standing(limit));
        set_rlimit(Resource::Data, Rlimit { soft, ..rlimit(Resource::Data) });
    }
}

/// The limit that a program gets which this process becomes, or starts, where the soft limit is not what it may have.
pub fn limit_at_start() -> Option<u64> {
    armed().and_then(limit)
}

/// Calls execve(2) or its kin with the soft limit that such a program needs. Also in a child of vfork(2), which has limits of
/// its own.
pub fn while_becoming<T>(whom: For, exec: impl FnOnce() -> T) -> T {
    let Some(limit) = armed().and_then(limit) else { return exec() };
    let errno = sys::errno::errno();
    let before = rlimit(Resource::Data);
    heed_soft_limit(before.soft);
    lift(limit, whom);
    sys::errno::set_errno(errno);
    let result = exec();
    // It has not come about.
    let errno = sys::errno::errno();
    set_rlimit(Resource::Data, before);
    sys::errno::set_errno(errno);
    result
}

/// The same for posix_spawn(3): the child inherits what this process has meanwhile.
pub fn while_starting<T>(whom: For, spawn: impl FnOnce() -> T) -> T {
    let Some(limit) = armed().and_then(limit) else { return spawn() };
    let errno = sys::errno::errno();
    // Relaxed: the limit is the kernel's, and whoever lowers it reads what is in use anew.
    if LIFTED.fetch_add(1, Ordering::Relaxed) == 0 {
        heed_soft_limit(rlimit(Resource::Data).soft);
    }
    lift(limit, whom);
    sys::errno::set_errno(errno);
    let result = spawn();
    let errno = sys::errno::errno();
    settle_if_last();
    sys::errno::set_errno(errno);
    result
}
