//! What a line claims: that memory was refused, that a thread could not be started, that something else failed.

use super::phrases::*;
use crate::text::place_of;

/// Whether what is said in this line is said of the program's state, or as a thing that it copes with: whatever text of an
/// error stands in it claims nothing.
pub fn claims_nothing(line: &[u8]) -> bool {
    says_any(line, COPES) || says_any(line, TELLS_STATE) || says_any(line, OF_DEVICE)
}

/// Whether a line claims that memory was refused.
pub fn claims_failure_for_memory(line: &[u8]) -> bool {
    if claims_nothing(line) {
        return false;
    }
    let mut claims = |phrase: &[u8]| {
        places(line, phrase, is_of_word).any(|at| {
            let after = line.get(at + phrase.len()..).unwrap_or(&[]);
            !is_taken_back(line.get(..at).unwrap_or(&[])) && !is_of_something_else(after)
        })
    };
    let mut ends = |phrase: &[u8]| {
        places(line, phrase, is_of_word).any(|at| {
            let after = line.get(at + phrase.len()..).unwrap_or(&[]);
            let next = after.iter().find(|byte| !byte.is_ascii_whitespace());
            !next.is_some_and(u8::is_ascii_alphanumeric) && !is_taken_back(line.get(..at).unwrap_or(&[]))
        })
    };
    // Names that end so: numpy's.
    let is_kind_of_memory_error = |name: &[u8]| name.len() > 11 && name.ends_with(b"MemoryError");
    // MuPDF: malloc (100 bytes) failed.
    let says_how_many = || {
        let call = place_of(line, b"alloc (").and_then(|at| line.get(at..));
        call.is_some_and(|call| place_of(call, b" bytes) failed").is_some())
    };
    FAILED_FOR_MEMORY.any(&mut claims)
        || FAILED_TO_START_THREAD.any(&mut claims)
        || FAILED_FOR_MEMORY_AT_END.any(&mut ends)
        || names_in(line).any(is_kind_of_memory_error)
        || says_how_many()
}

/// Whether it claims that a thread could not be started: for want of memory, or because there are too many.
pub fn claims_failure_to_start_thread(text: &[u8]) -> bool {
    says_any(text, FAILED_TO_START_THREAD) || says_any(text, FAILED_TO_SPAWN)
}

/// Whether it says what pthread_create(3) says of a thread whose stack was refused: that it may be tried again.
pub fn says_to_try_again(text: &[u8]) -> bool {
    says_any(text, TRY_AGAIN) && !says_any(text, MADE_TO_TRY_AGAIN)
}

/// Whether it speaks of a thread, or of those who have some.
pub fn speaks_of_a_thread(text: &[u8]) -> bool {
    OF_A_THREAD.any(&mut |phrase| place(text, phrase, |_| false, 0).is_some())
}

/// Whether it claims so in the words of a runtime at the limit of its own heap.
pub fn is_of_runtime_heap(text: &[u8]) -> bool {
    says_any(text, OF_RUNTIME_HEAP)
}

/// Whether one of the last words before the phrase takes it back.
#[inline(never)]
pub(super) fn is_taken_back(before: &[u8]) -> bool {
    const WORDS: usize = 2;
    let mut rest = before;
    for _ in 0..WORDS {
        let end = rest.iter().rposition(u8::is_ascii_alphabetic).map_or(0, |at| at + 1);
        let (before_end, between) = rest.split_at_checked(end).unwrap_or_default();
        if between.iter().any(|byte| b".:;,!?".contains(byte)) {
            return false;
        }
        let start = before_end.iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |at| at + 1);
        let (before_word, word) = before_end.split_at_checked(start).unwrap_or_default();
        if TAKES_BACK.any(&mut |known| word.len() == known.len() && begins(word, known)) {
            return true;
        }
        rest = before_word;
    }
    false
}

#[inline(never)]
pub(super) fn is_of_something_else(after: &[u8]) -> bool {
    let after = after.trim_ascii_start();
    NOT_OF_MEMORY.any(&mut |thing| {
        begins(after, thing) && !after.get(thing.len()).is_some_and(u8::is_ascii_alphanumeric)
    })
}

/// The names in a line, as programming languages write them.
pub(super) fn names_in(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| !is_of_word(byte)).filter(|name| !name.is_empty())
}

/// Whether it begins with the name of such an exception, as a traceback's last line does; in Node after "Uncaught".
pub(super) fn is_never_of_memory(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"Uncaught ").unwrap_or(line);
    NEVER_OF_MEMORY.any(&mut |name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(b":")))
}

/// Whether a line tells of an exception by its name, as what ended something: `KeyError: 'id'`, `… (TypeError)`.
pub(super) fn names_an_exception(line: &[u8]) -> bool {
    let mut start = 0;
    while let Some(name) = line.get(start..).and_then(|rest| names_in(rest).next()) {
        let at = name.as_ptr() as usize - line.as_ptr() as usize;
        start = at + name.len();
        let is_name = name.first().is_some_and(u8::is_ascii_uppercase)
            && [&b"Error"[..], b"Exception"].iter().any(|end| name.len() > end.len() && name.ends_with(end));
        let after = line.get(start..).unwrap_or(&[]);
        if is_name && (after.is_empty() || matches!(after, [b':' | b')' | b'\r', ..])) {
            return true;
        }
    }
    false
}

/// Whether it says one of the words that may tell of something else, by itself: the name of a system that a program was built for,
/// `x86_64-unknown-linux-gnu` or GHC's `x86_64_unknown_linux`, says nothing.
pub(super) fn may_fail_otherwise(line: &[u8]) -> bool {
    let is_of_name = |byte: &u8| is_of_word(byte) || *byte == b'-';
    MAYBE_OTHER_FAILURE.any(&mut |word| place(line, word, is_of_name, 0).is_some())
}

/// Whether a line holds nothing but such words, and numbers.
pub(super) fn is_all_of(line: &[u8]) -> bool {
    let is_known = |word: &[u8]| {
        says_any(word, GIVES_UP) || OF_THE_WHOLE.any(&mut |known| word.eq_ignore_ascii_case(known))
    };
    names_in(line).all(|word| word.iter().all(u8::is_ascii_digit) || is_known(word))
}
