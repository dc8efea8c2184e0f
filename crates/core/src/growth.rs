//! How a lease in a budget's ledger grows: what is free first, then what the dead had, then what others have and do not use. For
//! a guard, which asks for its own process, and for a tracer, which asks for one that it follows.
//!
//! No allocation and no lock; nobody waits here for longer than others take for some instructions.

use crate::backoff::Backoff;
use crate::busy::Busy;
use crate::contract::Measure;
use crate::ledger::{Decision, Id, Ledger, Row, Seen};
use crate::sys;
use crate::sys::memory::{MemoryUse, Resource, memory_use_of};

/// Of what others do not use they keep so much: to ask costs time.
const KEEP_BYTES: u64 = 256 << 10;

/// So much, or more, the soft limit leaves anybody without a question: a program that a process becomes by a call that nobody
/// sees, as fexecve(3) and execveat(2) are, has to be loaded below it. A look charges what is used of it.
///
/// Of many all together might otherwise take more than there is before the first of them has to ask.
pub fn unasked(ledger: &Ledger, soft: u64) -> u64 {
    const MOST_BYTES: u64 = 8 << 20;
    /// The data of a small program and of its C library.
    const LEAST_BYTES: u64 = 1 << 20;
    /// Of what there is.
    const PART: u64 = 16;
    if soft >= MOST_BYTES {
        return soft;
    }
    let processes = (ledger.taken_rows().count() as u64).max(1);
    soft.max((ledger.permitted() / PART / processes).clamp(LEAST_BYTES, MOST_BYTES))
}

/// When a process looked at what others had: that takes time, and is not done again at once.
pub struct Looks {
    dead: Backoff,
    unused: Backoff,
    /// One thread looks at a time.
    inside: Busy,
}

/// A process with so much room below its limit is about to lay `wanted` bytes of private memory over whatever is there, of which the
/// kernel takes off what lies below, whether that was counted or not (mmap_region in mm/vma.c), and refuses nothing: so much it has to
/// ask for. `None`: there is room for it. `replaced`: what is counted of that, which is dear to find out; `None` where it cannot be.
pub fn laid_over(room: u64, wanted: u64, replaced: impl FnOnce() -> Option<u64>) -> Option<u64> {
    if room >= wanted {
        return None;
    }
    let more = wanted.saturating_sub(replaced()?);
    (more > room).then_some(more)
}

/// What a process uses, and what it asks for, in bytes.
#[derive(Clone, Copy)]
pub struct Use {
    pub seen: Seen,
    /// What it holds that others hold as well, where that is known.
    pub shared: u64,
    /// What its other threads have pledged. It is looked at before the rest: what is pledged no more is in use by then.
    pub pledged: u64,
}

impl Seen {
    /// `None` where the kernel does not tell it.
    pub fn of(memory: &MemoryUse) -> Option<Seen> {
        let (data, held) = (memory.data?, memory.of(Measure::Resident)?);
        Some(Seen { data, held, in_shared: memory.shared.unwrap_or(0) })
    }
}

/// What a lease comes to.
#[derive(Clone, Copy)]
pub struct Grant {
    /// How much the process may take.
    pub left: u64,
    /// The lease that this was found by. Whoever has moved a limit by it looks at the lease again (`Row::hold_lease`): it may have
    /// been taken back in part meanwhile.
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
        let now_ms = sys::clock::monotonic_ms();
        if !self.dead.is_due(now_ms) {
            return false;
        }
        let found = ledger.take_from_the_dead(now_ms, is_alive);
        let end_ms = sys::clock::monotonic_ms();
        ledger.note_given_back(found.unwrap_or(0), end_ms);
        self.dead.note_attempt(now_ms, end_ms);
        found.is_some()
    }

    /// A row for that process: as [`Ledger::take_row`], and where all are taken, of the dead.
    pub fn take_row(&self, ledger: &Ledger, id: Id) -> Option<usize> {
        ledger.take_row(id).or_else(|| {
            self.take_from_the_dead(ledger);
            ledger.take_row(id)
        })
    }
}

impl Growth<'_> {
    /// How much the process may take, where it wants `wanted` more, and a little beside: the lease grows if there is room.
    ///
    /// What it has mapped and is yet to touch counts as if it had: only where there is no room for that it is left out, before
    /// others are asked to give anything back.
    pub fn make_room(self, used: Use, wanted: u64) -> Grant {
        let row = self.row;
        let fresh = self.ledger.note_use(row, used.seen, sys::clock::monotonic_ms());
        let charge = row.charge().min(used.seen.held.saturating_sub(used.shared));
        let taken = charge.saturating_add(used.pledged);
        let need = taken.saturating_add(wanted);
        let in_full = need.saturating_add(fresh);
        if row.lease() < in_full {
            self.grow(in_full, TakesBack::Nothing);
        }
        if row.lease() < need {
            self.grow(need, TakesBack::WhatItCan);
        }
        let lease = row.lease();
        let left = lease.saturating_sub(taken);
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
                    self.row.note_grown(sys::clock::monotonic_ms());
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
        let now_ms = sys::clock::monotonic_ms();
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
        let end_ms = sys::clock::monotonic_ms();
        self.ledger.note_given_back(got, end_ms);
        looks.unused.note_attempt(now_ms, end_ms);
        got > 0
    }

    /// So much: what it could map without asking, and what it has mapped and not touched for a while.
    ///
    /// The soft limit is lowered before it is looked what is in use: from then on its owner asks before it maps more, by its lease,
    /// and holds that once it has moved the limit. What the kernel has let pass a moment before, the next look charges.
    fn take_what_is_unused(self, row: &Row) -> u64 {
        let lease = row.lease();
        let Some(id) = row.id().filter(|_| !row.is_outside() && lease >= 2 * KEEP_BYTES) else { return 0 };
        let pid = id.pid();
        for heir in self.ledger.heirs_of(row) {
            if let Some(seen) = heir.id().and_then(|id| Seen::of(&memory_use_of(id.pid()))) {
                self.ledger.note_use(heir, seen, sys::clock::monotonic_ms());
            }
        }
        let look = || {
            let seen = Seen::of(&memory_use_of(pid))?;
            let fresh = self.ledger.note_use(row, seen, sys::clock::monotonic_ms());
            Some((seen, row.charge().saturating_add(fresh)))
        };
        row.take_unused(KEEP_BYTES, || {
            let (seen, uses) = look()?;
            let shared = counted_for_others(pid, seen);
            let keeps = |uses: u64| uses.saturating_sub(shared).saturating_add(KEEP_BYTES);
            if lease.saturating_sub(keeps(uses)) < KEEP_BYTES || !is_alive(id) {
                return None;
            }
            let most = unasked(self.ledger, seen.data.saturating_add(KEEP_BYTES));
            // Whose limit may not be changed keeps what it has.
            let lower = |now| sys::memory::lowered(now, most);
            sys::memory::change_soft_limit(pid, Resource::Data, lower).ok()?;
            look().filter(|(seen, _)| seen.data <= most).map(|(_, uses)| keeps(uses))
        })
    }
}

/// Of the shared memory that a process holds, what those are charged for who share it. The answer is dear.
fn counted_for_others(pid: u32, seen: Seen) -> u64 {
    const WORTH_BYTES: u64 = 4 << 20;
    if seen.in_shared < WORTH_BYTES {
        return 0;
    }
    sys::memory::shared_share_held_by(pid).map_or(0, |share| seen.in_shared.saturating_sub(share))
}

/// Somebody else is at it, for some instructions as a rule.
fn pause(tries: u32) {
    if tries < 8 { core::hint::spin_loop() } else { sys::process::yield_now() }
}

/// The process that has this number now, dead ones that nobody has waited for included: proc_pid_stat(5). `None` where there is none.
pub fn id_of(pid: u32) -> Option<Id> {
    sys::proc::life_of(pid).map(|life| Id::new(pid, life.start))
}

pub fn is_alive(id: Id) -> bool {
    sys::proc::is_alive_since(id.pid(), id.start())
}
