//! The dynamic linker loads a library, as dlopen(3) does: it maps the library's data, and that of all which that one needs, by
//! calls of its own, which cannot ask for more. Most of it is never touched: 215 MiB of libcublasLt's. So while it maps, the soft
//! limit on what may be in use is lifted; what is used is found by a look.
//!
//! ```text
//!   begin ──▶ lifted, and the heap is counted ──the thread takes more than the linker does, maps or looks up something──▶ as before
//! ```
//! Several threads may load at once: they wait for one another in the linker, and it is lifted until the last one has left. What is
//! taken meanwhile is looked at before it is, so that it is refused where there is no room for it.
//!
//! Nothing of ours is called when dlopen returns: it is left by a jump, as the linker looks at who called it.

use super::{notes, resident};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};
use oomguard_core::sys;

// Relaxed throughout: each number stands by itself, and who has changed how many load looks again whether that still holds.

/// A thread that loads something.
struct Loader {
    /// Zero for none; or `BEGINS`.
    thread: AtomicU32,
    /// What it has asked for since.
    bytes: AtomicU64,
}

/// One that is not to be ended yet: nothing has been lifted for it.
const BEGINS: u32 = u32::MAX;

impl Loader {
    fn begin(&self) {
        self.bytes.store(0, Relaxed);
        BEGAN_MS.store(sys::clock::monotonic_ms(), Relaxed);
    }
}

/// More do not load at once, as a rule: for one that finds no place here the limit stays as it is.
static LOADERS: [Loader; 8] = [const { Loader { thread: AtomicU32::new(0), bytes: AtomicU64::new(0) } }; 8];
/// How many of these there are.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// When the last one began, and what others have asked for since.
static BEGAN_MS: AtomicU64 = AtomicU64::new(0);
static OTHERS_BYTES: AtomicU64 = AtomicU64::new(0);

#[inline(never)]
fn of_thread(thread: u32) -> Option<&'static Loader> {
    LOADERS.iter().find(|loader| loader.thread.load(Relaxed) == thread)
}

/// The calling thread is about to load a library.
pub fn begin() {
    let errno = sys::errno::errno();
    let tid = sys::process::tid();
    if !resident::may_lift() {
        return sys::errno::set_errno(errno);
    }
    let is_taken = |loader: &&Loader| loader.thread.compare_exchange(0, BEGINS, Relaxed, Relaxed).is_ok();
    // It may have loaded another one, or do so still.
    if let Some(loader) = of_thread(tid) {
        loader.begin();
    } else if let Some(loader) = LOADERS.iter().find(is_taken) {
        loader.begin();
        OTHERS_BYTES.store(0, Relaxed);
        // From before it is lifted until it is no longer.
        COUNT.fetch_add(1, Relaxed);
        notes::count_for_loading(Some(may_take));
        if resident::lift_for_loading() {
            loader.thread.store(tid, Relaxed);
        } else {
            loader.thread.store(0, Relaxed);
            stop_counting();
        }
    }
    sys::errno::set_errno(errno);
}

/// So many bytes are about to be asked for: whether the kernel is to be asked. It would give others what there is no room for while
/// a library is loaded.
pub fn may_take(bytes: usize) -> bool {
    /// The linker's lists are smaller, a block as well as all of them.
    const ONE_BYTES: usize = 64 << 10;
    const ALL_BYTES: u64 = 1 << 20;
    /// The thread may wait, or end, without another allocation.
    const MOST_MS: u64 = 1000;
    if COUNT.load(Relaxed) == 0 {
        return true;
    }
    let add = |sum: &AtomicU64| (sum.fetch_add(bytes as u64, Relaxed), bytes as u64);
    if let Some(loader) = of_thread(sys::process::tid()) {
        let (before, more) = add(&loader.bytes);
        if bytes >= ONE_BYTES || before.saturating_add(more) >= ALL_BYTES {
            end_of(loader);
        }
        return true;
    }
    let (before, more) = add(&OTHERS_BYTES);
    if before / ALL_BYTES == before.saturating_add(more) / ALL_BYTES {
        return true;
    }
    let errno = sys::errno::errno();
    let is_over = sys::clock::monotonic_ms().saturating_sub(BEGAN_MS.load(Relaxed)) > MOST_MS;
    let has_room = resident::has_room_for(more);
    // A large one is asked about each time; of small ones it is the kernel that knows when they are too many.
    let may_take = is_over || has_room || more < ALL_BYTES;
    if is_over || !has_room && may_take {
        LOADERS.iter().for_each(end_of);
    }
    sys::errno::set_errno(if may_take { errno } else { libc::ENOMEM });
    may_take
}

/// The calling thread has called what the linker does not call.
pub fn end_if_here() {
    if COUNT.load(Relaxed) != 0
        && let Some(loader) = of_thread(sys::process::tid())
    {
        end_of(loader);
    }
}

/// It does not load anything any more.
#[cold]
#[inline(never)]
fn end_of(loader: &Loader) {
    let thread = loader.thread.load(Relaxed);
    if [0, BEGINS].contains(&thread) || loader.thread.compare_exchange(thread, 0, Relaxed, Relaxed).is_err() {
        return;
    }
    let errno = sys::errno::errno();
    resident::settle_after_loading();
    stop_counting();
    sys::errno::set_errno(errno);
}

#[inline(never)]
fn stop_counting() {
    if COUNT.fetch_sub(1, Relaxed) == 1 {
        notes::count_for_loading(None);
        // Another one has begun meanwhile.
        if COUNT.load(Relaxed) != 0 {
            notes::count_for_loading(Some(may_take));
        }
    }
}

/// In a child of fork(2), whose limit is set anew: nobody loads anything there.
pub fn forget() {
    if COUNT.swap(0, Relaxed) != 0 {
        LOADERS.iter().for_each(|loader| loader.thread.store(0, Relaxed));
        notes::count_for_loading(None);
    }
}
