//! The number of the last error: errno(3).

/// `errno` of the last failed call in this thread.
pub fn errno() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    let here = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own errno, valid as long as the thread lives.
    unsafe { *here }
}

/// Puts `errno` back, for functions that run where the program does not expect one to.
pub fn set_errno(value: i32) {
    // SAFETY: takes nothing and cannot fail.
    let here = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own errno, valid as long as the thread lives.
    unsafe { *here = value };
}
