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
    /// Zero for none.
    thread: AtomicU32,
    /// What it has asked for since.
    bytes: AtomicU64,
}

/// More do not load at once, as a rule: for one that finds no place here the limit stays as it is.
static LOADERS: [Loader; 8] = [const { Loader { thread: AtomicU32::new(0), bytes: AtomicU64::new(0) } }; 8];
/// How many of these there are.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// When the last one began, and what others have asked for since.
static BEGAN_MS: AtomicU64 = AtomicU64::new(0);
static OTHERS_BYTES: AtomicU64 = AtomicU64::new(0);

fn of_thread(thread: u32) -> Option<&'static Loader> {
    LOADERS.iter().find(|loader| loader.thread.load(Relaxed) == thread)
}

/// The calling thread is about to load a library.
pub fn begin() {
    let errno = sys::errno::errno();
    let tid = sys::process::tid();
    let place = || {
        if !resident::lift_for_loading() {
            return None;
        }
        let is_taken = |loader: &&Loader| loader.thread.compare_exchange(0, tid, Relaxed, Relaxed).is_ok();
        let taken = LOADERS.iter().find(is_taken);
        match taken {
            Some(_) => _ = COUNT.fetch_add(1, Relaxed),
            None => resident::settle_after_loading(),
        }
        taken
    };
    // It may have loaded another one, or do so still.
    if let Some(loader) = of_thread(tid).or_else(place) {
        loader.bytes.store(0, Relaxed);
        OTHERS_BYTES.store(0, Relaxed);
        BEGAN_MS.store(sys::clock::monotonic_ms(), Relaxed);
        notes::count_for_loading(Some(about_to_take));
    }
    sys::errno::set_errno(errno);
}

/// So many bytes are about to be asked for.
pub fn about_to_take(bytes: usize) {
    /// The linker's lists are smaller, a block as well as all of them.
    const ONE_BYTES: usize = 64 << 10;
    const ALL_BYTES: u64 = 1 << 20;
    /// The thread may wait, or end, without another allocation.
    const MOST_MS: u64 = 1000;
    if COUNT.load(Relaxed) == 0 {
        return;
    }
    let add = |sum: &AtomicU64| (sum.fetch_add(bytes as u64, Relaxed), bytes as u64);
    if let Some(loader) = of_thread(sys::process::tid()) {
        let (before, more) = add(&loader.bytes);
        if bytes >= ONE_BYTES || before.saturating_add(more) >= ALL_BYTES {
            end_of(loader);
        }
        return;
    }
    let (before, more) = add(&OTHERS_BYTES);
    let errno = sys::errno::errno();
    if before / ALL_BYTES != before.saturating_add(more) / ALL_BYTES
        && (sys::clock::monotonic_ms().saturating_sub(BEGAN_MS.load(Relaxed)) > MOST_MS
            || !resident::has_room_for(more.max(ALL_BYTES)))
    {
        LOADERS.iter().for_each(end_of);
    }
    sys::errno::set_errno(errno);
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
fn end_of(loader: &Loader) {
    if loader.thread.swap(0, Relaxed) == 0 {
        return;
    }
    let errno = sys::errno::errno();
    if COUNT.fetch_sub(1, Relaxed) == 1 {
        notes::count_for_loading(None);
        // Another one has begun meanwhile.
        if COUNT.load(Relaxed) != 0 {
            notes::count_for_loading(Some(about_to_take));
        }
    }
    resident::settle_after_loading();
    sys::errno::set_errno(errno);
}

/// In a child of fork(2), whose limit is set anew: nobody loads anything there.
pub fn forget() {
    if COUNT.swap(0, Relaxed) != 0 {
        LOADERS.iter().for_each(|loader| loader.thread.store(0, Relaxed));
        notes::count_for_loading(None);
    }
}
