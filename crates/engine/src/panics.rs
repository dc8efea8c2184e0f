//! What panics say, read as it goes to stderr: stable Rust has no other way to learn why a program gives up, as the
//! panic hook is the program's.

use super::notes::{self, Kept};
use super::{judge, refused, rust, standstill, threads, written};
use core::cell::Cell;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use oomguard_core::contract::Cause;
use oomguard_core::message::{PanicPiece, PanicWords, fails_otherwise};
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;

/// What this thread's panic has said so far. All bytes zero is its first state.
struct Here {
    words: Cell<u8>,
    /// The message is over: what follows are the names of functions.
    is_over: Cell<bool>,
    /// What these words are of has been thrown: who throws next has another message.
    is_thrown: Cell<bool>,
    /// The refusals of this thread when the message began.
    refusals_before: Cell<u32>,
    /// When it said something last, in monotonic milliseconds.
    at_ms: Cell<u64>,
    /// The refused stack that it was about, and the process.
    stack_bytes: Cell<u64>,
    said_in: Cell<u32>,
}

// SAFETY: cells of numbers and of a flag that is false; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_panic_here");

/// What the last panic of any thread has said; zero where none has since something was refused.
static LAST: AtomicU8 = AtomicU8::new(0);
/// Which thread's, and in which process: a child that is forked has not panicked.
static LAST_TID: AtomicU32 = AtomicU32::new(0);
static LAST_IN: AtomicU32 = AtomicU32::new(0);
/// When it wrote last, its backtrace included, in monotonic milliseconds.
static LAST_AT_MS: AtomicU64 = AtomicU64::new(0);
/// What had been refused and not got over at that moment. What a panic allocates for its backtrace is not the program
/// getting over it.
static LAST_REFUSED: Kept = Kept::new();
/// What had been allocated when that panic wrote last, its backtrace included.
static LAST_ALLOCATED: AtomicU64 = AtomicU64::new(0);
/// The same as `LAST`, of a panic that its thread has caught, and has written something since.
static CAUGHT: AtomicU8 = AtomicU8::new(0);

// Relaxed throughout: the thread that panics and the one that exits are the same, or joined.

/// Something was refused to this thread, which does not panic: panics before that were about something else. Another thread's
/// that is on its way is not: what takes its time is the backtrace, and what is refused meanwhile may be what that has used up.
/// Whether none is left.
pub(super) fn forget() -> bool {
    const ON_ITS_WAY_MS: u64 = 1000;
    here().words.set(0);
    last_block().bytes.set(0);
    let is_anothers = LAST_TID.load(Relaxed) != sys::process::tid();
    if is_anothers && last(ON_ITS_WAY_MS).is_some() {
        return false;
    }
    LAST.store(0, Relaxed);
    CAUGHT.store(0, Relaxed);
    LAST_REFUSED.set(None);
    true
}

/// Takes in what a panicking thread has written.
pub(super) fn hear(text: &[u8], refusals_here: u32) {
    // Of what a backtrace allocates some blocks look like what is thrown; behind that nothing more is said.
    here().is_thrown.set(false);
    hear_piece(&PanicPiece::of(text), refusals_here);
}

fn hear_piece(piece: &PanicPiece<'_>, refusals_here: u32) {
    note_words(piece, refusals_here);
    here().at_ms.set(sys::clock::monotonic_ms());
    if LAST_TID.load(Relaxed) == sys::process::tid() {
        // Its backtrace may have taken so much that nothing is counted any more.
        notes::watch(0);
        LAST_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
        LAST_ALLOCATED.store(notes::allocated_bytes(), Relaxed);
    }
}

/// The last block that this thread has got while it panicked, and its size; zeros where there is none since something was refused.
struct Block {
    at: Cell<usize>,
    bytes: Cell<usize>,
}

// SAFETY: cells of numbers; nothing to drop.
unsafe impl Zeroed for Block {}

oomguard_core::thread_own!(fn last_block() -> Block, "oomguard_panic_block_here");

const WORD: usize = size_of::<usize>();

/// So much of a block may hold a message.
const MESSAGE_BYTES: usize = 1024;

/// A block of so many bytes, which this thread has got since something was refused.
///
/// # Safety
/// It is the caller's, and nobody has written to it if it is new.
#[inline(always)]
pub(super) unsafe fn note_block(block: *mut u8, bytes: usize, is_new: bool) {
    if rust::is_panicking() {
        // SAFETY: by contract.
        unsafe { note_block_of_panic(block, bytes, is_new) }
    }
}

/// std puts the message into a box, to be caught, and then makes the block that is thrown, with nothing between the two. By then the
/// program's panic hook has run: where that has said nothing, the message still tells why.
///
/// # Safety
/// That of `note_block`.
#[cold]
#[inline(never)]
unsafe fn note_block_of_panic(block: *mut u8, bytes: usize, is_new: bool) {
    /// `Exception` in std's panic_unwind, which is aligned to two words since 1.100. Where it is another size nothing is read.
    const THROWN_BYTES: [usize; 2] = [7 * WORD, 8 * WORD];
    let (last, here) = (last_block(), here());
    // realloc(3) of no bytes counts as one of all that there are.
    let size = if bytes == usize::MAX { 0 } else { bytes };
    let errno = sys::errno::errno();
    let text =
        message_in(last.at.get(), last.bytes.get()).filter(|_| is_new && THROWN_BYTES.contains(&bytes));
    if let Some(text) = text {
        if !has_spoken() || here.is_thrown.get() {
            hear_unsaid(text);
        }
        here.is_thrown.set(true);
    }
    sys::errno::set_errno(errno);
    if is_new {
        // What lay there before is not taken for a message.
        // SAFETY: within the block, which nobody has written to, by contract.
        unsafe { block.write_bytes(0, size.min(MESSAGE_BYTES)) };
    }
    last.at.set(block as usize);
    last.bytes.set(size);
}

fn has_spoken() -> bool {
    here().words.get() != 0
}

fn hear_unsaid(text: &[u8]) {
    written::listen_closely();
    hear_piece(&PanicPiece { begins: true, says: text, ends: true }, refused::count_here());
}

/// The same of a panic that ends in its hook, or aborts: nothing is put into a box. What was made of its message lies in a block
/// that is larger; one that has got no block has a text of the program's own, and is about no error.
pub(super) fn hear_unboxed() {
    // What was thrown was an earlier one's.
    let has_spoken = has_spoken() && !here().is_thrown.get();
    // valgrind would tell of a block that the program has given back.
    if has_spoken || !written::has_write() || sys::valgrind::is_running() {
        return;
    }
    let (block, bytes) = (last_block().at.get(), last_block().bytes.get());
    // SAFETY: what is read there is there, whatever it holds: this thread has got it in this panic.
    let text = unsafe { sys::memory::readable(block, bytes, MESSAGE_BYTES) };
    // What is no text comes from the hook, and tells nothing.
    let text = text.filter(|text| text.iter().any(u8::is_ascii_alphabetic));
    hear_unsaid(text.unwrap_or(b"panicked"));
}

/// Whether this thread has panicked since it was refused something, and nothing is known of what that said.
pub(super) fn is_unread() -> bool {
    last_block().bytes.get() != 0 && !has_spoken()
}

/// The text that a box holds: a `String`, or a `&'static str`. Other blocks of that size hold neither, as a rule: nothing is found
/// there, or nothing that speaks of memory.
fn message_in<'a>(block: usize, bytes: usize) -> Option<&'a [u8]> {
    const MOST_CAPACITY: usize = 1 << 20;
    if bytes != 2 * WORD && bytes != 3 * WORD {
        return None;
    }
    // SAFETY: what this thread has just got, and what std has put there: neither is given back before this panic is caught.
    let words = unsafe { sys::memory::readable(block, bytes, bytes) }?;
    let word = |index: usize| words.get(index * WORD..)?.first_chunk().copied().map(usize::from_ne_bytes);
    // Where the text is, its length, and its capacity, in whatever order.
    let words = [word(0)?, word(1)?, word(2).unwrap_or(MOST_CAPACITY)];
    let start = words.into_iter().max()?;
    let len = words.into_iter().min()?;
    if words.into_iter().filter(|word| *word <= MOST_CAPACITY).count() != 2 {
        return None;
    }
    // SAFETY: as above, or a text of the program's own, which is there as long as the program.
    let text = unsafe { sys::memory::readable(start, len, MESSAGE_BYTES) }?;
    match core::str::from_utf8(text) {
        Ok(_) => Some(text),
        // It is cut within a character.
        Err(error) if error.error_len().is_none() => Some(text),
        Err(_) => None,
    }
}

fn note_words(piece: &PanicPiece<'_>, refusals_here: u32) {
    let here = here();
    if piece.begins {
        here.is_over.set(false);
        here.is_thrown.set(false);
        // A thread without its signal stack does not get over that panic: the next one is only how it ends.
        here.words.set(here.words.get() & PanicWords::SIGNAL_STACK.0);
        here.refusals_before.set(refusals_here);
    }
    if here.is_over.get() {
        // std's own last line comes behind the backtrace.
        if PanicWords::of(piece.says).has(PanicWords::NOT_STARTED) {
            here.words.set(here.words.get() | PanicWords::NOT_STARTED.0);
        }
        return;
    }
    let before = PanicWords(here.words.get());
    let mut words = before.and(PanicWords::of(piece.says));
    // Of a thread that could be had now, or that was refused long ago, the words are not.
    if !before.has(PanicWords::THREAD) {
        let says_std = words.has(PanicWords::THREAD) && threads::is_one_refused();
        let is_about_thread = words.has(PanicWords::TRY_AGAIN)
            && !threads::is_of_another_call()
            && threads::comes_straight_from_one_refused();
        words.0 &= !PanicWords::THREAD.0;
        if says_std || is_about_thread {
            words = words.and(PanicWords::THREAD);
            here.stack_bytes.set(threads::refused_stack().unwrap_or(0));
            here.said_in.set(sys::process::pid());
        }
    }
    let may_be_of_memory = before.0 == 0 && words == PanicWords::SOMETHING && !fails_otherwise(piece.says);
    if may_be_of_memory && judge::comes_straight_from_refusal() {
        words = words.and(PanicWords::STRAIGHT);
    }
    here.words.set(words.0);
    here.is_over.set(piece.ends);
    if words != before || piece.begins {
        note_last(words);
    }
}

fn note_last(words: PanicWords) {
    // A panic because another thread panicked says no more than that one did.
    let heard_before = PanicWords(LAST.load(Relaxed));
    let is_known_already = words.has(PanicWords::JOINED) && heard_before.0 != 0;
    // Another thread, which was started with the last memory and did not get its signal stack, does not take the blame
    // off the one that could not be started at all.
    let is_lesser = words.has(PanicWords::SIGNAL_STACK) && heard_before.has(PanicWords::THREAD);
    if words.0 != 0 && !is_known_already && !is_lesser {
        LAST.store(words.0, Relaxed);
        CAUGHT.store(0, Relaxed);
        let refused = if words.has(PanicWords::MEMORY.and(PanicWords::STRAIGHT)) {
            notes::open_or_just_closed()
        } else {
            None
        };
        LAST_REFUSED.set(refused);
        LAST_TID.store(sys::process::tid(), Relaxed);
        LAST_IN.store(sys::process::pid(), Relaxed);
        LAST_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
    }
}

/// This thread writes and does not panic: what its last panic said has had its effect.
pub(super) fn is_over_here() {
    let here = here();
    // Between a panic that nobody catches and the end std writes nothing.
    if here.words.get() != 0 && LAST_TID.load(Relaxed) == sys::process::tid() {
        CAUGHT.store(LAST.swap(0, Relaxed), Relaxed);
    }
    here.words.set(0);
    here.is_over.set(false);
    standstill::note_gone_on();
}

/// What the last panic since the refusal said, if it may be why the process ends now: within `most_ms`.
pub(super) fn last(most_ms: u64) -> Option<PanicWords> {
    read(&LAST, most_ms)
}

fn read(kept: &AtomicU8, most_ms: u64) -> Option<PanicWords> {
    let words = PanicWords(kept.load(Relaxed));
    let ms_since = sys::clock::monotonic_ms().saturating_sub(LAST_AT_MS.load(Relaxed));
    let is_ours = LAST_IN.load(Relaxed) == sys::process::pid();
    (words.0 != 0 && is_ours && ms_since < most_ms).then_some(words)
}

/// The same of a panic of another thread, which it has ended, if next to nothing has been allocated since.
pub(super) fn of_ended_thread(most_ms: u64) -> Option<PanicWords> {
    let is_anothers = LAST_TID.load(Relaxed) != sys::process::tid();
    last(most_ms).filter(|_| is_anothers && nothing_was_done_since())
}

/// The same of one that this thread has caught, and has said something about.
pub(super) fn of_caught(most_ms: u64) -> Option<PanicWords> {
    let is_ours = LAST_TID.load(Relaxed) == sys::process::tid();
    read(&CAUGHT, most_ms).filter(|_| is_ours && nothing_was_done_since())
}

fn nothing_was_done_since() -> bool {
    /// A name or two, a message, a flush.
    const MOST_BYTES: u64 = 64 << 10;
    let since = notes::allocated_bytes().saturating_sub(LAST_ALLOCATED.load(Relaxed));
    notes::is_watching() && since <= MOST_BYTES
}

/// What the last panic that spoke of memory was refused.
pub(super) fn refused() -> Option<(Cause, Request)> {
    LAST_REFUSED.get()
}

/// The stack of the refused thread that the calling thread's last panic, of `most_ms` ago at most, was about: whatever other
/// threads have said and started since.
pub(super) fn stack_refused_here(most_ms: u64) -> Option<u64> {
    let here = here();
    let is_young = sys::clock::monotonic_ms().saturating_sub(here.at_ms.get()) < most_ms;
    let is_of_thread = PanicWords(here.words.get()).has(PanicWords::THREAD);
    let is_ours = here.said_in.get() == sys::process::pid();
    (is_of_thread && is_young && is_ours && here.stack_bytes.get() != 0).then_some(here.stack_bytes.get())
}

/// This thread was refused a thread, has caught the panic for it, and has started one since.
pub(super) fn is_got_over_here() {
    here().words.set(0);
}

/// What the calling thread's panic has said, and how many refusals this thread had met before it said so.
pub(super) fn of_this_thread() -> (PanicWords, u32) {
    let here = here();
    (PanicWords(here.words.get()), here.refusals_before.get())
}
