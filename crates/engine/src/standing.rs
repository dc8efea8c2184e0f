//! Who speaks when the process dies: one thread wins, says what happened, and ends the process; the others wait for that
//! as soon as they need memory.
//!
//! ```text
//!              end()                 last words, exit()
//!   Alive ───────────────▶ Dying ───────────────────────▶ gone
//!     │  another thread's end()
//!     └──────────────────▶ Outlived ── park() ───────────▶ gone
//! ```

use super::armed::Armed;
use super::watchdog;
use core::sync::atomic::{AtomicU64, Ordering};
use oomguard_core::contract::LAST_WORDS_DEADLINE_MS;
use oomguard_core::sys;

/// How long the report may take to be written, in milliseconds.
pub(super) const REPORT_DEADLINE_MS: u64 = 1000;

/// How long a parked thread waits for the end that another one promised, in milliseconds.
const PARK_DEADLINE_MS: u64 =
    REPORT_DEADLINE_MS + LAST_WORDS_DEADLINE_MS + 2 * watchdog::MOST_OVERTIME_MS + 1000;

/// Who says the last words: process number and thread number; zero while nobody does. With the process number, so
/// that a child forked meanwhile does not take itself for its parent.
static WINNER: AtomicU64 = AtomicU64::new(0);

/// Where the calling thread stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody is dying.
    Alive,
    /// This thread is saying the last words.
    Dying,
    /// Another thread is.
    Outlived,
}

pub fn here() -> Standing {
    // Relaxed, here and below: the value alone decides; what the winner writes is read by nobody else.
    match WINNER.load(Ordering::Relaxed) {
        0 => Standing::Alive,
        winner if winner == sys::process::pid_and_tid() => Standing::Dying,
        winner if winner >> 32 == u64::from(sys::process::pid()) => Standing::Outlived,
        _ => Standing::Alive,
    }
}

/// Whether some thread of this process is saying the last words.
pub fn is_under_way() -> bool {
    here() != Standing::Alive
}

/// The same of process `pid`, this one, for a thread that is nobody's.
pub(super) fn is_anybody_dying(pid: u32) -> bool {
    WINNER.load(Ordering::Relaxed) >> 32 == u64::from(pid)
}

/// Leaves with the reserved code.
pub fn exit(armed: &Armed) -> ! {
    sys::process::exit_now(armed.exit_code)
}

/// How many threads are parked. Relaxed: a number that is watched, and orders nothing.
static PARKED: AtomicU64 = AtomicU64::new(0);

/// How many are so far.
pub(super) fn parked() -> u64 {
    PARKED.load(Ordering::Relaxed)
}

/// Waits for another thread to end the process.
pub fn park(armed: &Armed) -> ! {
    PARKED.fetch_add(1, Ordering::Relaxed);
    let until = sys::clock::monotonic_ms() + PARK_DEADLINE_MS;
    while sys::clock::monotonic_ms() < until {
        sys::clock::sleep_ms(PARK_DEADLINE_MS);
    }
    exit(armed)
}

/// Makes this thread the one that speaks, if nobody in this process is.
pub(super) fn win() -> bool {
    let me = sys::process::pid_and_tid();
    let this_process = me >> 32;
    let claim = |winner: u64| if winner >> 32 == this_process { None } else { Some(me) };
    // Relaxed: as in `here`.
    WINNER.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).is_ok()
}
