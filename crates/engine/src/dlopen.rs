//! dlopen(3) and dlsym(3), as the program and its libraries call them: a look (`loading`), and a jump to the real one, which must see
//! the caller's return address: whose library it lies in may say where others are. A program with a guard has dlopen alone: a
//! sanitizer's runtime in it calls dlsym before anything of ours can run.

// A static program has neither.
#![cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]

use super::loading;
use super::real::Real;
use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, Ordering};

static DLOPEN: Real = Real::new(c"dlopen");
static DLSYM: Real = Real::new(c"dlsym");

/// Where they go on to. Null where there is none.
static DLOPEN_ENTRY: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static DLSYM_ENTRY: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Asks the dynamic linker now, so that nobody has to later: for `dlopen`.
pub fn resolve() {
    find(&DLOPEN, &DLOPEN_ENTRY);
}

/// The same for `dlsym`.
pub fn resolve_dlsym() {
    find(&DLSYM, &DLSYM_ENTRY);
}

/// It may be before our constructor, or in a program that had no such function then.
fn find(real: &Real, entry: &AtomicPtr<c_void>) {
    // Relaxed, here and below: the address decides alone.
    if entry.load(Ordering::Relaxed).is_null()
        && let Some(address) = real.address_by_now()
    {
        entry.store(address as *mut c_void, Ordering::Relaxed);
    }
}

extern "C" fn before_dlopen() {
    resolve();
    loading::begin();
}

/// Whoever looks up a name has loaded what it was looking for.
extern "C" fn before_dlsym() {
    resolve_dlsym();
    loading::end_if_here();
}

/// Defines both by these instructions, in which the names below stand for functions.
macro_rules! define {
    ($($instruction:literal),*) => {
        define!(
            /// dlopen(3).
            ///
            /// # Safety
            /// That of dlopen(3), whose arguments it has.
            dlopen, before_dlopen, DLOPEN_ENTRY, $($instruction),*
        );
        define!(
            /// dlsym(3).
            ///
            /// # Safety
            /// That of dlsym(3), whose arguments it has.
            dlsym, before_dlsym, DLSYM_ENTRY, $($instruction),*
        );
    };
    ($(#[$doc:meta])* $name:ident, $before:ident, $entry:ident, $($instruction:literal),*) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!($($instruction,)* before = sym $before, entry = sym $entry)
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
    "mov rax, qword ptr [rip + {entry}]",
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
    "adrp x16, {entry}",
    "ldr x16, [x16, :lo12:{entry}]",
    "cbz x16, 2f",
    "br x16",
    "2:",
    "mov x0, #0",
    "ret"
}
