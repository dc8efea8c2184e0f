//! The types that programs name, the same on every system: what is wrapped, and what [`status`](crate::status()) tells.

use super::settings::{Profile, Settings};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};
use oomguard_core::contract::{LimitSource, Measure};

/// The allocator `A` with a guard around it: a refused allocation that the program does not survive becomes a report
/// and exit 198.
///
/// [`guard!`](https://docs.rs/oomguard/latest/oomguard/macro.guard.html) makes one; by hand it is
///
/// ```
/// use std::alloc::System;
///
/// #[global_allocator]
/// static GUARD: oomguard::Guard<System> = oomguard::Guard::new(System);
/// # fn main() {}
/// ```
///
/// Being used is what arms it: a program that allocates through a `Guard` has the constructor that sets the limit
/// before `main`, and one that only depends on this crate has nothing of it.
///
/// Wrapping costs one comparison per allocation and nothing per release. It never unwinds.
#[derive(Debug, Default)]
pub struct Guard<A, S = Unset> {
    pub(super) inner: A,
    source: PhantomData<fn() -> S>,
}

/// Where a guard's settings come from; implemented by [`guard!`](https://docs.rs/oomguard/latest/oomguard/macro.guard.html).
#[doc(hidden)]
pub trait Source: 'static {
    /// What the source code says.
    const SETTINGS: Settings;
}

/// Nothing said in the source: the environment and the defaults decide.
#[derive(Debug, Default)]
pub enum Unset {
    #[doc(hidden)]
    #[default]
    Nothing,
}

impl Source for Unset {
    const SETTINGS: Settings = Settings::UNSET;
}

/// The profiler compiled in and on, unless the environment says otherwise.
#[derive(Debug, Default)]
pub enum Profiled {
    #[doc(hidden)]
    #[default]
    Nothing,
}

impl Source for Profiled {
    const SETTINGS: Settings = Settings::UNSET.profile(Profile::On(None));
}

impl<A> Guard<A, Profiled> {
    /// Wraps `inner` and samples the live allocations, as `guard!(profile = on)` does.
    ///
    /// ```
    /// use oomguard::{Guard, Profiled};
    /// use std::alloc::System;
    ///
    /// #[global_allocator]
    /// static GUARD: Guard<System, Profiled> = Guard::profiled(System);
    /// # fn main() {}
    /// ```
    pub const fn profiled(inner: A) -> Self {
        Guard { inner, source: PhantomData }
    }
}

impl<A> Guard<A> {
    /// Wraps `inner`. Settings come from the environment and the defaults.
    pub const fn new(inner: A) -> Self {
        Guard { inner, source: PhantomData }
    }
}

impl<A, S: Source> Guard<A, S> {
    /// Wraps `inner` with settings from the source code.
    #[doc(hidden)]
    pub const fn with_settings(inner: A) -> Self {
        Guard { inner, source: PhantomData }
    }
}

/// The guard's limit and how near this process is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The limit in bytes, as it is now; `None` where there is none, or no guard.
    pub limit: Option<u64>,
    /// Who set it; [`LimitSource::Changed`] where somebody has moved it since the start.
    pub source: Option<LimitSource>,
    /// What it counts.
    pub measure: Measure,
    /// What the process uses now of what the limit counts, in bytes; `None` where there is no `/proc`.
    pub in_use: Option<u64>,
    /// Allocations refused so far and passed on to the program.
    pub refusals: u64,
    /// Whether the guard can tell that the program dies of a refused allocation. False without a guard, and in a
    /// program that was built without what that is told by, as was said on stderr at its start: there the limit
    /// holds, and the end is the program's own.
    pub recognizes: bool,
    /// What the process and others may have together, in bytes; `None` where it shares no budget.
    pub budget: Option<u64>,
    /// What it may have of that for now, in bytes.
    pub lease: Option<u64>,
    /// How long one of its threads has been waiting until others leave room in the budget, in milliseconds; `None` where none
    /// waits.
    pub waiting_ms: Option<u64>,
}

impl Status {
    /// Returns what is left until the limit, in bytes.
    pub fn headroom(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.in_use?))
    }
}

#[cfg(feature = "std")]
/// What [`on_pressure`](crate::on_pressure) takes, wherever it is asked.
pub(super) fn check_fraction(fraction: f64) -> std::io::Result<()> {
    if fraction > 0.0 && fraction <= 1.0 {
        return Ok(());
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::InvalidInput,
        format!("on_pressure: {fraction} is no fraction of a limit: write 0.8 for 80 %"),
    ))
}

/// A callback that is registered for as long as this lives: for what does not last as long as the process. Dropped, it
/// takes the callback back, which is not begun from then on; it may just be running in another thread.
///
/// What the callback has captured is kept, as another thread may be looking at it: register what there is a bounded number
/// of, and let it hold a [`Weak`](std::sync::Weak).
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// let cache = Arc::new(Mutex::new(vec![0u8; 1 << 20]));
/// let seen = Arc::downgrade(&cache);
/// let registration = oomguard::Registration::on_reclaim(move || {
///     if let Some(cache) = seen.upgrade() {
///         cache.try_lock().map(|mut cache| *cache = Vec::new()).ok();
///     }
/// });
/// // …
/// drop(registration);
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it takes the callback back at once"]
pub struct Registration {
    /// `None` where the callback is never called.
    is_taken_back: Option<&'static AtomicBool>,
}

impl Registration {
    #[allow(dead_code)] // Nothing is registered where nothing is guarded.
    pub(super) fn of(is_taken_back: &'static AtomicBool) -> Registration {
        Registration { is_taken_back: Some(is_taken_back) }
    }

    pub(super) fn of_nothing() -> Registration {
        Registration { is_taken_back: None }
    }

    /// Whether the callback can be called at all: not without a guard, nor without a limit where it is told of pressure.
    pub fn is_in_effect(&self) -> bool {
        self.is_taken_back.is_some()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(is_taken_back) = self.is_taken_back {
            // Release: pairs with the Acquire of whoever is about to call it.
            is_taken_back.store(true, Ordering::Release);
        }
    }
}

/// The limits of programs that this one starts by itself, with [`std::process::Command`], rather than by a
/// [supervisor](https://docs.rs/oomguard/latest/oomguard/supervisor/).
///
/// A program inherits the limit of whoever starts it (setrlimit(2)). So the children of a guarded program have as much each
/// as the guard gave to it, which is right for a worker's helpers and wrong for what is larger than the worker.
///
/// ```
/// use oomguard::ChildLimit;
/// use std::process::Command;
///
/// // As it would be without a guard in this program.
/// let status = Command::new("true").limit_before_guard().status()?;
/// # assert!(status.success());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// For `tokio::process::Command`, which is made from such a command:
///
/// ```ignore
/// let mut command = std::process::Command::new("ffmpeg");
/// command.limit_before_guard();
/// let child = tokio::process::Command::from(command).spawn()?;
/// ```
pub trait ChildLimit: sealed::Sealed {
    /// Starts the program with the soft limits that were there before the guard of this program lowered one, as far as the
    /// hard ones let it. Without a guard, or where it has lowered none, nothing changes.
    ///
    /// The command is then started by fork(2), which copies the page tables of this process, and not by posix_spawn(3).
    fn limit_before_guard(&mut self) -> &mut Self;
}

mod sealed {
    pub trait Sealed {}
    #[cfg(feature = "std")]
    impl Sealed for std::process::Command {}
}
