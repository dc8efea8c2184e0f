//! A counter of the kernel's that is readable while it is not zero: eventfd(2).

use oomguard_core::sys::errno::errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A new one, which is zero.
pub(super) fn event() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made, and that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one.
pub(super) fn add_to_event(event: BorrowedFd<'_>) {
    let one = 1u64;
    // SAFETY: eight bytes, readable during the call. It fails only where the counter is full, and so readable already.
    unsafe { libc::syscall(libc::SYS_write, event.as_raw_fd(), &raw const one, 8usize) };
}

/// The counter, which is zero from then on.
pub(super) fn take_event(event: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count = 0u64;
    // SAFETY: eight bytes, writable during the call.
    let got = unsafe { libc::read(event.as_raw_fd(), (&raw mut count).cast(), 8) };
    match got {
        8 => Ok(count),
        _ if errno() == libc::EAGAIN => Ok(0),
        _ => Err(io::Error::last_os_error()),
    }
}
