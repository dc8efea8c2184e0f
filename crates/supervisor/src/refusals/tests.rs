use super::*;

const MIB: u64 = 1 << 20;
const START: Moment = Moment { used_ns: 0, at_ms: 0 };

fn anew(bytes: u64) -> Sought {
    Sought { bytes, grown_from: 0 }
}

fn used(used_ns: u64) -> Moment {
    Moment { used_ns, at_ms: 0 }
}

fn end_at(now: Moment, in_use: Option<u64>) -> End {
    End {
        now,
        limit: 64 * MIB,
        whole: 64 * MIB,
        in_use,
        has_waited_for_child: false,
        signal: 0,
        code: 0,
        has_left_handler: false,
        is_of_panic: false,
    }
}

fn say(refusals: &mut Refusals, message: Message, now: Moment) {
    let text: &[u8] = match message {
        Message::OutOfMemory => b"worker: out of memory\n",
        Message::OtherDeath => b"thread 'main' panicked at src/main.rs\n",
        Message::Unrelated => b"usage: worker FILE\n",
    };
    assert_eq!(Message::of(text), Some(message));
    refusals.note_said(text, b"", true, now);
}

fn refused(requests: &[u64]) -> Refusals {
    let mut refusals = Refusals::default();
    for bytes in requests {
        refusals.note_refused(1, anew(*bytes), true, START);
    }
    refusals
}

fn after(mut refusals: Refusals, granted: &[(u32, u64)]) -> bool {
    for (tid, bytes) in granted {
        refusals.note_mapped(*tid, *bytes, true, enough(64 * MIB));
    }
    refusals.is_wanting()
}

#[test]
fn what_was_made_good_is_no_longer_wanted() {
    for (requests, granted, wanting) in [
        (&[][..], &[][..], false),
        (&[MIB], &[], true),
        (&[MIB], &[(1, MIB)], false),
        (&[MIB], &[(1, MIB - 1)], true),
        // brk refused, then mmap: the C library's second way.
        (&[132 << 10], &[(1, MIB)], false),
        // brk and mmap refused, then another arena: what was asked for is the smaller.
        (&[132 << 10, MIB], &[(1, 132 << 10)], false),
        // A large one, and afterwards the little that saying so takes.
        (&[64 * MIB, 64 * MIB], &[(1, 132 << 10), (1, 4096)], true),
        // Half of a reservation, but no less than that.
        (&[64 * MIB], &[(1, 32 * MIB)], false),
        (&[64 * MIB], &[(1, 15 * MIB)], true),
        // Another thread's success says nothing of this one's want …
        (&[MIB], &[(2, 2 * MIB)], true),
        // … unless the whole process goes on.
        (&[MIB], &[(2, 8 * MIB), (3, 8 * MIB)], false),
        (&[1 << 40], &[(1, 10 * MIB), (1, 10 * MIB)], false),
    ] {
        assert_eq!(after(refused(requests), granted), wanting, "{requests:?} {granted:?}");
    }
}

#[test]
fn a_refusal_after_a_success_is_another_want() {
    let mut refusals = refused(&[64 * MIB]);
    refusals.note_mapped(1, 4096, true, enough(0));
    refusals.note_refused(1, anew(4096), true, START);
    refusals.note_mapped(1, 4096, true, enough(0));
    assert!(refusals.is_wanting(), "the large one is still wanted");
}

#[test]
fn a_reservation_does_not_make_good_what_was_to_be_written() {
    let mut refusals = refused(&[MIB]);
    refusals.note_mapped(1, 64 * MIB, false, enough(0));
    assert!(refusals.is_wanting());
}

#[test]
fn the_heaps_end_tells_what_was_asked_for() {
    let mut refusals = Refusals::default();
    assert_eq!(refusals.of_break(500, 100), Outcome::Refused { bytes: 400, writable: true });
    assert_eq!(refusals.of_break(300, 300), Outcome::Mapped { bytes: 200, writable: true });
    assert_eq!(refusals.of_break(300, 300), Outcome::Mapped { bytes: 0, writable: true });
    assert_eq!(refusals.of_break(200, 200), Outcome::Released { bytes: 100 });
}

#[test]
fn what_a_process_does_after_a_refusal_tells_whether_it_dies_of_it() {
    use Message::{OtherDeath, OutOfMemory, Unrelated};
    const FULL: Option<u64> = Some(63 * MIB);
    const FREE: Option<u64> = Some(8 * MIB);
    for (bytes, said, worked_ns, in_use, fatal) in [
        // Full to the end; whatever it did meanwhile.
        (2 * MIB, None, 0, FULL, true),
        (2 * MIB, None, 20_000_000, FULL, true),
        (2 * MIB, None, 20_000_000, None, true),
        (2 * MIB, Some(OtherDeath), 0, FULL, false),
        // It gave its memory back …
        (2 * MIB, None, 0, FREE, true),
        (2 * MIB, None, STRAIGHT_NS, FREE, true),
        (2 * MIB, Some(Unrelated), 0, FREE, false),
        (2 * MIB, Some(Unrelated), 0, FULL, true),
        (2 * MIB, None, STRAIGHT_NS + 1, FREE, false),
        (2 * MIB, Some(OutOfMemory), ANNOUNCED_NS, FREE, true),
        (2 * MIB, Some(OutOfMemory), ANNOUNCED_NS + 1, FREE, false),
        // Small ones are taken in steps.
        (4096, None, 20_000_000, Some(64 * MIB - (64 << 10)), true),
        (4096, None, 20_000_000, Some(63 * MIB), false),
        // What cannot be is missing for ever.
        (1 << 40, None, 0, FREE, true),
        (1 << 40, None, 20_000_000, FULL, false),
    ] {
        let mut refusals = Refusals::default();
        refusals.note_refused(1, anew(bytes), true, used(500));
        if let Some(message) = said {
            say(&mut refusals, message, used(500));
        }
        let end = end_at(used(500 + worked_ns), in_use);
        assert_eq!(refusals.are_fatal(end), fatal, "{bytes} {said:?} {end:?}");
    }
    let end = end_at(START, FULL);
    assert!(!Refusals::default().are_fatal(end), "nothing was refused");
}

#[test]
fn a_refusal_ages_by_work_and_by_time() {
    use Message::{OutOfMemory, Unrelated};
    let full = Some(63 * MIB);
    for (said, in_use, ns, ms) in [
        (None, Some(0), STRAIGHT_NS, STRAIGHT_MS),
        (Some(OutOfMemory), Some(0), ANNOUNCED_NS, ANNOUNCED_MS),
        (None, full, MISSING_NS, MISSING_MS),
        (Some(OutOfMemory), full, MISSING_NS, MISSING_MS),
        (Some(Unrelated), full, SPOKEN_NS, SPOKEN_MS),
    ] {
        let is_fatal = |used_ns, at_ms| {
            let mut refusals = refused(&[2 * MIB]);
            if let Some(message) = said {
                say(&mut refusals, message, START);
            }
            let end = end_at(Moment { used_ns, at_ms }, in_use);
            refusals.are_fatal(end)
        };
        assert!(is_fatal(ns, ms), "{said:?} {in_use:?}");
        assert!(!is_fatal(ns + 1, ms), "{said:?} {in_use:?}: it has worked");
        assert!(!is_fatal(ns, ms + 1), "{said:?} {in_use:?}: it has waited");
    }
    let refusals = refused(&[MIB]);
    assert!(
        refusals.are_worth_watching(used(WATCHED_NS)) && !refusals.are_worth_watching(used(WATCHED_NS + 1))
    );
    assert!(!Refusals::default().are_worth_watching(START));
}

#[test]
fn who_goes_on_with_other_things_has_got_over_it() {
    let full = Some(64 * MIB);
    let is_fatal_after = |goes_on: fn(&mut Refusals)| {
        let mut refusals = refused(&[2 * MIB]);
        goes_on(&mut refusals);
        refusals.are_fatal(end_at(START, full))
    };
    let late = Moment { used_ns: 0, at_ms: OTHERS_MS + 1 };
    assert!(is_fatal_after(|_| ()));
    assert!(is_fatal_after(|refusals| refusals.note_forked(2, START)), "another thread's child");
    for (nr, goes_on) in [
        (|refusals| refusals.note_forked(1, START)) as fn(&mut Refusals),
        |refusals| refusals.note_forked(2, Moment { used_ns: 0, at_ms: OTHERS_MS + 1 }),
        |refusals| refusals.note_read(b"rows", b""),
        |refusals| refusals.note_said(b"input.csv: No such file or directory\n", b"", true, START),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(!is_fatal_after(goes_on), "{nr}");
    }
    let waited = End { has_waited_for_child: true, ..end_at(START, full) };
    assert!(!refused(&[2 * MIB]).are_fatal(waited));
    // And then it is refused again, or says that it was.
    for (is_of_stack, fatal) in [(true, false), (false, true)] {
        let mut refusals = refused(&[2 * MIB]);
        refusals.is_of_stack = is_of_stack;
        refusals.note_wait_for_thread();
        assert_eq!(refusals.are_fatal(end_at(START, full)), fatal, "{is_of_stack}");
        say(&mut refusals, Message::OutOfMemory, START);
        assert!(refusals.are_fatal(end_at(START, full)));
    }
    let mut refusals = refused(&[2 * MIB]);
    refusals.note_goes_on();
    refusals.note_refused(1, anew(2 * MIB), true, late);
    assert!(refusals.are_fatal(end_at(late, full)));
    refusals.note_goes_on();
    say(&mut refusals, Message::OutOfMemory, late);
    assert!(refusals.are_fatal(end_at(late, full)));
}

#[test]
fn who_says_what_it_has_read_passes_it_on() {
    let full = Some(64 * MIB);
    let later = Moment { used_ns: 0, at_ms: 2_000 };
    for (read, fatal) in [
        (&b"rows\r\nworker: out of memory\r\nrows"[..], false),
        (b"out of memory\n", false),
        (b"worker 7: out of memory\n", true),
        (b"worker: \n", true),
        (b"", true),
    ] {
        let mut refusals = refused(&[2 * MIB]);
        refusals.note_read(read, b"");
        say(&mut refusals, Message::OutOfMemory, later);
        assert_eq!(refusals.are_fatal(end_at(later, full)), fatal, "{read:?}");
    }
    // That it fails at something else is its own.
    let mut refusals = refused(&[2 * MIB]);
    say(&mut refusals, Message::OutOfMemory, START);
    refusals.note_read(b"worker 7: out of memory\n", b"");
    say(&mut refusals, Message::OtherDeath, later);
    assert!(!refusals.are_fatal(end_at(later, full)));
}

#[test]
fn who_misses_a_file_in_silence_has_its_own_reason() {
    for (errno, code, fatal) in [
        (libc::ENOENT, 3, false),
        (libc::ECONNREFUSED, 3, false),
        (libc::ENOENT, 0, true),
        (libc::ENOTTY, 3, true),
        (libc::EBADF, 3, true),
    ] {
        let mut refusals = refused(&[2 * MIB]);
        refusals.note_failed(errno);
        let end = End { code, ..end_at(START, Some(64 * MIB)) };
        assert_eq!(refusals.are_fatal(end), fatal, "{errno} {code}");
        refusals.note_failed(libc::ENOENT);
        refusals.note_refused(1, anew(MIB), true, START);
        assert!(refusals.are_fatal(end));
    }
}

#[test]
fn words_about_something_else_count_only_where_there_is_room() {
    for (in_use, fatal) in [(63 * MIB, true), (40 * MIB, false)] {
        let mut refusals = refused(&[32 * MIB]);
        say(&mut refusals, Message::Unrelated, START);
        assert_eq!(refusals.are_fatal(end_at(START, Some(in_use))), fatal, "{in_use}");
    }
    // A thread's stack is one large request.
    let mut refusals = refused(&[32 * MIB]);
    refusals.note_said(b"pthread_create: Resource temporarily unavailable\n", b"", true, START);
    assert!(refusals.are_fatal(end_at(START, Some(40 * MIB))));
}

#[test]
fn memory_is_spoken_of_in_the_users_language() {
    let words = "Nicht genügend Hauptspeicher verfügbar";
    let line = format!("eat: {words}\n");
    let dropped = format!("warning: {words}\n");
    for (said, no_memory, fatal) in [(&line, words, true), (&line, "", false), (&dropped, words, false)] {
        let mut refusals = refused(&[MIB]);
        refusals.note_said(said.as_bytes(), no_memory.as_bytes(), true, START);
        assert_eq!(refusals.are_fatal(end_at(used(STRAIGHT_NS + 1), Some(0))), fatal, "{said}");
    }
}

#[test]
fn who_takes_again_what_it_gave_back_goes_on() {
    for (released, taken, tid, fatal) in [
        (32 * MIB, TAKEN_AGAIN_BYTES, 1, false),
        (32 * MIB, TAKEN_AGAIN_BYTES - 1, 1, true),
        (32 * MIB, TAKEN_AGAIN_BYTES, 2, true),
        (4096, TAKEN_AGAIN_BYTES, 1, true),
    ] {
        let mut refusals = refused(&[MIB]);
        refusals.note_released(released, 0, START, 64 * MIB);
        refusals.note_mapped(tid, taken, true, enough(0));
        assert_eq!(refusals.are_fatal(end_at(START, Some(0))), fatal, "{released} {taken} {tid}");
    }
}

#[test]
fn who_throws_as_go_does_ends_of_that_however_long_it_speaks() {
    let late = Moment { used_ns: 60_000_000_000, at_ms: 60_000 };
    const OF_MEMORY: &[&str] = &["runtime: out of memory", "runtime.throw"];
    for (said, code, signal, fatal) in [
        (OF_MEMORY, 2, 0, true),
        (OF_MEMORY, 0, libc::SIGABRT, true),
        (OF_MEMORY, 0, libc::SIGTERM, false),
        // It has only told of another's.
        (OF_MEMORY, 3, 0, false),
        (&["runtime: out of memory", "main.main"], 2, 0, false),
        (&["fatal error: ", "all goroutines are asleep", "runtime.throw"], 2, 0, false),
    ] {
        let mut refusals = refused(&[MIB]);
        for text in said {
            refusals.note_said(text.as_bytes(), b"", true, START);
        }
        let end = End { signal, code, ..end_at(late, Some(0)) };
        assert_eq!(refusals.are_fatal(end), fatal, "{said:?} {code} {signal}");
        refusals.note_opened(b"/var/log/workers");
        assert!(!refusals.are_fatal(end), "{said:?}: it has gone on");
    }
}

#[test]
fn who_panics_as_go_does_ends_of_what_the_panic_says() {
    const MAP: &str = "cache off: cannot allocate memory\n";
    for (said, fatal) in [
        (&[MAP, "panic: ", "index corrupted", "\n"][..], false),
        (&["panic: ", "index corrupted", "\n"], false),
        (&["fatal error: ", "concurrent map writes", "\n"], false),
        (&["fatal error: ", "runtime: out of memory", "\n"], true),
        (&["runtime: failed to create new OS thread", "fatal error: ", "runtime.newosproc"], true),
        (&[MAP, "fatal error: ", "sync: unlock of unlocked mutex", "\n"], false),
        (&[MAP, "panic: ", "cannot allocate memory", "\n"], true),
        (&[MAP, "fatal error: ", "all goroutines are asleep - deadlock!", "\n"], false),
        (&[MAP, "fatal error: ", "concurrent map writes", "\n"], false),
        (
            &[MAP, "runtime: goroutine stack exceeds ", "fatal error: ", "stack overflow", "runtime.throw"],
            false,
        ),
    ] {
        let mut refusals = refused(&[MIB]);
        for text in said {
            refusals.note_said(text.as_bytes(), b"", true, START);
        }
        assert_eq!(refusals.are_fatal(end_at(START, Some(64 * MIB))), fatal, "{said:?}");
    }
}

#[test]
fn who_opens_a_file_goes_on_unless_it_is_for_words() {
    for (name, fatal) in [
        (&b"/etc/eat.conf"[..], false),
        (b"", false),
        (b"/usr/share/locale/de/LC_MESSAGES/libc.mo", true),
        (b"/etc/localtime", true),
    ] {
        let mut refusals = refused(&[MIB]);
        refusals.note_opened(name);
        assert_eq!(refusals.are_fatal(end_at(START, Some(0))), fatal, "{name:?}");
    }
}

#[test]
fn a_message_for_the_systems_log_begins_with_its_priority() {
    for (text, is_one) in [
        (&b"<11>Nov 26 21:00:00 eat: out of memory"[..], true),
        (b"<b>out of memory</b>", false),
        (b"<11 out of memory", false),
        (b"<>", false),
        (b"ERROR out of memory", false),
    ] {
        assert_eq!(is_for_system_log(text), is_one);
    }
}

#[test]
fn giving_back_is_no_work() {
    for (released, fatal) in [(64 * MIB, true), (4096, false)] {
        let mut refusals = refused(&[MIB]);
        refusals.note_released(released, 0, used(20 * STRAIGHT_NS), 64 * MIB);
        let end = end_at(used(20 * STRAIGHT_NS), Some(0));
        assert_eq!(refusals.are_fatal(end), fatal, "{released}");
    }
    // What the calls themselves take is none either.
    for (took_ns, fatal) in [(19 * STRAIGHT_NS, true), (18 * STRAIGHT_NS, false)] {
        let mut refusals = refused(&[MIB]);
        refusals.note_released(4096, took_ns, used(20 * STRAIGHT_NS), 64 * MIB);
        let end = end_at(used(20 * STRAIGHT_NS), Some(0));
        assert_eq!(refusals.are_fatal(end), fatal, "{took_ns}");
    }
}

#[test]
fn a_crash_counts_if_it_is_of_what_was_refused_and_comes_at_once() {
    let crash = |now, in_use| End { signal: libc::SIGSEGV, ..end_at(now, Some(in_use)) };
    let late = used(STRAIGHT_NS + 1);
    const STACK: u64 = 1 << 46;
    let at = |address| Access { address, is_mapped: false, is_sought: false, stack_pointer: Some(STACK) };
    let denied = |address| Access { is_mapped: true, ..at(address) };
    for (access, now, fatal) in [
        (Some(at(8)), START, true),
        (Some(at(u64::MAX)), START, true),
        (Some(at(8)), late, false),
        (Some(at(1 << 40)), START, false),
        (Some(Access { is_sought: true, ..denied(1 << 40) }), START, true),
        (Some(denied(1 << 40)), START, false),
        (None, START, false),
    ] {
        let mut refusals = refused(&[MIB]);
        refusals.note_fault(1, access, now);
        // Its own handler speaks of something else.
        say(&mut refusals, Message::Unrelated, now);
        assert_eq!(refusals.are_fatal(crash(now, 0)), fatal, "{access:?}");
    }
    // Without a word the address alone tells: not of a block, nor of a stack.
    for (access, in_use, fatal) in [
        (Some(at(8)), 0, true),
        (Some(at(STACK - 4096)), 64 * MIB, true),
        (Some(at(1 << 40)), 0, false),
        (Some(at(1 << 40)), 64 * MIB, false),
        (Some(denied(1 << 40)), 64 * MIB, false),
        (None, 64 * MIB, false),
    ] {
        let mut refusals = refused(&[MIB]);
        refusals.note_fault(1, access, START);
        assert_eq!(refusals.are_fatal(crash(START, in_use)), fatal, "{access:?} {in_use}");
    }
}

#[test]
fn a_fault_that_no_missing_block_raises_is_another_end() {
    for (signal, empty, full) in [
        // Not one that comes when there is room again.
        (libc::SIGABRT, false, true),
        (libc::SIGILL, true, true),
        (libc::SIGBUS, false, false),
        (libc::SIGFPE, false, false),
        (libc::SIGSYS, false, false),
    ] {
        for (in_use, fatal) in [(0, empty), (64 * MIB, full)] {
            let end = End { signal, ..end_at(START, Some(in_use)) };
            assert_eq!(refused(&[MIB]).are_fatal(end), fatal, "{signal} {in_use}");
        }
    }
    let end = End { signal: libc::SIGABRT, ..end_at(START, Some(0)) };
    assert!(refused(&[1 << 40]).are_fatal(end), "it can never be had");
}

#[test]
fn a_signal_that_it_sends_itself_counts_after_its_words() {
    for (said, is_own, fatal) in [(true, true, true), (true, false, false), (false, true, false)] {
        let mut refusals = refused(&[MIB]);
        if said {
            say(&mut refusals, Message::OutOfMemory, START);
        }
        if is_own {
            refusals.note_signal_to_itself(START);
        }
        let end = End { signal: libc::SIGINT, ..end_at(START, Some(0)) };
        assert_eq!(refusals.are_fatal(end), fatal, "{said} {is_own}");
    }
}

#[test]
fn who_waits_again_and_again_after_its_words_is_a_server() {
    for (waits, ms, fatal) in [
        (MOST_WAITS, 9_000, true),
        (MOST_WAITS + 1, SERVING_MS, true),
        (MOST_WAITS + 1, SERVING_MS + 1, false),
    ] {
        let mut refusals = refused(&[MIB]);
        say(&mut refusals, Message::OutOfMemory, START);
        (0..waits).for_each(|_| refusals.note_wait());
        let end = Moment { used_ns: 0, at_ms: ms };
        assert_eq!(refusals.are_fatal(end_at(end, Some(0))), fatal, "{waits} {ms}");
    }
}

#[test]
fn a_thread_that_ends_after_its_refusal_leaves_it_to_others() {
    for (tid, in_use, fatal) in [(1, 0, false), (1, 64 * MIB, true), (2, 0, true)] {
        let mut refusals = refused(&[MIB]);
        refusals.note_thread_ended(tid);
        assert_eq!(refusals.are_fatal(end_at(START, Some(in_use))), fatal, "{tid} {in_use}");
    }
}

#[test]
fn a_thread_that_aborts_and_was_refused_nothing_has_its_own_reason() {
    let abort = |in_use| End { signal: libc::SIGABRT, ..end_at(START, Some(in_use)) };
    for (tid, bytes, in_use, fatal) in
        [(1, 1 << 40, 0, true), (2, 1 << 40, 0, false), (2, MIB, 64 * MIB, true)]
    {
        let mut refusals = refused(&[bytes]);
        refusals.note_end_by(tid);
        assert_eq!(refusals.are_fatal(abort(in_use)), fatal, "{tid} {in_use}");
    }
    // Not all of those are known that were refused something.
    let mut refusals = refused(&[1 << 40]);
    (2..=8).for_each(|tid| refusals.note_refused(tid, anew(1 << 40), true, START));
    refusals.note_end_by(9);
    assert!(refusals.are_fatal(abort(0)));
}

#[test]
fn a_thread_that_has_slept_and_was_refused_nothing_ends_it_for_its_own_reasons() {
    for (tid, used_ns, idle_ms, fatal) in [
        (2, 0, OTHERS_MS, true),
        (2, 0, OTHERS_MS + 1, false),
        (2, 5_000_000_000, OTHERS_MS, true),
        (1, 0, OTHERS_MS + 1, true),
    ] {
        let mut refusals = refused(&[2 * MIB]);
        refusals.note_end_by(tid);
        let now = Moment { used_ns, at_ms: idle_ms + used_ns / 1_000_000 };
        let end = End { code: 3, ..end_at(now, Some(64 * MIB)) };
        assert_eq!(refusals.are_fatal(end), fatal, "{tid} {used_ns} {idle_ms}");
    }
}

#[test]
fn who_gives_back_the_block_that_was_to_grow_has_made_no_room() {
    let abort = |in_use| End { signal: libc::SIGABRT, ..end_at(START, Some(in_use)) };
    for (grown_from, in_use, fatal) in
        [(32 * MIB, 33 * MIB, true), (32 * MIB, MIB, true), (0, 33 * MIB, true), (0, MIB, false)]
    {
        let mut refusals = Refusals::default();
        refusals.note_refused(1, Sought { bytes: 32 * MIB, grown_from }, true, START);
        assert_eq!(refusals.are_fatal(abort(in_use)), fatal, "{grown_from} {in_use}");
    }
}

#[test]
fn a_refusal_comes_after_what_was_said_before() {
    let mut refusals = refused(&[MIB]);
    say(&mut refusals, Message::Unrelated, START);
    refusals.note_refused(1, anew(MIB), true, START);
    assert!(refusals.are_fatal(end_at(START, Some(0))));
}

#[test]
fn sixty_four_threads_fail_at_once_in_eight_places() {
    let mut refusals = Refusals::default();
    for tid in 0..64 {
        refusals.note_refused(tid, anew(MIB), true, START);
    }
    assert_eq!(refusals.count, 64);
    for tid in 0..63 {
        refusals.note_mapped(tid, MIB, true, u64::MAX);
    }
    assert!(refusals.is_wanting());
}
