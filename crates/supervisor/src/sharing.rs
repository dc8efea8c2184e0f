//! A budget that processes share: the parent's side of the ledger. Who looks after it is `watch`.

use super::budget::Budget;
use super::look::Over;
use super::sys;
use super::watch::{self, Notes, Shortage};
use crate::Limit;
use crate::contract::{DEFAULT_PATIENCE_MS, variable};
use crate::growth::{id_of, is_alive};
use crate::ledger::{Id, LEDGER_BYTES, Ledger, Row};
use crate::record;
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

/// Who looks after the budget goes when this does.
struct Own(Arc<Notes>);

impl Drop for Own {
    fn drop(&mut self) {
        self.0.end();
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
        let mark = format!("{}={place}", variable::LEDGER).into_bytes();
        let own = Own(watch::start(ledger, size, mark)?);
        Ok(SharedBudget { place: place.into(), own: Some(Arc::new(own)), ledger, fd: Arc::new(fd) })
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
        own.0.add_listener(Box::new(listener));
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
        let Some(id) = id_of(own) else { return true };
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
        let Some(id) = id_of(sys::process::pid()) else { return };
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
        self.own.as_ref().map_or_else(Vec::new, |own| own.0.left())
    }
}

/// How long a request waits, as `OOMGUARD_PATIENCE` says it: `0`, `500ms`, `5s`, `2min`. `None` where it is no span of time.
pub fn patience(text: &str) -> Option<Duration> {
    crate::forms::patience(text.as_bytes()).ok().map(Duration::from_millis)
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

/// Programs take the low numbers for themselves.
const FIRST_DESCRIPTOR: i32 = 64;
