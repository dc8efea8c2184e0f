//! What the program wrote to stderr since it was refused something: kept as it is, and read only if it dies. Reading
//! each line as it comes would cost programs that got over a refusal far more than the line.

use crate::message::{Message, last_word};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};

/// So many writes after a refusal may be about it. A formatted line can be several.
const LISTENED_WRITES: u32 = 32;

const KEPT_BYTES: usize = 2048;

/// So much of one write is kept.
const KEPT_OF_ONE: usize = 256;

// Relaxed throughout: text of two threads may mix, as it does on the screen, and it decides nothing without a refusal
// that is still open.
static TEXT: [AtomicU8; KEPT_BYTES] = [const { AtomicU8::new(0) }; KEPT_BYTES];
static LEN: AtomicUsize = AtomicUsize::new(0);
static WRITES_LEFT: AtomicU32 = AtomicU32::new(0);
static IS_LISTENING: AtomicBool = AtomicBool::new(false);

/// Something was refused: what is said from now on may be about it.
pub(super) fn begin() {
    LEN.store(0, Relaxed);
    WRITES_LEFT.store(LISTENED_WRITES, Relaxed);
    IS_LISTENING.store(true, Relaxed);
}

/// Takes in what was written; whether there is more to be listened to.
pub(super) fn keep(text: &[u8]) -> bool {
    let text = text.get(..text.len().min(KEPT_OF_ONE)).unwrap_or(&[]);
    let start = LEN.fetch_add(text.len(), Relaxed);
    for (byte, slot) in text.iter().zip(TEXT.get(start..).unwrap_or(&[])) {
        slot.store(*byte, Relaxed);
    }
    let left = WRITES_LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
    let goes_on = left.is_ok_and(|left| left > 1) && start + text.len() < KEPT_BYTES;
    if !goes_on {
        IS_LISTENING.store(false, Relaxed);
    }
    goes_on
}

/// What was said last, as far as it bears on a death. A program that has said more than is listened to has gone on.
pub(super) fn last() -> Option<Message> {
    if !IS_LISTENING.load(Relaxed) {
        return None;
    }
    let mut text = [0; KEPT_BYTES];
    let len = LEN.load(Relaxed).min(KEPT_BYTES);
    for (byte, slot) in text.iter_mut().zip(&TEXT) {
        *byte = slot.load(Relaxed);
    }
    last_word(text.get(..len).unwrap_or(&[]))
}
