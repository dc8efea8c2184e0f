//! SIGABRT: the aborts that do not pass through our `abort`. Those inside the C library are looked at; a signal that
//! somebody sent, and an abort for any other reason, do what they did before us.

use super::armed::{Armed, armed};
use super::exhaustion::{self, Own, Verdict};
use super::{abort_signal, asked, frames, record, standing, standstill, unwind, verdict};
use core::sync::atomic::{AtomicU32, Ordering};
use oomguard_core::contract::{Cause, Evidence};
use oomguard_core::sys;

/// The thread whose abort has been judged already, so that SIGABRT does not ask again.
static JUDGED_HERE: AtomicU32 = AtomicU32::new(0);

/// This thread's abort is its own affair.
pub(super) fn acquit() {
    // Relaxed: read back by the same thread, in its signal handler.
    JUDGED_HERE.store(sys::process::tid(), Ordering::Relaxed);
}

/// Catches the aborts that do not pass through our `abort`: those inside the C library, and, where nothing can be
/// interposed, all of them. A program that ignores SIGABRT goes on doing so.
pub(super) fn install_handler(armed: &Armed) {
    abort_signal::hold(on_signal, armed.abort_action.sa_sigaction == libc::SIG_IGN);
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(armed) = armed() else { return };
    let errno = sys::errno::errno();
    // SAFETY: the kernel, and a handler that passes its arguments on, hand over a description, or nothing.
    let info_here = unsafe { info.as_ref() };
    if info_here.is_some_and(|info| asked::heed(armed, info)) {
        sys::errno::set_errno(errno);
        return;
    }
    if info_here.is_none_or(is_raised_here) {
        if standstill::heed(armed) {
            sys::errno::set_errno(errno);
            return;
        }
        judge(armed, context);
    }
    record::acquit();
    pass_on(armed, signal, info, context);
    sys::errno::set_errno(errno);
}

/// Whether this process sent the signal to this very thread, as abort(3) does: not kill(2), and nobody else.
fn is_raised_here(info: &libc::siginfo_t) -> bool {
    // SAFETY: a signal sent by tgkill(2) carries its sender.
    info.si_code == libc::SI_TKILL && unsafe { info.si_pid() }.unsigned_abs() == sys::process::pid()
}

fn judge(armed: &Armed, context: *mut libc::c_void) {
    match standing::here() {
        standing::Standing::Dying => standing::exit(armed),
        standing::Standing::Outlived => standing::park(armed),
        standing::Standing::Alive => {}
    }
    // Relaxed: as in `acquit`.
    if JUDGED_HERE.load(Ordering::Relaxed) == sys::process::tid() || context.is_null() {
        return;
    }
    // SAFETY: the kernel hands a handler with SA_SIGINFO the context that it interrupted.
    let registers = unsafe { unwind::interrupted(context) };
    if frames::was_in_alloc_error(&armed.alloc_error_code, registers) {
        verdict::end_of_allocation(armed);
    }
    if frames::was_in_thread_exit(registers) {
        let (cause, evidence, own) = (Cause::Heap, Evidence::Exact, Own::ABORT);
        exhaustion::end_for_certain(armed, Verdict { cause, request: None, evidence, own });
    }
}

/// Does what SIGABRT did before us.
fn pass_on(armed: &Armed, signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let action = &armed.abort_action;
    match action.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // A handler of the program's own that calls the one before it: without us there would be none to call.
            if !abort_signal::is_ours() {
                return;
            }
            // The signal is blocked while we handle it. Unblocked here, as coming back to where it was raised takes a
            // system call that a filter may not know of.
            sys::signals::set_default(signal);
            sys::signals::raise_here(signal);
            sys::signals::unblock(signal);
        }
        _ => sys::signals::call_handler(action, signal, info, context),
    }
}

/// The real hook, which nightly compilers let us set.
#[cfg(oomguard_nightly)]
pub(super) fn alloc_error_hook(_layout: std::alloc::Layout) {
    if let Some(armed) = armed() {
        verdict::end_of_allocation(armed);
    }
}
