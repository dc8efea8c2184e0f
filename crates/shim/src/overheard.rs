//! What the program has read since something was refused: words about memory that it only passes on are another program's.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use oomguard_core::message::{Message, is_passed_on};
use oomguard_core::sys;
use oomguard_engine::real::Real;
use oomguard_engine::{call_real, notes};

static READ: Real = Real::new(c"read");
static READ_CHK: Real = Real::new(c"__read_chk");
static READV: Real = Real::new(c"readv");
static PREAD: Real = Real::new(c"pread");
static PREAD_CHK: Real = Real::new(c"__pread64_chk");
static PREADV: Real = Real::new(c"preadv");
static RECV: Real = Real::new(c"recv");
static RECVFROM: Real = Real::new(c"recvfrom");
static RECVMSG: Real = Real::new(c"recvmsg");
static FREAD: Real = Real::new(c"fread");
static FREAD_UNLOCKED: Real = Real::new(c"fread_unlocked");
static FREAD_CHK: Real = Real::new(c"__fread_chk");
static FCLOSE: Real = Real::new(c"fclose");
/// glibc's streams, in a list: what is read by them never passes `read`.
static STREAMS: Real = Real::new(c"_IO_list_all");

pub(super) fn resolve() {
    let reads = [&READ, &READ_CHK, &READV, &PREAD, &PREAD_CHK, &PREADV, &RECV, &RECVFROM, &RECVMSG];
    let of_streams = [&FREAD, &FREAD_UNLOCKED, &FREAD_CHK, &FCLOSE, &STREAMS];
    for real in reads.into_iter().chain(of_streams) {
        let _ = real.address();
    }
}

/// What takes a descriptor, an address, and up to four more words: of one that takes fewer, the others are in registers that it
/// does not look at.
type Call = unsafe extern "C" fn(c_int, *mut c_void, usize, usize, usize, usize) -> isize;

/// The C library's function, or the system call behind it.
///
/// # Safety
/// Its own.
#[inline(never)]
unsafe fn call(real: &Real, number: c_long, fd: c_int, at: *mut c_void, rest: [usize; 4]) -> isize {
    let [third, fourth, fifth, sixth] = rest;
    match call_real!(real, Call) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, at, third, fourth, fifth, sixth) },
        // SAFETY: as above.
        None => unsafe { libc::syscall(number, fd, at, third, fourth, fifth, sixth) as isize },
    }
}

/// # Safety
/// That of the function that it calls.
#[inline(never)]
unsafe fn read_by(real: &Real, number: c_long, fd: c_int, to: *mut c_void, rest: [usize; 4]) -> isize {
    // SAFETY: by contract.
    let got = unsafe { call(real, number, fd, to, rest) };
    note(to, rest[0], got);
    got
}

/// read(2).
///
/// # Safety
/// That of read(2).
pub unsafe fn read(fd: c_int, to: *mut c_void, len: usize) -> isize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { read_by(&READ, libc::SYS_read, fd, to, [len, 0, 0, 0]) }
}

/// read(2), of a program that was compiled to check whether there is room: `room` bytes.
///
/// # Safety
/// That of read(2).
pub unsafe fn read_chk(fd: c_int, to: *mut c_void, len: usize, room: usize) -> isize {
    // In a static program the system call behind it does not look for room.
    let len = if READ_CHK.address().is_some() { len } else { len.min(room) };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { read_by(&READ_CHK, libc::SYS_read, fd, to, [len, room, 0, 0]) }
}

/// pread(2), likewise.
///
/// # Safety
/// That of pread(2).
pub unsafe fn pread_chk(fd: c_int, to: *mut c_void, len: usize, offset: usize, room: usize) -> isize {
    let len = if PREAD_CHK.address().is_some() { len } else { len.min(room) };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { read_by(&PREAD_CHK, libc::SYS_pread64, fd, to, [len, offset, room, 0]) }
}

/// pread(2).
///
/// # Safety
/// That of pread(2).
pub unsafe fn pread(fd: c_int, to: *mut c_void, len: usize, offset: usize) -> isize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { read_by(&PREAD, libc::SYS_pread64, fd, to, [len, offset, 0, 0]) }
}

/// recv(2).
///
/// # Safety
/// That of recv(2).
pub unsafe fn recv(fd: c_int, to: *mut c_void, len: usize, flags: c_int) -> isize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { read_by(&RECV, libc::SYS_recvfrom, fd, to, [len, flags as usize, 0, 0]) }
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
    from: usize,
    from_len: usize,
) -> isize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { read_by(&RECVFROM, libc::SYS_recvfrom, fd, to, [len, flags as usize, from, from_len]) }
}

/// readv(2).
///
/// # Safety
/// That of readv(2).
pub unsafe fn readv(fd: c_int, parts: *mut c_void, count: c_int) -> isize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let got = unsafe { call(&READV, libc::SYS_readv, fd, parts, [count as usize, 0, 0, 0]) };
    note_parts(parts.cast(), count as usize, got);
    got
}

/// preadv(2).
///
/// # Safety
/// That of preadv(2).
pub unsafe fn preadv(fd: c_int, parts: *mut c_void, count: c_int, offset: usize) -> isize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let got = unsafe { call(&PREADV, libc::SYS_preadv, fd, parts, [count as usize, offset, 0, 0]) };
    note_parts(parts.cast(), count as usize, got);
    got
}

/// recvmsg(2).
///
/// # Safety
/// That of recvmsg(2).
pub unsafe fn recvmsg(fd: c_int, message: *mut c_void, flags: c_int) -> isize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let got = unsafe { call(&RECVMSG, libc::SYS_recvmsg, fd, message, [flags as usize, 0, 0, 0]) };
    if got > 0 {
        // SAFETY: the kernel has just read it, and written what came.
        let message = unsafe { &*message.cast::<libc::msghdr>() };
        note_parts(message.msg_iov, message.msg_iovlen as _, got);
    }
    got
}

/// glibc's other names for the same functions: see `streams`.
mod other_name {
    use super::c_void;

    unsafe extern "C" {
        pub(super) fn _IO_fread(to: *mut c_void, size: usize, number: usize, stream: *mut c_void) -> usize;
        pub(super) fn _IO_fclose(stream: *mut c_void) -> core::ffi::c_int;
    }
}

/// fread(3). What is larger than the stream's buffer never comes there.
///
/// # Safety
/// That of fread(3).
pub unsafe fn fread(to: *mut c_void, size: usize, number: usize, stream: *mut c_void) -> usize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { fread_by(&FREAD, to, size, number, stream) }
}

/// fread_unlocked(3).
///
/// # Safety
/// That of fread_unlocked(3).
pub unsafe fn fread_unlocked(to: *mut c_void, size: usize, number: usize, stream: *mut c_void) -> usize {
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { fread_by(&FREAD_UNLOCKED, to, size, number, stream) }
}

/// # Safety
/// That of fread(3).
#[inline(never)]
unsafe fn fread_by(real: &Real, to: *mut c_void, size: usize, number: usize, stream: *mut c_void) -> usize {
    type Fread = unsafe extern "C" fn(*mut c_void, usize, usize, *mut c_void) -> usize;
    let real = call_real!(real, Fread).unwrap_or(other_name::_IO_fread);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    note_items(to, size, unsafe { real(to, size, number, stream) })
}

/// fread(3), of a program that was compiled to check whether there is room: `room` bytes.
///
/// # Safety
/// That of fread(3).
pub unsafe fn fread_chk(
    to: *mut c_void,
    room: usize,
    size: usize,
    number: usize,
    stream: *mut c_void,
) -> usize {
    type FreadChk = unsafe extern "C" fn(*mut c_void, usize, usize, usize, *mut c_void) -> usize;
    match call_real!(FREAD_CHK, FreadChk) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => note_items(to, size, unsafe { real(to, room, size, number, stream) }),
        // SAFETY: as above, for no more than there is room for.
        None => unsafe { fread(to, size, number.min(room / size.max(1)), stream) },
    }
}

#[inline(always)]
fn note_items(at: *const c_void, size: usize, got: usize) -> usize {
    let len = size.wrapping_mul(got);
    note(at, len, len.cast_signed());
    got
}

/// fclose(3).
///
/// # Safety
/// That of fclose(3).
pub unsafe fn fclose(stream: *mut c_void) -> c_int {
    note_stream(stream);
    let real = call_real!(FCLOSE, unsafe extern "C" fn(*mut c_void) -> c_int);
    // SAFETY: the argument is the caller's, whose contract is the same.
    unsafe { real.unwrap_or(other_name::_IO_fclose)(stream) }
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
pub(super) fn note_stream(stream: *const c_void) {
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
