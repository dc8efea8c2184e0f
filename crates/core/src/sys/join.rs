//! Having oneself followed: the process's part of it, and a seccomp(2) filter that stops nothing but the calls which map
//! memory. For processes that have been forked, or are about to become another program: nothing here allocates or locks.

use super::errno::errno;
use super::raw;
use core::mem::offset_of;

/// The architecture as seccomp names it (linux/audit.h), where this crate knows it.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xC000_00F3)
} else {
    None
};

/// The step of [`join`] that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// The tracer was not there, or did not answer.
    Tracer = 1,
    /// ptrace(2) was refused.
    Seize = 2,
    /// seccomp(2) was refused.
    Filter = 3,
}

/// What a process asks of the supervisor that keeps its record, in the first byte that it sends: a tracer. The other wish
/// is in `memfd`.
pub const ASKS_TO_BE_FOLLOWED: u8 = b'F';

/// The process at the other end, by its number here.
pub fn peer(socket: i32) -> Option<u32> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both are writable during the call, and the length is that of the struct.
    let result = unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut len)
    };
    (result == 0 && found.pid > 0).then_some(found.pid.unsigned_abs())
}

/// Has this process, and what it becomes, followed by the supervisor that keeps the record, if there is one that would.
/// Async-signal-safe; also in a child of vfork(2).
pub fn ask_to_be_followed(inode: u64) -> bool {
    const PATIENCE_MS: i32 = 2000;
    let Some(keeper) = super::memfd::connect_to_keeper(inode) else { return false };
    let socket = keeper.number();
    let ask = || {
        if !super::fd::send(socket, &[ASKS_TO_BE_FOLLOWED]) {
            return false;
        }
        let mut tracer = [0; 4];
        for byte in &mut tracer {
            let Some(read) = read_byte(socket, PATIENCE_MS) else { return false };
            *byte = read;
        }
        join(socket, u32::from_ne_bytes(tracer)).is_ok()
    };
    ask()
}

/// Has the tracer at the other end of `socket` follow this process, and installs the filter. Where the first is
/// refused there is no filter, so the process is as if nothing had been tried. Async-signal-safe.
pub fn join(socket: i32, tracer: u32) -> Result<(), (Step, i32)> {
    const PATIENCE_MS: i32 = 10_000;
    // Where Yama lets only ancestors trace (Documentation/admin-guide/LSM/Yama.rst); elsewhere unknown.
    // SAFETY: PR_SET_PTRACER takes a number.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(tracer)) };
    if !super::fd::send(socket, &super::process::pid().to_ne_bytes()) {
        return Err((Step::Tracer, libc::EPIPE));
    }
    match read_byte(socket, PATIENCE_MS) {
        Some(0) => {}
        Some(refused) => return Err((Step::Seize, i32::from(refused))),
        None => return Err((Step::Tracer, libc::ETIMEDOUT)),
    }
    install_filter().map_err(|error| (Step::Filter, error))
}

fn read_byte(fd: i32, patience_ms: i32) -> Option<u8> {
    loop {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, writable during the call.
        let ready = unsafe { raw::poll(&raw mut poll, 1, patience_ms) };
        if ready < 0 && errno() == libc::EINTR {
            continue;
        }
        let mut byte = 0u8;
        // SAFETY: one byte, writable during the call.
        let got = if ready > 0 { unsafe { raw::read(fd, (&raw mut byte).cast(), 1) } } else { 0 };
        return (got == 1).then_some(byte);
    }
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn load(offset: usize) -> libc::sock_filter {
    libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: offset as u32 }
}

/// Skips so many instructions where the test holds, and so many where it does not.
const fn skip(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

const fn decide(k: u32) -> libc::sock_filter {
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k }
}

const NUMBER: usize = offset_of!(libc::seccomp_data, nr);
const ARCH: usize = offset_of!(libc::seccomp_data, arch);
const FIRST: usize = offset_of!(libc::seccomp_data, args);
const THIRD: usize = FIRST + 16;

/// Stops mmap, mremap, fallocate, mprotect to writable, brk with an address, and a clone that no tracer is to hear of; lets all else
/// pass, other architectures' calls included. Little-endian: a word's low half comes first.
const fn filter(architecture: u32) -> [libc::sock_filter; 20] {
    [
        load(ARCH),
        skip(IF_EQUAL, architecture, 0, 17),
        load(NUMBER),
        skip(IF_EQUAL, libc::SYS_mmap as u32, 14, 0),
        skip(IF_EQUAL, libc::SYS_mremap as u32, 13, 0),
        skip(IF_EQUAL, libc::SYS_fallocate as u32, 12, 0),
        skip(IF_EQUAL, libc::SYS_mprotect as u32, 3, 0),
        skip(IF_EQUAL, libc::SYS_brk as u32, 4, 0),
        skip(IF_EQUAL, libc::SYS_clone as u32, 7, 0),
        decide(libc::SECCOMP_RET_ALLOW),
        load(THIRD),
        skip(IF_SET, libc::PROT_WRITE as u32, 6, 7),
        load(FIRST),
        skip(IF_EQUAL, 0, 0, 4),
        load(FIRST + 4),
        skip(IF_EQUAL, 0, 3, 2),
        load(FIRST),
        skip(IF_SET, libc::CLONE_UNTRACED as u32, 0, 1),
        decide(libc::SECCOMP_RET_TRACE),
        decide(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Async-signal-safe.
fn install_filter() -> Result<(), i32> {
    let Some(architecture) = ARCHITECTURE else { return Err(libc::ENOSYS) };
    let mut filter = filter(architecture);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // Without this flag, Linux before 5.16 slows the process down for a filter's sake (spec_store_bypass).
    let flags = [libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0];
    let install = || {
        flags.iter().any(|flags| {
            // SAFETY: the program and its instructions are readable during the call.
            let result = unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, *flags, &raw const program)
            };
            result == 0
        })
    };
    if install() {
        return Ok(());
    }
    // Without CAP_SYS_ADMIN the kernel wants a promise that nothing below will gain privileges.
    if errno() != libc::EACCES {
        return Err(errno());
    }
    // SAFETY: PR_SET_NO_NEW_PRIVS takes integers.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    if promised && install() { Ok(()) } else { Err(errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::c_long;

    /// What the filter says to a call.
    fn run(architecture: u32, number: c_long, first: u64, third: u64) -> u32 {
        let filter = filter(0xC000_003E);
        let mut at = 0;
        let mut accumulator = 0;
        loop {
            let step = filter[at];
            at += 1;
            match step.code {
                LOAD => {
                    accumulator = match step.k as usize {
                        NUMBER => number as u32,
                        ARCH => architecture,
                        FIRST => first as u32,
                        offset if offset == FIRST + 4 => (first >> 32) as u32,
                        THIRD => third as u32,
                        other => panic!("loads {other}"),
                    }
                }
                IF_EQUAL => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                IF_SET => at += usize::from(if accumulator & step.k != 0 { step.jt } else { step.jf }),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn only_calls_that_can_be_refused_memory_are_stopped() {
        let (trace, allow) = (libc::SECCOMP_RET_TRACE, libc::SECCOMP_RET_ALLOW);
        let here = 0xC000_003E;
        for (number, first, third, expected) in [
            (libc::SYS_mmap, 0, 0, trace),
            (libc::SYS_mremap, 0, 0, trace),
            (libc::SYS_fallocate, 0, 0, trace),
            (libc::SYS_mprotect, 0, 3, trace),
            (libc::SYS_mprotect, 0, 1, allow),
            (libc::SYS_brk, 0, 0, allow),
            (libc::SYS_brk, 4096, 0, trace),
            (libc::SYS_brk, 1 << 32, 0, trace),
            (libc::SYS_clone, libc::CLONE_UNTRACED as u64 | 17, 0, trace),
            (libc::SYS_clone, 17, 0, allow),
            (libc::SYS_munmap, 1, 3, allow),
            (libc::SYS_read, 1, 3, allow),
        ] {
            assert_eq!(run(here, number, first, third), expected, "{number} {first} {third}");
            assert_eq!(run(0x4000_0003, number, first, third), allow);
        }
    }
}
