//! The ledger of a budget: memory that all processes share that have one budget together. This is its layout and its
//! arithmetic, on atomics alone: nothing here makes a system call, allocates, waits or locks.
//!
//! ```text
//!   what there is to share | the last deaths | a row for each process
//! ```
//! A row is a process's own, known by its number and its start, so that one that gets the number of a dead one is not
//! mistaken for it. It holds the **lease**, what the process may have for now, and the **claim**, by how much it wants that
//! to grow. The sum is made anew from the rows at each question: there is no total that could be left wrong.
//!
//! A lease grows in two steps, so that no lock is needed, and a process may be killed or stopped between any two
//! instructions: it says what it wants (`claim`), and then counts (`decide`). Of two that want at once, at least one sees
//! the other; who finds no room takes its claim back. What a process that stands still has claimed counts, and what a dead
//! one had is taken back by anybody who finds it dead (`take_from_the_dead`).
//!
//! What a process has leased and does not use others may take back (`take_unused`), and a limit keeps it from using that all the
//! same. Calls that no limit refuses want more: their process says before it looks at its lease how much they are about to take
//! (`pledge`), and takes that word back once they are made, or are not. A lease has a number beside its bytes that goes up with
//! whatever is done by it: who found out what a process uses takes back nothing of a lease that is another one by now.
//!
//! So no step needs another one to be undone, whoever dies after it, and the leases never come to more than is permitted at the
//! moment when one of them grows. What a process has taken without asking is charged as far as there is room (`charge`).
//!
//! Nobody trusts a row blindly: all sums saturate, and what is said in it is one process's claim about itself.

mod deaths;
mod row;
mod turns;

pub use deaths::{DEATHS, Died};
pub use row::{Id, Row, Seen};

use crate::report::Holder;
use crate::text::Text;
use core::sync::atomic::{AtomicU64, Ordering};
use deaths::Death;
use row::{IS_MAKER, bytes_in, next_lease};

/// So many processes can share a budget.
pub const ROWS: usize = 1024;

/// The bytes of the file that holds it. What nobody writes takes no memory.
pub const LEDGER_BYTES: usize = size_of::<Ledger>();

const MAGIC: u64 = u64::from_le_bytes(*b"oomledgr");
const LAYOUT: u64 = 7;

#[repr(C)]
pub struct Ledger {
    head: Head,
    deaths: [Death; DEATHS],
    rows: [Row; ROWS],
}

#[repr(C, align(64))]
struct Head {
    magic: AtomicU64,
    layout: AtomicU64,
    /// What all may have together, in bytes, as the user said it.
    budget: AtomicU64,
    /// What the container leaves for it, where that is less; MAX where nobody knows of one.
    ceiling: AtomicU64,
    /// How long a request waits, in milliseconds.
    patience_ms: AtomicU64,
    /// The last time that memory was given back, or that somebody was refused: monotonic milliseconds.
    moved_ms: AtomicU64,
    /// The namespace in which the rows' numbers are processes.
    pid_namespace: AtomicU64,
    /// What the last look found resident in the container that no row holds, in bytes.
    uncovered: AtomicU64,
    /// The container's limit, in bytes; MAX where there is none.
    container: AtomicU64,
    /// How many have died of it.
    died: AtomicU64,
    /// What those were charged for of shared memory whose lease was taken back since the last look: others may have it still. And
    /// when that was last: monotonic milliseconds.
    left_behind: AtomicU64,
    left_behind_ms: AtomicU64,
    /// When a look last found more in use than there is: monotonic milliseconds.
    over_ms: AtomicU64,
}

/// So often somebody else takes a row for the same process at the same moment.
const MOST_TRIES: u32 = 8;
/// So much changes all the time.
const NOISE_BYTES: u64 = 64 << 10;

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Granted,
    /// There is room, but others want it at this moment.
    Contended,
    /// So many bytes are missing.
    Short(u64),
}

// The order of all accesses to `id`, `lease`, `claim`, `pledged`, and what was left behind, is one (SeqCst): who counts after its own claim is there sees
// each claim that came before, and the lease that came of it; and who takes a lease back sees the pledge of whoever has not seen
// that. So is that of who waits, and what moved last.
const ONE: Ordering = Ordering::SeqCst;
// Everything else stands for itself.
const ANY: Ordering = Ordering::Relaxed;

impl Ledger {
    /// Makes a page of zeros a ledger.
    pub fn open(&self, budget: u64, patience_ms: u64, pid_namespace: u64, now_ms: u64) {
        self.head.budget.store(budget, ONE);
        self.head.ceiling.store(u64::MAX, ONE);
        self.head.container.store(u64::MAX, ANY);
        self.head.patience_ms.store(patience_ms, ANY);
        self.head.pid_namespace.store(pid_namespace, ANY);
        self.head.moved_ms.store(now_ms, ANY);
        self.head.layout.store(LAYOUT, ANY);
        self.head.magic.store(MAGIC, ONE);
    }

    pub fn set_budget(&self, bytes: u64) {
        self.head.budget.store(bytes, ONE);
    }

    /// So much may be leased, as the container has no room for more.
    pub fn set_ceiling(&self, bytes: u64) {
        self.head.ceiling.store(bytes, ONE);
    }

    /// What a look found: the container's limit, and what is in use there that no row holds.
    pub fn note_container(&self, limit: Option<u64>, uncovered: u64) {
        self.head.container.store(limit.unwrap_or(u64::MAX), ANY);
        self.head.uncovered.store(uncovered, ANY);
    }

    /// The container's limit, if it has one, and what is in use there that no row holds.
    pub fn container(&self) -> (Option<u64>, u64) {
        let limit = Some(self.head.container.load(ANY)).filter(|limit| *limit != u64::MAX);
        (limit, self.head.uncovered.load(ANY))
    }

    pub fn is_one(&self) -> bool {
        self.head.magic.load(ONE) == MAGIC && self.head.layout.load(ANY) == LAYOUT
    }

    pub fn pid_namespace(&self) -> u64 {
        self.head.pid_namespace.load(ANY)
    }

    pub fn budget(&self) -> u64 {
        self.head.budget.load(ONE)
    }

    /// What the leases may come to: the budget, or what the container leaves of it.
    pub fn permitted(&self) -> u64 {
        // In this order: a look sets the ceiling by what was left behind, and forgets that then.
        let left_behind = self.left_behind();
        self.budget().min(self.head.ceiling.load(ONE)).saturating_sub(left_behind)
    }

    pub fn left_behind(&self) -> u64 {
        self.head.left_behind.load(ONE)
    }

    /// A process has ended, or becomes another program, and others are about to get its lease. The shared memory that it was charged
    /// for is gone with it only if nobody else has it, which a look tells: until then it is nobody's. How much that is.
    pub fn note_left_behind(&self, row: &Row, now_ms: u64) -> u64 {
        let shared = row.in_shared.load(ANY).min(row.lease());
        if shared <= NOISE_BYTES {
            return 0;
        }
        // In this order: whoever finds it to be old has not seen this.
        self.head.left_behind_ms.fetch_max(now_ms, ONE);
        let more = |sum: u64| Some(sum.saturating_add(shared));
        let _ = self.head.left_behind.fetch_update(ONE, ONE, more);
        shared
    }

    /// It is known what has become of so much.
    pub fn forget_left_behind(&self, bytes: u64) {
        let less = |sum: u64| Some(sum.saturating_sub(bytes));
        let _ = self.head.left_behind.fetch_update(ONE, ONE, less);
    }

    pub fn patience_ms(&self) -> u64 {
        self.head.patience_ms.load(ANY)
    }

    pub fn row(&self, index: usize) -> Option<&Row> {
        self.rows.get(index)
    }

    /// All leases together, without what is claimed: what they were at one moment, unless they change all the time.
    pub fn leased(&self) -> u64 {
        const MOST_TRIES: u32 = 8;
        let sum = || {
            self.taken_rows().fold((0u64, 0u64), |(sum, mark), row| {
                let lease = row.lease.load(ONE);
                (sum.saturating_add(bytes_in(lease)), mark.rotate_left(7) ^ lease)
            })
        };
        let (mut least, mut mark) = sum();
        for _ in 0..MOST_TRIES {
            let (bytes, now) = sum();
            if now == mark {
                return bytes;
            }
            (least, mark) = (least.min(bytes), now);
        }
        least
    }

    /// All leases, and all that is claimed or about to be charged.
    fn leases_and_claims(&self) -> (u64, u64) {
        let (mut leases, mut claims) = (0u64, 0u64);
        for row in self.taken_rows() {
            // The claim first: what is leased meanwhile is then counted twice, and never left out.
            claims = claims.saturating_add(row.claim.load(ONE)).saturating_add(row.charging.load(ONE));
            leases = leases.saturating_add(row.lease());
        }
        (leases, claims)
    }

    /// The rows that belong to a process.
    pub fn taken_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.id().is_some())
    }

    /// The row that this process has, or a new one: its place. `None`: there are too many.
    pub fn take_row(&self, id: Id) -> Option<usize> {
        for _ in 0..MOST_TRIES {
            if let Some(place) = self.find(id) {
                return Some(place);
            }
            let place =
                self.places_of(id).find(|place| self.row(*place).is_some_and(|row| row.take(id.0)))?;
            let row = self.row(place)?;
            row.begin();
            let mut has_two = false;
            for other in self.others_of(id, row) {
                if other.is_outside() {
                    // A look did not know of this one.
                    self.take_back(other, id);
                } else {
                    has_two = true;
                }
            }
            if !has_two {
                return Some(place);
            }
            self.take_back(row, id);
        }
        None
    }

    /// A row for a process in which nothing of ours runs, by another one: a look charges it. Nothing where it has one. Nobody finds
    /// the row before it is complete, and the process itself either finds it or takes one, and this is gone. Of two that do this at
    /// once both may give way, and try again. Should the maker die meanwhile, the row is free again (`take_from_the_dead`).
    pub fn take_row_outside(&self, id: Id, name: &[u8], maker: Id) {
        let being_made = maker.0 | IS_MAKER;
        for _ in 0..MOST_TRIES {
            if self.find(id).is_some() {
                return;
            }
            let place =
                self.places_of(id).find(|place| self.row(*place).is_some_and(|row| row.take(being_made)));
            let Some(row) = place.and_then(|place| self.row(place)) else { return };
            row.begin();
            row.set_outside();
            row.set_name(name);
            row.id.store(id.0, ONE);
            if self.others_of(id, row).next().is_none() {
                return;
            }
            self.take_back(row, id);
        }
    }

    /// Where a process's row may be: from its own place on, so that many who come at once do not all try the same.
    fn places_of(&self, id: Id) -> impl Iterator<Item = usize> + use<> {
        let first = id.pid() as usize % ROWS;
        (first..ROWS).chain(0..first)
    }

    fn others_of(&self, id: Id, row: &Row) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |other| !core::ptr::eq(*other, row) && other.id.load(ONE) == id.0)
    }

    /// The row of a process.
    pub fn find(&self, id: Id) -> Option<usize> {
        self.places_of(id).find(|place| self.row(*place).is_some_and(|row| row.id.load(ONE) == id.0))
    }

    /// What a process was found to use. How much of what it has not touched may be touched soon, for all that is known: of what it
    /// mapped lately, and where it goes on touching that, all of it.
    ///
    /// Shared memory that its parent has asked for is the parent's to come until a child uses it.
    pub fn note_use(&self, row: &Row, seen: Seen, now_ms: u64) -> u64 {
        const MOST_GENERATIONS: usize = 8;
        let (fresh, more_shared) = row.note_use(seen, now_ms);
        let parent = |heir: &&Row| self.row(self.find(heir.parent()?)?);
        if more_shared > 0 {
            let ancestors = core::iter::successors(parent(&row), parent).take(MOST_GENERATIONS);
            ancestors.for_each(|ancestor| ancestor.note_use_by_heir(more_shared, now_ms));
        }
        fresh
    }

    /// The rows of those that this one has forked and that have been found to use shared memory since, where it has asked for any.
    pub fn heirs_of(&self, row: &Row) -> impl Iterator<Item = &Row> {
        let id = row.id().filter(|_| row.in_shared_to_come.load(ANY) > 0);
        self.taken_rows().filter(move |heir| id.is_some() && heir.parent() == id)
    }

    /// The second step: is there room for what `row` has claimed? If so it is leased.
    pub fn decide(&self, row: &Row) -> Decision {
        let (leases, claims) = self.leases_and_claims();
        // Afterwards: what a dead process leaves behind is noted before its lease is taken back.
        let permitted = self.permitted();
        let own = row.claim.load(ONE);
        let sum = leases.saturating_add(claims);
        if sum <= permitted {
            row.change_lease(|lease| lease.saturating_add(own));
            row.claim.store(0, ONE);
            return Decision::Granted;
        }
        row.claim.store(0, ONE);
        let missing = leases.saturating_add(own).saturating_sub(permitted);
        if missing == 0 { Decision::Contended } else { Decision::Short(missing) }
    }

    /// Charges a process for what it has taken without asking, as far as there is room. Only whoever keeps the ledger does so; if
    /// that one dies in between, what it was about to charge counts as long as the row is that process's.
    pub fn charge(&self, row: &Row, bytes: u64) {
        let lease = row.lease.load(ONE);
        let missing = bytes.saturating_sub(bytes_in(lease));
        if missing == 0 {
            return;
        }
        row.charging.store(missing, ONE);
        let (leases, claims) = self.leases_and_claims();
        // As in `decide`.
        let permitted = self.permitted();
        let charged = missing.saturating_sub(leases.saturating_add(claims).saturating_sub(permitted));
        if charged > 0 {
            // Another one by now: the next look will tell.
            let new = next_lease(lease, bytes_in(lease).saturating_add(charged));
            let _ = row.lease.compare_exchange(lease, new, ONE, ONE);
        }
        row.charging.store(0, ONE);
    }

    /// Takes back what a dead process had, if the row is still its own: how many bytes of its lease this call took. Of several
    /// that do so at once, one takes the lease, and the same or another one the row; whoever took neither gets `None`.
    pub fn take_back(&self, row: &Row, id: Id) -> Option<u64> {
        let mut taken = None;
        loop {
            // The lease first, so that whoever has the row next does not begin with that; and only as it was while the row was
            // the dead one's.
            let lease = row.lease.load(ONE);
            if row.id.load(ONE) != id.0 {
                return taken;
            }
            let bytes = bytes_in(lease);
            if bytes == 0 {
                let is_ours = row.id.compare_exchange(id.0, 0, ONE, ONE).is_ok();
                return taken.or(is_ours.then_some(0));
            }
            if row.lease.compare_exchange(lease, next_lease(lease, 0), ONE, ONE).is_ok() {
                taken = Some(taken.unwrap_or(0).saturating_add(bytes));
            }
        }
    }

    /// The same of all who are not alive: how much that was, if there was any.
    pub fn take_from_the_dead(&self, now_ms: u64, is_alive: impl Fn(Id) -> bool) -> Option<u64> {
        /// Whoever keeps the ledger looks oftener, if it is alive.
        const KEPT_MS: u64 = 5000;
        let left_behind = self.left_behind();
        if now_ms.saturating_sub(self.head.left_behind_ms.load(ONE)) > KEPT_MS {
            self.forget_left_behind(left_behind);
        }
        for row in &self.rows {
            row.free_if_its_maker(|maker| !is_alive(maker));
        }
        let mut found = None::<u64>;
        for row in self.taken_rows() {
            let Some(id) = row.id().filter(|id| !is_alive(*id)) else { continue };
            if let Some(taken) = self.take_from(row, id, now_ms) {
                found = Some(found.unwrap_or(0).saturating_add(taken));
            }
        }
        found
    }

    /// The same of one.
    pub fn take_from(&self, row: &Row, id: Id, now_ms: u64) -> Option<u64> {
        let left_behind = self.note_left_behind(row, now_ms);
        let taken = self.take_back(row, id);
        if taken.unwrap_or(0) == 0 {
            // Whoever took the lease has noted it.
            self.forget_left_behind(left_behind);
        }
        taken
    }

    /// Those who hold most of the budget; and nobody, by the number zero, where what nobody holds of the container is the reason
    /// why less is permitted.
    pub fn greatest<const N: usize>(&self) -> [Option<Holder>; N] {
        let mut greatest = [None::<Holder>; N];
        let (container, uncovered) = self.container();
        let is_reason = container.is_some_and(|limit| uncovered > limit / 16)
            && self.head.ceiling.load(ANY) < self.budget();
        let nobody = is_reason.then_some(Holder { pid: 0, name: Text::new(), bytes: uncovered });
        let holder = |row: &Row| {
            let bytes = row.lease().max(row.charge()).max(row.share());
            Some(Holder { pid: row.id()?.pid(), name: row.name(), bytes })
        };
        for holder in self.taken_rows().filter_map(holder).chain(nobody) {
            let mut candidate = Some(holder);
            for place in &mut greatest {
                let bytes = |holder: &Option<Holder>| holder.as_ref().map(|holder| holder.bytes);
                if bytes(&candidate) > bytes(place) {
                    core::mem::swap(place, &mut candidate);
                }
            }
        }
        greatest
    }
}

#[cfg(test)]
mod tests;
