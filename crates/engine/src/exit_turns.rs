//! exit(3) in several threads at once. Of the C libraries, only the newest have the second one wait (glibc 2.41); with the others it
//! finds that the first one has come to the last handler, and ends the process in the midst of that. So whoever comes there
//! registers the last handler again, for the next one, which waits here.

use super::standing;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use oomguard_core::sys;

/// How long the next thread waits for what comes of the first one's exit, in milliseconds. Bounded, as that may wait for this thread.
const PATIENCE_MS: u64 = 5000;

// Relaxed: the numbers alone decide.
/// The first thread that came to the last handler, with its process's number: a child that is forked meanwhile has none.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// The same, once it has been asked and ends as it wants.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// How a thread comes to the last handler.
pub enum Turn {
    /// It is to be asked.
    First,
    /// It was asked, and comes to the handler that it has registered for others.
    Again,
    /// Another one is in exit(3), and has been asked, or is dying; it is asked and then kept, see `keep`.
    Next,
}

/// Whose turn it is; `register` has exit(3) call the last handler once more.
pub fn take(register: impl FnOnce()) -> Turn {
    let me = sys::process::pid_and_tid();
    if FIRST.load(Relaxed) == me {
        return Turn::Again;
    }
    register();
    let claim = |first: u64| if first >> 32 == me >> 32 { None } else { Some(me) };
    let Err(first) = FIRST.fetch_update(Relaxed, Relaxed, claim) else { return Turn::First };
    wait_until(|| ASKED.load(Relaxed) == first || standing::is_under_way());
    Turn::Next
}

/// The first thread goes on with its exit.
pub fn go_on() {
    ASKED.store(sys::process::pid_and_tid(), Relaxed);
}

/// Keeps the next thread, whose end nothing speaks against, until the first one has ended the process.
pub fn keep(code: i32) -> ! {
    wait_until(|| false);
    sys::process::exit_now(code.cast_unsigned() as u8)
}

fn wait_until(is_so: impl Fn() -> bool) {
    let until = sys::clock::monotonic_ms() + PATIENCE_MS;
    while !is_so() && sys::clock::monotonic_ms() < until {
        sys::clock::sleep_ms(1);
    }
}
