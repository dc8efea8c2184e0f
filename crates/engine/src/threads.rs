//! Threads that could not be started for want of memory.

// A static program of glibc's cannot reach the `pthread_create` that ours would hide, so it has none of ours.
#![cfg_attr(all(target_feature = "crt-static", target_env = "gnu"), allow(dead_code))]

use super::judge::{self, Guilt};
use super::notes;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use oomguard_core::contract::{Cause, Evidence};
use oomguard_core::message::PanicWords;
use oomguard_core::report::Request;
use oomguard_core::sys;

/// The bytes of the stack that the last refused thread would have had; zero when there is nothing to answer for.
static REFUSED_STACK: AtomicU64 = AtomicU64::new(0);

/// The process that was refused it: a child that is forked has nothing to answer for.
static REFUSED_IN: AtomicU32 = AtomicU32::new(0);

/// Which thread was.
static REFUSED_TID: AtomicU32 = AtomicU32::new(0);

/// Whether any thread has been started since.
static IS_STARTED_SINCE: AtomicBool = AtomicBool::new(false);

/// When, in monotonic milliseconds.
static REFUSED_AT_MS: AtomicU64 = AtomicU64::new(0);

/// For so long a panic may be about it without another look at the memory.
const LATELY_MS: u64 = 1000;

// Relaxed for all of them: the thread that is refused and the one that exits are the same, or joined; a race between two
// threads that panic at once is decided either way by the memory that is left.

/// A thread could not be started for want of memory.
pub(super) fn note_refused(stack_bytes: u64) {
    REFUSED_IN.store(sys::process::pid(), Ordering::Relaxed);
    REFUSED_TID.store(sys::process::tid(), Ordering::Relaxed);
    IS_STARTED_SINCE.store(false, Ordering::Relaxed);
    REFUSED_AT_MS.store(sys::clock::monotonic_ms(), Ordering::Relaxed);
    REFUSED_STACK.store(stack_bytes.max(1), Ordering::Relaxed);
}

/// A thread of this one's could not be started either, and not for want of memory: what it says of that is about this.
pub(super) fn note_refused_otherwise() {
    if REFUSED_TID.load(Ordering::Relaxed) == sys::process::tid() {
        REFUSED_STACK.store(0, Ordering::Relaxed);
    }
}

/// What the last call of this thread that failed tells of words like "try again", which fit others than a refused thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LastFailure {
    /// A stack that is refused leaves ENOMEM behind, and who asks then whether a person reads does no harm.
    OfThread,
    /// Another call has failed since, and there may have been one before that, with EAGAIN.
    Other,
    /// It has given EAGAIN itself.
    TryAgain,
}

impl LastFailure {
    pub(super) fn now() -> LastFailure {
        match sys::errno::errno() {
            libc::EAGAIN => LastFailure::TryAgain,
            libc::ENOMEM | libc::ENOTTY => LastFailure::OfThread,
            _ => LastFailure::Other,
        }
    }

    /// Whether the words may be about a refused thread.
    pub(super) fn fits(self, speaks_of_a_thread: impl FnOnce() -> bool) -> bool {
        match self {
            LastFailure::OfThread => true,
            LastFailure::Other => speaks_of_a_thread(),
            LastFailure::TryAgain => false,
        }
    }
}

/// This thread has started one, after one was refused. Who was refused itself has coped with it: whether that is this thread.
/// Another thread that was has not, until it has had the time to say what it dies of.
pub(super) fn note_started() -> bool {
    IS_STARTED_SINCE.store(true, Ordering::Relaxed);
    let is_own = REFUSED_TID.load(Ordering::Relaxed) == sys::process::tid();
    if is_own || !was_refused_lately() {
        REFUSED_STACK.store(0, Ordering::Relaxed);
    }
    is_own
}

/// Whether no thread was started since one was refused, which this process has to answer for.
pub fn is_none_started_since() -> bool {
    refused_stack().is_some() && !IS_STARTED_SINCE.load(Ordering::Relaxed)
}

/// The stack of the refused thread that this process has to answer for.
pub(super) fn refused_stack() -> Option<u64> {
    let bytes = REFUSED_STACK.load(Ordering::Relaxed);
    (bytes != 0 && REFUSED_IN.load(Ordering::Relaxed) == sys::process::pid()).then_some(bytes)
}

/// Whether the stack of the refused thread would be refused right now.
pub(super) fn is_still_refused(stack_bytes: u64) -> bool {
    usize::try_from(stack_bytes).map_or(true, super::resident::would_be_refused)
}

/// Whether there is a refused thread that std's words can be about: it was refused a moment ago, or still would be. Others
/// may have given memory back meanwhile, while the panic for it goes its way.
pub fn is_one_refused() -> bool {
    refused_stack().is_some_and(|bytes| was_refused_lately() || is_still_refused(bytes))
}

fn was_refused_lately() -> bool {
    sys::clock::monotonic_ms().saturating_sub(REFUSED_AT_MS.load(Ordering::Relaxed)) <= LATELY_MS
}

/// Whether little has happened since a thread was refused: words that would fit other errors as well are about that. A pool
/// that lacks a thread ends those that it has, which give back what was missing before it says so; hardly anything is
/// allocated for that.
pub(super) fn comes_straight_from_one_refused() -> bool {
    /// An error that is wrapped, perhaps several times, and formatted.
    const MOST_ALLOCATIONS: u64 = 256;
    notes::requested().is_some_and(|noted| {
        let says_it_here = noted.tid == sys::process::tid() && noted.bytes_since <= judge::STRAIGHT_BYTES;
        let is_none_started_since = is_none_started_since();
        noted.cause == Cause::Thread
            && noted.allocations_since <= MOST_ALLOCATIONS
            && noted.ms_since <= judge::UNSAID_MS
            && (says_it_here && is_none_started_since || judge::would_be_refused(&noted))
    })
}

/// Whether what this thread says now, that something may be tried again, is about a thread that it was refused just before.
pub fn may_say_to_try_again() -> bool {
    matches!(LastFailure::now(), LastFailure::OfThread) && comes_straight_from_one_refused()
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
