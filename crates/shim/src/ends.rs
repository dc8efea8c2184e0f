//! The ways to end a process by its own will: `exit`, `_exit`, `quick_exit`, `abort`, a failed assertion, a signal to itself.

use super::{abort_handler, filter, formatted, messages, python};
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, Ordering::Relaxed};
use oomguard_core::contract::{CODES_OF_SIGNALS, Cause, Evidence};
use oomguard_core::message::{Message, asks_for_a_block, claims_failure_for_memory};
use oomguard_core::sys;
use oomguard_core::sys::objects::Name;
use oomguard_core::text::Text;
use oomguard_engine::armed::{Armed, armed};
use oomguard_engine::call_real;
use oomguard_engine::exhaustion::{self, Own, Verdict};
use oomguard_engine::judge::{self, Guilt};
use oomguard_engine::real::Real;
use oomguard_engine::standing::{self, Standing};
use oomguard_engine::{notes, owner, record};

type Abort = unsafe extern "C" fn() -> !;
type AssertFail = unsafe extern "C" fn(*const c_char, *const c_char, c_uint, *const c_char) -> !;

static ABORT: Real = Real::new(c"abort");
static ASSERT_FAIL: Real = Real::new(c"__assert_fail");

pub(super) fn resolve() {
    for real in [&ABORT, &ABORT_MESSAGE, &ASSERT_FAIL, &QUICK_EXIT, &RAISE, &KILL, &PRCTL] {
        let _ = real.address();
    }
    if let Some(address) = SYSCALL.address() {
        // Relaxed: what was there before can be called as well.
        SYSCALL_ENTRY.store(address as *mut c_void, Ordering::Relaxed);
    }
    find_exception_type();
}

/// `_exit(2)` and `_Exit(3)`.
pub fn exit_at_once(code: c_int) -> ! {
    if owner::is_guarded() {
        python::look_at_handled();
    }
    if let Some((armed, verdict)) = verdict_on_exit(code, Exit::AtOnce) {
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
    if let Some((armed, verdict)) = verdict_on_exit(code, Exit::AtOnce) {
        exhaustion::end_for_certain(armed, verdict);
    }
    match call_real!(QUICK_EXIT, unsafe extern "C" fn(c_int) -> !) {
        // SAFETY: the argument is the caller's.
        Some(real) => unsafe { real(code) },
        None => exit_at_once(code),
    }
}

/// Before one of the calls that `syscall` is looked at for.
pub extern "C" fn before_syscall(number: c_long, first: c_long, second: c_long, third: c_long) {
    match number {
        libc::SYS_exit_group => {
            let errno = sys::errno::errno();
            if let Some((armed, verdict)) = verdict_on_exit(first as c_int, Exit::AtOnce) {
                exhaustion::end_for_certain(armed, verdict);
            }
            sys::errno::set_errno(errno);
        }
        // With a flag for the one, or no filter for the other, it only asks what the kernel knows, as libseccomp does.
        libc::SYS_seccomp => match first as u32 {
            libc::SECCOMP_SET_MODE_STRICT if second as u32 == 0 => filter::note(true),
            libc::SECCOMP_SET_MODE_FILTER if third != 0 => filter::note(false),
            _ => {}
        },
        _ => {}
    }
}

/// Where `syscall` goes on to: a function with its signature.
pub static SYSCALL_ENTRY: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// The end of a system call that failed, as syscall(2) has it.
pub extern "C" fn fail_syscall(errno: c_int) -> c_long {
    sys::errno::set_errno(errno);
    -1
}

/// prctl(2).
///
/// # Safety
/// That of prctl(2).
pub unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    if option == libc::PR_SET_SECCOMP {
        filter::note(a == libc::SECCOMP_MODE_STRICT.into());
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
    if signal == libc::SIGABRT {
        ABORTS_BY_NAME.store(sys::process::tid(), Relaxed);
    }
    if signal != libc::SIGINT
        || !owner::is_guarded()
        || standing::is_under_way()
        || !messages::has_just_spoken()
    {
        return;
    }
    let errno = sys::errno::errno();
    if let Some(guilt) = judge::by_message(messages::said(armed)) {
        if sys::signals::disposition(signal).sa_sigaction == libc::SIG_DFL {
            exhaustion::end(armed, guilt.verdict(u8::try_from(signal).map_or(Own::Unknown, Own::Signal)));
        }
        messages::note_giving_up();
    }
    sys::errno::set_errno(errno);
}

type Prctl = unsafe extern "C" fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int;

static QUICK_EXIT: Real = Real::new(c"quick_exit");
static RAISE: Real = Real::new(c"raise");
static KILL: Real = Real::new(c"kill");
static PRCTL: Real = Real::new(c"prctl");
static SYSCALL: Real = Real::new(c"syscall");

/// Whether its last words were about a refusal.
pub(super) fn has_said_so() -> bool {
    armed().is_some_and(|armed| judge::by_message(messages::said(armed)).is_some())
}

pub(super) fn verdict_on_exit(code: c_int, how: Exit) -> Option<(&'static Armed, Verdict)> {
    let (armed, errno) = (armed()?, sys::errno::errno());
    if !owner::is_guarded() {
        return None;
    }
    match standing::here() {
        Standing::Dying => standing::exit(armed),
        Standing::Outlived => standing::park(armed),
        Standing::Alive => {}
    }
    // What a parent sees of it.
    let code = code.cast_unsigned() as u8;
    if let Some(verdict) = abort_handler::verdict().filter(|_| code != 0) {
        let verdict = Verdict { own: Own::Exit(code), ..verdict };
        return exhaustion::suffices(armed, verdict).then_some((armed, verdict));
    }
    let guilt = match python::answer(code) {
        _ if code == 0 => None,
        python::Answer::Memory(guilt) => Some(guilt),
        python::Answer::Other => None,
        // The code says that somebody else has ended it.
        python::Answer::Unknown if abort_handler::has_been_left() => judge::by_message(messages::said(armed)),
        python::Answer::Unknown if CODES_OF_SIGNALS.contains(&code) && !messages::gives_up() => None,
        python::Answer::Unknown => {
            let guilt = judge::of_exit(armed, messages::said(armed), errno);
            guilt.filter(|guilt| !is_silence_telling(guilt, how))
        }
    };
    if guilt.is_none() {
        record::acquit();
    }
    let verdict = guilt.map(|guilt| guilt.verdict(Own::Exit(code)));
    verdict.filter(|verdict| exhaustion::suffices(armed, *verdict)).map(|verdict| (armed, verdict))
}

/// How a program comes to exit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// By exit(3): its handlers run.
    InOrder,
    /// By `_exit(2)` or quick_exit(3).
    AtOnce,
}

/// Whether nothing but its silence tells that it dies of memory, in a runtime that says so by itself when nobody has caught
/// its exception: HotSpot, where what such a program has dropped stays in use until it is collected; Ruby, but for `exit!`, which a
/// handler can call; and those of JavaScript, where a handler that ends the program does so at once, and all else is left to later
/// turns.
fn is_silence_telling(guilt: &Guilt, how: Exit) -> bool {
    const AT_ONCE_MS: u64 = 200;
    let is_later =
        || notes::requested().or_else(notes::mapped).is_some_and(|noted| noted.ms_since > AT_ONCE_MS);
    matches!(guilt.evidence, Evidence::Missing | Evidence::Straight)
        && (sys::symbols::is_loaded(b"/libjvm.so")
            || how == Exit::InOrder && sys::symbols::is_loaded(b"/libruby")
            || is_later() && sys::symbols::first_definition(Name::new(c"napi_create_error")).is_some())
}

/// abort(3).
pub fn abort() -> ! {
    if let Some(armed) = armed()
        && owner::is_guarded()
    {
        match standing::here() {
            Standing::Dying => standing::exit(armed),
            Standing::Outlived => standing::park(armed),
            Standing::Alive => {}
        }
        find_exception_type();
        ABORTS_BY_NAME.store(sys::process::tid(), Relaxed);
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

/// The C library aborts by itself, or anybody by raise(3): judged by what it has said of it, too, where it has.
pub(super) fn judge_abort_of_library(armed: &Armed) {
    /// glibc's `struct abort_msg_s`.
    #[repr(C)]
    struct AbortMessage {
        size: c_uint,
        text: [c_char; 0],
    }
    let found = ABORT_MESSAGE.address().map(|address| address as *const *const AbortMessage);
    // SAFETY: a variable of the C library's own, null until there is a message.
    let message = found.map(|at| unsafe { at.read() }).filter(|message| !message.is_null());
    let is_by_this_thread = |thread: &AtomicU32| thread.load(Relaxed) == sys::process::tid();
    // What an assertion of the program's says has been heard, and judged by what it asserts.
    let is_asserted = is_by_this_thread(&ASSERTED_IN);
    if message.is_none() && found.is_some() && !is_asserted && !is_by_this_thread(&ABORTS_BY_NAME) {
        // By itself, and there was no memory for its message: a heap that is broken, as a rule.
        return match judge::by_message(messages::said(armed)) {
            Some(guilt) => exhaustion::end(armed, guilt.verdict(Own::ABORT)),
            None => record::acquit(),
        };
    }
    if let Some(message) = message
        && !is_asserted
    {
        let text = message.wrapping_byte_add(core::mem::offset_of!(AbortMessage, text)) as usize;
        let mut line = Text::<256>::new();
        formatted::push_c_string(&mut line, text, 256);
        // glibc ends the program for many reasons, in as many words: all but one are none of memory's.
        messages::hear(if claims_failure_for_memory(line.as_bytes()) {
            line.as_bytes()
        } else {
            b"assertion"
        });
    }
    judge_abort(armed);
}

/// The thread whose assertion has failed last; zero for none. Relaxed: only that thread asks for itself.
static ASSERTED_IN: AtomicU32 = AtomicU32::new(0);
/// The thread that has aborted last by a function that is called by its name.
static ABORTS_BY_NAME: AtomicU32 = AtomicU32::new(0);
/// The mapping that an assertion found missing.
static MISSING_MAPPING: notes::Kept = notes::Kept::new();
static ABORT_MESSAGE: Real = Real::new(c"__abort_msg");

/// Ends the process here if memory is why it aborts.
pub(super) fn judge_abort(armed: &Armed) {
    if let Some(verdict) = abort_handler::verdict() {
        exhaustion::end(armed, verdict);
    }
    let guilt = match uncaught_exception() {
        Some(Exception::OutOfMemory) => of_bad_alloc(armed),
        // Refused by the run-time library itself, as no memory is large enough.
        Some(Exception::TooLarge) => {
            Some(Guilt { cause: Cause::Heap, request: None, evidence: Evidence::Exact })
        }
        Some(Exception::OfSystem) if !was_refused_a_thread() => None,
        Some(Exception::Other) => None,
        Some(Exception::OfSystem) | None if abort_handler::has_been_left() => {
            judge::by_message(messages::said(armed))
        }
        Some(Exception::OfSystem) | None => {
            judge::of_abort(armed, messages::said(armed)).or_else(of_missing_mapping)
        }
    };
    match guilt {
        Some(guilt) => {
            let verdict = guilt.verdict(Own::ABORT);
            if exhaustion::suffices(armed, verdict) && !abort_handler::run(verdict) {
                return record::acquit();
            }
            exhaustion::end(armed, verdict);
        }
        None => {
            abort_handler::note_other_abort();
            record::acquit();
        }
    }
}

fn of_missing_mapping() -> Option<Guilt> {
    let (cause, request) = MISSING_MAPPING.get()?;
    MISSING_MAPPING.set(None);
    // A handler may have jumped out of that abort, and the program have got what was missing.
    notes::mapped().filter(|noted| {
        noted.request().bytes == request.bytes
            && noted.tid == sys::process::tid()
            && noted.ms_since <= judge::UNSAID_MS
    })?;
    Some(Guilt { cause, request: Some(request), evidence: Evidence::Straight })
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
    ASSERTED_IN.store(sys::process::tid(), Ordering::Relaxed);
    if armed().is_some() && !expression.is_null() {
        // SAFETY: a C string, by contract.
        let expression = unsafe { CStr::from_ptr(expression) }.to_bytes();
        let mapping = judge::mapping_refused_at_once();
        let is_missing =
            mapping.is_some() || notes::requested().is_some_and(|noted| noted.allocations_since == 0);
        if !asks_for_a_block(expression) || !is_missing {
            messages::hear(b"assertion");
        } else if let Some(noted) = mapping {
            // The message takes memory.
            MISSING_MAPPING.set(Some((noted.cause, noted.request())));
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
        && let Some(found) = sys::symbols::first_definition(Name::new(c"__cxa_current_exception_type"))
        && (sys::symbols::is_loaded(b"libstdc++") || sys::symbols::is_loaded(b"libc++abi"))
    {
        CURRENT_EXCEPTION_TYPE.store(found, Ordering::Relaxed);
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
