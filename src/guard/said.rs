//! What the program wrote to stderr since it was refused something: kept as it is, and read only if it dies. Reading
//! each line as it comes would cost programs that got over a refusal far more than the line.

use crate::message::{Message, drop_colours, has_backtrace as has_backtrace_in, last_word};
use crate::sys;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

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
/// When there was no more room, in monotonic milliseconds.
static FULL_AT_MS: AtomicU64 = AtomicU64::new(0);
/// How long the rest of a story may take: a backtrace, in milliseconds.
const STORY_MS: u64 = 1000;

static IS_LISTENING: AtomicBool = AtomicBool::new(false);

/// Something was refused: what is said from now on may be about it.
pub(super) fn begin() {
    LEN.store(0, Relaxed);
    LINES_LEFT.store(LISTENED_LINES, Relaxed);
    WRITES_ELSEWHERE_LEFT.store(WRITES_ELSEWHERE, Relaxed);
    IS_LISTENING.store(true, Relaxed);
}

/// So many writes elsewhere, and a program that says nothing to a person has gone on.
const WRITES_ELSEWHERE: u32 = 64;
static WRITES_ELSEWHERE_LEFT: AtomicU32 = AtomicU32::new(0);

/// Something was written that is not for stderr; whether there is still something to be listened to.
pub(super) fn note_write_elsewhere() -> bool {
    WRITES_ELSEWHERE_LEFT
        .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok_and(|left| left > 1)
}

/// Takes in what was written; whether there is more to be listened to.
pub(super) fn keep(text: &[u8]) -> bool {
    let text = text.get(..text.len().min(KEPT_OF_ONE)).unwrap_or(&[]);
    let start = LEN.fetch_add(text.len(), Relaxed);
    for (byte, slot) in text.iter().zip(TEXT.get(start..).unwrap_or(&[])) {
        slot.store(*byte, Relaxed);
    }
    let lines = u32::from(text.ends_with(b"\n"));
    let left = LINES_LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(lines));
    let goes_on = left.is_ok_and(|left| left > lines) && start + text.len() < KEPT_BYTES;
    if !goes_on && IS_LISTENING.swap(false, Relaxed) {
        FULL_AT_MS.store(sys::process::monotonic_ms(), Relaxed);
    }
    goes_on
}

/// What was said last, as far as it bears on a death. A program that goes on after more words than are listened to has
/// got over it; one that ends at once has told a long story.
pub(super) fn last() -> Option<Message> {
    let is_over = !IS_LISTENING.load(Relaxed);
    if is_over && sys::process::monotonic_ms().saturating_sub(FULL_AT_MS.load(Relaxed)) > STORY_MS {
        return None;
    }
    read(last_word)
}

/// Whether it has come to a backtrace.
pub(super) fn has_backtrace() -> bool {
    read(has_backtrace_in)
}

fn read<T>(look: fn(&[u8]) -> T) -> T {
    let mut text = [0; KEPT_BYTES];
    for (byte, slot) in text.iter_mut().zip(&TEXT) {
        *byte = slot.load(Relaxed);
    }
    let text = text.get_mut(..LEN.load(Relaxed).min(KEPT_BYTES)).unwrap_or_default();
    let len = drop_colours(text);
    look(text.get(..len).unwrap_or(&[]))
}
