//! What a program that allocates through a [`Guard`](super::allocator::Guard) links in, and no other program does:
//! the constructor in `.init_array`, and the names `write`, `abort` and `pthread_create`.
//!
//! The generic code of a used guard is compiled into the program itself. The assembler directives below are part of
//! that code, so they are there exactly when it is. They put no instruction into the function that holds them.
//! Definitions in the program come before those of the C library (ld.so(8), symbol lookup), for the program and for
//! the libraries it loads; they are weak, so that a program with its own keeps its own.

use super::allocator::Source;
use super::startup;

/// Whether `write` and `abort` are ours here; elsewhere SIGABRT has to do.
pub(super) const INTERPOSES: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Whether the definitions that ours hide can be found: not in a static program, where they are not linked at all.
pub(super) const FINDS_HIDDEN: bool = cfg!(not(target_feature = "crt-static"));

/// Does nothing when called. Being compiled is what counts.
#[inline(always)]
pub(super) fn link_into_program<A, S: Source>() {
    // Early among the constructors, so that allocations of the others are already guarded.
    // SAFETY: only directives: a pointer in a section that the loader reads. No instruction is emitted.
    unsafe {
        core::arch::asm!(
            ".pushsection .init_array.00001,\"aw\",@init_array",
            ".balign 8",
            ".8byte {arm}",
            ".popsection",
            arm = sym startup::arm::<A, S>,
            options(nomem, nostack, preserves_flags)
        );
    }
    leave_note();
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        define!("write", super::interpose::write);
        define!("abort", super::interpose::abort);
        #[cfg(not(target_feature = "crt-static"))]
        define!("pthread_create", super::interpose::pthread_create);
    }
}

/// A note in the program's file (elf(5)) that tells a supervisor that this program arms itself, and which layout of
/// the record it fills: `NOTE_NAME` and `NOTE_LAYOUT` in `record`.
#[allow(named_asm_labels)]
#[inline(always)]
fn leave_note() {
    // SAFETY: only directives: a note, which nothing executes.
    unsafe {
        core::arch::asm!(
            ".ifndef .Loomguard_note",
            ".pushsection .note.oomguard,\"a\",@note",
            ".Loomguard_note:",
            ".balign 4",
            ".4byte 9",
            ".4byte 4",
            ".4byte 1",
            ".asciz \"oomguard\"",
            ".balign 4",
            ".4byte 1",
            ".popsection",
            ".endif",
            options(nomem, nostack, preserves_flags)
        );
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    () => {
        "jmp"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    () => {
        "b"
    };
}

/// Defines a name of the C library as a jump to one of our functions with the same signature.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! define {
    ($name:literal, $function:path) => {
        // The labels are global symbols on purpose; `.ifndef` keeps a copy of this code from defining them twice.
        // SAFETY: only directives: a function in a section of its own. No instruction is emitted here.
        #[allow(named_asm_labels)]
        unsafe {
            core::arch::asm!(
                concat!(".ifndef .Loomguard_", $name),
                concat!(".pushsection .text.oomguard_", $name, ",\"ax\",@progbits"),
                concat!(".Loomguard_", $name, ":"),
                concat!(".weak ", $name),
                concat!(".type ", $name, ",@function"),
                concat!($name, ":"),
                concat!(jump!(), " {function}"),
                concat!(".size ", $name, ", .-", $name),
                ".popsection",
                ".endif",
                function = sym $function,
                options(nomem, nostack, preserves_flags)
            );
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use {define, jump};
