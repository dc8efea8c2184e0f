//! What a dying program says: `write` and `writev` to stdout and stderr, read once memory was refused. Nothing is kept
//! but what kind of message it was, and when.

use crate::contract::Evidence;
use crate::guard::armed::{Armed, armed};
use crate::guard::exhaustion::{self, Own};
use crate::guard::real::{Real, call_real};
use crate::guard::refusal;
use crate::guard::{judge, notes, record};
use crate::message::Message;
use crate::sys;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type Writev = unsafe extern "C" fn(c_int, *const libc::iovec, c_int) -> isize;

static WRITE: Real = Real::new(c"write");
static WRITEV: Real = Real::new(c"writev");

pub(super) fn resolve() {
    for real in [&WRITE, &WRITEV] {
        let _ = real.address();
    }
}

const NOTHING: u8 = 0;
const MEMORY: u8 = 1;
const OTHER: u8 = 2;
const UNRELATED: u8 = 3;

static LAST: AtomicU8 = AtomicU8::new(NOTHING);
/// What had been allocated when it was said.
static SAID_AT_BYTES: AtomicU64 = AtomicU64::new(0);
/// A heap limit of a runtime was set: its message counts, even if nothing was refused.
static HINTED: AtomicBool = AtomicBool::new(false);

pub(super) fn expect_hinted() {
    HINTED.store(true, Relaxed);
}

pub(super) fn forget() {
    LAST.store(NOTHING, Relaxed);
}

/// A refusal: what was said before it has nothing to do with it.
pub(in crate::guard) fn note_refusal() {
    if LAST.compare_exchange(UNRELATED, NOTHING, Relaxed, Relaxed).is_ok() {
        record::note_said(None);
    }
}

/// What the program said last, as far as it bears on its death, and has not gone on since.
fn last(last_bytes: u64) -> Option<Message> {
    match LAST.load(Relaxed) {
        MEMORY if notes::allocated_bytes().saturating_sub(SAID_AT_BYTES.load(Relaxed)) < last_bytes => {
            Some(Message::OutOfMemory)
        }
        OTHER => Some(Message::OtherDeath),
        UNRELATED => Some(Message::Unrelated),
        _ => None,
    }
}

/// The same of a program that is dying now.
pub(super) fn said(armed: &Armed) -> Option<Message> {
    last(notes::last_bytes(armed))
}

/// Whether messages are read at all.
pub(super) fn are_read() -> bool {
    (refusal::refused_count() > 0 || HINTED.load(Relaxed)) && armed().is_some()
}

/// write(2).
///
/// # Safety
/// That of write(2).
#[inline]
pub unsafe fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    if (fd == libc::STDERR_FILENO || fd == libc::STDOUT_FILENO) && are_read() {
        look_at(&[(bytes as usize, len)]);
    }
    match call_real!(WRITE, Write) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, bytes, len) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) as isize },
    }
}

/// writev(2).
///
/// # Safety
/// That of writev(2).
#[inline]
pub unsafe fn writev(fd: c_int, parts: *const libc::iovec, count: c_int) -> isize {
    if (fd == libc::STDERR_FILENO || fd == libc::STDOUT_FILENO) && are_read() {
        // SAFETY: `count` parts lie there, by contract.
        unsafe { look_at_parts(parts, count) };
    }
    match call_real!(WRITEV, Writev) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, parts, count) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) as isize },
    }
}

/// # Safety
/// `count` parts lie at `parts`, or the program would get EFAULT.
#[cold]
unsafe fn look_at_parts(parts: *const libc::iovec, count: c_int) {
    const MOST_PARTS: usize = 16;
    let errno = sys::fd::errno();
    for index in 0..usize::try_from(count).unwrap_or(0).min(MOST_PARTS) {
        let part = (parts as usize).wrapping_add(index * size_of::<libc::iovec>());
        if !sys::memory::is_readable(part & !7) || !sys::memory::is_readable((part + 8) & !7) {
            break;
        }
        // SAFETY: just found readable, and the caller's for the length of the call.
        let part = unsafe { (part as *const libc::iovec).read_unaligned() };
        look_at(&[(part.iov_base as usize, part.iov_len)]);
    }
    sys::fd::set_errno(errno);
}

/// So much of a message is read.
const READ_BYTES: usize = 4096;

/// Reads a message on its way to a person.
#[cold]
#[inline(never)]
pub(super) fn look_at(parts: &[(usize, usize)]) {
    let errno = sys::fd::errno();
    for &(start, len) in parts {
        // SAFETY: the caller's for the length of the call.
        if let Some(text) = unsafe { sys::memory::readable(start, len, READ_BYTES) } {
            hear(text);
        }
    }
    sys::fd::set_errno(errno);
}

/// The beginning of the message of Rust's standard library, from a function that never returns, but may hang: its
/// backtrace takes a lock that a panicking thread holds.
const RUST_MESSAGE: &[u8] = b"memory allocation of ";

/// Takes in what the program says.
pub(super) fn hear(message: &[u8]) {
    if !notes::is_guarded() {
        return;
    }
    if message.starts_with(RUST_MESSAGE)
        && let (Some(armed), Some(noted)) = (armed(), notes::requested())
        && noted.tid == sys::process::tid()
        && !exhaustion::is_under_way()
    {
        exhaustion::end(armed, judge::guilt(&noted, Evidence::Said).verdict(Own::ABORT));
    }
    match Message::of(message) {
        Some(Message::OutOfMemory) => {
            LAST.store(MEMORY, Relaxed);
            SAID_AT_BYTES.store(notes::allocated_bytes(), Relaxed);
            notes::watch(0);
            record::note_said(Some(Message::OutOfMemory));
        }
        Some(Message::OtherDeath) => {
            LAST.store(OTHER, Relaxed);
            record::note_said(Some(Message::OtherDeath));
        }
        Some(Message::Unrelated) if LAST.compare_exchange(NOTHING, UNRELATED, Relaxed, Relaxed).is_ok() => {
            record::note_said(Some(Message::Unrelated));
        }
        Some(Message::Unrelated) | None => {}
    }
}
