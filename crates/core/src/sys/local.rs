//! What each thread has of its own from its first moment to its last: memory of the static kind, found from the thread
//! pointer without a call ("initial exec", ELF Handling For Thread-Local Storage, 4.3).
//!
//! `thread_local!` in a shared library calls `__tls_get_addr`, which may allocate once another library has been
//! loaded; in a program it may come to a call that is not inlined into other crates, twice for each allocation of a
//! profiled program. Stable Rust has no way to ask for another model. Hence the directives.

/// A type whose first value is all zeroes.
///
/// # Safety
/// All bytes zero is a valid value, and it needs no dropping.
pub unsafe trait Zeroed {}

/// How large the largest one may be, and how it is aligned.
pub const BYTES: usize = 64;
pub const ALIGN: usize = 16;

/// Makes `fn $name() -> &'static $type`, the calling thread's own. The reference must not go to another thread, which
/// the type sees to by being full of cells. `$symbol` is unique in the program.
///
/// The symbol is weak, so that two versions of these crates in one program are no error: only one is its allocator.
#[doc(hidden)]
#[macro_export]
macro_rules! thread_own {
    ($(#[$attribute:meta])* fn $name:ident() -> $type:ty, $symbol:literal) => {
        core::arch::global_asm!(
            concat!(".pushsection .tbss.", $symbol, ",\"awT\",@nobits"),
            ".balign 16",
            concat!(".weak ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ",@tls_object"),
            concat!($symbol, ":"),
            ".zero 64",
            concat!(".size ", $symbol, ", 64"),
            ".popsection"
        );

        $(#[$attribute])*
        #[inline(always)]
        fn $name() -> &'static $type {
            const {
                assert!(size_of::<$type>() <= $crate::sys::local::BYTES);
                assert!(align_of::<$type>() <= $crate::sys::local::ALIGN);
                $crate::sys::local::assert_zeroed::<$type>();
            };
            let own: *const $type;
            // Neither instruction reads what can change within a thread, so that it need not be done twice.
            #[cfg(target_arch = "x86_64")]
            // SAFETY: reads the thread pointer and an offset that the loader has filled in.
            unsafe {
                core::arch::asm!(
                    concat!("mov {own}, qword ptr [rip + ", $symbol, "@GOTTPOFF]"),
                    "add {own}, qword ptr fs:[0]",
                    own = out(reg) own,
                    options(pure, nomem, nostack)
                );
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: reads the thread pointer and an offset that the loader has filled in.
            unsafe {
                core::arch::asm!(
                    "mrs {own}, tpidr_el0",
                    concat!("adrp {offset}, :gottprel:", $symbol),
                    concat!("ldr {offset}, [{offset}, :gottprel_lo12:", $symbol, "]"),
                    "add {own}, {own}, {offset}",
                    own = out(reg) own,
                    offset = out(reg) _,
                    options(pure, nomem, nostack)
                );
            }
            // SAFETY: this thread's own memory, large and aligned enough as asserted above, zero at first, which the
            // type says is valid, and there for as long as the thread. Nobody else has its address.
            unsafe { &*own }
        }
    };
}

pub const fn assert_zeroed<T: Zeroed>() {}
