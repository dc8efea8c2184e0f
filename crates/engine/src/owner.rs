//! Which process is guarded: a child that was forked has its parent's memory, and is not, until it begins anew.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use oomguard_core::sys;

/// Zero while there is none. Relaxed throughout: written by the process's only thread, or with the same number.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// This process is, from now on.
pub(super) fn begin() {
    OWNER.store(sys::process::pid(), Relaxed);
}

/// Whether this one or one that it was forked from is.
pub(super) fn has_begun() -> bool {
    OWNER.load(Relaxed) != 0
}

/// Whether this process is: its refusals are noted.
pub fn is_guarded() -> bool {
    let owner = OWNER.load(Relaxed);
    owner != 0 && owner == sys::process::pid()
}
