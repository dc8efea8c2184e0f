//! Where `write` goes: one comparison and one jump, until something is refused.
//!
//! ```text
//!  oomguard_write_entry:  real ──a refusal──▶ listening ──a panic, std's own line, the end──▶ listening closely
//!                          ▲                     │                                              │
//!                          └─────────────────────┴────────── has listened enough ───────────────┘
//! ```

use super::hook::Hook;
use super::real::{FINDS_HIDDEN, Real, call_real, weak};
use super::{filter, rust};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use oomguard_core::sys;

// "C-unwind": write(2) is a cancellation point, and glibc unwinds a cancelled thread through its callers.
type Write = unsafe extern "C-unwind" fn(c_int, *const c_void, usize) -> isize;

static WRITE: Real = Real::new(c"write");

weak!(oomguard_table_of_write "oomguard_own_write");

/// Whether `write` is ours in this program: a sanitizer's runtime may have its own.
pub(super) fn has_write() -> bool {
    let linked = libc::write as *const () as usize;
    oomguard_table_of_write.is_some_and(|own| own as *const () as usize == linked)
}

// Where `write` goes: a function with its signature. Hidden, so that the jump in `anchor` needs no address of it first, in
// a shared library neither.
core::arch::global_asm!(
    ".pushsection .data.oomguard_write_entry,\"aw\",@progbits",
    ".balign 8",
    ".weak oomguard_write_entry",
    ".hidden oomguard_write_entry",
    ".type oomguard_write_entry,@object",
    "oomguard_write_entry:",
    ".8byte {}",
    ".size oomguard_write_entry, 8",
    ".popsection",
    sym real_write
);
unsafe extern "C" {
    safe static oomguard_write_entry: AtomicPtr<c_void>;
}

/// `write` while it is listened to, and closely; and what takes in a text that was written some other way.
static LISTENING: Hook<Write> = Hook::new();
static CLOSELY: Hook<Write> = Hook::new();
static HEAR: Hook<fn(&[u8])> = Hook::new();

/// Before `main`: who listens.
pub(super) fn begin(listening: Write, closely: Write, hear: fn(&[u8])) {
    LISTENING.set(listening);
    CLOSELY.set(closely);
    HEAR.set(hear);
    if FINDS_HIDDEN {
        let _ = WRITE.address();
        listen(false);
    }
}

/// Whether what is written is listened to. Relaxed, here and below: whatever is read can be called at any time.
pub(super) fn listen(on: bool) {
    go_to(if on { LISTENING.get() } else { None });
}

/// It is, after a refusal. Who listens relies on the kernel's having read what was written: where it does not, or may not be asked,
/// each text is looked at before.
pub(super) fn begin_to_listen() {
    let is_read = filter::may_ask() && !sys::fd::takes_unread(libc::STDERR_FILENO);
    go_to(if is_read { LISTENING.get() } else { CLOSELY.get() });
}

/// It is, and each word matters.
pub(super) fn listen_closely() {
    go_to(CLOSELY.get());
}

fn go_to(listening: Option<Write>) {
    if !rust::IS_THERE {
        return;
    }
    let entry = listening.or_else(|| call_real!(WRITE, Write)).unwrap_or(real_write);
    oomguard_write_entry.store(entry as *mut c_void, Ordering::Relaxed);
}

/// A `write` that is nothing special.
///
/// # Safety
/// That of write(2).
pub(super) unsafe fn pass_on(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    let entry = oomguard_write_entry.load(Ordering::Relaxed);
    // SAFETY: only functions of this signature are stored there.
    let entry: Write = unsafe { core::mem::transmute(entry) };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { entry(fd, bytes, len) }
}

/// The C library's, in few instructions.
///
/// # Safety
/// That of write(2).
#[inline(always)]
pub(super) unsafe fn write_on(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    let known = WRITE.known_address().map(|address| {
        // SAFETY: the C library's function of this name has this signature.
        unsafe { core::mem::transmute::<usize, Write>(address) }
    });
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { known.unwrap_or(real_write)(fd, bytes, len) }
}

/// # Safety
/// That of write(2).
pub(super) unsafe extern "C-unwind" fn real_write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    match call_real!(WRITE, Write) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, bytes, len) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) as isize },
    }
}

/// Writes what was held back, as the program meant it.
pub(super) fn write_and_hear(text: &[u8]) {
    let errno = sys::errno::errno();
    // SAFETY: a slice, which is there for the length of the call.
    unsafe { real_write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    if let Some(hear) = HEAR.get() {
        hear(text);
    }
    sys::errno::set_errno(errno);
}
