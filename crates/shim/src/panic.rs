//! What a panic of ours would come to. There is none that is known of; and no words: they would take what formats them, and
//! memory.

use crate as inner;

/// `_URC_CONTINUE_UNWIND`.
#[cfg(target_arch = "x86_64")]
macro_rules! continue_unwinding {
    () => {
        "mov eax, 8"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! continue_unwinding {
    () => {
        "mov w0, #8"
    };
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    inner::abort_for_good()
}

// What the standard library would have: `core`, built for programs that unwind, names it in its tables. It is asked what a
// frame of ours does when something else unwinds through it, a cancelled thread say: nothing. Weak, for a static program in
// Rust, and hidden, as every program in Rust has its own.
core::arch::global_asm!(
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality,@function",
    "rust_eh_personality:",
    continue_unwinding!(),
    "ret",
    ".size rust_eh_personality, .-rust_eh_personality"
);
