//! What a program that allocates through a [`Guard`](super::allocator::Guard) links in, and no other program does:
//! the constructor in `.init_array`, and the names `write`, `abort` and `pthread_create`.
//!
//! The generic code of a used guard is compiled into the program itself. The assembler directives below are part of
//! that code, so they are there exactly when it is. They put no instruction into the function that holds them.
//! Definitions in the program come before those of the C library (ld.so(8), symbol lookup), for the program and for
//! the libraries it loads; they are weak, so that a program with its own keeps its own.

use super::allocator::Source;
use super::startup;

/// Whether `write`, `abort` and `pthread_create` are ours here; elsewhere SIGABRT has to do.
pub(super) const INTERPOSES: bool = cfg!(all(
    target_env = "gnu",
    not(target_feature = "crt-static"),
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "nightly")
));

/// Does nothing when called. Being compiled is what counts.
// The labels are global symbols on purpose; `.ifndef` keeps a copy of this code from defining them twice.
#[allow(named_asm_labels)]
#[inline(always)]
pub(super) fn link_into_program<S: Source>() {
    // Early among the constructors, so that allocations of the others are already guarded.
    // SAFETY: only directives: a pointer in a section that the loader reads. No instruction is emitted.
    unsafe {
        core::arch::asm!(
            ".pushsection .init_array.00001,\"aw\",@init_array",
            ".balign 8",
            ".8byte {arm}",
            ".popsection",
            arm = sym startup::arm::<S>,
            options(nomem, nostack, preserves_flags)
        );
    }
    leave_note();
    #[cfg(all(
        target_env = "gnu",
        not(target_feature = "crt-static"),
        any(target_arch = "x86_64", target_arch = "aarch64"),
        not(feature = "nightly")
    ))]
    interpose_names();
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

#[cfg(all(
    target_env = "gnu",
    not(target_feature = "crt-static"),
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "nightly")
))]
#[allow(named_asm_labels)]
#[inline(always)]
fn interpose_names() {
    use super::interpose;

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
    // SAFETY: only directives: three functions in a section of their own, each a jump to one of the same signature.
    unsafe {
        core::arch::asm!(
            ".ifndef .Loomguard_names",
            ".pushsection .text.oomguard_names,\"ax\",@progbits",
            ".Loomguard_names:",
            ".weak abort",
            ".type abort,@function",
            "abort:",
            concat!(jump!(), " {abort}"),
            ".size abort, .-abort",
            ".weak write",
            ".type write,@function",
            "write:",
            concat!(jump!(), " {write}"),
            ".size write, .-write",
            ".weak pthread_create",
            ".type pthread_create,@function",
            "pthread_create:",
            concat!(jump!(), " {pthread_create}"),
            ".size pthread_create, .-pthread_create",
            ".popsection",
            ".endif",
            abort = sym interpose::abort,
            write = sym interpose::write,
            pthread_create = sym interpose::pthread_create,
            options(nomem, nostack, preserves_flags)
        );
    }
}
