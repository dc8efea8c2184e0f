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
use crate::cgroup::{Filling, UsageCounter, filling, usage_counter};
use crate::contract::{Cause, DEFAULT_PATIENCE_MS, LAST_WORDS_DEADLINE_MS, Measure, variable};
use crate::growth::is_alive;
use crate::ledger::{Id, LEDGER_BYTES, Ledger, Row, Seen};
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
    /// Those that stand still until there is room again: see `Watch::hold_still_in_a_race`.
    still: Vec<(Id, OwnedFd)>,
}

impl State {
    /// Lets all those go on that stand still, or that one of them.
    fn go_on(&mut self, only: Option<Id>) {
        self.still.retain(|(id, pidfd)| {
            let stays = only.is_some_and(|only| only != *id);
            if !stays {
                send(Some(pidfd), id.pid(), libc::SIGCONT);
            }
            stays
        });
    }

    /// Lets the one go on that has stood still longest.
    fn next_goes_on(&mut self) {
        let first = self.still.first().map(|(id, _)| *id);
        first.inspect(|id| self.go_on(Some(*id)));
    }
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
        let mut state = self.shared.0.lock();
        state.is_over = true;
        state.go_on(None);
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
        let now_ms = sys::clock::monotonic_ms();
        ledger.open(budget, patience_ms, sys::process::pid_namespace(), now_ms);
        let place = record::variable_value_of(sys::process::pid(), fd.as_raw_fd(), inode);
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let mut seen = HashSet::new();
        descendants::arrivals(&mut seen);
        let watch = Watch {
            ledger,
            size: Box::new(size),
            mark: format!("{}={place}", variable::LEDGER).into_bytes(),
            shared: Arc::clone(&shared),
            // Of those that are here already nobody can share it.
            seen,
            forked: Forked::default(),
            over_since: None,
            last: None,
            next_search: Instant::now(),
            asked: None,
            beyond: 0,
            stay: HashSet::new(),
            is_short: false,
            has_much_room: false,
            looked: HashMap::new(),
            pace: Pace::default(),
            still_since: None,
            usage: None,
            // Which reads files of the cgroup.
            processors: std::thread::available_parallelism().map_or(1, |number| number.get() as u64),
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
        let Some(id) = sys::proc::life_of(own).map(|life| Id::new(own, life.start)) else { return true };
        let Some(row) = self.ledger.take_row(id).and_then(|place| self.ledger.row(place)) else {
            return true;
        };
        row.set_outside();
        row.set_name(sys::proc::name_of(own).as_bytes());
        let since_ms = sys::clock::monotonic_ms();
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
            self.ledger.take_from_the_dead(sys::clock::monotonic_ms(), is_alive);
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
        let Some(id) = sys::proc::life_of(own).map(|life| Id::new(own, life.start)) else { return };
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
    /// What some held above their leases at the last look, as there was no room to charge them for it.
    beyond: u64,
    /// Those that could not be made to leave: another user's, or one that the kernel holds.
    stay: HashSet<Id>,
    /// It was short at the last look.
    is_short: bool,
    /// More than half of it was left.
    has_much_room: bool,
    /// When each process was looked at last, and how many pages it had been given by then: who has got none since holds no more.
    looked: HashMap<Id, (Instant, u64)>,
    pace: Pace,
    /// Since when somebody stands still.
    still_since: Option<Instant>,
    /// What the container is charged, cheap to read.
    usage: Option<UsageCounter>,
    processors: u64,
}

/// How fast the container fills.
#[derive(Default)]
struct Pace {
    /// When it was looked last, what was needed of the container, and what it was charged.
    last: Option<(Instant, Filling, u64)>,
    /// In bytes a millisecond.
    rate: u64,
    /// Whether the last look found it fuller than the one before.
    grows: bool,
    /// How long it took to find out what all hold together, in milliseconds.
    look_ms: u64,
}

impl Pace {
    /// It is charged so much now.
    fn note_charge(&mut self, charged: u64) {
        let Some((at, _, before)) = self.last else { return };
        self.rate = self.rate.max(charged.saturating_sub(before) / ms_since(at));
    }

    /// A look found it so full. Whoever fills it may have been held up a moment ago, and goes on.
    fn note(&mut self, container: Option<Filling>, charged: u64) {
        let grown = |(at, before, _): (Instant, Filling, u64)| {
            container.map_or(0, |now| now.needed.saturating_sub(before.needed) / ms_since(at))
        };
        let rate = self.last.map_or(0, grown);
        self.grows = rate > 0;
        self.rate = rate.max(self.rate / 2);
        self.last = container.map(|container| (Instant::now(), container, charged));
    }

    /// Whether so much of so large a container will be gone before one look more is over.
    fn is_race(&self, left: u64, limit: u64) -> bool {
        left < edge(limit).saturating_add(self.rate.saturating_mul(RACE_MS.max(4 * self.look_ms)))
    }

    /// What was left of it at the last look.
    fn left(&self) -> Option<u64> {
        self.last.map(|(_, container, _)| container.left())
    }
}

fn ms_since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
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
const SEARCH_AT_LEAST_EVERY: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Where more than half of the budget is left.
const LONGEST_PAUSE_WITH_ROOM: Duration = Duration::from_secs(2);
/// However little a process seems to do, it is looked at so often.
const UNSEEN_AT_MOST: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE_MS: u64 = 5;
/// Where they were held still, as they fill the container.
const PAUSE_IN_A_RACE: Duration = Duration::from_millis(2);
/// A container that will be full so soon at its pace does not wait for a look at those who fill it.
const RACE_MS: u64 = 60;
/// The same where such a look takes long.
const MOST_RACE_MS: u64 = 300;
/// So soon one has begun to leave who is asked to.
const BEGINS_WITHIN_MS: u64 = 10;
/// So long somebody stands still at most: one who was asked to leave is gone by then, or is none who can be made to.
const STILL_AT_MOST: Duration = Duration::from_secs(5);
/// The least time between two glances at what the container is charged.
const SHORTEST_GLANCE: Duration = Duration::from_millis(4);

/// What a look found, in bytes.
struct Found {
    /// What all rows together are charged for.
    charged: u64,
    /// What is in use that they are not charged for, as far as the tree is concerned.
    beside: u64,
    container: Option<Filling>,
    /// So much more is used of it by the time at which one who is asked to leave now has begun to.
    soon: u64,
}

impl Found {
    /// Whether the container is about to overflow, and those who share the budget have a part in it: where others fill it,
    /// nothing is gained by their end.
    fn fills(&self, container: Filling) -> bool {
        let own = self.charged.saturating_add(self.beside);
        container.left() < self.edge(container) && own >= container.limit / 16
    }

    /// With so little left the container is about to overflow.
    fn edge(&self, container: Filling) -> u64 {
        edge(container.limit).saturating_add(self.soon)
    }
}

impl Watch {
    fn run(mut self) {
        loop {
            let pause = self.look();
            self.let_go_on();
            if self.rest(pause) {
                return;
            }
        }
    }

    /// Waits for the next look, or until the container is charged so much more that it cannot wait. Whether it was the last.
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let left = self.pace.left().unwrap_or(u64::MAX);
        // As fast as memory is written to, by one on each processor.
        let glance = Duration::from_millis(left / (self.processors << 22)).max(SHORTEST_GLANCE);
        let charged = || self.usage.as_ref().and_then(UsageCounter::read);
        let before = if glance < pause { charged() } else { None };
        let shared = Arc::clone(&self.shared);
        let mut state = shared.0.lock();
        while !state.is_over {
            let next = if before.is_some() { until.min(Instant::now() + glance) } else { until };
            let _ = shared.1.wait_until(&mut state, next);
            let has_grown =
                || before.zip(charged()).is_some_and(|(before, now)| now.saturating_sub(before) > left / 4);
            if Instant::now() >= until || has_grown() {
                break;
            }
        }
        state.is_over
    }

    /// One look; how long it is until the next.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        self.hold_still_in_a_race();
        if now >= self.next_search {
            self.search();
            // A two-hundredth of a processor at most, and a tenth of that where there is much room.
            let times = if self.has_much_room { 2000 } else { 200 };
            self.next_search =
                Instant::now() + (now.elapsed() * times).clamp(SEARCH_EVERY, SEARCH_AT_LEAST_EVERY);
            self.usage = usage_counter("");
            if let Some(budget) = (self.size)().filter(|bytes| *bytes != self.ledger.budget()) {
                self.ledger.set_budget(budget);
                self.ledger.note_movement(sys::clock::monotonic_ms());
            }
        }
        let left_behind = self.ledger.left_behind();
        let charged = self.charge();
        let beside = self.held_beside(charged);
        let is_race = self.still_since.is_some() && charged.saturating_add(beside) > self.ledger.budget();
        let soon = if is_race { self.pace.rate.saturating_mul(BEGINS_WITHIN_MS) } else { 0 };
        let found = Found { charged, beside, container: filling(""), soon };
        self.pace.note(found.container, self.usage.as_ref().and_then(UsageCounter::read).unwrap_or(0));
        self.set_ceiling(&found);
        self.ledger.forget_left_behind(left_behind);
        self.tell_if_short();
        let room = self.room(&found);
        self.has_much_room = !self.is_short && room.is_some_and(|room| room > self.ledger.budget() / 2);
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
            self.ledger.note_over(sys::clock::monotonic_ms());
            if is_race {
                self.over_since = self.over_since.or(Some(now));
            }
            if self.is_time_to_leave(&found) && self.is_over_indeed(&found) {
                self.ask_the_greediest();
                self.over_since = None;
            } else if self.over_since.is_none() {
                self.over_since = Some(now);
            }
            return Duration::from_millis(AGAIN_MS.min(SHORTEST_PAUSE_MS));
        };
        self.over_since = None;
        if self.still_since.is_some() {
            return PAUSE_IN_A_RACE;
        }
        // As with a single process's limit: they may begin at any moment to use what they have mapped, one on each processor,
        // at some GiB a second.
        let pause = room / (2 * grown).max(self.processors << 20);
        let least = if grown == 0 { 20 } else { SHORTEST_PAUSE_MS };
        // A thousandth of a processor, if that is not too seldom.
        let longest = if self.has_much_room { now.elapsed() * 1000 } else { Duration::ZERO };
        let longest = longest.clamp(LONGEST_PAUSE, LONGEST_PAUSE_WITH_ROOM);
        Duration::from_millis(pause).clamp(Duration::from_millis(least), longest)
    }

    /// Whoever writes to what it shares with its parent asks nobody, and four of them can fill a container before one that was
    /// asked to leave has so much as noticed. So where nothing will be left in a moment those are stopped who can be the reason,
    /// until a look has found that there is room, or somebody has left.
    fn hold_still_in_a_race(&mut self) {
        if self.still_since.is_some() {
            return self.hold_still(0);
        }
        let Some(charged) = self.usage.as_ref().and_then(UsageCounter::read) else { return };
        self.pace.note_charge(charged);
        let Some((_, before, charged_before)) = self.pace.last else { return };
        let left = before.left().saturating_sub(charged.saturating_sub(charged_before));
        if (self.pace.is_race(left, before.limit) || self.pace.is_race(before.left(), before.limit))
            && let Some(now) = filling("").filter(|now| self.pace.is_race(now.left(), now.limit))
        {
            self.hold_still(now.left());
        }
    }

    /// After a look: lets those go on that stand still, one after the other as long as the container fills, and is fuller than it
    /// should be: this process may have to wait for a processor.
    fn let_go_on(&mut self) {
        let Some(since) = self.still_since else { return };
        let is_over = since.elapsed() > STILL_AT_MOST;
        if self.asked.is_some() && !is_over {
            return;
        }
        let is_full = self.pace.last.is_some_and(|(_, container, _)| {
            let beyond = container.limit.saturating_sub(self.ledger.budget()).max(container.limit / 32);
            container.left() < 2 * beyond
        });
        let mut state = self.shared.0.lock();
        if self.pace.grows && is_full && !is_over {
            state.next_goes_on();
        } else {
            state.go_on(None);
            self.still_since = None;
        }
    }

    /// Stops those who may use what is left without asking, if they have begun to.
    fn hold_still(&mut self, left: u64) {
        let few_pages = if self.still_since.is_some() { 0 } else { 64 };
        let asked = self.asked.as_ref().map(|asked| asked.id);
        // One that is in its parent's process group: whose parent would not be told, as a shell is with its jobs. Forked by one of
        // ours, and not by a launcher, which stops with its worker.
        let is_of_the_family = |row: &Row, id: Id| {
            row.parent().is_some_and(|parent| {
                is_alive(parent) && sys::proc::group_of(parent.pid()) == sys::proc::group_of(id.pid())
            })
        };
        let family = || {
            let forked = self.ledger.taken_rows().filter(|row| row.base() > 0 && !row.is_outside());
            forked.filter_map(|row| row.id().filter(|id| Some(*id) != asked && is_of_the_family(row, *id)))
        };
        let grows = |id: Id| {
            let faults = self.looked.get(&id).map_or(0, |(_, faults)| *faults);
            sys::proc::life_of(id.pid()).is_some_and(|life| life.faults > faults.saturating_add(few_pages))
        };
        let unasked = |id: Id| {
            let memory = sys::memory::memory_use_of(id.pid());
            let untouched =
                memory.data.unwrap_or(0).saturating_sub(memory.of(Measure::Resident).unwrap_or(0));
            let row = self.ledger.find(id).and_then(|place| self.ledger.row(place));
            row.map_or(0, Row::base).saturating_add(untouched)
        };
        if !family().any(grows) || family().map(unasked).fold(0, u64::saturating_add) < left {
            return;
        }
        let mut state = self.shared.0.lock();
        if state.is_over {
            return;
        }
        for id in family() {
            if matches!(sys::proc::state_of(id.pid()), None | Some(b'T' | b't' | b'Z' | b'X')) {
                continue;
            }
            let Ok(pidfd) = sys::child::pidfd(id.pid()) else { continue };
            if is_alive(id) && sys::child::send_signal(pidfd.as_fd(), libc::SIGSTOP).is_ok() {
                state.still.push((id, pidfd));
            }
        }
        if !state.still.is_empty() {
            self.still_since = self.still_since.or_else(|| Some(Instant::now()));
            // A closer look is due at once.
            self.forked.next = None;
        }
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
        self.beyond = 0;
        for row in self.ledger.taken_rows() {
            let Some(id) = row.id() else { continue };
            let life = sys::proc::life_of(id.pid()).filter(|life| life.is_alive && life.start == id.start());
            let Some(life) = life else {
                if is_alive(id) {
                    continue;
                }
                self.looked.remove(&id);
                let taken = self.ledger.take_back(row, id).unwrap_or(0);
                given_back = given_back.saturating_add(taken);
                continue;
            };
            let is_idle =
                |(at, faults): &(Instant, u64)| *faults == life.faults && at.elapsed() < UNSEEN_AT_MOST;
            if self.has_much_room && self.looked.get(&id).is_some_and(is_idle) {
                charged = charged.saturating_add(row.charge().min(row.lease()));
                continue;
            }
            self.looked.insert(id, (Instant::now(), life.faults));
            let memory = sys::memory::memory_use_of(id.pid());
            let Some(held) = memory.of(Measure::Resident) else { continue };
            let seen =
                Seen { data: memory.data.unwrap_or(held), held, in_shared: memory.shared.unwrap_or(0) };
            self.ledger.note_use(row, seen, sys::clock::monotonic_ms());
            let share = || sys::memory::share_held_by(id.pid());
            let due = if row.is_outside() {
                let due = if held > 4 << 20 { share().unwrap_or(held).min(held) } else { held };
                // It may be that it can ask by now, and has.
                row.take_unused(1, || row.is_outside().then_some(due));
                due
            } else if row.charge() > row.lease().saturating_add(64 << 10) {
                row.charge().min(share().unwrap_or(u64::MAX))
            } else {
                charged = charged.saturating_add(row.charge().min(row.lease()));
                continue;
            };
            // The leases come to no more than they may; what is held above that is seen all the same.
            self.ledger.charge(row, due);
            charged = charged.saturating_add(due);
            self.beyond = self.beyond.saturating_add(due.saturating_sub(row.lease()));
        }
        self.ledger.note_given_back(given_back, sys::clock::monotonic_ms());
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
        let given = forked().filter_map(|id| sys::proc::life_of(id.pid())).map(|life| life.faults);
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
            // It takes longer while others run.
            let look_ms = u64::try_from(now.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.pace.look_ms = look_ms.min(MOST_RACE_MS / 4).max(self.pace.look_ms - self.pace.look_ms / 16);
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
    fn held_together(&mut self) -> u64 {
        let mut together = 0u64;
        for row in self.ledger.taken_rows() {
            let Some(id) = row.id() else { continue };
            // To ask all of them takes so long that the container may be full by then.
            self.hold_still_in_a_race();
            let share = sys::memory::share_held_by(id.pid()).unwrap_or(row.charge());
            together = together.saturating_add(share);
        }
        together
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

    /// Takes what no row holds off what may be leased, and what rows hold above their leases: it is in use, and nobody else's to have.
    fn set_ceiling(&self, found: &Found) {
        let tree = self.ledger.budget().saturating_sub(found.beside).saturating_sub(self.beyond);
        let container = found.container.map_or(u64::MAX, |container| {
            let free = container.free().saturating_sub(margin(container.limit));
            found.charged.saturating_sub(self.beyond).saturating_add(free)
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
            Some(container) => container.left().checked_sub(found.edge(container))?,
            None => u64::MAX,
        };
        Some(tree.min(container))
    }

    /// Whether somebody has to leave now: a container that is about to overflow does not wait, and neither does a tree that
    /// is far over its budget, nor one in which some stand still, as it was about to be. One that is a little over has a moment to give something back.
    fn is_time_to_leave(&self, found: &Found) -> bool {
        const MOMENT: Duration = Duration::from_secs(1);
        let Some(since) = self.over_since else { return false };
        if self.still_since.is_some() {
            return true;
        }
        let budget = self.ledger.budget();
        let is_far = found.charged.saturating_add(found.beside) > budget.saturating_add(budget / 8);
        let is_full = found.container.is_some_and(|container| found.fills(container));
        // As after it was made smaller: what is left there is not enough for a moment's growth.
        let is_near = found.container.is_some_and(|container| container.left() < container.limit / 16);
        is_far || is_full || since.elapsed() >= if is_near { MOMENT / 10 } else { MOMENT }
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
        row.ask_to_leave(sys::clock::monotonic_ms());
        let memory: MemoryUse = sys::memory::memory_use_of(id.pid());
        let program = sys::proc::program_of(id.pid());
        let over = Over {
            cause: Cause::AskedToLeave,
            pid: id.pid(),
            program,
            memory,
            at_ms: sys::clock::monotonic_ms(),
        };
        let mut state = self.shared.0.lock();
        state.left.push(over);
        tell(pidfd.as_ref(), id.pid(), ASKED_TO_LEAVE);
        state.go_on(Some(id));
        drop(state);
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
        self.looked.retain(|id, _| members.contains(&id.pid()));
        for pid in new.into_iter().filter(|pid| *pid != own) {
            let is_ours = members.contains(&pid)
                || sys::proc::environment_has(pid, &self.mark)
                || sys::proc::parent_of(pid).is_some_and(|parent| members.contains(&parent));
            if !is_ours || !members.insert(pid) {
                continue;
            }
            let Some(life) = sys::proc::life_of(pid).filter(|life| life.is_alive) else { continue };
            let id = Id::new(pid, life.start);
            if self.ledger.find(id).is_none()
                && let Some(row) = self.ledger.take_row(id).and_then(|place| self.ledger.row(place))
            {
                row.set_outside();
                row.set_name(sys::proc::name_of(pid).as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_fills_fast_is_a_race_the_sooner_the_longer_a_look_takes() {
        const LIMIT: u64 = 200 << 20;
        let mut pace = Pace::default();
        assert!(!pace.is_race(3 << 20, LIMIT) && pace.is_race(1 << 20, LIMIT));
        let ago = Instant::now().checked_sub(Duration::from_millis(100)).unwrap();
        let full = |needed| Filling { limit: LIMIT, used: needed, needed };
        pace.last = Some((ago, full(0), 0));
        pace.note(Some(full(100 << 20)), 100 << 20);
        // A MiB in a millisecond, or less where this was held up.
        assert!(pace.grows && pace.rate <= 1 << 20 && pace.left() == Some(100 << 20));
        pace.rate = 1 << 20;
        assert!(pace.is_race(60 << 20, LIMIT) && !pace.is_race(80 << 20, LIMIT));
        pace.look_ms = 40;
        assert!(pace.is_race(80 << 20, LIMIT) && !pace.is_race(180 << 20, LIMIT));
        // Who fills it was held up; that is forgotten soon, and not at once.
        pace.note(Some(full(100 << 20)), 100 << 20);
        assert!(!pace.grows && pace.rate == 1 << 19);
    }

    #[test]
    fn those_who_stand_still_go_on_one_after_the_other_and_all_when_nobody_looks_any_more() {
        let mut children = [(); 3].map(|()| std::process::Command::new("sleep").arg("60").spawn().unwrap());
        let pids = children.each_ref().map(std::process::Child::id);
        let wait_for = |still: [bool; 3]| {
            let is_still = || pids.map(|pid| sys::proc::state_of(pid) == Some(b'T'));
            let began = Instant::now();
            while is_still() != still {
                assert!(began.elapsed() < Duration::from_secs(60), "{:?} rather than {still:?}", is_still());
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let own = Own { shared: Arc::default() };
        for pid in pids {
            let pidfd = sys::child::pidfd(pid).unwrap();
            sys::child::send_signal(pidfd.as_fd(), libc::SIGSTOP).unwrap();
            own.shared.0.lock().still.push((Id::new(pid, sys::proc::life_of(pid).unwrap().start), pidfd));
        }
        wait_for([true; 3]);
        own.shared.0.lock().next_goes_on();
        wait_for([false, true, true]);
        drop(own);
        wait_for([false; 3]);
        for child in &mut children {
            child.kill().and_then(|()| child.wait()).unwrap();
        }
    }
}
