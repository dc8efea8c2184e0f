//! Whether the program has set a filter for its own system calls, seccomp(2): it may be killed for one of ours.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use oomguard_core::sys;
use oomguard_engine::resident;

// Relaxed throughout: written by the thread that makes the call, before it does.

/// The process that has set a filter; zero for none.
static FILTERED: AtomicU32 = AtomicU32::new(0);

/// Nothing may be asked of the kernel any more, not even who this is: what nobody can fork, it is of this process.
static IS_STRICT: AtomicBool = AtomicBool::new(false);

/// The process that this memory is of: one that was forked has it from its parent, filter and all.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Once, before `main`.
pub(super) fn begin() {
    OWNER.store(sys::process::pid(), Relaxed);
}

/// A child of fork(2) has its parent's filter.
pub(super) fn begin_in_child() {
    let parent = OWNER.swap(sys::process::pid(), Relaxed);
    let _ = FILTERED.compare_exchange(parent, sys::process::pid(), Relaxed, Relaxed);
}

/// The program sets one now; or has the kernel kill it for all but four calls, as SECCOMP_MODE_STRICT does.
pub(super) fn note(is_strict: bool) {
    IS_STRICT.store(is_strict || IS_STRICT.load(Relaxed), Relaxed);
    // While it may still be done.
    resident::stop_asking();
    FILTERED.store(sys::process::pid(), Relaxed);
}

/// What it was started under lets a program start, and so lets files be opened: that is none.
pub(super) fn is_set() -> bool {
    match FILTERED.load(Relaxed) {
        0 => false,
        // A child of vfork(2) shares this memory, and what it does to itself is nobody else's.
        pid => pid == OWNER.load(Relaxed) || pid == sys::process::pid(),
    }
}

/// Whether it may read, write and end, and nothing else.
pub(super) fn is_strict() -> bool {
    IS_STRICT.load(Relaxed)
}
