//! The measure `resident`, held from outside: a followed program is refused by its soft limit on data, and its tracer is
//! asked what a guard would ask itself. With what the program asks for, is more in use than the limit allows? If not, the soft
//! limit moves to what is mapped and what is free, and the call is made again; the program sees nothing of it.
//!
//! Only a limit is moved that is known as a tracer's, or that was set for a program without a guard in such a tree: a guard
//! moves its own, and what a user or another launcher has set stays. For a tracer's process: nothing here allocates, locks or
//! panics.

use crate::contract::Measure;
use crate::shortage::LEAST_STEP_BYTES;
use crate::sys;
use crate::sys::memory::{
    MemoryUse, Mover, Resource, Rlimit, marked_followed, marked_standing, mover_of, with_refusal,
};

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// More would be in use than the limit allows; or the limit that refused is not the tracer's to move.
    No,
    /// The soft limit has been moved, or had room already: worth another try.
    Again,
}

/// A limit on what is resident, for processes that are followed.
pub(super) struct Room {
    limit: u64,
    shared: Shared,
}

/// How much of what a process holds is counted for others, as they share it. It is dear to ask: of one process at a time.
#[derive(Default)]
struct Shared {
    pid: u32,
    bytes: u64,
    due_ms: u64,
}

impl Room {
    pub(super) fn new(limit: u64) -> Room {
        Room { limit, shared: Shared::default() }
    }

    /// Process `pid` has become another program.
    pub(super) fn settle(&self, pid: u32) {
        let used = sys::memory::memory_use_of(pid);
        if let (Some(data), Some(held)) = (used.data, used.of(Measure::Resident)) {
            let soft = data.saturating_add(self.limit.saturating_sub(held));
            self.move_soft_limit(pid, false, |_| soft);
        }
    }

    /// Process `pid`, which uses so much, was refused so many bytes for the `tries`th time.
    pub(super) fn ask(&mut self, pid: u32, used: &MemoryUse, bytes: u64, tries: u32) -> Answer {
        /// As often as another thread takes what was meant for this one.
        const MOST_TRIES: u32 = 64;
        /// As often as there was room already: that may have been another thread's doing.
        const MOST_IN_VAIN: u32 = 2;
        let (Some(data), Some(held)) = (used.data, used.of(Measure::Resident)) else { return Answer::No };
        let wanted = bytes.checked_next_multiple_of(sys::memory::page_bytes()).unwrap_or(u64::MAX);
        let mut free = self.limit.saturating_sub(held);
        if wanted > free && held <= self.limit.saturating_mul(2) {
            free = self.limit.saturating_sub(held.saturating_sub(self.shared_by(pid, held)));
        }
        let is_granted = wanted <= free && tries < MOST_TRIES;
        // Where it is refused, nothing is left to be had without a question.
        let soft = if is_granted {
            data.saturating_add(free.max(wanted.saturating_add(LEAST_STEP_BYTES)))
        } else {
            data.saturating_add(free)
        };
        let has_moved = self
            .move_soft_limit(pid, !is_granted, |now| if is_granted { now.max(soft) } else { now.min(soft) });
        match (is_granted, has_moved) {
            (true, true) => Answer::Again,
            (true, false) if tries < MOST_IN_VAIN => Answer::Again,
            _ => Answer::No,
        }
    }

    /// Moves a soft limit that is ours to move, as `to` says of what it is, and notes in it whether something is refused; whether
    /// it was moved up.
    fn move_soft_limit(&self, pid: u32, is_refused: bool, to: impl Fn(u64) -> u64) -> bool {
        let mut has_risen = false;
        let _ = sys::memory::change_soft_limit(pid, Resource::Data, |now: Rlimit| {
            let soft = now.soft?;
            let is_ours = match mover_of(now.soft) {
                Mover::Tracer => true,
                Mover::Nobody => soft == marked_standing(self.limit),
                Mover::Guard | Mover::User => false,
            };
            if !is_ours {
                return Some(soft);
            }
            let new = marked_followed(to(soft)).min(now.hard.unwrap_or(u64::MAX));
            let new = if is_refused { with_refusal(new) } else { new };
            has_risen = new > soft;
            Some(new)
        });
        has_risen
    }

    fn shared_by(&mut self, pid: u32, held: u64) -> u64 {
        let now_ms = sys::process::monotonic_ms();
        if self.shared.pid != pid || now_ms >= self.shared.due_ms {
            let share = sys::memory::share_held_by(pid);
            let after_ms = sys::process::monotonic_ms();
            let bytes = share.map_or(0, |share| held.saturating_sub(share)).min(self.limit);
            // A hundredth of the time, at most.
            let due_ms = after_ms.saturating_add((after_ms - now_ms + 1).saturating_mul(100));
            self.shared = Shared { pid, bytes, due_ms };
        }
        self.shared.bytes
    }
}
