//! Signals: masks and dispositions. See sigaction(2).

use core::mem::zeroed;

pub(crate) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Blocks every signal in this thread; what was blocked before.
pub(crate) fn block_all() -> libc::sigset_t {
    // SAFETY: all-zero is a valid set of signals.
    let mut all: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: `all` is writable during the call.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets are ours for the length of the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    before
}

/// Unblocks one signal in this thread.
pub(crate) fn unblock(signal: i32) {
    change_mask(libc::SIG_UNBLOCK, signal);
}

/// Blocks one signal in this thread.
pub(crate) fn block(signal: i32) {
    change_mask(libc::SIG_BLOCK, signal);
}

fn change_mask(how: i32, signal: i32) {
    // SAFETY: all-zero is a valid set of signals.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: `set` is writable during the call.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: `set` is readable during the call; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(how, &raw const set, core::ptr::null_mut()) };
}

pub(crate) fn restore(mask: libc::sigset_t) {
    // SAFETY: `mask` is readable during the call; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, core::ptr::null_mut()) };
}

/// What a signal does now.
pub(crate) fn disposition(signal: i32) -> libc::sigaction {
    // SAFETY: all-zero is a valid `sigaction`: the default action.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: `action` is writable during the call; nothing is set.
    unsafe { libc::sigaction(signal, core::ptr::null(), &raw mut action) };
    action
}

pub(crate) fn set_disposition(signal: i32, action: &libc::sigaction) {
    // SAFETY: `action` is readable during the call; its handler, if any, came from `disposition` or `install`.
    unsafe { libc::sigaction(signal, action, core::ptr::null_mut()) };
}

/// Installs a handler that runs on the alternate stack where there is one.
pub(crate) fn install(signal: i32, handler: Handler) {
    // SAFETY: all-zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    set_disposition(signal, &action);
}

pub(crate) fn set_default(signal: i32) {
    // SAFETY: all-zero is a valid `sigaction`, and SIG_DFL is zero.
    let action: libc::sigaction = unsafe { zeroed() };
    set_disposition(signal, &action);
}

/// Sends a signal to the calling thread.
pub(crate) fn raise_here(signal: i32) {
    let (pid, tid) = (super::process::pid(), super::process::tid());
    // SAFETY: tgkill takes no pointer.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}

/// Whether this thread has an alternate signal stack: sigaltstack(2).
pub(crate) fn has_alternate_stack() -> bool {
    // SAFETY: all-zero is a valid `stack_t`.
    let mut stack: libc::stack_t = unsafe { zeroed() };
    // SAFETY: `stack` is writable during the call; nothing is set.
    let known = unsafe { libc::sigaltstack(core::ptr::null(), &raw mut stack) } == 0;
    known && stack.ss_flags & libc::SS_DISABLE == 0
}

/// Has the kernel send SIGALRM to the process once, after `ms`: setitimer(2).
pub(crate) fn alarm_after_ms(ms: u64) {
    let value = libc::timeval { tv_sec: (ms / 1000) as i64, tv_usec: (ms % 1000 * 1000) as i64 };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: `timer` is readable during the call; the old timer is not asked for.
    unsafe {
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, core::ptr::null_mut::<u8>())
    };
}
