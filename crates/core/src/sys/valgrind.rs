//! Whether this process runs under valgrind, which watches each access to memory and each system call's arguments:
//! what asks the kernel about addresses has to ask otherwise there.

use core::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Whether valgrind runs this process. Asked once, in a few instructions.
pub fn is_running() -> bool {
    // Relaxed: the answer is the same whoever asks.
    match ANSWER.load(Ordering::Relaxed) {
        UNKNOWN => {
            let is = ask();
            ANSWER.store(if is { YES } else { NO }, Ordering::Relaxed);
            is
        }
        answer => answer == YES,
    }
}

/// The client request RUNNING_ON_VALGRIND (valgrind's manual, "The Client Request mechanism"): rotations that come to
/// nothing, and that only valgrind takes for a question.
fn ask() -> bool {
    const RUNNING_ON_VALGRIND: u64 = 0x1001;
    let request = [RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0];
    let mut answer = 0u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the rotations add up to nothing; valgrind reads the six words and writes the answer.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") request.as_ptr(), inout("rdx") answer, out("rdi") _, options(nostack, readonly)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61", "orr x10, x10, x10",
            in("x4") request.as_ptr(), inout("x3") answer, out("x12") _, options(nostack, readonly)
        );
    }
    let _ = request;
    let _ = &mut answer;
    answer != 0
}
