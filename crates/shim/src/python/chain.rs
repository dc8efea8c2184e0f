//! Whether an exception came about because memory was refused: it, or one that it was raised from or while handling,
//! which `raise … from None` keeps as well (`__context__`), is a `MemoryError` that the program has not raised for reasons of
//! its own.

use super::interpreter::{self, Owned};
use super::raised;
use oomguard_core::message::Message;
use oomguard_core::text::place_of;

/// What a chain of exceptions tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// There is a `MemoryError` of the interpreter's in it.
    Memory,
    /// There is none, or one with words of a library's; or one of its messages speaks of memory, of a thread or a library that there was no room for, or
    /// says that something failed without saying why.
    Speaks,
    /// It is about something else.
    Other,
}

/// So many exceptions are looked at: chains may be circles.
const MOST_EXCEPTIONS: usize = 64;
/// So many are kept for later: groups fan out.
const MOST_WAITING: usize = 32;

/// Only for who holds the interpreter's lock, with no exception on its way.
pub(super) fn look(exception: Owned) -> Chain {
    let mut waiting = [const { None }; MOST_WAITING];
    let mut chain = Chain::Other;
    add(&mut waiting, Some(exception));
    for _ in 0..MOST_EXCEPTIONS {
        let Some(exception) = waiting.iter_mut().rev().find_map(Option::take) else { break };
        // SAFETY: an exception; gives a reference or null.
        let cause = Owned::new(unsafe { interpreter::cause_of(exception.as_ptr()) });
        let is_memory = exception.matches(interpreter::memory_error());
        // What came of a refusal has the interpreter's own one in its chain.
        let is_programs = is_memory && raised::is_by_program(&exception) == Some(true);
        if is_memory && !is_programs {
            let is_remote = cause.as_ref().is_some_and(is_from_another_process);
            if !is_remote && !has_words(&exception) {
                return Chain::Memory;
            }
            chain = Chain::Speaks;
        } else if !is_programs && speaks(&exception) {
            chain = Chain::Speaks;
        }
        add(&mut waiting, cause);
        // SAFETY: as above.
        add(&mut waiting, Owned::new(unsafe { interpreter::context_of(exception.as_ptr()) }));
        if exception.is_exception_group() {
            add_members(&mut waiting, &exception);
        }
    }
    chain
}

fn add(waiting: &mut [Option<Owned>; MOST_WAITING], exception: Option<Owned>) {
    // A hook may be handed None, and anybody may have put anything into `sys`.
    let exception = exception.filter(|object| object.matches(interpreter::base_exception()));
    if let Some(slot) = waiting.iter_mut().find(|slot| slot.is_none()) {
        *slot = exception;
    }
}

fn add_members(waiting: &mut [Option<Owned>; MOST_WAITING], group: &Owned) {
    let Some(members) = group.attribute(c"exceptions") else { return interpreter::forget_raised() };
    // SAFETY: an object.
    let len = unsafe { interpreter::length_of(members.as_ptr()) };
    for index in 0..len.clamp(0, MOST_WAITING as isize) {
        // SAFETY: a sequence; gives a reference or null.
        add(waiting, Owned::new(unsafe { interpreter::item_of(members.as_ptr(), index) }));
    }
    interpreter::forget_raised();
}

/// Whether a pool has sent it here from a worker, whose memory it was: `multiprocessing`, `concurrent.futures` and loky
/// put a text in the place of its cause.
fn is_from_another_process(cause: &Owned) -> bool {
    let name = cause.attribute(c"__class__").and_then(|kind| kind.attribute(c"__name__"));
    let is = name.and_then(|name| name.with_text(|name| name.ends_with(b"RemoteTraceback")));
    interpreter::forget_raised();
    is == Some(true)
}

/// Whether it has a text of its own, which the one that CPython raises for a refusal has not: the program has raised it, or
/// a library. That speaks of memory, and may be about anything.
fn has_words(exception: &Owned) -> bool {
    let Some(arguments) = exception.attribute(c"args") else {
        interpreter::forget_raised();
        return false;
    };
    // SAFETY: an object.
    let len = unsafe { interpreter::length_of(arguments.as_ptr()) };
    if len != 1 {
        interpreter::forget_raised();
        return false;
    }
    // SAFETY: a sequence; gives a reference or null.
    let first = Owned::new(unsafe { interpreter::item_of(arguments.as_ptr(), 0) });
    let kind =
        first.and_then(|first| first.attribute(c"__class__")).and_then(|kind| kind.attribute(c"__name__"));
    let is_text = kind.and_then(|name| name.with_text(|name| name == b"str"));
    interpreter::forget_raised();
    is_text == Some(true)
}

fn speaks(exception: &Owned) -> bool {
    // Whoever did not check what malloc gave has failed without saying why.
    if exception.matches(interpreter::system_error()) {
        return true;
    }
    let speaks = exception.with_text(|text| {
        Message::of(text) == Some(Message::OutOfMemory)
            || CANNOT_LOAD.iter().any(|words| place_of(text, words).is_some())
    });
    interpreter::forget_raised();
    speaks == Some(true)
}

/// The dynamic linker, of a library for which there was no room.
const CANNOT_LOAD: [&[u8]; 2] = [b"failed to map segment", b"cannot map zero-fill pages"];
