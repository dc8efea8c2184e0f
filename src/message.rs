//! What programs say on stdout and stderr when they die, told apart by phrases. Pure, and safe in a signal handler.

// The guard of a Rust program reads panics and last words, the library for other languages every message.
#![cfg_attr(not(any(feature = "shim", feature = "supervisor")), allow(dead_code))]

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

/// What a Rust program says of a request that came back as an error, in small letters: whole words that claim a failure.
const FAILED_FOR_MEMORY: [&[u8]; 21] = [
    b"outofmemory",              // std::io::ErrorKind
    b"out of memory",            // std::io::ErrorKind, bumpalo, SQLite
    b"allocerr",                 // bumpalo
    b"allocerror",               // std::collections::TryReserveErrorKind
    b"memory allocation failed", // std::collections::TryReserveError
    b"memory allocation of",     // std's own line, in a plugin that has no guard
    b"cannot allocate memory",   // ENOMEM in glibc
    b"os error 12",              // ENOMEM in std's words
    b"code: 12,",                // the same, for debugging
    b"failed to allocate",       // std's signal stack, and many
    b"unable to allocate",
    b"could not allocate",
    b"couldn't allocate",
    b"can't allocate",
    b"allocation error : not enough memory", // zstd
    b"not enough memory",
    b"insufficient memory",
    b"allocation failed",
    b"bad_alloc",
    b"enomem",
    b"memory exhausted",
];

/// What it says of a thread that could not be started: pthread_create(3) gives EAGAIN.
const FAILED_FOR_THREAD: [&[u8]; 5] = [
    b"failed to spawn thread",
    b"os error 11",
    b"code: 11,",
    b"wouldblock",
    b"resource temporarily unavailable",
];

/// What std's own line begins with, and what follows it.
pub(crate) const STD_LINE: &[u8] = b"memory allocation of ";

/// What a panic says: bits, as it may say more than one thing, and in several pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PanicWords(pub(crate) u8);

impl PanicWords {
    /// Something.
    pub(crate) const SOMETHING: PanicWords = PanicWords(1);
    /// That memory was refused.
    pub(crate) const MEMORY: PanicWords = PanicWords(2);
    /// That a thread was refused.
    pub(crate) const THREAD: PanicWords = PanicWords(4);
    /// That a thread was given no stack for its signals: std, in a thread that it has just started.
    pub(crate) const SIGNAL_STACK: PanicWords = PanicWords(8);
    /// That a thread panicked that it has waited for: all that std says of it is `Any { .. }`.
    pub(crate) const JOINED: PanicWords = PanicWords(16);
    /// That the panic could not be started: std, when its exception found no room.
    pub(crate) const NOT_STARTED: PanicWords = PanicWords(32);
    /// That something is not to be had now: a thread, or what else gives EAGAIN.
    pub(crate) const TRY_AGAIN: PanicWords = PanicWords(128);
    /// Not said, but seen: it came straight from a refusal that C code passed on.
    pub(crate) const STRAIGHT: PanicWords = PanicWords(64);

    pub(crate) fn of(text: &[u8]) -> PanicWords {
        let mut words = PanicWords::default();
        let mut add = |is_said: bool, said: PanicWords| {
            if is_said {
                words.0 |= said.0;
            }
        };
        let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
        add(letters > 0, PanicWords::SOMETHING);
        add(says_any(text, &FAILED_FOR_MEMORY), PanicWords::MEMORY);
        let speaks_of_thread = [&b"thread"[..], b"spawn"].into_iter().any(|word| contains(text, word));
        let says_again = says_any(text, &FAILED_FOR_THREAD);
        add(says_again && speaks_of_thread, PanicWords::THREAD);
        add(says_again, PanicWords::TRY_AGAIN);
        add(says(text, b"alternative stack"), PanicWords::SIGNAL_STACK);
        add(says(text, b"any { .. }"), PanicWords::JOINED);
        add(says(text, b"failed to initiate panic"), PanicWords::NOT_STARTED);
        words
    }

    pub(crate) fn has(self, word: PanicWords) -> bool {
        self.0 & word.0 != 0
    }

    pub(crate) fn and(self, more: PanicWords) -> PanicWords {
        PanicWords(self.0 | more.0)
    }
}

/// A piece of what a panic writes to stderr: where it begins, what it says, and where the backtrace begins.
pub(crate) struct PanicPiece<'a> {
    /// It tells where the panic was: what was said before is another one's.
    pub(crate) begins: bool,
    pub(crate) says: &'a [u8],
    /// What follows are names of functions and advice.
    pub(crate) ends: bool,
}

impl PanicPiece<'_> {
    pub(crate) fn of(text: &[u8]) -> PanicPiece<'_> {
        let place = |part: &[u8]| text.windows(part.len()).position(|window| window == part);
        // The thread's name and the file's say nothing; the message begins on the line after them.
        let header = place(b" panicked at ");
        let start = header.map_or(0, |at| {
            let rest = text.get(at..).unwrap_or(&[]);
            rest.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| at + end + 1)
        });
        let end = [&b"\nnote: run with"[..], b"note: run with", b"stack backtrace:"]
            .into_iter()
            .filter_map(place)
            .filter(|at| *at >= start)
            .min();
        PanicPiece {
            begins: header.is_some(),
            says: text.get(start..end.unwrap_or(text.len())).unwrap_or(&[]),
            ends: end.is_some(),
        }
    }
}

/// What the last lines before a death say about it: a claim that memory was refused holds until the program speaks of
/// something else.
pub(crate) fn last_word(text: &[u8]) -> Option<Message> {
    let mut last = None;
    for line in text.split(|byte| *byte == b'\n') {
        let letters = line.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
        if says_any(line, &FAILED_FOR_MEMORY) {
            last = Some(Message::OutOfMemory);
        } else if says(line, b"has overflowed its stack") || says(line, b"stack overflow") {
            last = Some(Message::OtherDeath);
        } else if letters >= LEAST_LETTERS && !goes_on(line) {
            last = Some(Message::Unrelated);
        }
    }
    last
}

/// Whether the text has come to a backtrace, which takes memory to print: that is not the program getting over it.
pub(crate) fn has_backtrace(text: &[u8]) -> bool {
    says(text, b"backtrace")
}

/// Whether a line belongs to the message before it: its causes, advice, a backtrace.
fn goes_on(line: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 7] =
        [b"note:", b"help:", b"caused by", b"location:", b"backtrace", b"stack backtrace", b"run with"];
    let is_indented = line.first().is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_digit());
    is_indented
        || BEGINNINGS.iter().any(|beginning| {
            line.get(..beginning.len()).is_some_and(|part| part.eq_ignore_ascii_case(beginning))
        })
}

fn says_any(text: &[u8], phrases: &[&[u8]]) -> bool {
    phrases.iter().any(|phrase| says(text, phrase))
}

/// Whether `phrase`, in small letters, is part of the text, in letters of any size and as whole words.
fn says(text: &[u8], phrase: &[u8]) -> bool {
    let Some(first) = phrase.first() else { return false };
    let is_letter = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    text.iter().enumerate().any(|(at, byte)| {
        let end = at + phrase.len();
        byte.to_ascii_lowercase() == *first
            && text.get(at..end).is_some_and(|part| part.eq_ignore_ascii_case(phrase))
            && !is_letter(at.checked_sub(1))
            && !is_letter(Some(end))
    })
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

/// The text without what sets colours on a terminal (ECMA-48, CSI … m), moved to the front of `text`; its length.
pub(crate) fn drop_colours(text: &mut [u8]) -> usize {
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
    fn a_panic_is_read_without_names_and_places() {
        for (text, expected) in [
            (
                "\nthread 'main' (7) panicked at src/malloc.rs:3:5:\ncalled `Result::unwrap()` on an `Err` value: \
                 Kind(OutOfMemory)\nnote: run with `RUST_BACKTRACE=1`",
                PanicWords::SOMETHING.and(PanicWords::MEMORY),
            ),
            ("\nthread 'out of memory' panicked at src/enomem.rs:3:5:\nas planned\n", PanicWords::SOMETHING),
            ("\nthread 'main' panicked at src/main.rs:3:5:\n", PanicWords::default()),
            (
                "failed to spawn thread: Os { code: 11, kind: WouldBlock, message: \"Resource temporarily unavailable\" }",
                PanicWords::SOMETHING.and(PanicWords::THREAD).and(PanicWords::TRY_AGAIN),
            ),
            ("Os { code: 11, kind: WouldBlock }", PanicWords::SOMETHING.and(PanicWords::TRY_AGAIN)),
            ("row 7\nstack backtrace:\n 1: alloc::out of memory", PanicWords::SOMETHING),
            ("TryReserveError { kind: AllocError { layout", PanicWords::SOMETHING.and(PanicWords::MEMORY)),
            ("enomemo: bad key; no memory leaks", PanicWords::SOMETHING),
            ("os error 123", PanicWords::SOMETHING),
        ] {
            assert_eq!(PanicWords::of(PanicPiece::of(text.as_bytes()).says), expected, "{text}");
        }
    }

    #[test]
    fn colours_are_no_letters() {
        for (text, expected) in [
            ("  0: \x1b[91mout of memory\x1b[0m\n", "  0: out of memory\n"),
            ("plain", "plain"),
            ("\x1b[1;31m", ""),
            ("a\x1b", "a\x1b"),
            ("\x1b\x1b[0mb", "\x1bb"),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            let len = drop_colours(&mut bytes);
            assert_eq!(&bytes[..len], expected.as_bytes());
        }
    }

    #[test]
    fn the_last_word_is_the_one_that_counts() {
        for (text, expected) in [
            ("Error: Os { code: 12, kind: OutOfMemory }\n", Some(Message::OutOfMemory)),
            (
                "Error: cannot load\n\nCaused by:\n    0: reading\n    1: out of memory (os error 12)\n",
                Some(Message::OutOfMemory),
            ),
            ("out of memory, dropping the cache\nbad configuration\n", Some(Message::Unrelated)),
            ("out of memory\n  in row 7\nnote: see the manual\n", Some(Message::OutOfMemory)),
            (
                "thread 'main' has overflowed its stack\nfatal runtime error: stack overflow, aborting\n",
                Some(Message::OtherDeath),
            ),
            ("100 %\n", None),
        ] {
            assert_eq!(last_word(text.as_bytes()), expected, "{text}");
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
