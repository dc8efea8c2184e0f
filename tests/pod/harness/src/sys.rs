//! The one system call that the standard library has no word for.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a file system offers.
pub struct Room {
    pub free_bytes: u64,
    pub noexec: bool,
}

pub fn room_in(directory: &Path) -> io::Result<Room> {
    let name = CString::new(directory.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` is NUL-terminated, `found` has room for the one struct written.
    if unsafe { libc::statvfs(name.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the struct.
    let found = unsafe { found.assume_init() };
    Ok(Room { free_bytes: found.f_bavail * found.f_frsize, noexec: found.f_flag & libc::ST_NOEXEC != 0 })
}
