//! What the program wrote to stderr since it was refused something: kept as it is, and read only if it dies. Reading
//! each line as it comes would cost programs that got over a refusal far more than the line.

use super::threads;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use oomguard_core::busy::Busy;
use oomguard_core::message::{
    LastWord, Message, claims_failure_for_memory, drop_colours, has_backtrace as has_backtrace_in, last_word,
    says_to_try_again as says_to_try_again_in,
};
use oomguard_core::sys;

/// So many lines after a refusal may be about it. A formatted line can be several writes.
const LISTENED_LINES: u32 = 32;

const KEPT_BYTES: usize = 4096;

/// So much of one write is kept.
const KEPT_OF_ONE: usize = 256;

// Relaxed throughout: text of two threads may mix, as it does on the screen, and it decides nothing without a refusal
// that is still open.
static TEXT: [AtomicU8; KEPT_BYTES] = [const { AtomicU8::new(0) }; KEPT_BYTES];
static LEN: AtomicUsize = AtomicUsize::new(0);
static LINES_LEFT: AtomicU32 = AtomicU32::new(0);
/// When something was kept last, in monotonic milliseconds.
static SAID_AT_MS: AtomicU64 = AtomicU64::new(0);
/// How long the rest of a story may take, a backtrace or the way out, in milliseconds.
const STORY_MS: u64 = 1000;

/// For so long other threads that write do not tell that the refused one has gone on: it may not have come to say what it
/// ends for. In milliseconds.
const OTHERS_MS: u64 = 2000;
/// When something was refused last, by the coarse clock.
static BEGAN_AT_MS: AtomicU64 = AtomicU64::new(0);

/// Something was refused: what is said from now on may be about it.
pub(super) fn begin() {
    BEGAN_AT_MS.store(sys::clock::coarse_ms(), Relaxed);
    LEN.store(0, Relaxed);
    LINES_LEFT.store(LISTENED_LINES, Relaxed);
    WRITES_ELSEWHERE_LEFT.store(WRITES_ELSEWHERE, Relaxed);
    WRITES_ON_STDOUT_LEFT.store(WRITES_ON_STDOUT, Relaxed);
    IS_CLAIMED_ON_STDOUT.store(false, Relaxed);
    IS_OF_ANOTHER_CALL.store(false, Relaxed);
}

/// Whether the refused thread has said something after another call of its own gave EAGAIN.
static IS_OF_ANOTHER_CALL: AtomicBool = AtomicBool::new(false);

/// So many of the refused thread's first writes to stdout may be about it, as many a log goes there; then it is data.
const WRITES_ON_STDOUT: u32 = 4;
static WRITES_ON_STDOUT_LEFT: AtomicU32 = AtomicU32::new(0);

/// Whether what a thread writes to stdout now is to be kept.
pub(super) fn takes_in_stdout(by_refused: bool) -> bool {
    by_refused && WRITES_ON_STDOUT_LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Whether it was on stdout that the program said that memory is gone.
static IS_CLAIMED_ON_STDOUT: AtomicBool = AtomicBool::new(false);

/// Whether this text, which went to stdout, takes nothing back of what stderr was told: that memory is gone. Many tools say
/// there what failed, and print their summary here.
pub(super) fn is_beside_the_point(text: &[u8]) -> bool {
    if claims_failure_for_memory(text) {
        IS_CLAIMED_ON_STDOUT.store(true, Relaxed);
        return false;
    }
    !IS_CLAIMED_ON_STDOUT.load(Relaxed) && last().is_some_and(|last| last.message == Message::OutOfMemory)
}

/// So many writes elsewhere, and a program that says nothing to a person has gone on.
const WRITES_ELSEWHERE: u32 = 64;
static WRITES_ELSEWHERE_LEFT: AtomicU32 = AtomicU32::new(0);

/// Something was written that is not for stderr, by a thread that was refused something or by another one; whether there
/// is still something to be listened to.
pub(super) fn note_write_elsewhere(by_refused: bool) -> bool {
    if !tells_of_going_on(by_refused) {
        return true;
    }
    WRITES_ELSEWHERE_LEFT
        .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok_and(|left| left > 1)
}

fn tells_of_going_on(by_refused: bool) -> bool {
    by_refused || sys::clock::coarse_ms().saturating_sub(BEGAN_AT_MS.load(Relaxed)) > OTHERS_MS
}

/// Takes in what was written; whether there is more to be listened to.
pub(super) fn keep(text: &[u8], by_refused: bool) -> bool {
    let text = text.get(..text.len().min(KEPT_OF_ONE)).unwrap_or(&[]);
    let start = LEN.fetch_add(text.len(), Relaxed);
    for (byte, slot) in text.iter().zip(TEXT.get(start..).unwrap_or(&[])) {
        slot.store(*byte, Relaxed);
    }
    let lines = u32::from(text.ends_with(b"\n"));
    if by_refused && threads::is_of_another_call() {
        IS_OF_ANOTHER_CALL.store(true, Relaxed);
    }
    SAID_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
    if !tells_of_going_on(by_refused) {
        return true;
    }
    let left = LINES_LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(lines));
    left.is_ok_and(|left| left > lines) && start.saturating_add(text.len()) < KEPT_BYTES
}

/// What was said last, as far as it bears on a death. A program that goes on after more words than are listened to has
/// got over it; one that ends at once has told a long story.
pub(super) fn last() -> Option<LastWord> {
    if is_recent() { read(last_word).flatten() } else { None }
}

/// Who ends for what it says does so at once; who does not has gone on.
fn is_recent() -> bool {
    sys::clock::monotonic_ms().saturating_sub(SAID_AT_MS.load(Relaxed)) <= STORY_MS
}

/// Whether it has said just now that something may be tried again, as a thread that was refused.
pub(super) fn says_to_try_again() -> bool {
    is_recent() && !IS_OF_ANOTHER_CALL.load(Relaxed) && read(says_to_try_again_in).unwrap_or(false)
}

/// Whether it has come to a backtrace.
pub(super) fn has_backtrace() -> bool {
    read(has_backtrace_in).unwrap_or(false)
}

/// What is looked at: not on the stack, which may be a signal handler's of a few KiB.
struct Scratch(UnsafeCell<[u8; KEPT_BYTES]>);

// SAFETY: used by the one thread that `READING` lets through.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch = Scratch(UnsafeCell::new([0; KEPT_BYTES]));
static READING: Busy = Busy::new();

/// `None` where another thread is reading, which is dying then.
fn read<T>(look: fn(&[u8]) -> T) -> Option<T> {
    let _inside = READING.try_enter()?;
    // SAFETY: one thread at a time, by `READING`.
    let text = unsafe { &mut *SCRATCH.0.get() };
    for (byte, slot) in text.iter_mut().zip(&TEXT) {
        *byte = slot.load(Relaxed);
    }
    let text = text.get_mut(..LEN.load(Relaxed).min(KEPT_BYTES)).unwrap_or_default();
    let len = drop_colours(text);
    Some(look(text.get(..len).unwrap_or(&[])))
}
