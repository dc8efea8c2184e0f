//! The functions that our names hide, found once: the next definition in the order in which the loader looks. That may
//! be another allocator, whose `free` gets our blocks, so none is ever taken from elsewhere.

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};
use oomguard_core::sys;
use oomguard_core::sys::objects::{Name, hash_of};

/// Whether the definitions that ours hide can be found: not in a static program, where they are not linked at all.
pub(super) const FINDS_HIDDEN: bool = cfg!(not(target_feature = "crt-static"));

/// Whether the C library's heap and mappings are looked at, for the C code in a program and what allocates beside Rust's
/// allocator.
pub(super) const WATCHES_C_HEAP: bool = cfg!(all(target_env = "gnu", not(target_feature = "crt-static")));

/// A function that a definition of ours hides.
pub struct Real {
    /// With the NUL behind it. In here, as a pointer to it would be one more to relocate at each start.
    name: [u8; NAME_BYTES],
    hash: u32,
    address: AtomicUsize,
    /// The definition that this program was linked with, where that is not ours.
    linked: Option<fn() -> Option<usize>>,
}

/// `pthread_attr_getstacksize` is the longest.
const NAME_BYTES: usize = 28;

/// Not looked up yet; and: looked up in vain. No function lies there.
const UNKNOWN: usize = 0;
const NOWHERE: usize = 1;

impl Real {
    pub const fn new(name: &'static CStr) -> Self {
        Self::with(name, None)
    }

    /// A function that is also called where our name for it does not stand: a sanitizer's runtime or an allocator in the
    /// program may have defined it, and then hides ours.
    pub(super) const fn linked_as(name: &'static CStr, linked: fn() -> Option<usize>) -> Self {
        Self::with(name, Some(linked))
    }

    const fn with(name: &'static CStr, linked: Option<fn() -> Option<usize>>) -> Self {
        Real { name: bytes_of(name), hash: hash_of(name), address: AtomicUsize::new(UNKNOWN), linked }
    }

    /// Its address, if it was found before.
    #[inline(always)]
    pub(super) fn known_address(&self) -> Option<usize> {
        // Relaxed, here and below: code is there from the start, and two threads find the same.
        Some(self.address.load(Ordering::Relaxed)).filter(|address| FINDS_HIDDEN && *address > NOWHERE)
    }

    /// Its address. `None`: there is none, or its being looked up is what made this call.
    #[inline(never)]
    pub fn address(&self) -> Option<usize> {
        if !FINDS_HIDDEN {
            return None;
        }
        match self.address.load(Ordering::Relaxed) {
            UNKNOWN => self.look_up(),
            NOWHERE => None,
            address => Some(address),
        }
    }

    /// The same of a function that may have come with a library that was loaded since: before 2.34 glibc has some in
    /// libraries of their own.
    pub fn address_by_now(&self) -> Option<usize> {
        self.address().or_else(|| if self.is_nowhere() { self.look_up() } else { None })
    }

    /// Whether it was looked up in vain, as every name is in a static program.
    pub fn is_nowhere(&self) -> bool {
        self.address.load(Ordering::Relaxed) == NOWHERE
    }

    #[cold]
    fn look_up(&self) -> Option<usize> {
        // A moment before the constructor, when there is one thread; the linker may allocate to find a name.
        if LOOKING_UP.swap(1, Ordering::Relaxed) != 0 {
            return None;
        }
        let errno = sys::errno::errno();
        let find =
            if is_for_program() { sys::symbols::hidden_definition } else { sys::symbols::next_definition };
        let name = Name::with_hash(&self.name, self.hash);
        let found = self.linked.and_then(|linked| linked()).or_else(|| find(name));
        self.address.store(found.unwrap_or(NOWHERE), Ordering::Relaxed);
        sys::errno::set_errno(errno);
        LOOKING_UP.store(0, Ordering::Relaxed);
        found
    }
}

/// When it is compiled: a name that is too long does not compile.
const fn bytes_of(name: &CStr) -> [u8; NAME_BYTES] {
    let name = name.to_bytes_with_nul();
    let mut bytes = [0; NAME_BYTES];
    let mut at = 0;
    while at < name.len() {
        bytes[at] = name[at];
        at += 1;
    }
    bytes
}

static LOOKING_UP: AtomicUsize = AtomicUsize::new(0);

/// The function behind a `Real`, as a pointer of the type that is asked for.
#[doc(hidden)]
#[macro_export]
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
pub(crate) use call_real;

pub(crate) use oomguard_core::weak;

weak!(oomguard_table_of_abort "oomguard_own_abort");

/// Whether our names stand in a program, or a library, that has a guard of its own: see `anchor`. The library for other
/// languages hides what comes after it.
fn is_for_program() -> bool {
    oomguard_table_of_abort.is_some()
}
