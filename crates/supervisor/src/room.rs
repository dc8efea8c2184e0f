//! The measure `resident`, held from outside: a followed program is refused by its soft limit on data, and its tracer is
//! asked what a guard would ask itself. With what the program asks for, is more in use than the limit allows, or than others
//! leave who share its budget? If not, the soft limit moves to what is mapped and what is free, and the call is made again; the
//! program sees nothing of it. Where others have what is missing, the thread is left where it stands, and asked for again.
//!
//! Only a limit is moved that is known as a tracer's, or that was set for a program without a guard in such a tree: a guard
//! moves its own, and what a user or another launcher has set stays. For a tracer's process: nothing here allocates, locks or
//! panics.

use super::sys;
use super::sys::memory::{
    MemoryUse, Mover, Resource, Rlimit, marked_followed, marked_standing, mover_of, with_refusal,
};
use crate::contract::Measure;
use crate::growth::{Grant, Growth, Looks, Use, id_of, is_alive, unasked};
use crate::ledger::{Ledger, Row, Seen};
use crate::shortage::LEAST_STEP_BYTES;
use crate::wait;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// More would be in use than the limit allows, or than others leave; or the limit that refused is not the tracer's to move.
    No,
    /// The soft limit has been moved, or had room already: worth another try.
    Again,
    /// Others who share its budget have what is missing, or go first: to be asked again a moment later.
    Later,
}

/// How a thread stands that may have to wait for others who share its budget. All zero: it does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    request: wait::Wait,
    /// When it was refused last after it had waited; zero for never.
    in_vain_at_ms: u64,
    /// It was the budget that had no room for what was refused last: for so many milliseconds, plus one.
    refused_after: u64,
    /// How long it waited when it last did so in vain.
    waited_ms: u64,
}

/// A limit on what is resident, for processes that are followed.
pub(super) struct Room {
    limit: u64,
    budget: Option<SharedLedger>,
    shared: Shared,
}

/// The ledger of a budget that those who are followed share with others.
#[derive(Clone, Copy)]
pub(super) struct SharedLedger {
    pub(super) ledger: &'static Ledger,
    /// Nobody has a limit of its own: it is as the budget is now.
    pub(super) is_the_limit: bool,
}

/// How much of what a process holds is counted for others, as they share it. It is dear to ask: of one process at a time.
#[derive(Default)]
struct Shared {
    pid: u32,
    bytes: u64,
    due_ms: u64,
}

/// When this process looked at what others had.
static LOOKS: Looks = Looks::new();

impl Room {
    pub(super) fn new(limit: u64, budget: Option<SharedLedger>) -> Room {
        Room { limit, budget, shared: Shared::default() }
    }

    /// The most that one process may hold.
    pub(super) fn limit(&self) -> u64 {
        self.budget.filter(|budget| budget.is_the_limit).map_or(self.limit, |budget| budget.ledger.budget())
    }

    /// The supervisor has set another one.
    pub(super) fn set_limit(&mut self, bytes: u64) {
        self.limit = bytes;
        if let Some(budget) = &mut self.budget {
            budget.is_the_limit &= bytes >= budget.ledger.budget();
        }
    }

    /// The ledger of the budget that they share.
    pub(super) fn ledger(&self) -> Option<&'static Ledger> {
        self.budget.map(|budget| budget.ledger)
    }

    /// The most that a process could hold now which holds so much: its limit, or what others leave it.
    pub(super) fn limit_of_a_moment(&self, pid: u32, held: u64) -> u64 {
        let limit = self.limit();
        let (Some(ledger), Some(row)) = (self.ledger(), self.row(pid)) else { return limit };
        let free = ledger.permitted().saturating_sub(ledger.leased());
        limit.min(held.saturating_add(row.lease().saturating_sub(row.charge())).saturating_add(free))
    }

    /// Process `pid` has become another program.
    pub(super) fn settle(&self, pid: u32) {
        if !self.moves_limit_of(pid) {
            return;
        }
        if let (Some(ledger), Some(row)) = (self.ledger(), self.row(pid)) {
            let now_ms = sys::clock::monotonic_ms();
            ledger.note_left_behind(row, now_ms);
            ledger.note_given_back(row.lease(), now_ms);
            begin(row, pid);
        }
        self.leave_what_is_free(pid);
    }

    /// Process `pid` was forked just now: its parent is charged for what it holds.
    pub(super) fn settle_child(&self, pid: u32, parent: u32) {
        if !self.moves_limit_of(pid) {
            return;
        }
        if let Some(row) = self.row(pid) {
            let held = sys::memory::memory_use_of(pid).of(Measure::Resident).unwrap_or(0);
            begin(row, pid);
            row.set_base(held, id_of(parent));
            row.note_held(held);
            self.leave_what_is_free(pid);
        }
    }

    /// In a budget a process has nothing that it has not asked for.
    fn leave_what_is_free(&self, pid: u32) {
        let used = sys::memory::memory_use_of(pid);
        if let (Some(data), Some(held)) = (used.data, used.of(Measure::Resident)) {
            let free = if self.budget.is_some() { 0 } else { self.limit().saturating_sub(held) };
            self.move_soft_limit(pid, false, |_| data.saturating_add(free));
        }
    }

    /// The row of a process, which gets one if it has none. `None`: it shares no budget, or too many do.
    fn row(&self, pid: u32) -> Option<&'static Row> {
        let ledger = self.ledger()?;
        let id = id_of(pid)?;
        let found = ledger.find(id).and_then(|place| ledger.row(place));
        if let Some(row) = found.filter(|row| !row.is_outside()) {
            return Some(row);
        }
        let place = LOOKS.take_row(ledger, id)?;
        let row = ledger.row(place)?;
        begin(row, pid);
        Some(row)
    }

    /// Whether process `pid` is to stand still for somebody who is there.
    pub(super) fn is_to_stand_still(&self, pid: u32) -> bool {
        let find = || self.ledger().and_then(|ledger| ledger.row(ledger.find(id_of(pid)?)?));
        find().and_then(Row::stands_still_for).is_some_and(is_alive)
    }

    /// A thread of process `pid` is about to take so much by a call that no limit refuses: see `Row::pledge`.
    pub(super) fn pledge(&self, pid: u32, bytes: u64) {
        self.row(pid).inspect(|row| row.pledge(bytes));
    }

    /// The call has been made, or will not be.
    pub(super) fn end_pledge(&self, pid: u32, bytes: u64) {
        let Some(ledger) = self.ledger() else { return };
        // A process that is gone is not to get a row anew.
        let row = id_of(pid).and_then(|id| ledger.find(id)).and_then(|place| ledger.row(place));
        row.inspect(|row| row.end_pledge(bytes));
    }

    /// What the threads of process `pid` are about to take in that way.
    pub(super) fn pledged(&self, pid: u32) -> u64 {
        self.row(pid).map_or(0, Row::pledged)
    }

    /// Process `pid` has got shared memory, and is yet to use it.
    pub(super) fn note_new_shared(&self, pid: u32, bytes: u64) {
        self.row(pid).inspect(|row| row.note_new_shared(bytes, sys::clock::monotonic_ms()));
    }

    /// Process `pid`, which uses so much, was refused so many bytes for the `tries`th time; or is about to take them by a call that
    /// no limit refuses, and has pledged them.
    pub(super) fn ask(
        &mut self,
        pid: u32,
        used: &MemoryUse,
        bytes: u64,
        is_pledged: bool,
        tries: u32,
        wait: &mut Wait,
    ) -> Answer {
        /// As often as another thread takes what was meant for this one.
        const MOST_TRIES: u32 = 64;
        /// As often as there was room already: that may have been another thread's doing.
        const MOST_IN_VAIN: u32 = 2;
        wait.refused_after = 0;
        let Some(seen) = Seen::of(used) else { return Answer::No };
        let Seen { data, held, .. } = seen;
        if !self.moves_limit_of(pid) {
            return Answer::No;
        }
        let wanted = bytes.checked_next_multiple_of(sys::memory::page_bytes()).unwrap_or(u64::MAX);
        let limit = self.limit();
        let mut free = limit.saturating_sub(held);
        if wanted > free && held <= limit.saturating_mul(2) {
            free = limit.saturating_sub(held.saturating_sub(self.shared_by(pid, held)));
        }
        let more = wanted.saturating_add(LEAST_STEP_BYTES);
        let mut is_granted = wanted <= free && tries < MOST_TRIES;
        let row = self.row(pid);
        let mut grant = None;
        if let (Some(ledger), Some(row)) = (self.ledger(), row) {
            if is_granted && wait.yields(ledger, row, wanted) {
                return Answer::Later;
            }
            if is_granted {
                // Nobody but this process ends them meanwhile.
                let pledged = row.pledged().saturating_sub(if is_pledged { bytes } else { 0 });
                let Grant { left, lease } = self.lease_for(ledger, row, pid, seen, wanted, pledged);
                free = free.min(left);
                grant = Some((row, lease));
                is_granted = wanted <= free;
                if !is_granted && wait.goes_on(ledger, row, wanted) {
                    self.move_soft_limit(pid, true, |now| now.min(data.saturating_add(free)));
                    return Answer::Later;
                }
            } else if self.budget.is_some_and(|budget| budget.is_the_limit) && wanted > free {
                // More than all have together.
                wait.refused_after = 1;
            }
            wait.end(ledger, row);
        }
        // Where it is refused, nothing is left to be had without a question; and what is pledged is not for what a limit refuses.
        let goes_up = is_granted && !is_pledged;
        let soft = data.saturating_add(match () {
            () if goes_up => free.max(more),
            () if is_granted => free.saturating_sub(wanted),
            () => free,
        });
        let has_moved =
            self.move_soft_limit(pid, !is_granted, |now| if goes_up { now.max(soft) } else { now.min(soft) });
        if is_granted && !is_pledged && grant.is_some_and(|(row, lease)| row.hold_lease() < lease) {
            // What was taken back meanwhile must not be used after all.
            self.move_soft_limit(pid, false, |now| now.min(data));
            return Answer::Later;
        }
        match (is_granted, has_moved) {
            (true, true) => Answer::Again,
            (true, false) if is_pledged => Answer::Again,
            (true, false) if tries < MOST_IN_VAIN => Answer::Again,
            _ => Answer::No,
        }
    }

    /// How much the lease leaves once it has grown as far as it can.
    fn lease_for(
        &mut self,
        ledger: &Ledger,
        row: &Row,
        pid: u32,
        seen: Seen,
        wanted: u64,
        pledged: u64,
    ) -> Grant {
        let growth = Growth { ledger, row, looks: &LOOKS };
        let more = wanted.saturating_add(LEAST_STEP_BYTES);
        let grant = growth.make_room(Use { seen, shared: 0, pledged }, more);
        if grant.left >= wanted {
            return grant;
        }
        // Others may share what it holds.
        match self.shared_by(pid, seen.held) {
            0 => grant,
            shared => growth.make_room(Use { seen, shared, pledged }, more),
        }
    }

    /// Whether the soft limit of a process is ours to move.
    pub(super) fn moves_limit_of(&self, pid: u32) -> bool {
        self.is_ours(sys::memory::soft_limit_on_data_of(pid))
    }

    fn is_ours(&self, soft: Option<u64>) -> bool {
        match mover_of(soft) {
            Mover::Tracer => true,
            Mover::Nobody => self.budget.is_some() || soft == Some(marked_standing(self.limit)),
            Mover::Guard | Mover::User => false,
        }
    }

    /// Moves a soft limit that is ours to move, as `to` says of what it is, and notes in it whether something is refused; whether
    /// it was moved up.
    fn move_soft_limit(&self, pid: u32, is_refused: bool, to: impl Fn(u64) -> u64) -> bool {
        let mut has_risen = false;
        let _ = sys::memory::change_soft_limit(pid, Resource::Data, |now: Rlimit| {
            let soft = now.soft?;
            if !self.is_ours(now.soft) {
                return Some(soft);
            }
            // A program that it becomes, or starts, has to be loaded below this: the kernel kills one whose data does not fit.
            let to = to(soft);
            let new = marked_followed(self.ledger().map_or(to, |ledger| unasked(ledger, to)))
                .min(now.hard.unwrap_or(u64::MAX));
            let new = if is_refused { with_refusal(new) } else { new };
            has_risen = new > soft;
            Some(new)
        });
        has_risen
    }

    fn shared_by(&mut self, pid: u32, held: u64) -> u64 {
        let now_ms = sys::clock::monotonic_ms();
        if self.shared.pid != pid || now_ms >= self.shared.due_ms {
            let share = sys::memory::share_held_by(pid);
            let after_ms = sys::clock::monotonic_ms();
            let bytes = share.map_or(0, |share| held.saturating_sub(share)).min(self.limit());
            // A hundredth of the time, at most.
            let due_ms = after_ms.saturating_add((after_ms - now_ms + 1).saturating_mul(100));
            self.shared = Shared { pid, bytes, due_ms };
        }
        self.shared.bytes
    }
}

/// A process has nothing of the budget yet; or it has become another program, and nothing of the old one is left.
fn begin(row: &Row, pid: u32) {
    row.begin();
    row.set_name(sys::proc::name_of(pid).as_bytes());
}

impl Wait {
    /// How long it waited for what was refused last; `None`: that was not for want of room in a budget.
    pub(super) fn refused_after_ms(&self) -> Option<u64> {
        self.refused_after.checked_sub(1)
    }

    /// Whether it lets another one go first.
    fn yields(&mut self, ledger: &Ledger, row: &Row, bytes: u64) -> bool {
        let yields = self.request.yields(ledger, row, bytes, sys::clock::monotonic_ms());
        if yields {
            LOOKS.take_from_the_dead(ledger);
        }
        yields
    }

    /// There is no room in the budget: whether it goes on waiting, or begins to.
    fn goes_on(&mut self, ledger: &Ledger, row: &Row, bytes: u64) -> bool {
        /// Who was refused asks again, by other means: an allocator by mmap(2) after brk(2). That is the same request.
        const BY_OTHER_MEANS_MS: u64 = 1000;
        let now_ms = sys::clock::monotonic_ms();
        let is_probe = !self.request.is_waiting()
            && self.in_vain_at_ms != 0
            && now_ms.saturating_sub(self.in_vain_at_ms) < BY_OTHER_MEANS_MS;
        if self.request.goes_on(ledger, row, bytes, !is_probe, now_ms) {
            return true;
        }
        if !is_probe {
            (self.waited_ms, self.in_vain_at_ms) = (self.request.waited_ms(now_ms), now_ms.max(1));
        }
        self.refused_after = self.waited_ms.saturating_add(1);
        row.note_refusal(bytes);
        self.request.end(ledger, row, !is_probe, now_ms);
        false
    }

    /// It waits no longer.
    fn end(&mut self, ledger: &Ledger, row: &Row) {
        self.request.end(ledger, row, false, sys::clock::monotonic_ms());
    }

    /// The same as nobody can be kept waiting.
    pub(super) fn hurry(&mut self) {
        self.request.hurry();
        self.in_vain_at_ms = sys::clock::monotonic_ms().max(1);
    }
}
