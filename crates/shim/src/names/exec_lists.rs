//! execl, execlp, execle, whose callers give each argument by itself: naked functions that lay those of the registers before
//! those of the stack, which makes a list of them all, and hand that on.

use crate as inner;

#[cfg(target_arch = "x86_64")]
macro_rules! with_list {
    ($name:ident, $takes_list:path) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                // The return address gives its place to the sixth argument, behind which the seventh lies.
                "pop rax",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push rax",
                "call {takes_list}",
                // It has not come about.
                "pop rcx",
                "add rsp, 40",
                "push rcx",
                "ret",
                takes_list = sym $takes_list,
            )
        }
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! with_list {
    ($name:ident, $takes_list:path) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                // The ninth argument lies where the stack pointer is.
                "stp x29, x30, [sp, #-80]!",
                "mov x29, sp",
                "stp x1, x2, [sp, #24]",
                "stp x3, x4, [sp, #40]",
                "stp x5, x6, [sp, #56]",
                "str x7, [sp, #72]",
                "add x1, sp, #24",
                "bl {takes_list}",
                // It has not come about.
                "ldp x29, x30, [sp], #80",
                "ret",
                takes_list = sym $takes_list,
            )
        }
    };
}

with_list!(execl, inner::execv);
with_list!(execlp, inner::execvp);
with_list!(execle, inner::execve_as_told_behind);
