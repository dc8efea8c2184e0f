//! What a Python program knows of its own end, and nobody can see from outside: which exception it dies of, and what that
//! came from. CPython only.
//!
//! ```text
//!   a refusal ── Py_AddPendingCall ──▶ between two instructions of the main thread, with the interpreter's lock:
//!                                      a function of ours among those of `atexit`, another before `threading.excepthook`
//!   raise SystemExit, as the last ──▶ fflush(stdout), which CPython calls before it leaves ─────┐
//!   an exception that nobody caught ──▶ sys.last_value, when our function of `atexit` is called ┼──▶ what the judge asks
//!   os._exit ──▶ the exception that is being handled ───────────────────────────────────────────┘
//! ```
//! A program that was never refused anything has nothing of it. What is asked for is small, and is given from the reserve
//! where it is refused; where it cannot be had all the same, the judge goes by what it goes by in other programs.
//!
//! | file | what it holds |
//! |---|---|
//! | `interpreter` | CPython's C interface, found at the first refusal |
//! | `chain` | whether an exception came from a `MemoryError` |
//! | `raised` | whether the program has raised it itself |
//! | `ignored` | what Python says of exceptions that it ignores |

mod chain;
mod ignored;
mod interpreter;
mod raised;

use super::{children, uncaught};
use chain::Chain;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use interpreter::{Fetched, Method, Object, Owned, PutAside};
use oomguard_core::contract::{CODES_OF_SIGNALS, Cause, Evidence};
use oomguard_core::message::Message;
use oomguard_core::sys;
use oomguard_core::text::{behind_last, place_of};
use oomguard_engine::armed::armed;
use oomguard_engine::call_real;
use oomguard_engine::hook::Hook;
use oomguard_engine::judge::Guilt;
use oomguard_engine::real::Real;
use oomguard_engine::{filter, notes, owner, refused};

// Relaxed throughout: flags and numbers that stand by themselves. What they are about is done under the interpreter's
// lock, or in the thread that asks.

/// Something was refused in this process.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// How far the interpreter has been made to tell.
static STATE: AtomicU8 = AtomicU8::new(IDLE);
const IDLE: u8 = 0;
/// It has been asked to call us.
const ASKED: u8 = 1;
/// Our function is among those of `atexit`.
const TELLS: u8 = 2;

/// Threads that die of an exception tell us.
static WATCHES_THREADS: AtomicBool = AtomicBool::new(false);
/// A thread was refused before that, and may have died of it; and: one has died of something, on stderr.
static THREADS_UNSEEN: AtomicBool = AtomicBool::new(false);
static THREAD_SAID_SO: AtomicBool = AtomicBool::new(false);
/// A thread has died of a `MemoryError`.
static THREAD_DIED: AtomicBool = AtomicBool::new(false);

/// What is known of the end.
static LAST: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
/// It leaves by `SystemExit`, which came from a `MemoryError`; which speaks of memory; which is about something else.
const LEFT_FOR_MEMORY: u8 = 1;
const LEFT_SPEAKING: u8 = 2;
const LEFT: u8 = 3;
/// It leaves by `os._exit`, handling no exception.
const LEFT_AT_ONCE: u8 = 4;
/// The same of an exception that nobody caught.
const DIED_OF_MEMORY: u8 = 5;
const DIED_SPEAKING: u8 = 6;
const DIED_OF_OTHER: u8 = 7;
/// What nobody caught speaks of memory, and a refusal was open when it was told. What comes then is the interpreter's own end, which
/// takes seconds where large libraries are loaded, such as PyTorch.
const DIED_SAYING_SO: u8 = 8;

/// The thread that is in here, whose requests come from the reserve and are not the program's.
static INSIDE: AtomicU32 = AtomicU32::new(0);

/// Whether the calling thread is at work for us.
pub(crate) fn is_inside() -> bool {
    match INSIDE.load(Relaxed) {
        0 => false,
        inside => inside == sys::process::tid(),
    }
}

struct Inside(());

impl Inside {
    /// `None` where a thread is in here already.
    fn enter() -> Option<Inside> {
        let entered = INSIDE.compare_exchange(0, sys::process::tid(), Relaxed, Relaxed);
        // Made only then: dropping one lets others in.
        entered.is_ok().then(|| Inside(()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.store(0, Relaxed);
    }
}

/// A child of fork(2) was refused nothing, and does not end yet.
pub(super) fn forget() {
    REFUSED.store(false, Relaxed);
    LAST.store(UNKNOWN, Relaxed);
    INSIDE.store(0, Relaxed);
    for flag in [&THREADS_UNSEEN, &THREAD_SAID_SO, &THREAD_DIED] {
        flag.store(false, Relaxed);
    }
    // What the interpreter was asked for may have been asked for by a thread that is not here.
    let _ = STATE.compare_exchange(ASKED, IDLE, Relaxed, Relaxed);
    ignored::forget();
}

/// A refusal is passed on to the program. In a thread of the program's, wherever it asked for memory.
pub(crate) fn note_refusal() {
    if !owner::is_guarded() {
        return;
    }
    REFUSED.store(true, Relaxed);
    let is_main = sys::process::tid() == sys::process::pid();
    let watches = WATCHES_THREADS.load(Relaxed);
    if !is_main && !watches {
        THREADS_UNSEEN.store(true, Relaxed);
    }
    match STATE.load(Relaxed) {
        ASKED => {}
        TELLS if is_main || watches => {}
        before => ask_to_be_called(before),
    }
}

/// Has the interpreter call us at the next place where that is safe.
#[cold]
fn ask_to_be_called(before: u8) {
    let errno = sys::errno::errno();
    if interpreter::find()
        && interpreter::is_running()
        && STATE.compare_exchange(before, ASKED, Relaxed, Relaxed).is_ok()
    {
        // SAFETY: may be called by any thread, with or without the interpreter's lock, and allocates nothing.
        if unsafe { interpreter::add_pending_call(be_called, core::ptr::null_mut()) } != 0 {
            STATE.store(before, Relaxed);
        }
    }
    sys::errno::set_errno(errno);
}

/// Called by the interpreter between two instructions, or as it begins to end.
extern "C" fn be_called(_: *mut c_void) -> c_int {
    let Some(_inside) = Inside::enter() else {
        STATE.store(IDLE, Relaxed);
        return 0;
    };
    let _aside = PutAside::new();
    let tells = TOLD_AT_EXIT.load(Relaxed) || have_it_told_at_exit().is_some();
    TOLD_AT_EXIT.store(tells, Relaxed);
    if tells && !WATCHES_THREADS.load(Relaxed) {
        watch_threads();
    }
    if tells && uncaught::ends_process() && !WATCHES_UNCAUGHT.load(Relaxed) {
        watch_uncaught();
    }
    STATE.store(if tells { TELLS } else { IDLE }, Relaxed);
    0
}

static TOLD_AT_EXIT: AtomicBool = AtomicBool::new(false);

static AT_EXIT: Method = Method::of_none(c"oomguard_at_exit", at_exit);
static IN_THREAD: Method = Method::of_one(c"oomguard_in_thread", in_thread);

fn have_it_told_at_exit() -> Option<Owned> {
    let atexit = interpreter::loaded_module(c"atexit").or_else(|| interpreter::imported(c"atexit"))?;
    atexit.attribute(c"register")?.call(interpreter::function(&AT_EXIT, None)?.as_ptr())
}

/// Our function before the one that is called when a thread dies of an exception, which is then called as before.
fn watch_threads() -> Option<()> {
    let threading = interpreter::loaded_module(c"threading")?;
    let hook = threading.attribute(c"excepthook")?;
    let own = interpreter::loaded_module(c"_thread").and_then(|module| module.attribute(c"_excepthook"));
    let is_default = own.is_some_and(|own| own.as_ptr() == hook.as_ptr());
    let ours = interpreter::function(&IN_THREAD, Some(&hook))?;
    if threading.set(c"excepthook", &ours) {
        WATCHES_THREADS.store(true, Relaxed);
        // A thread that died before has said so only by the hook that says so.
        if THREADS_UNSEEN.load(Relaxed) && !is_default {
            THREAD_SAID_SO.store(true, Relaxed);
        }
    }
    Some(())
}

/// Whether what nobody catches ends the process by now.
static WATCHES_UNCAUGHT: AtomicBool = AtomicBool::new(false);

static UNRAISABLE: Method = Method::of_one(c"oomguard_unraisable", in_thread);
static CAUGHT_BY_ALL: Method = Method::of_one(c"oomguard_caught_by_all", caught_by_all);

/// Before `sys.unraisablehook`, and where a traceback is made of an exception: to be logged by a framework whose handler
/// catches everything, and goes on with the next request.
fn watch_uncaught() -> Option<()> {
    const SOURCE: &CStr = c"\
import traceback
def told_first(told, make=traceback.TracebackException.__init__):
    def __init__(self, exc_type, exc_value, *rest, **named):
        told(exc_value)
        make(self, exc_type, exc_value, *rest, **named)
    return __init__
traceback.TracebackException.__init__ = told_first(oomguard)
";
    let sys = interpreter::loaded_module(c"sys")?;
    let hook = sys.attribute(c"unraisablehook")?;
    let told = interpreter::function(&CAUGHT_BY_ALL, None)?;
    interpreter::run(SOURCE, c"oomguard", &told)?;
    WATCHES_UNCAUGHT.store(true, Relaxed);
    sys.set(c"unraisablehook", &interpreter::function(&UNRAISABLE, Some(&hook))?);
    Some(())
}

/// A thread is about to be started. Where one that dies ends the process, the main thread has to be asked while it still
/// runs: it may wait for that thread.
pub(super) fn expect_threads() {
    if uncaught::ends_process() && !WATCHES_UNCAUGHT.load(Relaxed) {
        let before = STATE.load(Relaxed);
        if before != ASKED {
            ask_to_be_called(before);
        }
    }
}

/// The last exception that nobody caught. A program may have set it itself, and gone on.
fn uncaught_exception() -> Option<Owned> {
    // From 3.12 on under the first name; the second one stays.
    interpreter::of_sys(c"last_exc").or_else(|| interpreter::of_sys(c"last_value"))
}

/// Whether the last words, as far as they are known, were about a refusal: asked of who hears them.
static SAYS_SO: Hook<fn() -> bool> = Hook::new();

fn has_said_so() -> bool {
    SAYS_SO.get().is_some_and(|says_so| says_so())
}

/// The program's exit handlers are called: it ends. `SystemExit` has been seen before.
unsafe extern "C" fn at_exit(_: *mut Object, _: *mut Object) -> *mut Object {
    if REFUSED.load(Relaxed)
        && LAST.load(Relaxed) == UNKNOWN
        && let Some(_inside) = Inside::enter()
    {
        let _aside = PutAside::new();
        if let Some(exception) = uncaught_exception() {
            LAST.store(
                match chain::look(exception) {
                    Chain::Memory => DIED_OF_MEMORY,
                    Chain::Speaks if has_said_so() => DIED_SAYING_SO,
                    Chain::Speaks => DIED_SPEAKING,
                    Chain::Other => DIED_OF_OTHER,
                },
                Relaxed,
            );
        }
    }
    interpreter::give_none()
}

/// Somebody dies of an exception: `threading.excepthook` or `sys.unraisablehook`, with the one before as what it is bound
/// to.
unsafe extern "C" fn in_thread(hook: *mut Object, arguments: *mut Object) -> *mut Object {
    let mut chain = None;
    if REFUSED.load(Relaxed)
        && let Some(_inside) = Inside::enter()
    {
        let _aside = PutAside::new();
        // SAFETY: an argument, held by the caller.
        let exception = unsafe { Owned::of(arguments) }.and_then(|all| all.attribute(c"exc_value"));
        interpreter::forget_raised();
        chain = exception.map(chain::look);
        if chain.is_some_and(|chain| chain != Chain::Other) {
            THREAD_DIED.store(true, Relaxed);
        }
    }
    // SAFETY: what the function is bound to, held by it.
    let result = unsafe { Owned::of(hook) }.and_then(|hook| hook.call(arguments));
    // It has been told as ever.
    if chain == Some(Chain::Memory) {
        uncaught::end(Evidence::Exact);
    }
    result.map_or(core::ptr::null_mut(), Owned::give)
}

/// A traceback is made of an exception.
unsafe extern "C" fn caught_by_all(_: *mut Object, exception: *mut Object) -> *mut Object {
    if REFUSED.load(Relaxed)
        && let Some(_inside) = Inside::enter()
    {
        let _aside = PutAside::new();
        // SAFETY: an argument, held by the caller.
        if let Some(exception) = unsafe { Owned::of(exception) }
            // SAFETY: the same once more.
            && unsafe { Owned::of(exception.as_ptr()) }.map(chain::look) == Some(Chain::Memory)
        {
            // The log will not be written.
            interpreter::print(&exception);
            uncaught::end(Evidence::Exact);
        }
    }
    interpreter::give_none()
}

type Fflush = unsafe extern "C" fn(*mut c_void) -> c_int;
static FFLUSH: Real = Real::new(c"fflush");

unsafe extern "C" {
    /// glibc's other name for it: for a static program, where there is no linker to ask for the next definition.
    fn _IO_fflush(stream: *mut c_void) -> c_int;
    static stdout: *mut c_void;
}

/// `says_so`: whether the last words were about a refusal.
pub(super) fn resolve(says_so: fn() -> bool) {
    SAYS_SO.set(says_so);
    let _ = FFLUSH.address();
}

/// fflush(3): of stdout, it is the first that CPython does when it leaves with `SystemExit`.
///
/// # Safety
/// That of fflush(3).
#[inline]
pub unsafe fn fflush(stream: *mut c_void) -> c_int {
    // SAFETY: a variable of the C library, set before constructors run.
    if REFUSED.load(Relaxed) && stream == unsafe { stdout } {
        look_at_system_exit();
    }
    let real = call_real!(FFLUSH, Fflush).unwrap_or(_IO_fflush);
    // SAFETY: the argument is the caller's, whose contract is the same.
    unsafe { real(stream) }
}

#[cold]
fn look_at_system_exit() {
    let errno = sys::errno::errno();
    if owner::is_guarded()
        && interpreter::holds_lock()
        && let Some(_inside) = Inside::enter()
    {
        let aside = PutAside::new();
        let chain = match aside.exception() {
            Some(exception) => exception.matches(interpreter::system_exit()).then(|| chain::look(exception)),
            None => interpreter::fetched_by_caller(interpreter::system_exit()).map(|fetched| match fetched {
                Fetched::Exception(exception) => chain::look(exception),
                Fetched::Bare => Chain::Other,
            }),
        };
        if let Some(chain) = chain {
            LAST.store(
                match chain {
                    Chain::Memory => LEFT_FOR_MEMORY,
                    Chain::Speaks => LEFT_SPEAKING,
                    Chain::Other => LEFT,
                },
                Relaxed,
            );
        }
    }
    sys::errno::set_errno(errno);
}

/// `_exit` is called: by `os._exit`, perhaps, in the midst of handling an exception.
pub(super) fn look_at_handled() {
    if !REFUSED.load(Relaxed) || !interpreter::holds_lock() {
        return;
    }
    if let Some(_inside) = Inside::enter() {
        let _aside = PutAside::new();
        let left = match interpreter::handled().map(chain::look) {
            Some(Chain::Memory) => LEFT_FOR_MEMORY,
            // Another program's C code calls `_exit` for reasons of its own.
            _ if !is_interpreter() => UNKNOWN,
            Some(Chain::Speaks) => LEFT_SPEAKING,
            // Inside `sys.excepthook` there is none that is handled.
            _ if uncaught_exception().map(chain::look).is_some_and(|chain| chain != Chain::Other) => UNKNOWN,
            Some(Chain::Other) => LEFT,
            None => LEFT_AT_ONCE,
        };
        LAST.store(left, Relaxed);
    }
}

/// What Python says of the end.
pub(super) enum Answer {
    /// Memory is why.
    Memory(Guilt),
    /// Memory is not why.
    Other,
    Unknown,
}

/// What is known of an end with this code.
pub(super) fn answer(code: u8) -> Answer {
    if !REFUSED.load(Relaxed) {
        return Answer::Unknown;
    }
    /// An exception that nobody caught.
    const DIED: u8 = 1;
    let last = LAST.load(Relaxed);
    // An interpreter inside another program has printed exceptions that its host got over.
    if last >= DIED_OF_MEMORY && (code != DIED || !is_interpreter()) {
        return Answer::Unknown;
    }
    // What a thread died of, the main thread may die of in other words.
    let is_alone = !THREAD_DIED.load(Relaxed) && !THREAD_SAID_SO.load(Relaxed);
    match last {
        LEFT_FOR_MEMORY | DIED_OF_MEMORY => Answer::Memory(guilt(Evidence::Exact)),
        DIED_SAYING_SO => Answer::Memory(guilt(Evidence::Said)),
        // A `main` that logs what went wrong, and whose result is the code: the exception is gone by then.
        LEFT if is_alone
            && has_just_said()
            && !CODES_OF_SIGNALS.contains(&code)
            && !children::is_passed_on(code, SAID_AT_MS.load(Relaxed)) =>
        {
            Answer::Memory(guilt(Evidence::Said))
        }
        LEFT | DIED_OF_OTHER if is_alone => Answer::Other,
        // A worker says what it died of, in whatever words, and leaves when that is no longer handled.
        LEFT_AT_ONCE if is_alone && !has_said_so() => Answer::Other,
        // Its end may have been decided before: what Python ignores, it ignores in exit handlers and destructors, too.
        UNKNOWN if is_alone && ignored::is_last_refusal() && !has_just_said() && is_interpreter() => {
            Answer::Other
        }
        _ => Answer::Unknown,
    }
}

fn guilt(evidence: Evidence) -> Guilt {
    let noted = notes::requested().or_else(notes::mapped).map(|noted| (noted.cause, noted.request()));
    let (cause, request) = noted
        .or_else(refused::last_here)
        .map_or((Cause::Heap, None), |(cause, request)| (cause, Some(request)));
    Guilt { cause, request, evidence }
}

/// Whether this program is Python's interpreter, and not one that has it inside.
fn is_interpreter() -> bool {
    let mut path = [0; 4096];
    let len = sys::process::executable(&mut path).unwrap_or(0);
    let path = path.get(..len).unwrap_or_default();
    behind_last(path, b'/').starts_with(b"python")
}

static SAID_BY: AtomicU32 = AtomicU32::new(0);
static SAID_AT_MS: AtomicU64 = AtomicU64::new(0);
/// How often it had waited for something by then.
static SAID_AT_WAITS: AtomicU64 = AtomicU64::new(0);
/// What had been allocated by then.
static SAID_AT_BYTES: AtomicU64 = AtomicU64::new(0);

/// The program says something. Whether that is all about an exception that Python ignores.
pub(super) fn hear(message: &[u8]) -> bool {
    /// `threading.excepthook`, and `sys.unraisablehook` of a bare thread.
    const THREAD_DIES: [&[u8]; 2] = [b"Exception in thread ", THREAD_STARTED_BY];
    if !REFUSED.load(Relaxed) {
        return false;
    }
    let here = sys::process::tid();
    let rest = if interpreter::is_found() { ignored::last_other(here, message) } else { message };
    match last_line(rest) {
        Some(line) if tells_of_refusal(line) => {
            SAID_BY.store(here, Relaxed);
            SAID_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
            SAID_AT_WAITS.store(waits(), Relaxed);
            SAID_AT_BYTES.store(notes::allocated_bytes(), Relaxed);
            notes::watch(0);
        }
        // It speaks of something else, such as how many tests have failed.
        Some(_) => {
            let _ = SAID_BY.compare_exchange(here, 0, Relaxed, Relaxed);
        }
        None => {}
    }
    let says = |words: &[u8]| place_of(message, words).is_some();
    if THREADS_UNSEEN.load(Relaxed) && THREAD_DIES.iter().any(|words| says(words)) {
        THREAD_SAID_SO.store(true, Relaxed);
    }
    rest.is_empty() && !message.is_empty()
}

/// How a bare thread's end is told, as if it were ignored.
const THREAD_STARTED_BY: &[u8] = b"in thread started by";

/// The last line that says anything.
fn last_line(message: &[u8]) -> Option<&[u8]> {
    const LEAST_LETTERS: usize = 8;
    let letters =
        |line: &&[u8]| line.iter().filter(|byte| byte.is_ascii_alphabetic()).count() >= LEAST_LETTERS;
    message.rsplit(|byte| *byte == b'\n').find(letters)
}

/// Whether it is about a refusal that is open: it names the exception, or one that is made from it, as a traceback's last line
/// does (`ArrayMemoryError`); or it says in whatever words that memory is gone, straight after that.
fn tells_of_refusal(line: &[u8]) -> bool {
    const NAME: &[u8] = b"MemoryError";
    /// What a handler and its message take.
    const STRAIGHT_ALLOCATIONS: u64 = 256;
    let Some(noted) = notes::requested().or_else(notes::mapped) else { return false };
    Message::of(line) == Some(Message::OutOfMemory)
        && (noted.allocations_since <= STRAIGHT_ALLOCATIONS || place_of(line, NAME).is_some())
}

/// Whether this thread has just told of its `MemoryError`, and not gone on with its work since: a program that logs its
/// exception, and then leaves.
fn has_just_said() -> bool {
    const MOMENT_MS: u64 = 1000;
    /// Who has waited for so long in between serves: a request, or the signal that ends it.
    const WAIT_MS: u64 = 100;
    let ms_since = sys::clock::monotonic_ms().saturating_sub(SAID_AT_MS.load(Relaxed));
    let has_waited = waits() != SAID_AT_WAITS.load(Relaxed);
    let since = notes::allocated_bytes().saturating_sub(SAID_AT_BYTES.load(Relaxed));
    armed().is_some_and(|armed| since < notes::last_bytes(armed))
        && SAID_BY.load(Relaxed) == sys::process::tid()
        && ms_since < if has_waited { WAIT_MS } else { MOMENT_MS }
}

/// How often this thread has waited for something.
fn waits() -> u64 {
    if filter::may_ask() { sys::process::thread_waits() } else { 0 }
}
