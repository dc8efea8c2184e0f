//! How long the turns are that a thread takes on a processor.

/// sched_setattr(2), as far as it is the same in all versions.
#[repr(C)]
#[derive(Default)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of a thread without real-time rights, how long its turns are, in nanoseconds (since Linux 6.12).
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// This thread wakes for moments, and takes short turns: where all processors are busy, it has the next one the sooner. Nothing else
/// about it changes, and nothing where the kernel does not know that.
pub fn take_short_turns() {
    /// The shortest there are.
    const TURN_NS: u64 = 100_000;
    /// SCHED_FLAG_RESET_ON_FORK: what it starts has none of it.
    const NOT_FOR_CHILDREN: u64 = 1;
    let size = size_of::<Scheduling>() as u32;
    let mut now = Scheduling::default();
    // SAFETY: it writes at most `size` bytes to the structure, which is that large.
    let is_known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, size, 0) } == 0;
    // What older kernels tell of a thread without real-time rights is zero.
    if is_known && now.policy == libc::SCHED_OTHER.unsigned_abs() && now.runtime != 0 {
        (now.size, now.flags, now.runtime) = (size, now.flags | NOT_FOR_CHILDREN, TURN_NS);
        // SAFETY: it reads as many bytes of the structure as its first word says, which is its size.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const now, 0) };
    }
}
