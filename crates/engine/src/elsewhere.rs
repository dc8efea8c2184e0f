//! What a program finds that is built for a system where nothing is guarded: `guard!` and [`Guard`] forward to the
//! allocator, and whatever else a worker calls is there and does nothing. So one source is built everywhere.

use crate::interface::{self, ChildLimit, Guard, Registration, Source, Status};
use oomguard_core::contract::Measure;
use std::alloc::{GlobalAlloc, Layout};
use std::io;

// SAFETY: passes every call on, as it is.
unsafe impl<A: GlobalAlloc + 'static, S: Source> GlobalAlloc for Guard<A, S> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.inner.alloc(layout) }
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.inner.alloc_zeroed(layout) }
    }

    #[inline(always)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.inner.realloc(block, layout, new_size) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.inner.dealloc(block, layout) }
    }
}

/// There is no limit.
pub fn status() -> Status {
    Status {
        limit: None,
        source: None,
        measure: Measure::default(),
        in_use: None,
        refusals: 0,
        recognizes: false,
        budget: None,
        lease: None,
        waiting_ms: None,
    }
}

impl ChildLimit for std::process::Command {
    fn limit_before_guard(&mut self) -> &mut Self {
        self
    }
}

/// Nothing is refused here by a limit, so nobody calls it.
pub fn on_reclaim<F>(_callback: F)
where
    F: Fn() + Send + Sync + 'static,
{
}

/// No limit ends this process, so nobody calls it.
pub fn on_exhausted<F>(_callback: F)
where
    F: Fn() + Send + Sync + 'static,
{
}

/// There is no limit that memory could run short of, so nobody calls it: false, as wherever there is none.
///
/// # Errors
/// `InvalidInput` for a fraction that is not above 0 and at most 1.
pub fn on_pressure<F>(fraction: f64, _callback: F) -> io::Result<bool>
where
    F: Fn() + Send + Sync + 'static,
{
    interface::check_fraction(fraction)?;
    Ok(false)
}

impl Registration {
    /// [`on_reclaim`], until this is dropped.
    pub fn on_reclaim<F>(_callback: F) -> Registration
    where
        F: Fn() + Send + Sync + 'static,
    {
        Registration::of_nothing()
    }

    /// [`on_exhausted`], until this is dropped.
    pub fn on_exhausted<F>(_callback: F) -> Registration
    where
        F: Fn() + Send + Sync + 'static,
    {
        Registration::of_nothing()
    }

    /// [`on_pressure`], until this is dropped.
    ///
    /// # Errors
    /// Those of [`on_pressure`].
    pub fn on_pressure<F>(fraction: f64, callback: F) -> io::Result<Registration>
    where
        F: Fn() + Send + Sync + 'static,
    {
        on_pressure(fraction, callback).map(|_| Registration::of_nothing())
    }
}
