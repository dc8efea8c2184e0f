//! The deadline of the last words: a bare thread that ends the process, whatever the other threads do.
//!
//! It runs on a stack that was there from the start, with all signals blocked, and makes nothing but system calls, so
//! that neither a deadlock nor a full heap nor a handler can hold it up. Where no thread can be had, an alarm has to
//! do.

use super::armed::armed;
use crate::contract::EXIT_OUT_OF_MEMORY;
use crate::sys;
use crate::sys::bare::{self, BareStack};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static STACK: BareStack<{ 16 << 10 }> = BareStack::new();
static LIVES: AtomicI32 = AtomicI32::new(0);

/// When to end the process, in monotonic milliseconds.
static DEADLINE_MS: AtomicU64 = AtomicU64::new(0);

/// Starts the watchdog.
///
/// # Safety
/// At most once in a process: it has one stack.
pub(super) unsafe fn start(patience_ms: u64) {
    extend(patience_ms);
    // SAFETY: `watch` keeps to what a bare thread may do; the stack is used once, by contract.
    let started = unsafe { bare::start(&STACK, &LIVES, watch) };
    if !started {
        sys::signals::install(libc::SIGALRM, on_alarm);
        sys::signals::unblock(libc::SIGALRM);
        sys::signals::alarm_after_ms(patience_ms);
    }
}

/// Moves the deadline to `patience_ms` from now.
pub(super) fn extend(patience_ms: u64) {
    // Relaxed: a number by itself; the watchdog looks again before it acts.
    DEADLINE_MS.store(sys::process::monotonic_ms() + patience_ms, Ordering::Relaxed);
}

/// There is no deadline any more: what is left to do is the program's own.
#[cfg(feature = "shim")]
pub(super) fn call_off() {
    // Relaxed: as in `extend`.
    DEADLINE_MS.store(u64::MAX, Ordering::Relaxed);
}

extern "C" fn watch(_: *mut libc::c_void) -> i32 {
    loop {
        // Relaxed: as in `extend`.
        let deadline = DEADLINE_MS.load(Ordering::Relaxed);
        let now = sys::process::monotonic_ms();
        if now >= deadline {
            exit();
        }
        sys::process::sleep_ms(deadline - now);
    }
}

extern "C" fn on_alarm(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // Relaxed: as in `extend`.
    let deadline = DEADLINE_MS.load(Ordering::Relaxed);
    let now = sys::process::monotonic_ms();
    if now >= deadline {
        exit();
    }
    sys::signals::alarm_after_ms(deadline - now);
}

fn exit() -> ! {
    sys::process::exit_now(armed().map_or(EXIT_OUT_OF_MEMORY, |armed| armed.exit_code))
}
