//! How a lease in a budget's ledger grows: what is free first, then what the dead had, then what others have and do not use. For
//! a guard, which asks for its own process, and for a tracer, which asks for one that it follows.
//!
//! No allocation and no lock; nobody waits here for longer than others take for some instructions.

use crate::backoff::Backoff;
use crate::busy::Busy;
use crate::contract::Measure;
use crate::ledger::{Decision, Id, Ledger, Row};
use crate::sys;
use crate::sys::memory::{Resource, memory_use_of};

/// Of what others do not use they keep so much: to ask costs time.
const KEEP_BYTES: u64 = 256 << 10;

/// So much the soft limit leaves anybody without a question: a program that a process becomes by a call that nobody sees, as
/// fexecve(3) and execveat(2) are, has to be loaded below it. A look charges what is used of it.
pub const LOADS_BYTES: u64 = 8 << 20;

/// When a process looked at what others had: that takes time, and is not done again at once.
pub struct Looks {
    dead: Backoff,
    unused: Backoff,
    /// One thread looks at a time.
    inside: Busy,
}

/// What a process uses, in bytes.
#[derive(Clone, Copy)]
pub struct Use {
    /// What it may touch without asking.
    pub mapped: u64,
    pub held: u64,
    /// What it holds that others hold as well, where that is known.
    pub shared: u64,
}

/// What a lease comes to.
#[derive(Clone, Copy)]
pub struct Grant {
    /// How much the process may take.
    pub left: u64,
    /// The lease that this was found by. Whoever has moved a limit by it looks at the lease again: it may have been taken back in
    /// part meanwhile.
    pub lease: u64,
}

/// The lease of one process, and those who have what it wants.
#[derive(Clone, Copy)]
pub struct Growth<'a> {
    pub ledger: &'a Ledger,
    pub row: &'a Row,
    pub looks: &'a Looks,
}

/// Whether a lease that finds no room grows at the cost of others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TakesBack {
    Nothing,
    WhatItCan,
}

impl Looks {
    pub const fn new() -> Looks {
        Looks { dead: Backoff::new(), unused: Backoff::new(), inside: Busy::new() }
    }

    /// Takes back what the dead had. Whether there was any.
    pub fn take_from_the_dead(&self, ledger: &Ledger) -> bool {
        let now_ms = sys::process::monotonic_ms();
        if !self.dead.is_due(now_ms) {
            return false;
        }
        let found = ledger.take_from_the_dead(is_alive);
        let end_ms = sys::process::monotonic_ms();
        ledger.note_given_back(found.unwrap_or(0), end_ms);
        self.dead.note_attempt(now_ms, end_ms);
        found.is_some()
    }
}

impl Growth<'_> {
    /// How much the process may take, where it wants `wanted` more, and a little beside: the lease grows if there is room.
    ///
    /// What it has mapped and is yet to touch counts as if it had: only where there is no room for that it is left out, before
    /// others are asked to give anything back.
    pub fn make_room(self, used: Use, wanted: u64) -> Grant {
        let row = self.row;
        row.note_held(used.held);
        let fresh = row.note_mapped(used.mapped, used.held, sys::process::monotonic_ms());
        let charge = row.charge().min(used.held.saturating_sub(used.shared));
        let need = charge.saturating_add(wanted);
        let in_full = need.saturating_add(fresh);
        if row.lease() < in_full {
            self.grow(in_full, TakesBack::Nothing);
        }
        if row.lease() < need {
            self.grow(need, TakesBack::WhatItCan);
        }
        let lease = row.lease();
        let left = lease.saturating_sub(charge);
        Grant { left: left.saturating_sub(fresh).max(left.min(wanted)), lease }
    }

    /// Asks for a lease of `need` bytes, and a little more so that it need not ask again soon.
    fn grow(self, need: u64, takes_back: TakesBack) {
        const MOST_TRIES: u32 = 64;
        let permitted = self.ledger.permitted();
        let mut beside = (need / 8).clamp(KEEP_BYTES, (permitted / 64).max(KEEP_BYTES));
        let mut has_looked = [false; 2];
        for tries in 0..MOST_TRIES {
            let Some(missing) = need.checked_sub(self.row.lease()).filter(|missing| *missing > 0) else {
                return;
            };
            if !self.row.claim(missing.saturating_add(beside)) {
                pause(tries);
                continue;
            }
            match self.ledger.decide(self.row) {
                Decision::Granted => {
                    self.row.note_grown(sys::process::monotonic_ms());
                    return;
                }
                Decision::Contended => pause(tries),
                Decision::Short(_) if beside > 0 => beside = 0,
                Decision::Short(_) if takes_back == TakesBack::Nothing => return,
                Decision::Short(short) => {
                    let [dead, unused] = &mut has_looked;
                    let got = if !*dead {
                        *dead = true;
                        self.looks.take_from_the_dead(self.ledger)
                    } else if !*unused {
                        *unused = true;
                        self.take_unused(short)
                    } else {
                        false
                    };
                    if !got && has_looked == [true; 2] {
                        return;
                    }
                }
            }
        }
    }

    /// Takes back what others have leased and do not use, until it is enough. Whether that was anything.
    fn take_unused(self, short: u64) -> bool {
        let now_ms = sys::process::monotonic_ms();
        let looks = self.looks;
        let Some(_inside) = looks.inside.try_enter().filter(|_| looks.unused.is_due(now_ms)) else {
            return false;
        };
        let mut got = 0u64;
        for row in self.ledger.taken_rows().filter(|row| !core::ptr::eq(*row, self.row)) {
            got = got.saturating_add(self.take_what_is_unused(row));
            if got >= short {
                break;
            }
        }
        let end_ms = sys::process::monotonic_ms();
        self.ledger.note_given_back(got, end_ms);
        looks.unused.note_attempt(now_ms, end_ms);
        got > 0
    }

    /// So much: what it could map without asking, and what it has mapped and not touched for a while.
    ///
    /// The soft limit is lowered first: from then on its owner asks before it maps more, by its lease, which it looks at again
    /// once it has moved the limit. What it maps in between is found out, and it keeps its lease then: until that is known, what
    /// is taken counts as claimed by this process.
    fn take_what_is_unused(self, row: &Row) -> u64 {
        let (Some(id), lease) = (row.id(), row.lease()) else { return 0 };
        if row.is_outside() || lease < 2 * KEEP_BYTES {
            return 0;
        }
        let pid = id.pid();
        let used = || {
            let used = memory_use_of(pid);
            Some((used.data?, used.of(Measure::Resident)?))
        };
        let Some((data, held)) = used() else { return 0 };
        row.note_held(held);
        let fresh = row.note_mapped(data, held, sys::process::monotonic_ms());
        let keep = row.charge().saturating_add(fresh).saturating_add(KEEP_BYTES);
        let taken = lease.saturating_sub(keep);
        if taken < KEEP_BYTES || !is_alive(id) || !self.row.claim(taken) {
            return 0;
        }
        let most = data.saturating_add(KEEP_BYTES).max(LOADS_BYTES);
        let mut set = None;
        // Whose limit may not be changed keeps what it has.
        let is_changed = sys::memory::change_soft_limit(pid, Resource::Data, |now| {
            set = sys::memory::lowered(now, most);
            set
        });
        let mut got = 0;
        if is_changed.is_ok() && row.lower(lease, keep) {
            let mut is_as_set = false;
            let looked = sys::memory::change_soft_limit(pid, Resource::Data, |now| {
                is_as_set = now.soft <= set || set.is_none();
                now.soft
            });
            let grown = used().map_or(0, |(now, _)| now.saturating_sub(most));
            if looked.is_ok() && is_as_set && grown == 0 {
                got = taken;
            } else {
                row.raise(taken);
            }
        }
        self.row.withdraw();
        got
    }
}

/// Somebody else is at it, for some instructions as a rule.
fn pause(tries: u32) {
    if tries < 8 { core::hint::spin_loop() } else { sys::process::yield_now() }
}

pub fn is_alive(id: Id) -> bool {
    sys::process::is_alive_since(id.pid(), id.start())
}
