//! The ways to end a process by its own will: `exit`, `_exit`, `quick_exit`, `abort`, a failed assertion, a signal to itself.

use super::{leaving, messages, python, startup};
use crate::contract::{CODES_OF_SIGNALS, Cause, Evidence};
use crate::guard::armed::{Armed, armed};
use crate::guard::exhaustion::{self, Own, Standing, Verdict};
use crate::guard::judge::{self, Guilt};
use crate::guard::real::{Real, call_real};
use crate::guard::watchdog;
use crate::guard::{notes, record};
use crate::message::{Message, asks_for_a_block};
use crate::sys;
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

type Abort = unsafe extern "C" fn() -> !;
type AssertFail = unsafe extern "C" fn(*const c_char, *const c_char, c_uint, *const c_char) -> !;

static ABORT: Real = Real::new(c"abort");
static ASSERT_FAIL: Real = Real::new(c"__assert_fail");

pub(super) fn resolve() {
    for real in [&ABORT, &ASSERT_FAIL, &QUICK_EXIT, &RAISE, &KILL, &PRCTL, &ON_EXIT] {
        let _ = real.address();
    }
    if let Some(address) = SYSCALL.address() {
        // Relaxed: what was there before can be called as well.
        SYSCALL_ENTRY.store(address as *mut c_void, Ordering::Relaxed);
    }
    find_exception_type();
}

/// Has exit(3) ask us last, when the program's own handlers have run.
pub(super) fn watch_exit() {
    type Handler = extern "C" fn(c_int, *mut c_void);
    unsafe extern "C" {
        // For a static program, where there is no next definition.
        fn on_exit(handler: Handler, argument: *mut c_void) -> c_int;
        fn __cxa_atexit(
            handler: extern "C" fn(*mut c_void),
            argument: *mut c_void,
            object: *mut c_void,
        ) -> c_int;
    }
    if ON_EXIT.is_nowhere() && !sys::c_library::is_glibc() {
        // SAFETY: `leaving::at_exit` lives as long as the process and ignores its argument.
        unsafe { __cxa_atexit(leaving::at_exit, core::ptr::null_mut(), core::ptr::null_mut()) };
        return;
    }
    // on_exit(3); its first 32 handlers need no allocation.
    let on_exit = call_real!(ON_EXIT, unsafe extern "C" fn(Handler, *mut c_void) -> c_int).unwrap_or(on_exit);
    // SAFETY: `at_exit` lives as long as the process and ignores its argument.
    unsafe { on_exit(at_exit, core::ptr::null_mut()) };
}

static ON_EXIT: Real = Real::new(c"on_exit");

/// exit(3) has run the program's handlers; what is left is to write out what its streams hold.
extern "C" fn at_exit(code: c_int, _: *mut c_void) {
    let Some((armed, verdict)) = verdict_on_exit(code) else { return };
    exhaustion::say_last_words(armed, verdict);
    watchdog::call_off();
    // Called again from a handler, exit goes on where it was, with the new code: exit(3), as glibc has it.
    // SAFETY: only this thread is in exit.
    unsafe { libc::exit(c_int::from(armed.exit_code)) }
}

/// `_exit(2)` and `_Exit(3)`.
pub fn exit_at_once(code: c_int) -> ! {
    if notes::is_guarded() {
        python::look_at_handled();
    }
    if let Some((armed, verdict)) = verdict_on_exit(code) {
        exhaustion::end_for_certain(armed, verdict);
    }
    // A parent sees no more of it.
    sys::process::exit_now(code.cast_unsigned() as u8)
}

/// A panic in here, which there is no code for.
pub fn abort_for_good() -> ! {
    sys::signals::set_default(libc::SIGABRT);
    sys::signals::unblock(libc::SIGABRT);
    sys::signals::raise_here(libc::SIGABRT);
    sys::process::exit_now(127)
}

/// quick_exit(3), whose handlers are told no code.
pub fn quick_exit(code: c_int) -> ! {
    if let Some((armed, verdict)) = verdict_on_exit(code) {
        exhaustion::end_for_certain(armed, verdict);
    }
    match call_real!(QUICK_EXIT, unsafe extern "C" fn(c_int) -> !) {
        // SAFETY: the argument is the caller's.
        Some(real) => unsafe { real(code) },
        None => exit_at_once(code),
    }
}

/// Before one of the calls that `syscall` is looked at for.
pub extern "C" fn before_syscall(number: c_long, first: c_long) {
    match number {
        libc::SYS_exit_group => {
            let errno = sys::fd::errno();
            if let Some((armed, verdict)) = verdict_on_exit(first as c_int) {
                exhaustion::end_for_certain(armed, verdict);
            }
            sys::fd::set_errno(errno);
        }
        libc::SYS_seccomp => startup::note_filter(),
        _ => {}
    }
}

/// Where `syscall` goes on to: a function with its signature.
pub static SYSCALL_ENTRY: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// The end of a system call that failed, as syscall(2) has it.
pub extern "C" fn fail_syscall(errno: c_int) -> c_long {
    sys::fd::set_errno(errno);
    -1
}

/// prctl(2).
///
/// # Safety
/// That of prctl(2).
pub unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    if option == libc::PR_SET_SECCOMP {
        startup::note_filter();
    }
    match call_real!(PRCTL, Prctl) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(option, a, b, c, d) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_prctl, option, a, b, c, d) as c_int },
    }
}

/// raise(3).
///
/// # Safety
/// That of raise(3).
pub unsafe fn raise(signal: c_int) -> c_int {
    before_signal_to_itself(signal);
    match call_real!(RAISE, unsafe extern "C" fn(c_int) -> c_int) {
        // SAFETY: the argument is the caller's.
        Some(real) => unsafe { real(signal) },
        None => {
            sys::signals::raise_here(signal);
            0
        }
    }
}

/// kill(2).
///
/// # Safety
/// That of kill(2).
pub unsafe fn kill(pid: libc::pid_t, signal: c_int) -> c_int {
    if pid.unsigned_abs() == sys::process::pid() {
        before_signal_to_itself(signal);
    }
    match call_real!(KILL, unsafe extern "C" fn(libc::pid_t, c_int) -> c_int) {
        // SAFETY: the arguments are the caller's.
        Some(real) => unsafe { real(pid, signal) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_kill, pid, signal) as c_int },
    }
}

/// A library that ends its program by SIGINT, as OpenBLAS does, right after its words. What a handler sends on is as a rule
/// what the program was sent, whatever it has said. Where the program handles the signal, it may still end for what led to
/// it.
fn before_signal_to_itself(signal: c_int) {
    let Some(armed) = armed() else { return };
    if signal != libc::SIGINT
        || !notes::is_guarded()
        || exhaustion::is_under_way()
        || !messages::has_just_spoken()
    {
        return;
    }
    let errno = sys::fd::errno();
    if let Some(guilt) = judge::by_message(messages::said(armed)) {
        if sys::signals::disposition(signal).sa_sigaction == libc::SIG_DFL {
            exhaustion::end(armed, guilt.verdict(u8::try_from(signal).map_or(Own::Unknown, Own::Signal)));
        }
        messages::note_giving_up();
    }
    sys::fd::set_errno(errno);
}

type Prctl = unsafe extern "C" fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int;

static QUICK_EXIT: Real = Real::new(c"quick_exit");
static RAISE: Real = Real::new(c"raise");
static KILL: Real = Real::new(c"kill");
static PRCTL: Real = Real::new(c"prctl");
static SYSCALL: Real = Real::new(c"syscall");

pub(super) fn verdict_on_exit(code: c_int) -> Option<(&'static Armed, Verdict)> {
    let armed = armed()?;
    if !notes::is_guarded() {
        return None;
    }
    match exhaustion::standing() {
        Standing::Dying => exhaustion::exit(armed),
        Standing::Outlived => exhaustion::park(armed),
        Standing::Alive => {}
    }
    // What a parent sees of it.
    let code = code.cast_unsigned() as u8;
    let guilt = match python::answer(code) {
        _ if code == 0 => None,
        python::Answer::Memory(guilt) => Some(guilt),
        python::Answer::Other => None,
        // The code says that somebody else has ended it.
        python::Answer::Unknown if CODES_OF_SIGNALS.contains(&code) && !messages::gives_up() => None,
        python::Answer::Unknown => {
            judge::of_exit(armed, messages::said(armed)).filter(|guilt| !is_silence_telling(guilt))
        }
    };
    if guilt.is_none() {
        record::acquit();
    }
    let verdict = guilt.map(|guilt| guilt.verdict(Own::Exit(code)));
    verdict.filter(|verdict| exhaustion::suffices(armed, *verdict)).map(|verdict| (armed, verdict))
}

/// Whether nothing but its silence tells that it dies of memory, in a runtime that says so by itself when nobody has caught
/// its exception: HotSpot. What such a program has dropped stays in use until it is collected.
fn is_silence_telling(guilt: &Guilt) -> bool {
    matches!(guilt.evidence, Evidence::Missing | Evidence::Straight) && sys::symbols::is_loaded(b"/libjvm.so")
}

/// abort(3).
pub fn abort() -> ! {
    if let Some(armed) = armed()
        && notes::is_guarded()
    {
        match exhaustion::standing() {
            Standing::Dying => exhaustion::exit(armed),
            Standing::Outlived => exhaustion::park(armed),
            Standing::Alive => {}
        }
        find_exception_type();
        judge_abort(armed);
    }
    if let Some(real) = call_real!(ABORT, Abort) {
        // SAFETY: abort takes nothing.
        unsafe { real() }
    }
    // What it does, in a static program, which has no linker to ask for it: a handler of the program's own comes first,
    // and may never return.
    sys::signals::unblock(libc::SIGABRT);
    sys::signals::raise_here(libc::SIGABRT);
    sys::signals::set_default(libc::SIGABRT);
    sys::signals::unblock(libc::SIGABRT);
    sys::signals::raise_here(libc::SIGABRT);
    sys::process::exit_now(127)
}

/// Ends the process here if memory is why it aborts.
pub(super) fn judge_abort(armed: &Armed) {
    let guilt = match uncaught_exception() {
        Some(Exception::OutOfMemory) => of_bad_alloc(armed),
        // Refused by the run-time library itself, as no memory is large enough.
        Some(Exception::TooLarge) => {
            Some(Guilt { cause: Cause::Heap, request: None, evidence: Evidence::Exact })
        }
        Some(Exception::OfSystem) if !was_refused_a_thread() => None,
        Some(Exception::Other) => None,
        Some(Exception::OfSystem) | None => judge::of_abort(armed, messages::said(armed)),
    };
    match guilt {
        Some(guilt) => exhaustion::end(armed, guilt.verdict(Own::ABORT)),
        None => record::acquit(),
    }
}

/// The exception of a request that was refused: nobody caught it, as the run-time library says. One that was caught, and one
/// that the program has thrown for reasons of its own, are no more than others.
fn of_bad_alloc(armed: &Armed) -> Option<Guilt> {
    let said = messages::said(armed);
    let (cause, request) = notes::open_or_just_closed()?;
    if said.is_some_and(|said| said.message == Message::OutOfMemory) {
        return Some(Guilt { cause, request: Some(request), evidence: Evidence::Exact });
    }
    judge::of_abort(armed, said)
}

fn was_refused_a_thread() -> bool {
    notes::requested().is_some_and(|noted| noted.cause == Cause::Thread)
}

/// `__assert_fail`, which `assert` in C calls: the message goes to stderr by a way that nobody sees.
///
/// # Safety
/// Texts and line of the assertion.
pub unsafe fn assert_fail(
    expression: *const c_char,
    file: *const c_char,
    line: c_uint,
    function: *const c_char,
) -> ! {
    if armed().is_some() && !expression.is_null() {
        // SAFETY: a C string, by contract.
        let expression = unsafe { CStr::from_ptr(expression) }.to_bytes();
        if !asks_for_a_block(expression) || notes::requested().is_none_or(|noted| noted.allocations_since > 0)
        {
            messages::hear(b"assertion");
        }
    }
    match call_real!(ASSERT_FAIL, AssertFail) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(expression, file, line, function) },
        None => abort(),
    }
}

/// The exception that nobody caught, or that is being handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exception {
    OutOfMemory,
    /// An array that could not be addressed.
    TooLarge,
    /// An error code of the system, such as the EAGAIN of a `std::thread` that could not be started.
    OfSystem,
    Other,
}

type CurrentExceptionType = unsafe extern "C" fn() -> *const TypeInfo;

/// The beginning of `std::type_info`: Itanium C++ ABI, 2.9.3.
#[repr(C)]
struct TypeInfo {
    methods: usize,
    name: *const c_char,
}

static CURRENT_EXCEPTION_TYPE: AtomicUsize = AtomicUsize::new(0);

/// Looks for C++'s run-time library, which may have been loaded later.
fn find_exception_type() {
    // Relaxed: code is there from the start.
    if CURRENT_EXCEPTION_TYPE.load(Ordering::Relaxed) == 0
        && (sys::symbols::is_loaded(b"libstdc++") || sys::symbols::is_loaded(b"libc++abi"))
    {
        let found = sys::symbols::first_definition(c"__cxa_current_exception_type");
        CURRENT_EXCEPTION_TYPE.store(found.unwrap_or(0), Ordering::Relaxed);
    }
}

fn uncaught_exception() -> Option<Exception> {
    let address = CURRENT_EXCEPTION_TYPE.load(Ordering::Relaxed);
    if address == 0 {
        return None;
    }
    // SAFETY: the ABI's function of this name has this signature.
    let current: CurrentExceptionType = unsafe { core::mem::transmute(address) };
    // SAFETY: it takes nothing, and looks into this thread's exceptions.
    let kind = unsafe { current() };
    // SAFETY: null, or a type's description, which lives as long as its library.
    let name = unsafe { kind.as_ref() }?.name;
    // SAFETY: a C string beside the description.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    // A star marks a type that is local to one library.
    let name = name.strip_prefix(b"*").unwrap_or(name);
    Some(match name {
        b"St9bad_alloc" => Exception::OutOfMemory,
        b"St20bad_array_new_length" | b"St17bad_array_new_length" => Exception::TooLarge,
        b"St12system_error" => Exception::OfSystem,
        _ => Exception::Other,
    })
}
