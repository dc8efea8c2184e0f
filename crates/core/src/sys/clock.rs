//! What time it is, by which clock, and sleep.

/// Milliseconds since some fixed moment: CLOCK_MONOTONIC.
pub fn monotonic_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// The same from a clock that moves every few milliseconds and costs next to nothing: CLOCK_MONOTONIC_COARSE.
pub fn coarse_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// What times in proc_pid_stat(5) are counted in, in milliseconds: USER_HZ in the kernel, the same everywhere.
pub const MS_PER_TICK: u64 = 10;

/// Seconds since 1970.
pub fn wall_clock_s() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec.unsigned_abs()
}

/// Nanoseconds since the same moment as `monotonic_ms`.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The time of a clock in nanoseconds: clock_gettime(2).
pub(super) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec.unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.unsigned_abs())
}

/// The processor time that the calling thread has used, in nanoseconds.
pub fn thread_processor_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Sleeps; a signal may end it early.
pub fn sleep_ms(ms: u64) {
    let span = libc::timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 };
    // The raw call: the library's nanosleep is a cancellation point.
    // SAFETY: `span` is readable during the call; the remainder is not asked for.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const span, core::ptr::null_mut::<u8>()) };
}
