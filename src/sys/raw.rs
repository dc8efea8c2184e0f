//! System calls by the instruction itself, for those that the C library's functions for would lead back to us: `mmap` and
//! `syscall` may be the ones that the shim interposes.

/// Makes a system call; -1 and `errno` where it fails, as syscall(2) has it.
///
/// # Safety
/// That of the call.
pub(crate) unsafe fn call(number: i64, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    #[cfg(target_arch = "x86_64")]
    let result = {
        let mut result = number as isize;
        // SAFETY: by contract; the kernel changes no other register than those that are named.
        unsafe {
            core::arch::asm!(
                "syscall",
                inlateout("rax") result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
                lateout("rcx") _, lateout("r11") _,
                options(nostack)
            );
        }
        result
    };
    #[cfg(target_arch = "aarch64")]
    let result = {
        let mut result = a as isize;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") result,
                in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
                options(nostack)
            );
        }
        result
    };
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        const MOST_ERRNO: isize = 4095;
        if (-MOST_ERRNO..0).contains(&result) {
            super::fd::set_errno(-result as i32);
            return -1;
        }
        result
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: by contract.
    unsafe {
        libc::syscall(number as _, a, b, c, d, e, f) as isize
    }
}
