//! The functions that our names hide, found once: the next definition in the order in which the loader looks. That may
//! be another allocator, whose `free` gets our blocks, so none is ever taken from elsewhere.

use crate::sys;
use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A function that a definition of ours hides.
pub(super) struct Real {
    name: &'static CStr,
    address: AtomicUsize,
    /// The definition that this program was linked with, where that is not ours.
    linked: fn() -> Option<usize>,
}

/// Not looked up yet; and: looked up in vain. No function lies there.
const UNKNOWN: usize = 0;
const NOWHERE: usize = 1;

impl Real {
    pub(super) const fn new(name: &'static CStr) -> Self {
        Real { name, address: AtomicUsize::new(UNKNOWN), linked: || None }
    }

    /// A function that is also called where our name for it does not stand: a sanitizer's runtime or an allocator in the
    /// program may have defined it, and then hides ours.
    pub(super) const fn linked_as(name: &'static CStr, linked: fn() -> Option<usize>) -> Self {
        Real { name, address: AtomicUsize::new(UNKNOWN), linked }
    }

    /// Its address. `None`: there is none, or its being looked up is what made this call.
    pub(super) fn address(&self) -> Option<usize> {
        if !super::anchor::FINDS_HIDDEN {
            return None;
        }
        // Relaxed, here and below: code is there from the start, and two threads find the same.
        match self.address.load(Ordering::Relaxed) {
            UNKNOWN => self.look_up(),
            NOWHERE => None,
            address => Some(address),
        }
    }

    /// The same of a function that may have come with a library that was loaded since: before 2.34 glibc has some in
    /// libraries of their own.
    #[cfg(feature = "shim")]
    pub(super) fn address_by_now(&self) -> Option<usize> {
        self.address().or_else(|| if self.is_nowhere() { self.look_up() } else { None })
    }

    /// Whether it was looked up in vain, as every name is in a static program.
    pub(super) fn is_nowhere(&self) -> bool {
        self.address.load(Ordering::Relaxed) == NOWHERE
    }

    #[cold]
    fn look_up(&self) -> Option<usize> {
        // A moment before the constructor, when there is one thread; the linker may allocate to find a name.
        if LOOKING_UP.swap(1, Ordering::Relaxed) != 0 {
            return None;
        }
        let errno = sys::fd::errno();
        let find =
            if is_for_program() { sys::symbols::hidden_definition } else { sys::symbols::next_definition };
        let found = (self.linked)().or_else(|| find(self.name));
        self.address.store(found.unwrap_or(NOWHERE), Ordering::Relaxed);
        sys::fd::set_errno(errno);
        LOOKING_UP.store(0, Ordering::Relaxed);
        found
    }
}

static LOOKING_UP: AtomicUsize = AtomicUsize::new(0);

/// The function behind a `Real`, as a pointer of the type that is asked for.
macro_rules! call_real {
    (by_now $real:expr, $signature:ty) => {
        $real.address_by_now().map(|address| {
            // SAFETY: the C library's function of this name has this signature.
            unsafe { core::mem::transmute::<usize, $signature>(address) }
        })
    };
    ($real:expr, $signature:ty) => {
        $real.address().map(|address| {
            // SAFETY: the C library's function of this name has this signature.
            unsafe { core::mem::transmute::<usize, $signature>(address) }
        })
    };
}
pub(in crate::guard) use call_real;

pub(in crate::guard) use oomguard_core::weak;

weak!(oomguard_table_of_abort "oomguard_own_abort");

/// Whether our names stand in a program, or a library, that has a guard of its own: see `anchor`. The library for other
/// languages hides what comes after it.
fn is_for_program() -> bool {
    oomguard_table_of_abort.is_some()
}
