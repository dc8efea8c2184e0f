//! Pages that two processes share, from the side that makes them: memfd_create(2).

use super::errno::errno;
use crate::record::{FILE_BYTES, HEAD_BYTES, Head, Place};
use core::ffi::CStr;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, pread, retry_on_intr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(crate) use oomguard_core::sys::memfd::*;

/// A new file of `bytes` zeros whose size is fixed for ever; closed on exec.
pub(crate) fn create_sealed(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    // Never to be executed, which hardened systems insist on; Linux before 6.3 does not know the flag.
    let fd = match memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING),
        made => made,
    }?;
    ftruncate(&fd, bytes as u64)?;
    fcntl_add_seals(&fd, SealFlags::from_bits_retain(SEALS.cast_unsigned()))?;
    Ok(fd)
}

/// The same descriptor, as the standard library has it.
pub(crate) fn owned(fd: super::fd::Fd) -> OwnedFd {
    // SAFETY: an open descriptor, which nobody else closes any more.
    unsafe { OwnedFd::from_raw_fd(fd.into_number()) }
}

/// The pages of a record that another process has made, mapped for good.
pub(crate) fn head_at(place: Place) -> Option<&'static Head> {
    let opened = match place.pid {
        Some(pid) => Some(record_of(pid, place.fd, place.inode, FILE_BYTES)?),
        None => None,
    };
    let fd = opened.as_ref().map_or(place.fd, super::fd::Fd::number);
    if sealed_inode(fd, FILE_BYTES) != Some(place.inode) {
        return None;
    }
    let at = map_for_ever(fd, HEAD_BYTES)?;
    // SAFETY: a mapping of the head's size that is never unmapped and, being sealed, cannot shrink; its words are atomics, so
    // that others may write to it.
    Some(unsafe { &*at.cast::<Head>() })
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

/// Whether anybody has written to a file of [`create_sealed`], or mapped and touched it. What was not is zero.
pub(crate) fn was_touched(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: lseek takes no pointer; nobody reads from where it leads.
    let found = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_DATA) };
    found >= 0 || errno() != libc::ENXIO
}

/// Reads from `offset` on, whatever the file's position.
pub(crate) fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: usize) -> io::Result<usize> {
    Ok(retry_on_intr(|| pread(fd, &mut *buffer, offset as u64))?)
}
