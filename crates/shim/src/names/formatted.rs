//! fprintf, error and their kin, which take as many arguments as their callers like: naked functions that keep all argument
//! registers, let `before_…` look at the first ones, and jump to the function whose address it gives.

use crate as inner;

#[cfg(target_arch = "x86_64")]
macro_rules! pass_on {
    ($name:ident, $before:path) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                // rax: how many vector registers hold arguments. Seven pushes align the stack.
                "push rdi",
                "push rsi",
                "push rdx",
                "push rcx",
                "push r8",
                "push r9",
                "push rax",
                "sub rsp, 128",
                "movaps [rsp], xmm0",
                "movaps [rsp + 16], xmm1",
                "movaps [rsp + 32], xmm2",
                "movaps [rsp + 48], xmm3",
                "movaps [rsp + 64], xmm4",
                "movaps [rsp + 80], xmm5",
                "movaps [rsp + 96], xmm6",
                "movaps [rsp + 112], xmm7",
                // Where the arguments lie that found no register: the seventh argument, twice as the stack stays aligned.
                "lea rax, [rsp + 192]",
                "push rax",
                "push rax",
                "call {before}",
                "add rsp, 16",
                "mov r11, rax",
                "movaps xmm0, [rsp]",
                "movaps xmm1, [rsp + 16]",
                "movaps xmm2, [rsp + 32]",
                "movaps xmm3, [rsp + 48]",
                "movaps xmm4, [rsp + 64]",
                "movaps xmm5, [rsp + 80]",
                "movaps xmm6, [rsp + 96]",
                "movaps xmm7, [rsp + 112]",
                "add rsp, 128",
                "pop rax",
                "pop r9",
                "pop r8",
                "pop rcx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                "jmp r11",
                before = sym $before
            )
        }
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! pass_on {
    ($name:ident, $before:path) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "stp x29, x30, [sp, #-208]!",
                "mov x29, sp",
                "stp x0, x1, [sp, #16]",
                "stp x2, x3, [sp, #32]",
                "stp x4, x5, [sp, #48]",
                "stp x6, x7, [sp, #64]",
                "stp q0, q1, [sp, #80]",
                "stp q2, q3, [sp, #112]",
                "stp q4, q5, [sp, #144]",
                "stp q6, q7, [sp, #176]",
                // Where the arguments lie that found no register: not told, as two more registers come before them.
                "mov x6, xzr",
                "bl {before}",
                "mov x16, x0",
                "ldp q6, q7, [sp, #176]",
                "ldp q4, q5, [sp, #144]",
                "ldp q2, q3, [sp, #112]",
                "ldp q0, q1, [sp, #80]",
                "ldp x6, x7, [sp, #64]",
                "ldp x4, x5, [sp, #48]",
                "ldp x2, x3, [sp, #32]",
                "ldp x0, x1, [sp, #16]",
                "ldp x29, x30, [sp], #208",
                "br x16",
                before = sym $before
            )
        }
    };
}

pass_on!(fprintf, inner::before_fprintf);
pass_on!(vfprintf, inner::before_vfprintf);
pass_on!(__fprintf_chk, inner::before_fprintf_chk);
pass_on!(__vfprintf_chk, inner::before_vfprintf_chk);
pass_on!(printf, inner::before_printf);
pass_on!(__printf_chk, inner::before_printf_chk);
pass_on!(error, inner::before_error);
pass_on!(err, inner::before_err);
pass_on!(errx, inner::before_errx);
pass_on!(warn, inner::before_warn);
pass_on!(warnx, inner::before_warnx);
