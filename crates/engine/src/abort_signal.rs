//! Who handles SIGABRT: we, or the program since.

use super::hook::Hook;
use core::ffi::c_int;
use oomguard_core::sys::signals;

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Our handler, once there is one.
static OURS: Hook<Handler> = Hook::new();

/// Puts our handler there, or keeps it for later: a program that ignores SIGABRT goes on doing so.
pub(super) fn hold(ours: Handler, is_ignored: bool) {
    OURS.set(ours);
    if !is_ignored {
        signals::install(libc::SIGABRT, ours);
    }
}

/// Whatever the program has made of SIGABRT: its next one is for us.
pub(super) fn hold_again() {
    if let Some(ours) = OURS.get() {
        signals::install(libc::SIGABRT, ours);
    }
}

/// Whether our handler is the one that SIGABRT has now.
pub(super) fn is_ours() -> bool {
    let now = signals::disposition(libc::SIGABRT).sa_sigaction;
    OURS.get().is_some_and(|ours| now == ours as *const () as usize)
}
