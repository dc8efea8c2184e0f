//! Children that the program waits for. How one failed that left without a word of its guard's only its parent learns: the
//! launcher is told, so that it knows whether a wrapper passes that on.
//!
//! pclose(3) waits inside the C library, for a child that popen(3) has started there.
//!
//! system(3): a child that the program starts and waits for at once. Whoever waits for a child may pass on how that ended;
//! one that did well has nothing to pass on, and was part of the way out: it has tidied up.

use super::overheard;
use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use libc::pid_t;
use oomguard_core::record::{Child, passes_on};
use oomguard_core::sys;
use oomguard_core::sys::bare;
use oomguard_core::text::{parts, whole_number};
use oomguard_engine::call_real;
use oomguard_engine::real::Real;
use oomguard_engine::{filter, notes, record};

static PCLOSE: Real = Real::new(c"pclose");
static POPEN: Real = Real::new(c"popen");
static SYSTEM: Real = Real::new(c"system");
static WAIT: Real = Real::new(c"wait");
static WAIT3: Real = Real::new(c"wait3");
static WAIT4: Real = Real::new(c"wait4");
static WAITPID: Real = Real::new(c"waitpid");
static WAITID: Real = Real::new(c"waitid");

unsafe extern "C" {
    /// The program's environment: environ(7).
    static environ: *const *const c_char;
}

pub(super) fn resolve() {
    for real in [&PCLOSE, &POPEN, &SYSTEM, &WAIT, &WAIT3, &WAIT4, &WAITPID, &WAITID] {
        let _ = real.address();
    }
}

/// wait(2).
///
/// # Safety
/// That of wait(2).
pub unsafe fn wait(status: *mut c_int) -> pid_t {
    match call_real!(WAIT, unsafe extern "C" fn(*mut c_int) -> pid_t) {
        Some(real) => {
            // SAFETY: the arguments are the caller's, or a status of ours.
            let wait = |status| unsafe { real(status) };
            // SAFETY: that is what `wait` does.
            unsafe { told(status, wait) }
        }
        // SAFETY: the caller's argument.
        None => unsafe { wait4(-1, status, 0, null_mut()) },
    }
}

/// wait3(2).
///
/// # Safety
/// That of wait3(2).
pub unsafe fn wait3(status: *mut c_int, options: c_int, usage: *mut c_void) -> pid_t {
    match call_real!(WAIT3, unsafe extern "C" fn(*mut c_int, c_int, *mut c_void) -> pid_t) {
        Some(real) => {
            // SAFETY: the arguments are the caller's, or a status of ours.
            let wait = |status| unsafe { real(status, options, usage) };
            // SAFETY: that is what `wait` does.
            unsafe { told(status, wait) }
        }
        // SAFETY: the caller's arguments.
        None => unsafe { wait4(-1, status, options, usage) },
    }
}

/// wait4(2).
///
/// # Safety
/// That of wait4(2).
pub unsafe fn wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut c_void) -> pid_t {
    let real = call_real!(WAIT4, unsafe extern "C" fn(pid_t, *mut c_int, c_int, *mut c_void) -> pid_t);
    let wait = |status| match real {
        // SAFETY: the arguments are the caller's, or a status of ours.
        Some(real) => unsafe { real(pid, status, options, usage) },
        None => {
            let arguments = [pid as usize, status as usize, options as usize, usage as usize, 0, 0];
            // SAFETY: the system call behind it, with the same arguments.
            unsafe { sys::raw::call_with_errno(libc::SYS_wait4, arguments) as pid_t }
        }
    };
    // SAFETY: that is what `wait` does.
    unsafe { told(status, wait) }
}

/// waitpid(2).
///
/// # Safety
/// That of waitpid(2).
pub unsafe fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    match call_real!(WAITPID, unsafe extern "C" fn(pid_t, *mut c_int, c_int) -> pid_t) {
        Some(real) => {
            // SAFETY: the arguments are the caller's, or a status of ours.
            let wait = |status| unsafe { real(pid, status, options) };
            // SAFETY: that is what `wait` does.
            unsafe { told(status, wait) }
        }
        // SAFETY: the caller's arguments.
        None => unsafe { wait4(pid, status, options, null_mut()) },
    }
}

/// waitid(2).
///
/// # Safety
/// That of waitid(2).
pub unsafe fn waitid(kind: c_int, id: libc::id_t, info: *mut libc::siginfo_t, options: c_int) -> c_int {
    type Waitid = unsafe extern "C" fn(c_int, libc::id_t, *mut libc::siginfo_t, c_int) -> c_int;
    let real = call_real!(WAITID, Waitid);
    let wait = |info| match real {
        // SAFETY: the arguments are the caller's, or a description of ours.
        Some(real) => unsafe { real(kind, id, info, options) },
        None => {
            let arguments = [kind as usize, id as usize, info as usize, options as usize, 0, 0];
            // SAFETY: the system call behind it, with the same arguments and no usage.
            unsafe { sys::raw::call_with_errno(libc::SYS_waitid, arguments) as c_int }
        }
    };
    // SAFETY: that is what `wait` does.
    unsafe { told_at_length(info, wait) }
}

/// The two by their numbers: syscall(2).
///
/// # Safety
/// That of the call.
pub unsafe extern "C" fn waiting_syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
) -> c_long {
    // SAFETY: the arguments are the caller's, or a place of ours.
    let call = |b, c| unsafe { sys::raw::call_with_errno(number, [a, b, c, d, e, 0]) };
    if number == libc::SYS_wait4 {
        // SAFETY: that is what the call does.
        unsafe { told(b as *mut c_int, |status| call(status as usize, c) as pid_t).into() }
    } else {
        // SAFETY: as above.
        unsafe { told_at_length(c as *mut libc::siginfo_t, |info| call(b, info as usize) as c_int).into() }
    }
}

/// Waits for a child with a description that can be read, and tells of how it ended.
///
/// # Safety
/// `wait` takes null, or where it writes the description if it gives zero.
unsafe fn told_at_length(
    info: *mut libc::siginfo_t,
    wait: impl FnOnce(*mut libc::siginfo_t) -> c_int,
) -> c_int {
    // SAFETY: all-zero is a valid `siginfo_t`, a struct of integers.
    let mut own: libc::siginfo_t = unsafe { core::mem::zeroed() };
    let info = if info.is_null() && record::is_shared() { &raw mut own } else { info };
    let result = wait(info);
    // SAFETY: null, or what the call has written.
    let told = unsafe { info.as_ref() }.filter(|told| result == 0 && told.si_signo == libc::SIGCHLD);
    if let Some(told) = told {
        // SAFETY: the signal's number says that it is about a child.
        let child = unsafe { told.si_pid() };
        // SAFETY: as above.
        let status = unsafe { told.si_status() };
        let status = match told.si_code {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_KILLED | libc::CLD_DUMPED => status & 0x7f,
            _ => 0,
        };
        note_end(Child::Number(child.unsigned_abs()), status);
    }
    result
}

/// Waits for a child with a status that can be read, and tells of how it ended.
///
/// # Safety
/// `wait` takes null, or where it writes the status of the child whose number it gives.
unsafe fn told(status: *mut c_int, wait: impl FnOnce(*mut c_int) -> pid_t) -> pid_t {
    if !record::is_shared() {
        return wait(status);
    }
    let mut own = 0;
    let status = if status.is_null() { &raw mut own } else { status };
    let child = wait(status);
    if child > 0 {
        // SAFETY: the call has just written it.
        note_end(Child::Number(child.unsigned_abs()), unsafe { status.read() });
    }
    child
}

/// How the child failed that was waited for last, and when. Relaxed: of two at once, either is one.
static FAILED_STATUS: AtomicI32 = AtomicI32::new(0);
static FAILED_AT_MS: AtomicU64 = AtomicU64::new(0);

/// Whether a program that exits with `code` may pass on how a child failed that it has waited for since that moment.
pub(super) fn is_passed_on(code: u8, since_ms: u64) -> bool {
    FAILED_AT_MS.load(Relaxed) >= since_ms && passes_on(i32::from(code) << 8, FAILED_STATUS.load(Relaxed))
}

/// A child has ended, or stopped, with this status. Signal-safe.
fn note_end(child: Child, status: c_int) {
    if status != 0 && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
        let errno = sys::errno::errno();
        FAILED_STATUS.store(status, Relaxed);
        FAILED_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
        record::note_failed_child(child, status);
        sys::errno::set_errno(errno);
    }
}

/// A stream of popen(3)'s, when its child was started, and which one that is: zero where that is not known. Relaxed throughout:
/// who closes a stream has opened it, or was given it.
struct Opened {
    stream: AtomicUsize,
    at_ms: AtomicU64,
    child: AtomicU32,
}

/// The oldest gives way.
static OPENED: [Opened; 8] =
    [const { Opened { stream: AtomicUsize::new(0), at_ms: AtomicU64::new(0), child: AtomicU32::new(0) } }; 8];

/// The child that this thread has started last: proc_tid_children(5) lists them in that order. `None`: the kernel does not
/// list them, or there are many.
fn newest_child() -> Option<u32> {
    let mut list = [0; 1024];
    let most = list.len();
    let list = bare::read_of_thread(sys::process::tid(), "/children\0", &mut list)?;
    let newest = parts(list.trim_ascii_end(), b' ').last()?;
    if list.len() < most { u32::try_from(whole_number(newest)?).ok() } else { None }
}

mod other_name {
    unsafe extern "C" {
        pub(super) fn _IO_popen(command: *const libc::c_char, mode: *const libc::c_char) -> *mut libc::FILE;
    }
}

/// popen(3).
///
/// # Safety
/// That of popen(3).
pub unsafe fn popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    type Popen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut libc::FILE;
    let at_ms = if record::is_shared() { sys::clock::monotonic_ms() } else { 0 };
    let real = call_real!(POPEN, Popen).unwrap_or(other_name::_IO_popen);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let stream = unsafe { real(command, mode) };
    if !stream.is_null()
        && at_ms != 0
        && let Some(slot) = OPENED.iter().min_by_key(|slot| slot.at_ms.load(Relaxed))
    {
        let errno = sys::errno::errno();
        let child = if filter::may_ask() { newest_child() } else { None };
        sys::errno::set_errno(errno);
        slot.stream.store(stream as usize, Relaxed);
        slot.child.store(child.unwrap_or(0), Relaxed);
        slot.at_ms.store(at_ms, Relaxed);
    }
    stream
}

/// pclose(3).
///
/// # Safety
/// That of pclose(3).
pub unsafe fn pclose(stream: *mut libc::FILE) -> c_int {
    overheard::note_stream(stream.cast());
    let slot = OPENED.iter().find(|slot| slot.stream.load(Relaxed) == stream as usize);
    // Before it is closed, and another thread gets one of the same address.
    let child = slot.map(|slot| {
        slot.stream.store(0, Relaxed);
        let started_ms = slot.at_ms.swap(0, Relaxed);
        match slot.child.load(Relaxed) {
            0 => Child::DeadAfter(started_ms),
            child => Child::Number(child),
        }
    });
    let status = match call_real!(PCLOSE, unsafe extern "C" fn(*mut libc::FILE) -> c_int) {
        // SAFETY: the argument is the caller's, whose contract is the same.
        Some(real) => unsafe { real(stream) },
        // SAFETY: as above. In a static program it has no other name; glibc's is this one.
        None => unsafe { libc::fclose(stream) },
    };
    if status > 0 && record::is_shared() {
        // Of one that was opened out of sight nothing is known, and so nobody is blamed for it.
        let child = child.unwrap_or_else(|| Child::DeadAfter(sys::clock::monotonic_ms()));
        note_end(child, status);
    }
    status
}

/// system(3).
///
/// # Safety
/// That of system(3).
pub unsafe fn system(command: *const c_char) -> c_int {
    let before = filter::may_ask().then(sys::process::childrens_pages);
    let started_ms = if record::is_shared() { sys::clock::monotonic_ms() } else { 0 };
    let status = match call_real!(SYSTEM, unsafe extern "C" fn(*const c_char) -> c_int) {
        // SAFETY: the argument is the caller's, whose contract is the same.
        Some(real) => unsafe { real(command) },
        // There is a shell.
        None if command.is_null() => 1,
        // SAFETY: a C string, by contract.
        None => unsafe { run_shell(command) },
    };
    if !command.is_null() && status > 0 && record::is_shared() {
        note_end(Child::DeadAfter(started_ms), status);
    }
    if let Some(before) = before
        && status == 0
    {
        let errno = sys::errno::errno();
        notes::leave_out_children(sys::process::childrens_pages().saturating_sub(before));
        sys::errno::set_errno(errno);
    }
    status
}

/// What system(3) does, in a static program, which has no linker to ask for it.
///
/// # Safety
/// `command` is a C string.
unsafe fn run_shell(command: *const c_char) -> c_int {
    let mut ignored = sys::signals::default_action();
    ignored.sa_sigaction = libc::SIG_IGN;
    let (mut interrupt, mut quit) = (sys::signals::default_action(), sys::signals::default_action());
    // SAFETY: all-zero is a valid set.
    let (mut child_ends, mut mask): (libc::sigset_t, libc::sigset_t) = unsafe { core::mem::zeroed() };
    sys::signals::add(&mut child_ends, libc::SIGCHLD);
    // SAFETY: actions of ours for the length of the call; the signal is not one of those that are held.
    unsafe { libc::sigaction(libc::SIGINT, &raw const ignored, &raw mut interrupt) };
    // SAFETY: as above.
    unsafe { libc::sigaction(libc::SIGQUIT, &raw const ignored, &raw mut quit) };
    // SAFETY: sets of ours.
    unsafe { sys::signals::change_set(libc::SIG_BLOCK, &raw const child_ends, &raw mut mask) };
    let put_back = || {
        // SAFETY: what was there before, for this and the next two.
        unsafe { libc::sigaction(libc::SIGINT, &raw const interrupt, null_mut()) };
        // SAFETY: as above.
        unsafe { libc::sigaction(libc::SIGQUIT, &raw const quit, null_mut()) };
        // SAFETY: as above.
        unsafe { sys::signals::change_set(libc::SIG_SETMASK, &raw const mask, null_mut()) };
    };
    let list = [c"sh".as_ptr(), c"-c".as_ptr(), command, core::ptr::null()];
    // SAFETY: what the child does until it is another program is allowed after fork(2).
    let child = unsafe { libc::fork() };
    if child == 0 {
        put_back();
        // SAFETY: a variable of the C library.
        let environment = unsafe { environ };
        // SAFETY: a path, a list that ends with null, and the program's environment.
        unsafe { super::execve(c"/bin/sh".as_ptr(), list.as_ptr(), environment) };
        sys::process::exit_now(127);
    }
    let mut status = -1;
    // SAFETY: `status` is writable during the call.
    while child > 0 && unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        if sys::errno::errno() != libc::EINTR {
            status = -1;
            break;
        }
    }
    let errno = sys::errno::errno();
    put_back();
    sys::errno::set_errno(errno);
    status
}
