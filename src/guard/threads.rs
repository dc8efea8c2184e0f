//! Threads that could not be started for want of memory, and what becomes of the program then.

// A static program cannot reach the `pthread_create` that ours would hide, so it has none of ours.
#![cfg_attr(target_feature = "crt-static", allow(dead_code))]

use super::armed::Armed;
use super::exhaustion::{self, Own, Verdict};
use super::judge::Guilt;
use super::unwind::Registers;
use crate::contract::{Cause, Evidence};
use crate::message::PanicWords;
use crate::report::Request;
use crate::sys;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The bytes of the stack that the last refused thread would have had; zero when there is nothing to answer for.
static REFUSED_STACK: AtomicU64 = AtomicU64::new(0);

/// The process that was refused it: a child that is forked has nothing to answer for.
static REFUSED_IN: AtomicU32 = AtomicU32::new(0);

/// When, in monotonic milliseconds.
static REFUSED_AT_MS: AtomicU64 = AtomicU64::new(0);

/// For so long a panic may be about it without another look at the memory.
const LATELY_MS: u64 = 1000;

// Relaxed for all three: the thread that is refused and the one that exits are the same, or joined; a race between two
// threads that panic at once is decided either way by the memory that is left.

/// A thread could not be started for want of memory.
pub(super) fn note_refused(stack_bytes: u64) {
    REFUSED_IN.store(sys::process::pid(), Ordering::Relaxed);
    REFUSED_AT_MS.store(sys::process::monotonic_ms(), Ordering::Relaxed);
    REFUSED_STACK.store(stack_bytes.max(1), Ordering::Relaxed);
}

/// A thread was started: whatever was refused before has been coped with.
pub(super) fn forget_refused() {
    REFUSED_STACK.store(0, Ordering::Relaxed);
}

/// The stack of the refused thread that this process has to answer for.
pub(super) fn refused_stack() -> Option<u64> {
    let bytes = REFUSED_STACK.load(Ordering::Relaxed);
    (bytes != 0 && REFUSED_IN.load(Ordering::Relaxed) == sys::process::pid()).then_some(bytes)
}

/// Whether the stack of the refused thread would be refused right now.
pub(super) fn is_still_refused(stack_bytes: u64) -> bool {
    usize::try_from(stack_bytes).map_or(true, sys::memory::would_be_refused)
}

/// Whether there is a refused thread that std's words can be about: it was refused a moment ago, or still would be. Others
/// may have given memory back meanwhile, while the panic for it goes its way.
pub(super) fn is_one_refused() -> bool {
    refused_stack().is_some_and(|bytes| was_refused_lately() || is_still_refused(bytes))
}

fn was_refused_lately() -> bool {
    sys::process::monotonic_ms().saturating_sub(REFUSED_AT_MS.load(Ordering::Relaxed)) <= LATELY_MS
}

/// Whether a panic that said this came about because a thread could not be started.
pub(super) fn is_why(words: PanicWords) -> Option<Guilt> {
    let bytes = refused_stack()?;
    let evidence = if words.has(PanicWords::THREAD) {
        Evidence::Said
    } else if words.0 == 0 && was_refused_lately() && is_still_refused(bytes) {
        // The program has a panic hook of its own: is the memory still missing?
        Evidence::Missing
    } else {
        return None;
    };
    Some(Guilt { cause: Cause::Thread, request: Some(Request { bytes, align: None }), evidence })
}

// What follows a panic for want of a thread. Mostly the process ends: then it is judged like any other. But scoped
// threads and pools wait for the threads that they have started, which wait for the one that never came. So the thread
// that panicked is looked at from within, by a timer of its own: does it run on, or does it stand still?

/// How often, and how many times in a row it must be found at the same place, waiting for another thread.
const LOOK_EVERY_MS: u64 = 100;
const LOOKS: u32 = 50;
/// The same where its stack could be had by now: too late for whoever waits for it.
const LOOKS_TOO_LATE: u32 = 100;

/// The thread that is looked at: process number and thread number; zero for none.
static LOOKED_AT: AtomicU64 = AtomicU64::new(0);
static TIMER: AtomicI32 = AtomicI32::new(0);
/// Where it was found last, and how often since.
static FOUND_AT: AtomicUsize = AtomicUsize::new(0);
static FOUND: AtomicU32 = AtomicU32::new(0);
/// How often in a row it was found at something else.
static GONE_ON: AtomicU32 = AtomicU32::new(0);
const LOOKS_GONE_ON: u32 = 5;

/// A panic of this thread has said that a thread could not be started: sees to it that this is not how the program
/// stands still for ever. The first such thread of a process is looked at, and the next when that one has gone on.
pub(super) fn watch_for_standstill() {
    if refused_stack().is_none() {
        return;
    }
    let this_process = u64::from(sys::process::pid());
    // That of a parent, or of a thread that has ended meanwhile, is in nobody's way.
    let is_gone =
        |looked_at: u64| looked_at >> 32 != this_process || !sys::process::has_thread(looked_at as u32);
    let free = |looked_at: u64| is_gone(looked_at).then(sys::process::pid_and_tid);
    if !super::aborts::is_handled_by_us() {
        return;
    }
    if LOOKED_AT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_err() {
        return;
    }
    FOUND.store(0, Ordering::Relaxed);
    GONE_ON.store(0, Ordering::Relaxed);
    match sys::signals::start_timer_of_this_thread(libc::SIGABRT, LOOK_EVERY_MS) {
        Some(timer) => TIMER.store(timer, Ordering::Relaxed),
        None => LOOKED_AT.store(0, Ordering::Relaxed),
    }
}

/// This thread writes and does not panic: it has gone on.
pub(super) fn note_gone_on() {
    let looked_at = LOOKED_AT.load(Ordering::Relaxed);
    if looked_at != 0 && looked_at == sys::process::pid_and_tid() {
        stop_looking();
    }
}

fn stop_looking() {
    sys::signals::stop_timer(TIMER.load(Ordering::Relaxed));
    LOOKED_AT.store(0, Ordering::Relaxed);
}

/// The timer's signal, in the thread that it was set for, which was interrupted with these registers.
pub(super) fn look(armed: &Armed, registers: Registers, waits_for_thread: bool) {
    if LOOKED_AT.load(Ordering::Relaxed) != sys::process::pid_and_tid() {
        return;
    }
    let refused = refused_stack();
    // Once may be on its way from the panic to where it waits.
    let goes_on = !waits_for_thread && !std::thread::panicking();
    let gone_on = if goes_on { GONE_ON.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
    if !goes_on {
        GONE_ON.store(0, Ordering::Relaxed);
    }
    let has_gone_on = gone_on >= LOOKS_GONE_ON;
    let Some(bytes) = refused.filter(|_| !has_gone_on) else {
        return stop_looking();
    };
    if !waits_for_thread || FOUND_AT.swap(registers.sp, Ordering::Relaxed) != registers.sp {
        FOUND.store(0, Ordering::Relaxed);
        return;
    }
    let found = FOUND.fetch_add(1, Ordering::Relaxed) + 1;
    if found >= LOOKS_TOO_LATE || found >= LOOKS && is_still_refused(bytes) {
        let request = Some(Request { bytes, align: None });
        let (cause, evidence, own) = (Cause::Thread, Evidence::Said, Own::Unknown);
        exhaustion::end(armed, Verdict { cause, request, evidence, own });
    }
}
