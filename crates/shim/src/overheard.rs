//! What the program has read since something was refused: words about memory that it only passes on are another program's.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use oomguard_core::busy::Busy;
use oomguard_core::message::{Message, is_passed_on};
use oomguard_core::sys;
use oomguard_core::text::Text;
use oomguard_engine::call_real;
use oomguard_engine::real::Real;
use oomguard_engine::refused;

static READ: Real = Real::new(c"read");
static RECV: Real = Real::new(c"recv");
/// glibc's streams, in a list: what is read by them never passes `read`.
static STREAMS: Real = Real::new(c"_IO_list_all");

pub(super) fn resolve() {
    for real in [&READ, &RECV, &STREAMS] {
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
    note(to, got)
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
    note(to, got)
}

#[inline]
fn note(at: *const c_void, got: isize) -> isize {
    if got > 0 && refused::count() > 0 {
        // SAFETY: the kernel has just written so much there.
        keep(unsafe { core::slice::from_raw_parts(at.cast(), got.unsigned_abs()) });
    }
    got
}

/// What was read last, and before.
struct Kept {
    last: Text<2048>,
    before: Text<2048>,
}

struct Shared(UnsafeCell<Kept>);

// SAFETY: used by the one thread that `INSIDE` lets through.
unsafe impl Sync for Shared {}

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static KEPT: Shared = Shared(UnsafeCell::new(Kept { last: Text::new(), before: Text::new() }));
static INSIDE: Busy = Busy::new();

/// Where two read at once, the one text goes unheard.
#[cold]
fn keep(text: &[u8]) {
    let Some(_inside) = INSIDE.try_enter() else { return };
    // SAFETY: one thread at a time, by `INSIDE`.
    let Kept { last, before } = unsafe { &mut *KEPT.0.get() };
    last.push_bytes(text);
    if last.is_cut() {
        core::mem::swap(last, before);
        *last = Text::from_bytes(text);
    }
}

/// Whether words about memory are a line that was read.
#[cold]
pub(super) fn has(message: &[u8]) -> bool {
    let is_it =
        |text: &[u8]| is_passed_on(message, text, |line| Message::of(line) == Some(Message::OutOfMemory));
    let is_kept = INSIDE.try_enter().is_some_and(|_inside| {
        // SAFETY: one thread at a time, by `INSIDE`.
        let Kept { last, before } = unsafe { &*KEPT.0.get() };
        [last, before].iter().any(|text| is_it(text.as_bytes()))
    });
    is_kept || is_in_stream(is_it)
}

/// Whether it is in what a stream of glibc's has read last.
fn is_in_stream(is_it: impl Fn(&[u8]) -> bool) -> bool {
    /// The beginning of `struct _IO_FILE`, as far as the pointer to the next one.
    const WORDS: usize = 14;
    const MOST_STREAMS: u32 = 64;
    const MOST_BYTES: usize = 64 << 10;
    let Some(list) = STREAMS.address() else { return false };
    // SAFETY: a variable of the C library's own.
    let mut at = unsafe { (list as *const usize).read() };
    for _ in 0..MOST_STREAMS {
        // SAFETY: a stream that another thread closes meanwhile stays mapped, as a small block does.
        let Some(stream) = (unsafe { sys::memory::readable(at, 8 * WORDS, 8 * WORDS) }) else { break };
        let word = |index: usize| {
            let bytes = stream.as_chunks::<8>().0.get(index);
            bytes.map_or(0, |bytes| usize::from_ne_bytes(*bytes))
        };
        let (end, base) = (word(2), word(3));
        // SAFETY: as above.
        let text = unsafe { sys::memory::readable(base, end.saturating_sub(base), MOST_BYTES) };
        if text.is_some_and(&is_it) {
            return true;
        }
        at = word(13);
    }
    false
}
