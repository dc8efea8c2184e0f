//! A `ptrace` for user-mode Linux before 6.13, loaded by LD_PRELOAD.
//!
//! Such a kernel keeps a thread's vector registers in a buffer of 2696 bytes (up to
//! AVX-512 and PKRU). The host takes PTRACE_SETREGSET of NT_X86_XSTATE only in its own
//! XSAVE size, which is 11008 bytes with AMX, and the guest kernel panics: "ptrace set
//! fp regs failed, errno = 14". This `ptrace` lengthens a short buffer with zeroes:
//! the initial state of the components that follow, which no guest program can have
//! changed, since the kernel grants AMX only on request. All else passes through.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_long, c_void};
use std::ptr;

const NT_X86_XSTATE: usize = 0x202;
/// Twice what any processor of today needs.
const LONGEST: usize = 1 << 15;

/// Off the stack, because the guest kernel calls `ptrace` on small stacks of its own.
#[repr(C, align(64))]
struct Registers(UnsafeCell<[u8; LONGEST]>);

// SAFETY: user-mode Linux calls `ptrace` from its one kernel thread only.
unsafe impl Sync for Registers {}

static LENGTHENED: Registers = Registers(UnsafeCell::new([0; LONGEST]));

/// glibc's `ptrace`. It is variadic in C; on x86-64 the caller passes the same four
/// registers either way.
///
/// # Safety
/// As for `ptrace(2)`; and one thread at a time, for the sake of `LENGTHENED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptrace(
    request: c_long,
    pid: c_int,
    address: *mut c_void,
    data: *mut c_void,
) -> c_long {
    // glibc declares the request as an int: the upper half of the register is not set.
    match request as u32 {
        libc::PTRACE_SETREGSET if address.addr() == NT_X86_XSTATE => {
            // SAFETY: for this request `data` points to an iovec, by ptrace(2).
            let given = unsafe { data.cast::<libc::iovec>().read() };
            // SAFETY: the caller's iovec describes `iov_len` readable bytes.
            unsafe { set_vector_registers(pid, given) }
        }
        peek @ (libc::PTRACE_PEEKTEXT | libc::PTRACE_PEEKDATA | libc::PTRACE_PEEKUSER) => {
            // SAFETY: the caller answers for the address; the word goes to our local.
            unsafe { peek_word(peek, pid, address) }
        }
        // SAFETY: exactly the caller's request.
        other => unsafe { system_call(other, pid, address, data) },
    }
}

/// # Safety
/// `given` describes readable bytes; one thread at a time.
unsafe fn set_vector_registers(pid: c_int, mut given: libc::iovec) -> c_long {
    let wanted = host_xsave_bytes().min(LONGEST);
    if given.iov_len < wanted {
        let lengthened = LENGTHENED.0.get().cast::<u8>();
        // SAFETY: the source is readable by this function's contract, the target is
        // longer (`iov_len < wanted <= LONGEST`) and used by this thread alone. What
        // follows the copied bytes stays zero, because every caller's buffer has one size.
        unsafe { ptr::copy_nonoverlapping(given.iov_base.cast(), lengthened, given.iov_len) };
        given.iov_base = lengthened.cast();
        given.iov_len = wanted;
    }
    let kind = ptr::without_provenance_mut(NT_X86_XSTATE);
    // SAFETY: `given` lives until the call returns and describes readable bytes.
    unsafe { system_call(libc::PTRACE_SETREGSET, pid, kind, (&raw mut given).cast()) }
}

/// The system call stores the word; glibc's function returns it, with errno 0.
///
/// # Safety
/// As for `ptrace(2)`.
unsafe fn peek_word(request: u32, pid: c_int, address: *mut c_void) -> c_long {
    let mut word: c_long = 0;
    // SAFETY: the kernel writes one word, into a local that outlives the call.
    if unsafe { system_call(request, pid, address, (&raw mut word).cast()) } < 0 {
        return -1;
    }
    // SAFETY: always this thread's own, valid errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: see above; nothing else refers to it.
    unsafe { errno.write(0) };
    word
}

/// # Safety
/// As for `ptrace(2)`.
unsafe fn system_call(request: u32, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long {
    // SAFETY: the caller's contract; the kernel reads these four arguments, no more.
    unsafe { libc::syscall(libc::SYS_ptrace, c_long::from(request), pid, address, data) }
}

/// The size of this processor's XSAVE area with every feature that the host enabled,
/// which is the length that the host's regset wants.
pub fn host_xsave_bytes() -> usize {
    std::arch::x86_64::__cpuid_count(0xd, 0).ebx as usize
}

#[cfg(test)]
#[path = "../../../../common/skip.rs"]
mod skip;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::process::{Child, Command};

    /// x87, SSE and the XSAVE header: shorter than any host with AVX wants.
    const SHORT: usize = 576;

    /// Stands for the guest kernel, whose buffer is short on hosts with AMX; here it is
    /// short on any host, so that the test needs no such processor.
    #[test]
    fn a_short_buffer_is_refused_by_the_host_and_taken_through_the_shim() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep is there");
        let stopped = stop(&child);
        if stopped.is_ok() {
            compare(child.id().cast_signed());
        }
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        if let Err(error) = stopped {
            super::skip::skipped(format!("this system forbids ptrace: {error}"));
        }
    }

    fn compare(pid: c_int) {
        let kind = ptr::without_provenance_mut(NT_X86_XSTATE);
        let mut registers = vec![0_u8; LONGEST];
        let mut all = described(&mut registers);
        call(libc::PTRACE_GETREGSET, pid, kind, (&raw mut all).cast()).expect("it is stopped");
        assert_eq!(all.iov_len, host_xsave_bytes());

        // The header's first word says which components follow: x87 and SSE only.
        registers[512..520].copy_from_slice(&3_u64.to_ne_bytes());
        let mut short = described(&mut registers[..SHORT]);
        let refused = call(libc::PTRACE_SETREGSET, pid, kind, (&raw mut short).cast());
        assert_eq!(refused.map_err(|e| e.raw_os_error()), Err(Some(libc::EFAULT)));
        let mut short = described(&mut registers[..SHORT]);
        // SAFETY: `short` describes bytes of `registers`; no other thread calls this.
        let taken = unsafe { ptrace(libc::PTRACE_SETREGSET.into(), pid, kind, (&raw mut short).cast()) };
        assert_eq!(taken, 0, "{}", io::Error::last_os_error());

        let none = ptr::null_mut();
        // SAFETY: PEEKUSER at offset 0 reads a register, no memory of ours.
        let word = unsafe { ptrace(libc::PTRACE_PEEKUSER.into(), pid, none, none) };
        assert_ne!(word, -1, "{}", io::Error::last_os_error());
    }

    fn stop(child: &Child) -> io::Result<()> {
        let (pid, none) = (child.id().cast_signed(), ptr::null_mut());
        call(libc::PTRACE_SEIZE, pid, none, none)?;
        call(libc::PTRACE_INTERRUPT, pid, none, none)?;
        // SAFETY: a null pointer asks for no status.
        match unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WALL) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn described(bytes: &mut [u8]) -> libc::iovec {
        libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
    }

    fn call(request: u32, pid: c_int, address: *mut c_void, data: *mut c_void) -> io::Result<()> {
        // SAFETY: `data` is null or an iovec whose bytes outlive the call.
        match unsafe { system_call(request, pid, address, data) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
