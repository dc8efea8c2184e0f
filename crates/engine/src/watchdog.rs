//! The deadline of the last words: a bare thread that ends the process, whatever the other threads do.
//!
//! It runs on a stack that was there from the start, with all signals blocked, and makes nothing but system calls, so
//! that neither a deadlock nor a full heap nor a handler can hold it up. Where no thread can be had, an alarm has to
//! do.

use super::armed::armed;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use oomguard_core::contract::EXIT_OUT_OF_MEMORY;
use oomguard_core::sys;
use oomguard_core::sys::bare::{self, BareStack};
use oomguard_core::text::{leading_number, parts};

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static STACK: BareStack<{ 16 << 10 }> = BareStack::new();
static LIVES: AtomicI32 = AtomicI32::new(0);

/// When to end the process, in monotonic milliseconds.
static DEADLINE_MS: AtomicU64 = AtomicU64::new(0);
static PATIENCE_MS: AtomicU64 = AtomicU64::new(0);

/// How much later than the deadline, in milliseconds: twice in a process at most, for the report and for the last words.
pub(super) const MOST_OVERTIME_MS: u64 = 2000;

/// The thread that says the last words, and how much of a processor it had when the deadline was set, in milliseconds.
static SPEAKER: AtomicU32 = AtomicU32::new(0);
static RAN_BEFORE_MS: AtomicU64 = AtomicU64::new(0);

/// Starts the watchdog of the calling thread.
///
/// # Safety
/// At most once in a process: it has one stack.
pub(super) unsafe fn start(patience_ms: u64) {
    SPEAKER.store(sys::process::tid(), Ordering::Relaxed);
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
    // Relaxed, all three: numbers by themselves; the watchdog looks again before it acts.
    RAN_BEFORE_MS.store(sys::clock::thread_processor_ns() / 1_000_000, Ordering::Relaxed);
    PATIENCE_MS.store(patience_ms, Ordering::Relaxed);
    DEADLINE_MS.store(sys::clock::monotonic_ms() + patience_ms, Ordering::Relaxed);
}

/// There is no deadline any more: what is left to do is the program's own.
pub fn call_off() {
    // Relaxed: as in `extend`.
    DEADLINE_MS.store(u64::MAX, Ordering::Relaxed);
}

extern "C" fn watch(_: *mut libc::c_void) -> i32 {
    const LOOK_EVERY_MS: u64 = 20;
    let may_look = !sys::process::is_filtered();
    loop {
        // Relaxed: as in `extend`.
        let deadline = DEADLINE_MS.load(Ordering::Relaxed);
        let now = sys::clock::monotonic_ms();
        if now < deadline {
            sys::clock::sleep_ms(deadline - now);
            continue;
        }
        // Counted by looks: a process that was stopped has not had that time.
        let mut overtime_ms = 0;
        while DEADLINE_MS.load(Ordering::Relaxed) == deadline {
            if overtime_ms >= MOST_OVERTIME_MS || !(may_look && is_kept_from_running()) {
                exit();
            }
            sys::clock::sleep_ms(LOOK_EVERY_MS);
            overtime_ms += LOOK_EVERY_MS;
        }
    }
}

/// Whether the thread that says the last words would run if it could, or waits for the kernel, and has had less than half
/// the time that it was given. By proc_pid_stat(5).
fn is_kept_from_running() -> bool {
    let mut text = [0; 512];
    // Relaxed: as in `extend`.
    let stat = bare::read_of_thread(SPEAKER.load(Ordering::Relaxed), "/stat\0", &mut text);
    let Some(from_third) = stat.and_then(sys::proc::behind_name) else { return false };
    let field = |number: usize| parts(from_third, b' ').nth(number - 3).and_then(leading_number).unwrap_or(0);
    let ran_ms = (field(14) + field(15)).saturating_mul(sys::clock::MS_PER_TICK);
    let given_ms = PATIENCE_MS.load(Ordering::Relaxed);
    matches!(from_third, [b'R' | b'D', ..])
        && ran_ms.saturating_sub(RAN_BEFORE_MS.load(Ordering::Relaxed)) < given_ms / 2
}

extern "C" fn on_alarm(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // Relaxed: as in `extend`.
    let deadline = DEADLINE_MS.load(Ordering::Relaxed);
    let now = sys::clock::monotonic_ms();
    if now >= deadline {
        exit();
    }
    sys::signals::alarm_after_ms(deadline - now);
}

fn exit() -> ! {
    sys::process::exit_now(armed().map_or(EXIT_OUT_OF_MEMORY, |armed| armed.exit_code))
}
