//! What panics say, read as it goes to stderr: stable Rust has no other way to learn why a program gives up, as the
//! panic hook is the program's.

use super::notes::{self, Kept};
use super::thrown::{self, Known, Other, Thrown, UNCAUGHT_LASTS_MS, Words};
use super::{filter, judge, refused, rust, standstill, threads, written};
use core::cell::Cell;
use core::sync::atomic::{
    AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use oomguard_core::contract::Cause;
use oomguard_core::message::{PanicPiece, PanicWords, fails_otherwise, speaks_of_a_thread};
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;

/// What this thread's panic has said so far. All bytes zero is its first state.
struct Here {
    words: Cell<u16>,
    /// The same of the panic before it, and of the one before that.
    before: Cell<u16>,
    first: Cell<u16>,
    /// The message is over: what follows are the names of functions.
    is_over: Cell<bool>,
    /// What these words are of has been thrown: who throws next has another message.
    is_thrown: Cell<bool>,
    /// The same, and something was said since: perhaps what the next one is about, by a hook that does not say where it was.
    was_thrown: Cell<bool>,
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
static LAST: AtomicU16 = AtomicU16::new(0);
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
static CAUGHT: AtomicU16 = AtomicU16::new(0);
/// A panic about something else has left its traces: what is poisoned, or was awaited, may be so for that. Not of one process
/// alone, as a child that is forked has them from its parent.
static OTHER: Other = Other::new();

/// What a panic may have spoken of, or come straight from.
pub(super) const OF_MEMORY: PanicWords = PanicWords::MEMORY.and(PanicWords::STRAIGHT);

/// What tells in a panic that it was not about something else.
const NOT_OTHER: PanicWords = PanicWords(!(PanicWords::SOMETHING.0 | PanicWords::TRY_AGAIN.0));

/// The last panic is about to be forgotten, for another one or for good.
#[inline(never)]
fn note_other() {
    let last = PanicWords(LAST.load(Relaxed));
    if last.0 != 0 && !last.has(NOT_OTHER) {
        OTHER.note(LAST_AT_MS.load(Relaxed));
    }
}

// Relaxed but for `LAST`: the thread that panics and the one that exits are the same, or joined. A third one may forget.

/// Something was refused to this thread, which does not panic: panics before that were about something else. Another thread's
/// that is on its way is not: what takes its time is the backtrace, and what is refused meanwhile may be what that has used up.
/// Whether none is left.
pub(super) fn forget() -> bool {
    here().words.set(0);
    here().is_thrown.set(false);
    forget_blocks();
    // Acquire: pairs with the Release in `note_last`, so that it is known whose it is, and since when.
    let seen = LAST.load(Acquire);
    let is_anothers = LAST_TID.load(Relaxed) != sys::process::tid();
    if is_anothers && last(UNCAUGHT_LASTS_MS).is_some() {
        return false;
    }
    note_other();
    // One that another thread has begun meanwhile stands.
    if LAST.compare_exchange(seen, 0, Relaxed, Relaxed).is_err() {
        return false;
    }
    CAUGHT.store(0, Relaxed);
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
        // Its backtrace may have taken so much that nothing is counted any more; and what was given back since is not known.
        if !notes::is_watching() {
            forget_blocks();
        }
        notes::watch(0);
        LAST_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
        LAST_ALLOCATED.store(notes::allocated_bytes(), Relaxed);
    }
}

/// Blocks that this thread has got in its panic, since something was refused.
struct Blocks {
    /// The first: where std makes a text of the message it is that, which is there as long as the hook runs.
    first: Block,
    last: Block,
    /// Where the last one lies that is thrown.
    thrown: Cell<usize>,
    /// What this thread had been given when it got the last one.
    given: Cell<u64>,
}

/// A block and its size; zeros where there is none, or it is given back.
struct Block {
    at: Cell<usize>,
    bytes: Cell<usize>,
}

impl Block {
    fn set(&self, at: usize, bytes: usize) {
        self.at.set(at);
        self.bytes.set(bytes);
    }

    fn is(&self, at: usize) -> bool {
        self.at.get() == at
    }

    /// # Safety
    /// The block is this thread's, which has not given it back.
    unsafe fn read<'a>(&self, most: usize) -> Option<&'a [u8]> {
        // SAFETY: by contract.
        unsafe { sys::memory::readable(self.at.get(), self.bytes.get(), most) }
    }
}

// SAFETY: cells of numbers; nothing to drop.
unsafe impl Zeroed for Blocks {}

oomguard_core::thread_own!(fn blocks() -> Blocks, "oomguard_panic_blocks_here");

fn forget_blocks() {
    forget_where_they_lie();
    blocks().thrown.set(0);
}

#[inline(never)]
fn forget_where_they_lie() {
    blocks().first.set(0, 0);
    blocks().last.set(0, 0);
}

/// The same where this thread has been given something since that is no block of its panic: what it has grown or given back
/// meanwhile is not known. `own`: what it has been given just now.
#[inline(never)]
fn forget_blocks_before(own: u64) {
    let given = notes::given_here();
    if given.wrapping_sub(blocks().given.replace(given)) > own {
        forget_where_they_lie();
    }
}

const WORD: usize = size_of::<usize>();

/// So much of a block may hold a message.
const MESSAGE_BYTES: usize = 1024;

/// A block of so many bytes, which this thread has got since something was refused, in the place of the `old` one if that is not
/// null.
///
/// # Safety
/// It is the caller's, and nobody has written to it if it is new.
#[inline(always)]
pub(super) unsafe fn note_block(block: *mut u8, bytes: usize, old: *mut u8) {
    if rust::is_panicking() {
        // SAFETY: by contract.
        unsafe { note_block_of_panic(block, bytes, old) }
    }
}

/// std puts the message into a box, to be caught, and then makes the block that is thrown, with nothing between the two. Where
/// it is not seen when it is thrown, the message is read here.
///
/// # Safety
/// That of `note_block`.
#[cold]
#[inline(never)]
unsafe fn note_block_of_panic(block: *mut u8, bytes: usize, old: *mut u8) {
    /// `Exception` in std's panic_unwind, which is aligned to two words since 1.100. Where it is another size nothing is read.
    const THROWN_BYTES: [usize; 2] = [7 * WORD, 8 * WORD];
    forget_blocks_before(1);
    let blocks = blocks();
    // realloc(3) of no bytes counts as one of all that there are.
    let size = if bytes == usize::MAX { 0 } else { bytes };
    let errno = sys::errno::errno();
    if old.is_null() && THROWN_BYTES.contains(&bytes) && may_read() && !thrown::is_seen() {
        let is_thrown_on = [0, GIVEN_BACK, blocks.thrown.get()].contains(&blocks.last.at.get());
        // SAFETY: what this thread has just got, and what std has put there: it is not given back before this panic is caught.
        let words = unsafe { blocks.last.read(Words::MOST_BYTES + 1) };
        note_thrown(block as usize, Words::of(words.unwrap_or(&[])), is_thrown_on);
    }
    sys::errno::set_errno(errno);
    let is_new = old.is_null();
    let is_first =
        if is_new { blocks.first.is(0) && !here().is_thrown.get() } else { blocks.first.is(old as usize) };
    let before = [&blocks.last, &blocks.first].into_iter().find(|kept| !is_new && kept.is(old as usize));
    // Of an old one from before this panic nobody knows how much of it has been written to.
    let (written, size) = match before {
        Some(before) => (before.bytes.get(), size),
        None if is_new => (0, size),
        None => (0, 0),
    };
    // What lay there before is not taken for a message.
    // SAFETY: within the block, behind all that anybody has written to, by contract.
    unsafe { block.wrapping_add(written).write_bytes(0, size.min(MESSAGE_BYTES).saturating_sub(written)) };
    if is_first {
        blocks.first.set(block as usize, size);
    }
    blocks.last.set(block as usize, size);
}

/// A block is about to be given back.
pub(super) fn note_release(block: usize) {
    let blocks = blocks();
    for kept in [&blocks.first, &blocks.last] {
        if kept.is(block) && block != 0 {
            kept.set(GIVEN_BACK, 0);
        }
    }
}

/// No block lies there.
const GIVEN_BACK: usize = 1;

/// Where `write` is a sanitizer's, each read is looked at, and what C code gives back is not told here.
fn may_read() -> bool {
    written::has_write()
}

/// What was thrown since something was refused.
static THROWN: Known = Known::new();

/// std throws something. By now the program's panic hook has run: where that has said nothing, the message still tells why.
pub(super) fn hear_thrown(thrown: Thrown) {
    // Something may be why the process ends: the message of a panic before, too.
    let may_matter = notes::is_watching() || [&LAST, &CAUGHT].iter().any(|words| words.load(Relaxed) != 0);
    if may_matter && refused::count() != 0 {
        let is_thrown_on = THROWN.meet(thrown);
        note_thrown(thrown.exception, thrown.words(), is_thrown_on);
    } else {
        OTHER.note(sys::clock::monotonic_ms());
    }
}

/// It is thrown by what lies at `block`: these words, which may be the ones that were thrown before.
fn note_thrown(block: usize, words: Words, is_thrown_on: bool) {
    let (blocks, here) = (blocks(), here());
    let is_new = !has_spoken() || here.is_thrown.get() || here.was_thrown.get();
    let text = if is_thrown_on { None } else { words.text() };
    if let Some(text) = text {
        if is_new {
            hear_unsaid(text);
        }
        blocks.first.set(0, 0);
    } else if !has_spoken() || is_caught(block) && !is_thrown_on {
        // No text at all: it is about memory if it is an error that is.
        let text: &[u8] = match () {
            () if words.are_error_of_memory() => b"out of memory",
            () if is_thrown_on => b"Any { .. }",
            () => b"panicked",
        };
        hear_unsaid(text);
    } else {
        return;
    }
    here.is_thrown.set(true);
    here.was_thrown.set(true);
    blocks.thrown.set(block);
}

/// What this thread threw last lay where this block lies now: it has been caught.
fn is_caught(block: usize) -> bool {
    here().is_thrown.get() && blocks().thrown.get() == block
}

fn has_spoken() -> bool {
    here().words.get() != 0
}

#[inline(never)]
fn hear_unsaid(text: &[u8]) {
    written::listen_closely();
    hear_piece(&PanicPiece { begins: true, says: text, ends: true }, refused::count_here());
}

/// The same of a panic that ends in its hook, or aborts: nothing is put into a box. What std has made of its message was the first
/// block; one that has got no block has a text of the program's own, and is about no error.
pub(super) fn hear_unboxed() {
    forget_blocks_before(0);
    // What was thrown was an earlier one's, unless it is there still, and nothing has come since.
    let is_this_ones = !here().was_thrown.get() || blocks().last.is(blocks().thrown.get());
    let has_spoken = has_spoken() && is_this_ones;
    // valgrind would tell of a block that C code has given back.
    if has_spoken || !may_read() || sys::valgrind::is_running() {
        return;
    }
    let blocks = blocks();
    let text_in = |block: &Block| {
        // SAFETY: this thread has got it in this panic, and has not given it back.
        let text = unsafe { block.read(MESSAGE_BYTES) };
        // What is no text comes from the hook, and tells nothing.
        text.filter(|text| text.iter().any(u8::is_ascii_alphabetic))
    };
    let text = text_in(&blocks.first).or_else(|| text_in(&blocks.last));
    hear_unsaid(text.unwrap_or(b"panicked"));
}

fn note_words(piece: &PanicPiece<'_>, refusals_here: u32) {
    let here = here();
    if piece.begins {
        note_other();
        here.is_over.set(false);
        here.is_thrown.set(false);
        here.was_thrown.set(false);
        here.first.set(here.before.replace(here.words.get()));
        // A thread without its signal stack does not get over that panic: the next one is only how it ends.
        here.words.set(here.words.get() & PanicWords::SIGNAL_STACK.0);
        here.refusals_before.set(refusals_here);
    }
    let mut says = PanicWords::of(piece.says);
    let is_over = here.is_over.get();
    if is_over {
        // What comes behind the backtrace: std's own last line, and what a hook says of the next panic in its own way.
        says.0 &= PanicWords::NOT_STARTED.0 | PanicWords::CANNOT_UNWIND.0 | PanicWords::IN_CLEANUP.0;
        if says.0 == 0 {
            return;
        }
    }
    let before = PanicWords(here.words.get());
    let mut words = before.and(says);
    // What cannot go on, or began in a destructor, ends for what came before. A hook that does not say where it was adds this
    // message to the last one.
    let is_added = here.was_thrown.get();
    if words.has(PanicWords::CANNOT_UNWIND) && !is_added {
        words.0 |= here.before.get();
    }
    if words.has(PanicWords::IN_CLEANUP) {
        words.0 |= if is_added { here.before.get() } else { here.first.get() };
    }
    // Of a thread that could be had now, or that was refused long ago, the words are not.
    if !before.has(PanicWords::THREAD) {
        let says_std = words.has(PanicWords::THREAD) && threads::is_one_refused();
        let is_about_thread = words.has(PanicWords::TRY_AGAIN)
            && threads::LastFailure::now().fits(|| speaks_of_a_thread(piece.says))
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
    here.is_over.set(is_over || piece.ends);
    if words != before || piece.begins {
        note_last(words);
    }
}

fn note_last(words: PanicWords) {
    // A panic because of another one says no more than that one did, if that is the only one that there was.
    let heard_before = PanicWords(LAST.load(Relaxed));
    let is_of_last = words.has(PanicWords::POISONED)
        || words.has(PanicWords::JOINED) && LAST_TID.load(Relaxed) != sys::process::tid();
    let is_known_already = is_of_last && heard_before.0 != 0 && !OTHER.is_recent();
    // Another thread, which was started with the last memory and did not get its signal stack, does not take the blame
    // off the one that could not be started at all.
    let is_lesser = words.has(PanicWords::SIGNAL_STACK) && heard_before.has(PanicWords::THREAD);
    if words.0 != 0 && !is_known_already && !is_lesser {
        CAUGHT.store(0, Relaxed);
        // One that ends for a panic before was refused what that one was.
        let is_end = words.has(PanicWords::CANNOT_UNWIND.and(PanicWords::IN_CLEANUP));
        let is_of_earlier =
            is_end && LAST_TID.load(Relaxed) == sys::process::tid() && LAST_REFUSED.get().is_some();
        if words.has(OF_MEMORY) && !is_of_earlier {
            LAST_REFUSED.set(notes::open_or_just_closed());
        }
        LAST_TID.store(sys::process::tid(), Relaxed);
        LAST_IN.store(sys::process::pid(), Relaxed);
        LAST_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
        // Release: pairs with the Acquire in `forget`.
        LAST.store(words.0, Release);
    }
}

/// This thread writes and does not panic: what its last panic said has had its effect.
pub(super) fn is_over_here() {
    let here = here();
    note_other();
    // Between a panic that nobody catches and the end std writes nothing.
    if here.words.get() != 0 && LAST_TID.load(Relaxed) == sys::process::tid() {
        CAUGHT.store(LAST.swap(0, Relaxed), Relaxed);
    }
    here.words.set(0);
    here.before.set(0);
    here.is_over.set(false);
    standstill::note_gone_on();
}

/// What the last panic since the refusal said, if it may be why the process ends now: within `most_ms`.
pub(super) fn last(most_ms: u64) -> Option<PanicWords> {
    read(&LAST, most_ms)
}

fn read(kept: &AtomicU16, most_ms: u64) -> Option<PanicWords> {
    let words = PanicWords(kept.load(Relaxed));
    let ms_since = sys::clock::monotonic_ms().saturating_sub(LAST_AT_MS.load(Relaxed));
    let is_ours = LAST_IN.load(Relaxed) == sys::process::pid();
    (words.0 != 0 && is_ours && ms_since < most_ms).then_some(words)
}

/// The same of a panic about memory of another thread, which it has ended, if next to nothing has been allocated since.
pub(super) fn of_ended_thread(most_ms: u64) -> Option<PanicWords> {
    let tid = LAST_TID.load(Relaxed);
    let is_why = |words: &PanicWords| words.has(OF_MEMORY) && tid != sys::process::tid();
    last(most_ms).filter(|words| is_why(words) && nothing_was_done_since() && is_gone(tid))
}

/// Whether a thread has ended, or does within a moment.
fn is_gone(tid: u32) -> bool {
    const MOMENT_MS: u64 = 200;
    // A filter may not know of the question.
    let may_ask = filter::may_ask();
    let until = sys::clock::monotonic_ms() + MOMENT_MS;
    while may_ask && sys::process::has_thread(tid) {
        if sys::clock::monotonic_ms() > until {
            return false;
        }
        sys::clock::sleep_ms(1);
    }
    true
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
