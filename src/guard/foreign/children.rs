//! system(3): a child that the program starts and waits for at once. Whoever waits for a child may pass on how that ended;
//! one that did well has nothing to pass on, and was part of the way out: it has tidied up.

use crate::guard::real::{Real, call_real};
use crate::guard::{notes, refusal};
use crate::sys;
use core::ffi::{c_char, c_int};
use core::ptr::null_mut;

static SYSTEM: Real = Real::new(c"system");

unsafe extern "C" {
    /// The program's environment: environ(7).
    static environ: *const *const c_char;
}

pub(super) fn resolve() {
    let _ = SYSTEM.address();
}

/// system(3).
///
/// # Safety
/// That of system(3).
pub unsafe fn system(command: *const c_char) -> c_int {
    let before = refusal::may_ask().then(sys::process::childrens_pages);
    let status = match call_real!(SYSTEM, unsafe extern "C" fn(*const c_char) -> c_int) {
        // SAFETY: the argument is the caller's, whose contract is the same.
        Some(real) => unsafe { real(command) },
        // There is a shell.
        None if command.is_null() => 1,
        // SAFETY: a C string, by contract.
        None => unsafe { run_shell(command) },
    };
    if let Some(before) = before
        && status == 0
    {
        let errno = sys::fd::errno();
        notes::leave_out_children(sys::process::childrens_pages().saturating_sub(before));
        sys::fd::set_errno(errno);
    }
    status
}

/// What system(3) does, in a static program, which has no linker to ask for it.
///
/// # Safety
/// `command` is a C string.
unsafe fn run_shell(command: *const c_char) -> c_int {
    let mut ignored = sys::signals::default_action();
    ignored.sa_sigaction = libc::SIG_IGN;
    let (mut interrupt, mut quit) = (sys::signals::default_action(), sys::signals::default_action());
    // SAFETY: all-zero is a valid set.
    let (mut child_ends, mut mask): (libc::sigset_t, libc::sigset_t) = unsafe { core::mem::zeroed() };
    // SAFETY: the set is ours and writable.
    unsafe { libc::sigaddset(&raw mut child_ends, libc::SIGCHLD) };
    // SAFETY: actions of ours for the length of the call; the signal is not one of those that are held.
    unsafe { libc::sigaction(libc::SIGINT, &raw const ignored, &raw mut interrupt) };
    // SAFETY: as above.
    unsafe { libc::sigaction(libc::SIGQUIT, &raw const ignored, &raw mut quit) };
    // SAFETY: sets of ours.
    unsafe { sys::signals::change_set(libc::SIG_BLOCK, &raw const child_ends, &raw mut mask) };
    let put_back = || {
        // SAFETY: what was there before, for this and the next two.
        unsafe { libc::sigaction(libc::SIGINT, &raw const interrupt, null_mut()) };
        // SAFETY: as above.
        unsafe { libc::sigaction(libc::SIGQUIT, &raw const quit, null_mut()) };
        // SAFETY: as above.
        unsafe { sys::signals::change_set(libc::SIG_SETMASK, &raw const mask, null_mut()) };
    };
    let list = [c"sh".as_ptr(), c"-c".as_ptr(), command, core::ptr::null()];
    // SAFETY: what the child does until it is another program is allowed after fork(2).
    let child = unsafe { libc::fork() };
    if child == 0 {
        put_back();
        // SAFETY: a variable of the C library.
        let environment = unsafe { environ };
        // SAFETY: a path, a list that ends with null, and the program's environment.
        unsafe { super::execve(c"/bin/sh".as_ptr(), list.as_ptr(), environment) };
        sys::process::exit_now(127);
    }
    let mut status = -1;
    // SAFETY: `status` is writable during the call.
    while child > 0 && unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        if sys::fd::errno() != libc::EINTR {
            status = -1;
            break;
        }
    }
    let errno = sys::fd::errno();
    put_back();
    sys::fd::set_errno(errno);
    status
}
