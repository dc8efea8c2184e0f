//! What was tried in vain is not tried again at once: a program that is refused again and again must not crawl.

use crate::sys;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// After an attempt that took some time, so many times as long without one: attempts then take at most a small part of
/// a program's time.
const PAUSE_PER_ATTEMPT: u64 = 16;

/// When an attempt is worth its time again, in monotonic milliseconds. Relaxed throughout: a hint; at worst two
/// threads try at once. For the process that made the last attempt: a child that it forks makes its own.
pub struct Backoff {
    next_ms: AtomicU64,
    pid: AtomicU32,
}

impl Backoff {
    pub const fn new() -> Self {
        Backoff { next_ms: AtomicU64::new(0), pid: AtomicU32::new(0) }
    }

    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_ms.load(Ordering::Relaxed)
            || self.pid.load(Ordering::Relaxed) != sys::process::pid()
    }

    /// An attempt lasted from `start_ms` to `end_ms`.
    pub fn note_attempt(&self, start_ms: u64, end_ms: u64) {
        let pause_ms = PAUSE_PER_ATTEMPT * (end_ms - start_ms);
        self.next_ms.store(end_ms + pause_ms, Ordering::Relaxed);
        self.pid.store(sys::process::pid(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_attempt() {
        let backoff = Backoff::new();
        assert!(backoff.is_due(0));
        backoff.note_attempt(100, 103);
        assert!(!backoff.is_due(103 + 47) && backoff.is_due(103 + 48));
        backoff.note_attempt(200, 200);
        assert!(backoff.is_due(200));
    }

    #[test]
    fn the_pause_is_of_one_process() {
        let backoff = Backoff::new();
        backoff.note_attempt(100, 103);
        assert!(!backoff.is_due(103));
        backoff.pid.store(u32::MAX, Ordering::Relaxed);
        assert!(backoff.is_due(103));
    }
}
