//! What programs say on stdout and stderr when they die, told apart by phrases. Pure, and safe in a signal handler.

// The guard of a Rust program reads panics and last words, the library for other languages every message.

mod claims;
mod panics;
mod phrases;

pub use claims::{
    claims_failure_for_memory, claims_failure_to_start_thread, claims_nothing, is_of_runtime_heap,
    says_to_try_again, speaks_of_a_thread,
};
pub use panics::{PanicPiece, PanicWords, STD_LINE};
pub use phrases::ANOTHER_ERROR;

use crate::text::{parts, place_of};
use claims::{is_all_of, is_never_of_memory, may_fail_otherwise, names_an_exception};
use phrases::*;

/// What has fewer letters is no message: a line's end, a number, a sign of progress.
const LEAST_LETTERS: usize = 8;

/// A message, as far as it bears on a death; the more telling ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Message {
    /// That memory is gone.
    OutOfMemory,
    /// That it dies of something else.
    OtherDeath,
    /// Something.
    Unrelated,
}

impl Message {
    /// `None`: no message at all.
    pub fn of(text: &[u8]) -> Option<Message> {
        let mut story = Story::default();
        story.hear(text);
        story.last
    }
}

/// What a program has said so far, line by line: what it said last counts, as far as that bears on a death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub last: Option<Message>,
    /// Something else was said since, which takes nothing back.
    pub goes_on: bool,
    /// The next exception came of the last one.
    pub is_chained: bool,
    /// It said last that it failed at something else.
    pub fails_otherwise: bool,
    /// All that it said is that it could not have something, and not why.
    pub fails_to_make: bool,
    /// It said of memory in a panic, which has ended a thread of Rust's.
    pub is_panic: bool,
    /// The panic before the last one did, and may have run what panicked then.
    pub is_in_cleanup: bool,
    /// There was another panic before, which may be why others panic.
    pub was_other_panic: bool,
    /// The line that it says in pieces tells how it copes.
    pub copes: bool,
}

impl Story {
    pub fn hear(&mut self, text: &[u8]) {
        // std says where and why at once.
        let is_panic = says(text, b"panicked at");
        // A thread of Rust's panics because that one has, or cannot unwind.
        let words = if is_panic { PanicWords::of(text) } else { PanicWords::default() };
        let is_of_another = !self.was_other_panic && words.has(PanicWords::JOINED.and(PanicWords::POISONED));
        if self.is_panic && (is_of_another || words.has(PanicWords::CANNOT_UNWIND)) {
            return;
        }
        if self.is_in_cleanup && words.has(PanicWords::IN_CLEANUP) {
            *self = Story { last: Some(Message::OutOfMemory), is_panic: true, ..Story::default() };
            return;
        }
        let is_in_cleanup = if is_panic { self.is_panic } else { self.is_in_cleanup };
        let mut copes = self.copes;
        for line in parts(text, b'\n') {
            self.copes = copes || claims_nothing(line);
            self.hear_line(line);
            copes = false;
        }
        self.is_panic = self.last == Some(Message::OutOfMemory) && (is_panic || self.is_panic);
        self.is_in_cleanup = is_in_cleanup;
    }

    fn hear_line(&mut self, line: &[u8]) {
        let says_of_memory = self.last == Some(Message::OutOfMemory);
        if says_any(line, TELLS_STATE) || says(line, b"warning") && says_any(line, PASSES_ON) {
        } else if !self.copes && claims_failure_for_memory(line) && !is_never_of_memory(line)
            || says_any(line, FAILED_TO_SPAWN)
        {
            *self = Story { last: Some(Message::OutOfMemory), ..Story::default() };
        } else if says_any(line, CHAINS) {
            self.is_chained = true;
        } else if says_any(line, OTHER_DEATH) {
            *self = Story { last: Some(Message::OtherDeath), ..Story::default() };
        } else if names_an_exception(line) {
            // Memory was refused, and that came of it.
            if !(self.is_chained && says_of_memory) {
                *self = Story { last: Some(Message::OtherDeath), ..Story::default() };
            }
            self.is_chained = false;
        } else if says_any(line, OTHER_FAILURE) {
            if self.last != Some(Message::OtherDeath) {
                *self = Story { last: Some(Message::Unrelated), fails_otherwise: true, ..Story::default() };
            }
        } else if self.goes_on && says(line, ERROR_BEHIND) {
            *self = Story { last: Some(Message::OtherDeath), ..Story::default() };
        } else if says_much(line) {
            self.fails_otherwise |=
                matches!(self.last, None | Some(Message::Unrelated)) && may_fail_otherwise(line);
            self.fails_to_make = self.last.is_none() && says_any(line, FAILED_TO_MAKE);
            self.last = self.last.or(Some(Message::Unrelated));
            self.goes_on |= says_of_memory && !goes_on(line);
        }
    }
}

/// Whether a line is a message.
pub fn says_much(line: &[u8]) -> bool {
    line.iter().filter(|byte| byte.is_ascii_alphabetic()).count() >= LEAST_LETTERS
}

/// Whether it says that something else failed.
pub fn fails_otherwise(text: &[u8]) -> bool {
    says_any(text, OTHER_FAILURE)
}

/// Whether what is said makes this claim only in lines that were read before; `is_read` finds a text that was read of which that
/// is so.
pub fn is_passed_on(
    said: &[u8],
    claims: impl Fn(&[u8]) -> bool,
    mut is_read: impl FnMut(&mut dyn FnMut(&[u8]) -> bool) -> bool,
) -> bool {
    let mut claiming = lines(said).filter(|line| claims(line)).peekable();
    claiming.peek().is_some()
        && claiming.all(|line| {
            is_read(&mut |read| lines(read).any(|read| claims(read) && place_of(line, read).is_some()))
        })
}

/// What somebody may pass on of what was read.
pub fn lines(read: &[u8]) -> impl Iterator<Item = &[u8]> {
    read.split(u8::is_ascii_control).map(<[u8]>::trim_ascii)
}

/// What a program has said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWord {
    pub message: Message,
    /// That it failed at something else.
    pub fails_otherwise: bool,
    /// No more than that it could not have something.
    pub fails_to_make: bool,
    /// No more than that it failed, or gives up.
    pub gives_up: bool,
}

/// What the last lines before a death say about it: a claim that memory was refused holds until the program speaks of
/// something else.
pub fn last_word(text: &[u8]) -> Option<LastWord> {
    let mut last: Option<LastWord> = None;
    let of = |message| LastWord { message, fails_otherwise: false, fails_to_make: false, gives_up: false };
    for line in parts(text, b'\n') {
        if claims_failure_for_memory(line) {
            last = Some(of(Message::OutOfMemory));
        } else if says(line, b"has overflowed its stack") || says(line, b"stack overflow") {
            last = Some(of(Message::OtherDeath));
        } else if says_any(line, OTHER_FAILURE) || says_any(line, MAYBE_OTHER_FAILURE) {
            last = Some(LastWord { fails_otherwise: true, ..of(Message::Unrelated) });
        } else if says_much(line) && !goes_on(line) {
            let fails_to_make = last.is_none() && says_any(line, FAILED_TO_MAKE);
            let fails_otherwise = last.is_some_and(|last| last.fails_otherwise);
            let gives_up = last.is_none() && says_any(line, GIVES_UP) && is_all_of(line);
            last = Some(LastWord { fails_to_make, fails_otherwise, gives_up, ..of(Message::Unrelated) });
        }
    }
    last
}

/// Whether the text has come to a backtrace, which takes memory to print: that is not the program getting over it.
pub fn has_backtrace(text: &[u8]) -> bool {
    says(text, b"backtrace")
}

/// Whether all of the text is of a backtrace: numbered frames, and what is said of each below it.
pub fn is_of_backtrace(text: &[u8]) -> bool {
    let begins = |line: &[u8]| {
        line.first().is_none_or(|byte| *byte == b'#' || byte.is_ascii_whitespace() || byte.is_ascii_digit())
    };
    parts(text, b'\n').all(begins)
}

/// Whether a line belongs to the message before it: its causes, advice, a backtrace.
#[inline(never)]
fn goes_on(line: &[u8]) -> bool {
    const BEGINNINGS: Phrases = phrases![
        "note:",
        "help:",
        "caused by",
        "location:",
        "backtrace",
        "stack backtrace",
        "stack traceback",
        "run with",
        // A plugin's panic, in its host.
        "fatal runtime error: rust cannot catch"
    ];
    let is_indented = line.first().is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_digit());
    is_indented || BEGINNINGS.any(&mut |beginning| begins(line, beginning))
}

/// Whether an assertion is about a pointer being there: `assert(p)`, `assert(p != NULL)`. Failing straight after a
/// refusal, it is the refusal that was not survived.
pub fn asks_for_a_block(expression: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.->[]*".contains(byte);
    place_of(expression, b"NULL").is_some()
        || place_of(expression, b"nullptr").is_some()
        || place_of(expression, b"MAP_FAILED").is_some()
        || !expression.first().is_none_or(u8::is_ascii_digit) && expression.iter().all(is_name)
}

/// The same of what an assertion that failed has printed, in the words of glibc or musl.
pub fn tells_of_a_missing_block(text: &[u8]) -> bool {
    let between = |from: &[u8], to: &[u8]| {
        let rest = text.get(place_of(text, from)? + from.len()..)?;
        rest.get(..place_of(rest, to)?)
    };
    between(b"Assertion `", b"' failed")
        .or_else(|| between(b"Assertion failed: ", b" ("))
        .is_some_and(asks_for_a_block)
}

/// The text without what sets colours on a terminal (ECMA-48, CSI … m), moved to the front of `text`; its length.
pub fn drop_colours(text: &mut [u8]) -> usize {
    let (mut kept, mut is_inside, mut before) = (0, false, 0);
    for at in 0..text.len() {
        let byte = text.get(at).copied().unwrap_or(0);
        if before == 0x1b && byte == b'[' {
            is_inside = true;
            kept -= 1;
        } else if is_inside {
            is_inside = !byte.is_ascii_alphabetic();
        } else if let Some(slot) = text.get_mut(kept) {
            *slot = byte;
            kept += 1;
        }
        before = if is_inside { 0 } else { byte };
    }
    kept
}

#[cfg(test)]
mod tests;
