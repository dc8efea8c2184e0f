//! Pages that two processes share, from the side that makes them: memfd_create(2).

use super::fd::errno;
use core::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(crate) use oomguard_core::sys::memfd::*;

/// A new file of `bytes` zeros whose size is fixed for ever; closed on exec.
pub(crate) fn create_sealed(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let create = |flags| {
        // SAFETY: the name is a C string that outlives the call.
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | flags) }
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

/// The same descriptor, as the standard library has it.
pub(crate) fn owned(fd: super::fd::Fd) -> OwnedFd {
    // SAFETY: an open descriptor, which nobody else closes any more.
    unsafe { OwnedFd::from_raw_fd(fd.into_number()) }
}

/// Sends a descriptor to whoever asked for the record.
pub(crate) fn hand_over(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = ASKS_FOR_THE_RECORD;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 64]);
    let message = message(&mut part, &mut control);
    // SAFETY: the message is valid, and its control part has room for a header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: in `control`, which is aligned for it and large enough.
    let Some(header) = (unsafe { header.as_mut() }) else { return Err(io::ErrorKind::InvalidInput.into()) };
    (header.cmsg_level, header.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    // SAFETY: arithmetic.
    header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<i32>() as u32) } as _;
    // SAFETY: as above.
    let data: *mut i32 = unsafe { libc::CMSG_DATA(header) }.cast();
    // SAFETY: there is room for one descriptor.
    unsafe { data.write_unaligned(fd.as_raw_fd()) };
    // SAFETY: the message's parts are this function's own, and readable during the call.
    let sent = unsafe {
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads from `offset` on, whatever the file's position.
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
