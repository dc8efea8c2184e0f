//! The program's own handlers for the signals of a crash, and for the one by which a process is told to stand still, as
//! sigaction(2) and signal(3) set them.
//!
//! The program must not notice ours: it sees the default where only we are, its own handlers take our place, and the
//! default puts us back.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use oomguard_core::overrun::STILL_SIGNAL;
use oomguard_core::sys;
use oomguard_engine::call_real;
use oomguard_engine::real::Real;
use oomguard_engine::{asked, lease};

type Sigaction = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
type Signal = unsafe extern "C" fn(c_int, usize) -> usize;

static SIGACTION: Real = Real::new(c"sigaction");
static SIGNAL: Real = Real::new(c"signal");

pub(super) fn resolve() {
    for real in [&SIGACTION, &SIGNAL] {
        let _ = real.address();
    }
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// SIGBUS is not among them: no limit of ours ends in it.
const WATCHED: [c_int; 4] = [libc::SIGABRT, libc::SIGSEGV, libc::SIGILL, libc::SIGTRAP];

/// The watched signals that were at their default when we came, a bit each: the others are the program's.
static HELD: AtomicU32 = AtomicU32::new(0);

/// Those that the program has had a handler for since.
static HANDLED: AtomicU32 = AtomicU32::new(0);

fn is_held(signal: c_int) -> bool {
    // Acquire: pairs with the Release in `hold`.
    (WATCHED.contains(&signal) || signal == STILL_SIGNAL) && HELD.load(Ordering::Acquire) & (1 << signal) != 0
}

/// Our handler, once we hold a signal.
static OURS: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Holds the signals that nobody else does.
pub(super) fn hold(ours: Handler) {
    OURS.store(ours as *mut (), Ordering::Relaxed);
    let mut held = 0;
    for signal in WATCHED {
        if sys::signals::disposition(signal).sa_sigaction == libc::SIG_DFL {
            sys::signals::install(signal, ours);
            held |= 1 << signal;
        }
    }
    if asked::heed_stillness() {
        held |= 1 << STILL_SIGNAL;
    }
    // Release: who sees that a signal is held sees by whom. A library that is loaded later has threads beside it.
    HELD.store(held, Ordering::Release);
}

/// The same of the one by which a forked child is told to stand still: its parent may have had none.
pub(super) fn hold_in_child() {
    if sys::signals::disposition(STILL_SIGNAL).sa_sigaction == asked::STAND_STILL as *const () as usize {
        // Release: as above.
        HELD.fetch_or(1 << STILL_SIGNAL, Ordering::Release);
    }
}

/// What a held signal is handled by where the program wants the default.
fn our_action(signal: c_int) -> libc::sigaction {
    if signal == STILL_SIGNAL {
        return sys::signals::action_for(signal, asked::STAND_STILL);
    }
    // Relaxed: written before `main`.
    let ours = OURS.load(Ordering::Relaxed);
    // SAFETY: a signal is held, so `hold` has put a handler there.
    sys::signals::action_for(signal, unsafe { core::mem::transmute::<*mut (), Handler>(ours) })
}

/// Whether the program has a handler of its own for a signal that we would hold.
pub(super) fn is_handled_by_program(signal: c_int) -> bool {
    let handler = sys::signals::disposition(signal).sa_sigaction;
    let ours = OURS.load(Ordering::Relaxed) as usize;
    ![libc::SIG_DFL, libc::SIG_IGN, ours].contains(&handler)
}

/// Whether it has had one since we came.
pub(super) fn has_been_handled(signal: c_int) -> bool {
    // Relaxed: a thread asks for what it has set itself, or long after.
    HANDLED.load(Ordering::Relaxed) & (1 << signal) != 0
}

/// sigaction(2).
///
/// # Safety
/// That of sigaction(2).
pub unsafe fn sigaction(signal: c_int, action: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    let real = call_real!(SIGACTION, Sigaction).unwrap_or(sys::signals::change_action);
    if !is_held(signal) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        return unsafe { real(signal, action, old) };
    }
    // SAFETY: null, or the caller's, readable.
    let wants_default = unsafe { action.as_ref() }.is_some_and(|action| action.sa_sigaction == libc::SIG_DFL);
    // SAFETY: as above.
    let handles = unsafe { action.as_ref() }
        .is_some_and(|action| ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction));
    if handles {
        HANDLED.fetch_or(1 << signal, Ordering::Relaxed);
    }
    let ours = our_action(signal);
    let action = if wants_default { &raw const ours } else { action };
    // SAFETY: the caller's arguments, or an action of ours that outlives the call.
    let result = unsafe { real(signal, action, old) };
    if signal == STILL_SIGNAL && result == 0 && !action.is_null() {
        lease::set_heeds_stillness(wants_default);
    }
    // SAFETY: null, or the caller's, which the call has just written.
    if let Some(old) = unsafe { old.as_mut() }
        && result == 0
        && old.sa_sigaction == ours.sa_sigaction
    {
        *old = sys::signals::default_action();
    }
    result
}

/// signal(3), as BSD and glibc have it.
///
/// # Safety
/// That of signal(3).
pub unsafe fn signal(signal: c_int, handler: usize) -> usize {
    let real = call_real!(SIGNAL, Signal);
    if (is_held(signal) || real.is_none()) && handler != libc::SIG_ERR {
        let mut action = sys::signals::default_action();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        sys::signals::add(&mut action.sa_mask, signal);
        let mut old = sys::signals::default_action();
        // SAFETY: both actions are ours for the length of the call.
        let result = unsafe { sigaction(signal, &raw const action, &raw mut old) };
        return if result == 0 { old.sa_sigaction } else { libc::SIG_ERR };
    }
    match real {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(signal, handler) },
        None => {
            sys::errno::set_errno(libc::EINVAL);
            libc::SIG_ERR
        }
    }
}
