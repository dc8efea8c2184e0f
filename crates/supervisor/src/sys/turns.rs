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

/// This thread wakes for moments: where all processors are busy, it comes first as far as it may (capabilities(7), CAP_SYS_NICE), and
/// takes short turns, so that it has the next one the sooner, where the kernel knows of that. Nothing else about it changes.
pub fn come_first() {
    /// The shortest there are.
    const TURN_NS: u64 = 100_000;
    let Some(mut now) = scheduling_of(0) else { return };
    // What older kernels tell of a thread without real-time rights is zero.
    if now.runtime != 0 {
        now.runtime = TURN_NS;
    }
    let nice = std::mem::replace(&mut now.nice, MOST_NICE);
    if !change(0, &now) {
        now.nice = nice;
        change(0, &now);
    }
}

/// That thread comes first from now on, if this one may say so.
pub fn let_come_first(tid: u32) {
    if let Some(mut now) = scheduling_of(tid) {
        now.nice = MOST_NICE;
        change(tid, &now);
    }
}

/// sched(7): the nicer, the later.
const MOST_NICE: i32 = -20;

/// How a thread is scheduled that has no real-time rights.
fn scheduling_of(tid: u32) -> Option<Scheduling> {
    let size = size_of::<Scheduling>() as u32;
    let mut now = Scheduling::default();
    // SAFETY: it writes at most `size` bytes to the structure, which is that large.
    let is_known = unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut now, size, 0) } == 0;
    now.size = size;
    (is_known && now.policy == libc::SCHED_OTHER.unsigned_abs()).then_some(now)
}

/// False: this thread may not.
fn change(tid: u32, to: &Scheduling) -> bool {
    /// SCHED_FLAG_RESET_ON_FORK: what it starts has none of it.
    const NOT_FOR_CHILDREN: u64 = 1;
    let to = Scheduling { flags: to.flags | NOT_FOR_CHILDREN, ..*to };
    // SAFETY: it reads as many bytes of the structure as its first word says, which is its size.
    unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const to, 0) == 0 }
}
