//! What was looked up to be said, and whether it was: a claim in another language than English is known by its text. A
//! program may look up what it never says: it keeps quiet, or tells of what went wrong later.
//!
//! ```text
//!   a claim is looked up ──▶ pending ──its text is in what is said──▶ said
//!                               └──something was written by a way that is not read, and nothing else was said──▶ said
//! ```

use core::ffi::c_char;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use oomguard_core::message::{Message, claims_nothing, says_much};
use oomguard_core::sys;
use oomguard_core::text::{parts, place_of};
use oomguard_engine::armed::Armed;
use oomguard_engine::filter;
use oomguard_engine::judge::Said;
use oomguard_engine::notes::{self, Kept, Moment};
use oomguard_engine::owner;

// Relaxed throughout: who looks up a text and says it is one thread; texts of two at once are taken for one another's.

/// So much of a text is compared.
const MOST_BYTES: usize = 32;
/// With less of it, any message would have it.
const LEAST_BYTES: usize = 4;

static IS_PENDING: AtomicBool = AtomicBool::new(false);
static TEXT: [AtomicU8; MOST_BYTES] = [const { AtomicU8::new(0) }; MOST_BYTES];
static LEN: AtomicUsize = AtomicUsize::new(0);
/// What had been refused then, and not got over; when it was; what had been allocated by then, and how many calls had
/// written, plus one: zero where that cannot be known.
static ABOUT: Kept = Kept::new();
static AT: Moment = Moment::new();
static AT_BYTES: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Something else was said since.
static SAYS_OTHER: AtomicBool = AtomicBool::new(false);
/// What tells of another failure was looked up since the last refusal.
static FAILS_OTHERWISE: AtomicBool = AtomicBool::new(false);

pub(super) fn forget() {
    IS_PENDING.store(false, Relaxed);
    FAILS_OTHERWISE.store(false, Relaxed);
}

pub(super) fn forget_other_failure() {
    FAILS_OTHERWISE.store(false, Relaxed);
}

/// The text of another failure was looked up.
pub(super) fn note_other_failure() {
    FAILS_OTHERWISE.store(true, Relaxed);
}

/// Whether the program, which has said nothing, has looked up what to say of another failure.
pub(super) fn fails_otherwise() -> bool {
    FAILS_OTHERWISE.load(Relaxed)
}

/// A text was looked up which says that memory is gone: this, in the user's language.
pub(super) fn note_claim(text: *const c_char) {
    if text.is_null() || !owner::is_guarded() {
        return;
    }
    let about = notes::open_or_just_closed();
    if about.is_none() {
        return;
    }
    let mut len = 0;
    // SAFETY: a C string, by the contract of who looked it up; no byte behind its end is read.
    while let [byte] = unsafe { text.wrapping_add(len).read() }.to_ne_bytes()
        && !matches!(byte, 0 | b'%' | b'\n')
        && let Some(slot) = TEXT.get(len)
    {
        slot.store(byte, Relaxed);
        len += 1;
    }
    LEN.store(len, Relaxed);
    ABOUT.set(about);
    AT.set_now();
    AT_BYTES.store(notes::allocated_bytes(), Relaxed);
    CALLS.store(calls(), Relaxed);
    SAYS_OTHER.store(false, Relaxed);
    FAILS_OTHERWISE.store(false, Relaxed);
    IS_PENDING.store(true, Relaxed);
    notes::watch(0);
}

/// How many calls have written so far, plus one; zero where no file may be opened.
fn calls() -> u64 {
    let calls = if filter::may_ask() { sys::process::calls_that_wrote() } else { None };
    calls.map_or(0, |calls| calls.saturating_add(1))
}

/// The program says something. Whether it is what was looked up.
pub(super) fn hear(message: &[u8]) -> bool {
    if !IS_PENDING.load(Relaxed) {
        return false;
    }
    let mut text = [0; MOST_BYTES];
    text.iter_mut().zip(&TEXT).for_each(|(byte, slot)| *byte = slot.load(Relaxed));
    let text = text.get(..LEN.load(Relaxed)).unwrap_or_default();
    let mut is_it = false;
    for line in parts(message, b'\n') {
        let has_it = text.len() >= LEAST_BYTES && place_of(line, text).is_some();
        if has_it && !claims_nothing(line) {
            is_it = true;
        } else if says_much(line) {
            SAYS_OTHER.store(true, Relaxed);
        }
    }
    if is_it {
        IS_PENDING.store(false, Relaxed);
    }
    is_it
}

/// What was looked up, if it was said by a way that is not read: as far as that can be known, and for as long as any words
/// hold.
pub(super) fn said(armed: &Armed) -> Option<Said> {
    if !IS_PENDING.load(Relaxed) || SAYS_OTHER.load(Relaxed) || FAILS_OTHERWISE.load(Relaxed) {
        return None;
    }
    let bytes_since = notes::allocated_bytes().saturating_sub(AT_BYTES.load(Relaxed));
    let before = CALLS.load(Relaxed);
    let was_written = before == 0 || calls() != before;
    (was_written && bytes_since < notes::last_bytes(armed) && AT.since().is_way_out()).then(|| Said {
        message: Message::OutOfMemory,
        about: ABOUT.get(),
        fails_otherwise: false,
        fails_to_make: false,
    })
}
