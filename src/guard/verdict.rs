//! Whether this thread is dying of a refusal. Told from the stack: a program that cannot go on without an allocation
//! calls `std::alloc::handle_alloc_error`, and a program that copes does not. Nothing is guessed from what was refused
//! earlier.

// A static program cannot reach the `pthread_create` that ours would hide, so it has none of ours.
#![cfg_attr(target_feature = "crt-static", allow(dead_code))]

use super::armed::{Armed, armed};
use super::exhaustion::{self, Own, Verdict};
use super::refusal;
use crate::contract::{Cause, Evidence};
use crate::report::Request;
use crate::sys;
use core::num::NonZeroUsize;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use once_cell::race::OnceNonZeroUsize;
use std::alloc::Layout;

/// How far above the stack pointer a return address is looked for, in words. What lies between `handle_alloc_error`
/// and the first output of its hook, or `abort`, has been seen to take up to 160.
const SEARCHED_WORDS: usize = 1024;

/// Where a function's code is not described, its first bytes.
const ASSUMED_CODE_BYTES: usize = 32;

/// Finds the code of `handle_alloc_error`. At start-up: this asks the dynamic linker.
pub(super) fn alloc_error_code() -> Range<usize> {
    let start = std::alloc::handle_alloc_error as fn(Layout) -> ! as *const () as usize;
    sys::symbols::code_of_function(start).unwrap_or(start..start + ASSUMED_CODE_BYTES)
}

/// The code of the C library's function that registers a thread-local's destructor: it allocates, and aborts where
/// that is refused. Empty where it was not found.
static THREAD_EXIT_CODE: OnceNonZeroUsize = OnceNonZeroUsize::new();
static THREAD_EXIT_CODE_END: OnceNonZeroUsize = OnceNonZeroUsize::new();

/// The process is about to have a second thread: the last moment to ask the dynamic linker without meeting its lock.
pub(super) fn note_thread() {
    if super::anchor::FINDS_HIDDEN && THREAD_EXIT_CODE.get().is_none() {
        let code = sys::symbols::next_definition(c"__cxa_thread_atexit_impl")
            .and_then(sys::symbols::code_of_function);
        let (start, end) = code.map_or((1, 1), |code| (code.start, code.end));
        let _ = THREAD_EXIT_CODE_END.set(NonZeroUsize::new(end).unwrap_or(NonZeroUsize::MIN));
        let _ = THREAD_EXIT_CODE.set(NonZeroUsize::new(start).unwrap_or(NonZeroUsize::MIN));
    }
}

/// Whether the abort at this stack pointer is the C library's, for want of a thread-local's destructor. In a signal
/// handler.
fn is_called_from_thread_exit(stack_pointer: usize) -> bool {
    // Without a second thread nobody else can hold the linker's lock.
    note_thread();
    let (Some(start), Some(end)) = (THREAD_EXIT_CODE.get(), THREAD_EXIT_CODE_END.get()) else { return false };
    // The C library keeps no frame pointers.
    is_called_from(&(start.get()..end.get()), stack_pointer, |_| true)
}

/// Whether `handle_alloc_error`, within reach, called the function that has this stack pointer.
fn is_called_from_alloc_error(armed: &Armed, stack_pointer: usize) -> bool {
    is_called_from(&armed.alloc_error_code, stack_pointer, has_frame_pointer_below)
}

/// The bytes that the frame of `handle_alloc_error` may have between its return address and its callee's.
const LARGEST_FRAME_BYTES: usize = 256;

/// Whether the word below `address` points to a frame just above it: what a function with a frame pointer, as all of
/// the standard library's are since 1.79, saves next to the address that it returns to.
fn has_frame_pointer_below(address: usize) -> bool {
    let saved = address - size_of::<usize>();
    if !sys::memory::is_readable(saved) {
        return false;
    }
    // SAFETY: aligned, and the kernel could just read it; it may change meanwhile, hence volatile.
    let frame = unsafe { (saved as *const usize).read_volatile() };
    frame > address && frame - address <= LARGEST_FRAME_BYTES
}

/// Whether a function that called the current one, within reach, was called from `code`.
///
/// A call that does not return may be the last instruction: the address behind it is then the end of the code, which
/// is also the beginning of the next function. Unwinders leave such beginnings on the stack, so `confirm_end` decides
/// by the word's address.
fn is_called_from(code: &Range<usize>, stack_pointer: usize, confirm_end: fn(usize) -> bool) -> bool {
    const WORD: usize = size_of::<usize>();
    const PAGE: usize = 4096;
    // A function that was not found: its end is no address, only a number that may be anywhere.
    if code.is_empty() {
        return false;
    }
    let mut address = stack_pointer.next_multiple_of(WORD);
    let mut readable_up_to = 0;
    for _ in 0..SEARCHED_WORDS {
        if address >= readable_up_to {
            if !sys::memory::is_readable(address) {
                return false;
            }
            readable_up_to = (address / PAGE + 1) * PAGE;
        }
        // SAFETY: aligned, and in a page that the kernel could just read; it is this thread's own stack or the memory
        // above it, which may change meanwhile, hence volatile.
        let word = unsafe { (address as *const usize).read_volatile() };
        if word > code.start && word < code.end || word == code.end && confirm_end(address) {
            return true;
        }
        address += WORD;
    }
    false
}

/// Whether the calling thread is inside `handle_alloc_error`.
#[inline(always)]
pub(super) fn is_in_alloc_error(armed: &Armed) -> bool {
    let here = 0usize;
    is_called_from_alloc_error(armed, &raw const here as usize)
}

/// A call from inside `handle_alloc_error` ends the process here.
#[inline(always)]
pub(super) fn end_if_called_from_alloc_error(armed: &Armed) {
    if is_in_alloc_error(armed) {
        end_of_allocation(armed);
    }
}

fn end_of_allocation(armed: &Armed) -> ! {
    // Nothing noted: the program called handle_alloc_error itself, for a reason of its own.
    let (cause, request) =
        refusal::last_here().map_or((Cause::Heap, None), |(cause, request)| (cause, Some(request)));
    let cause = if cause == Cause::Thread { Cause::Heap } else { cause };
    exhaustion::end(armed, Verdict { cause, request, evidence: Evidence::Exact, own: Own::ABORT })
}

/// How much must be refused right now for an abort in the midst of a panic to count as exhaustion, in bytes.
const TELLING_BYTES: usize = 64 << 10;

/// The process is about to abort: ends it here if memory is why.
pub(super) fn judge_abort(armed: &Armed) {
    end_if_called_from_alloc_error(armed);
    if !std::thread::panicking() {
        return;
    }
    let end = |cause, request, evidence| {
        exhaustion::end(armed, Verdict { cause, request, evidence, own: Own::ABORT });
    };
    if is_thread_without_its_signal_stack() {
        end(Cause::Thread, None, Evidence::Missing);
    }
    if let Some((request, evidence)) = refused_thread_is_why() {
        end(Cause::Thread, Some(request), evidence);
    }
    // A panic that could not even be started, or that met the next one.
    if refusal::refused_count() > 0 && sys::memory::would_be_refused(TELLING_BYTES) {
        end(Cause::Heap, refusal::last_here().map(|(_, request)| request), Evidence::Missing);
    }
}

/// std gives each thread that it starts an alternate signal stack, and panics there where it cannot; that panic can
/// only abort. A thread that panics without that stack, in a process that was refused memory, is that case.
fn is_thread_without_its_signal_stack() -> bool {
    let std_wants_one = sys::signals::disposition(libc::SIGSEGV).sa_sigaction != libc::SIG_DFL;
    std_wants_one
        && sys::process::tid() != sys::process::pid()
        && !sys::signals::has_alternate_stack()
        && (refusal::refused_count() > 0 || sys::memory::would_be_refused(TELLING_BYTES))
}

/// The bytes of the stack that the last refused thread would have had; zero when there is nothing to answer for.
static REFUSED_STACK: AtomicU64 = AtomicU64::new(0);

/// The process in which it was refused: a child that is forked has nothing to answer for.
static REFUSED_IN: AtomicU32 = AtomicU32::new(0);

/// What the last panic's message said: nothing seen, a thread that could not be started, something else.
static LAST_PANIC: AtomicU32 = AtomicU32::new(PANIC_UNSEEN);
const PANIC_UNSEEN: u32 = 0;
const PANIC_OF_SPAWN: u32 = 1;
const PANIC_OTHER: u32 = 2;

// Relaxed for all three: the thread that is refused and the one that exits are the same, or joined; a race between two
// threads that panic at once is decided either way by the memory that is left.

/// A thread could not be started for want of memory.
pub(super) fn note_refused_thread(stack_bytes: u64) {
    REFUSED_STACK.store(stack_bytes.max(1), Ordering::Relaxed);
    REFUSED_IN.store(sys::process::pid(), Ordering::Relaxed);
    LAST_PANIC.store(PANIC_UNSEEN, Ordering::Relaxed);
}

/// A thread was started: whatever was refused before has been coped with.
pub(super) fn forget_refused_thread() {
    REFUSED_STACK.store(0, Ordering::Relaxed);
}

/// Whether there is a refused thread to answer for.
pub(super) fn has_refused_thread() -> bool {
    refused_stack() != 0
}

fn refused_stack() -> u64 {
    match REFUSED_STACK.load(Ordering::Relaxed) {
        0 => 0,
        _ if REFUSED_IN.load(Ordering::Relaxed) != sys::process::pid() => 0,
        bytes => bytes,
    }
}

/// Reads a panic's message as it goes to stderr, where a thread was refused before: std's `thread::spawn` says why it
/// panics. Other panics take the blame off it.
pub(super) fn note_message(message: &[u8]) {
    if refused_stack() == 0 {
        return;
    }
    let contains = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
    if contains(b"panicked at ") {
        // `Any { .. }` is all that std says of the panic of a thread that was joined: the one that is known already.
        let why = match LAST_PANIC.load(Ordering::Relaxed) {
            _ if contains(b"failed to spawn thread") => PANIC_OF_SPAWN,
            // Another thread, which was started with the last memory and did not get its signal stack: it does not take
            // the blame off the one that could not be started at all.
            _ if contains(b"alternative stack") => PANIC_OF_SPAWN,
            PANIC_OF_SPAWN if contains(b"Any { .. }") => PANIC_OF_SPAWN,
            _ => PANIC_OTHER,
        };
        LAST_PANIC.store(why, Ordering::Relaxed);
    }
}

/// Whether a process that ends in a panic does so because a thread could not be started.
pub(super) fn refused_thread_is_why() -> Option<(Request, Evidence)> {
    let stack_bytes = refused_stack();
    if stack_bytes == 0 {
        return None;
    }
    let evidence = match LAST_PANIC.load(Ordering::Relaxed) {
        PANIC_OF_SPAWN => Evidence::Said,
        PANIC_OTHER => return None,
        // The program has a panic hook of its own: is the memory still missing?
        _ if sys::memory::would_be_refused(usize::try_from(stack_bytes).unwrap_or(usize::MAX)) => {
            Evidence::Missing
        }
        _ => return None,
    };
    Some((Request { bytes: stack_bytes, align: None }, evidence))
}

/// The thread whose abort has been judged already, so that SIGABRT does not ask again.
static JUDGED_HERE: AtomicU32 = AtomicU32::new(0);

/// This thread's abort is its own affair.
pub(super) fn acquit_abort() {
    // Relaxed: read back by the same thread, in its signal handler.
    JUDGED_HERE.store(sys::process::tid(), Ordering::Relaxed);
}

/// Catches the aborts that do not pass through our `abort`: those inside the C library, and, where nothing can be
/// interposed, all of them. A program that ignores SIGABRT goes on doing so.
pub(super) fn install_abort_handler(armed: &Armed) {
    if armed.abort_action.sa_sigaction != libc::SIG_IGN {
        sys::signals::install(libc::SIGABRT, on_abort_signal);
    }
}

extern "C" fn on_abort_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(armed) = armed() else { return };
    let errno = sys::fd::errno();
    match exhaustion::standing() {
        exhaustion::Standing::Dying => exhaustion::exit(armed),
        exhaustion::Standing::Outlived => exhaustion::park(armed),
        exhaustion::Standing::Alive => {}
    }
    // Relaxed: as in `acquit_abort`.
    if JUDGED_HERE.load(Ordering::Relaxed) != sys::process::tid() {
        // SAFETY: the kernel hands a handler with SA_SIGINFO the context that it interrupted.
        let stack_pointer = unsafe { interrupted_stack_pointer(context) };
        if is_called_from_alloc_error(armed, stack_pointer) {
            end_of_allocation(armed);
        }
        if is_called_from_thread_exit(stack_pointer) {
            let (cause, evidence, own) = (Cause::Heap, Evidence::Exact, Own::ABORT);
            exhaustion::end(armed, Verdict { cause, request: None, evidence, own });
        }
        if !super::anchor::INTERPOSES {
            judge_abort(armed);
        }
    }
    pass_on(armed, signal, info, context);
    sys::fd::set_errno(errno);
}

/// Does what SIGABRT did before us.
fn pass_on(armed: &Armed, signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let action = &armed.abort_action;
    match action.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The signal is blocked while we handle it: this one arrives when we return.
            sys::signals::set_default(signal);
            sys::signals::raise_here(signal);
        }
        handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a handler that was installed with SA_SIGINFO takes these three arguments.
            let handler: sys::signals::Handler = unsafe { core::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: a handler that was installed without SA_SIGINFO takes the signal's number.
            let handler: extern "C" fn(i32) = unsafe { core::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// # Safety
/// `context` is the third argument of a signal handler.
pub(super) unsafe fn interrupted_stack_pointer(context: *mut libc::c_void) -> usize {
    // SAFETY: by contract it points to a ucontext_t for as long as the handler runs.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    {
        context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize
    }
    #[cfg(target_arch = "aarch64")]
    {
        context.uc_mcontext.sp as usize
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        // The handler's own frame: right wherever there is no alternate stack.
        &raw const *context as usize
    }
}

/// The real hook, which nightly compilers let us set.
#[cfg(feature = "nightly")]
pub(super) fn alloc_error_hook(_layout: Layout) {
    if let Some(armed) = armed() {
        end_of_allocation(armed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn is_found(code: Range<usize>, words: &[usize]) -> bool {
        is_called_from(&code, words.as_ptr() as usize, |_| true)
    }

    #[test]
    fn a_return_address_is_found_and_its_neighbours_are_not() {
        const CODE: Range<usize> = 0x7000_0000_1000..0x7000_0000_1040;
        // Zeroes up to the end of what is searched, whatever lies behind.
        let mut words = vec![0; SEARCHED_WORDS + 1];
        for (word, found) in [
            (CODE.start, false),
            (CODE.start + 1, true),
            (CODE.end - 1, true),
            (CODE.end, true),
            (CODE.end + 1, false),
        ] {
            words[SEARCHED_WORDS - 1] = word;
            assert_eq!(is_found(CODE, &words), found, "{word:#x}");
        }
        words[SEARCHED_WORDS - 1] = CODE.end;
        assert!(!is_called_from(&CODE, words.as_ptr() as usize, |_| false));
    }

    #[test]
    fn code_that_was_not_found_has_called_nobody() {
        // The stand-in for an unknown function; ones are everywhere on a stack.
        assert!(!is_found(1..1, &vec![1; SEARCHED_WORDS + 1]));
    }
}
