//! File descriptors: open, read by lines through a fixed buffer, write without waiting for a reader.
//!
//! Opened, read and closed by the system calls themselves: the C library's functions are cancellation points, and a thread that
//! pthread_cancel(3) ends must not end in the midst of a malloc, or with what it has claimed.

use super::clock::monotonic_ms;
use super::errno::{errno, set_errno};
use super::raw;
use crate::text::position;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A descriptor that is closed when dropped.
pub struct Fd(i32);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this value owns the descriptor, which nobody uses after it.
        unsafe { raw::call(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

pub fn open(path: &CStr, flags: i32) -> Option<Fd> {
    let flags = (flags | libc::O_CLOEXEC | libc::O_LARGEFILE) as usize;
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0o644, 0, 0];
    // SAFETY: the path is a C string that outlives the call; the mode is read only with O_CREAT.
    let fd = unsafe { raw::call_with_errno(libc::SYS_openat, arguments) };
    Fd::own(fd as i32)
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
            let got = unsafe { raw::read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
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
        self.read_at(buffer, 0)
    }

    /// The same from `offset` bytes on.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let Ok(offset) = libc::off_t::try_from(offset) else { return 0 };
        // SAFETY: the buffer is writable for its whole length during the call.
        let got = unsafe { raw::pread(self.0, buffer.as_mut_ptr().cast(), buffer.len(), offset) };
        usize::try_from(got).unwrap_or(0)
    }
}

/// Closes descriptor `fd`, whoever owns it: for a dying process that needs a free number.
pub fn close_number(fd: i32) {
    // SAFETY: closing a number is always defined for the kernel; the caller is about to `_exit`.
    unsafe { raw::close(fd) };
}

/// Whether `fd` can be written to: open, and not read-only.
pub fn is_writable(fd: i32) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { raw::fcntl(fd, libc::F_GETFL) };
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

/// A file that is kept in memory alone.
pub struct KeptInMemory {
    pub bytes: u64,
    /// What of it is there.
    pub in_use: u64,
    /// Its device and its number there: those of no other one.
    pub id: (u64, u64),
}

impl KeptInMemory {
    /// How much more is in use once all of these bytes are there: whoever shares them has none of his own.
    pub fn more_with(&self, offset: u64, bytes: u64) -> u64 {
        bytes.min(offset.saturating_add(bytes).saturating_sub(self.in_use))
    }

    /// The same of a mapping, which shows what the file has.
    pub fn more_mapped(&self, offset: u64, bytes: u64) -> u64 {
        self.more_with(offset, bytes.min(self.bytes.saturating_sub(offset)))
    }
}

/// Whether a file is one: of memfd_create(2), shm_open(3), or in a tmpfs. `None`: it is not.
pub fn kept_in_memory(fd: i32) -> Option<KeptInMemory> {
    kept_in_memory_by(libc::SYS_fstatfs, fd as usize, || stat_of(fd))
}

/// The same of a descriptor of process `pid`.
pub fn kept_in_memory_of(pid: u32, fd: i32) -> Option<KeptInMemory> {
    let mut path = crate::text::Text::<48>::new();
    path.push("/proc/");
    path.push_number(pid.into());
    path.push("/fd/");
    path.push_number(u64::try_from(fd).ok()?);
    path.push("\0");
    let path = CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
    kept_in_memory_by(libc::SYS_statfs, path.as_ptr() as usize, || stat_of_path(path))
}

fn kept_in_memory_by(
    call: libc::c_long,
    file: usize,
    stat: impl FnOnce() -> Option<libc::stat>,
) -> Option<KeptInMemory> {
    const BLOCK_BYTES: u64 = 512;
    // SAFETY: all-zero is a valid `statfs`, a struct of integers.
    let mut system: libc::statfs = unsafe { core::mem::zeroed() };
    let arguments = [file, (&raw mut system) as usize, 0, 0, 0, 0];
    // SAFETY: `file` is a descriptor or a path as the call takes it, and `system` is writable during the call.
    let is_told = unsafe { raw::call(call, arguments) } == 0;
    // The two have other types in other C libraries.
    if !is_told || system.f_type as u64 != libc::TMPFS_MAGIC as u64 {
        return None;
    }
    let file = stat()?;
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    Some(KeptInMemory {
        bytes: positive(file.st_size),
        in_use: positive(file.st_blocks).saturating_mul(BLOCK_BYTES),
        id: (file.st_dev, file.st_ino),
    })
}

/// fstat(2), by the call itself: before 2.33 glibc had no function of this name.
pub fn stat_of(fd: i32) -> Option<libc::stat> {
    // SAFETY: all-zero is a valid `stat`, a struct of integers.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    let arguments = [fd as usize, (&raw mut stat) as usize, 0, 0, 0, 0];
    // SAFETY: `stat` is writable during the call, and is what the kernel fills on these processors.
    (unsafe { raw::call_with_errno(libc::SYS_fstat, arguments) } == 0).then_some(stat)
}

/// Whether what is written there is not even read: `/dev/null` and `/dev/zero`, null(4), take any address.
pub fn takes_unread(fd: i32) -> bool {
    const MEMORY_DEVICES: u32 = 1;
    stat_of(fd).is_some_and(|stat| {
        stat.st_mode & libc::S_IFMT == libc::S_IFCHR
            && libc::major(stat.st_rdev) == MEMORY_DEVICES
            && matches!(libc::minor(stat.st_rdev), 3 | 5)
    })
}

/// stat(2), likewise.
pub fn stat_of_path(path: &CStr) -> Option<libc::stat> {
    // SAFETY: all-zero is a valid `stat`, a struct of integers.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, (&raw mut stat) as usize, 0, 0, 0];
    // SAFETY: the path is a C string, and `stat` writable, during the call.
    (unsafe { raw::call_with_errno(libc::SYS_newfstatat, arguments) } == 0).then_some(stat)
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
        // A directory passes W_OK, but cannot be appended to; opening tells. Who reads a pipe would take the closing for its end.
        let is_pipe = stat_of_path(path).is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO);
        return may(path, libc::W_OK)
            && (is_pipe
                || open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_NOCTTY | libc::O_NONBLOCK)
                    .map_or_else(|| errno() == libc::ENXIO, |_| true));
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
    let ready = unsafe { raw::poll(&raw mut poll, 1, 0) };
    ready > 0 || ready < 0 && errno() == MAY_NOT_POLL && select_for_writing(fd, 0) > 0
}

/// What poll(2) says where RLIMIT_NOFILE is zero, whatever is open: some lock themselves in like that.
const MAY_NOT_POLL: i32 = libc::EINVAL;

/// Sends a few bytes to a socket that nothing else waits in. Without SIGPIPE where the other side has gone away: this process may be
/// a program that knows nothing of it.
pub fn send(socket: i32, bytes: &[u8]) -> bool {
    loop {
        // SAFETY: the bytes are readable during the call, and no address is given. The raw call, for the reason below.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_sendto,
                socket,
                bytes.as_ptr(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
                core::ptr::null::<libc::sockaddr>(),
                0,
            )
        };
        if sent >= 0 || errno() != libc::EINTR {
            return usize::try_from(sent) == Ok(bytes.len());
        }
    }
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
        if !wait_for_reader(fd, patience_ms) {
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

/// Whether `fd` can be written to within `patience_ms`, whatever signals come meanwhile; where not, `errno` says why.
fn wait_for_reader(fd: i32, patience_ms: i32) -> bool {
    let until_ms = monotonic_ms() + u64::from(patience_ms.unsigned_abs());
    loop {
        let left_ms = until_ms.saturating_sub(monotonic_ms()) as i32;
        let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one pollfd, writable during the call.
        let error = match unsafe { raw::poll(&raw mut poll, 1, left_ms) } {
            0 => libc::ETIMEDOUT,
            1.. if poll.revents & libc::POLLNVAL != 0 => libc::EBADF,
            // A pipe without a reader, where writing would be SIGPIPE.
            1.. if poll.revents & libc::POLLERR != 0 => libc::EPIPE,
            1.. => return true,
            // Whoever has no time left is not interrupted.
            _ if errno() == libc::EINTR => continue,
            _ if errno() == MAY_NOT_POLL => match select_for_writing(fd, left_ms) {
                0 => libc::ETIMEDOUT,
                1.. => return true,
                _ if errno() == libc::EINTR => continue,
                _ => errno(),
            },
            _ => errno(),
        };
        set_errno(error);
        return false;
    }
}

/// select(2), for which no limit on descriptors matters; it does not tell of a pipe without a reader.
fn select_for_writing(fd: i32, left_ms: i32) -> i32 {
    if usize::try_from(fd).map_or(true, |fd| fd >= libc::FD_SETSIZE) {
        set_errno(libc::EBADF);
        return -1;
    }
    // SAFETY: all-zero is an empty set, an array of integers.
    let mut set: libc::fd_set = unsafe { core::mem::zeroed() };
    // SAFETY: the set has room for numbers below FD_SETSIZE.
    unsafe { libc::FD_SET(fd, &raw mut set) };
    let mut left = libc::timeval { tv_sec: (left_ms / 1000).into(), tv_usec: (left_ms % 1000 * 1000).into() };
    let null = core::ptr::null_mut();
    // SAFETY: the set and the time are writable during the call.
    unsafe { libc::select(fd + 1, null, &raw mut set, null, &raw mut left) }
}

/// Reads a file line by line through a buffer: whoever opens it lends that, as in an unoptimized program each one who passes it on would
/// copy it, and a signal handler's stack has no room for that. A longer line comes in its first bytes; its rest is skipped.
pub struct Lines<'a> {
    fd: Fd,
    start: usize,
    end: usize,
    skipping: bool,
    buffer: &'a mut [u8],
}

/// How many bytes were read of files by their lines. Relaxed: a number that stands by itself.
static LINES_BYTES: AtomicU64 = AtomicU64::new(0);

pub fn bytes_of_lines() -> u64 {
    LINES_BYTES.load(Relaxed)
}

impl<'a> Lines<'a> {
    pub fn open(path: &CStr, buffer: &'a mut [u8]) -> Option<Self> {
        Some(Lines { fd: open_to_read(path)?, start: 0, end: 0, skipping: false, buffer })
    }

    /// The next line without its newline.
    pub fn next(&mut self) -> Option<&[u8]> {
        loop {
            let pending = self.buffer.get(self.start..self.end)?;
            if let Some(len) = position(pending, b'\n') {
                let from = self.start;
                self.start += len + 1;
                if core::mem::take(&mut self.skipping) {
                    continue;
                }
                return self.buffer.get(from..from + len);
            }
            let len = pending.len();
            if len == self.buffer.len() {
                let first_part = !core::mem::replace(&mut self.skipping, true);
                (self.start, self.end) = (0, 0);
                if first_part {
                    return Some(self.buffer);
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
        let mut buffer = [0; N];
        let mut lines = Lines::open(&name, &mut buffer).unwrap();
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
