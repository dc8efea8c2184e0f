//! A budget that processes share: the parent's side of the ledger. Grants need nobody, but somebody looks whether what the
//! ledger says is true: charges those who have taken memory without asking, and those who cannot ask; compares all with what
//! the container is charged, and takes what no row holds off the budget; and asks the greediest to leave before the kernel
//! kills everybody. A few times a second, and the oftener the nearer.

use super::budget::Budget;
use super::descendants;
use super::look::{Over, send, tell};
use super::sys;
use super::sys::memory::MemoryUse;
use crate::Limit;
use crate::cgroup::{Filling, filling};
use crate::contract::{Cause, DEFAULT_PATIENCE_MS, LAST_WORDS_DEADLINE_MS, Measure, variable};
use crate::growth::is_alive;
use crate::ledger::{Id, LEDGER_BYTES, Ledger, Row};
use crate::overrun::{AGAIN_MS, ASKED_TO_LEAVE, most};
use crate::record;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A budget that a worker and all that it starts have together, and other workers as well: each takes of it what it needs, and
/// gives back what it does not. Cloned, it is the same one.
///
/// Those that share it hold to it by the measure `resident`; see [`Worker::share`](super::Worker::share).
#[derive(Clone)]
pub struct SharedBudget {
    place: OsString,
    /// Nobody here looks after a budget that this process only shares.
    own: Option<Arc<Own>>,
    ledger: &'static Ledger,
    /// The ledger is found by it, by those whom the process that keeps it may not be looked at by.
    fd: Arc<OwnedFd>,
}

struct Own {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    is_over: bool,
    left: Vec<Over>,
    /// Whom to tell that it gets short.
    listeners: Vec<Listener>,
}

type Listener = Box<dyn FnMut(Shortage) + Send>;

/// How a shared budget stands that gets short.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Shortage {
    /// What there is to share, in bytes; less where the container has no room for more.
    pub permitted: u64,
    /// What of it is leased.
    pub leased: u64,
    /// How many processes wait for others to give memory back.
    pub waiting: usize,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.shared.0.lock().is_over = true;
        self.shared.1.notify_all();
    }
}

impl SharedBudget {
    /// What `limit` stands for here and now, and at each later moment: a share of a container changes with it. A request that
    /// does not fit waits for so long.
    ///
    /// # Errors
    /// `InvalidInput` where it stands for no limit at all; what keeps this process from making a ledger, or a thread.
    pub fn new(limit: Limit, patience: Duration) -> io::Result<SharedBudget> {
        SharedBudget::begin(move || super::resolve(limit, ""), patience)
    }

    /// The same of a budget, which may leave something to this process, and follows its container.
    ///
    /// # Errors
    /// As for [`new`](SharedBudget::new).
    pub fn of(budget: Arc<Budget>, patience: Duration) -> io::Result<SharedBudget> {
        SharedBudget::begin(move || Some(budget.bytes()).filter(|bytes| *bytes != u64::MAX), patience)
    }

    /// How long a request waits where nobody said otherwise.
    pub const PATIENCE: Duration = Duration::from_millis(DEFAULT_PATIENCE_MS);

    fn begin(
        size: impl Fn() -> Option<u64> + Send + 'static,
        patience: Duration,
    ) -> io::Result<SharedBudget> {
        let budget = size().ok_or_else(|| {
            let words =
                "a budget needs a size: no memory limit is set on the way from this process's cgroup to the root";
            io::Error::new(io::ErrorKind::InvalidInput, words)
        })?;
        let fd = sys::memfd::create_sealed(c"oomguard-ledger", LEDGER_BYTES)?;
        let fd = sys::child::move_up(fd, FIRST_DESCRIPTOR);
        let inode =
            sys::memfd::sealed_inode(fd.as_raw_fd(), LEDGER_BYTES).ok_or_else(io::Error::last_os_error)?;
        let ledger = map(fd.as_raw_fd()).ok_or_else(io::Error::last_os_error)?;
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let now_ms = sys::process::monotonic_ms();
        ledger.open(budget, patience_ms, sys::process::pid_namespace(), now_ms);
        let place = record::variable_value_of(sys::process::pid(), fd.as_raw_fd(), inode);
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let watch = Watch {
            ledger,
            size: Box::new(size),
            mark: format!("{}={place}", variable::LEDGER).into_bytes(),
            shared: Arc::clone(&shared),
            seen: HashSet::new(),
            forked: Forked::default(),
            over_since: None,
            last: None,
            next_search: Instant::now(),
            asked: None,
            stay: HashSet::new(),
            is_short: false,
        };
        std::thread::Builder::new()
            .name("oomguard-budget".into())
            .stack_size(128 << 10)
            .spawn(|| watch.run())?;
        Ok(SharedBudget {
            place: place.into(),
            own: Some(Arc::new(Own { shared })),
            ledger,
            fd: Arc::new(fd),
        })
    }

    /// The budget that this process was started in, by a launcher or a supervisor above it. `None`: there is none, or it
    /// cannot be reached.
    pub fn inherited() -> Option<SharedBudget> {
        let place = std::env::var_os(variable::LEDGER)?;
        let (fd, ledger) = open(place.as_bytes())?;
        Some(SharedBudget { place, own: None, ledger, fd: Arc::new(fd) })
    }

    /// What there is to share, in bytes.
    pub fn bytes(&self) -> u64 {
        self.ledger.budget()
    }

    /// What of it is leased now, in bytes.
    pub fn used(&self) -> u64 {
        self.ledger.leased()
    }

    /// Has this called when it gets short: somebody waits, or less than a sixteenth is left. Once, until it is short no longer. It is
    /// called by the thread that looks after the budget, several times a second at most, and holds that up: start no work in it.
    ///
    /// ```no_run
    /// # use oomguard::supervisor::SharedBudget;
    /// # fn main() -> std::io::Result<()> {
    /// let budget = SharedBudget::new("2GiB".parse().unwrap(), SharedBudget::PATIENCE)?;
    /// budget.on_shortage(|short| eprintln!("{} wait for memory", short.waiting))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Unsupported` where another process looks after it, which this one has [inherited](SharedBudget::inherited) it from.
    pub fn on_shortage(&self, listener: impl FnMut(Shortage) + Send + 'static) -> io::Result<()> {
        let own = self.own.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        own.shared.0.lock().listeners.push(Box::new(listener));
        Ok(())
    }

    /// The ledger, where its numbers are processes here.
    pub(super) fn ledger(&self) -> Option<&'static Ledger> {
        Some(self.ledger).filter(|ledger| ledger.pid_namespace() == sys::process::pid_namespace())
    }

    /// The ledger, for those who cannot open it where it is kept.
    pub(super) fn ledger_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn variable(&self) -> (&'static str, OsString) {
        (variable::LEDGER, self.place.clone())
    }

    /// A worker was refused memory that it held and asked for, `need` together, and is to be tried again: waits until so much is
    /// free, and whoever waits for another try for longer has begun. False where `gives_up` says so, or it is more than there is.
    pub(super) fn wait_for_room(&self, need: u64, mut gives_up: impl FnMut() -> bool) -> bool {
        const EVERY: Duration = Duration::from_millis(20);
        let own = sys::process::pid();
        let Some(id) = sys::process::life_of(own).map(|life| Id::new(own, life.start)) else { return true };
        let Some(row) = self.ledger.take_row(id).and_then(|place| self.ledger.row(place)) else {
            return true;
        };
        row.set_outside();
        row.set_name(sys::process::name_of(own).as_bytes());
        let since_ms = sys::process::monotonic_ms();
        row.begin_to_wait(need, since_ms);
        let mut is_there = false;
        while need <= self.ledger.budget() && !gives_up() {
            let is_before = |other: &&Row| {
                let theirs = (other.waiting_since_ms(), other.id().map(Id::pid));
                other.is_outside() && theirs.0 != 0 && theirs < (since_ms, Some(own))
            };
            let free = self.ledger.permitted().saturating_sub(self.ledger.leased());
            if free >= need && !self.ledger.taken_rows().any(|row| is_before(&row)) {
                is_there = true;
                break;
            }
            self.ledger.take_from_the_dead(is_alive);
            std::thread::sleep(EVERY);
        }
        if !is_there {
            row.end_to_wait();
        }
        is_there
    }

    /// The worker that was waited for has begun, or not: the next may. It is given a moment to take what was free for it.
    pub(super) fn has_begun(&self, worker: Option<u32>, need: u64) {
        let own = sys::process::pid();
        let Some(id) = sys::process::life_of(own).map(|life| Id::new(own, life.start)) else { return };
        let ledger = self.ledger;
        let end = move || {
            let row = ledger.find(id).and_then(|place| ledger.row(place));
            row.inspect(|row| row.end_to_wait());
        };
        let Some(worker) = worker else { return end() };
        let started = std::thread::Builder::new().name("oomguard-retry".into()).spawn(move || {
            const MOMENT: Duration = Duration::from_secs(1);
            let began = Instant::now();
            let lease = || {
                let rows = ledger.taken_rows();
                rows.filter(|row| row.id().is_some_and(|id| id.pid() == worker)).map(Row::lease).sum::<u64>()
            };
            while began.elapsed() < MOMENT && lease() < need && sys::child::is_alive(worker) {
                std::thread::sleep(Duration::from_millis(10));
            }
            end();
        });
        if started.is_err() {
            self.has_begun(None, need);
        }
    }

    /// Those that were asked to leave so far.
    pub(super) fn left(&self) -> Vec<Over> {
        self.own.as_ref().map_or_else(Vec::new, |own| own.shared.0.lock().left.clone())
    }
}

/// How long a request waits, as `OOMGUARD_PATIENCE` says it: `0`, `500ms`, `5s`, `2min`. `None` where it is no span of time.
pub fn patience(text: &str) -> Option<Duration> {
    crate::duration::parse_patience(text.as_bytes()).map(Duration::from_millis)
}

impl std::fmt::Debug for SharedBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedBudget").field("bytes", &self.bytes()).field("used", &self.used()).finish()
    }
}

/// The ledger at that place.
fn open(place: &[u8]) -> Option<(OwnedFd, &'static Ledger)> {
    let place = record::from_variable(place)?;
    let fd = sys::memfd::open_of(place.pid?, place.fd)?;
    let is_it = sys::memfd::sealed_inode(fd.number(), LEDGER_BYTES) == Some(place.inode);
    let ledger = map(fd.number()).filter(|ledger| is_it && ledger.is_one())?;
    Some((sys::child::move_up(sys::memfd::owned(fd), FIRST_DESCRIPTOR), ledger))
}

/// A copy of a ledger that somebody else keeps.
// Unsafe code is allowed here: words of any value are a ledger.
#[allow(unsafe_code)]
pub(super) fn read(path: &Path) -> Option<Box<Ledger>> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = vec![0u8; LEDGER_BYTES];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).ok()?;
    let mut ledger = Box::<Ledger>::new_uninit();
    // SAFETY: as many bytes as the ledger has, to memory of the box's own, which does not overlap with the vector.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ledger.as_mut_ptr().cast(), LEDGER_BYTES) };
    // SAFETY: all its bytes were written just now, and it is made of integers.
    Some(unsafe { ledger.assume_init() }).filter(|ledger| ledger.is_one())
}

// Unsafe code is allowed here: memory that processes share.
#[allow(unsafe_code)]
fn map(fd: i32) -> Option<&'static Ledger> {
    let at: *mut Ledger = sys::memfd::map_for_ever(fd, LEDGER_BYTES)?.cast();
    // SAFETY: a mapping of the ledger's size that is never unmapped and, being sealed, cannot shrink; its words are atomics,
    // so that others may write to it.
    Some(unsafe { &*at })
}

struct Watch {
    ledger: &'static Ledger,
    /// What there is to share, here and now.
    size: Box<dyn Fn() -> Option<u64> + Send>,
    /// The variable that all have in their environment who share it, as long as they do not change that.
    mark: Vec<u8>,
    shared: Arc<(Mutex<State>, Condvar)>,
    /// The processes that were there at the last search.
    seen: HashSet<u32>,
    forked: Forked,
    /// Since when more is in use than there may be.
    over_since: Option<Instant>,
    /// When it was looked last, and what was in use.
    last: Option<(Instant, u64)>,
    next_search: Instant,
    asked: Option<Asked>,
    /// Those that could not be made to leave: another user's, or one that the kernel holds.
    stay: HashSet<Id>,
    /// It was short at the last look.
    is_short: bool,
}

/// Those who were forked, when that was looked at last.
#[derive(Default)]
struct Forked {
    /// When it may be looked at again.
    next: Option<Instant>,
    /// How many pages they had been given.
    faults: u64,
    /// What they held above what all are charged for, in bytes.
    beside: u64,
    /// The most that all were charged for since.
    charged: u64,
}

/// Somebody who was asked to leave.
struct Asked {
    id: Id,
    pidfd: Option<OwnedFd>,
    at: Instant,
}

/// Programs take the low numbers for themselves.
const FIRST_DESCRIPTOR: i32 = 64;

/// How soon one who was asked to leave must have begun to.
const OBEYS_WITHIN: Duration = Duration::from_millis(50);
/// How long one may take that has begun to.
const ENDS_WITHIN: Duration = Duration::from_millis(LAST_WORDS_DEADLINE_MS + 2000);
/// What was found to be held beside all leases is looked for again so soon.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(250);
const SEARCH_EVERY: Duration = Duration::from_millis(200);
const LONGEST_PAUSE_MS: u64 = 250;
const SHORTEST_PAUSE_MS: u64 = 5;

/// What a look found, in bytes.
struct Found {
    /// What all rows together are charged for.
    charged: u64,
    /// What is in use that they are not charged for, as far as the tree is concerned.
    beside: u64,
    container: Option<Filling>,
}

impl Found {
    /// Whether the container is about to overflow, and those who share the budget have a part in it: where others fill it,
    /// nothing is gained by their end.
    fn fills(&self, container: Filling) -> bool {
        let own = self.charged.saturating_add(self.beside);
        container.left() < edge(container.limit) && own >= container.limit / 16
    }
}

impl Watch {
    fn run(mut self) {
        loop {
            let pause = self.look();
            let shared = Arc::clone(&self.shared);
            let mut state = shared.0.lock();
            if !state.is_over {
                let _ = shared.1.wait_for(&mut state, pause);
            }
            if state.is_over {
                return;
            }
        }
    }

    /// One look; how long it is until the next.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.next_search {
            self.search();
            // A two-hundredth of a processor at most.
            self.next_search = Instant::now() + (now.elapsed() * 200).max(SEARCH_EVERY);
            if let Some(budget) = (self.size)().filter(|bytes| *bytes != self.ledger.budget()) {
                self.ledger.set_budget(budget);
                self.ledger.note_movement(sys::process::monotonic_ms());
            }
        }
        let charged = self.charge();
        let beside = self.held_beside(charged);
        let found = Found { charged, beside, container: filling("") };
        self.set_ceiling(&found);
        self.tell_if_short();
        let room = self.room(&found);
        let in_use = found.charged.saturating_add(found.beside);
        let grown = self.last.map_or(0, |(at, before)| {
            let ms = u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX).max(1);
            in_use.saturating_sub(before) / ms
        });
        self.last = Some((now, in_use));
        if self.is_waiting_for_leave() {
            self.over_since = None;
            return Duration::from_millis(SHORTEST_PAUSE_MS);
        }
        let Some(room) = room else {
            if self.is_time_to_leave(&found) && self.is_over_indeed(&found) {
                self.ask_the_greediest();
                self.over_since = None;
            } else if self.over_since.is_none() {
                self.over_since = Some(now);
            }
            return Duration::from_millis(AGAIN_MS.min(SHORTEST_PAUSE_MS));
        };
        self.over_since = None;
        // As with a single process's limit: it may begin at any moment to use what it has mapped.
        let pause = room / (2 * grown).max(1 << 20);
        let least = if grown == 0 { 20 } else { SHORTEST_PAUSE_MS };
        Duration::from_millis(pause.clamp(least, LONGEST_PAUSE_MS))
    }

    /// Tells those who want to know that it has got short.
    fn tell_if_short(&mut self) {
        let (permitted, leased) = (self.ledger.permitted(), self.ledger.leased());
        let waiting = self.ledger.taken_rows().filter(|row| row.waiting_since_ms() != 0).count();
        let was_short = std::mem::replace(
            &mut self.is_short,
            waiting > 0 || permitted.saturating_sub(leased) < permitted / 16,
        );
        if !self.is_short || was_short {
            return;
        }
        // Not under the lock, which whoever listens may want.
        let mut listeners = std::mem::take(&mut self.shared.0.lock().listeners);
        listeners.iter_mut().for_each(|tell| tell(Shortage { permitted, leased, waiting }));
        let mut state = self.shared.0.lock();
        listeners.append(&mut state.listeners);
        state.listeners = listeners;
    }

    /// Brings the rows up to date; what they are charged for together.
    fn charge(&mut self) -> u64 {
        let mut charged = 0u64;
        let mut given_back = 0u64;
        for row in self.ledger.taken_rows() {
            let Some(id) = row.id() else { continue };
            if !is_alive(id) {
                let lease = row.lease();
                if self.ledger.take_back(row, id) {
                    given_back = given_back.saturating_add(lease);
                }
                continue;
            }
            let memory = sys::memory::memory_use_of(id.pid());
            let Some(held) = memory.of(Measure::Resident) else { continue };
            row.note_held(held);
            row.note_mapped(memory.data.unwrap_or(held), held, sys::process::monotonic_ms());
            if row.is_outside() {
                let share = if held > 4 << 20 { sys::memory::share_held_by(id.pid()) } else { None };
                row.charge_exactly(share.unwrap_or(held).min(held));
            } else if row.charge() > row.lease().saturating_add(64 << 10) {
                let share = sys::memory::share_held_by(id.pid()).unwrap_or(u64::MAX);
                let due = row.charge().min(share);
                // The leases come to no more than they may; what is held above that is seen all the same.
                let room = self.ledger.permitted().saturating_sub(self.ledger.leased());
                row.charge_at_least(due.min(row.lease().saturating_add(room)));
                charged = charged.saturating_add(due);
                continue;
            }
            charged = charged.saturating_add(row.charge().min(row.lease()));
        }
        self.ledger.note_given_back(given_back, sys::process::monotonic_ms());
        charged
    }

    /// What a process writes to that it shared with its parent is its own from then on, and its use looks as before: what those
    /// hold above their charge who were forked. To find that out is dear. How many pages they were given is not, and it can be
    /// no more than that.
    fn held_beside(&mut self, charged: u64) -> u64 {
        let forked = || self.ledger.taken_rows().filter(|row| row.base() > 0).filter_map(Row::id);
        if forked().next().is_none() {
            self.forked = Forked { charged, ..Forked::default() };
            return 0;
        }
        let given = forked().filter_map(|id| sys::process::life_of(id.pid())).map(|life| life.faults);
        let faults = given.fold(0, u64::saturating_add);
        let lately = faults.saturating_sub(self.forked.faults).saturating_mul(sys::memory::page_bytes());
        let at_most = self.forked.beside.saturating_add(lately);
        let budget = self.ledger.budget();
        // Whoever has left behind what others were charged for with it.
        let orphaned = self.forked.charged.saturating_sub(charged);
        let is_near = charged.saturating_add(at_most) > budget - budget / 8
            || lately > budget / 8
            || orphaned > budget / 8;
        // What was found then may be gone since, with whoever held it.
        let is_old = self.forked.beside > budget / 16;
        let now = Instant::now();
        let is_due = |pause| self.forked.next.is_none_or(|next| now >= next + pause);
        if is_near && is_due(Duration::ZERO) || is_old && is_due(FORGOTTEN_AFTER) {
            let together = self.held_together();
            // What has been touched since the look began is not beside it.
            let charged = self.charge().max(charged);
            let beside = together.saturating_sub(charged);
            let next = Instant::now() + now.elapsed() * 4;
            self.forked = Forked { next: Some(next), faults, beside, charged };
            return beside;
        } else if faults < self.forked.faults {
            // Some have gone.
            self.forked.faults = faults;
        }
        self.forked.charged = self.forked.charged.max(charged);
        self.forked.beside
    }

    /// What all hold together, each shared page once.
    fn held_together(&self) -> u64 {
        let held = |row: &Row| {
            let pid = row.id()?.pid();
            sys::memory::share_held_by(pid).or_else(|| Some(row.charge()))
        };
        self.ledger.taken_rows().filter_map(held).fold(0, u64::saturating_add)
    }

    /// The same, where one comes while another goes: what each held before and after, so that nothing counts that was not
    /// there in between. One that is gone holds nothing.
    fn held_throughout(&self) -> u64 {
        let look = || -> HashMap<Id, u64> {
            let held = |row: &Row| {
                let id = row.id()?;
                let share = sys::memory::share_held_by(id.pid());
                is_alive(id).then(|| (id, share.unwrap_or(row.charge())))
            };
            self.ledger.taken_rows().filter_map(held).collect()
        };
        let (before, after) = (look(), look());
        let least = |(id, held): (&Id, &u64)| before.get(id).map_or(0, |before| *before.min(held));
        after.iter().map(least).fold(0, u64::saturating_add)
    }

    /// Takes what no row holds off what may be leased.
    fn set_ceiling(&self, found: &Found) {
        let tree = self.ledger.budget().saturating_sub(found.beside);
        let container = found.container.map_or(u64::MAX, |container| {
            let free = container.free().saturating_sub(margin(container.limit));
            found.charged.saturating_add(free)
        });
        let uncovered =
            found.container.map_or(found.beside, |container| container.used.saturating_sub(found.charged));
        self.ledger.note_container(found.container.map(|container| container.limit), uncovered);
        self.ledger.set_ceiling(tree.min(container));
    }

    /// What is left until somebody has to leave; `None`: somebody has to.
    fn room(&self, found: &Found) -> Option<u64> {
        let tree = most(self.ledger.budget()).checked_sub(found.charged.saturating_add(found.beside))?;
        let container = match found.container {
            Some(container) => container.left().checked_sub(edge(container.limit))?,
            None => u64::MAX,
        };
        Some(tree.min(container))
    }

    /// Whether somebody has to leave now: a container that is about to overflow does not wait, and neither does a tree that
    /// is far over its budget; one that is a little over has a moment to give something back.
    fn is_time_to_leave(&self, found: &Found) -> bool {
        const MOMENT: Duration = Duration::from_secs(1);
        let Some(since) = self.over_since else { return false };
        let budget = self.ledger.budget();
        let is_far = found.charged.saturating_add(found.beside) > budget.saturating_add(budget / 8);
        let is_full = found.container.is_some_and(|container| found.fills(container));
        is_far || is_full || since.elapsed() >= MOMENT
    }

    /// The container is, where it is said to be; the tree only if it is what they hold together that is too much.
    fn is_over_indeed(&self, found: &Found) -> bool {
        found.container.is_some_and(|container| found.fills(container))
            || self.held_throughout() > most(self.ledger.budget())
    }

    /// Asks the process that holds most to leave.
    fn ask_the_greediest(&mut self) {
        // Of those that hold about the same, the youngest: not the one that the others are part of.
        let step = (self.ledger.budget() / 16).max(1);
        let by_use = |row: &&Row| {
            let id = row.id();
            let share = id.and_then(|id| sys::memory::share_held_by(id.pid())).unwrap_or(row.held());
            (share / step, id.map(Id::start), id.map(Id::pid))
        };
        let may_go = |row: &&Row| row.id().is_some_and(|id| !self.stay.contains(&id));
        let Some(row) = self.ledger.taken_rows().filter(may_go).max_by_key(by_use) else { return };
        let Some(id) = row.id().filter(|id| is_alive(*id)) else { return };
        let pidfd = sys::child::pidfd(id.pid()).ok();
        if !is_alive(id) {
            return;
        }
        row.ask_to_leave(sys::process::monotonic_ms());
        let memory: MemoryUse = sys::memory::memory_use_of(id.pid());
        let program = sys::process::program_of(id.pid());
        let over = Over {
            cause: Cause::AskedToLeave,
            pid: id.pid(),
            program,
            memory,
            at_ms: sys::process::monotonic_ms(),
        };
        self.shared.0.lock().left.push(over);
        tell(pidfd.as_ref(), id.pid(), ASKED_TO_LEAVE);
        self.asked = Some(Asked { id, pidfd, at: Instant::now() });
    }

    /// Whether one who was asked to leave is still there; it is made to, once it has had its time.
    fn is_waiting_for_leave(&mut self) -> bool {
        let Some(asked) = &self.asked else { return false };
        if !is_alive(asked.id) {
            self.asked = None;
            return false;
        }
        if asked.at.elapsed() > 2 * ENDS_WITHIN {
            self.stay.insert(asked.id);
            self.asked = None;
            return false;
        }
        let has_begun = self.ledger.taken_rows().any(|row| row.id() == Some(asked.id) && row.is_leaving());
        if asked.at.elapsed() > if has_begun { ENDS_WITHIN } else { OBEYS_WITHIN } {
            send(asked.pidfd.as_ref(), asked.id.pid(), libc::SIGKILL);
        }
        true
    }

    /// Gives those a row who have none: nothing of ours runs in them, and they are charged for what they hold.
    fn search(&mut self) {
        let new = descendants::arrivals(&mut self.seen);
        let own = sys::process::pid();
        let mut members: HashSet<u32> =
            self.ledger.taken_rows().filter_map(|row| row.id()).map(Id::pid).collect();
        for pid in new.into_iter().filter(|pid| *pid != own) {
            let is_ours = members.contains(&pid)
                || sys::process::environment_has(pid, &self.mark)
                || descendants::parent_of(pid).is_some_and(|parent| members.contains(&parent));
            if !is_ours || !members.insert(pid) {
                continue;
            }
            let Some(life) = sys::process::life_of(pid).filter(|life| life.is_alive) else { continue };
            let id = Id::new(pid, life.start);
            if self.ledger.find(id).is_none()
                && let Some(row) = self.ledger.take_row(id).and_then(|place| self.ledger.row(place))
            {
                row.set_outside();
                row.set_name(sys::process::name_of(pid).as_bytes());
            }
        }
    }
}

/// So much of a container's limit is never leased: between two looks, others in it take memory as well.
fn margin(limit: u64) -> u64 {
    (limit / 64).max(1 << 20)
}

/// With so little left the container is about to overflow.
fn edge(limit: u64) -> u64 {
    (limit / 100).max(1 << 20)
}
