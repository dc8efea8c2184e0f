//! What is tried before a refusal is passed on, and what is noted of it. How a process ends is decided elsewhere.

use super::arenas;
use super::armed::{Armed, armed};
use super::callbacks::RECLAIM;
use super::exhaustion::{self, Own, Verdict};
use super::lease::Kind;
use super::notes::{self, Asker};
use super::standing::{self, Standing};
use super::{filter, library, panics, profile, record, refused, reserve, resident, rust, said, written};
use oomguard_core::backoff::Backoff;
use oomguard_core::busy::Busy;
use oomguard_core::contract::{Cause, Evidence, Measure, OnRefusal};
use oomguard_core::report::Request;
use oomguard_core::shortage::{Asked, Full};
use oomguard_core::sys;
use oomguard_core::sys::memory::rlimit;

/// An allocation was refused: `again` repeats it. The block, or null where the program has to cope.
pub(super) fn handle_allocation(request: Request, again: &mut dyn FnMut() -> *mut u8) -> *mut u8 {
    let mut block = core::ptr::null_mut();
    let cause = if injected() { Cause::Injected } else { Cause::Heap };
    handle(cause, Asker::Rust, request, &mut || {
        block = again();
        !block.is_null()
    });
    block
}

#[cfg(feature = "inject")]
fn injected() -> bool {
    super::inject::is_refusing()
}

#[cfg(not(feature = "inject"))]
fn injected() -> bool {
    false
}

/// Something was refused: `again` repeats it and tells whether it worked. True if it did in the end. `errno` is left as
/// it is.
pub(super) fn handle(cause: Cause, asker: Asker, request: Request, again: &mut dyn FnMut() -> bool) -> bool {
    let Some(armed) = armed() else { return false };
    let errno = sys::errno::errno();
    let survived = handle_armed(armed, cause, asker, request, again);
    sys::errno::set_errno(errno);
    survived
}

fn handle_armed(
    armed: &Armed,
    cause: Cause,
    asker: Asker,
    request: Request,
    again: &mut dyn FnMut() -> bool,
) -> bool {
    match standing::here() {
        Standing::Dying => return reserve::lend_to_speaker(armed, again),
        Standing::Outlived => standing::park(armed),
        Standing::Alive => {}
    }
    if library::in_charge().is_some_and(|library| (library.is_finding_out)()) {
        return reserve::lend(armed, again);
    }
    // May it have more? From here on each try may ask again: what is given back makes room.
    let try_again = again;
    let mut ask_again = || try_again() || resident::ask(armed, request.bytes, try_again);
    let again: &mut dyn FnMut() -> bool = &mut ask_again;
    if cause != Cause::Injected && resident::ask(armed, request.bytes, again) {
        return true;
    }
    // A refusal inside a callback, or inside what we call: no recursion, it is simply a refusal.
    if refused::is_handling() {
        note(cause, asker, request);
        return false;
    }
    // The C library says ENOMEM for more than one reason. Asked before anything is given back.
    if cause == Cause::Heap && asker == Asker::Other && !is_by_limit(armed, Asked::of_heap(request.bytes)) {
        return again();
    }
    refused::begin_handling();
    let survived = match cause {
        Cause::Injected => false,
        Cause::Heap if arenas::try_again(armed, request.bytes, again) => true,
        _ => reclaim_and_try_again(armed, request, again),
    };
    refused::end_handling();
    let survived = survived
        || cause != Cause::Injected && resident::wait(armed, request.bytes, Kind::Block, try_again)
        || is_for_words(request) && reserve::lend(armed, try_again);
    if !survived {
        note(cause, asker, request);
        // A thread that cannot be started is for its starter to handle, unless the user says otherwise.
        let is_end = if cause == Cause::Thread {
            armed.on_refusal.threads_end
        } else {
            armed.on_refusal.allocation == OnRefusal::Immediate
        };
        if is_end {
            let (evidence, own) = (Evidence::Exact, Own::Unknown);
            exhaustion::end_for_certain(armed, Verdict { cause, request: Some(request), evidence, own });
        }
    }
    survived
}

/// Whether the C library wants it to look up what to say. Not all that it is refused then does it check: glibc's dcigettext
/// ignores what `__gconv_create_spec` returns, and frees what happens to lie on the stack.
fn is_for_words(request: Request) -> bool {
    const MOST_BYTES: u64 = 64 << 10;
    request.bytes <= MOST_BYTES && notes::is_translating()
}

/// A mapping was refused: what Python needs to tell what it dies of comes from the reserve, as what it gets by malloc does.
#[cold]
pub(super) fn lend_to_python(again: &mut dyn FnMut() -> bool) {
    if let (Some(armed), Some(library)) = (armed(), library::in_charge())
        && (library.is_finding_out)()
        && standing::here() == Standing::Alive
    {
        reserve::lend(armed, again);
    }
}

/// A refusal is passed on to the program.
pub(super) fn note(cause: Cause, asker: Asker, request: Request) {
    // Nobody gives up for a translation.
    if notes::is_translating() {
        return;
    }
    // What the C library is refused while a panic prints its backtrace is nobody's who would give up for it. And a size that
    // no process can have is a mistake: whoever gives up for that would do so without a limit, too.
    if (asker == Asker::Rust || !rust::is_panicking()) && Asked::of_heap(request.bytes).is_possible() {
        notes::note(cause, asker, request);
    }
    if asker == Asker::Rust && cause != Cause::Thread {
        // Nobody asked what refused it: Rust's own allocators have no other reason.
        refused::forget_full();
    }
    listen();
    let refusals = refused::note(cause, request);
    record::note_refusal(request, refusals);
    profile::note_refusal(request);
    if let Some(library) = library::in_charge() {
        (library.note_for_stall)(cause, request);
    }
}

/// Whether it was a limit that refused this just now: there was no room for it below the rlimit that holds now.
pub(super) fn is_by_limit(armed: &Armed, asked: Asked) -> bool {
    let now_ms = sys::clock::monotonic_ms();
    if asked.is_possible() && refused::was_full_just_now(asked.bytes, now_ms) {
        return true;
    }
    let full = limit_of_the_budget(armed, asked).or_else(|| limit_in_the_way(armed, asked));
    if let Some(full) = full {
        refused::note_full(full, asked.bytes, now_ms);
    }
    full.is_some()
}

/// Where it was the budget that had no room when this was asked for. Others may have given back what was missing since.
fn limit_of_the_budget(armed: &Armed, asked: Asked) -> Option<Full> {
    let is_short = refused::take_answer_of_the_budget() && asked.writable && asked.is_possible();
    let limit = resident::limit(armed).filter(|_| is_short)?;
    Some(Full { measure: Measure::Resident, limit })
}

fn limit_in_the_way(armed: &Armed, asked: Asked) -> Option<Full> {
    if filter::may_ask() {
        let used = sys::memory::memory_use();
        if used.of(armed.measure).is_some() {
            let limit_of = |measure: Measure| match (armed.measure, measure) {
                (Measure::Resident, Measure::Resident) => resident::limit_of_a_moment(armed, &used),
                (Measure::Resident, Measure::Data) => resident::ceiling(),
                _ => rlimit(measure.into()).soft,
            };
            return asked.refused_by(armed.measure, limit_of, &used);
        }
    }
    // No file may be opened, or there is no descriptor left for one: the kernel is asked as the program asked it.
    let limit = armed.limit.bytes()?;
    let bytes = usize::try_from(asked.bytes).ok().filter(|_| asked.is_possible())?;
    resident::would_be_refused(bytes).then_some(Full { measure: armed.measure, limit })
}

/// A mapping was refused that the program asked for itself. Allocators and runtimes probe, so it counts for little: in a
/// program with a guard of its own for nothing, unless its words say otherwise.
pub(super) fn note_mapping(request: Request) {
    match library::in_charge() {
        Some(library) if (library.is_finding_out)() => return,
        Some(_) => return note(Cause::Mapping, Asker::Other, request),
        None => {}
    }
    // An allocator's, on behalf of somebody who asked for what no process can have: see `note`.
    if Asked::of_heap(request.bytes).is_possible() {
        notes::note(Cause::Mapping, Asker::Rust, request);
    }
    listen();
}

/// A mapping worked. In a program with a guard of its own, what Rust's and C's heaps give is counted, and not what they
/// take for it.
pub(super) fn count_mapping(bytes: usize) {
    if library::in_charge().is_some() {
        notes::count(bytes);
    }
}

/// What the program says from now on may be about a refusal.
fn listen() {
    if let Some(library) = library::in_charge() {
        return (library.listen)();
    }
    if !rust::IS_THERE {
        return;
    }
    // What a panic needs for its last words is no new refusal to speak of.
    if !rust::is_panicking() {
        said::begin();
        if panics::forget() {
            return written::begin_to_listen();
        }
    }
    written::listen_closely();
}

/// Only one thread gives memory back at a time.
static RECLAIMING: Busy = Busy::new();

/// How long a thread waits for another one's reclaiming, in milliseconds. Bounded, as that one may run a callback that
/// waits for a lock which this one holds.
const PATIENCE_MS: u64 = 50;

fn reclaim_and_try_again(armed: &Armed, request: Request, again: &mut dyn FnMut() -> bool) -> bool {
    let asked_ms = sys::clock::monotonic_ms();
    let _inside = loop {
        if let Some(inside) = RECLAIMING.try_enter() {
            break inside;
        }
        if sys::clock::monotonic_ms() - asked_ms >= PATIENCE_MS || standing::is_under_way() {
            return again();
        }
        sys::clock::sleep_ms(1);
        if again() {
            return true;
        }
    };
    trim(armed, request) && again() || run_callbacks() && again()
}

static TRIM: Backoff = Backoff::new();

/// Gives the C library's free memory back to the system. A trim walks all that is free, which can take long.
fn trim(armed: &Armed, request: Request) -> bool {
    if !armed.could_hold(request.bytes) {
        return false;
    }
    let before_ms = sys::clock::monotonic_ms();
    if !TRIM.is_due(before_ms) {
        return false;
    }
    sys::memory::trim_heap();
    TRIM.note_attempt(before_ms, sys::clock::monotonic_ms());
    true
}

fn run_callbacks() -> bool {
    if RECLAIM.is_empty() {
        return false;
    }
    RECLAIM.run_all();
    true
}
