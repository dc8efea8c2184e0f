//! Threads that could not be started for want of memory, and what becomes of the program then.

// A static program cannot reach the `pthread_create` that ours would hide, so it has none of ours.
#![cfg_attr(target_feature = "crt-static", allow(dead_code))]

use super::judge::Guilt;
use crate::contract::{Cause, Evidence};
use crate::message::PanicWords;
use crate::report::Request;
use crate::sys;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The bytes of the stack that the last refused thread would have had; zero when there is nothing to answer for.
static REFUSED_STACK: AtomicU64 = AtomicU64::new(0);

/// The process that was refused it: a child that is forked has nothing to answer for.
static REFUSED_IN: AtomicU32 = AtomicU32::new(0);

// Relaxed for both: the thread that is refused and the one that exits are the same, or joined; a race between two
// threads that panic at once is decided either way by the memory that is left.

/// A thread could not be started for want of memory.
pub(super) fn note_refused(stack_bytes: u64) {
    REFUSED_IN.store(sys::process::pid(), Ordering::Relaxed);
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

/// Whether a panic that said this came about because a thread could not be started.
pub(super) fn is_why(words: PanicWords) -> Option<Guilt> {
    let bytes = refused_stack()?;
    let evidence = if words.has(PanicWords::THREAD) {
        Evidence::Said
    } else if words.0 == 0 && is_still_refused(bytes) {
        // The program has a panic hook of its own: is the memory still missing?
        Evidence::Missing
    } else {
        return None;
    };
    Some(Guilt { cause: Cause::Thread, request: Some(Request { bytes, align: None }), evidence })
}

/// A panic has said that a thread could not be started.
pub(super) fn watch_for_standstill() {}
