//! "Somebody is at it", said of one process. fork(2) copies such a word and not the thread that would take it back, so a
//! bare flag would stand for ever in the child. A child of vfork(2) shares it with its parent and passes for another
//! process: at worst two are at it at once.

use crate::sys;
use core::sync::atomic::{AtomicU32, Ordering};

/// A place for one thread of a process at a time. Nobody waits here.
pub struct Busy {
    /// The process that somebody is inside in; zero for none.
    pid: AtomicU32,
}

/// Somebody is inside, until this is dropped; or for good, if it is forgotten.
#[must_use]
pub struct Inside<'a> {
    busy: &'a Busy,
    pid: u32,
}

impl Busy {
    pub const fn new() -> Self {
        Busy { pid: AtomicU32::new(0) }
    }

    /// Enters, unless a thread of this process is inside.
    pub fn try_enter(&self) -> Option<Inside<'_>> {
        let pid = sys::process::pid();
        let free = |inside| if inside == pid { None } else { Some(pid) };
        // Acquire: pairs with the Release of whoever leaves, so that what it did is seen.
        self.pid.fetch_update(Ordering::Acquire, Ordering::Relaxed, free).ok()?;
        Some(Inside { busy: self, pid })
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Not for a thread that went in before it was forked, and comes out while another one of the child is inside.
        // Release: pairs with the Acquire in `try_enter`.
        let _ = self.busy.pid.compare_exchange(self.pid, 0, Ordering::Release, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_inside_until_it_leaves() {
        let busy = Busy::new();
        let inside = busy.try_enter();
        assert!(inside.is_some() && busy.try_enter().is_none());
        drop(inside);
        core::mem::forget(busy.try_enter());
        assert!(busy.try_enter().is_none());
    }

    #[test]
    fn another_process_is_not_in_the_way_and_takes_nothing_back() {
        let busy = Busy { pid: AtomicU32::new(u32::MAX) };
        let before = Inside { busy: &busy, pid: u32::MAX };
        let inside = busy.try_enter();
        assert!(inside.is_some());
        drop(before);
        assert!(busy.try_enter().is_none());
    }
}
