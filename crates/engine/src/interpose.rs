//! The calls where the standard library, on its way out, meets the C library.
//!
//! Stable Rust has no hook for a refused allocation: std prints a line on stderr, perhaps a backtrace, and aborts. It
//! can hang before that, in a full pipe or in the backtrace's lock. So std's own line and the `abort` are looked at:
//! one that comes from `handle_alloc_error` is exhaustion, and every other one is passed on as it is.
//! `pthread_create` tells which threads could not be started.

// A static program of glibc's cannot reach the `pthread_create` that ours would hide, so it has none of ours.
#![cfg_attr(all(target_feature = "crt-static", target_env = "gnu"), allow(dead_code))]

use super::armed::armed;
use super::notes::Asker;
use super::real::{Real, call_real};
use super::standing::{self, Standing};
use super::std_line::{self, Fate, Next};
use super::{
    aborts, arenas, frames, gone_on, panics, refusal, refused, rust, said, standstill, threads, trial,
    verdict, written,
};
use core::ffi::{c_int, c_void};
use oomguard_core::contract::Cause;
use oomguard_core::message::STD_LINE;
use oomguard_core::report::Request;
use oomguard_core::shortage::Asked;
use oomguard_core::sys;

type Abort = extern "C" fn() -> !;
pub type ThreadBody = extern "C" fn(*mut c_void) -> *mut c_void;
pub type PthreadCreate =
    unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, ThreadBody, *mut c_void) -> c_int;

static ABORT: Real = Real::new(c"abort");
static PTHREAD_CREATE: Real = Real::new(c"pthread_create");

type GetStackSize = unsafe extern "C" fn(*const libc::pthread_attr_t, *mut usize) -> c_int;
/// Not hidden; but before 2.34 glibc has it in a library that not every process has.
static GET_STACK_SIZE: Real = Real::new(c"pthread_attr_getstacksize");

/// Asks the dynamic linker at start-up, so that nobody has to later.
pub(super) fn resolve_real_functions() {
    written::begin(listening_write, closely_listening_write, hear);
    if super::real::FINDS_HIDDEN {
        for hidden in [&ABORT, &PTHREAD_CREATE] {
            let _ = hidden.address();
        }
    }
}

/// What a `write` of exactly so many bytes says may be the beginning of std's own line, which it writes by itself.
pub(super) const LOOKED_AT_BYTES: usize = STD_LINE.len();

/// `write(2)` of so many bytes; others go straight to `oomguard_write_entry`. See `define_write` in `anchor`.
///
/// # Safety
/// That of write(2).
pub(super) unsafe extern "C-unwind" fn write_of_that_length(
    fd: c_int,
    bytes: *const c_void,
    len: usize,
) -> isize {
    if look_at_beginning(fd, bytes, len) {
        return len as isize;
    }
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { written::pass_on(fd, bytes, len) }
}

/// So much of what is written is looked at.
const SHOWN_BYTES: usize = 1024;

/// A line that begins as std's own does: where it comes from `handle_alloc_error`, the process ends here, or it is held
/// back until it is plain that it does. Whether it is held back.
#[cold]
#[inline(never)]
fn look_at_beginning(fd: c_int, bytes: *const c_void, len: usize) -> bool {
    if fd != libc::STDERR_FILENO {
        return false;
    }
    let Some(armed) = armed() else { return false };
    let mut is_held = false;
    let errno = sys::errno::errno();
    // SAFETY: the caller's for the length of the call.
    let text = unsafe { sys::memory::readable(bytes as usize, len, SHOWN_BYTES) };
    if let Some(text) = text.filter(|text| text.starts_with(STD_LINE)) {
        match standing::here() {
            Standing::Alive if verdict::is_in_alloc_error(armed) => match std_line::begin(armed, text) {
                Fate::End => verdict::end_of_allocation(armed),
                Fate::Held => is_held = true,
                Fate::Own => {}
            },
            Standing::Alive => {
                verdict::note_std_line();
                written::listen_closely();
            }
            Standing::Outlived if rust::is_panicking() || verdict::is_in_alloc_error(armed) => {
                standing::park(armed)
            }
            // A refusal that the last words do not survive; they themselves may write what they like, and run below
            // `handle_alloc_error`.
            Standing::Dying => standing::exit(armed),
            Standing::Outlived => {}
        }
    }
    sys::errno::set_errno(errno);
    is_held
}

/// `write` after a refusal: a line of a program that goes on costs next to nothing here. It must not read what it is given
/// before the kernel has, which tells of a bad address.
///
/// # Safety
/// That of write(2).
unsafe extern "C-unwind" fn listening_write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    if fd != libc::STDERR_FILENO || rust::is_panicking() || std_line::is_held() {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        return unsafe { closely_listening_write(fd, bytes, len) };
    }
    // SAFETY: as above.
    let written = unsafe { written::write_on(fd, bytes, len) };
    if len == 0 || written != len as isize {
        // SAFETY: as above.
        unsafe { hear_written(bytes, len, written, false) };
        return written;
    }
    // SAFETY: the kernel has just read so many bytes there, which are the caller's for the length of the call.
    let text = unsafe { core::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    if text.starts_with(STD_LINE) || !said::keep(text) {
        heard_something_else(text);
    }
    written
}

/// A line that begins as std's own does, all at once, as a future std may write it; or the last one that is listened to.
#[cold]
#[inline(never)]
fn heard_something_else(text: &[u8]) {
    if text.starts_with(STD_LINE) {
        look_at_beginning(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        hear(text);
    } else {
        listen_no_more();
    }
}

/// The same once a thread panics, says std's own line, or is dying.
///
/// # Safety
/// That of write(2).
unsafe extern "C-unwind" fn closely_listening_write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    if std_line::is_held()
        && let Some(written) = go_on_with_std_line(fd, bytes, len)
    {
        return written;
    }
    let is_stdout = fd == libc::STDOUT_FILENO && len != 0 && said::takes_in_stdout();
    if fd != libc::STDERR_FILENO && !is_stdout || len == 0 {
        if !said::note_write_elsewhere() {
            listen_no_more();
        }
        // SAFETY: the arguments are the caller's, whose contract is the same.
        return unsafe { written::real_write(fd, bytes, len) };
    }
    if !is_stdout && before_write(bytes, len) {
        return len as isize;
    }
    // SAFETY: as above.
    let written = unsafe { written::real_write(fd, bytes, len) };
    // SAFETY: as above.
    unsafe { hear_written(bytes, len, written, is_stdout) };
    written
}

/// # Safety
/// That of write(2), which has returned `written`.
#[inline(never)]
unsafe fn hear_written(bytes: *const c_void, len: usize, written: isize, is_stdout: bool) {
    let errno = sys::errno::errno();
    // What the kernel has taken it need not have read, as `/dev/null` does not.
    let len = usize::try_from(written).unwrap_or(len);
    // SAFETY: the caller's for the length of the call.
    let text = unsafe { sys::memory::readable(bytes as usize, len, SHOWN_BYTES) };
    let goes_on = match text {
        Some(text) if is_stdout && !rust::is_panicking() => said::keep_from_stdout(text),
        Some(text) => {
            hear(text);
            true
        }
        None => true,
    };
    if !goes_on {
        listen_no_more();
    }
    sys::errno::set_errno(errno);
}

/// This thread holds a line back: what its next `write` gives, if that belongs to it.
#[cold]
#[inline(never)]
fn go_on_with_std_line(fd: c_int, bytes: *const c_void, len: usize) -> Option<isize> {
    let errno = sys::errno::errno();
    let text = if fd == libc::STDERR_FILENO {
        // SAFETY: the caller's for the length of the call.
        unsafe { sys::memory::readable(bytes as usize, len, SHOWN_BYTES) }
    } else {
        None
    };
    let next = text.map_or(Next::Other, std_line::go_on);
    match next {
        Next::Held => return Some(len as isize),
        Next::Backtrace if armed().is_some_and(verdict::is_in_alloc_error) => {
            sys::errno::set_errno(libc::EIO);
            return Some(-1);
        }
        // It may begin anew: then it is looked at whether that is within the first.
        _ if text.is_some_and(|text| text.starts_with(STD_LINE)) => {}
        _ => std_line::release(),
    }
    sys::errno::set_errno(errno);
    None
}

/// Whether it is held back.
fn before_write(bytes: *const c_void, len: usize) -> bool {
    let Some(armed) = armed() else { return false };
    // The report is out, or will be: a thread that dies for the same reason has nothing to add to it.
    if standing::here() == Standing::Outlived && (rust::is_panicking() || verdict::is_in_alloc_error(armed)) {
        standing::park(armed);
    }
    // All of std's line at once, as a future std may write it.
    len > STD_LINE.len() && refused::count_here() > 0 && look_at_beginning(libc::STDERR_FILENO, bytes, len)
}

/// What is said from now on is not about the refusal, unless somebody is dying.
fn listen_no_more() {
    if standing::here() == Standing::Alive && !std_line::is_anybody_holding() {
        written::listen(false);
    }
}

/// Takes in what was written to stderr.
fn hear(text: &[u8]) {
    verdict::hear_size(text);
    if rust::is_panicking() {
        written::listen_closely();
        panics::hear(text, refused::count_here());
        if panics::of_this_thread().0.has(oomguard_core::message::PanicWords::THREAD) {
            standstill::watch();
        }
    } else {
        panics::is_over_here();
        if !said::keep(text) {
            listen_no_more();
        }
    }
}

/// `abort(3)`, as the program and its libraries call it.
pub(super) extern "C" fn abort() -> ! {
    if let Some(armed) = armed() {
        match standing::here() {
            Standing::Dying => standing::exit(armed),
            Standing::Outlived => standing::park(armed),
            Standing::Alive => verdict::judge_abort(armed),
        }
        std_line::release();
        aborts::acquit();
    } else {
        trial::heed_abort();
    }
    if let Some(real) = call_real!(ABORT, Abort) {
        real();
    }
    sys::signals::set_default(libc::SIGABRT);
    sys::signals::unblock(libc::SIGABRT);
    sys::signals::raise_here(libc::SIGABRT);
    sys::process::exit_now(127)
}

/// The C library's other name for it, in a static program of musl's, where the usual one is a weak alias.
#[cfg(all(target_env = "musl", target_feature = "crt-static"))]
const PTHREAD_CREATE_OF_LIBC: Option<PthreadCreate> = {
    unsafe extern "C" {
        fn __pthread_create(
            thread: *mut libc::pthread_t,
            attributes: *const libc::pthread_attr_t,
            body: ThreadBody,
            argument: *mut c_void,
        ) -> c_int;
    }
    Some(__pthread_create)
};
#[cfg(not(all(target_env = "musl", target_feature = "crt-static")))]
const PTHREAD_CREATE_OF_LIBC: Option<PthreadCreate> = None;

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
    let Some(real) = call_real!(PTHREAD_CREATE, PthreadCreate).or(PTHREAD_CREATE_OF_LIBC) else {
        return libc::EAGAIN;
    };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { create_thread(real, thread, attributes, body, argument, Asker::Rust) }
}

/// Starts a thread by the C library's function, and takes note where it cannot.
///
/// # Safety
/// That of pthread_create(3).
pub unsafe fn create_thread(
    real: PthreadCreate,
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    body: ThreadBody,
    argument: *mut c_void,
    asker: Asker,
) -> c_int {
    let errno = sys::errno::errno();
    let create = || {
        sys::errno::set_errno(0);
        // SAFETY: the arguments are the caller's, whose contract is the same; a failed call has used none of them up.
        unsafe { real(thread, attributes, body, argument) }
    };
    if let Some(armed) = armed() {
        frames::note_thread();
        arenas::note_thread(armed);
    }
    let refused_before = threads::refused_stack().is_some();
    let refusals_before = refused::count_here();
    let mut result = create();
    for _ in 0..SPAWN_TRIES {
        if result != libc::EAGAIN && result != libc::ENOMEM {
            break;
        }
        if is_for_number_of_threads() {
            threads::note_refused_otherwise();
            break;
        }
        // SAFETY: null or the caller's attributes.
        let stack_bytes = unsafe { stack_bytes(attributes) };
        // The C library maps the stack and its guard page in one piece.
        let with_guard_page = stack_bytes + sys::memory::page_bytes() as usize;
        let mut again = || {
            result = create();
            result == 0
        };
        // It is mapped inside the C library, so it is only here that more can be asked for.
        if armed().is_some_and(|armed| super::resident::ask(armed, with_guard_page as u64, &mut again)) {
            break;
        }
        let is_by_limit = || {
            armed().is_some_and(|armed| refusal::is_by_limit(armed, Asked::of_heap(with_guard_page as u64)))
        };
        // Its stack may fit, and not what the C library's heap has to give for it.
        let is_for_the_rest = refused::count_here() != refusals_before;
        if is_for_the_rest || super::resident::would_be_refused(with_guard_page) && is_by_limit() {
            let request = Request { bytes: stack_bytes as u64, align: None };
            refusal::handle(Cause::Thread, asker, request, &mut || {
                result = create();
                result == 0
            });
            if result != 0 {
                threads::note_refused(stack_bytes as u64);
            }
            break;
        }
        // Another thread has given memory back meanwhile.
        result = create();
    }
    // What failed without a system call has left it as it was.
    if result == 0 || sys::errno::errno() == 0 {
        sys::errno::set_errno(errno);
    }
    if result == 0 {
        gone_on::note_thread();
    }
    // What was refused meanwhile may be what the new thread itself asked for: that stands.
    if result == 0 && refused_before && threads::note_started() && !rust::is_panicking() {
        panics::is_got_over_here();
    }
    result
}

/// Whether the pthread_create(3) that has just failed had its stack, and clone(2) was refused: for RLIMIT_NPROC, or a cgroup's
/// number of processes. glibc leaves the kernel's EAGAIN in `errno`, and musl nothing; a refused stack is ENOMEM with either.
fn is_for_number_of_threads() -> bool {
    sys::errno::errno() == if sys::c_library::is_glibc() { libc::EAGAIN } else { 0 }
}

/// The stack that a thread with these attributes gets.
///
/// # Safety
/// `attributes` is null or initialised.
unsafe fn stack_bytes(attributes: *const libc::pthread_attr_t) -> usize {
    const USUAL: usize = 8 << 20;
    const USUAL_OF_MUSL: usize = 128 << 10;
    let mut bytes = 0;
    if !attributes.is_null() {
        let get = call_real!(GET_STACK_SIZE, GetStackSize).unwrap_or(libc::pthread_attr_getstacksize);
        // SAFETY: initialised by contract; `bytes` is writable during the call.
        unsafe { get(attributes, &raw mut bytes) };
    }
    match bytes {
        0 if sys::c_library::is_glibc() => USUAL,
        0 => USUAL_OF_MUSL,
        bytes => bytes,
    }
}
