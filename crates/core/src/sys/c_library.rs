//! The C library that this process has, where the same code meets several: glibc from 2.17 on, and musl. Functions that are not
//! in all of them, or not in the library itself, are never taken for granted.

use core::ffi::c_int;
#[cfg(feature = "shim")]
use core::ffi::c_void;

/// Functions that are perhaps there. Weak: nothing is linked in for them, and where there is none, its place is null.
#[macro_export]
macro_rules! weak {
    ($($table:ident $symbol:literal),* $(,)?) => {
        core::arch::global_asm!($(
            concat!(".weak ", $symbol),
            concat!(".pushsection .data.rel.ro.", stringify!($table), ",\"aw\",@progbits"),
            ".balign 8",
            concat!(".hidden ", stringify!($table)),
            concat!(".globl ", stringify!($table)),
            concat!(stringify!($table), ":"),
            concat!(".8byte ", $symbol),
            ".popsection"
        ),*);
        unsafe extern "C" {
            $(pub(crate) safe static $table: Option<unsafe extern "C" fn()>;)*
        }
    };
}

/// A weak function with its signature, if it is there.
macro_rules! call_weak {
    ($table:path, $signature:ty) => {
        $table.map(|function| {
            // SAFETY: the C library's function of this name has this signature.
            unsafe { core::mem::transmute::<unsafe extern "C" fn(), $signature>(function) }
        })
    };
}

weak!(
    oomguard_libc_pvalloc_of_glibc "__libc_pvalloc",
    oomguard_libc_debug "_dl_debug_addr",
    oomguard_libc_mallopt "mallopt",
    oomguard_libc_malloc_trim "malloc_trim",
);
#[cfg(feature = "shim")]
weak!(
    oomguard_libc_register_atfork "__register_atfork",
    oomguard_libc_pthread_atfork "pthread_atfork",
);

/// Whether it is glibc, which has this name even in a static program, beside its malloc. Layers that stand in for glibc above
/// musl have some of its functions, but musl's linker below them, which alone has the other name.
pub fn is_glibc() -> bool {
    oomguard_libc_pvalloc_of_glibc.is_some() && oomguard_libc_debug.is_none()
}

/// mallopt(3).
pub fn set_malloc_option(option: c_int, value: c_int) {
    if let Some(mallopt) = call_weak!(oomguard_libc_mallopt, unsafe extern "C" fn(c_int, c_int) -> c_int) {
        // SAFETY: takes no pointer; an option that there is not changes nothing.
        unsafe { mallopt(option, value) };
    }
}

/// What glibc takes for its heap beyond what is asked for, and keeps at its end when it trims by itself: M_TOP_PAD.
const TOP_PAD: usize = 128 << 10;

/// malloc_trim(3), as far as glibc goes by itself. With nothing left at the heap's end the next small block would need that
/// much below the limit, and be refused while there is room for it and for all that is mapped: Ruby hangs then.
pub fn trim_malloc() {
    if let Some(trim) = call_weak!(oomguard_libc_malloc_trim, unsafe extern "C" fn(usize) -> c_int) {
        // SAFETY: thread-safe, and takes no pointer.
        unsafe { trim(TOP_PAD) };
    }
}

/// Has `in_child` called in each child of fork(2). glibc's own name for it comes first: `pthread_atfork` is not in its shared
/// library.
#[cfg(feature = "shim")]
pub fn call_in_children(in_child: extern "C" fn()) {
    type Handler = Option<unsafe extern "C" fn()>;
    type Register = unsafe extern "C" fn(Handler, Handler, Handler, *mut c_void) -> c_int;
    type Atfork = unsafe extern "C" fn(Handler, Handler, Handler) -> c_int;
    let in_child: Handler = Some(in_child);
    if let Some(register) = call_weak!(oomguard_libc_register_atfork, Register) {
        // SAFETY: the handler lives as long as the process, for which no object answers; glibc keeps the first ones without
        // allocating.
        unsafe { register(None, None, in_child, core::ptr::null_mut()) };
    } else if let Some(atfork) = call_weak!(oomguard_libc_pthread_atfork, Atfork) {
        // SAFETY: the handler lives as long as the process.
        unsafe { atfork(None, None, in_child) };
    }
}

/// Has `in_child` called in each child that the program forks which this is linked into.
pub fn call_in_children_of_program(in_child: extern "C" fn()) {
    // SAFETY: the handler lives as long as the code that is linked here.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}
