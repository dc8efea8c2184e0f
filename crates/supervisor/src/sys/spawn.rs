//! A child of this process that becomes another program, as posix_spawn(3) makes it: in the memory of this process until
//! it does, so that no page table is copied, while the thread that starts it waits (CLONE_VM and CLONE_VFORK, clone(2)).
//! That thread cannot even be killed meanwhile, so a child that waits for others before it executes gets a copy instead.
//!
//! It differs from posix_spawn(3) in what can be done between clone and exec. The rules are those of signal handlers, and
//! one more: what the child writes, this process has written. So all that it needs is made before. Its descriptors,
//! directory, rlimits, signal dispositions and mask are its own.

use super::errno::errno;
use super::signals::{self, Signals};
use core::cell::{Cell, UnsafeCell};
use core::ffi::{CStr, c_char, c_int, c_void};
use parking_lot::Mutex;
use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;

/// What the child does, in this order.
pub(crate) struct Plan<'a> {
    /// What becomes its stdin, stdout and stderr: descriptors above those. `None`: as it is here.
    pub(crate) stdio: [Option<i32>; 3],
    pub(crate) directory: Option<&'a CStr>,
    pub(crate) process_group: Option<i32>,
    /// Async-signal-safe, and changes nothing in memory. Signals are as the program is to find them, but for what this
    /// does to them.
    pub(crate) before_exec: &'a dyn Fn() -> io::Result<()>,
    /// The files to be tried one after the other: what PATH makes of a name.
    pub(crate) files: &'a [CString],
    pub(crate) arguments: &'a Strings,
    pub(crate) environment: &'a Strings,
    /// What comes after the name of a script without a first line, which `sh` is to run as execvp(3) has it: `sh`, room
    /// for the script's name, and the arguments behind the first.
    pub(crate) of_script: &'a Strings,
    /// `before_exec` waits for others.
    pub(crate) waits: bool,
}

/// C strings, and the list of pointers to them that ends with null.
pub(crate) struct Strings {
    pointers: Vec<Cell<*const c_char>>,
    /// Where those lead to.
    _strings: Vec<CString>,
}

impl Strings {
    pub(crate) fn new(strings: Vec<CString>) -> Strings {
        let end = core::iter::once(core::ptr::null());
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(end).map(Cell::new).collect();
        Strings { pointers, _strings: strings }
    }

    fn as_ptr(&self) -> *const *const c_char {
        // `Cell` is transparent.
        self.pointers.as_ptr().cast()
    }
}

/// Starts a child; its number. Back when it has become the program. The error is the child's `errno`, of whatever it did
/// not get done; then there is no child any more.
///
/// `before_exec` is to keep what `Plan` says.
pub(crate) fn start(plan: &Plan<'_>) -> io::Result<u32> {
    static STACK: Mutex<Stack> = Mutex::new(Stack(UnsafeCell::new([0; STACK_BYTES])));
    let stack = STACK.lock();
    // SAFETY: one past the end of the array.
    let top = unsafe { stack.0.get().cast::<u8>().add(STACK_BYTES) };
    let (teller, told) = if plan.waits { Some(pipe()?) } else { None }.unzip();
    // No handler of this process's is to run in the child.
    let mask = signals::block_these(Signals::ALL);
    let order = Order { plan, mask, error: Cell::new(0), told: told.as_ref().map(AsRawFd::as_raw_fd) };
    let memory = if plan.waits { 0 } else { libc::CLONE_VM | libc::CLONE_VFORK };
    // SAFETY: the stack is ours until the lock is given back, and so is `order`, or the child has copies of both: this
    // thread goes on when the child is another program, or no more. `child` does nothing that this process could not do.
    let pid = unsafe {
        libc::clone(child, top.cast(), memory | libc::SIGCHLD, (&raw const order).cast_mut().cast())
    };
    let refused = errno();
    signals::set_blocked(mask);
    drop(stack);
    drop(told);
    let error = match teller {
        Some(teller) if pid >= 0 => error_told(teller),
        _ => order.error.get(),
    };
    match (u32::try_from(pid), error) {
        (Ok(pid), 0) => Ok(pid),
        (Ok(pid), error) => {
            // Ended by itself a moment ago. ECHILD where somebody else waits for all children.
            let _ = super::child::reap(pid);
            Err(io::Error::from_raw_os_error(error))
        }
        (Err(_), _) => Err(io::Error::from_raw_os_error(refused)),
    }
}

/// Closed when the child executes: both ends are close-on-exec. Above the numbers that the child puts its streams under.
fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    const ABOVE_STDIO: i32 = 3;
    let (reader, writer) = io::pipe()?;
    Ok((reader, super::child::move_up(writer.into(), ABOVE_STDIO).into()))
}

/// Waits until the child has executed, or has said what was in the way.
fn error_told(mut teller: PipeReader) -> i32 {
    let mut error = [0; size_of::<i32>()];
    match teller.read_exact(&mut error) {
        Ok(()) => i32::from_ne_bytes(error),
        Err(_) => 0,
    }
}

/// Enough for what is below.
const STACK_BYTES: usize = 128 << 10;

#[repr(align(16))]
struct Stack(UnsafeCell<[u8; STACK_BYTES]>);

// SAFETY: whoever has the lock around it is the only one to use it.
unsafe impl Send for Stack {}

struct Order<'a> {
    plan: &'a Plan<'a>,
    /// What the thread blocked that starts the child.
    mask: Signals,
    /// What came of it, written by the child; read when it is gone.
    error: Cell<i32>,
    /// Where to say it, as the child has a copy of that.
    told: Option<i32>,
}

extern "C" fn child(order: *mut c_void) -> c_int {
    // SAFETY: `start` hands over its own, and waits.
    let order = unsafe { &*order.cast::<Order<'_>>() };
    let error = become_program(order);
    order.error.set(error);
    if let Some(told) = order.told {
        super::fd::write_patiently(told, &error.to_ne_bytes(), 0);
    }
    super::process::exit_now(127)
}

/// Comes back with what was in the way.
fn become_program(order: &Order<'_>) -> i32 {
    let plan = order.plan;
    for (target, fd) in (0..).zip(plan.stdio) {
        // SAFETY: dup2 takes no pointer.
        if fd.is_some_and(|fd| unsafe { libc::dup2(fd, target) } < 0) {
            return errno();
        }
    }
    // SAFETY: a C string that outlives the call.
    if plan.directory.is_some_and(|directory| unsafe { libc::chdir(directory.as_ptr()) } != 0) {
        return errno();
    }
    // SAFETY: setpgid takes no pointer.
    if plan.process_group.is_some_and(|group| unsafe { libc::setpgid(0, group) } != 0) {
        return errno();
    }
    reset_signals(order.mask);
    if let Err(error) = (plan.before_exec)() {
        return error.raw_os_error().unwrap_or(libc::EINVAL);
    }
    execute(plan)
}

/// As `std::process::Command` leaves them: SIGPIPE, which Rust's runtime ignores, does what it does by default. By the raw
/// call: who stands before the C library's may keep accounts, which are this process's.
fn reset_signals(mask: Signals) {
    const SIGNALS: core::ops::RangeInclusive<i32> = 1..=64;
    static DEFAULT: KernelsAction = [libc::SIG_DFL; 4];
    for signal in SIGNALS {
        let mut now = DEFAULT;
        change_action(signal, core::ptr::null(), &raw mut now);
        if !matches!(now[0], libc::SIG_DFL | libc::SIG_IGN) || signal == libc::SIGPIPE {
            change_action(signal, &raw const DEFAULT, core::ptr::null_mut());
        }
    }
    signals::set_blocked(mask);
}

/// The handler, flags and whatever else; all zero is the default action.
type KernelsAction = [usize; 4];

fn change_action(signal: i32, new: *const KernelsAction, old: *mut KernelsAction) {
    // SAFETY: each is null or as large as the kernel's structure, and readable or writable during the call.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<Signals>()) };
}

/// As execvp(3) does, with the child's own PATH.
fn execute(plan: &Plan<'_>) -> i32 {
    let mut found = libc::ENOENT;
    for file in plan.files {
        let mut error = execve(file.as_ptr(), plan.arguments, plan.environment);
        // Only glibc has a script without a first line run.
        if error == libc::ENOEXEC && cfg!(target_env = "gnu") {
            if let Some(place) = plan.of_script.pointers.get(1) {
                place.set(file.as_ptr());
            }
            error = execve(c"/bin/sh".as_ptr(), plan.of_script, plan.environment);
        }
        match error {
            // What is not there may be elsewhere.
            libc::EACCES | libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            error => return error,
        }
        if found != libc::EACCES {
            found = error;
        }
    }
    found
}

/// By the raw call: a library of an outer launcher's would set the limit that holds for what its own program executes.
fn execve(file: *const c_char, arguments: &Strings, environment: &Strings) -> i32 {
    // SAFETY: a C string, and two lists of C strings that end with null, all of which outlive the call.
    unsafe { libc::syscall(libc::SYS_execve, file, arguments.as_ptr(), environment.as_ptr()) };
    errno()
}
