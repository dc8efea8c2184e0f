//! The signals of a crash: SIGABRT, SIGSEGV, SIGILL, SIGTRAP. A handler asks whether memory is why; if not, the
//! default is put back and the fault happens again, so that core dump and status are what they would have been.

use super::{ends, handlers, messages};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use oomguard_core::contract::{Cause, Evidence, Measure};
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::memory::{Resource, rlimit};
use oomguard_engine::armed::{Armed, armed};
use oomguard_engine::exhaustion::{self, Own};
use oomguard_engine::standing::{self, Standing};
use oomguard_engine::{asked, judge, notes, owner, record, refused, unwind};

/// Where the main thread handles a signal when its stack cannot grow. As large as the largest that a processor's
/// registers ask for (AT_MINSIGSTKSZ in getauxval(3)), several times over.
struct AlternateStack(UnsafeCell<[u8; 64 << 10]>);

// SAFETY: handed to the kernel once, for one thread.
unsafe impl Sync for AlternateStack {}

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static ALTERNATE_STACK: AlternateStack = AlternateStack(UnsafeCell::new([0; 64 << 10]));

/// Holds the signals that nobody else does.
pub(super) fn install() {
    if !sys::signals::has_alternate_stack() {
        let stack = libc::stack_t {
            ss_sp: ALTERNATE_STACK.0.get().cast(),
            ss_flags: 0,
            ss_size: size_of::<AlternateStack>(),
        };
        // SAFETY: memory that lives for ever and that nobody else uses.
        unsafe { sys::raw::sigaltstack(&raw const stack, core::ptr::null_mut()) };
    }
    handlers::hold(on_fault);
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = sys::errno::errno();
    // SAFETY: the kernel hands a handler with SA_SIGINFO its description.
    let info = unsafe { &*info };
    if let Some(armed) = armed()
        && owner::is_guarded()
    {
        if signal == libc::SIGABRT && asked::heed(armed, info) {
            sys::errno::set_errno(errno);
            return;
        }
        match standing::here() {
            Standing::Dying => standing::exit(armed),
            Standing::Outlived => standing::park(armed),
            Standing::Alive => judge(armed, signal, info, context),
        }
    }
    sys::signals::set_default(signal);
    // A trap and a signal that was sent do not happen again by themselves; blocked while we are here, it comes then.
    if info.si_code <= 0 || signal == libc::SIGTRAP {
        sys::signals::raise_here(signal);
    }
    sys::errno::set_errno(errno);
}

fn judge(armed: &Armed, signal: c_int, info: &libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a signal that a process sent carries that process's number.
    let is_own = info.si_code > 0 || unsafe { info.si_pid() }.unsigned_abs() == sys::process::pid();
    if signal == libc::SIGABRT && is_own {
        // For the second time, where `abort` was called by its name: with the same answer.
        return ends::judge_abort_of_library(armed);
    }
    let guilt = match signal {
        // Sent by somebody else, it says nothing about memory. By the program itself, it is how a handler of its own
        // ends, once it has seen the fault: an abort. Where it never had one, it has other reasons, unless it has just said
        // that memory is gone.
        _ if info.si_code <= 0 => {
            if !is_own {
                None
            } else if handlers::has_been_handled(signal) {
                judge::of_handled_fault(armed, messages::said(armed))
            } else if messages::has_just_spoken() {
                judge::by_message(messages::said(armed))
            } else {
                None
            }
        }
        libc::SIGSEGV => {
            // SAFETY: a SIGSEGV of the kernel's own carries the address.
            let address = unsafe { info.si_addr() } as usize;
            let not_mapped = info.si_code == SEGV_MAPERR;
            let missing = if not_mapped { missing_block(armed, address) } else { None };
            missing
                .or_else(|| {
                    let stack_pointer = stack_pointer(context);
                    if not_mapped { stack_that_could_not_grow(armed, address, stack_pointer) } else { None }
                })
                .or_else(|| {
                    if not_mapped { overflow_of_handling(address, stack_pointer(context)) } else { None }
                })
                .or_else(|| judge::by_message(messages::said(armed)))
        }
        _ => judge::of_trap(armed, messages::said(armed)),
    };
    match guilt {
        Some(guilt) => {
            exhaustion::end(armed, guilt.verdict(u8::try_from(signal).map_or(Own::Unknown, Own::Signal)));
        }
        None => record::acquit(),
    }
}

/// Nothing is mapped there: sigaction(2).
const SEGV_MAPERR: c_int = 1;

/// So far from a null pointer, or from MAP_FAILED, a member or an element may lie.
const NEAR_BYTES: u64 = 64 << 10;

/// Whether the address is that of a block that was refused to this thread: null, or MAP_FAILED, and not checked.
fn missing_block(armed: &Armed, address: usize) -> Option<judge::Guilt> {
    let from_null = address as u64;
    let from_map_failed = (address as u64).wrapping_sub(u64::MAX);
    let here = sys::process::tid();
    // One that is beyond the limit by itself would be refused at any time: that tells nothing once the program has gone on.
    let is_current = |noted: &notes::Noted| {
        let is_possible = armed.could_hold(noted.bytes);
        noted.tid == here
            && noted.bytes_since < notes::last_bytes(armed)
            && (is_possible || judge::is_straight(noted))
    };
    let near = |noted: &notes::Noted| NEAR_BYTES.max(noted.bytes);
    // Who checks nothing dies with the heap still full, or of a size that can never be had.
    let requested = notes::requested().map(of_this_thread).map(notes::Noted::by_its_thread);
    let requested = requested.filter(is_current).filter(judge::would_be_refused);
    if let Some(noted) = requested.filter(|noted| from_null < near(noted)) {
        return Some(judge::guilt(&noted, Evidence::Fault));
    }
    let mapped = notes::mapped().map(notes::Noted::by_its_thread).filter(is_current);
    mapped
        .filter(|noted| from_map_failed < near(noted) || from_null > u64::MAX - NEAR_BYTES)
        .map(|noted| judge::guilt(&noted, Evidence::Fault))
}

/// Where another thread has been refused something a moment ago: what this one was refused before, and has not got over either.
fn of_this_thread(mut noted: notes::Noted) -> notes::Noted {
    let here = sys::process::tid();
    if let Some((Cause::Heap, request)) = refused::last_here()
        && noted.tid != here
        && noted.ms_since <= judge::UNSAID_MS
    {
        noted.cause = Cause::Heap;
        noted.align = request.align;
        noted.bytes = request.bytes;
        noted.tid = here;
    }
    noted
}

fn stack_pointer(context: *mut c_void) -> usize {
    // SAFETY: the kernel hands a handler with SA_SIGINFO the context that it interrupted.
    unsafe { unwind::interrupted(context) }.sp
}

/// Whether the stack is full because handling a refusal was refused memory, and so on: dash.
fn overflow_of_handling(address: usize, stack_pointer: usize) -> Option<judge::Guilt> {
    if address.abs_diff(stack_pointer) > GROWTH_BYTES {
        return None;
    }
    let noted = notes::requested()?;
    let is_straight = noted.tid == sys::process::tid() && judge::is_straight(&noted);
    (is_straight && judge::would_be_refused(&noted)).then(|| judge::guilt(&noted, Evidence::Straight))
}

/// What a stack may be short of at once: the kernel lets no fault be farther below it than this.
const GROWTH_BYTES: usize = 1 << 20;

/// Whether the main stack wanted to grow and address space was at its limit.
fn stack_that_could_not_grow(armed: &Armed, address: usize, stack_pointer: usize) -> Option<judge::Guilt> {
    if sys::process::tid() != sys::process::pid() || address.abs_diff(stack_pointer) > GROWTH_BYTES {
        return None;
    }
    let stack = sys::memory::main_stack()?;
    let missing = stack.start.checked_sub(address)?;
    // Further than it may ever grow: a plain overflow.
    let most = rlimit(Resource::Stack).soft.unwrap_or(u64::MAX);
    if missing == 0 || missing > GROWTH_BYTES || (stack.end - address) as u64 >= most {
        return None;
    }
    let limited = armed.measure == Measure::AddressSpace || rlimit(Resource::AddressSpace).soft.is_some();
    (limited && oomguard_engine::resident::would_be_refused(missing)).then_some(judge::Guilt {
        cause: Cause::Stack,
        request: Some(Request { bytes: missing as u64, align: None }),
        evidence: Evidence::Fault,
    })
}
