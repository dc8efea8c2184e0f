//! What programs say on stdout and stderr when they die, told apart by phrases. Pure, and safe in a signal handler.

/// What programs say when memory is gone, in small letters, and who says it.
const OUT_OF_MEMORY: [&[u8]; 26] = [
    b"malloc",                         // C programs, of all kinds
    b"no memory",                      // C programs
    b"allowed memory size",            // PHP
    b"out of memory",                  // Perl, PHP, V8, Go, git
    b"outofmemory",                    // Java, .NET
    b"memoryerror",                    // CPython; NoMemoryError of Ruby
    b"bad_alloc",                      // libstdc++
    b"bad_array_new_length",           // libstdc++
    b"cannot allocate",                // ENOMEM in glibc; musl
    b"can't allocate",                 // tar, ffmpeg
    b"could not allocate",             // OpenSSL, SQLite's shell
    b"could not reserve",              // HotSpot, whose whole heap is reserved at the start
    b"failed to allocate",             // Ruby, std's signal stack
    b"unable to allocate",             // numpy
    b"array buffer allocation",        // V8
    b"not enough memory",              // Lua
    b"insufficient memory",            // HotSpot
    b"allocation failed",              // V8
    b"allocation failure",             // LLVM
    b"memory allocation of",           // Rust's std
    b"memory exhausted",               // GNU programs
    b"virtual memory",                 // GNU programs
    b"enomem",                         // Node
    b"can't start new thread",         // CPython
    b"unable to create native thread", // HotSpot
    b"failed to spawn thread",         // Rust's std
];

/// What programs say when they die of something else.
const OTHER_DEATH: [&[u8]; 3] = [
    b"assertion",    // C, CPython, Rust
    b"panicked at",  // Rust
    b"check failed", // V8, Chromium
];

/// What has fewer letters is no message: a line's end, a number, a sign of progress.
const LEAST_LETTERS: usize = 8;

/// A message, as far as it bears on a death; the more telling ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Message {
    /// That memory is gone.
    OutOfMemory,
    /// That it dies of something else.
    OtherDeath,
    /// Something.
    Unrelated,
}

impl Message {
    /// `None`: no message at all.
    pub(crate) fn of(text: &[u8]) -> Option<Message> {
        if OUT_OF_MEMORY.iter().any(|phrase| contains(text, phrase)) {
            Some(Message::OutOfMemory)
        } else if OTHER_DEATH.iter().any(|phrase| contains(text, phrase)) {
            Some(Message::OtherDeath)
        } else {
            let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
            (letters >= LEAST_LETTERS).then_some(Message::Unrelated)
        }
    }
}

/// Whether `phrase`, in small letters, is part of the message, in letters of any size.
fn contains(message: &[u8], phrase: &[u8]) -> bool {
    let Some(first) = phrase.first() else { return false };
    message.iter().enumerate().any(|(at, byte)| {
        byte.to_ascii_lowercase() == *first
            && message.get(at..at + phrase.len()).is_some_and(|part| part.eq_ignore_ascii_case(phrase))
    })
}

/// Whether an assertion is about a pointer being there: `assert(p)`, `assert(p != NULL)`. Failing straight after a
/// refusal, it is the refusal that was not survived.
pub(crate) fn asks_for_a_block(expression: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.->[]*".contains(byte);
    let has = |part: &[u8]| expression.windows(part.len()).any(|window| window == part);
    has(b"NULL")
        || has(b"nullptr")
        || !expression.first().is_none_or(u8::is_ascii_digit) && expression.iter().all(is_name)
}

/// The same of what an assertion that failed has printed, in the words of glibc or musl.
#[cfg(feature = "supervisor")]
pub(crate) fn tells_of_a_missing_block(text: &[u8]) -> bool {
    let between = |from: &[u8], to: &[u8]| {
        let place = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window == part);
        let rest = text.get(place(text, from)? + from.len()..)?;
        rest.get(..place(rest, to)?)
    };
    between(b"Assertion `", b"' failed")
        .or_else(|| between(b"Assertion failed: ", b" ("))
        .is_some_and(asks_for_a_block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_in_any_letters_and_anywhere() {
        for (text, expected) in [
            (&b"perl: Out of memory!"[..], Some(Message::OutOfMemory)),
            (b"MemoryError", Some(Message::OutOfMemory)),
            (b"Assertion failed: no memory", Some(Message::OutOfMemory)),
            (b"eat: eat.c:7: main: Assertion `0' failed.", Some(Message::OtherDeath)),
            (b"Out of memor", Some(Message::Unrelated)),
            (b"100 of 200", None),
            (b"", None),
        ] {
            assert_eq!(Message::of(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn assertions_about_pointers_are_told_from_others() {
        for yes in ["p", "p != NULL", "NULL != node->next", "buffer->data", "*slot", "ptr != nullptr"] {
            assert!(asks_for_a_block(yes.as_bytes()), "{yes}");
        }
        for no in ["0", "n > 3", "!\"reached\"", "a == b", ""] {
            assert!(!asks_for_a_block(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn what_was_asserted_is_found_in_the_message() {
        for (text, expected) in [
            (&b"eat: eat.c:7: main: Assertion `block != nullptr' failed.\n"[..], true),
            (b"Assertion failed: block (eat.c: main: 7)\n", true),
            (b"eat: eat.c:7: main: Assertion `rows == 4' failed.\n", false),
            (b"Assertion failed: rows == 4 (eat.c: main: 7)\n", false),
            (b"block", false),
        ] {
            assert_eq!(tells_of_a_missing_block(text), expected, "{}", text.escape_ascii());
        }
    }
}
