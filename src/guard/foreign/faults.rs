//! The signals of a crash: SIGABRT, SIGSEGV, SIGILL, SIGTRAP. A handler asks whether memory is why; if not, the
//! default is put back and the fault happens again, so that core dump and status are what they would have been.
//!
//! The program must not notice: it sees the default where only we are, its own handlers take our place, and the
//! default puts us back.

use super::{ends, messages};
use crate::contract::{Cause, Evidence, Measure};
use crate::guard::armed::{Armed, armed};
use crate::guard::exhaustion::{self, Own, Standing};
use crate::guard::real::{Real, call_real};
use crate::guard::{judge, notes, record, resident, unwind};
use crate::report::Request;
use crate::sys;
use crate::sys::memory::{Resource, rlimit};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

type Sigaction = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
type Signal = unsafe extern "C" fn(c_int, usize) -> usize;

static SIGACTION: Real = Real::new(c"sigaction");
static SIGNAL: Real = Real::new(c"signal");

pub(super) fn resolve() {
    for real in [&SIGACTION, &SIGNAL] {
        let _ = real.address();
    }
}

/// SIGBUS is not among them: no limit of ours ends in it.
const WATCHED: [c_int; 4] = [libc::SIGABRT, libc::SIGSEGV, libc::SIGILL, libc::SIGTRAP];

/// The watched signals that were at their default when we came, a bit each: the others are the program's.
static HELD: AtomicU32 = AtomicU32::new(0);

fn is_held(signal: c_int) -> bool {
    // Relaxed: written before `main`.
    WATCHED.contains(&signal) && HELD.load(Ordering::Relaxed) & (1 << signal) != 0
}

/// Where the main thread handles a signal when its stack cannot grow. As large as the largest that a processor's
/// registers ask for (AT_MINSIGSTKSZ in getauxval(3)), several times over.
struct AlternateStack(UnsafeCell<[u8; 64 << 10]>);

// SAFETY: handed to the kernel once, for one thread.
unsafe impl Sync for AlternateStack {}

static ALTERNATE_STACK: AlternateStack = AlternateStack(UnsafeCell::new([0; 64 << 10]));

/// Holds the signals that nobody else does.
pub(super) fn install() {
    if !sys::signals::has_alternate_stack() {
        let stack = libc::stack_t {
            ss_sp: ALTERNATE_STACK.0.get().cast(),
            ss_flags: 0,
            ss_size: size_of::<AlternateStack>(),
        };
        // SAFETY: memory that lives for ever and that nobody else uses.
        unsafe { libc::sigaltstack(&raw const stack, core::ptr::null_mut()) };
    }
    let mut held = 0;
    for signal in WATCHED {
        if sys::signals::disposition(signal).sa_sigaction == libc::SIG_DFL {
            sys::signals::install(signal, on_fault);
            held |= 1 << signal;
        }
    }
    HELD.store(held, Ordering::Relaxed);
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
    let ours = sys::signals::action_for(signal, on_fault);
    let action = if wants_default { &raw const ours } else { action };
    // SAFETY: the caller's arguments, or an action of ours that outlives the call.
    let result = unsafe { real(signal, action, old) };
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
        // SAFETY: the set is ours and writable.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, signal) };
        let mut old = sys::signals::default_action();
        // SAFETY: both actions are ours for the length of the call.
        let result = unsafe { sigaction(signal, &raw const action, &raw mut old) };
        return if result == 0 { old.sa_sigaction } else { libc::SIG_ERR };
    }
    match real {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(signal, handler) },
        None => {
            sys::fd::set_errno(libc::EINVAL);
            libc::SIG_ERR
        }
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = sys::fd::errno();
    // SAFETY: the kernel hands a handler with SA_SIGINFO its description.
    let info = unsafe { &*info };
    if let Some(armed) = armed()
        && notes::is_guarded()
    {
        if signal == libc::SIGABRT && resident::heed(armed, info) {
            sys::fd::set_errno(errno);
            return;
        }
        match exhaustion::standing() {
            Standing::Dying => exhaustion::exit(armed),
            Standing::Outlived => exhaustion::park(armed),
            Standing::Alive => judge(armed, signal, info, context),
        }
    }
    sys::signals::set_default(signal);
    // A trap and a signal that was sent do not happen again by themselves; blocked while we are here, it comes then.
    if info.si_code <= 0 || signal == libc::SIGTRAP {
        sys::signals::raise_here(signal);
    }
    sys::fd::set_errno(errno);
}

fn judge(armed: &Armed, signal: c_int, info: &libc::siginfo_t, context: *mut c_void) {
    if signal == libc::SIGABRT {
        // For the second time, where `abort` was called by its name: with the same answer.
        return ends::judge_abort(armed);
    }
    let guilt = match signal {
        _ if info.si_code <= 0 => {
            // SAFETY: a signal that a process sent carries that process's number.
            let sender = unsafe { info.si_pid() };
            // Sent by somebody else, it says nothing about memory. By the program itself, it is how a handler of its
            // own ends, once it has seen the fault: an abort.
            if sender.unsigned_abs() == sys::process::pid() {
                judge::of_abort(armed, messages::said(armed))
            } else {
                None
            }
        }
        libc::SIGSEGV => {
            // SAFETY: a SIGSEGV of the kernel's own carries the address.
            let address = unsafe { info.si_addr() } as usize;
            let not_mapped = info.si_code == SEGV_MAPERR;
            let missing = if not_mapped { missing_block(armed, address) } else { None };
            missing
                .or_else(|| {
                    let stack_pointer = stack_pointer(context);
                    if not_mapped { stack_that_could_not_grow(armed, address, stack_pointer) } else { None }
                })
                .or_else(|| {
                    if not_mapped { overflow_of_handling(address, stack_pointer(context)) } else { None }
                })
                .or_else(|| judge::by_message(messages::said(armed)))
        }
        _ => judge::of_trap(armed, messages::said(armed)),
    };
    match guilt {
        Some(guilt) => {
            exhaustion::end(armed, guilt.verdict(u8::try_from(signal).map_or(Own::Unknown, Own::Signal)));
        }
        None => record::acquit(),
    }
}

/// Nothing is mapped there: sigaction(2).
const SEGV_MAPERR: c_int = 1;

/// So far from a null pointer, or from MAP_FAILED, a member or an element may lie.
const NEAR_BYTES: u64 = 64 << 10;

/// Whether the address is that of a block that was refused to this thread: null, or MAP_FAILED, and not checked.
fn missing_block(armed: &Armed, address: usize) -> Option<judge::Guilt> {
    let from_null = address as u64;
    let from_map_failed = (address as u64).wrapping_sub(u64::MAX);
    let here = sys::process::tid();
    let is_current = |noted: &notes::Noted| noted.tid == here && noted.bytes_since < notes::last_bytes(armed);
    let near = |noted: &notes::Noted| NEAR_BYTES.max(noted.bytes);
    // Who checks nothing dies with the heap still full, or of a size that can never be had.
    let requested = notes::requested().filter(is_current).filter(judge::would_be_refused);
    if let Some(noted) = requested.filter(|noted| from_null < near(noted)) {
        return Some(judge::guilt(&noted, Evidence::Fault));
    }
    let mapped = notes::mapped().filter(is_current);
    mapped
        .filter(|noted| from_map_failed < near(noted) || from_null > u64::MAX - NEAR_BYTES)
        .map(|noted| judge::guilt(&noted, Evidence::Fault))
}

fn stack_pointer(context: *mut c_void) -> usize {
    // SAFETY: the kernel hands a handler with SA_SIGINFO the context that it interrupted.
    unsafe { unwind::interrupted(context) }.sp
}

/// Whether the stack is full because handling a refusal was refused memory, and so on: dash.
fn overflow_of_handling(address: usize, stack_pointer: usize) -> Option<judge::Guilt> {
    if address.abs_diff(stack_pointer) > GROWTH_BYTES {
        return None;
    }
    let noted = notes::requested()?;
    let is_straight = noted.tid == sys::process::tid() && judge::is_straight(&noted);
    (is_straight && judge::would_be_refused(&noted)).then(|| judge::guilt(&noted, Evidence::Straight))
}

/// What a stack may be short of at once: the kernel lets no fault be farther below it than this.
const GROWTH_BYTES: usize = 1 << 20;

/// Whether the main stack wanted to grow and address space was at its limit.
fn stack_that_could_not_grow(armed: &Armed, address: usize, stack_pointer: usize) -> Option<judge::Guilt> {
    if sys::process::tid() != sys::process::pid() || address.abs_diff(stack_pointer) > GROWTH_BYTES {
        return None;
    }
    let stack = sys::memory::main_stack()?;
    let missing = stack.start.checked_sub(address)?;
    // Further than it may ever grow: a plain overflow.
    let most = rlimit(Resource::Stack).soft.unwrap_or(u64::MAX);
    if missing == 0 || missing > GROWTH_BYTES || (stack.end - address) as u64 >= most {
        return None;
    }
    let limited = armed.measure == Measure::AddressSpace || rlimit(Resource::AddressSpace).soft.is_some();
    (limited && crate::guard::resident::would_be_refused(missing)).then_some(judge::Guilt {
        cause: Cause::Stack,
        request: Some(Request { bytes: missing as u64, align: None }),
        evidence: Evidence::Fault,
    })
}
