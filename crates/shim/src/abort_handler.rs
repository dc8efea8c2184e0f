//! A handler of the program's own for SIGABRT: it comes between `abort` and the end. It may say something, leave by a code,
//! raise the signal once more; or jump out of the abort, as frameworks for tests do, and then nothing has ended.

use super::handlers;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use oomguard_core::sys;
use oomguard_engine::exhaustion::Verdict;
use oomguard_engine::notes;

/// The thread whose handler runs; zero for none. Relaxed throughout: only that thread reads what it has written, but for
/// `BEGAN_MS`, by which others take over from one that has jumped out long ago.
static THREAD: AtomicU32 = AtomicU32::new(0);
/// When it began.
static BEGAN_MS: AtomicU64 = AtomicU64::new(0);
/// Where its `Mark` is, which is gone when the handler has jumped out.
static MARK_AT: AtomicUsize = AtomicUsize::new(0);

/// What stands in the frame of [`run`], and nowhere else.
type Mark = [u64; 8];

/// For how long a handler may say something and leave by a code of its own, in milliseconds. Later it is taken to have
/// jumped out: what its frames leave behind on the stack is overwritten at some time only.
const LASTS_MS: u64 = 2_000;

/// The process in which such a handler has jumped out of an abort; zero for none.
static LEFT_IN: AtomicU32 = AtomicU32::new(0);

/// Whether the program has got over an abort: what led to that is told by its words alone from then on.
pub(super) fn has_been_left() -> bool {
    LEFT_IN.load(Relaxed) == sys::process::pid()
}

/// It aborts for no want of memory, though something that it was refused is open: where its handler leaves by a code, or jumps out
/// and it ends later, its words alone tell of that.
pub(super) fn note_other_abort() {
    if notes::requested().or_else(notes::mapped).is_some() && handlers::is_handled_by_program(libc::SIGABRT) {
        LEFT_IN.store(sys::process::pid(), Relaxed);
    }
}

/// What the process ends of.
struct Kept(UnsafeCell<MaybeUninit<Verdict>>);

// SAFETY: written and read by the one thread that `THREAD` names.
unsafe impl Sync for Kept {}

static VERDICT: Kept = Kept(UnsafeCell::new(MaybeUninit::uninit()));

/// Runs it, if there is one, as abort(3) does: where it comes back, the process is to end. False: another thread's handler
/// is running, and may jump out of its abort; so the C library is to go on with this one as it would.
pub(super) fn run(verdict: Verdict) -> bool {
    if !handlers::is_handled_by_program(libc::SIGABRT) {
        return true;
    }
    if !take_turn() {
        return false;
    }
    // SAFETY: no other thread, by `THREAD`.
    unsafe { (*VERDICT.0.get()).write(verdict) };
    let mark = core::hint::black_box(mark());
    MARK_AT.store(&raw const mark as usize, Relaxed);
    sys::signals::unblock(libc::SIGABRT);
    sys::signals::raise_here(libc::SIGABRT);
    core::hint::black_box(&mark);
    MARK_AT.store(0, Relaxed);
    THREAD.store(0, Relaxed);
    true
}

/// The only one whose handler runs from here on; false while another thread's does.
fn take_turn() -> bool {
    let tid = sys::process::tid();
    let now = sys::clock::monotonic_ms();
    let other = THREAD.load(Relaxed);
    let is_over = other == 0 || other == tid || now.saturating_sub(BEGAN_MS.load(Relaxed)) > LASTS_MS;
    if !is_over || THREAD.compare_exchange(other, tid, Relaxed, Relaxed).is_err() {
        return false;
    }
    MARK_AT.store(0, Relaxed);
    BEGAN_MS.store(now, Relaxed);
    true
}

/// The mark of the turn that began last.
fn mark() -> Mark {
    let began = BEGAN_MS.load(Relaxed);
    core::array::from_fn(|at| (began ^ 0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 * 7 + 1))
}

/// Whether that mark still stands in the frame of [`run`], further up on this stack, or on the one that the handler has left alone.
fn is_marked() -> bool {
    /// A handler's frames take no more, on the stack that the abort was on.
    const STACK_BYTES: usize = 8 << 20;
    let here = 0_u8;
    let at = MARK_AT.load(Relaxed);
    let is_below = at.checked_sub(&raw const here as usize).is_some_and(|bytes| bytes <= STACK_BYTES);
    // SAFETY: of this thread's stack, which stays as long as it runs; read as bytes.
    (is_below || sys::signals::is_on_alternate_stack())
        && unsafe { sys::memory::readable(at, size_of::<Mark>(), size_of::<Mark>()) }
            .is_some_and(|found| found.iter().copied().eq(mark().into_iter().flat_map(u64::to_ne_bytes)))
}

/// What this thread ends of, if it is still inside of such a handler.
pub(super) fn verdict() -> Option<Verdict> {
    if THREAD.load(Relaxed) != sys::process::tid() {
        return None;
    }
    let is_in_time = sys::clock::monotonic_ms().saturating_sub(BEGAN_MS.load(Relaxed)) <= LASTS_MS;
    let blocked = sys::signals::block_these(sys::signals::Signals(0));
    // Blocked while it is handled, until siglongjmp(3) puts back what was.
    if !blocked.has(libc::SIGABRT) || !is_in_time || !is_marked() {
        // It has jumped out.
        MARK_AT.store(0, Relaxed);
        THREAD.store(0, Relaxed);
        LEFT_IN.store(sys::process::pid(), Relaxed);
        return None;
    }
    // SAFETY: only this thread writes it or reads it while `THREAD` names it.
    let verdict = unsafe { &*VERDICT.0.get() };
    // SAFETY: written by this thread, in `run`.
    Some(unsafe { verdict.assume_init() })
}
