//! One request that finds no room in a budget, step by step: whether it lets another one go first, waits on, or is refused. A guard
//! has its thread sleep between two steps, a tracer leaves the thread of another process where it stands. The decisions are the
//! ledger's (`Ledger::has_to_yield`, `Ledger::is_to_be_refused`); this is who has come how far. It makes no system call.

use crate::ledger::{Ledger, Row};

/// How a thread stands that may have to wait for others who share its budget. All zero: it does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// Since when it waits for what others have; zero while it does not.
    since_ms: u64,
    /// Since when it lets another one go first; zero while it does not.
    yields_since_ms: u64,
    /// For this request it has done so.
    has_yielded: bool,
}

impl Wait {
    pub const fn new() -> Wait {
        Wait { since_ms: 0, yields_since_ms: 0, has_yielded: false }
    }

    /// Whether it waits for what others have.
    pub fn is_waiting(&self) -> bool {
        self.since_ms != 0
    }

    /// How long it has done so.
    pub fn waited_ms(&self, now_ms: u64) -> u64 {
        if self.is_waiting() { now_ms.saturating_sub(self.since_ms) } else { 0 }
    }

    /// Whether it lets another one go first that grows as well, and has more already: as long as the patience lasts, unless it or
    /// another thread of its process waits already.
    pub fn yields(&mut self, ledger: &Ledger, row: &Row, bytes: u64, now_ms: u64) -> bool {
        let patience_ms = ledger.patience_ms();
        let is_over = self.yields_since_ms != 0 && now_ms.saturating_sub(self.yields_since_ms) >= patience_ms;
        let may_yield = !self.has_yielded && !is_over && patience_ms > 0 && row.waiting_since_ms() == 0;
        let yields = may_yield && ledger.has_to_yield(row, bytes, now_ms);
        if !yields {
            self.end_to_yield(row, now_ms);
        } else if self.yields_since_ms == 0 {
            row.begin_to_yield(bytes, now_ms);
            self.yields_since_ms = now_ms.max(1);
        }
        yields
    }

    /// It lets nobody go first any more, if it did.
    pub fn end_to_yield(&mut self, row: &Row, now_ms: u64) {
        if self.yields_since_ms != 0 {
            row.end_to_yield(now_ms);
            (self.yields_since_ms, self.has_yielded) = (0, true);
        }
    }

    /// There is no room for it: whether it waits on, or begins to. `may_begin`: it is not known that it would be in vain.
    pub fn goes_on(&mut self, ledger: &Ledger, row: &Row, bytes: u64, may_begin: bool, now_ms: u64) -> bool {
        if !self.is_waiting() {
            // More than all will never be there, and its own limit is in the way however long it waits.
            let can_never_be = row.charge().saturating_add(bytes) > ledger.budget();
            if !may_begin || can_never_be || ledger.patience_ms() == 0 {
                return false;
            }
            self.since_ms = now_ms.max(1);
        }
        if row.waiting_since_ms() == 0 {
            // Another thread of its process waits no longer.
            row.begin_to_wait(bytes, self.since_ms);
        }
        !ledger.is_to_be_refused(row, self.since_ms, now_ms)
    }

    /// It has what it wants, or is refused it. `moves`: that counts as movement.
    pub fn end(&mut self, ledger: &Ledger, row: &Row, moves: bool, now_ms: u64) {
        self.end_to_yield(row, now_ms);
        if self.is_waiting() {
            ledger.end_to_wait(row, moves.then_some(now_ms));
        } else if moves {
            ledger.note_movement(now_ms);
        }
        *self = Wait::new();
    }

    /// It lets nobody go first.
    pub fn hurry(&mut self) {
        self.has_yielded = true;
    }
}
