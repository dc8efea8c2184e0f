//! The ends of a Rust program by `exit` and its kin: judged before the process is gone.

use super::armed::{Armed, armed};
use super::exhaustion::{self, Verdict};
use super::real::{Real, call_real};
use super::standing::{self, Standing};
use super::{record, std_line, verdict};
use oomguard_core::sys;

/// Has `exit(3)` ask us last, when the program's own handlers have run.
#[cfg(target_env = "gnu")]
pub(super) fn watch_exit() {
    use super::exit_turns::{self, Turn};
    use super::{standing::REPORT_DEADLINE_MS, watchdog};
    unsafe extern "C" {
        // on_exit(3); its first 32 handlers need no allocation.
        fn on_exit(handler: extern "C" fn(i32, *mut libc::c_void), argument: *mut libc::c_void) -> i32;
    }
    fn register() {
        // SAFETY: `ask` lives as long as the process and ignores its argument.
        unsafe { on_exit(ask, core::ptr::null_mut()) };
    }
    extern "C" fn ask(code: i32, _: *mut libc::c_void) {
        let turn = exit_turns::take(register);
        if let Turn::Again = turn {
            return;
        }
        let Some((armed, verdict)) = verdict_on_exit(Some(code)) else {
            return if let Turn::Next = turn { exit_turns::keep(code) } else { exit_turns::go_on() };
        };
        exhaustion::say_last_words(armed, verdict);
        // What is left is to write out what C's streams hold, as far as somebody reads it.
        watchdog::extend(REPORT_DEADLINE_MS);
        // Called again from a handler, exit goes on where it was, with the new code: exit(3), as glibc has it.
        // SAFETY: of all threads in exit, only this one goes on.
        unsafe { libc::exit(i32::from(armed.exit_code)) }
    }
    register();
}

/// As above; musl tells a handler no exit code. In a static program its `exit` ends in our `_Exit`, which learns it.
#[cfg(not(target_env = "gnu"))]
pub(super) fn watch_exit() {
    extern "C" fn ask() {
        at_exit(None);
    }
    // SAFETY: `ask` lives as long as the process.
    unsafe { libc::atexit(ask) };
}

/// `_exit(2)` and `_Exit(3)`, as the program and its libraries call them.
#[cfg_attr(not(any(target_env = "gnu", target_feature = "crt-static")), allow(dead_code))]
pub(super) extern "C" fn exit_at_once(code: i32) -> ! {
    at_exit(Some(code));
    // A parent sees no more of it.
    sys::process::exit_now(code.cast_unsigned() as u8)
}

#[cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]
static QUICK_EXIT: Real = Real::new(c"quick_exit");

/// `quick_exit(3)`: whose handlers are told no code.
#[cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]
pub(super) extern "C" fn quick_exit(code: i32) -> ! {
    at_exit(Some(code));
    if let Some(real) = call_real!(QUICK_EXIT, extern "C" fn(i32) -> !) {
        real(code)
    }
    exit_at_once(code)
}

fn at_exit(code: Option<i32>) {
    if let Some((armed, verdict)) = verdict_on_exit(code) {
        exhaustion::end_for_certain(armed, verdict);
    }
}

fn verdict_on_exit(code: Option<i32>) -> Option<(&'static Armed, Verdict)> {
    let armed = armed()?;
    match standing::here() {
        Standing::Dying => standing::exit(armed),
        Standing::Outlived => standing::park(armed),
        Standing::Alive => {}
    }
    // What a parent sees of it. Where the code is not told, nothing is.
    let code = code.map_or(0, |code| code.cast_unsigned() as u8);
    let verdict = if code == 0 { None } else { verdict::of_exit(armed, code) };
    if verdict.is_none() {
        std_line::release();
        record::acquit();
    }
    verdict.filter(|verdict| exhaustion::suffices(armed, *verdict)).map(|verdict| (armed, verdict))
}
