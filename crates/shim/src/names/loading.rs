//! dlopen(3) and dlsym(3): a look, and a jump to the real one, which must see the caller's return address.

use crate as inner;

/// Defines both by these instructions, in which the names below stand for functions.
macro_rules! define {
    ($($instruction:literal),*) => {
        define!(dlopen, before_dlopen, DLOPEN_ENTRY, $($instruction),*);
        define!(dlsym, before_dlsym, DLSYM_ENTRY, $($instruction),*);
    };
    ($name:ident, $before:ident, $entry:ident, $($instruction:literal),*) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                $($instruction,)*
                before = sym inner::$before,
                entry = sym inner::$entry,
            )
        }
    };
}

#[cfg(target_arch = "x86_64")]
define! {
    // Three pushes align the stack.
    "push rdi",
    "push rsi",
    "push rax",
    "call {before}",
    "pop rax",
    "pop rsi",
    "pop rdi",
    "mov rax, qword ptr [rip + {entry}@GOTPCREL]",
    "mov rax, qword ptr [rax]",
    "test rax, rax",
    "jz 2f",
    "jmp rax",
    // There is none: null, as where no library is found.
    "2:",
    "ret"
}

#[cfg(target_arch = "aarch64")]
define! {
    "stp x29, x30, [sp, #-32]!",
    "mov x29, sp",
    "stp x0, x1, [sp, #16]",
    "bl {before}",
    "ldp x0, x1, [sp, #16]",
    "ldp x29, x30, [sp], #32",
    "adrp x16, :got:{entry}",
    "ldr x16, [x16, :got_lo12:{entry}]",
    "ldr x16, [x16]",
    "cbz x16, 2f",
    "br x16",
    "2:",
    "mov x0, #0",
    "ret"
}
