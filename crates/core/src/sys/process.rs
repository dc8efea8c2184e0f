//! This process and its threads: numbers, what they have done, the end.

use super::raw;
use crate::text::whole_number;

/// The process number.
pub fn pid() -> u32 {
    // The kernel, not a cached value: right in a child of fork, too.
    // SAFETY: getpid takes nothing and cannot fail.
    unsafe { raw::getpid() }.unsigned_abs()
}

/// The process that started this one.
pub fn parent_pid() -> u32 {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { raw::getppid() }.unsigned_abs()
}

/// The calling thread's number; the same as `pid` in the main thread.
pub fn tid() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) }.unsigned_abs() as u32
}

/// The calling thread's name without the NUL, up to 15 bytes: PR_GET_NAME in prctl(2).
pub fn thread_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, and there are 16.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// The inode of the PID namespace that this process is in: namespaces(7); zero where it cannot be told.
pub fn pid_namespace() -> u64 {
    super::fd::stat_of_path(c"/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// The process group that this process is in.
pub fn group() -> u32 {
    super::proc::group_of(0)
}

/// What this process has done so far, all its threads together: getrusage(2).
#[derive(Clone, Copy, Default)]
pub struct Doings {
    /// Processor time, in milliseconds.
    pub processor_ms: u64,
    /// How often a thread has waited for something: a client, a disk, another thread.
    pub waits: u64,
    /// The pages that children have touched which have ended and been waited for: each has touched some.
    pub childrens_pages: u64,
}

/// The pages that children have touched which have ended and been waited for.
pub fn childrens_pages() -> u64 {
    usage_of(libc::RUSAGE_CHILDREN).ru_minflt.unsigned_abs()
}

pub fn doings() -> Doings {
    let (own, children) = (usage_of(libc::RUSAGE_SELF), usage_of(libc::RUSAGE_CHILDREN));
    let ms = |time: libc::timeval| time.tv_sec.unsigned_abs() * 1000 + time.tv_usec.unsigned_abs() / 1000;
    Doings {
        processor_ms: ms(own.ru_utime) + ms(own.ru_stime),
        waits: own.ru_nvcsw.unsigned_abs(),
        childrens_pages: children.ru_minflt.unsigned_abs(),
    }
}

fn usage_of(whose: libc::c_int) -> libc::rusage {
    // SAFETY: all-zero is a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: `usage` is writable during the call.
    unsafe { raw::getrusage(whose, &raw mut usage) };
    usage
}

/// What this process has done so far, all its threads together.
pub struct Effort {
    pub processor_ns: u64,
    /// Pages that were touched for the first time, or again after they were given back.
    pub new_pages: u64,
}

pub fn effort() -> Effort {
    let usage = usage_of(libc::RUSAGE_SELF);
    let new_pages = usage.ru_minflt.unsigned_abs() + usage.ru_majflt.unsigned_abs();
    Effort { processor_ns: super::clock::clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID), new_pages }
}

/// How many calls of this process have written so far, as the kernel counts them.
pub fn calls_that_wrote() -> Option<u64> {
    io_count(b"syscw: ")
}

/// How many bytes this process has written so far, as the kernel counts them.
pub fn bytes_written() -> Option<u64> {
    io_count(b"wchar: ")
}

/// How many bytes this process has read so far by read(2) and its kin, without what we have read ourselves.
pub fn bytes_read() -> Option<u64> {
    let own = super::fd::bytes_of_lines();
    io_count(b"rchar: ").map(|bytes| bytes.saturating_sub(own))
}

/// A line of proc_pid_io(5).
fn io_count(name: &[u8]) -> Option<u64> {
    let mut buffer = [0; 256];
    let mut lines = super::fd::Lines::open(c"/proc/self/io", &mut buffer)?;
    while let Some(line) = lines.next() {
        if let Some(count) = line.strip_prefix(name) {
            return whole_number(count);
        }
    }
    None
}

/// How often the calling thread has waited for something so far.
pub fn thread_waits() -> u64 {
    usage_of(libc::RUSAGE_THREAD).ru_nvcsw.unsigned_abs()
}

/// Whether this process has a thread of this number: tgkill(2), which sends nothing.
pub fn has_thread(tid: u32) -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::syscall(libc::SYS_tgkill, pid(), tid, 0) == 0 }
}

/// A key whose destructor runs at the end of each thread that has set it: pthread_key_create(3), which is not
/// async-signal-safe, and takes a lock in some C libraries.
pub fn thread_key(at_end: extern "C" fn(*mut libc::c_void)) -> Option<u32> {
    let mut key = 0;
    // SAFETY: `key` is writable during the call; the destructor lives as long as the process.
    let made = unsafe { libc::pthread_key_create(&raw mut key, Some(at_end)) } == 0;
    made.then_some(key)
}

/// Has the key's destructor run at the end of the calling thread. glibc allocates in the first call of a thread for a key
/// from 32 on: pthread_setspecific(3).
pub fn set_thread_key(key: u32) {
    // SAFETY: a key of `thread_key`'s; the value is never followed.
    unsafe { libc::pthread_setspecific(key, core::ptr::without_provenance(1)) };
}

/// Whether a filter decides over this thread's system calls, by a question that threads' names are set by as well:
/// PR_GET_SECCOMP in prctl(2).
pub fn is_filtered() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) != 0 }
}

/// The process and the calling thread in one number, the process in the upper half: who it is that an atomic word names.
pub fn pid_and_tid() -> u64 {
    u64::from(pid()) << 32 | u64::from(tid())
}

/// Lets other threads run.
pub fn yield_now() {
    // SAFETY: sched_yield takes nothing.
    unsafe { raw::sched_yield() };
}

/// Ends the process, all its threads included, without running anything else.
pub fn exit_now(code: u8) -> ! {
    // The instruction: `_exit` and `syscall` may be those that the shim interposes.
    let status = i64::from(code);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: exit_group takes no pointer and does not come back.
    unsafe {
        core::arch::asm!("syscall", in("rax") libc::SYS_exit_group, in("rdi") status, options(noreturn, nostack))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("svc 0", in("x8") libc::SYS_exit_group, in("x0") status, options(noreturn, nostack))
    }
}

/// Whether the program runs with more rights than whoever started it: AT_SECURE in getauxval(3).
pub fn has_raised_privileges() -> bool {
    // SAFETY: getauxval takes no pointer.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Puts the path of the program that this process runs into `path`, and gives its length: /proc/self/exe.
pub fn executable(path: &mut [u8]) -> Option<usize> {
    // SAFETY: a C string, and a buffer that is writable for its whole length, during the call.
    let len = unsafe { raw::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    usize::try_from(len).ok()
}

/// Where the program begins: an address in it. The dynamic linker's own, where that was started by its name.
pub fn entry_address() -> Option<usize> {
    // SAFETY: getauxval takes no pointer.
    let address = unsafe { libc::getauxval(libc::AT_ENTRY) };
    usize::try_from(address).ok().filter(|address| *address != 0)
}

/// Where the kernel put the program's file name: the topmost string of the main stack.
pub fn executable_name_address() -> Option<usize> {
    // SAFETY: getauxval takes no pointer.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    usize::try_from(address).ok().filter(|address| *address != 0)
}
