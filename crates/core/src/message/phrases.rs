//! The phrases that tell what a program dies of, and whether a text has them.

use crate::text::parts;

/// Phrases, each with a line's end behind it. A table of slices takes five times the room, and is relocated whenever a program
/// starts that has one.
#[derive(Clone, Copy)]
pub(super) struct Phrases(pub(super) &'static str);

macro_rules! phrases {
    ($($phrase:literal),* $(,)?) => {
        Phrases(concat!($($phrase, "\n"),*))
    };
}

pub(super) use phrases;

impl Phrases {
    // Not inlined, like all that is asked of each phrase: once for each table, that was a tenth of a guarded program.
    #[inline(never)]
    pub(super) fn any(self, is_it: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        parts(self.0.as_bytes(), b'\n').any(|phrase| !phrase.is_empty() && is_it(phrase))
    }
}

/// What programs say when memory was refused to them, in small letters and as whole words: phrases that claim a failure, in
/// the words of whoever says them. One table for all who listen.
pub(super) const FAILED_FOR_MEMORY: Phrases = phrases![
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
pub(super) const FAILED_FOR_MEMORY_AT_END: Phrases = phrases!["no memory"];

/// What a Rust program says of a thread that could not be started, and of nothing else.
pub(super) const FAILED_TO_SPAWN: Phrases = phrases![
    "failed to spawn thread",    // std
    "can't spawn worker thread", // tokio
    "threadpoolbuilderror",      // rayon
];

/// The same of other programs.
pub(super) const FAILED_TO_START_THREAD: Phrases = phrases![
    "can't start new thread",         // CPython
    "unable to create native thread", // HotSpot
    "pthread_create failed",          // OpenBLAS
];

/// What may be said of that: pthread_create(3) gives EAGAIN.
pub(super) const TRY_AGAIN: Phrases =
    phrases!["os error 11", "code: 11,", "wouldblock", "resource temporarily unavailable"];

/// The same of an error that no call of the system has given.
pub(super) const MADE_TO_TRY_AGAIN: Phrases = phrases![
    "\"wouldblock\"",          // std's TryLockError: somebody else has the lock
    "kind(wouldblock)",        // made of its kind alone
    "kind: wouldblock, error", // with another error inside
];

/// What a line says of a thread, as a part of whatever word: `ThreadPoolBuildError`.
pub(super) const OF_A_THREAD: Phrases = phrases!["thread", "spawn", "worker", "pool"];

/// What std says in a thread that it has just started.
pub(super) const NO_SIGNAL_STACK: Phrases = phrases!["alternative stack"];

/// What std says where its exception finds no room.
pub(super) const NOT_STARTED: Phrases = phrases!["failed to initiate panic"];

/// What a panic says that comes of another one, in a thread that it has waited for, or whose work it needs.
pub(super) const OF_ANOTHER_THREAD: Phrases = phrases![
    "any { .. }",               // std::thread::JoinHandle::join
    "a scoped thread panicked", // std::thread::scope
    "recverror",                // channels, whose other end is gone
    "senderror",
];

/// The same, in whichever thread.
pub(super) const OF_POISON: Phrases = phrases![
    "poisonerror",              // std::sync::Mutex
    "previously been poisoned", // std::sync::LazyLock, Once
];

/// The same, of the one before it in this thread: C calls the function that it was in.
pub(super) const CANNOT_UNWIND: Phrases = phrases!["in a function that cannot unwind"];

/// The same, of the one before the last one, which has run the destructor that panicked then.
pub(super) const IN_CLEANUP: Phrases = phrases!["in a destructor during cleanup"];

/// Before such a phrase these words take the claim back: "no out of memory errors", "what to do when out of memory".
/// And another processor's memory is not ours.
pub(super) const TAKES_BACK: Phrases = phrases![
    "no", "not", "without", "never", "avoid", "avoids", "avoiding", "prevent", "prevents", "if", "when",
    "on", "zero", "survived", "expected", "cuda", "gpu",
];

/// In a line with one of these the program tells how it copes.
pub(super) const COPES: Phrases = phrases![
    "warning",
    "going without",
    "on without",
    "continuing without",
    "disabled",
    "disabling",
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
pub(super) const TELLS_STATE: Phrases = phrases!["last os error", "last error", "last errno"];

/// In a line with one of these it is a disk's room or another processor's memory that was refused.
pub(super) const OF_DEVICE: Phrases = phrases!["on device", "cuda.memory.outofmemoryerror"];

/// In a warning, that memory was refused to somebody else within the program: a collector's, whose caller may cope or not.
pub(super) const PASSES_ON: Phrases =
    phrases!["returning null", "failed to expand heap", "out of memory exception"];

/// What else can be refused in the same words: "cannot allocate TTY", and ld.so's for a library that was built to be
/// loaded at the start.
pub(super) const NOT_OF_MEMORY: Phrases = phrases![
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
pub(super) const OF_RUNTIME_HEAP: Phrases =
    phrases!["javascript heap out of memory", "java.lang.outofmemoryerror", "system.outofmemoryexception"];

/// What programs say when they end for something else, whatever was refused before.
pub(super) const OTHER_DEATH: Phrases = phrases![
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
pub(super) const NEVER_OF_MEMORY: Phrases = phrases![
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
pub(super) const OTHER_FAILURE: Phrases = phrases![
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
    "no route to host",
    "network is unreachable",
    "name or service not known",
    "address already in use",
    "directory not empty",
    "file name too long",
    "bad file descriptor",
    "timed out",
    "syntax error",
    "does not exist",
    "command not found",
];

/// The same of words that may come of what was refused as well: they take nothing back, and tell of a failure where they
/// are all that was said.
pub(super) const MAYBE_OTHER_FAILURE: Phrases =
    phrases!["undefined", "unknown", "unrecognized", "unrecognised", "unexpected", "invalid"];

/// What programs say that could not have something: straight after a refusal, what that was for.
pub(super) const FAILED_TO_MAKE: Phrases = phrases![
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
    "could not set up",
    "failed to set up",
    "cannot set up",
    "can't setup", // pbzip2
];

/// What programs say that give up, and not why.
pub(super) const GIVES_UP: Phrases =
    phrases!["failed", "failure", "fatal", "crashed", "panicked", "giving up", "gave up", "aborting"];

/// What else stands in a line that says no more than that: with any other word it may tell of something else.
pub(super) const OF_THE_WHOLE: Phrases = phrases![
    "the", "a", "this", "it", "has", "have", "job", "jobs", "task", "worker", "thread", "process", "program",
    "run", "request", "error", "giving", "up", "gave",
];

/// Between two exceptions of CPython's: the second one came of the first.
pub(super) const CHAINS: Phrases =
    phrases!["during handling of the above exception", "the above exception was the direct cause"];

/// Behind Lua's error that nobody caught.
pub(super) const ERROR_BEHIND: &[u8] = b"stack traceback:";

#[inline(never)]
pub(super) fn says_any(text: &[u8], phrases: Phrases) -> bool {
    phrases.any(&mut |phrase| says(text, phrase))
}

/// Whether `phrase`, in small letters, is part of the text, in letters of any size and as whole words.
#[inline(never)]
pub(super) fn says(text: &[u8], phrase: &[u8]) -> bool {
    place(text, phrase, u8::is_ascii_alphanumeric, 0).is_some()
}

/// Whether it begins with `phrase`, which is in small letters, in letters of any size.
#[inline(never)]
pub(super) fn begins(text: &[u8], phrase: &[u8]) -> bool {
    text.len() >= phrase.len()
        && text.iter().zip(phrase).all(|(byte, letter)| byte.to_ascii_lowercase() == *letter)
}

/// What a name in a program is made of: `my_enomem_flag` does not say `enomem`.
pub(super) fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// Where `phrase`, in small letters, is in the text, in letters of any size, and not within a longer word.
pub(super) fn places<'a>(
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
pub(super) fn place(text: &[u8], phrase: &[u8], is_of_word: fn(&u8) -> bool, from: usize) -> Option<usize> {
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
