//! The three calls where the standard library, on its way out, meets the C library.
//!
//! Stable Rust has no hook for a refused allocation: std prints a line on stderr, perhaps a backtrace, and aborts. It
//! can hang before that, in a full pipe or in the backtrace's lock. So the first `write` to stderr and the `abort`
//! are looked at: one that comes from `handle_alloc_error` is exhaustion, and every other one is passed on as it is.
//! `pthread_create` tells which threads could not be started.

// A static program cannot reach the `pthread_create` that ours would hide, so it has none of ours.
#![cfg_attr(target_feature = "crt-static", allow(dead_code))]

use super::armed::armed;
use super::exhaustion::{self, Standing};
use super::{arenas, refusal, startup, verdict};
use crate::contract::Cause;
use crate::report::Request;
use crate::sys;
use core::ffi::{CStr, c_int, c_void};
use once_cell::race::OnceNonZeroUsize;

type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type Abort = extern "C" fn() -> !;
pub(super) type ThreadBody = extern "C" fn(*mut c_void) -> *mut c_void;
pub(super) type PthreadCreate =
    unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, ThreadBody, *mut c_void) -> c_int;

/// A function that a definition of ours hides, looked up once.
struct Hidden {
    name: &'static CStr,
    address: OnceNonZeroUsize,
}

impl Hidden {
    const fn new(name: &'static CStr) -> Self {
        Hidden { name, address: OnceNonZeroUsize::new() }
    }

    fn address(&self) -> Option<usize> {
        if !super::anchor::FINDS_HIDDEN {
            return None;
        }
        // No lock: two threads may look it up at once, and find the same.
        self.address
            .get_or_try_init(|| {
                sys::symbols::next_definition(self.name).and_then(|a| a.try_into().ok()).ok_or(())
            })
            .ok()
            .map(usize::from)
    }
}

static WRITE: Hidden = Hidden::new(c"write");
static ABORT: Hidden = Hidden::new(c"abort");
static PTHREAD_CREATE: Hidden = Hidden::new(c"pthread_create");

/// Asks the dynamic linker at start-up, so that nobody has to later.
pub(super) fn resolve_real_functions() {
    if super::anchor::INTERPOSES && super::anchor::FINDS_HIDDEN {
        for hidden in [&WRITE, &ABORT, &PTHREAD_CREATE] {
            let _ = hidden.address();
        }
    }
}

/// The beginning of std's message, which it writes by itself.
const STD_MESSAGE: &[u8] = b"memory allocation of ";

/// `write(2)`, as the program and its libraries call it.
///
/// # Safety
/// That of write(2).
pub(super) unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    if fd == libc::STDERR_FILENO && len > 0 {
        // SAFETY: the caller hands over `len` readable bytes.
        unsafe { look_at_message(bytes, len) };
    }
    match WRITE.address() {
        Some(address) => {
            // SAFETY: the C library's function of this name has this signature.
            let real: Write = unsafe { core::mem::transmute(address) };
            // SAFETY: the arguments are the caller's, whose contract is the same.
            unsafe { real(fd, bytes, len) }
        }
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) as isize },
    }
}

/// # Safety
/// `len` bytes are readable at `bytes`, or the program would have got EFAULT.
unsafe fn look_at_message(bytes: *const c_void, len: usize) {
    let Some(armed) = armed() else { return };
    let refused_before = refusal::may_have_refused();
    if len < STD_MESSAGE.len() && !refused_before {
        return;
    }
    // Far enough for what a panic says; less than a page, so that both its ends tell of all of it.
    let shown = len.min(if refused_before { 512 } else { STD_MESSAGE.len() });
    // EFAULT must stay the kernel's answer to a bad address, not become a fault of ours.
    let (first, last) = (bytes as usize, (bytes as usize).wrapping_add(shown - 1));
    if !sys::memory::is_readable(first & !7)
        || last / 4096 != first / 4096 && !sys::memory::is_readable(last & !7)
    {
        return;
    }
    // SAFETY: just found readable, and the caller's for the length of the call.
    let message = unsafe { core::slice::from_raw_parts(bytes.cast::<u8>(), shown) };
    if !refused_before && !message.starts_with(STD_MESSAGE) {
        return;
    }
    match exhaustion::standing() {
        Standing::Alive => {
            verdict::end_if_called_from_alloc_error(armed);
            verdict::note_message(message);
        }
        // The report is out, or will be: a thread that dies for the same reason has nothing to add to it.
        Standing::Outlived if std::thread::panicking() || verdict::is_in_alloc_error(armed) => {
            exhaustion::park(armed)
        }
        // A refusal that the last words do not survive; they themselves may write what they like, and run below
        // `handle_alloc_error`.
        Standing::Dying if message.starts_with(STD_MESSAGE) => exhaustion::exit(armed),
        Standing::Outlived | Standing::Dying => {}
    }
}

/// `abort(3)`, as the program and its libraries call it.
pub(super) extern "C" fn abort() -> ! {
    if let Some(armed) = armed() {
        match exhaustion::standing() {
            Standing::Dying => exhaustion::exit(armed),
            Standing::Outlived => exhaustion::park(armed),
            Standing::Alive => verdict::judge_abort(armed),
        }
        verdict::acquit_abort();
    } else {
        startup::refuse_if_on_trial();
    }
    if let Some(address) = ABORT.address() {
        // SAFETY: the C library's function of this name has this signature.
        let real: Abort = unsafe { core::mem::transmute(address) };
        real();
    }
    sys::signals::set_default(libc::SIGABRT);
    sys::signals::unblock(libc::SIGABRT);
    sys::signals::raise_here(libc::SIGABRT);
    sys::process::exit_now(127)
}

/// How often a thread is asked for again that was refused while there is room for its stack.
const SPAWN_TRIES: u32 = 3;

/// `pthread_create(3)`, as the program and its libraries call it.
///
/// # Safety
/// That of pthread_create(3).
pub(super) unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    body: ThreadBody,
    argument: *mut c_void,
) -> c_int {
    let Some(address) = PTHREAD_CREATE.address() else { return libc::EAGAIN };
    // SAFETY: the C library's function of this name has this signature.
    let real: PthreadCreate = unsafe { core::mem::transmute(address) };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { create_thread(real, thread, attributes, body, argument) }
}

/// Starts a thread by the C library's function, and takes note where it cannot.
///
/// # Safety
/// That of pthread_create(3).
pub(super) unsafe fn create_thread(
    real: PthreadCreate,
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    body: ThreadBody,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the arguments are the caller's, whose contract is the same; a failed call has used none of them up.
    let create = || unsafe { real(thread, attributes, body, argument) };
    if let Some(armed) = armed() {
        verdict::note_thread();
        arenas::note_thread(armed);
    }
    let refused_before = verdict::has_refused_thread();
    let mut result = create();
    for _ in 0..SPAWN_TRIES {
        if result != libc::EAGAIN && result != libc::ENOMEM {
            break;
        }
        // SAFETY: null or the caller's attributes.
        let stack_bytes = unsafe { stack_bytes(attributes) };
        // The C library maps the stack and its guard page in one piece.
        if sys::memory::would_be_refused(stack_bytes + sys::memory::page_bytes() as usize) {
            let request = Request { bytes: stack_bytes as u64, align: None };
            refusal::handle(Cause::Thread, request, &mut || {
                result = create();
                result == 0
            });
            if result != 0 {
                verdict::note_refused_thread(stack_bytes as u64);
            }
            break;
        }
        // Another thread has given memory back meanwhile; or there are too many threads, which has the same answer,
        // and is not ours to report.
        result = create();
    }
    // What was refused meanwhile may be what the new thread itself asked for: that stands.
    if result == 0 && refused_before {
        verdict::forget_refused_thread();
    }
    result
}

/// The stack that a thread with these attributes gets.
///
/// # Safety
/// `attributes` is null or initialised.
unsafe fn stack_bytes(attributes: *const libc::pthread_attr_t) -> usize {
    const USUAL: usize = 8 << 20;
    let mut bytes = 0;
    if !attributes.is_null() {
        // SAFETY: initialised by contract; `bytes` is writable during the call.
        unsafe { libc::pthread_attr_getstacksize(attributes, &raw mut bytes) };
    }
    if bytes == 0 { USUAL } else { bytes }
}
