//! What a Rust program says that panics, or that is refused memory.

use super::claims::{claims_failure_for_memory, says_to_try_again};
use super::phrases::*;
use crate::text::{parts, place_of, position};

/// What std's own line begins with, and what follows it.
pub const STD_LINE: &[u8] = b"memory allocation of ";

/// What a panic says: bits, as it may say more than one thing, and in several pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicWords(pub u16);

impl PanicWords {
    /// Something.
    pub const SOMETHING: PanicWords = PanicWords(1);
    /// That memory was refused.
    pub const MEMORY: PanicWords = PanicWords(2);
    /// That a thread was refused.
    pub const THREAD: PanicWords = PanicWords(4);
    /// That a thread was given no stack for its signals: std, in a thread that it has just started.
    pub const SIGNAL_STACK: PanicWords = PanicWords(8);
    /// That a panic of another thread is why, which it has waited for, or whose work it needs.
    pub const JOINED: PanicWords = PanicWords(16);
    /// That a panic is why that has left something half done, whichever thread's.
    pub const POISONED: PanicWords = PanicWords(256);
    /// That its thread's last panic cannot unwind.
    pub const CANNOT_UNWIND: PanicWords = PanicWords(512);
    /// That its thread's last panic came of a destructor, which the one before it has run.
    pub const IN_CLEANUP: PanicWords = PanicWords(1024);
    /// That the panic could not be started: std, when its exception found no room.
    pub const NOT_STARTED: PanicWords = PanicWords(32);
    /// That something is not to be had now: a thread, or what else gives EAGAIN.
    pub const TRY_AGAIN: PanicWords = PanicWords(128);
    /// Not said, but seen: it came straight from a refusal that C code passed on.
    pub const STRAIGHT: PanicWords = PanicWords(64);

    #[inline(never)]
    pub fn of(text: &[u8]) -> PanicWords {
        const SAID: [(Phrases, PanicWords); 7] = [
            (FAILED_TO_SPAWN, PanicWords::THREAD),
            (NO_SIGNAL_STACK, PanicWords::SIGNAL_STACK),
            (OF_ANOTHER_THREAD, PanicWords::JOINED),
            (OF_POISON, PanicWords::POISONED),
            (CANNOT_UNWIND, PanicWords::CANNOT_UNWIND),
            (IN_CLEANUP, PanicWords::IN_CLEANUP),
            (NOT_STARTED, PanicWords::NOT_STARTED),
        ];
        let mut words = PanicWords::default();
        let mut add = |is_said: bool, said: PanicWords| {
            if is_said {
                words.0 |= said.0;
            }
        };
        add(text.iter().any(u8::is_ascii_alphabetic), PanicWords::SOMETHING);
        add(parts(text, b'\n').any(claims_failure_for_memory), PanicWords::MEMORY);
        add(says_to_try_again(text), PanicWords::TRY_AGAIN);
        for (phrases, said) in SAID {
            add(says_any(text, phrases), said);
        }
        words
    }

    pub fn has(self, word: PanicWords) -> bool {
        self.0 & word.0 != 0
    }

    pub const fn and(self, more: PanicWords) -> PanicWords {
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
        const HEADER: &[u8] = b"panicked at ";
        let is_header =
            |at: &usize| *at == 0 || text.get(at - 1).is_some_and(|byte| byte.is_ascii_whitespace());
        let header = place_of(text, HEADER).filter(is_header);
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
