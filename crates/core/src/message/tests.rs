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
fn a_thread_that_misses_another_one_takes_nothing_back() {
    let mut story = Story::default();
    for (says, expected) in [
        ("failed to spawn thread: Os { code: 11, kind: WouldBlock }", Message::OutOfMemory),
        ("called `Result::unwrap()` on an `Err` value: SendError { .. }", Message::OutOfMemory),
        ("panic in a function that cannot unwind", Message::OutOfMemory),
        ("LazyLock instance has previously been poisoned", Message::OutOfMemory),
        ("index out of bounds", Message::OtherDeath),
        ("called `Result::unwrap()` on an `Err` value: SendError { .. }", Message::OtherDeath),
    ] {
        story.hear(format!("\nthread 'main' panicked at a.rs:3:5:\n{says}\n").as_bytes());
        assert_eq!(story.last, Some(expected), "{says}");
    }
}

#[test]
fn a_destructor_that_panics_takes_nothing_back_of_the_panic_that_ran_it() {
    const MEMORY: &str = "called `Result::unwrap()` on an `Err` value: OutOfMemory";
    const CLEANUP: &str = "panic in a destructor during cleanup";
    for (story, expected) in [
        ([MEMORY, "not flushed", CLEANUP], Message::OutOfMemory),
        (["no row 7", "not flushed", CLEANUP], Message::OtherDeath),
        ([MEMORY, "no row 7", "not flushed"], Message::OtherDeath),
    ] {
        let mut heard = Story::default();
        for says in story {
            heard.hear(format!("\nthread 'main' (7) panicked at a.rs:3:5:\n{says}\n").as_bytes());
        }
        assert_eq!(heard.last, Some(expected), "{story:?}");
    }
}

#[test]
fn a_thread_that_misses_another_one_takes_back_what_no_panic_said() {
    for (before, expected) in [
        ("cache: out of memory, so without\n", Message::OtherDeath),
        ("\nthread '1' panicked at a.rs:3:5:\ncapacity overflow: out of memory\n", Message::OutOfMemory),
    ] {
        let mut story = Story::default();
        for says in [before, "going on\n", "\nthread 'main' panicked at a.rs:7:5:\nError: RecvError\n"] {
            story.hear(says.as_bytes());
        }
        assert_eq!(story.last, Some(expected), "{before}");
    }
}

#[test]
fn a_claim_is_told_from_what_only_has_its_words() {
    for claim in [
        "python3: MemoryError: job 1 skipped",
        "sort: memory exhausted",
        "OpenBLAS error: Memory allocation still failed after 10 retries, giving up.",
        "OpenBLAS blas_thread_init: pthread_create failed for thread 3 of 64: Resource temporarily unavailable",
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space",
        "[FATAL] failed to allocate memory",
        "x.rb:1:in `*': failed to allocate memory (NoMemoryError)",
        "fatal error: runtime: out of memory",
        "fatal: Out of memory, malloc failed (tried to allocate 5 bytes)",
        "numpy._core._exceptions._ArrayMemoryError: Unable to ...",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "dash: 1: Out of space",
        "Error: /VMerror in --string--",
        "ways: no memory",
        "ways: no memory!",
        "ways: no memory for 300 rows",
        "Can't allocate 0x40000000 bytes for space 1",
        "No such luck: out of memory",
        "[Errno 12] Cannot allocate memory",
    ] {
        assert!(claims_failure_for_memory(claim.as_bytes()), "{claim}");
    }
    for other in [
        "warning: out of memory for the cache, going without",
        "out of memory, retrying with less",
        "using jemalloc 5.3",
        "check passed: no memory leaks found",
        "no memory leaks",
        "enomemo: bad config key",
        "the_enomem_flag is off",
        "FATAL:  role \"malloc\" does not exist",
        "+malloc()",
        "never out of memory in 7 days",
        "no out of memory errors",
        "what to do when out of memory",
        "exit on out of memory: yes",
        "virtual memory: 7 MB",
        "Last OS error: Cannot allocate memory",
        "GC Warning: Out of Memory! Heap size: 177 MiB. Returning NULL!",
        "torch: CUDA out of memory",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4GiB with allocator GPU_0_bfc on device 0.",
        "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 8,589,934,592 bytes",
        "cannot allocate memory: no space left on device",
        "out of memory: skipping row 7",
        "FAILED test_limit - expected MemoryError",
        "not ok 3: expected malloc failed, got a block",
        "cannot allocate TTY",
        "libx.so: cannot allocate memory in static TLS block",
        "memory: 64 MiB",
    ] {
        assert!(!claims_failure_for_memory(other.as_bytes()), "{other}");
    }
}

#[test]
fn a_story_ends_with_what_was_said_last() {
    use Message::{OtherDeath, OutOfMemory, Unrelated};
    const CHAINED: &str = "MemoryError\n\nDuring handling of the above exception, another exception occurred:\n\n\
                           Traceback (most recent call last):\n  File \"x\", line 7\nRuntimeError: job failed\n";
    for (text, last, goes_on) in [
        (
            "MemoryError: job 1 skipped\nTraceback (most recent call last):\nKeyError: 'id'\n",
            OtherDeath,
            false,
        ),
        (CHAINED, OutOfMemory, true),
        ("KeyError: 'id'\nMemoryError\n", OutOfMemory, false),
        (
            "java.lang.IllegalStateException: x\n\tat A.b\nCaused by: java.lang.OutOfMemoryError: y\n",
            OutOfMemory,
            false,
        ),
        ("out of memory\nFATAL:  terminating connection due to administrator command\n", OtherDeath, false),
        ("out of memory, dropping the cache\nx: input.csv: No such file or directory\n", Unrelated, false),
        ("out of memory\ngiving up now\n", OutOfMemory, true),
        (
            "skipped: not enough memory\nlua: job.lua:7: other\nstack traceback:\n\t[C]: in ?\n",
            OtherDeath,
            false,
        ),
        ("lua: job.lua:7: not enough memory\nstack traceback:\n\t[C]: in ?\n", OutOfMemory, false),
        ("Uncaught TypeError: x is not a function\n", OtherDeath, false),
        ("TypeError: out of memory is not a function\n", OtherDeath, false),
        ("KeyError: 'MemoryError'\n", OtherDeath, false),
        ("RuntimeError: out of memory\n", OutOfMemory, false),
        (
            "Allowed memory size of 33554432 bytes exhausted (tried to allocate 20480 bytes)\n",
            OtherDeath,
            false,
        ),
        ("Error: could not process\n", Unrelated, false),
    ] {
        let mut story = Story::default();
        for piece in text.split_inclusive('\n') {
            story.hear(piece.as_bytes());
        }
        assert_eq!((story.last, story.goes_on), (Some(last), goes_on), "{text}");
        let mut at_once = Story::default();
        at_once.hear(text.as_bytes());
        assert_eq!(at_once.last, story.last, "{text}");
    }
}

#[test]
fn a_line_that_tells_how_it_copes_may_come_in_pieces() {
    let mut story = Story::default();
    for (piece, expected) in [
        ("warning: no cache: ", Message::Unrelated),
        ("out of memory", Message::Unrelated),
        (" (os error 12)", Message::Unrelated),
        ("\n", Message::Unrelated),
        ("Error: ", Message::Unrelated),
        ("out of memory", Message::OutOfMemory),
    ] {
        story.hear(piece.as_bytes());
        assert_eq!(story.last, Some(expected), "{piece}");
    }
}

#[test]
fn words_are_passed_on_where_no_claim_is_made_but_in_lines_that_were_read() {
    let read = b"starting\nworker 7: out of memory\nstopping";
    for (says, expected) in [
        ("worker 7: out of memory\n", true),
        ("starting\nlog: worker 7: out of memory\n", true),
        ("worker 7: out of memory\nlog: out of memory\n", false),
        ("out of memory", false),
        ("stopping", false),
    ] {
        let claims = |line: &[u8]| Message::of(line) == Some(Message::OutOfMemory);
        assert_eq!(is_passed_on(says.as_bytes(), claims, |is_it| is_it(read)), expected, "{says}");
    }
}

#[test]
fn what_else_was_said_is_told_apart() {
    // What was said, what came last, whether it is another failure, whether it could not have something.
    for (text, last, fails_otherwise, fails_to_make) in [
        ("Failed to init hashtable.", Some(Message::Unrelated), false, true),
        ("Failed to init hashtable: No such file", Some(Message::Unrelated), true, false),
        ("starting up\nFailed to init hashtable.", Some(Message::Unrelated), false, false),
        ("main.conf:3: unknown keyword", Some(Message::Unrelated), true, false),
        ("Error: /undefined in nosuchname", Some(Message::Unrelated), true, false),
        (
            "internal error\n(GHC version 9.0.2 for x86_64_unknown_linux)",
            Some(Message::Unrelated),
            false,
            false,
        ),
        ("built for x86_64-unknown-linux-gnu", Some(Message::Unrelated), false, false),
        ("out of memory\nunknown storage engine: InnoDB", Some(Message::OutOfMemory), false, false),
        ("GC Warning: Failed to expand heap by 8388608 bytes", None, false, false),
        ("Last OS error: Cannot allocate memory", None, false, false),
    ] {
        let mut story = Story::default();
        story.hear(text.as_bytes());
        let told = (story.last, story.fails_otherwise, story.fails_to_make);
        assert_eq!(told, (last, fails_otherwise, fails_to_make), "{text}");
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
        ("called `Result::unwrap()` on an `Err` value: \"WouldBlock\"", PanicWords::SOMETHING),
        ("called `Result::unwrap()` on an `Err` value: Kind(WouldBlock)", PanicWords::SOMETHING),
        ("Custom { kind: WouldBlock, error: \"no row yet\" }", PanicWords::SOMETHING),
        ("no pool: WouldBlock", PanicWords::SOMETHING.and(PanicWords::TRY_AGAIN)),
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
            "OutOfMemory\nfatal runtime error: Rust cannot catch foreign exceptions, aborting\n",
            Some(Message::OutOfMemory),
        ),
        (
            "thread 'main' has overflowed its stack\nfatal runtime error: stack overflow, aborting\n",
            Some(Message::OtherDeath),
        ),
        ("100 %\n", None),
    ] {
        assert_eq!(last_word(text.as_bytes()).map(|last| last.message), expected, "{text}");
    }
}

#[test]
fn who_gives_up_says_so_and_no_more() {
    for (text, expected) in [
        ("the job has failed\n", true),
        ("fatal: worker 3\n", true),
        ("failed to read the settings\n", false),
        ("login failed for user bob\n", false),
        ("checksum of job 2 failed\n", false),
        ("fatal: bad configuration in line 3\n", false),
        ("bad configuration\n", false),
        ("the job has failed\nbad configuration\n", false),
    ] {
        assert_eq!(last_word(text.as_bytes()).map(|last| last.gives_up), Some(expected), "{text}");
    }
}

#[test]
fn assertions_about_pointers_are_told_from_others() {
    for yes in
        ["p", "p != NULL", "NULL != node->next", "buffer->data", "*slot", "ptr != nullptr", "p!=MAP_FAILED"]
    {
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
