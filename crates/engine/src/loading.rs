//! The dynamic linker loads a library, as dlopen(3) does: it maps the library's data, and that of all which that one needs, by
//! calls of its own, which cannot ask for more. Most of it is never touched: 215 MiB of libcublasLt's. So while it maps, the soft
//! limit on what may be in use is lifted; what is used is found by a look.
//!
//! ```text
//!   begin ──▶ lifted, and the heap is counted ──the thread takes more than the linker does, maps or looks up something──▶ as before
//! ```
//! Nothing of ours is called when dlopen returns: it is left by a jump, as the linker looks at who called it.

use super::{notes, resident};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};
use oomguard_core::sys;

// Relaxed throughout: each number stands by itself. Two threads that load at once wait for one another in the linker: it is the
// last one that ends it.

/// The thread that loads something; zero for none.
static THREAD: AtomicU32 = AtomicU32::new(0);
/// What it has allocated since.
static BYTES: AtomicU64 = AtomicU64::new(0);
/// When it began, and how often others have allocated since.
static BEGAN_MS: AtomicU64 = AtomicU64::new(0);
static OTHERS: AtomicU32 = AtomicU32::new(0);

/// The calling thread is about to load a library.
pub fn begin() {
    let errno = sys::errno::errno();
    if resident::lift_for_loading() {
        BYTES.store(0, Relaxed);
        BEGAN_MS.store(sys::clock::monotonic_ms(), Relaxed);
        THREAD.store(sys::process::tid(), Relaxed);
        notes::count_for_loading(Some(allocated));
    }
    sys::errno::set_errno(errno);
}

/// An allocation of so many bytes has worked, while a library is loaded.
fn allocated(bytes: usize) {
    /// The linker's lists are smaller, a block as well as all of them.
    const ONE_BYTES: usize = 64 << 10;
    const ALL_BYTES: u64 = 1 << 20;
    /// The thread may wait, or end, without another allocation.
    const MOST_MS: u64 = 1000;
    const OTHERS_PER_LOOK: u32 = 64;
    let has_left = if THREAD.load(Relaxed) == sys::process::tid() {
        let all = BYTES.fetch_add(bytes as u64, Relaxed).saturating_add(bytes as u64);
        bytes >= ONE_BYTES || all >= ALL_BYTES
    } else {
        (bytes >= ONE_BYTES || OTHERS.fetch_add(1, Relaxed).is_multiple_of(OTHERS_PER_LOOK))
            && sys::clock::monotonic_ms().saturating_sub(BEGAN_MS.load(Relaxed)) > MOST_MS
    };
    if has_left {
        end();
    }
}

/// The calling thread has called what the linker does not call.
pub fn end_if_here() {
    let thread = THREAD.load(Relaxed);
    if thread != 0 && thread == sys::process::tid() {
        end();
    }
}

/// Nobody loads anything any more; also in a child of fork(2).
pub fn end() {
    if THREAD.swap(0, Relaxed) != 0 {
        let errno = sys::errno::errno();
        notes::count_for_loading(None);
        resident::settle_after_loading();
        sys::errno::set_errno(errno);
    }
}
