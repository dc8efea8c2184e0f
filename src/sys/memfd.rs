//! Pages that two processes share: memfd_create(2), sealed so that neither can pull them away from under the other.

use super::fd::Fd;
#[cfg(feature = "supervisor")]
use super::fd::errno;
use crate::text::Text;
use core::ffi::CStr;
#[cfg(feature = "supervisor")]
use std::io;
#[cfg(feature = "supervisor")]
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A new file of `bytes` zeros whose size is fixed for ever; closed on exec.
#[cfg(feature = "supervisor")]
pub(crate) fn create_sealed(bytes: usize) -> io::Result<OwnedFd> {
    let create = |flags| {
        // SAFETY: the name is a C string that outlives the call.
        unsafe { libc::memfd_create(c"oomguard-record".as_ptr(), libc::MFD_CLOEXEC | flags) }
    };
    // Never to be executed, which hardened systems insist on; Linux before 6.3 does not know the flag.
    let mut fd = create(libc::MFD_NOEXEC_SEAL);
    if fd < 0 && errno() == libc::EINVAL {
        fd = create(libc::MFD_ALLOW_SEALING);
    }
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made, and that nobody else knows.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ftruncate takes no pointer.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), bytes as libc::off_t) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: F_ADD_SEALS takes an integer.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// Opens the file behind a descriptor of process `pid`: proc_pid_fd(5). Signal-safe.
pub(crate) fn open_of(pid: u32, fd: i32) -> Option<Fd> {
    let mut path = Text::<48>::new();
    path.push("/proc/");
    path.push_number(u64::from(pid));
    path.push("/fd/");
    path.push_number(u64::from(fd.unsigned_abs()));
    path.push_bytes(&[0]);
    super::fd::open(
        CStr::from_bytes_until_nul(path.as_bytes()).ok()?,
        libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK,
    )
}

/// Whether descriptor `fd` is such a file of `bytes`; its inode number, which no other such file has.
pub(crate) fn sealed_inode(fd: i32, bytes: usize) -> Option<u64> {
    // SAFETY: F_GET_SEALS takes no pointer.
    let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    if seals < 0 || seals & SEALS != SEALS {
        return None;
    }
    // SAFETY: all-zero is a valid `stat`, a struct of integers.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `stat` is writable during the call.
    let known = unsafe { libc::fstat(fd, &raw mut stat) } == 0;
    (known && usize::try_from(stat.st_size) == Ok(bytes)).then_some(stat.st_ino)
}

/// Maps the sealed file `fd`, shared and for good: it is never unmapped.
pub(crate) fn map_for_ever(fd: i32, bytes: usize) -> Option<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}

/// Reads from `offset` on, whatever the file's position.
#[cfg(feature = "supervisor")]
pub(crate) fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: usize) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is writable for its whole length during the call.
        let got = unsafe {
            libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t)
        };
        match usize::try_from(got) {
            Ok(got) => return Ok(got),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}
