//! What panics say, read as it goes to stderr: stable Rust has no other way to learn why a program gives up, as the
//! panic hook is the program's.

use super::notes::{self, Kept};
use super::{judge, standstill, threads};
use crate::contract::Cause;
use crate::message::{PanicPiece, PanicWords};
use crate::report::Request;
use crate::sys;
use crate::sys::local::Zeroed;
use core::cell::Cell;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What this thread's panic has said so far. All bytes zero is its first state.
struct Here {
    words: Cell<u8>,
    /// The message is over: what follows are the names of functions.
    is_over: Cell<bool>,
    /// The refusals of this thread when the message began.
    refusals_before: Cell<u32>,
}

// SAFETY: cells of numbers and of a flag that is false; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_panic_here");

/// What the last panic of any thread has said; zero where none has since something was refused.
static LAST: AtomicU8 = AtomicU8::new(0);
/// Which thread's, and in which process: a child that is forked has not panicked.
static LAST_TID: AtomicU32 = AtomicU32::new(0);
static LAST_IN: AtomicU32 = AtomicU32::new(0);
/// When, in monotonic milliseconds.
static LAST_AT_MS: AtomicU64 = AtomicU64::new(0);
/// What had been refused and not got over at that moment. What a panic allocates for its backtrace is not the program
/// getting over it.
static LAST_REFUSED: Kept = Kept::new();
/// What had been allocated when that panic wrote last, its backtrace included.
static LAST_ALLOCATED: AtomicU64 = AtomicU64::new(0);

// Relaxed throughout: the thread that panics and the one that exits are the same, or joined.

/// Something was refused: panics before that were about something else.
pub(super) fn forget() {
    LAST.store(0, Relaxed);
    LAST_REFUSED.set(None);
}

/// Takes in what a panicking thread has written.
pub(super) fn hear(text: &[u8], refusals_here: u32) {
    hear_piece(text, refusals_here);
    if LAST_TID.load(Relaxed) == sys::process::tid() {
        // Its backtrace may have taken so much that nothing is counted any more.
        notes::watch(0);
        LAST_ALLOCATED.store(notes::allocated_bytes(), Relaxed);
    }
}

fn hear_piece(text: &[u8], refusals_here: u32) {
    let here = here();
    let piece = PanicPiece::of(text);
    if piece.begins {
        here.is_over.set(false);
        // A thread without its signal stack does not get over that panic: the next one is only how it ends.
        here.words.set(here.words.get() & PanicWords::SIGNAL_STACK.0);
        here.refusals_before.set(refusals_here);
    }
    if here.is_over.get() {
        // std's own last line comes behind the backtrace.
        if PanicWords::of(text).has(PanicWords::NOT_STARTED) {
            here.words.set(here.words.get() | PanicWords::NOT_STARTED.0);
        }
        return;
    }
    let before = PanicWords(here.words.get());
    let mut words = before.and(PanicWords::of(piece.says));
    // Of a thread that could be had now, or that was refused long ago, the words are not.
    if !before.has(PanicWords::THREAD) {
        let says_std = words.has(PanicWords::THREAD) && threads::is_one_refused();
        let is_about_thread = words.has(PanicWords::TRY_AGAIN) && judge::comes_straight_from_refused_thread();
        words.0 &= !PanicWords::THREAD.0;
        if says_std || is_about_thread {
            words = words.and(PanicWords::THREAD);
        }
    }
    if before.0 == 0 && words == PanicWords::SOMETHING && judge::comes_straight_from_refusal() {
        words = words.and(PanicWords::STRAIGHT);
    }
    here.words.set(words.0);
    here.is_over.set(piece.ends);
    if words != before || piece.begins {
        note_last(words);
    }
}

fn note_last(words: PanicWords) {
    // A panic because another thread panicked says no more than that one did.
    let heard_before = PanicWords(LAST.load(Relaxed));
    let is_known_already = words.has(PanicWords::JOINED) && heard_before.0 != 0;
    // Another thread, which was started with the last memory and did not get its signal stack, does not take the blame
    // off the one that could not be started at all.
    let is_lesser = words.has(PanicWords::SIGNAL_STACK) && heard_before.has(PanicWords::THREAD);
    if words.0 != 0 && !is_known_already && !is_lesser {
        LAST.store(words.0, Relaxed);
        let refused = if words.has(PanicWords::MEMORY.and(PanicWords::STRAIGHT)) {
            notes::open_or_just_closed()
        } else {
            None
        };
        LAST_REFUSED.set(refused);
        LAST_TID.store(sys::process::tid(), Relaxed);
        LAST_IN.store(sys::process::pid(), Relaxed);
        LAST_AT_MS.store(sys::process::monotonic_ms(), Relaxed);
    }
}

/// This thread writes and does not panic: what its last panic said has had its effect.
pub(super) fn is_over_here() {
    let here = here();
    // Between a panic that nobody catches and the end std writes nothing.
    if here.words.get() != 0 && LAST_TID.load(Relaxed) == sys::process::tid() {
        LAST.store(0, Relaxed);
    }
    here.words.set(0);
    here.is_over.set(false);
    standstill::note_gone_on();
}

/// What the last panic since the refusal said, if it may be why the process ends now: within `most_ms`.
pub(super) fn last(most_ms: u64) -> Option<PanicWords> {
    let words = PanicWords(LAST.load(Relaxed));
    let ms_since = sys::process::monotonic_ms().saturating_sub(LAST_AT_MS.load(Relaxed));
    let is_ours = LAST_IN.load(Relaxed) == sys::process::pid();
    (words.0 != 0 && is_ours && ms_since < most_ms).then_some(words)
}

/// The same of a panic of another thread, which it has ended, if next to nothing has been allocated since.
pub(super) fn of_ended_thread(most_ms: u64) -> Option<PanicWords> {
    /// A name or two, a message, a flush.
    const MOST_BYTES: u64 = 64 << 10;
    let since = notes::allocated_bytes().saturating_sub(LAST_ALLOCATED.load(Relaxed));
    last(most_ms).filter(|_| {
        LAST_TID.load(Relaxed) != sys::process::tid() && notes::is_watching() && since <= MOST_BYTES
    })
}

/// What the last panic that spoke of memory was refused.
pub(super) fn refused() -> Option<(Cause, Request)> {
    LAST_REFUSED.get()
}

/// What the calling thread's panic has said, and how many refusals this thread had met before it said so.
pub(super) fn of_this_thread() -> (PanicWords, u32) {
    let here = here();
    (PanicWords(here.words.get()), here.refusals_before.get())
}
