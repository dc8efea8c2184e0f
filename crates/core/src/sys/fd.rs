//! File descriptors: open, read by lines through a fixed buffer, write without waiting for a reader.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A descriptor that is closed when dropped.
pub struct Fd(i32);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this value owns the descriptor, which nobody uses after it.
        unsafe { libc::close(self.0) };
    }
}

/// `errno` of the last failed call in this thread.
pub fn errno() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    let here = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own errno, valid as long as the thread lives.
    unsafe { *here }
}

/// Puts `errno` back, for functions that run where the program does not expect one to.
pub fn set_errno(value: i32) {
    // SAFETY: takes nothing and cannot fail.
    let here = unsafe { libc::__errno_location() };
    // SAFETY: this thread's own errno, valid as long as the thread lives.
    unsafe { *here = value };
}

pub fn open(path: &CStr, flags: i32) -> Option<Fd> {
    // SAFETY: the path is a C string that outlives the call; the mode is read only with O_CREAT.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644) };
    if fd < 0 { None } else { Some(Fd(fd)) }
}

/// Opens a file of the kernel's for reading.
pub fn open_to_read(path: &CStr) -> Option<Fd> {
    open(path, libc::O_RDONLY)
}

/// Opens or makes a file to append to. A FIFO without a reader and a terminal that hung up do not block.
pub fn open_to_append(path: &CStr) -> Option<Fd> {
    open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY | libc::O_NONBLOCK)
}

impl Fd {
    /// Takes over a descriptor that the kernel has just made, and that nobody else knows. `None`: it has not.
    pub fn own(number: i32) -> Option<Fd> {
        (number >= 0).then_some(Fd(number))
    }

    pub fn number(&self) -> i32 {
        self.0
    }

    /// Fills `buffer` from the start of the file; how many bytes came.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        loop {
            // SAFETY: the buffer is writable for its whole length during the call.
            let got = unsafe { libc::read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
            if got < 0 && errno() == libc::EINTR {
                continue;
            }
            return usize::try_from(got).unwrap_or(0);
        }
    }

    /// Its number, which whoever has it closes from now on.
    pub fn into_number(self) -> i32 {
        let number = self.0;
        core::mem::forget(self);
        number
    }

    /// Fills `buffer` from the start of the file, whatever was read before; how many bytes came.
    pub fn read_at_start(&self, buffer: &mut [u8]) -> usize {
        // SAFETY: the buffer is writable for its whole length during the call.
        let got = unsafe { libc::pread(self.0, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(got).unwrap_or(0)
    }
}

/// Closes descriptor `fd`, whoever owns it: for a dying process that needs a free number.
pub fn close_number(fd: i32) {
    // SAFETY: closing a number is always defined for the kernel; the caller is about to `_exit`.
    unsafe { libc::close(fd) };
}

/// Whether `fd` can be written to: open, and not read-only.
pub fn is_writable(fd: i32) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && (flags & libc::O_ACCMODE) != libc::O_RDONLY
}

/// What a descriptor refers to, so that a reused number is noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Device and inode.
    pub fn numbers(self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// fstat(2), by the call itself: before 2.33 glibc had no function of this name.
pub fn stat_of(fd: i32) -> Option<libc::stat> {
    // SAFETY: all-zero is a valid `stat`, a struct of integers.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    let arguments = [fd as usize, (&raw mut stat) as usize, 0, 0, 0, 0];
    // SAFETY: `stat` is writable during the call, and is what the kernel fills on these processors.
    (unsafe { super::raw::call_with_errno(libc::SYS_fstat, arguments) } == 0).then_some(stat)
}

/// stat(2), likewise.
pub fn stat_of_path(path: &CStr) -> Option<libc::stat> {
    // SAFETY: all-zero is a valid `stat`, a struct of integers.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, (&raw mut stat) as usize, 0, 0, 0];
    // SAFETY: the path is a C string, and `stat` writable, during the call.
    (unsafe { super::raw::call_with_errno(libc::SYS_newfstatat, arguments) } == 0).then_some(stat)
}

pub fn file_id(fd: i32) -> Option<FileId> {
    let stat = stat_of(fd)?;
    Some(FileId { device: stat.st_dev, inode: stat.st_ino })
}

/// Whether this process may read the file: faccessat(2), by the rights that it acts with.
pub fn can_read(path: &CStr) -> bool {
    may(path, libc::R_OK)
}

fn may(path: &CStr, mode: i32) -> bool {
    // SAFETY: the path is a C string that outlives the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) == 0 }
}

/// Whether `path` can be appended to by this process: it is a writable file, or can be made.
pub fn can_append(path: &CStr, directory: &CStr) -> bool {
    if may(path, libc::F_OK) {
        // A directory passes W_OK, but cannot be appended to; opening tells, and changes nothing.
        return may(path, libc::W_OK)
            && open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_NOCTTY | libc::O_NONBLOCK)
                .map_or_else(|| errno() == libc::ENXIO, |_| true);
    }
    may(directory, libc::W_OK | libc::X_OK)
}

/// Writes the current directory into `buffer`; its length without the NUL.
pub fn current_directory(buffer: &mut [u8]) -> Option<usize> {
    // The raw call: the library's getcwd may allocate. It returns the length with the NUL.
    // SAFETY: the buffer is writable for its whole length during the call.
    let len = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    // A directory outside the root shows as "(unreachable)…".
    match usize::try_from(len) {
        Ok(len) if len > 0 && buffer.first() == Some(&b'/') => Some(len - 1),
        _ => None,
    }
}

/// Whether a `write(2)` to `fd` would not wait now.
pub fn can_be_written(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, writable during the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

/// Writes `bytes` with one `write(2)` if that is possible without waiting longer than `patience_ms` for a reader.
/// Short writes are finished under the same patience. Where that does not work, `errno` says why: ETIMEDOUT for a reader
/// that does not read, EPIPE for none.
pub fn write_patiently(fd: i32, bytes: &[u8], patience_ms: i32) -> bool {
    // SAFETY: a slice, which is there for the length of the call.
    unsafe { write_memory_patiently(fd, bytes.as_ptr(), bytes.len(), patience_ms) }
}

/// The same for memory that others may be changing meanwhile, which no slice may refer to: only the kernel reads it.
///
/// # Safety
/// `len` bytes from `start` stay mapped and readable during the call.
pub unsafe fn write_memory_patiently(fd: i32, start: *const u8, len: usize, patience_ms: i32) -> bool {
    let mut written = 0;
    while written < len {
        let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd, writable during the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, patience_ms) };
        if ready <= 0 || poll.revents & (libc::POLLERR | libc::POLLNVAL) != 0 {
            // POLLERR: a pipe without a reader, where writing would be SIGPIPE.
            match ready {
                0 => set_errno(libc::ETIMEDOUT),
                1.. => set_errno(if poll.revents & libc::POLLNVAL != 0 { libc::EBADF } else { libc::EPIPE }),
                _ => {}
            }
            return false;
        }
        // The raw call, not the library's function: `write` may be the one that this crate interposes, and is a
        // cancellation point, where a thread that was cancelled would begin to unwind.
        // SAFETY: the rest is readable, by contract.
        let wrote = unsafe { libc::syscall(libc::SYS_write, fd, start.wrapping_add(written), len - written) };
        match usize::try_from(wrote) {
            Ok(wrote) => written += wrote,
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    true
}

/// Reads a file line by line through a buffer of `N` bytes. A longer line comes in its first `N` bytes; its rest is
/// skipped.
pub struct Lines<const N: usize> {
    fd: Fd,
    buffer: [u8; N],
    start: usize,
    end: usize,
    skipping: bool,
}

/// How many bytes were read of files by their lines. Relaxed: a number that stands by itself.
static LINES_BYTES: AtomicU64 = AtomicU64::new(0);

pub fn bytes_of_lines() -> u64 {
    LINES_BYTES.load(Relaxed)
}

impl<const N: usize> Lines<N> {
    pub fn open(path: &CStr) -> Option<Self> {
        Some(Lines { fd: open_to_read(path)?, buffer: [0; N], start: 0, end: 0, skipping: false })
    }

    /// The next line without its newline.
    pub fn next(&mut self) -> Option<&[u8]> {
        loop {
            let pending = self.buffer.get(self.start..self.end)?;
            if let Some(len) = pending.iter().position(|byte| *byte == b'\n') {
                let from = self.start;
                self.start += len + 1;
                if core::mem::take(&mut self.skipping) {
                    continue;
                }
                return self.buffer.get(from..from + len);
            }
            let len = pending.len();
            if len == N {
                let first_part = !core::mem::replace(&mut self.skipping, true);
                (self.start, self.end) = (0, 0);
                if first_part {
                    return Some(&self.buffer);
                }
                continue;
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, len);
            let got = self.fd.read(self.buffer.get_mut(len..)?);
            LINES_BYTES.fetch_add(got as u64, Relaxed);
            if got == 0 {
                self.start = self.end;
                if len == 0 || core::mem::take(&mut self.skipping) {
                    return None;
                }
                return self.buffer.get(..len);
            }
            self.end += got;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn lines_of<const N: usize>(content: &[u8]) -> Vec<String> {
        let path =
            std::env::temp_dir().join(format!("oomguard-lines-{}-{N}-{}", std::process::id(), content.len()));
        std::fs::write(&path, content).unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let mut lines = Lines::<N>::open(&name).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next() {
            all.push(String::from_utf8_lossy(line).into_owned());
        }
        std::fs::remove_file(&path).unwrap();
        all
    }

    #[test]
    fn lines_come_whole_whatever_the_buffer() {
        let content = b"one\n\ntwo\nthree";
        assert_eq!(lines_of::<6>(content), ["one", "", "two", "three"]);
        assert_eq!(lines_of::<64>(content), ["one", "", "two", "three"]);
        assert!(lines_of::<64>(b"").is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        assert_eq!(lines_of::<4>(b"0123456789abc\nend\n"), ["0123", "end"]);
        assert_eq!(lines_of::<4>(b"x\n0123456789"), ["x", "0123"]);
    }
}
