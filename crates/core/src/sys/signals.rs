//! Signals: masks and dispositions. See sigaction(2).

use super::raw;
use core::mem::zeroed;
#[cfg(not(feature = "shim"))]
pub use libc::sigaction as change_action;

/// sigaction(2), as the C library has it: the shim's own function of that name leads back to us.
///
/// # Safety
/// That of sigaction(2).
#[cfg(feature = "shim")]
pub unsafe extern "C" fn change_action(
    signal: i32,
    action: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> i32 {
    use core::sync::atomic::{AtomicUsize, Ordering};
    type Sigaction = unsafe extern "C" fn(i32, *const libc::sigaction, *mut libc::sigaction) -> i32;
    unsafe extern "C" {
        /// glibc's other name for it: for a static program, where there is no next definition.
        fn __sigaction(signal: i32, action: *const libc::sigaction, old: *mut libc::sigaction) -> i32;
    }
    static REAL: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: code is there from the start, and two threads find the same.
    let mut real = REAL.load(Ordering::Relaxed);
    if real == 0 {
        real = super::symbols::next_definition(super::objects::Name::new(c"sigaction"))
            .unwrap_or(__sigaction as *const () as usize);
        REAL.store(real, Ordering::Relaxed);
    }
    // SAFETY: the C library's function of this name has this signature.
    let real: Sigaction = unsafe { core::mem::transmute(real) };
    // SAFETY: by contract.
    unsafe { real(signal, action, old) }
}

pub type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Blocks every signal in this thread; what was blocked before.
pub fn block_all() -> libc::sigset_t {
    // SAFETY: all-zero is a valid set of signals.
    let mut all: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { zeroed() };
    for signal in 1..=64 {
        add(&mut all, signal);
    }
    // SAFETY: both sets are ours for the length of the call.
    unsafe { change_set(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    before
}

/// pthread_sigmask(3), which is not in every process: glibc has had it in a library of its own. The two signals that the C
/// library keeps to itself are never blocked here, as there.
///
/// # Safety
/// Each set is null, or readable or writable as for pthread_sigmask(3).
pub unsafe fn change_set(how: i32, set: *const libc::sigset_t, old: *mut libc::sigset_t) {
    const KERNELS_BYTES: usize = 8;
    const KEPT_BY_LIBC: u64 = 0b111 << 31;
    // SAFETY: null, or a readable set, by contract, whose first word is the kernel's.
    let wanted = unsafe { set.cast::<u64>().as_ref() }.map(|set| set & !KEPT_BY_LIBC);
    let wanted = wanted.as_ref().map_or(core::ptr::null(), |set| &raw const *set);
    // SAFETY: null or a word of ours, and null or a writable set, by contract.
    unsafe {
        raw::call(
            libc::SYS_rt_sigprocmask,
            [how as usize, wanted as usize, old as usize, KERNELS_BYTES, 0, 0],
        )
    };
}

/// Unblocks one signal in this thread.
pub fn unblock(signal: i32) {
    change_mask(libc::SIG_UNBLOCK, signal);
}

/// Blocks one signal in this thread.
pub fn block(signal: i32) {
    change_mask(libc::SIG_BLOCK, signal);
}

/// sigaddset(3).
pub fn add(set: &mut libc::sigset_t, signal: i32) {
    let bits = (&raw mut *set).cast::<u64>();
    // SAFETY: the set's first word, which is the kernel's, here and below.
    let before = unsafe { bits.read() };
    let added = 1u64.checked_shl(signal.wrapping_sub(1).cast_unsigned()).unwrap_or(0);
    // SAFETY: as above.
    unsafe { bits.write(before | added) };
}

fn change_mask(how: i32, signal: i32) {
    // SAFETY: all-zero is a valid set of signals.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    add(&mut set, signal);
    // SAFETY: `set` is readable during the call; the old mask is not asked for.
    unsafe { change_set(how, &raw const set, core::ptr::null_mut()) };
}

pub fn restore(mask: libc::sigset_t) {
    // SAFETY: `mask` is readable during the call; the old mask is not asked for.
    unsafe { change_set(libc::SIG_SETMASK, &raw const mask, core::ptr::null_mut()) };
}

/// What a signal does now.
pub fn disposition(signal: i32) -> libc::sigaction {
    // SAFETY: all-zero is a valid `sigaction`: the default action.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: `action` is writable during the call; nothing is set.
    unsafe { change_action(signal, core::ptr::null(), &raw mut action) };
    action
}

pub fn set_disposition(signal: i32, action: &libc::sigaction) {
    // SAFETY: `action` is readable during the call; its handler, if any, came from `disposition` or `install`.
    unsafe { change_action(signal, action, core::ptr::null_mut()) };
}

/// Installs a handler.
pub fn install(signal: i32, handler: Handler) {
    set_disposition(signal, &action_for(signal, handler));
}

/// The action that `install` sets. It runs on the alternate stack where there is one, but for SIGABRT: who aborts has
/// a stack that just worked, while an alternate one, such as std's of 8 KiB for each thread, can be half filled by the
/// registers that the kernel saves there (AVX-512), and last words take more than the rest. An abort on an alternate
/// stack is handled on what is left of it, with the flag as without.
pub fn action_for(signal: i32, handler: Handler) -> libc::sigaction {
    let mut action = default_action();
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    if signal != libc::SIGABRT {
        action.sa_flags |= libc::SA_ONSTACK;
    }
    action
}

/// Calls the handler of a disposition, if it has one, as the kernel would.
pub fn call_handler(
    action: &libc::sigaction,
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    match action.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {}
        handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a handler that was installed with SA_SIGINFO takes these three arguments.
            let handler: Handler = unsafe { core::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: a handler that was installed without SA_SIGINFO takes the signal's number.
            let handler: extern "C" fn(i32) = unsafe { core::mem::transmute(handler) };
            handler(signal);
        }
    }
}

pub fn set_default(signal: i32) {
    set_disposition(signal, &default_action());
}

pub fn default_action() -> libc::sigaction {
    // SAFETY: all-zero is a valid `sigaction`, and SIG_DFL is zero.
    unsafe { zeroed() }
}

/// Sends a signal to the calling thread.
pub fn raise_here(signal: i32) {
    let (pid, tid) = (super::process::pid(), super::process::tid());
    // SAFETY: tgkill takes no pointer.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}

/// A set of signals as the kernel keeps it: signal N is bit N - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals(pub u64);

impl Signals {
    pub fn of(signals: &[i32]) -> Signals {
        Signals(signals.iter().fold(0, |set, signal| set | Signals::bit(*signal)))
    }

    pub fn has(self, signal: i32) -> bool {
        self.0 & Signals::bit(signal) != 0
    }

    /// All of them, the two that the C library keeps to itself included. Blocked, these are all that can be.
    pub const ALL: Signals = Signals(!0);

    fn bit(signal: i32) -> u64 {
        1u64.checked_shl((signal - 1).cast_unsigned()).unwrap_or(0)
    }
}

/// Blocks signals in this thread; those that were blocked before.
pub fn block_these(signals: Signals) -> Signals {
    change_raw_mask(libc::SIG_BLOCK, signals)
}

/// Has exactly these signals blocked in this thread. By the raw call, as the C library keeps two signals to itself.
/// Async-signal-safe.
pub fn set_blocked(signals: Signals) {
    change_raw_mask(libc::SIG_SETMASK, signals);
}

fn change_raw_mask(how: i32, signals: Signals) -> Signals {
    let mut before = Signals::default();
    let bytes = size_of::<Signals>();
    // SAFETY: both sets are readable, or writable, for the length that is given.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const signals.0, &raw mut before.0, bytes) };
    before
}

/// While this lives, no handler of the program's runs in this thread, which could jump out of what it is at: siglongjmp(3). Those
/// signals that a thread brings on itself come all the same, SIGABRT, by which somebody is told to end, and the two that the C library
/// keeps to itself: it waits for them.
#[must_use]
pub struct Held(Signals);

/// Holds signals back. No allocation, and no error.
pub fn hold_back() -> Held {
    const KEPT_BY_LIBC: [i32; 2] = [32, 33];
    let own =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT];
    let pass = Signals::of(&own).0 | Signals::of(&KEPT_BY_LIBC).0;
    Held(change_by_instruction(libc::SIG_BLOCK, Signals(!pass)))
}

impl Drop for Held {
    fn drop(&mut self) {
        change_by_instruction(libc::SIG_SETMASK, self.0);
    }
}

/// As `change_raw_mask`, where the C library's `syscall` may be ours.
fn change_by_instruction(how: i32, signals: Signals) -> Signals {
    let mut before = Signals::default();
    let (set, old) = (&raw const signals.0 as usize, &raw mut before.0 as usize);
    // SAFETY: both sets are readable, or writable, for the length that is given.
    unsafe { raw::call(libc::SYS_rt_sigprocmask, [how as usize, set, old, size_of::<Signals>(), 0, 0]) };
    before
}

/// Whether a signal is ignored.
pub fn is_ignored(signal: i32) -> bool {
    disposition(signal).sa_sigaction == libc::SIG_IGN
}

/// Ignores a signal. Async-signal-safe.
pub fn set_ignored(signal: i32) {
    let mut action = default_action();
    action.sa_sigaction = libc::SIG_IGN;
    set_disposition(signal, &action);
}

/// Takes one `signal` that waits for this process, in which it is blocked; who sent it. Async-signal-safe.
pub fn take_waiting(signal: i32) -> Option<u32> {
    let set = Signals::of(&[signal]);
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: all-zero is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    let bytes = size_of::<Signals>();
    // SAFETY: the set is readable for the length that is given, the time is readable and `info` writable during the call.
    let got = unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set.0, &raw mut info, &raw const at_once, bytes)
    };
    // SAFETY: filled in by the kernel for a signal that was sent; else zero.
    (got == i64::from(signal)).then(|| unsafe { info.si_pid() }.cast_unsigned())
}

/// Waits for so many milliseconds until that signal has come, which is blocked, and takes it.
pub fn wait_for(signal: i32, ms: u64) {
    let set = Signals::of(&[signal]);
    let span = libc::timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 };
    let no_info = core::ptr::null_mut::<libc::siginfo_t>();
    // SAFETY: the set is readable for the length that is given, and the time is readable; what came is not asked for.
    unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set.0, no_info, &raw const span, size_of::<u64>())
    };
}

/// Stops this process by `signal`, which is one that stops, as if it had its default action; until SIGCONT.
pub fn stop_here(signal: i32) {
    let set = Signals::of(&[signal]);
    // SIGSTOP cannot be handled, and this changes nothing.
    let before = disposition(signal);
    set_default(signal);
    raise_here(signal);
    change_raw_mask(libc::SIG_UNBLOCK, set);
    change_raw_mask(libc::SIG_BLOCK, set);
    set_disposition(signal, &before);
}

/// Whether this thread has an alternate signal stack: sigaltstack(2).
pub fn has_alternate_stack() -> bool {
    // SAFETY: all-zero is a valid `stack_t`.
    let mut stack: libc::stack_t = unsafe { zeroed() };
    // SAFETY: `stack` is writable during the call; nothing is set.
    let known = unsafe { raw::sigaltstack(core::ptr::null(), &raw mut stack) } == 0;
    known && stack.ss_flags & libc::SS_DISABLE == 0
}

/// Whether this thread runs on its alternate stack now, as a handler does that asked for it.
pub fn is_on_alternate_stack() -> bool {
    // SAFETY: all-zero is a valid `stack_t`.
    let mut stack: libc::stack_t = unsafe { zeroed() };
    // SAFETY: `stack` is writable during the call; nothing is set.
    let known = unsafe { raw::sigaltstack(core::ptr::null(), &raw mut stack) } == 0;
    known && stack.ss_flags & libc::SS_ONSTACK != 0
}

/// Has the kernel send SIGALRM to the process once, after `ms`: setitimer(2).
pub fn alarm_after_ms(ms: u64) {
    let value = libc::timeval { tv_sec: (ms / 1000) as i64, tv_usec: (ms % 1000 * 1000) as i64 };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: `timer` is readable during the call; the old timer is not asked for.
    unsafe {
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, core::ptr::null_mut::<u8>())
    };
}
