//! System calls by the instruction itself: the C library's functions for them may lead back to us, as the shim interposes
//! `mmap` and `syscall`, and they write `errno`.

use core::ffi::{c_char, c_int, c_void};

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

/// Declares functions of the C library's that are a system call and nothing else, as `libc` has them.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty = $number:ident $arguments:tt;)*) => {$(
        /// # Safety
        /// That of the call.
        pub unsafe fn $name($($argument: $kind),*) -> $result {
            // SAFETY: by contract.
            unsafe { call_with_errno(libc::$number, $arguments) as $result }
        }
    )*};
}

calls! {
    close(fd: c_int) -> c_int = SYS_close [fd as usize, 0, 0, 0, 0, 0];
    connect(fd: c_int, to: *const libc::sockaddr_un, bytes: libc::socklen_t) -> c_int
        = SYS_connect [fd as usize, to as usize, bytes as usize, 0, 0, 0];
    fcntl(fd: c_int, command: c_int) -> c_int = SYS_fcntl [fd as usize, command as usize, 0, 0, 0, 0];
    fgetxattr(fd: c_int, name: *const c_char, value: *mut c_void, bytes: usize) -> isize
        = SYS_fgetxattr [fd as usize, name as usize, value as usize, bytes, 0, 0];
    getgid() -> libc::gid_t = SYS_getgid [0; 6];
    getppid() -> libc::pid_t = SYS_getppid [0; 6];
    getrusage(who: c_int, usage: *mut libc::rusage) -> c_int = SYS_getrusage [who as usize, usage as usize, 0, 0, 0, 0];
    getuid() -> libc::uid_t = SYS_getuid [0; 6];
    kill(pid: libc::pid_t, signal: c_int) -> c_int = SYS_kill [pid as usize, signal as usize, 0, 0, 0, 0];
    mincore(at: *mut c_void, bytes: usize, residency: *mut u8) -> c_int
        = SYS_mincore [at as usize, bytes, residency as usize, 0, 0, 0];
    munmap(at: *mut c_void, bytes: usize) -> c_int = SYS_munmap [at as usize, bytes, 0, 0, 0, 0];
    pread(fd: c_int, buffer: *mut c_void, bytes: usize, offset: libc::off_t) -> isize
        = SYS_pread64 [fd as usize, buffer as usize, bytes, offset as usize, 0, 0];
    prlimit(pid: libc::pid_t, resource: c_int, new: *const libc::rlimit, old: *mut libc::rlimit) -> c_int
        = SYS_prlimit64 [pid as usize, resource as usize, new as usize, old as usize, 0, 0];
    read(fd: c_int, buffer: *mut c_void, bytes: usize) -> isize = SYS_read [fd as usize, buffer as usize, bytes, 0, 0, 0];
    recvmsg(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> isize
        = SYS_recvmsg [fd as usize, message as usize, flags as usize, 0, 0, 0];
    sched_yield() -> c_int = SYS_sched_yield [0; 6];
    sigaltstack(new: *const libc::stack_t, old: *mut libc::stack_t) -> c_int
        = SYS_sigaltstack [new as usize, old as usize, 0, 0, 0, 0];
    socket(family: c_int, kind: c_int, protocol: c_int) -> c_int
        = SYS_socket [family as usize, kind as usize, protocol as usize, 0, 0, 0];
    sysinfo(info: *mut libc::sysinfo) -> c_int = SYS_sysinfo [info as usize, 0, 0, 0, 0, 0];
}

// Miri takes no instructions, and asks for this one in what it tries.
#[cfg(not(miri))]
calls! {
    getpid() -> libc::pid_t = SYS_getpid [0; 6];
}
#[cfg(miri)]
pub use libc::getpid;

// Those that the C library makes by the older call where there is one, so that filters for system calls know them.
#[cfg(target_arch = "x86_64")]
calls! {
    poll(polls: *mut libc::pollfd, count: libc::nfds_t, timeout_ms: c_int) -> c_int
        = SYS_poll [polls as usize, count as usize, timeout_ms as usize, 0, 0, 0];
    readlink(path: *const c_char, target: *mut c_char, bytes: usize) -> isize
        = SYS_readlink [path as usize, target as usize, bytes, 0, 0, 0];
}
#[cfg(not(target_arch = "x86_64"))]
pub use libc::{poll, readlink};
