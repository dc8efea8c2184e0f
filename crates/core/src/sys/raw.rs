//! System calls by the instruction itself: the C library's functions for them may lead back to us, as the shim interposes
//! `mmap` and `syscall`, and they write `errno`.

/// A system call; its result, or a negative error number.
///
/// # Safety
/// That of the call.
pub unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the callers hand over what their calls take; the kernel changes these two registers besides.
    unsafe {
        core::arch::asm!(
            "syscall", inlateout("rax") number as isize => result, in("rdi") first, in("rsi") second,
            in("rdx") third, in("r10") fourth, in("r8") fifth, in("r9") sixth,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "svc 0", in("x8") number, inlateout("x0") first as isize => result, in("x1") second,
            in("x2") third, in("x3") fourth, in("x4") fifth, in("x5") sixth, options(nostack)
        );
    }
    result
}

/// The same as the C library tells it: -1 and `errno` where it fails.
///
/// # Safety
/// That of the call.
pub unsafe fn call_with_errno(number: libc::c_long, arguments: [usize; 6]) -> isize {
    // SAFETY: by contract.
    let result = unsafe { call(number, arguments) };
    const MOST_ERRNO: isize = 4095;
    if (-MOST_ERRNO..0).contains(&result) {
        super::errno::set_errno(-result as i32);
        return -1;
    }
    result
}
