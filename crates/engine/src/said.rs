//! What the program wrote to stderr since it was refused something: kept as it is, and read only if it dies. Reading
//! each line as it comes would cost programs that got over a refusal far more than the line.

use super::threads::LastFailure;
use super::{notes, refused};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use oomguard_core::busy::Busy;
use oomguard_core::message::{
    LastWord, Message, claims_failure_for_memory, drop_colours, has_backtrace as has_backtrace_in, last_word,
    says_to_try_again as says_to_try_again_in, speaks_of_a_thread,
};
use oomguard_core::sys;

/// So many lines after a refusal may be about it. A formatted line can be several writes.
const LISTENED_LINES: u32 = 32;

/// So many words of eight bytes are kept: the first half of them as they came first, the others as they came last. What is between
/// the two is nothing that a program ends for.
const KEPT_WORDS: usize = 1024;
const FIRST_WORDS: usize = KEPT_WORDS / 2;

/// A program that says so many has gone on, though it has ended no line: it counts, or draws a bar.
const LISTENED_WORDS: usize = 8 * KEPT_WORDS;

/// So much of one write is kept.
const KEPT_OF_ONE: usize = 256;

/// A piece of a line that is shorter is taken in without a look at the clock: a number, a separator.
const SHORT_BYTES: usize = 8;

// Relaxed throughout: text of two threads may mix, as it does on the screen, and it decides nothing without a refusal
// that is still open.
/// What was written, each piece from a new word on, the rest of its last one filled up with zeros.
static TEXT: [AtomicU64; KEPT_WORDS] = [const { AtomicU64::new(0) }; KEPT_WORDS];
/// In words, those included that have been lost.
static LEN: AtomicUsize = AtomicUsize::new(0);
/// Where that begins which was said after more work than who dies of a refusal does, plus one; zero for nothing.
static AFTER_WORK: AtomicUsize = AtomicUsize::new(0);
static LINES_LEFT: AtomicU32 = AtomicU32::new(0);
/// When something was kept last that is no mere number or separator, in monotonic milliseconds.
static SAID_AT_MS: AtomicU64 = AtomicU64::new(0);
/// How long the rest of a story may take, a backtrace or the way out, in milliseconds.
const STORY_MS: u64 = 1000;

/// For so long other threads that write do not tell that the refused one has gone on: it may not have come to say what it
/// ends for. In milliseconds.
const OTHERS_MS: u64 = 2000;
/// When something was refused last, by the coarse clock.
static BEGAN_AT_MS: AtomicU64 = AtomicU64::new(0);

/// Something was refused: what is said from now on may be about it.
pub(super) fn begin() {
    let now_ms = sys::clock::coarse_ms();
    BEGAN_AT_MS.store(now_ms, Relaxed);
    SAID_AT_MS.store(now_ms, Relaxed);
    forget();
    LINES_LEFT.store(LISTENED_LINES, Relaxed);
    WRITES_ELSEWHERE_LEFT.store(WRITES_ELSEWHERE, Relaxed);
    WRITES_ON_STDOUT_LEFT.store(WRITES_ON_STDOUT, Relaxed);
    LAST_FAILURE.store(LastFailure::OfThread as u8, Relaxed);
}

fn forget() {
    LEN.store(0, Relaxed);
    AFTER_WORK.store(0, Relaxed);
    ON_STDOUT.iter().for_each(|piece| piece.store(0, Relaxed));
}

/// The `LastFailure` of the refused thread that tells most against it, of all that it has said something after.
static LAST_FAILURE: AtomicU8 = AtomicU8::new(LastFailure::OfThread as u8);
const FAILURES: [LastFailure; 3] = [LastFailure::OfThread, LastFailure::Other, LastFailure::TryAgain];

/// So many of the refused thread's first writes to stdout may be about it, as many a log goes there; then it is data.
const WRITES_ON_STDOUT: u32 = 4;
static WRITES_ON_STDOUT_LEFT: AtomicU32 = AtomicU32::new(0);

/// Whether what this thread writes to stdout now is to be kept.
pub(super) fn takes_in_stdout() -> bool {
    refused::count_here() > 0
        && WRITES_ON_STDOUT_LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// The words of `TEXT` that went to stdout: the first one, and the one behind the last, in half a word each; zero for none.
static ON_STDOUT: [AtomicU64; WRITES_ON_STDOUT as usize] =
    [const { AtomicU64::new(0) }; WRITES_ON_STDOUT as usize];

/// So many writes elsewhere, and a program that says nothing to a person has gone on.
const WRITES_ELSEWHERE: u32 = 64;
static WRITES_ELSEWHERE_LEFT: AtomicU32 = AtomicU32::new(0);

/// This thread has written something that is not for stderr; whether there is still something to be listened to.
pub(super) fn note_write_elsewhere() -> bool {
    if !tells_of_going_on() {
        return true;
    }
    WRITES_ELSEWHERE_LEFT
        .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok_and(|left| left > 1)
}

/// Whether what this thread writes tells that the refused one has gone on.
fn tells_of_going_on() -> bool {
    refused::count_here() > 0 || sys::clock::coarse_ms().saturating_sub(BEGAN_AT_MS.load(Relaxed)) > OTHERS_MS
}

/// Where the word of that number is kept, until a later one takes its place.
#[inline(always)]
fn slot(number: usize) -> &'static AtomicU64 {
    let index = if number < KEPT_WORDS { number } else { FIRST_WORDS + number % FIRST_WORDS };
    // It is within, whatever the number, which the compiler sees.
    &TEXT[index]
}

/// Takes in a short piece of a line: in few instructions, as most of what programs write comes in such pieces. Its number.
#[inline(always)]
fn keep_short(text: &[u8]) -> usize {
    let word = text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let number = LEN.fetch_add(1, Relaxed);
    slot(number).store(word, Relaxed);
    number
}

/// Takes in what was written; whether there is more to be listened to.
#[inline(always)]
pub(super) fn keep(text: &[u8]) -> bool {
    if text.len() < SHORT_BYTES {
        if keep_short(text) >= LISTENED_WORDS {
            return note_long_story();
        }
        text.last() != Some(&b'\n') || note_line()
    } else {
        keep_long(text)
    }
}

/// A program has said so much that what it said first is no reason to end any more; whether there is more to be listened to.
#[cold]
#[inline(never)]
fn note_long_story() -> bool {
    let has_gone_on = tells_of_going_on();
    if has_gone_on {
        forget();
    }
    !has_gone_on
}

#[inline(never)]
fn keep_long(text: &[u8]) -> bool {
    let (whole, rest) = text.get(..KEPT_OF_ONE).unwrap_or(text).as_chunks::<8>();
    let start = LEN.fetch_add(whole.len(), Relaxed);
    for (number, word) in (start..).zip(whole) {
        slot(number).store(u64::from_le_bytes(*word), Relaxed);
    }
    keep_short(rest);
    if AFTER_WORK.load(Relaxed) == 0 && notes::is_worked_on_without() {
        AFTER_WORK.store(start + 1, Relaxed);
    }
    let failure = LastFailure::now();
    if failure != LastFailure::OfThread && refused::count_here() > 0 {
        LAST_FAILURE.fetch_max(failure as u8, Relaxed);
    }
    SAID_AT_MS.store(sys::clock::coarse_ms(), Relaxed);
    if start >= LISTENED_WORDS {
        return note_long_story();
    }
    !text.ends_with(b"\n") || note_line()
}

/// A line has come to its end.
#[inline(never)]
fn note_line() -> bool {
    if !tells_of_going_on() {
        return true;
    }
    let left = LINES_LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
    left.is_ok_and(|left| left > 1)
}

/// The same of what went to stdout, where it may only be beside the point: see `read`.
pub(super) fn keep_from_stdout(text: &[u8]) -> bool {
    let kept = LEN.load(Relaxed);
    let goes_on = keep(text);
    let end = LEN.load(Relaxed);
    // It may have been forgotten just now.
    let kept = if end > kept { (kept as u64) << 32 | end as u64 } else { 0 };
    if let Some(free) = ON_STDOUT.iter().find(|piece| piece.load(Relaxed) == 0) {
        free.store(kept, Relaxed);
    }
    goes_on
}

/// What was said last, as far as it bears on a death. A program that goes on after more words than are listened to has
/// got over it; one that ends at once has told a long story.
pub(super) fn last() -> Option<LastWord> {
    if is_recent() { read(last_word).flatten() } else { None }
}

/// The same of what was said after more work.
pub(super) fn last_after_work() -> Option<LastWord> {
    let start = AFTER_WORK.load(Relaxed).checked_sub(1).filter(|_| is_recent())?;
    read_from(start, last_word).flatten()
}

/// Who ends for what it says does so at once; who does not has gone on.
fn is_recent() -> bool {
    sys::clock::monotonic_ms().saturating_sub(SAID_AT_MS.load(Relaxed)) <= STORY_MS
}

/// Whether it has said just now that something may be tried again, as a thread that was refused.
pub(super) fn says_to_try_again() -> bool {
    let failure = FAILURES.get(usize::from(LAST_FAILURE.load(Relaxed)));
    let is_said = |look| read(look).unwrap_or(false);
    is_recent()
        && failure.is_some_and(|failure| failure.fits(|| is_said(speaks_of_a_thread)))
        && is_said(says_to_try_again_in)
}

/// Whether it has come to a backtrace.
pub(super) fn has_backtrace() -> bool {
    read(has_backtrace_in).unwrap_or(false)
}

/// What is looked at: not on the stack, which may be a signal handler's of a few KiB.
struct Scratch(UnsafeCell<[u8; KEPT_WORDS * 8]>);

// SAFETY: used by the one thread that `READING` lets through.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch = Scratch(UnsafeCell::new([0; KEPT_WORDS * 8]));
static READING: Busy = Busy::new();

/// `None` where another thread is reading, which is dying then.
///
/// What went to stdout takes nothing back of what stderr was told, that memory is gone, unless stdout was told so before: many
/// tools say on stderr what failed, and print their summary on stdout.
fn read<T>(look: fn(&[u8]) -> T) -> Option<T> {
    read_from(0, look)
}

fn read_from<T>(start: usize, look: fn(&[u8]) -> T) -> Option<T> {
    let _inside = READING.try_enter()?;
    // SAFETY: one thread at a time, by `READING`.
    let scratch = unsafe { &mut *SCRATCH.0.get() };
    let mut text = Collected { text: scratch, len: 0 };
    let (mut done, mut is_claimed_on_stdout) = (start, false);
    for piece in &ON_STDOUT {
        let piece = piece.load(Relaxed);
        let (start, end) = ((piece >> 32) as usize, (piece & u64::from(u32::MAX)) as usize);
        if piece == 0 || start < done {
            continue;
        }
        text.take(done..start);
        let before = text.len;
        let says_of_memory =
            last_word(text.so_far()).is_some_and(|last| last.message == Message::OutOfMemory);
        text.take(start..end);
        is_claimed_on_stdout |= claims_failure_for_memory(text.so_far().get(before..).unwrap_or(&[]));
        if says_of_memory && !is_claimed_on_stdout {
            text.len = before;
        }
        done = end;
    }
    text.take(done..LEN.load(Relaxed));
    Some(look(text.so_far()))
}

/// What was kept, without colours.
struct Collected<'a> {
    text: &'a mut [u8],
    len: usize,
}

impl Collected<'_> {
    fn so_far(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or(&[])
    }

    fn take(&mut self, words: Range<usize>) {
        let start = self.len;
        // The first of those that came last, and have not been lost.
        let last = LEN.load(Relaxed).saturating_sub(FIRST_WORDS).max(FIRST_WORDS);
        let first = words.start..words.end.min(FIRST_WORDS);
        let words = first.chain(words.start.max(last)..words.end);
        let bytes =
            words.flat_map(|number| slot(number).load(Relaxed).to_le_bytes()).filter(|byte| *byte != 0);
        for (byte, slot) in bytes.zip(self.text.get_mut(start..).unwrap_or_default()) {
            *slot = byte;
            self.len += 1;
        }
        self.len = start + drop_colours(self.text.get_mut(start..self.len).unwrap_or_default());
    }
}
