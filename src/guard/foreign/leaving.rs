//! exit(3) where its handlers are told no code: musl's. What is left of it when ours runs, the last one, is done by a child in
//! the same memory, as vfork(2) makes one: it writes out what the streams hold and ends with the code, which this process then
//! knows. Only where it matters: where the process would be guilty if the code were not zero.

use super::ends::verdict_on_exit;
use crate::guard::exhaustion;
use crate::sys;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};

/// Where this process goes on: the child returns into the frames that it left.
#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; Stack::BYTES]>);

impl Stack {
    const BYTES: usize = 128 << 10;
}

// SAFETY: for the one thread that is in exit(3).
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; Stack::BYTES]));

/// The last handler of exit(3).
pub(super) extern "C" fn at_exit(_: *mut c_void) {
    // With the code of most failures: if that would say nothing, no other one does.
    if verdict_on_exit(1).is_none() {
        return;
    }
    let errno = sys::fd::errno();
    // SAFETY: the stack is this thread's alone, as only one is in exit(3), once; its end is aligned as that of any.
    unsafe { split(finish, STACK.0.get().cast::<u8>().wrapping_add(Stack::BYTES)) };
    // In the child; or there is none, and the code stays unknown.
    sys::fd::set_errno(errno);
}

/// The child has ended, in the same memory; this process ends as it did, or for what led to that.
extern "C" fn finish(child: isize) -> ! {
    let mut status: c_int = 0;
    let place = (&raw mut status) as usize;
    let wait = [child as usize, place, libc::__WALL as usize, 0, 0, 0];
    // SAFETY: `status` is writable during the call.
    while unsafe { sys::raw::call(libc::SYS_wait4, wait) } == -(libc::EINTR as isize) {}
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        sys::signals::set_default(signal);
        sys::signals::unblock(signal);
        sys::signals::raise_here(signal);
    }
    let code = libc::WEXITSTATUS(status);
    if let Some((armed, verdict)) = verdict_on_exit(code) {
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
