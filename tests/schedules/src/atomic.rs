//! Atomics with a change of thread before each access, at which a thread may also die, as a process does of SIGKILL. What
//! is checked in between sees them without either.

use shuttle::sync::atomic::AtomicBool as Point;
use std::cell::Cell;
use std::panic::resume_unwind;
pub(crate) use std::sync::atomic::Ordering;

/// What a killed thread unwinds with.
pub(crate) struct Killed;

shuttle::thread_local! {
    /// How many accesses this thread is still to live; `None`: as many as it likes.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// This thread dies after so many accesses.
pub(crate) fn die_after(accesses: u32) {
    LEFT.with(|left| left.set(Some(accesses)));
}

/// This thread lives on.
pub(crate) fn live() {
    LEFT.with(|left| left.set(None));
}

#[derive(Default)]
pub(crate) struct AtomicU64 {
    point: Point,
    value: std::sync::atomic::AtomicU64,
}

impl AtomicU64 {
    fn change_thread(&self) {
        let is_over = LEFT.with(|left| {
            let now = left.get();
            left.set(now.map(|now| now.saturating_sub(1)));
            now == Some(0)
        });
        if is_over {
            live();
            resume_unwind(Box::new(Killed));
        }
        self.point.load(Ordering::SeqCst);
    }

    /// What it is, seen by nobody.
    pub(crate) fn peek(&self) -> u64 {
        self.value.load(Ordering::SeqCst)
    }

    pub(crate) fn load(&self, _: Ordering) -> u64 {
        self.change_thread();
        self.peek()
    }

    pub(crate) fn store(&self, value: u64, _: Ordering) {
        self.change_thread();
        self.value.store(value, Ordering::SeqCst);
    }

    pub(crate) fn fetch_add(&self, more: u64, _: Ordering) -> u64 {
        self.change_thread();
        self.value.fetch_add(more, Ordering::SeqCst)
    }

    pub(crate) fn fetch_max(&self, value: u64, _: Ordering) -> u64 {
        self.change_thread();
        self.value.fetch_max(value, Ordering::SeqCst)
    }

    pub(crate) fn fetch_update(
        &self,
        _: Ordering,
        _: Ordering,
        mut change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut from = self.load(Ordering::SeqCst);
        while let Some(to) = change(from) {
            match self.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(before) => return Ok(before),
                Err(now) => from = now,
            }
        }
        Err(from)
    }

    pub(crate) fn swap(&self, value: u64, _: Ordering) -> u64 {
        self.change_thread();
        self.value.swap(value, Ordering::SeqCst)
    }

    pub(crate) fn compare_exchange(&self, from: u64, to: u64, _: Ordering, _: Ordering) -> Result<u64, u64> {
        self.change_thread();
        let before = self.value.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        if before.is_ok() {
            crate::check();
        }
        before
    }
}
