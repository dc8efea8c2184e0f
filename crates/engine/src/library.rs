//! What the guard asks the library for other languages, which knows the guard and is not known to it: its constructor hands
//! in the answers. In a program that is Rust's the compiler knows that there are none, and nothing of the questions is left.

use oomguard_core::contract::Cause;
use oomguard_core::report::Request;

/// The answers. All of them are given in the midst of a refused allocation: they neither allocate nor lock.
#[cfg_attr(not(feature = "shim"), allow(dead_code))]
pub struct Library {
    /// Whether the program has set a filter for its own system calls, and so may be killed for one of ours.
    pub has_filter: fn() -> bool,
    /// Whether this thread is finding out what an interpreter dies of, and needs memory for it.
    pub is_finding_out: fn() -> bool,
    /// Something was refused: maybe once more in a loop that gets nowhere.
    pub note_for_stall: fn(Cause, Request),
    /// Something was refused: what the program says from now on may be about that.
    pub listen: fn(),
}

#[cfg(feature = "shim")]
mod handed_in {
    use super::Library;
    use core::ptr::null_mut;
    use core::sync::atomic::{AtomicPtr, Ordering};

    static LIBRARY: AtomicPtr<Library> = AtomicPtr::new(null_mut());

    /// From now on the process is guarded by the library, and not by a guard of its own.
    pub fn take_charge(library: &'static Library) {
        // Relaxed, here and below: written before `main`, and the answers are a constant.
        LIBRARY.store((&raw const *library).cast_mut(), Ordering::Relaxed);
    }

    /// The library, where it guards this process.
    pub fn in_charge() -> Option<&'static Library> {
        // SAFETY: null, or from the reference above, which is for ever.
        unsafe { LIBRARY.load(Ordering::Relaxed).as_ref() }
    }
}

#[cfg(not(feature = "shim"))]
mod handed_in {
    pub const fn in_charge() -> Option<&'static super::Library> {
        None
    }
}

pub use handed_in::*;
