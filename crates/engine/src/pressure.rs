//! `on_pressure` and `PressureFd`: a program hears that its memory runs short before it is refused.
//!
//! A thread of its own looks at what the kernel counts, some times in a second; it is started by the first that asks
//! for it. So whoever is told is told in an ordinary context: not in the midst of an allocation, and with no lock held.
//! Asking for it allocates, and starts the thread by std, with the locks that this takes: it is ordinary code, too, and
//! no part of what happens at a refusal.

use super::armed::{Armed, armed};
use super::interface::{Registration, check_fraction};
use super::standing;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use oomguard_core::busy::Busy;
use oomguard_core::sys;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

/// How often the thread looks, in milliseconds. A look takes about 20 µs.
const LOOK_EVERY_MS: u64 = 50;

/// How far use has to fall below the fraction before the next crossing counts, in parts of the limit: without it, a
/// program that hovers there would be told again and again.
const SLACK: f64 = 0.01;

/// Looking needs little.
const STACK_BYTES: usize = 128 << 10;

/// Someone to be told. Never freed.
struct Watch {
    /// The process that registered it: a child that is forked would tell its parent, by a descriptor that both have.
    pid: u32,
    fraction: f64,
    tell: Box<dyn Fn() + Send + Sync>,
    is_taken_back: AtomicBool,
    is_above: AtomicBool,
    next: AtomicPtr<Watch>,
}

static FIRST: AtomicPtr<Watch> = AtomicPtr::new(core::ptr::null_mut());

/// The process in which the thread looks, while it runs nobody's callback; zero for none. Relaxed throughout: a
/// callback that begins in the very moment in which the last words do may take from their reserve, and no order would
/// prevent it.
static LOOKS_IN: AtomicU32 = AtomicU32::new(0);

/// How many threads of this file's there are in this process that will need no memory while it dies.
pub(super) fn idle_threads() -> u64 {
    u64::from(LOOKS_IN.load(Ordering::Relaxed) == sys::process::pid())
}

/// Calls `callback` when the use of what the limit counts rises to `fraction` of the limit: 0.8 for 80 %. Once per
/// crossing: again only after the use has fallen below it.
///
/// It runs in a thread that does nothing else, which looks at the use 20 times in a second; what grows faster than
/// that may be refused first, which [`on_reclaim`](crate::on_reclaim) is for. Callbacks run one after the other; a
/// panic in one is caught, and none begins once the process is saying its last words. A child that is forked starts
/// without such a thread and without its parent's callbacks, and may register its own.
///
/// Returns whether there is a limit to watch: where there is none, or no guard, the callback is never called.
///
/// ```
/// use std::sync::Mutex;
/// static CACHE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
///
/// oomguard::on_pressure(0.8, || CACHE.lock().unwrap().clear())?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` for a fraction that is not above 0 and at most 1; those of starting a thread.
pub fn on_pressure<F>(fraction: f64, callback: F) -> io::Result<bool>
where
    F: Fn() + Send + Sync + 'static,
{
    register(fraction, callback).map(|watch| watch.is_some())
}

impl Registration {
    /// [`on_pressure`], until this is dropped.
    ///
    /// # Errors
    /// Those of [`on_pressure`].
    pub fn on_pressure<F>(fraction: f64, callback: F) -> io::Result<Registration>
    where
        F: Fn() + Send + Sync + 'static,
    {
        let watch = register(fraction, callback)?;
        Ok(watch.map_or_else(Registration::of_nothing, |watch| Registration::of(&watch.is_taken_back)))
    }
}

/// `None` where there is no limit.
fn register(
    fraction: f64,
    callback: impl Fn() + Send + Sync + 'static,
) -> io::Result<Option<&'static Watch>> {
    check_fraction(fraction)?;
    let Some(armed) = armed().filter(|armed| armed.limit_now().is_some()) else { return Ok(None) };
    start_looking(armed)?;
    let watch = Box::leak(Box::new(Watch {
        pid: sys::process::pid(),
        fraction,
        tell: Box::new(callback),
        is_taken_back: AtomicBool::new(false),
        is_above: AtomicBool::new(false),
        next: AtomicPtr::new(core::ptr::null_mut()),
    }));
    let mut first = FIRST.load(Ordering::Relaxed);
    loop {
        // Relaxed: published by the Release below.
        watch.next.store(first, Ordering::Relaxed);
        // Release: pairs with the Acquire in `look`, so that the watch is seen whole.
        match FIRST.compare_exchange_weak(first, &raw mut *watch, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Ok(Some(watch)),
            Err(now) => first = now,
        }
    }
}

/// A descriptor that becomes readable when the use of what the limit counts rises to a fraction of the limit: the
/// form of [`on_pressure`] for event loops (poll(2), epoll(7), `tokio::io::unix::AsyncFd`).
///
/// It is an eventfd(2), not blocking and closed on exec. It stays readable until [`take`](PressureFd::take) is called.
///
/// ```
/// let pressure = oomguard::PressureFd::new(0.9)?;
/// assert_eq!(pressure.take()?, 0, "not crossed yet");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PressureFd {
    event: Arc<OwnedFd>,
    is_in_effect: bool,
}

impl PressureFd {
    /// Opens a descriptor for `fraction` of the limit: 0.9 for 90 %.
    ///
    /// # Errors
    /// Those of eventfd(2) and of [`on_pressure`].
    pub fn new(fraction: f64) -> io::Result<PressureFd> {
        let event = Arc::new(super::event::event()?);
        let told: Weak<OwnedFd> = Arc::downgrade(&event);
        let is_in_effect = on_pressure(fraction, move || {
            if let Some(event) = told.upgrade() {
                super::event::add_to_event(event.as_fd());
            }
        })?;
        Ok(PressureFd { event, is_in_effect })
    }

    /// Whether it can become readable at all: not without a guard, nor without a limit.
    pub fn is_in_effect(&self) -> bool {
        self.is_in_effect
    }

    /// Returns how often the fraction was crossed since the last call, 0 if it was not, and makes the descriptor
    /// unreadable until the next crossing.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn take(&self) -> io::Result<u64> {
        super::event::take_event(self.event.as_fd())
    }
}

impl AsFd for PressureFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for PressureFd {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

fn start_looking(armed: &'static Armed) -> io::Result<()> {
    static STARTED: Busy = Busy::new();
    let Some(inside) = STARTED.try_enter() else { return Ok(()) };
    // Before it runs, as the process may die before that.
    LOOKS_IN.store(sys::process::pid(), Ordering::Relaxed);
    let started =
        std::thread::Builder::new().name("oomguard-watch".into()).stack_size(STACK_BYTES).spawn(|| {
            BEGUN_IN.store(sys::process::pid(), Ordering::Relaxed);
            loop {
                look(armed);
                sys::clock::sleep_ms(LOOK_EVERY_MS);
            }
        });
    match started {
        Ok(_) => {
            core::mem::forget(inside);
            wait_until_begun();
        }
        Err(error) => {
            LOOKS_IN.store(0, Ordering::Relaxed);
            return Err(error);
        }
    }
    Ok(())
}

/// The process in which the thread has begun. Relaxed: a number by itself.
static BEGUN_IN: AtomicU32 = AtomicU32::new(0);

/// A thread that has just been started needs memory of its own yet, which the program may be about to use up: std
/// ends a process whose thread does not get a stack for its signals.
fn wait_until_begun() {
    const PATIENCE_MS: u64 = 1000;
    let until = sys::clock::monotonic_ms() + PATIENCE_MS;
    while BEGUN_IN.load(Ordering::Relaxed) != sys::process::pid() && sys::clock::monotonic_ms() < until {
        sys::clock::sleep_ms(1);
    }
}

/// Tells whoever wants to be told now.
fn look(armed: &Armed) {
    let (Some(limit), Some(in_use)) = (armed.limit_now(), sys::memory::memory_use().of(armed.measure)) else {
        return;
    };
    let share = in_use as f64 / limit.bytes as f64;
    let here = sys::process::pid();
    // Acquire: pairs with the Release in `on_pressure`.
    let mut next = FIRST.load(Ordering::Acquire);
    // SAFETY: a watch in the list is never freed or changed.
    while let Some(watch) = unsafe { next.as_ref() } {
        // Relaxed, here and below: this thread alone changes it.
        let was_above = watch.is_above.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `Registration`'s drop, whose thread may have ended by then what the callback
        // looks at.
        if watch.pid != here || watch.is_taken_back.load(Ordering::Acquire) {
            // Its parent's, or nobody's any more.
        } else if share >= watch.fraction && !was_above {
            watch.is_above.store(true, Ordering::Relaxed);
            LOOKS_IN.store(0, Ordering::Relaxed);
            if standing::is_under_way() {
                return;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (watch.tell)())) {
                // Its destructor is the program's code and could panic again, which would end this thread.
                core::mem::forget(payload);
            }
            LOOKS_IN.store(sys::process::pid(), Ordering::Relaxed);
        } else if share < watch.fraction - SLACK && was_above {
            watch.is_above.store(false, Ordering::Relaxed);
        }
        // Relaxed: written before the watch was published, and never again.
        next = watch.next.load(Ordering::Relaxed);
    }
}
