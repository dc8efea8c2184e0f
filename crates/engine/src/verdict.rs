//! Whether a guarded program dies of a refusal: what only a Rust program shows, and then the judge for all programs.
//!
//! | evidence | what shows it |
//! |---|---|
//! | exact | the thread is inside `std::alloc::handle_alloc_error`, which does not come back; or the C library aborts for want of a thread-local's destructor |
//! | said | a panic, or the last words before a failure, tell of the memory or the thread that was refused |
//! | missing | a panic said nothing that could be read, and what was refused still is |
//!
//! Nothing is taken from a refusal alone, from words alone, or from what another process was refused.

use super::armed::Armed;
use super::exhaustion::{self, Own, Verdict};
use super::judge::{self, Guilt, Said};
use super::notes::{self, Asker, Noted};
use super::panics::OF_MEMORY;
use super::thrown::UNCAUGHT_LASTS_MS;
use super::{frames, panics, refused, rust, said, threads, written};
use core::cell::Cell;
use oomguard_core::contract::{Cause, EXIT_RUST_PANIC, Evidence};
use oomguard_core::message::{LastWord, Message, PanicWords};
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;

/// Whether there is anything by which a refused allocation that the program does not survive can be recognised: the
/// function that it ends in is found on stacks, or std's own line is seen.
pub(super) fn can_be_told(armed: &Armed) -> bool {
    // The cheap question first: this is asked at each start.
    written::has_write() || frames::describes(&armed.alloc_error_code)
}

/// Whether the calling thread is inside `handle_alloc_error`.
pub(super) fn is_in_alloc_error(armed: &Armed) -> bool {
    frames::is_in_alloc_error(&armed.alloc_error_code)
}

/// The end of a process whose thread is inside `handle_alloc_error`.
pub(super) fn end_of_allocation(armed: &Armed) -> ! {
    exhaustion::end_for_certain(armed, of_allocation(Evidence::Exact))
}

fn of_allocation(evidence: Evidence) -> Verdict {
    // Nothing noted: the program called handle_alloc_error itself, for a reason of its own.
    let (cause, request) =
        refused::last_here().map_or((Cause::Heap, None), |(cause, request)| (cause, Some(request)));
    let cause = if cause == Cause::Thread { Cause::Heap } else { cause };
    Verdict { cause, request, evidence, own: Own::ABORT }
}

/// How far this thread has got in saying std's own line.
struct StdLine {
    /// One more than the refusals that this thread had met when the line began; zero where it has not.
    begun: Cell<u32>,
    /// The number in it is the size that this thread was refused last.
    is_of_refusal: Cell<bool>,
}

// SAFETY: cells of a number and of a flag that is false; nothing to drop.
unsafe impl Zeroed for StdLine {}

oomguard_core::thread_own!(fn std_line() -> StdLine, "oomguard_std_line_here");

/// This thread has begun to say std's own line, and is not seen inside `handle_alloc_error`: the compiler has put that
/// elsewhere, or it is another library's.
pub(super) fn note_std_line() {
    std_line().begun.set(refused::count_here().saturating_add(1));
    std_line().is_of_refusal.set(false);
}

/// What this thread writes next: the size, if it has begun to say that line.
pub(super) fn hear_size(text: &[u8]) {
    let line = std_line();
    if line.begun.get() == 0 || line.is_of_refusal.get() {
        return;
    }
    let text = text.strip_prefix(oomguard_core::message::STD_LINE).unwrap_or(text);
    let size = oomguard_core::text::leading_number(text);
    let refused = refused::last_here().map(|(_, request)| request.bytes);
    line.is_of_refusal.set(size.is_some() && size == refused);
    if size.is_none() && !text.is_empty() {
        line.begun.set(0);
    }
}

/// Whether this thread has said, and said last, that it dies of what it was refused last.
fn has_said_std_line() -> bool {
    let line = std_line();
    line.is_of_refusal.get() && line.begun.get() == refused::count_here().saturating_add(1)
}

/// The process is about to abort by calling `abort`: ends it here if memory is why.
pub(super) fn judge_abort(armed: &Armed) {
    if is_in_alloc_error(armed) {
        end_of_allocation(armed);
    }
    if has_said_std_line() {
        return exhaustion::end(armed, of_allocation(Evidence::Said));
    }
    let guilt = if rust::is_panicking() { of_panic() } else { of_plain_abort(armed) };
    if let Some(guilt) = guilt {
        exhaustion::end(armed, guilt.verdict(Own::ABORT));
    }
}

/// How much must be refused right now for an abort in the midst of a panic to count as exhaustion, in bytes.
const TELLING_BYTES: usize = 64 << 10;

/// A panic that ends in an abort: it cannot unwind, or it is the second one.
fn of_panic() -> Option<Guilt> {
    let has_said_nothing = panics::of_this_thread().0 == PanicWords::default();
    panics::hear_unboxed();
    let (words, refusals_before) = panics::of_this_thread();
    let is_of_another = words.has(PanicWords::JOINED.and(PanicWords::POISONED));
    let before = panics::last(UNCAUGHT_LASTS_MS).filter(|_| is_of_another);
    let words = before.map_or(words, |before| before.and(words));
    let is_missing = || super::resident::would_be_refused(TELLING_BYTES);
    // Another thread may have given back by now what this one was refused.
    let was_refused_it =
        || words.has(PanicWords::MEMORY) && is_thread_without_its_signal_stack() && notes::mapped().is_some();
    if words.has(PanicWords::SIGNAL_STACK) && (was_refused_it() || is_missing()) {
        return Some(Guilt { cause: Cause::Thread, request: None, evidence: Evidence::Said });
    }
    if (words.has(PanicWords::THREAD) || words.0 == 0)
        && let Some(guilt) = threads::is_why(words)
    {
        return Some(guilt);
    }
    if words.has(OF_MEMORY)
        && let Some(guilt) = refusal_of_panic(words)
    {
        return Some(guilt);
    }
    let evidence = Evidence::Missing;
    if has_said_nothing && is_thread_without_its_signal_stack() && is_missing() {
        return Some(Guilt { cause: Cause::Thread, request: None, evidence });
    }
    // A panic that could not be started, or that was refused memory on its way.
    let was_refused_since = refused::count_here() > refusals_before;
    let has_failed = words.has(PanicWords::NOT_STARTED) || was_refused_since;
    if has_failed && is_missing() {
        let request = refused::last_here().map(|(_, request)| request);
        return Some(Guilt { cause: Cause::Heap, request, evidence });
    }
    None
}

/// An abort that no panic has caused. Who cannot go on without a block of Rust's allocator would be inside
/// `handle_alloc_error`, unless it says why; C code checks for null and aborts.
fn of_plain_abort(armed: &Armed) -> Option<Guilt> {
    let noted = notes::requested().filter(|noted| noted.ms_since <= judge::UNSAID_MS)?;
    let said = said::last().map(|said| said.message);
    match noted.asker {
        Asker::Rust if said == Some(Message::OutOfMemory) => refusal_of_words(),
        Asker::Rust => None,
        Asker::Other => judge::of_abort(armed, said.map(Said::of_open_refusal)),
    }
}

/// std gives each thread that it starts an alternate signal stack, and panics there where it cannot; that panic can
/// only abort. What it said could not be read.
fn is_thread_without_its_signal_stack() -> bool {
    let std_wants_one = sys::signals::disposition(libc::SIGSEGV).sa_sigaction != libc::SIG_DFL;
    std_wants_one && sys::process::tid() != sys::process::pid() && !sys::signals::has_alternate_stack()
}

/// The refusal that the last words are about. Who notes it, goes through the rest of its rows, and says so only then, as
/// SQLite does, still lacks it.
fn refusal_of_words() -> Option<Guilt> {
    if let Some(noted) = notes::requested().or_else(notes::mapped) {
        return Some(judge::guilt(&noted, Evidence::Said));
    }
    let (cause, request) = notes::open_or_just_closed()?;
    let is_said_after_work =
        || said::last_after_work().is_some_and(|said| said.message == Message::OutOfMemory);
    let is_still_missing = || notes::is_worked_on_without() && judge::is_missing(request.bytes);
    let is_about_it = said::has_backtrace() || is_said_after_work() && is_still_missing();
    is_about_it.then_some(Guilt { cause, request: Some(request), evidence: Evidence::Said })
}

/// The refusal that the last panic was about.
fn refusal_of_panic(words: PanicWords) -> Option<Guilt> {
    let (cause, request) = panics::refused()?;
    let evidence = if words.has(PanicWords::MEMORY) { Evidence::Said } else { Evidence::Straight };
    Some(Guilt { cause, request: Some(request), evidence })
}

/// The process exits with a code that tells of failure: why, if memory is why.
pub(super) fn of_exit(armed: &Armed, code: u8) -> Option<Verdict> {
    let errno = sys::errno::errno();
    // An alloc-error hook of the program's own, which ends it.
    if refused::count_here() > 0 && is_in_alloc_error(armed) {
        return Some(Verdict { own: Own::Exit(code), ..of_allocation(Evidence::Exact) });
    }
    let said = said::last();
    // A panic hook of the program's own may end it.
    let is_panicking = rust::is_panicking();
    if is_panicking {
        panics::hear_unboxed();
    }
    let guilt = if i32::from(code) != EXIT_RUST_PANIC && !is_panicking {
        // A panic before, if there was one, has been caught, or has ended another thread.
        of_words(armed, said, errno).or_else(|| of_ended_thread(said)).or_else(|| of_caught_panic(said))
    } else if let Some(bytes) = panics::stack_refused_here(UNCAUGHT_LASTS_MS) {
        let request = Some(Request { bytes, align: None });
        Some(Guilt { cause: Cause::Thread, request, evidence: Evidence::Said })
    } else if let Some(words) = panics::last(UNCAUGHT_LASTS_MS) {
        let of_memory = || if words.has(OF_MEMORY) { refusal_of_panic(words) } else { None };
        threads::is_why(words).or_else(of_memory)
    } else {
        of_words(armed, said, errno)
    };
    guilt.map(|guilt| guilt.verdict(Own::Exit(code)))
}

/// A panic that spoke of memory has ended another thread, and the program gives up straight after, without any other
/// reason.
fn of_ended_thread(said: Option<LastWord>) -> Option<Guilt> {
    let is_for_it = |said: LastWord| said.message == Message::Unrelated && !said.fails_otherwise;
    if !said.is_none_or(is_for_it) {
        return None;
    }
    panics::of_ended_thread(judge::UNSAID_MS).and_then(refusal_of_panic)
}

/// A panic that spoke of memory has been caught, and the program says that it failed, and gives up straight after.
fn of_caught_panic(said: Option<LastWord>) -> Option<Guilt> {
    said.filter(|said| said.message == Message::Unrelated && said.gives_up && !said.fails_otherwise)?;
    panics::of_caught(judge::UNSAID_MS).filter(|words| words.has(OF_MEMORY)).and_then(refusal_of_panic)
}

/// The program ends by its own decision, after these words.
fn of_words(armed: &Armed, said: Option<LastWord>, errno: i32) -> Option<Guilt> {
    if said.is_some_and(|said| said.message == Message::OutOfMemory) {
        return refusal_of_words();
    }
    if said::says_to_try_again()
        && threads::comes_straight_from_one_refused()
        && let Some(noted) = notes::requested()
    {
        return Some(judge::guilt(&noted, Evidence::Said));
    }
    // `try_reserve` and `Builder::spawn` have their errors for programs to handle: to leave without a word of memory is one
    // way to. And what was refused long ago is not why it ends now.
    let is_handled = |noted: Noted| noted.asker == Asker::Rust || noted.ms_since > judge::UNSAID_MS;
    if notes::requested().is_some_and(is_handled) {
        return None;
    }
    let of_failure = |said: LastWord| Said {
        fails_otherwise: said.fails_otherwise,
        fails_to_make: said.fails_to_make,
        ..Said::of_open_refusal(said.message)
    };
    judge::of_exit(armed, said.map(of_failure), errno)
}
