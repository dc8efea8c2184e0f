//! C code that does not check what malloc gives: it faults near null. Looked at only from the first refusal of the C
//! library's heap on, and only where that block is still missing; every other fault goes to whoever handled it before.

// A static program and another C library have none of these names.
#![cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]

use super::armed::armed;
use super::exhaustion::{self, Own};
use super::interpose;
use super::judge;
use super::notes::{self, Asker, Noted};
use super::real::{Real, call_real};
use super::record;
use super::unwind;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_uint};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use oomguard_core::contract::Evidence;
use oomguard_core::message::asks_for_a_block;
use oomguard_core::sys;

/// Who handled SIGSEGV before us.
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written by the one thread that `IS_WATCHING` elects, before our handler is there to read it.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));

/// Whether our handler is there. A child that is forked has it, too.
static IS_WATCHING: AtomicBool = AtomicBool::new(false);

/// The C library's heap has refused a block, and the refusal is passed on.
pub(super) fn watch() {
    // Relaxed: it only elects. What the handler reads is there before the system call that installs it, which other threads
    // meet in the kernel.
    if IS_WATCHING.swap(true, Ordering::Relaxed) {
        return;
    }
    let before = sys::signals::disposition(libc::SIGSEGV);
    // SAFETY: only this thread is here, by the flag.
    unsafe { (*BEFORE.0.get()).write(before) };
    sys::signals::install(libc::SIGSEGV, on_fault);
}

static ASSERT_FAIL: Real = Real::new(c"__assert_fail");
type AssertFail = unsafe extern "C" fn(*const c_char, *const c_char, c_uint, *const c_char) -> !;

/// `__assert_fail`, which `assert` in C calls: `assert(block)` is all the checking that some code does.
///
/// # Safety
/// Texts and line of the assertion.
pub(super) unsafe extern "C" fn assert_fail(
    expression: *const c_char,
    file: *const c_char,
    line: c_uint,
    function: *const c_char,
) -> ! {
    if let (Some(armed), Some(noted), false) = (armed(), missing_block(), expression.is_null()) {
        // SAFETY: a C string, by contract.
        if asks_for_a_block(unsafe { CStr::from_ptr(expression) }.to_bytes()) {
            exhaustion::end(armed, judge::guilt(&noted, Evidence::Straight).verdict(Own::ABORT));
        }
    }
    if let Some(real) = call_real!(ASSERT_FAIL, AssertFail) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        unsafe { real(expression, file, line, function) }
    }
    interpose::abort()
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = sys::errno::errno();
    // SAFETY: the kernel hands a handler with SA_SIGINFO its description.
    let info_here = unsafe { &*info };
    if is_of_missing_block(info_here) && !context.is_null() {
        // SAFETY: the kernel's context; the function never comes back.
        unsafe { unwind::divert(context, end_here) };
        return sys::errno::set_errno(errno);
    }
    record::acquit();
    // SAFETY: written before this handler was installed, and never again.
    let before = unsafe { &*BEFORE.0.get() };
    // SAFETY: as above.
    let before = unsafe { before.assume_init_ref() };
    if sys::signals::disposition(signal).sa_sigaction == on_fault as *const () as usize {
        sys::signals::set_disposition(signal, before);
        // A fault happens again by itself; a signal that was sent does not, and comes when we return.
        if info_here.si_code <= 0 {
            sys::signals::raise_here(signal);
        }
    } else {
        // A handler that the program installed since has called us. It stays.
        sys::signals::call_handler(before, signal, info, context);
    }
    sys::errno::set_errno(errno);
}

fn missing_block() -> Option<Noted> {
    notes::requested().filter(|noted| {
        noted.asker == Asker::Other
            && noted.tid == sys::process::tid()
            && judge::is_straight(noted)
            && judge::would_be_refused(noted)
    })
}

/// Whether the fault is an access to a block that this thread was refused, and that is still missing.
fn is_of_missing_block(info: &libc::siginfo_t) -> bool {
    /// Nothing is mapped there: sigaction(2).
    const SEGV_MAPERR: i32 = 1;
    /// So far from null a member or an element may lie.
    const NEAR_BYTES: u64 = 64 << 10;
    if info.si_code != SEGV_MAPERR {
        return false;
    }
    // SAFETY: a SIGSEGV of the kernel's own carries the address.
    let address = unsafe { info.si_addr() } as u64;
    missing_block().is_some_and(|noted| address < noted.bytes.max(NEAR_BYTES))
}

/// Goes on in place of the instruction that faulted, on the stack that it was on: a signal's may be too small.
extern "C" fn end_here() -> ! {
    if let (Some(armed), Some(noted)) = (armed(), missing_block()) {
        let guilt = judge::guilt(&noted, Evidence::Fault);
        exhaustion::end(armed, guilt.verdict(Own::Signal(libc::SIGSEGV as u8)));
    }
    // Another thread gave the memory back in this very moment: the fault stays the program's own.
    sys::signals::set_default(libc::SIGSEGV);
    sys::signals::raise_here(libc::SIGSEGV);
    sys::process::exit_now(127)
}
