//! Threads that the C library does not know: they start however full the process is, and do nothing but system calls.
//!
//! Such a thread shares the thread pointer of whoever started it, who may have ended since, with the memory that it
//! points to. So these calls touch no `errno`.

use super::memory::Rlimit;
use super::raw::call;
use crate::text::Text;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// The stack of such a thread.
#[repr(align(16))]
pub struct BareStack<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: the bytes are only ever used by the one thread that `start` starts on them.
unsafe impl<const N: usize> Sync for BareStack<N> {}

impl<const N: usize> BareStack<N> {
    pub const fn new() -> Self {
        BareStack(UnsafeCell::new([0; N]))
    }
}

/// Starts a thread on a stack that exists already. All signals are blocked in it. `lives` is not zero from now on until the
/// kernel has taken the thread off its stack, for good: CLONE_CHILD_CLEARTID in clone(2).
///
/// # Safety
/// `body` must not return, must use no thread-local of its own (it shares the caller's, errno included) and must not
/// need more than the stack. `stack` must not be in use.
pub unsafe fn start<const N: usize>(
    stack: &'static BareStack<N>,
    lives: &'static AtomicI32,
    body: extern "C" fn(*mut libc::c_void) -> i32,
) -> bool {
    // CLONE_THREAD wants CLONE_SIGHAND, which wants CLONE_VM; without CLONE_SETTLS it shares the caller's pointer.
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let no_pointer = core::ptr::null_mut::<libc::c_void>();
    let before = super::signals::block_all();
    // SAFETY: one past the end of the stack, which is aligned to 16 bytes as N is a multiple of 16.
    let top = unsafe { stack.0.get().cast::<u8>().add(N) };
    // SAFETY: the stack and the word live for ever, and the stack is free by contract; `body` keeps to what a bare thread
    // may do.
    let thread = unsafe {
        libc::clone(body, top.cast(), flags, no_pointer, lives.as_ptr(), no_pointer, lives.as_ptr())
    };
    super::signals::restore(before);
    thread > 0
}

/// Ends the calling thread, which must be a bare one, and nothing else.
pub fn end_thread() -> ! {
    loop {
        // SAFETY: exit takes no pointer.
        unsafe { call(libc::SYS_exit, [0; 6]) };
    }
}

/// Whether the thread is off its stack.
pub fn is_gone(lives: &AtomicI32) -> bool {
    // Acquire: the kernel writes after the thread's last access to its stack.
    lives.load(Ordering::Acquire) == 0
}

/// How often such threads have read: calls that the kernel counts as the process's.
pub fn reads() -> u64 {
    READS.load(Ordering::Relaxed)
}

// Relaxed: a counter that observes.
static READS: AtomicU64 = AtomicU64::new(0);

/// Calls `look` with the number of each thread of this process, until it says stop: proc_pid_task(5).
pub fn each_thread(mut look: impl FnMut(u32) -> bool) {
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY) as usize;
    let (at_here, path) = (libc::AT_FDCWD as isize as usize, c"/proc/self/task");
    // SAFETY: the path is readable during the call.
    let fd = unsafe { call(libc::SYS_openat, [at_here, path.as_ptr() as usize, flags, 0, 0, 0]) };
    let Ok(fd) = usize::try_from(fd) else { return };
    let mut entries = [0u8; 2048];
    let mut goes_on = true;
    while goes_on {
        // SAFETY: so many bytes are writable there.
        let len = unsafe {
            call(libc::SYS_getdents64, [fd, entries.as_mut_ptr() as usize, entries.len(), 0, 0, 0])
        };
        let Some(mut rest) =
            usize::try_from(len).ok().filter(|len| *len > 0).and_then(|len| entries.get(..len))
        else {
            break;
        };
        // linux_dirent64: inode and offset of 8 bytes each, the length of 2, the type of 1, the name.
        while let (Some(length), true) = (rest.get(16..18), goes_on) {
            let length = length.first_chunk().map_or(0, |bytes| usize::from(u16::from_ne_bytes(*bytes)));
            let name = rest.get(19..length).unwrap_or(&[]);
            if name.first().is_some_and(u8::is_ascii_digit)
                && let Some(tid) = crate::text::leading_number(name)
            {
                goes_on = look(tid as u32);
            }
            rest = rest.get(length.max(19)..).unwrap_or(&[]);
        }
    }
    // SAFETY: the descriptor opened above, which nobody else knows.
    unsafe { call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]) };
}

/// Reads the beginning of a file of `/proc`. `None`: it cannot be opened.
pub fn read_file<'a>(path: &CStr, into: &'a mut [u8]) -> Option<&'a [u8]> {
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let at_here = libc::AT_FDCWD as isize as usize;
    // SAFETY: the path is readable during the call.
    let fd = unsafe { call(libc::SYS_openat, [at_here, path.as_ptr() as usize, flags, 0, 0, 0]) };
    let fd = usize::try_from(fd).ok()?;
    // SAFETY: so many bytes are writable there.
    let len = unsafe { call(libc::SYS_read, [fd, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) };
    READS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the descriptor opened above, which nobody else knows.
    unsafe { call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]) };
    into.get(..usize::try_from(len).ok()?)
}

/// The same of a file of one thread of this process's, whose name ends in a NUL: proc_pid_task(5).
pub fn read_of_thread<'a>(tid: u32, name: &str, into: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = Text::<48>::new();
    path.push("/proc/self/task/");
    path.push_number(u64::from(tid));
    path.push(name);
    read_file(CStr::from_bytes_with_nul(path.as_bytes()).ok()?, into)
}

/// Sends a signal to one thread of this process: tgkill(2).
pub fn signal_thread(pid: u32, tid: u32, signal: i32) {
    // SAFETY: takes no pointer.
    unsafe { call(libc::SYS_tgkill, [pid as usize, tid as usize, signal.unsigned_abs() as usize, 0, 0, 0]) };
}

/// Sleeps.
pub fn sleep_ms(ms: u64) {
    let span = libc::timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 };
    // SAFETY: `span` is readable during the call; the remainder is not asked for.
    unsafe { call(libc::SYS_nanosleep, [&raw const span as usize, 0, 0, 0, 0, 0]) };
}

/// Sends this process a signal with a value: sigqueue(3).
pub fn queue_signal(pid: u32, signal: i32, value: u64) {
    /// A `siginfo_t`, as far as it is said.
    #[repr(C)]
    struct Queued {
        signal: i32,
        error: i32,
        code: i32,
        at_eight: [u64; 0],
        sender: u32,
        user: u32,
        value: u64,
        rest: [u8; 96],
    }
    const { assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>()) };
    let info = Queued {
        signal,
        error: 0,
        code: libc::SI_QUEUE,
        at_eight: [],
        sender: pid,
        user: 0,
        value,
        rest: [0; 96],
    };
    let (pid, signal) = (pid as usize, signal.unsigned_abs() as usize);
    // SAFETY: `info` is as large as a `siginfo_t`, and readable during the call.
    unsafe { call(libc::SYS_rt_sigqueueinfo, [pid, signal, &raw const info as usize, 0, 0, 0]) };
}

/// Sets this process's soft limit on data to what `wanted` makes of it, if that changes it: prlimit(2).
pub fn change_soft_limit_on_data(wanted: impl FnOnce(Rlimit) -> Option<u64>) {
    let mut raw = [u64::MAX; 2];
    let resource = libc::RLIMIT_DATA as usize;
    // SAFETY: two words, as the kernel has it, writable during the call.
    unsafe { call(libc::SYS_prlimit64, [0, resource, 0, raw.as_mut_ptr() as usize, 0, 0]) };
    let bytes = |value| if value == u64::MAX { None } else { Some(value) };
    let [soft, hard] = raw;
    let now = Rlimit { soft: bytes(soft), hard: bytes(hard) };
    let wanted = wanted(now);
    if wanted != now.soft {
        let raw = [wanted.unwrap_or(u64::MAX), hard];
        // SAFETY: as above, readable.
        unsafe { call(libc::SYS_prlimit64, [0, resource, raw.as_ptr() as usize, 0, 0, 0]) };
    }
}

/// Ends the whole process, and asks nobody.
pub fn end_process(code: u8) -> ! {
    loop {
        // SAFETY: exit_group takes no pointer.
        unsafe { call(libc::SYS_exit_group, [usize::from(code), 0, 0, 0, 0, 0]) };
    }
}
