//! What a program that allocates through a [`Guard`](super::interface::Guard) links in, and no other program does:
//! the constructor in `.init_array`, and the names of the C library that `interpose`, `c_heap`, `mappings` and `dlopen` look at.
//!
//! The generic code of a used guard is compiled into the program itself. The assembler directives below are part of
//! that code, so they are there exactly when it is. They put no instruction into the function that holds them.
//! Definitions in the program come before those of the C library (ld.so(8), symbol lookup), for the program and for
//! the libraries it loads; they are weak, so that a program with its own keeps its own.

use super::interface::Source;
use super::startup;

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
    define_write();
    define!("abort", super::interpose::abort);
    #[cfg(any(not(target_feature = "crt-static"), target_env = "musl"))]
    define!("pthread_create", super::interpose::pthread_create);
    #[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
    {
        use super::{c_heap, mappings};
        define!("malloc", c_heap::malloc);
        define!("calloc", c_heap::calloc);
        define!("realloc", c_heap::realloc);
        define!("reallocarray", c_heap::reallocarray);
        define!("memalign", c_heap::memalign);
        define!("aligned_alloc", c_heap::aligned_alloc);
        define!("posix_memalign", c_heap::posix_memalign);
        define!("valloc", c_heap::valloc);
        define!("pvalloc", c_heap::pvalloc);
        define!("mmap", mappings::mmap);
        define!("mmap64", mappings::mmap);
        define!("mremap", mappings::mremap);
        define!("mprotect", mappings::mprotect);
        define!("dlopen", super::dlopen::dlopen);
        define!("mlockall", super::stack::mlockall);
        define!("quick_exit", super::exits::quick_exit);
        define!("__assert_fail", super::unchecked::assert_fail);
    }
    // In a static program `exit` ends in them, too.
    #[cfg(any(target_env = "gnu", target_feature = "crt-static"))]
    {
        define!("_exit", super::exits::exit_at_once);
        define!("_Exit", super::exits::exit_at_once);
    }
}

/// To `look` with a write of `length` bytes, and to where `oomguard_write_entry` points with all others.
#[cfg(target_arch = "x86_64")]
macro_rules! compare_and_jump {
    () => {
        "cmp rdx, {length}
        je {look}
        jmp qword ptr [rip + oomguard_write_entry]"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! compare_and_jump {
    () => {
        "cmp x2, #{length}
        b.eq 2f
        adrp x16, oomguard_write_entry
        ldr x16, [x16, :lo12:oomguard_write_entry]
        br x16
        2: b {look}"
    };
}

/// Defines `write`: a comparison and a jump, as a line on stderr must not cost more than without us. It is compared with
/// the length of what std's own line begins with.
#[allow(named_asm_labels)]
#[inline(always)]
fn define_write() {
    // SAFETY: only directives and a function in a section of its own, which passes its arguments on to one of two
    // functions with its signature. No instruction is emitted here.
    unsafe {
        core::arch::asm!(
            ".ifndef .Loomguard_write",
            ".pushsection .text.oomguard_write,\"ax\",@progbits",
            ".balign 16",
            ".Loomguard_write:",
            ".weak write",
            ".type write,@function",
            ".weak oomguard_own_write",
            ".hidden oomguard_own_write",
            "oomguard_own_write:",
            "write:",
            compare_and_jump!(),
            ".size write, .-write",
            ".popsection",
            ".endif",
            length = const super::interpose::LOOKED_AT_BYTES,
            look = sym super::interpose::write_of_that_length,
            options(nomem, nostack, preserves_flags)
        );
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
            ".4byte {layout}",
            ".popsection",
            ".endif",
            layout = const oomguard_core::record::NOTE_LAYOUT,
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
                // By this name the definition is ours for certain.
                concat!(".weak oomguard_own_", $name),
                concat!(".hidden oomguard_own_", $name),
                concat!("oomguard_own_", $name, ":"),
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
use {define, jump};
