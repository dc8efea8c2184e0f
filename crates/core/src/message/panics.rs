//! What a Rust program says that panics, or that is refused memory.

use super::claims::{claims_failure_for_memory, says_to_try_again};
use super::phrases::*;
use crate::text::{parts, place_of, position};

/// What std's own line begins with, and what follows it.
pub const STD_LINE: &[u8] = b"memory allocation of ";

/// What a panic says: bits, as it may say more than one thing, and in several pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicWords(pub u8);

impl PanicWords {
    /// Something.
    pub const SOMETHING: PanicWords = PanicWords(1);
    /// That memory was refused.
    pub const MEMORY: PanicWords = PanicWords(2);
    /// That a thread was refused.
    pub const THREAD: PanicWords = PanicWords(4);
    /// That a thread was given no stack for its signals: std, in a thread that it has just started.
    pub const SIGNAL_STACK: PanicWords = PanicWords(8);
    /// That another panic is why: of a thread that it has waited for, or whose work it needs; or of its own, which cannot unwind.
    pub const JOINED: PanicWords = PanicWords(16);
    /// That the panic could not be started: std, when its exception found no room.
    pub const NOT_STARTED: PanicWords = PanicWords(32);
    /// That something is not to be had now: a thread, or what else gives EAGAIN.
    pub const TRY_AGAIN: PanicWords = PanicWords(128);
    /// Not said, but seen: it came straight from a refusal that C code passed on.
    pub const STRAIGHT: PanicWords = PanicWords(64);

    pub fn of(text: &[u8]) -> PanicWords {
        let mut words = PanicWords::default();
        let mut add = |is_said: bool, said: PanicWords| {
            if is_said {
                words.0 |= said.0;
            }
        };
        let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
        add(letters > 0, PanicWords::SOMETHING);
        add(parts(text, b'\n').any(claims_failure_for_memory), PanicWords::MEMORY);
        add(says_any(text, FAILED_TO_SPAWN), PanicWords::THREAD);
        add(says_to_try_again(text), PanicWords::TRY_AGAIN);
        add(says(text, b"alternative stack"), PanicWords::SIGNAL_STACK);
        add(says_any(text, OF_ANOTHER_PANIC), PanicWords::JOINED);
        add(says(text, b"failed to initiate panic"), PanicWords::NOT_STARTED);
        words
    }

    pub fn has(self, word: PanicWords) -> bool {
        self.0 & word.0 != 0
    }

    pub fn and(self, more: PanicWords) -> PanicWords {
        PanicWords(self.0 | more.0)
    }
}

/// A piece of what a panic writes to stderr: where it begins, what it says, and where the backtrace begins.
pub struct PanicPiece<'a> {
    /// It tells where the panic was: what was said before is another one's.
    pub begins: bool,
    pub says: &'a [u8],
    /// What follows are names of functions and advice.
    pub ends: bool,
}

impl PanicPiece<'_> {
    pub fn of(text: &[u8]) -> PanicPiece<'_> {
        // The thread's name and the file's say nothing; the message begins on the line after them.
        let header = place_of(text, b" panicked at ");
        let start = header.map_or(0, |at| {
            position(text.get(at..).unwrap_or(&[]), b'\n').map_or(text.len(), |end| at + end + 1)
        });
        let mut end = None;
        for part in ["\nnote: run with", "note: run with", "stack backtrace:"] {
            let at = place_of(text, part.as_bytes()).filter(|at| *at >= start);
            end = match (end, at) {
                (Some(end), Some(at)) if at < end => Some(at),
                (end, at) => end.or(at),
            };
        }
        PanicPiece {
            begins: header.is_some(),
            says: text.get(start..end.unwrap_or(text.len())).unwrap_or(&[]),
            ends: end.is_some(),
        }
    }
}
