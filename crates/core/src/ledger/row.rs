//! A process's row in the ledger: what it has, wants and uses, as far as that can be said of one alone.

use super::{ANY, NOISE_BYTES, ONE};
use crate::text::{Text, position};
use core::sync::atomic::AtomicU64;

#[repr(C, align(64))]
pub struct Row {
    /// The process: `Id`; zero for nobody. While somebody else makes the row up for it, that one, and `IS_MAKER`.
    pub(super) id: AtomicU64,
    /// `LEASE_BITS` for its bytes, and above them the number that goes up with whatever is done by it.
    pub(super) lease: AtomicU64,
    pub(super) claim: AtomicU64,
    /// What whoever keeps the ledger is about to charge it for.
    pub(super) charging: AtomicU64,
    /// What its threads are about to take by calls that no limit refuses.
    pub(super) pledged: AtomicU64,
    /// What it held when it was forked, which others are charged for.
    pub(super) base: AtomicU64,
    /// What it held when somebody looked last, that of others included.
    pub(super) held: AtomicU64,
    /// What of that was its own part, each shared page divided among those who have it, when that was looked at last: for reports.
    share: AtomicU64,
    /// What it has mapped and not touched for a while; the least that was so since a moment, and that moment.
    pub(super) untouched: AtomicU64,
    pub(super) lately_untouched: AtomicU64,
    pub(super) lately_since_ms: AtomicU64,
    /// Of what it has mapped, room for code that it makes as it runs: most of that it never touches.
    for_code: AtomicU64,
    /// What of shared memory it was found to use, and what it will once it has used all that it asked for; and when it was last
    /// seen on its way there.
    pub(super) in_shared: AtomicU64,
    pub(super) in_shared_to_come: AtomicU64,
    pub(super) in_shared_at_ms: AtomicU64,
    /// What those have used of it that were forked since, and theirs; and by whom it was forked itself.
    pub(super) in_shared_by_heirs: AtomicU64,
    pub(super) parent: AtomicU64,
    /// When its lease has grown last, and when before that; zero for never.
    grown_ms: AtomicU64,
    grown_before_ms: AtomicU64,
    /// Since when it lets another one go first; zero while it does not.
    held_back_since_ms: AtomicU64,
    /// Since when it waits; zero while it does not.
    pub(super) waiting_since_ms: AtomicU64,
    /// What it waits for, or was refused last, in bytes.
    pub(super) wanted: AtomicU64,
    pub(super) refusals: AtomicU64,
    /// When it was asked to leave; zero where it was not.
    pub(super) asked_ms: AtomicU64,
    /// Whether it was asked to leave, and has begun to.
    is_leaving: AtomicU64,
    /// Whether nothing of ours runs in it: it was found by a look, and is charged for what it holds.
    pub(super) is_outside: AtomicU64,
    /// For whom its tracer holds it still, or it does so itself: `Id`; zero for nobody.
    still_for: AtomicU64,
    /// Whether it stands still by itself when it is told to.
    heeds_stillness: AtomicU64,
    name: [AtomicU64; 2],
}

/// A process, by its number and its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(pub(super) u64);

/// The number of a process has 22 bits at most: PID_MAX_LIMIT in the kernel's threads.h.
const PID_SHIFT: u32 = 42;
/// Beside an `Id`: it is not the process whose row it is, and makes that up.
pub(super) const IS_MAKER: u64 = 1 << 41;
const START_MASK: u64 = IS_MAKER - 1;

impl Id {
    /// `start` is the 22nd field of proc_pid_stat(5).
    pub fn new(pid: u32, start: u64) -> Id {
        Id(u64::from(pid) << PID_SHIFT | start & START_MASK)
    }

    pub fn start(self) -> u64 {
        self.0 & START_MASK
    }

    pub fn pid(self) -> u32 {
        (self.0 >> PID_SHIFT) as u32
    }
}

/// What a process is found to use, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Private memory that it may write to, touched or not.
    pub data: u64,
    /// What it holds: of that, and of shared memory.
    pub held: u64,
    /// What of shared memory.
    pub in_shared: u64,
}

/// What was seen untouched for so long stays so.
const UNTOUCHED_MS: u64 = 1000;

/// So many bits are enough for what any machine has.
const LEASE_BITS: u32 = 48;
pub(super) const MOST_BYTES: u64 = (1 << LEASE_BITS) - 1;

/// The bytes in the word of a lease.
pub(super) fn bytes_in(lease: u64) -> u64 {
    lease & MOST_BYTES
}

/// The word that comes after another one.
pub(super) fn next_lease(lease: u64, bytes: u64) -> u64 {
    (lease & !MOST_BYTES).wrapping_add(1 << LEASE_BITS) | bytes.min(MOST_BYTES)
}

impl Row {
    /// Takes a row that is nobody's. What the one before has claimed there counts until it begins, which is more and never less.
    pub(super) fn take(&self, id: u64) -> bool {
        self.id.compare_exchange(0, id, ONE, ONE).is_ok()
    }

    /// Whoever was making it up is dead: it has no lease, and is nobody's.
    pub(super) fn free_if_its_maker(&self, is_dead: impl FnOnce(Id) -> bool) {
        let id = self.id.load(ONE);
        if id & IS_MAKER != 0 && is_dead(Id(id & !IS_MAKER)) {
            let _ = self.id.compare_exchange(id, 0, ONE, ONE);
        }
    }

    /// The process has nothing yet; or it has become another program, and nothing of the old one is left.
    pub fn begin(&self) {
        self.claim.store(0, ONE);
        self.charging.store(0, ONE);
        self.pledged.store(0, ONE);
        self.change_lease(|_| 0);
        for word in [
            &self.base,
            &self.held,
            &self.share,
            &self.untouched,
            &self.lately_untouched,
            &self.lately_since_ms,
            &self.for_code,
            &self.in_shared,
            &self.in_shared_to_come,
            &self.in_shared_at_ms,
            &self.in_shared_by_heirs,
            &self.parent,
            &self.grown_ms,
            &self.grown_before_ms,
            &self.held_back_since_ms,
            &self.waiting_since_ms,
            &self.wanted,
            &self.refusals,
            &self.asked_ms,
            &self.is_leaving,
            &self.is_outside,
            &self.still_for,
            &self.heeds_stillness,
        ] {
            word.store(0, ANY);
        }
    }

    pub fn id(&self) -> Option<Id> {
        let id = self.id.load(ONE);
        Some(Id(id)).filter(|id| id.pid() != 0 && id.0 & IS_MAKER == 0)
    }

    pub fn lease(&self) -> u64 {
        bytes_in(self.lease.load(ONE))
    }

    /// The same for whoever goes by it: from now on, nobody takes back what was found unused before. Whoever has moved a limit by
    /// the lease, or pledged something, looks at it so afterwards.
    pub fn hold_lease(&self) -> u64 {
        self.change_lease(|lease| lease)
    }

    /// What it has become.
    pub(super) fn change_lease(&self, change: impl Fn(u64) -> u64) -> u64 {
        let mut now = self.lease.load(ONE);
        loop {
            let next = next_lease(now, change(bytes_in(now)));
            match self.lease.compare_exchange(now, next, ONE, ONE) {
                Ok(_) => return bytes_in(next),
                Err(other) => now = other,
            }
        }
    }

    /// The first step: the process wants so much more. False: another thread of it is at it already.
    pub fn claim(&self, more: u64) -> bool {
        more != 0 && self.claim.compare_exchange(0, more, ONE, ONE).is_ok()
    }

    /// See `Ledger::note_use`; and how much more it uses of shared memory.
    pub(super) fn note_use(&self, seen: Seen, now_ms: u64) -> (u64, u64) {
        self.note_held(seen.held);
        // What it holds of shared memory says nothing of the private one.
        let mapped = seen.data.saturating_add(seen.in_shared);
        let (to_come, more) = self.note_shared(seen.in_shared, now_ms);
        (self.note_mapped(mapped, seen.held, now_ms).saturating_add(to_come), more)
    }

    /// The same of private memory.
    fn note_mapped(&self, mapped: u64, held: u64, now_ms: u64) -> u64 {
        let now = mapped.saturating_sub(held).saturating_sub(self.for_code.load(ANY));
        let lately = self.lately_untouched.load(ANY);
        if now.saturating_add(NOISE_BYTES) < lately {
            self.untouched.store(0, ANY);
            self.lately_untouched.store(now, ANY);
            self.lately_since_ms.store(now_ms, ANY);
        } else if now_ms.saturating_sub(self.lately_since_ms.load(ANY)) >= UNTOUCHED_MS {
            self.untouched.store(lately.min(now), ANY);
            self.lately_untouched.store(now, ANY);
            self.lately_since_ms.store(now_ms, ANY);
        }
        now.saturating_sub(self.untouched.load(ANY))
    }

    /// It has room for so many bytes of code, which count where they are used. Of several such, the largest is left out: who gives one
    /// back need not say so.
    pub fn note_room_for_code(&self, bytes: u64) {
        self.for_code.fetch_max(bytes, ANY);
    }

    /// The same of shared memory, of which the kernel tells what is in use and not what is mapped; and how much more is in use.
    fn note_shared(&self, in_use: u64, now_ms: u64) -> (u64, u64) {
        let more = in_use.saturating_sub(self.in_shared.swap(in_use, ANY));
        if more > NOISE_BYTES && self.in_shared_to_come.load(ANY) > in_use {
            self.in_shared_at_ms.store(now_ms, ANY);
        }
        // What a child has used its parent may have used before.
        let used = in_use.max(self.in_shared_by_heirs.load(ANY));
        (self.in_shared_to_come(now_ms).saturating_sub(used), more)
    }

    /// A child, or one of its children, uses so much more shared memory.
    pub(super) fn note_use_by_heir(&self, more: u64, now_ms: u64) {
        let by_heirs = self.in_shared_by_heirs.load(ANY).saturating_add(more);
        if self.in_shared_to_come.load(ANY) > by_heirs {
            self.in_shared_at_ms.store(now_ms, ANY);
        }
        // Two who note at once may leave one of them out: then more is kept than will be used, for a while.
        self.in_shared_by_heirs.store(by_heirs, ANY);
    }

    /// What of shared memory it will use once it has used all that it asked for lately.
    fn in_shared_to_come(&self, now_ms: u64) -> u64 {
        let is_old = now_ms.saturating_sub(self.in_shared_at_ms.load(ANY)) >= UNTOUCHED_MS;
        if is_old { 0 } else { self.in_shared_to_come.load(ANY) }
    }

    /// What of shared memory it was found to use.
    pub fn in_shared(&self) -> u64 {
        self.in_shared.load(ANY)
    }

    /// What it has got of shared memory, by fallocate(2) as well, and is yet to use, for all that is known.
    pub fn shared_to_come(&self) -> u64 {
        self.in_shared_to_come.load(ANY)
    }

    /// It has got so much more shared memory, and will use it.
    pub fn note_new_shared(&self, bytes: u64, now_ms: u64) {
        let to_come = self.in_shared_to_come(now_ms);
        if to_come == 0 {
            self.in_shared_by_heirs.store(0, ANY);
        }
        let whole = to_come.max(self.in_shared.load(ANY)).saturating_add(bytes);
        self.in_shared_to_come.store(whole, ANY);
        self.in_shared_at_ms.store(now_ms, ANY);
    }

    /// A thread is about to take so much by a call that no limit refuses. Whoever pledges looks at the lease afterwards, and not
    /// before: it may be taken back until then.
    pub fn pledge(&self, bytes: u64) {
        self.pledged.fetch_add(bytes, ONE);
        self.hold_lease();
    }

    /// That call has been made, and what it took is seen; or it will not be made.
    pub fn end_pledge(&self, bytes: u64) {
        let mut now = self.pledged();
        // Nothing is left where the process has become another program meanwhile.
        while let Err(other) = self.pledged.compare_exchange(now, now.saturating_sub(bytes), ONE, ONE) {
            now = other;
        }
    }

    pub fn pledged(&self) -> u64 {
        self.pledged.load(ONE)
    }

    /// Takes back what the process has leased and does not use: how much. `uses`: how much of the lease it keeps, pledges aside,
    /// once it cannot use more without asking.
    pub fn take_unused(&self, least: u64, uses: impl FnOnce() -> Option<u64>) -> u64 {
        // In this order: whoever goes by the lease from now on has another one; and a pledge that has ended was made good, and is
        // in use.
        let lease = self.lease.load(ONE);
        let pledged = self.pledged();
        let keep = uses().map_or(u64::MAX, |uses| uses.saturating_add(pledged));
        let taken = bytes_in(lease).saturating_sub(keep);
        if taken < least.max(1)
            || self.lease.compare_exchange(lease, next_lease(lease, keep), ONE, ONE).is_err()
        {
            return 0;
        }
        taken
    }

    /// The process was asked to leave.
    pub fn ask_to_leave(&self, now_ms: u64) {
        self.asked_ms.store(now_ms.max(1), ANY);
    }

    /// When it was asked to leave; zero where it was not.
    pub fn asked_to_leave_ms(&self) -> u64 {
        self.asked_ms.load(ANY)
    }

    /// It leaves.
    pub fn note_leaving(&self) {
        self.is_leaving.store(1, ANY);
    }

    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(ANY) != 0
    }

    /// The process was forked by that one, if it shares the budget, and holds so much that its parent is charged for.
    pub fn set_base(&self, bytes: u64, parent: Option<Id>) {
        self.base.store(bytes, ANY);
        self.parent.store(parent.map_or(0, |Id(parent)| parent), ANY);
    }

    /// The process that it was forked by, and is still a copy of.
    pub fn parent(&self) -> Option<Id> {
        Some(self.parent.load(ANY)).filter(|parent| *parent != 0).map(Id)
    }

    pub fn base(&self) -> u64 {
        self.base.load(ANY)
    }

    /// The process was found to hold so much.
    pub fn note_held(&self, bytes: u64) {
        self.held.store(bytes, ANY);
    }

    pub fn held(&self) -> u64 {
        self.held.load(ANY)
    }

    /// Its part of what it shares was found to be so much.
    pub fn note_share(&self, bytes: u64) {
        self.share.store(bytes, ANY);
    }

    /// No more than it was found to hold since.
    pub(super) fn share(&self) -> u64 {
        self.share.load(ANY).min(self.held())
    }

    /// Of what it was found to hold, what nobody else is charged for.
    pub fn charge(&self) -> u64 {
        self.held.load(ANY).saturating_sub(self.base())
    }

    /// Its lease has grown, after a question.
    pub fn note_grown(&self, now_ms: u64) {
        self.grown_before_ms.store(self.grown_ms.swap(now_ms.max(1), ANY), ANY);
    }

    /// Whether it goes on growing, for all that is known: it has a few times, and not long ago as it goes; or would, if it did
    /// not let another one go first.
    pub(super) fn grows(&self, now_ms: u64) -> bool {
        const SHORTEST_MS: u64 = 100;
        const LONGEST_MS: u64 = 5000;
        let (last, before) = (self.grown_ms.load(ANY), self.grown_before_ms.load(ANY));
        let pause_ms = last.saturating_sub(before);
        let lasts_ms = pause_ms.saturating_mul(4).clamp(SHORTEST_MS, LONGEST_MS);
        let has_grown = before != 0 && pause_ms <= LONGEST_MS && now_ms.saturating_sub(last) <= lasts_ms;
        has_grown || self.held_back_since_ms() != 0
    }

    /// It lets another one go first from now on.
    pub fn begin_to_yield(&self, bytes: u64, now_ms: u64) {
        self.wanted.store(bytes, ANY);
        self.held_back_since_ms.store(now_ms.max(1), ANY);
    }

    /// It goes on, and grows.
    pub fn end_to_yield(&self, now_ms: u64) {
        self.grown_ms.store(now_ms.max(1), ANY);
        self.note_grown(now_ms);
        self.held_back_since_ms.store(0, ANY);
    }

    pub fn held_back_since_ms(&self) -> u64 {
        self.held_back_since_ms.load(ANY)
    }

    /// It waits for so many bytes from now on.
    pub fn begin_to_wait(&self, bytes: u64, now_ms: u64) {
        self.wanted.store(bytes, ANY);
        self.waiting_since_ms.store(now_ms.max(1), ANY);
    }

    /// What it waits for, or was refused last.
    pub fn wanted(&self) -> u64 {
        self.wanted.load(ANY)
    }

    pub fn refusals(&self) -> u64 {
        self.refusals.load(ANY)
    }

    pub fn end_to_wait(&self) {
        self.waiting_since_ms.store(0, ONE);
    }

    pub fn waiting_since_ms(&self) -> u64 {
        self.waiting_since_ms.load(ONE)
    }

    /// How long it has been waiting for room, or letting another one go first.
    pub fn waiting_ms(&self, now_ms: u64) -> Option<u64> {
        let since = [self.waiting_since_ms(), self.held_back_since_ms()];
        since.into_iter().find(|since_ms| *since_ms != 0).map(|since_ms| now_ms.saturating_sub(since_ms))
    }

    /// It was refused so many bytes.
    pub fn note_refusal(&self, bytes: u64) {
        self.wanted.store(bytes, ANY);
        self.refusals.fetch_add(1, ANY);
    }

    /// Nothing of ours runs in that process, or can ask: a look charges it for what it holds.
    pub fn set_outside(&self) {
        self.is_outside.store(1, ANY);
    }

    pub fn is_outside(&self) -> bool {
        self.is_outside.load(ANY) != 0
    }

    /// Its tracer is to hold it still for that process, or it is to stand still itself; or it is to go on.
    pub fn hold_still_for(&self, keeper: Option<Id>) {
        self.still_for.store(keeper.map_or(0, |Id(keeper)| keeper), ANY);
    }

    pub fn stands_still_for(&self) -> Option<Id> {
        Some(self.still_for.load(ANY)).filter(|keeper| *keeper != 0).map(Id)
    }

    /// It stands still by itself when it is told to; or not any more.
    pub fn set_heeds_stillness(&self, heeds: bool) {
        self.heeds_stillness.store(heeds.into(), ANY);
    }

    pub fn heeds_stillness(&self) -> bool {
        self.heeds_stillness.load(ANY) != 0
    }

    pub fn set_name(&self, name: &[u8]) {
        store_name(&self.name, name);
    }

    pub fn name(&self) -> Text<16> {
        load_name(&self.name)
    }
}

pub(super) fn store_name(words: &[AtomicU64; 2], name: &[u8]) {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
        word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), ANY);
    }
}

pub(super) fn load_name(words: &[AtomicU64; 2]) -> Text<16> {
    let mut name = Text::new();
    for word in words {
        name.push_bytes(&word.load(ANY).to_le_bytes());
    }
    let len = position(name.as_bytes(), 0).unwrap_or(name.len());
    name.truncate(len);
    name
}
