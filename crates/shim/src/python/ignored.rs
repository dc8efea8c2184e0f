//! What Python says of an exception that it ignores: in a destructor, a generator that is closed, an exit handler. A line
//! that says so, a traceback, perhaps a chain of them, and the exception's own line.

use super::THREAD_STARTED_BY;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use oomguard_core::text::place_of;
use oomguard_engine::refused;

/// How far the thread has come that says so. Relaxed throughout: its own words; another thread's in between end it.
static BY: AtomicU32 = AtomicU32::new(0);
static STAGE: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = 0;
/// Before the exception's own line.
const BEFORE: u8 = 1;
/// Behind it: another exception's traceback may follow.
const BEHIND: u8 = 2;
/// Its last line is not complete: `python -u` writes them in pieces.
static IS_OPEN: AtomicBool = AtomicBool::new(false);
/// How many refusals there had been when it was complete.
static AT: AtomicU64 = AtomicU64::new(0);

/// The second one up to 3.9.
const BEGINS: [&[u8]; 2] = [b"Exception ignored ", b"Error in atexit._run_exitfuncs:"];
/// Between the exceptions of a chain.
const GOES_ON: [&[u8]; 2] = [b"During handling of the above ", b"The above exception was "];
const TRACEBACK: &[u8] = b"Traceback (most recent call last)";

pub(super) fn forget() {
    BY.store(0, Relaxed);
    STAGE.store(NOTHING, Relaxed);
    IS_OPEN.store(false, Relaxed);
    AT.store(0, Relaxed);
}

/// Whether nothing was refused since an exception was ignored.
pub(super) fn is_last_refusal() -> bool {
    let at = AT.load(Relaxed);
    at != 0 && at == refused::count()
}

/// The last lines of a message that are about something else; empty where there are none.
pub(super) fn last_other(here: u32, message: &[u8]) -> &[u8] {
    if BY.swap(here, Relaxed) != here {
        STAGE.store(NOTHING, Relaxed);
        IS_OPEN.store(false, Relaxed);
    }
    let (mut start, mut end, mut at) = (0, 0, 0);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let before = at;
        at += line.len();
        if !is_about_ignored(line) {
            start = if end == before { start } else { before };
            end = at;
        }
    }
    message.get(start..end).unwrap_or_default()
}

fn is_about_ignored(line: &[u8]) -> bool {
    let is_rest = IS_OPEN.load(Relaxed);
    IS_OPEN.store(!line.ends_with(b"\n"), Relaxed);
    let begins = |words: &[&[u8]]| words.iter().any(|words| line.starts_with(words));
    let names_thread = || place_of(line, THREAD_STARTED_BY).is_some();
    let before = STAGE.load(Relaxed);
    let stage = if is_rest {
        before
    } else if begins(&BEGINS) {
        if names_thread() { NOTHING } else { BEFORE }
    } else {
        match before {
            // Blank lines, and those of a traceback, which are indented.
            BEFORE | BEHIND if line.first().is_some_and(u8::is_ascii_whitespace) => before,
            BEFORE if line.starts_with(TRACEBACK) => BEFORE,
            BEFORE => BEHIND,
            BEHIND if begins(&GOES_ON) => BEFORE,
            _ => NOTHING,
        }
    };
    STAGE.store(stage, Relaxed);
    if stage == BEHIND && before == BEFORE {
        AT.store(refused::count(), Relaxed);
    }
    stage != NOTHING
}
