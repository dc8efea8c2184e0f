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

use crate::report::Holder;
use crate::text::{Text, position};
use core::sync::atomic::{AtomicU64, Ordering};

/// So many processes can share a budget.
pub const ROWS: usize = 1024;
/// So many deaths are remembered.
pub const DEATHS: usize = 8;

/// The bytes of the file that holds it. What nobody writes takes no memory.
pub const LEDGER_BYTES: usize = size_of::<Ledger>();

/// Whoever has no more than this need not let others go first, however little there is.
const LITTLE_BYTES: u64 = 8 << 20;

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

/// Somebody who ended out of memory.
#[repr(C)]
struct Death {
    pid: AtomicU64,
    /// In seconds since 1970.
    at: AtomicU64,
    held: AtomicU64,
    /// What it asked for, in bytes, plus one; zero for nothing.
    wanted: AtomicU64,
    name: [AtomicU64; 2],
}

#[repr(C, align(64))]
pub struct Row {
    /// The process: `Id`; zero for nobody. While somebody else makes the row up for it, that one, and `IS_MAKER`.
    id: AtomicU64,
    /// `LEASE_BITS` for its bytes, and above them the number that goes up with whatever is done by it.
    lease: AtomicU64,
    claim: AtomicU64,
    /// What whoever keeps the ledger is about to charge it for.
    charging: AtomicU64,
    /// What its threads are about to take by calls that no limit refuses.
    pledged: AtomicU64,
    /// What it held when it was forked, which others are charged for.
    base: AtomicU64,
    /// What it held when somebody looked last, that of others included.
    held: AtomicU64,
    /// What of that was its own part, each shared page divided among those who have it, when that was looked at last: for reports.
    share: AtomicU64,
    /// What it has mapped and not touched for a while; the least that was so since a moment, and that moment.
    untouched: AtomicU64,
    lately_untouched: AtomicU64,
    lately_since_ms: AtomicU64,
    /// Of what it has mapped, room for code that it makes as it runs: most of that it never touches.
    for_code: AtomicU64,
    /// What of shared memory it was found to use, and what it will once it has used all that it asked for; and when it was last
    /// seen on its way there.
    in_shared: AtomicU64,
    in_shared_to_come: AtomicU64,
    in_shared_at_ms: AtomicU64,
    /// What those have used of it that were forked since, and theirs; and by whom it was forked itself.
    in_shared_by_heirs: AtomicU64,
    parent: AtomicU64,
    /// When its lease has grown last, and when before that; zero for never.
    grown_ms: AtomicU64,
    grown_before_ms: AtomicU64,
    /// Since when it lets another one go first; zero while it does not.
    held_back_since_ms: AtomicU64,
    /// Since when it waits; zero while it does not.
    waiting_since_ms: AtomicU64,
    /// What it waits for, or was refused last, in bytes.
    wanted: AtomicU64,
    refusals: AtomicU64,
    /// When it was asked to leave; zero where it was not.
    asked_ms: AtomicU64,
    /// Whether it was asked to leave, and has begun to.
    is_leaving: AtomicU64,
    /// Whether nothing of ours runs in it: it was found by a look, and is charged for what it holds.
    is_outside: AtomicU64,
    /// For whom its tracer holds it still, or it does so itself: `Id`; zero for nobody.
    still_for: AtomicU64,
    /// Whether it stands still by itself when it is told to.
    heeds_stillness: AtomicU64,
    name: [AtomicU64; 2],
}

/// A process, by its number and its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u64);

/// So often somebody else takes a row for the same process at the same moment.
const MOST_TRIES: u32 = 8;

/// The number of a process has 22 bits at most: PID_MAX_LIMIT in the kernel's threads.h.
const PID_SHIFT: u32 = 42;
/// Beside an `Id`: it is not the process whose row it is, and makes that up.
const IS_MAKER: u64 = 1 << 41;
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
/// How long a request waits where more is in use than there is: one after the other has its answer before somebody has to leave.
const PATIENCE_OVER_MS: u64 = 100;
/// So much changes all the time.
const NOISE_BYTES: u64 = 64 << 10;

/// So many bits are enough for what any machine has.
const LEASE_BITS: u32 = 48;
const MOST_BYTES: u64 = (1 << LEASE_BITS) - 1;

/// The bytes in the word of a lease.
fn bytes_in(lease: u64) -> u64 {
    lease & MOST_BYTES
}

/// The word that comes after another one.
fn next_lease(lease: u64, bytes: u64) -> u64 {
    (lease & !MOST_BYTES).wrapping_add(1 << LEASE_BITS) | bytes.min(MOST_BYTES)
}

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

    /// So much was given back. A little is no movement: in a tree there is always somebody who comes and goes, and whoever waits
    /// for more would wait for ever.
    pub fn note_given_back(&self, bytes: u64, now_ms: u64) {
        if bytes > 0 && bytes >= self.permitted() / 64 {
            self.note_movement(now_ms);
        }
    }

    /// Much was given back, or somebody was refused: everybody's patience begins anew.
    pub fn note_movement(&self, now_ms: u64) {
        self.head.moved_ms.fetch_max(now_ms, ONE);
    }

    /// When anything moved last. A moment that is yet to come is none.
    pub fn moved_ms(&self, now_ms: u64) -> u64 {
        self.head.moved_ms.load(ONE).min(now_ms)
    }

    /// Among those who wait, how many come before the process with this row when it has to be decided who is refused: who
    /// holds most comes first.
    pub fn waiting_before(&self, row: &Row) -> u64 {
        let rank = |row: &Row| (row.charge(), row.id.load(ANY));
        let own = rank(row);
        self.taken_rows().filter(|other| other.waiting_since_ms() != 0 && rank(other) > own).count() as u64
    }

    /// Whether a process that wants so much more has to let another one go first. Those that grow little by little would all take
    /// a part of what they need, and none could end: the one that has most is left room to double, and to come to half of what
    /// there is, as long as it grows. Whoever has little is let go on.
    pub fn has_to_yield(&self, row: &Row, more: u64, now_ms: u64) -> bool {
        let permitted = self.permitted();
        let own = row.lease();
        if own.saturating_add(more) <= (permitted / 32).max(LITTLE_BYTES) {
            return false;
        }
        let rank = |row: &Row| (row.lease(), core::cmp::Reverse(row.id.load(ANY)));
        let mut leases = 0u64;
        let mut first = rank(row);
        for other in self.taken_rows() {
            leases = leases.saturating_add(other.lease());
            if rank(other) > first && other.grows(now_ms) {
                first = rank(other);
            }
        }
        let (lease, _) = first;
        let kept = lease.max((permitted / 2).saturating_sub(lease));
        first != rank(row) && leases.saturating_add(more).saturating_add(kept) > permitted
    }

    /// Whether a process that asks has to be refused now: nothing has moved for as long as the patience lasts, and of all
    /// who wait it holds most. One that holds more, and does not go, is waited for once more as long.
    pub fn is_to_be_refused(&self, row: &Row, since_ms: u64, now_ms: u64) -> bool {
        /// So many times the patience is the longest that anybody waits, whatever moves.
        const LONGEST: u64 = 60;
        let patience_ms =
            if self.is_over(now_ms) { self.patience_ms().min(PATIENCE_OVER_MS) } else { self.patience_ms() };
        // Before it is looked what moved: see `end_to_wait`.
        let before = self.waiting_before(row);
        let quiet_ms = now_ms.saturating_sub(self.moved_ms(now_ms).max(since_ms));
        let waited_ms = now_ms.saturating_sub(since_ms);
        quiet_ms >= patience_ms.saturating_mul(1 + before) || waited_ms >= patience_ms.saturating_mul(LONGEST)
    }

    /// More is in use than there is: whoever waits is refused soon, so that it gives something back, before somebody has to leave.
    pub fn note_over(&self, now_ms: u64) {
        self.head.over_ms.store(now_ms, ANY);
    }

    fn is_over(&self, now_ms: u64) -> bool {
        /// Looks follow one another faster.
        const SINCE_MS: u64 = 250;
        let over_ms = self.head.over_ms.load(ANY);
        over_ms != 0 && now_ms.saturating_sub(over_ms) < SINCE_MS
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

    /// A process waits no longer: it has what it wants, or was refused at that moment. Whoever sees that it has gone sees what
    /// that moved: else the next one would be refused with it.
    pub fn end_to_wait(&self, row: &Row, refused_ms: Option<u64>) {
        if let Some(now_ms) = refused_ms {
            self.note_movement(now_ms);
        }
        row.end_to_wait();
    }

    /// A process ends out of memory.
    pub fn note_death(&self, pid: u32, held: u64, wanted: Option<u64>, at: u64, name: &[u8]) {
        let place = self.head.died.fetch_add(1, ANY) as usize % DEATHS;
        let Some(death) = self.deaths.get(place) else { return };
        death.pid.store(0, ANY);
        death.at.store(at, ANY);
        death.held.store(held, ANY);
        death.wanted.store(wanted.map_or(0, |wanted| wanted.saturating_add(1)), ANY);
        store_name(&death.name, name);
        death.pid.store(pid.into(), ANY);
    }
}

/// One of the last deaths, as somebody noted it.
#[derive(Clone, Copy)]
pub struct Died {
    pub pid: u32,
    pub name: Text<16>,
    /// In seconds since 1970.
    pub at: u64,
    pub held: u64,
    pub wanted: Option<u64>,
}

impl Ledger {
    /// The last deaths, the first of them first.
    pub fn last_deaths(&self) -> impl Iterator<Item = Died> {
        let next = self.head.died.load(ANY) as usize;
        (next..next + DEATHS).filter_map(|place| {
            let death = self.deaths.get(place % DEATHS)?;
            let pid = u32::try_from(death.pid.load(ANY)).ok().filter(|pid| *pid != 0)?;
            Some(Died {
                pid,
                name: load_name(&death.name),
                at: death.at.load(ANY),
                held: death.held.load(ANY),
                wanted: death.wanted.load(ANY).checked_sub(1),
            })
        })
    }
}

impl Row {
    /// Takes a row that is nobody's. What the one before has claimed there counts until it begins, which is more and never less.
    fn take(&self, id: u64) -> bool {
        self.id.compare_exchange(0, id, ONE, ONE).is_ok()
    }

    /// Whoever was making it up is dead: it has no lease, and is nobody's.
    fn free_if_its_maker(&self, is_dead: impl FnOnce(Id) -> bool) {
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
    fn change_lease(&self, change: impl Fn(u64) -> u64) -> u64 {
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
    fn note_use(&self, seen: Seen, now_ms: u64) -> (u64, u64) {
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
    fn note_use_by_heir(&self, more: u64, now_ms: u64) {
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
    fn share(&self) -> u64 {
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
    fn grows(&self, now_ms: u64) -> bool {
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

fn store_name(words: &[AtomicU64; 2], name: &[u8]) {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
        word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), ANY);
    }
}

fn load_name(words: &[AtomicU64; 2]) -> Text<16> {
    let mut name = Text::new();
    for word in words {
        name.push_bytes(&word.load(ANY).to_le_bytes());
    }
    let len = position(name.as_bytes(), 0).unwrap_or(name.len());
    name.truncate(len);
    name
}

#[cfg(test)]
mod tests;
