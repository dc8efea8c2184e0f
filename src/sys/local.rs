//! A few bytes for each thread that are there from its first moment: memory of the static kind, found from the thread
//! pointer without a call ("initial exec", ELF Handling For Thread-Local Storage, 4.3).
//!
//! `thread_local!` in a shared library calls `__tls_get_addr`, which may allocate once another library has been
//! loaded, and stable Rust has no way to ask for another model. Hence the directives.

/// How large the block is.
pub(crate) const BYTES: usize = 64;

/// How it is aligned.
pub(crate) const ALIGN: usize = 16;

core::arch::global_asm!(
    ".pushsection .tbss.oomguard_thread_block,\"awT\",@nobits",
    ".balign 16",
    ".hidden oomguard_thread_block",
    ".globl oomguard_thread_block",
    ".type oomguard_thread_block,@tls_object",
    "oomguard_thread_block:",
    ".zero 64",
    ".size oomguard_thread_block, 64",
    ".popsection"
);

/// The calling thread's block: all zero at first, and valid as long as the thread lives.
#[inline]
pub(crate) fn block() -> *mut u8 {
    let block: *mut u8;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread pointer and an offset that the loader has filled in.
    unsafe {
        core::arch::asm!(
            "mov {block}, qword ptr [rip + oomguard_thread_block@GOTTPOFF]",
            "add {block}, qword ptr fs:[0]",
            block = out(reg) block,
            options(pure, readonly, nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads the thread pointer and an offset that the loader has filled in.
    unsafe {
        core::arch::asm!(
            "mrs {block}, tpidr_el0",
            "adrp {offset}, :gottprel:oomguard_thread_block",
            "ldr {offset}, [{offset}, :gottprel_lo12:oomguard_thread_block]",
            "add {block}, {block}, {offset}",
            block = out(reg) block,
            offset = out(reg) _,
            options(pure, readonly, nostack)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    compile_error!("the shim knows where a thread's block is on x86-64 and aarch64 only");
    block
}
