//! What programs say on stdout and stderr when they die, told apart by phrases. Pure, and safe in a signal handler.

// The guard of a Rust program reads panics and last words, the library for other languages every message.

use crate::text::{parts, place_of, position};

/// Phrases, each with a line's end behind it. A table of slices takes five times the room, and is relocated whenever a program
/// starts that has one.
#[derive(Clone, Copy)]
struct Phrases(&'static str);

macro_rules! phrases {
    ($($phrase:literal),* $(,)?) => {
        Phrases(concat!($($phrase, "\n"),*))
    };
}

impl Phrases {
    // Not inlined, like all that is asked of each phrase: once for each table, that was a tenth of a guarded program.
    #[inline(never)]
    fn any(self, is_it: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        parts(self.0.as_bytes(), b'\n').any(|phrase| !phrase.is_empty() && is_it(phrase))
    }
}

/// What programs say when memory was refused to them, in small letters and as whole words: phrases that claim a failure, in
/// the words of whoever says them. One table for all who listen.
const FAILED_FOR_MEMORY: Phrases = phrases![
    "out of memory",             // Perl, PHP, V8, Go, git, SQLite, PostgreSQL, std::io::ErrorKind
    "outofmemory",               // std::io::ErrorKind
    "outofmemoryerror",          // Java, Julia
    "outofmemoryexception",      // .NET
    "out_of_memory",             // OCaml
    "memoryerror",               // CPython
    "nomemoryerror",             // Ruby
    "bad_alloc",                 // libstdc++, libc++
    "bad_array_new_length",      // the same
    "allocerr",                  // bumpalo
    "allocerror",                // std::collections::TryReserveErrorKind
    "memory allocation of",      // Rust's std
    "memory allocation failed",  // std::collections::TryReserveError
    "memory allocation failure", // C programs
    "memory allocation error",   // C programs
    "memory allocation still failed", // OpenBLAS
    "allocation failed",         // V8
    "allocation failure",        // LLVM
    "allocation error : not enough memory", // zstd
    "cannot allocate",           // ENOMEM in glibc and musl; bash
    "can't allocate",            // tar, gawk, ffmpeg
    "could not allocate",        // OpenSSL, SQLite's shell
    "couldn't allocate",         // sed
    "failed to allocate",        // Ruby, std's signal stack
    "unable to allocate",        // numpy
    "unable to alloc",           // Tcl
    "could not reserve",         // HotSpot, whose whole heap is reserved at the start
    "not enough memory",         // Lua
    "insufficient memory",       // HotSpot
    "no more memory",            // C programs
    "no memory for",             // C programs
    "memory exhausted",          // GNU programs
    "heap exhausted",            // SBCL, GHC
    "out of space",              // dash
    "vmerror",                   // PostScript
    "malloc failed",             // C programs, of all kinds
    "malloc() failed",
    "malloc failure", // OpenSSL
    "malloc error",
    "malloc returned null",
    "calloc failed",
    "realloc failed",
    "error allocating",
    "failed allocating",
    "failed to reserve memory",
    "failed to malloc",
    "cannot malloc",
    "could not malloc",
    "enomem",      // Node
    "os error 12", // ENOMEM in std's words
    "code: 12,",   // the same, for debugging
    "errno 12",    // CPython
];

/// Phrases that claim it only at the end of a sentence: "no memory", not "no memory leaks".
const FAILED_FOR_MEMORY_AT_END: Phrases = phrases!["no memory"];

/// What a Rust program says of a thread that could not be started, and of nothing else.
const FAILED_TO_SPAWN: Phrases = phrases![
    "failed to spawn thread",    // std
    "can't spawn worker thread", // tokio
    "threadpoolbuilderror",      // rayon
];

/// The same of other programs.
const FAILED_TO_START_THREAD: Phrases = phrases![
    "can't start new thread",         // CPython
    "unable to create native thread", // HotSpot
    "pthread_create failed",          // OpenBLAS
];

/// What may be said of that: pthread_create(3) gives EAGAIN.
const TRY_AGAIN: Phrases =
    phrases!["os error 11", "code: 11,", "wouldblock", "resource temporarily unavailable"];

/// What a panic says that comes of another thread's.
const OF_ANOTHER_THREAD: Phrases = phrases![
    "any { .. }",               // std::thread::JoinHandle::join
    "a scoped thread panicked", // std::thread::scope
    "poisonerror",              // std::sync::Mutex
    "recverror",                // channels, whose other end is gone
    "senderror",
];

/// Before such a phrase these words take the claim back: "no out of memory errors", "what to do when out of memory".
/// And another processor's memory is not ours.
const TAKES_BACK: Phrases = phrases![
    "no", "not", "without", "never", "avoid", "avoids", "avoiding", "prevent", "prevents", "if", "when",
    "on", "zero", "survived", "expected", "cuda", "gpu",
];

/// In a line with one of these the program tells how it copes.
const COPES: Phrases = phrases![
    "warning",
    "going without",
    "falling back",
    "fallback",
    "retrying",
    "trying again",
    "dropping",
    "skipping",
    "ignoring",
    "using less",
];

/// In a line with one of these the program tells what state it is in: the last error number there was, which may be a
/// stale one.
const TELLS_STATE: Phrases = phrases!["last os error", "last error", "last errno"];

/// In a warning, that memory was refused to somebody else within the program: a collector's, whose caller may cope or not.
const PASSES_ON: Phrases = phrases!["returning null", "failed to expand heap", "out of memory exception"];

/// What else can be refused in the same words: "cannot allocate TTY", and ld.so's for a library that was built to be
/// loaded at the start.
const NOT_OF_MEMORY: Phrases = phrases![
    "tty",
    "pty",
    "port",
    "lock",
    "address",
    "device",
    "memory in static tls block",
    "requested address",
    "inode",
    "ip",
    "id",
    "disk",
];

/// What a runtime says at the limit of its own heap.
const OF_RUNTIME_HEAP: Phrases =
    phrases!["javascript heap out of memory", "java.lang.outofmemoryerror", "system.outofmemoryexception"];

/// What programs say when they end for something else, whatever was refused before.
const OTHER_DEATH: Phrases = phrases![
    "assertion",                     // C, CPython, Rust
    "panicked at",                   // Rust
    "check failed",                  // V8, Chromium
    "overflowed its stack",          // Rust
    "keyboardinterrupt",             // CPython
    "terminating connection due to", // PostgreSQL
    "allowed memory size",           // PHP, at a limit of its own
    "stack smashing detected",       // glibc, here and below: see `__libc_message`, malloc_printerr
    "buffer overflow detected",
    "free(): invalid",
    "free(): double free",
    "double free or corruption",
    "munmap_chunk(): invalid",
    "realloc(): invalid",
    "malloc(): corrupted",
    "malloc(): invalid",
    "malloc(): unaligned",
    "malloc_consolidate()",
    "corrupted size vs",
    "corrupted double-linked list",
    "corrupted top size",
];

/// What stands for the text of any other error number.
pub const ANOTHER_ERROR: &[u8] = b"operation not permitted";

/// Exceptions that memory is never why: whatever their messages say.
const NEVER_OF_MEMORY: Phrases = phrases![
    "TypeError",
    "SyntaxError",
    "ReferenceError",
    "NameError",
    "AttributeError",
    "KeyError",
    "IndexError",
    "ZeroDivisionError",
    "AssertionError",
    "FileNotFoundError",
];

/// What programs say that failed at something else: what they said of memory before was not the end of it.
const OTHER_FAILURE: Phrases = phrases![
    "no such",
    "permission denied",
    "operation not permitted",
    "is a directory",
    "not a directory",
    "file exists",
    "no space left on device",
    "file too large",
    "disk quota exceeded",
    "read-only file system",
    "too many open files",
    "input/output error",
    "connection refused",
    "connection reset",
    "address already in use",
    "timed out",
    "syntax error",
    "does not exist",
    "command not found",
];

/// The same of words that may come of what was refused as well: they take nothing back, and tell of a failure where they
/// are all that was said.
const MAYBE_OTHER_FAILURE: Phrases =
    phrases!["undefined", "unknown", "unrecognized", "unrecognised", "unexpected", "invalid"];

/// What programs say that could not have something: straight after a refusal, what that was for.
const FAILED_TO_MAKE: Phrases = phrases![
    "failed to init",
    "failed to initialize",
    "failed to initialise",
    "failed to create",
    "could not initialize",
    "could not initialise",
    "could not create",
    "couldn't create",
    "unable to initialize",
    "unable to create",
    "cannot create",
    "can't create",
];

/// What programs say that give up, and not why.
const GIVES_UP: Phrases =
    phrases!["failed", "failure", "fatal", "crashed", "panicked", "giving up", "gave up", "aborting"];

/// What else stands in a line that says no more than that: with any other word it may tell of something else.
const OF_THE_WHOLE: Phrases = phrases![
    "the", "a", "this", "it", "has", "have", "job", "jobs", "task", "worker", "thread", "process", "program",
    "run", "request", "error", "giving", "up", "gave",
];

/// Whether a line holds nothing but such words, and numbers.
fn is_all_of(line: &[u8]) -> bool {
    let is_known = |word: &[u8]| {
        says_any(word, GIVES_UP) || OF_THE_WHOLE.any(&mut |known| word.eq_ignore_ascii_case(known))
    };
    names_in(line).all(|word| word.iter().all(u8::is_ascii_digit) || is_known(word))
}

/// Between two exceptions of CPython's: the second one came of the first.
const CHAINS: Phrases =
    phrases!["during handling of the above exception", "the above exception was the direct cause"];

/// Behind Lua's error that nobody caught.
const ERROR_BEHIND: &[u8] = b"stack traceback:";

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
}

impl Story {
    pub fn hear(&mut self, text: &[u8]) {
        for line in parts(text, b'\n') {
            self.hear_line(line);
        }
    }

    fn hear_line(&mut self, line: &[u8]) {
        let says_of_memory = self.last == Some(Message::OutOfMemory);
        if says_any(line, TELLS_STATE) || says(line, b"warning") && says_any(line, PASSES_ON) {
        } else if claims_failure_for_memory(line) && !is_never_of_memory(line)
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

/// Whether what is said in this line is said of the program's state, or as a thing that it copes with: whatever text of an
/// error stands in it claims nothing.
pub fn claims_nothing(line: &[u8]) -> bool {
    says_any(line, COPES) || says_any(line, TELLS_STATE) || says(line, b"no space left on device")
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
    FAILED_FOR_MEMORY.any(&mut claims)
        || FAILED_TO_START_THREAD.any(&mut claims)
        || FAILED_FOR_MEMORY_AT_END.any(&mut ends)
        || names_in(line).any(is_kind_of_memory_error)
}

/// Whether it claims that a thread could not be started: for want of memory, or because there are too many.
pub fn claims_failure_to_start_thread(text: &[u8]) -> bool {
    says_any(text, FAILED_TO_START_THREAD) || says_any(text, FAILED_TO_SPAWN)
}

/// Whether it says what pthread_create(3) says of a thread whose stack was refused: that it may be tried again.
pub fn says_to_try_again(text: &[u8]) -> bool {
    // In quotes it is std's TryLockError: somebody else has the lock.
    says_any(text, TRY_AGAIN) && !says(text, b"\"wouldblock\"")
}

/// Whether it claims so in the words of a runtime at the limit of its own heap.
pub fn is_of_runtime_heap(text: &[u8]) -> bool {
    says_any(text, OF_RUNTIME_HEAP)
}

/// Whether one of the last words before the phrase takes it back.
#[inline(never)]
fn is_taken_back(before: &[u8]) -> bool {
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
fn is_of_something_else(after: &[u8]) -> bool {
    let after = after.trim_ascii_start();
    NOT_OF_MEMORY.any(&mut |thing| {
        begins(after, thing) && !after.get(thing.len()).is_some_and(u8::is_ascii_alphanumeric)
    })
}

/// The names in a line, as programming languages write them.
fn names_in(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| !is_of_word(byte)).filter(|name| !name.is_empty())
}

/// Whether it begins with the name of such an exception, as a traceback's last line does; in Node after "Uncaught".
fn is_never_of_memory(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"Uncaught ").unwrap_or(line);
    NEVER_OF_MEMORY.any(&mut |name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(b":")))
}

/// Whether a line tells of an exception by its name, as what ended something: `KeyError: 'id'`, `… (TypeError)`.
fn names_an_exception(line: &[u8]) -> bool {
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
    /// That a thread panicked that it has waited for, or whose work it needs.
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
        add(says_any(text, OF_ANOTHER_THREAD), PanicWords::JOINED);
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
        "run with"
    ];
    let is_indented = line.first().is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_digit());
    is_indented || BEGINNINGS.any(&mut |beginning| begins(line, beginning))
}

#[inline(never)]
fn says_any(text: &[u8], phrases: Phrases) -> bool {
    phrases.any(&mut |phrase| says(text, phrase))
}

/// Whether `phrase`, in small letters, is part of the text, in letters of any size and as whole words.
#[inline(never)]
fn says(text: &[u8], phrase: &[u8]) -> bool {
    place(text, phrase, u8::is_ascii_alphanumeric, 0).is_some()
}

/// Whether it says one of the words that may tell of something else, by itself: the name of a system that a program was built for,
/// `x86_64-unknown-linux-gnu` or GHC's `x86_64_unknown_linux`, says nothing.
fn may_fail_otherwise(line: &[u8]) -> bool {
    let is_of_name = |byte: &u8| is_of_word(byte) || *byte == b'-';
    MAYBE_OTHER_FAILURE.any(&mut |word| place(line, word, is_of_name, 0).is_some())
}

/// Whether it begins with `phrase`, which is in small letters, in letters of any size.
#[inline(never)]
fn begins(text: &[u8], phrase: &[u8]) -> bool {
    text.len() >= phrase.len()
        && text.iter().zip(phrase).all(|(byte, letter)| byte.to_ascii_lowercase() == *letter)
}

/// What a name in a program is made of: `my_enomem_flag` does not say `enomem`.
fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// Where `phrase`, in small letters, is in the text, in letters of any size, and not within a longer word.
fn places<'a>(
    text: &'a [u8],
    phrase: &'a [u8],
    is_of_word: fn(&u8) -> bool,
) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    core::iter::from_fn(move || {
        let at = place(text, phrase, is_of_word, from)?;
        from = at + 1;
        Some(at)
    })
}

/// The first of these places from `from` on.
#[inline(never)]
fn place(text: &[u8], phrase: &[u8], is_of_word: fn(&u8) -> bool, from: usize) -> Option<usize> {
    let is_letter = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(is_of_word);
    let mut at = from;
    while text.len().saturating_sub(at) >= phrase.len() {
        if text.get(at..).is_some_and(|rest| begins(rest, phrase))
            && !is_letter(at.checked_sub(1))
            && !is_letter(Some(at + phrase.len()))
        {
            return Some(at);
        }
        at += 1;
    }
    None
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
