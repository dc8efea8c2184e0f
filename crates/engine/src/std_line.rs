//! std's own line, by which it tells that memory is gone before it aborts. It says it inside `handle_alloc_error`: that is
//! the end. With `--cfg oomguard_nightly` it may be an alloc-error hook of the program's own, which only nightly compilers
//! know, that says the same, unwinds from there, is caught, and goes on. Whose line it is shows in what comes next. Until
//! then it is held back, as a program that dies has a better one.
//!
//! ```text
//!   nothing ──std's words, inside handle_alloc_error──▶ held ──std goes on as std does, `abort`──▶ the end
//!      ▲                                                 │
//!      └────────────── anything else: written ───────────┘
//! ```

use super::armed::Armed;
use super::{frames, rust, written};
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use oomguard_core::message::STD_LINE;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;
use oomguard_core::text::{Text, leading_number};

/// Whether a hook of the program's own may say it. To hold it back has std go on, which takes memory. Where none may, nothing
/// is ever held back, and nobody is asked whether it is.
const MAY_BE_A_HOOKS: bool = cfg!(oomguard_nightly);

/// What follows the size.
const AFTER_SIZE: &[u8] = b" bytes failed\n";

/// How std's default hook goes on after its line, and nobody else.
const STD_GOES_ON: [&[u8]; 2] = [b"note: run with `RUST_BACKTRACE=", b"skipping backtrace printing"];
/// The same, where it is about to print a backtrace; it holds the lock for that, and so the end cannot be here.
const STD_PRINTS_BACKTRACE: &[u8] = b"stack backtrace:";

/// How much of the line this thread has said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Beginning,
    Size,
    All,
}

struct Here {
    said: Cell<u8>,
    size: Cell<u64>,
}

// SAFETY: cells of numbers; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_std_line_held_here");

impl Here {
    fn said(&self) -> Said {
        match self.said.get() {
            0 => Said::Nothing,
            1 => Said::Beginning,
            2 => Said::Size,
            _ => Said::All,
        }
    }

    fn set(&self, said: Said) {
        self.said.set(said as u8);
    }
}

/// How many threads hold a line back. Relaxed: only whether their next words are looked at.
static HOLDING: AtomicU32 = AtomicU32::new(0);

/// Whether some thread of this process does.
pub(super) fn is_anybody_holding() -> bool {
    MAY_BE_A_HOOKS && HOLDING.load(Ordering::Relaxed) != 0
}

/// Whether this thread does.
#[inline]
pub(super) fn is_held() -> bool {
    MAY_BE_A_HOOKS && here().said() != Said::Nothing
}

/// What becomes of a line that begins as std's own does, said inside `handle_alloc_error`.
pub(super) enum Fate {
    /// It counts as written, for now.
    Held,
    /// It is the end.
    End,
    /// Other words follow than std's.
    Own,
}

/// This thread begins to say that line.
pub(super) fn begin(armed: &Armed, text: &[u8]) -> Fate {
    // A hook that unwinds from there ends the program, and std's may wait for a lock that this thread holds.
    if !MAY_BE_A_HOOKS || rust::is_panicking() {
        return Fate::End;
    }
    if is_held() {
        // Refused again, and again not getting over it: what std needs for its backtrace.
        if frames::is_twice_in_alloc_error(&armed.alloc_error_code) {
            return Fate::End;
        }
        release();
    }
    let Some(rest) = text.strip_prefix(STD_LINE) else { return Fate::End };
    // Who writes the next word may wait for ever, or for somebody who does. A filter may know nothing of the question.
    if !sys::process::is_filtered() && !sys::fd::can_be_written(libc::STDERR_FILENO) {
        return Fate::End;
    }
    here().set(Said::Beginning);
    HOLDING.fetch_add(1, Ordering::Relaxed);
    written::listen_closely();
    match rest {
        [] => Fate::Held,
        rest => match go_on(rest) {
            Next::Held => Fate::Held,
            _ => {
                forget();
                Fate::Own
            }
        },
    }
}

/// What this thread writes next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The line goes on: it counts as written.
    Held,
    /// A backtrace, which takes long and may find no memory: std goes without where it cannot be written.
    Backtrace,
    Other,
}

/// The same while its line is held.
pub(super) fn go_on(text: &[u8]) -> Next {
    let here = here();
    match here.said() {
        Said::Nothing => Next::Other,
        Said::Beginning => {
            let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let Some(size) = leading_number(text).filter(|_| digits > 0) else { return Next::Other };
            here.size.set(size);
            here.set(Said::Size);
            match text.get(digits..).unwrap_or(&[]) {
                [] => Next::Held,
                rest => go_on(rest),
            }
        }
        Said::Size => {
            let Some(rest) = text.strip_prefix(AFTER_SIZE) else { return Next::Other };
            here.set(Said::All);
            match rest {
                [] => Next::Held,
                rest => go_on(rest),
            }
        }
        Said::All if STD_GOES_ON.iter().any(|words| text.starts_with(words)) => Next::Held,
        Said::All if text.starts_with(STD_PRINTS_BACKTRACE) => Next::Backtrace,
        Said::All => Next::Other,
    }
}

/// What is held back is never said.
pub(super) fn forget() {
    if is_held() {
        here().set(Said::Nothing);
        HOLDING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// It is the program's own: writes what was held back.
#[cold]
pub(super) fn release() {
    let here = here();
    let (said, size) = (here.said(), here.size.get());
    if said == Said::Nothing {
        return;
    }
    forget();
    let mut line = Text::<64>::new();
    line.push_bytes(STD_LINE);
    if said != Said::Beginning {
        line.push_number(size);
    }
    if said == Said::All {
        line.push_bytes(AFTER_SIZE);
    }
    written::write_and_hear(line.as_bytes());
}

/// This thread has got memory. If it is not inside `handle_alloc_error` any more, the line was the program's own.
#[cold]
#[inline(never)]
pub(super) fn release_if_left() {
    let errno = sys::errno::errno();
    if super::armed::armed().is_none_or(|armed| !frames::is_in_alloc_error(&armed.alloc_error_code)) {
        release();
    }
    sys::errno::set_errno(errno);
}
