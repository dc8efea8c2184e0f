//! syscall(2), for the calls that can be a program's last, that map memory, or that say what it may call. Nothing but
//! comparisons and a jump for all others, which may have seven arguments.

use guard::__shim as inner;

/// Defines it by these instructions, in which the names below stand for numbers and functions.
macro_rules! define {
    ($($instruction:literal),*) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn syscall() {
            core::arch::naked_asm!(
                $($instruction,)*
                exit_group = const libc::SYS_exit_group,
                seccomp = const libc::SYS_seccomp,
                mmap = const libc::SYS_mmap,
                mprotect = const libc::SYS_mprotect,
                mremap = const libc::SYS_mremap,
                mapping = sym inner::mapping_syscall,
                before = sym inner::before_syscall,
                entry = sym inner::SYSCALL_ENTRY,
                fail = sym inner::fail_syscall,
            )
        }
    };
}

#[cfg(target_arch = "x86_64")]
define! {
    "cmp rdi, {exit_group}",
    "je 2f",
    "cmp rdi, {mmap}",
    "je {mapping}",
    "cmp rdi, {mprotect}",
    "je {mapping}",
    "cmp rdi, {mremap}",
    "je {mapping}",
    "cmp rdi, {seccomp}",
    "jne 3f",
    "2:",
    // Seven pushes align the stack.
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push r8",
    "push r9",
    "push rax",
    "call {before}",
    "pop rax",
    "pop r9",
    "pop r8",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "3:",
    "mov rax, qword ptr [rip + {entry}@GOTPCREL]",
    "mov rax, qword ptr [rax]",
    "test rax, rax",
    "jz 4f",
    "jmp rax",
    // Before the real one is known, and in a static program, where there is none: the call itself.
    "4:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, qword ptr [rsp + 8]",
    "syscall",
    "cmp rax, -4095",
    "jae 5f",
    "ret",
    "5:",
    "neg eax",
    "mov edi, eax",
    "jmp {fail}"
}

#[cfg(target_arch = "aarch64")]
define! {
    "cmp x0, {exit_group}",
    "b.eq 2f",
    "mov x16, {mmap}",
    "cmp x0, x16",
    "b.eq 6f",
    "mov x16, {mprotect}",
    "cmp x0, x16",
    "b.eq 6f",
    "mov x16, {mremap}",
    "cmp x0, x16",
    "b.eq 6f",
    "mov x16, {seccomp}",
    "cmp x0, x16",
    "b.ne 3f",
    "2:",
    "stp x29, x30, [sp, #-80]!",
    "mov x29, sp",
    "stp x0, x1, [sp, #16]",
    "stp x2, x3, [sp, #32]",
    "stp x4, x5, [sp, #48]",
    "str x6, [sp, #64]",
    "bl {before}",
    "ldp x0, x1, [sp, #16]",
    "ldp x2, x3, [sp, #32]",
    "ldp x4, x5, [sp, #48]",
    "ldr x6, [sp, #64]",
    "ldp x29, x30, [sp], #80",
    "3:",
    "adrp x16, :got:{entry}",
    "ldr x16, [x16, :got_lo12:{entry}]",
    "ldr x16, [x16]",
    "cbz x16, 4f",
    "br x16",
    // Before the real one is known, and in a static program, where there is none: the call itself.
    "4:",
    "mov x8, x0",
    "mov x0, x1",
    "mov x1, x2",
    "mov x2, x3",
    "mov x3, x4",
    "mov x4, x5",
    "mov x5, x6",
    "svc 0",
    "cmn x0, #4095",
    "b.cs 5f",
    "ret",
    "5:",
    "neg w0, w0",
    "b {fail}",
    "6:",
    "b {mapping}"
}
