//! What the program has read since something was refused: words about memory that it only passes on are another program's.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use oomguard_core::message::{Message, is_passed_on};
use oomguard_core::sys;
use oomguard_engine::real::Real;
use oomguard_engine::{call_real, notes};

static READ: Real = Real::new(c"read");
static READ_CHK: Real = Real::new(c"__read_chk");
static READV: Real = Real::new(c"readv");
static RECV: Real = Real::new(c"recv");
static RECVFROM: Real = Real::new(c"recvfrom");
static RECVMSG: Real = Real::new(c"recvmsg");
/// glibc's streams, in a list: what is read by them never passes `read`.
static STREAMS: Real = Real::new(c"_IO_list_all");

pub(super) fn resolve() {
    for real in [&READ, &READ_CHK, &READV, &RECV, &RECVFROM, &RECVMSG, &STREAMS] {
        let _ = real.address();
    }
}

/// read(2).
///
/// # Safety
/// That of read(2).
#[inline]
pub unsafe fn read(fd: c_int, to: *mut c_void, len: usize) -> isize {
    let got = match call_real!(READ, unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, to, len) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_read, fd, to, len) as isize },
    };
    note(to, len, got);
    got
}

/// recv(2).
///
/// # Safety
/// That of recv(2).
pub unsafe fn recv(fd: c_int, to: *mut c_void, len: usize, flags: c_int) -> isize {
    let got = match call_real!(RECV, unsafe extern "C" fn(c_int, *mut c_void, usize, c_int) -> isize) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, to, len, flags) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_recvfrom, fd, to, len, flags, 0, 0) as isize },
    };
    note(to, len, got);
    got
}

/// read(2), of a program that was compiled to check whether there is room: `room` bytes.
///
/// # Safety
/// That of read(2).
pub unsafe fn read_chk(fd: c_int, to: *mut c_void, len: usize, room: usize) -> isize {
    type ReadChk = unsafe extern "C" fn(c_int, *mut c_void, usize, usize) -> isize;
    let got = match call_real!(READ_CHK, ReadChk) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, to, len, room) },
        // SAFETY: the system call behind it, for no more than there is room for.
        None => unsafe { libc::syscall(libc::SYS_read, fd, to, len.min(room)) as isize },
    };
    note(to, len, got);
    got
}

/// readv(2).
///
/// # Safety
/// That of readv(2).
pub unsafe fn readv(fd: c_int, parts: *const libc::iovec, count: c_int) -> isize {
    let got = match call_real!(READV, unsafe extern "C" fn(c_int, *const libc::iovec, c_int) -> isize) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, parts, count) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_readv, fd, parts, count) as isize },
    };
    note_parts(parts, count as usize, got);
    got
}

/// recvfrom(2).
///
/// # Safety
/// That of recvfrom(2).
pub unsafe fn recvfrom(
    fd: c_int,
    to: *mut c_void,
    len: usize,
    flags: c_int,
    from: *mut c_void,
    from_len: *mut c_void,
) -> isize {
    type Recvfrom = unsafe extern "C" fn(c_int, *mut c_void, usize, c_int, *mut c_void, *mut c_void) -> isize;
    let got = match call_real!(RECVFROM, Recvfrom) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, to, len, flags, from, from_len) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_recvfrom, fd, to, len, flags, from, from_len) as isize },
    };
    note(to, len, got);
    got
}

/// recvmsg(2).
///
/// # Safety
/// That of recvmsg(2).
pub unsafe fn recvmsg(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> isize {
    let got = match call_real!(RECVMSG, unsafe extern "C" fn(c_int, *mut libc::msghdr, c_int) -> isize) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, message, flags) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_recvmsg, fd, message, flags) as isize },
    };
    if got > 0 {
        // SAFETY: the kernel has just read it, and written what came.
        let message = unsafe { &*message };
        note_parts(message.msg_iov, message.msg_iovlen as _, got);
    }
    got
}

fn note_parts(parts: *const libc::iovec, count: usize, got: isize) {
    const MOST_PARTS: usize = 16;
    if got <= 0 || !notes::may_be_spoken_of() {
        return;
    }
    let mut left = got.unsigned_abs();
    for index in 0..count.min(MOST_PARTS) {
        // SAFETY: the kernel has just read `count` of them there.
        let part = unsafe { parts.wrapping_add(index).read_unaligned() };
        let len = part.iov_len.min(left);
        note(part.iov_base, len, len as isize);
        left -= len;
    }
}

/// What tells how much came may tell of more than there is room for: MSG_TRUNC in recv(2).
#[inline]
fn note(at: *const c_void, len: usize, got: isize) {
    if got > 0 && len > 0 && notes::may_be_spoken_of() {
        // SAFETY: the kernel has just written so much there.
        keep(unsafe { core::slice::from_raw_parts(at.cast(), len.min(got.unsigned_abs())) });
    }
}

/// What was read last, and before, each from the beginning.
struct Kept {
    texts: [[u8; MOST_BYTES]; 2],
    lens: [usize; 2],
    /// Which one is the last.
    last: usize,
}

const MOST_BYTES: usize = 2048;

impl Kept {
    fn push(&mut self, text: &[u8]) {
        let text = text.get(..MOST_BYTES).unwrap_or(text);
        if self.lens[self.last & 1] + text.len() > MOST_BYTES {
            self.last ^= 1;
            self.lens[self.last & 1] = 0;
        }
        let Kept { texts: [one, other], lens: [one_len, other_len], last } = self;
        let (kept, len) = if *last & 1 == 0 { (one, one_len) } else { (other, other_len) };
        if let Some(room) = kept.get_mut(*len..*len + text.len()) {
            room.copy_from_slice(text);
            *len += text.len();
        }
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter().zip(self.lens).map(|(text, len)| text.get(..len).unwrap_or(&[]))
    }
}

struct Shared(UnsafeCell<Kept>);

// SAFETY: used by the one thread that has set `IS_INSIDE`.
unsafe impl Sync for Shared {}

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static KEPT: Shared = Shared(UnsafeCell::new(Kept { texts: [[0; MOST_BYTES]; 2], lens: [0; 2], last: 0 }));
/// A thread is at it. Not with the process's number, as elsewhere: it would take a system call for all that is read.
static IS_INSIDE: AtomicBool = AtomicBool::new(false);

/// Calls that with what was read, unless another thread is at it: what two read at once goes unheard, as does what a handler reads
/// for a signal that has come in here.
fn with_kept<T>(call: impl FnOnce(&mut Kept) -> T) -> Option<T> {
    // Acquire: pairs with the Release below.
    if IS_INSIDE.swap(true, Acquire) {
        return None;
    }
    // SAFETY: one thread at a time, by `IS_INSIDE`.
    let result = call(unsafe { &mut *KEPT.0.get() });
    // Release: what this thread did there comes before what the next one does.
    IS_INSIDE.store(false, Release);
    Some(result)
}

/// The thread that was at it is not in a child of fork(2).
pub(super) fn begin_in_child() {
    // Relaxed: there is one thread.
    IS_INSIDE.store(false, Relaxed);
}

#[cold]
fn keep(text: &[u8]) {
    let _ = with_kept(|kept| kept.push(text));
}

/// Whether all that is said here of memory being gone are lines that were read.
#[cold]
pub(super) fn has(message: &[u8]) -> bool {
    is_passed_on(
        message,
        |line| Message::of(line) == Some(Message::OutOfMemory),
        |is_it| with_kept(|kept| kept.texts().any(&mut *is_it)).unwrap_or(false) || is_in_stream(is_it),
    )
}

/// Whether it is in what a stream of glibc's has read last.
fn is_in_stream(is_it: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    const MOST_STREAMS: u32 = 64;
    let Some(list) = STREAMS.address() else { return false };
    // SAFETY: a variable of the C library's own.
    let mut at = unsafe { (list as *const usize).read() };
    for _ in 0..MOST_STREAMS {
        let Some((text, next)) = text_of(at) else { break };
        if is_it(text) {
            return true;
        }
        at = next;
    }
    false
}

/// A stream is about to be closed, and what it has read is gone then.
pub(super) fn note_stream(stream: *const libc::FILE) {
    if notes::may_be_spoken_of()
        && STREAMS.address().is_some()
        && let Some((text, _)) = text_of(stream as usize)
    {
        keep(text);
    }
}

/// What the stream of glibc's has read, as far as it still has it, and the next stream.
fn text_of<'a>(stream: usize) -> Option<(&'a [u8], usize)> {
    /// The beginning of `struct _IO_FILE`, as far as the pointer to the next one.
    const WORDS: usize = 14;
    const PAGE: usize = 4096;
    // SAFETY: a stream that another thread closes meanwhile stays mapped, as a small block does.
    let stream = unsafe { sys::memory::readable(stream, 8 * WORDS, 8 * WORDS) }?;
    let word = |index: usize| {
        let bytes = stream.as_chunks::<8>().0.get(index);
        bytes.map_or(0, |bytes| usize::from_ne_bytes(*bytes))
    };
    // Up to where it has been read.
    let (end, base) = (word(1), word(3));
    let len = end.saturating_sub(base).min(PAGE);
    // SAFETY: as above.
    let text = unsafe { sys::memory::readable(end.wrapping_sub(len), len, PAGE) };
    Some((text.unwrap_or(&[]), word(13)))
}
