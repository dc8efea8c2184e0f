//! exit(3), whose last handler is ours.
//!
//! musl's handlers are told no code. What is left of its exit when ours runs is done by a child in the same memory, as vfork(2)
//! makes one: it writes out what the streams hold and ends with the code, which this process then knows. Only where it matters:
//! where the process would be guilty if the code were not zero.

use super::ends::{Exit, verdict_on_exit};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use oomguard_core::sys;
use oomguard_engine::exit_turns::{self, Turn};
use oomguard_engine::real::Real;
use oomguard_engine::{call_real, exhaustion, filter, notes, watchdog};

static ON_EXIT: Real = Real::new(c"on_exit");

pub(super) fn resolve() {
    let _ = ON_EXIT.address();
}

type Handler = extern "C" fn(c_int, *mut c_void);

/// Has exit(3) ask us last, when the program's own handlers have run.
pub(super) fn watch_exit() {
    unsafe extern "C" {
        // For a static program, where there is no next definition.
        fn on_exit(handler: Handler, argument: *mut c_void) -> c_int;
        fn __cxa_atexit(
            handler: extern "C" fn(*mut c_void),
            argument: *mut c_void,
            object: *mut c_void,
        ) -> c_int;
    }
    if ON_EXIT.is_nowhere() && !sys::c_library::is_glibc() {
        // SAFETY: `at_exit_untold` lives as long as the process and ignores its argument.
        unsafe { __cxa_atexit(at_exit_untold, core::ptr::null_mut(), core::ptr::null_mut()) };
        return;
    }
    // on_exit(3); its first 32 handlers need no allocation.
    let on_exit = call_real!(ON_EXIT, unsafe extern "C" fn(Handler, *mut c_void) -> c_int).unwrap_or(on_exit);
    // SAFETY: `at_exit` lives as long as the process and ignores its argument.
    unsafe { on_exit(at_exit, core::ptr::null_mut()) };
}

/// exit(3) has run the program's handlers; what is left is to write out what its streams hold.
extern "C" fn at_exit(code: c_int, _: *mut c_void) {
    let turn = exit_turns::take(watch_exit);
    if let Turn::Again = turn {
        return;
    }
    let Some((armed, verdict)) = verdict_on_exit(code, Exit::InOrder) else {
        return if let Turn::Next = turn { exit_turns::keep(code) } else { exit_turns::go_on() };
    };
    exhaustion::say_last_words(armed, verdict);
    watchdog::call_off();
    // Called again from a handler, exit goes on where it was, with the new code: exit(3), as glibc has it.
    // SAFETY: of all threads in exit, only this one goes on.
    unsafe { libc::exit(c_int::from(armed.exit_code)) }
}

/// Where this process goes on: the child returns into the frames that it left.
#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; Stack::BYTES]>);

impl Stack {
    const BYTES: usize = 128 << 10;
}

// SAFETY: for the first thread that is in exit(3).
unsafe impl Sync for Stack {}

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static STACK: Stack = Stack(UnsafeCell::new([0; Stack::BYTES]));

/// What children had touched before the one of ours, which is no work of the program's.
static CHILDRENS_PAGES: AtomicU64 = AtomicU64::new(UNKNOWN);
const UNKNOWN: u64 = u64::MAX;

/// The last handler of an exit(3) that tells no code.
extern "C" fn at_exit_untold(_: *mut c_void) {
    let turn = exit_turns::take(watch_exit);
    if let Turn::Again = turn {
        return;
    }
    // With the code of most failures: if that would say nothing, no other one does. The stack is the first thread's.
    match (verdict_on_exit(1, Exit::InOrder), turn) {
        (Some(_), Turn::First) => {}
        (None, Turn::First) => return exit_turns::go_on(),
        _ => return,
    }
    let errno = sys::errno::errno();
    let pages = if filter::may_ask() { sys::process::childrens_pages() } else { UNKNOWN };
    // Relaxed: read by this thread.
    CHILDRENS_PAGES.store(pages, Ordering::Relaxed);
    // SAFETY: the stack is this thread's alone, the first in exit(3); its end is aligned as that of any.
    unsafe { split(finish, STACK.0.get().cast::<u8>().wrapping_add(Stack::BYTES)) };
    // In the child; or there is none, and the code stays unknown.
    sys::errno::set_errno(errno);
}

/// The child has ended, in the same memory; this process ends as it did, or for what led to that.
extern "C" fn finish(child: isize) -> ! {
    let mut status: c_int = 0;
    let place = (&raw mut status) as usize;
    let wait = [child as usize, place, libc::__WALL as usize, 0, 0, 0];
    // SAFETY: `status` is writable during the call.
    while unsafe { sys::raw::call(libc::SYS_wait4, wait) } == -(libc::EINTR as isize) {}
    let before = CHILDRENS_PAGES.load(Ordering::Relaxed);
    if before != UNKNOWN {
        notes::leave_out_children(sys::process::childrens_pages().saturating_sub(before));
    }
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        sys::signals::set_default(signal);
        sys::signals::unblock(signal);
        sys::signals::raise_here(signal);
    }
    let code = libc::WEXITSTATUS(status);
    if let Some((armed, verdict)) = verdict_on_exit(code, Exit::InOrder) {
        exhaustion::end_for_certain(armed, verdict);
    }
    sys::process::exit_now(code as u8)
}

/// Comes back in a child that shares the memory, or without one; in this process, once the child is gone, `parent` goes on
/// with the child's number on the other stack.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn split(parent: extern "C" fn(isize) -> !, stack: *mut u8) {
    // The third argument and the fifth are read with other flags only, and kept.
    core::arch::naked_asm!(
        "mov rdx, rdi",
        "mov r8, rsi",
        "mov edi, {flags}",
        "xor esi, esi",
        "xor r10d, r10d",
        "mov eax, {clone}",
        "syscall",
        "test rax, rax",
        "jg 2f",
        "ret",
        "2:",
        "mov rsp, r8",
        "mov rdi, rax",
        "call rdx",
        "ud2",
        flags = const libc::CLONE_VM | libc::CLONE_VFORK,
        clone = const libc::SYS_clone,
    )
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn split(parent: extern "C" fn(isize) -> !, stack: *mut u8) {
    core::arch::naked_asm!(
        "mov x9, x0",
        "mov x10, x1",
        "mov x0, #{flags}",
        "mov x1, #0",
        "mov x2, #0",
        "mov x3, #0",
        "mov x4, #0",
        "mov x8, #{clone}",
        "svc 0",
        "cmp x0, #0",
        "b.gt 2f",
        "ret",
        "2:",
        "mov sp, x10",
        "blr x9",
        "brk #1",
        flags = const libc::CLONE_VM | libc::CLONE_VFORK,
        clone = const libc::SYS_clone,
    )
}
