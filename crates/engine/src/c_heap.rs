//! The C library's heap: the malloc family, as C code calls it. Forward, compare with null, and hand refusals over.
//! `free` is not among them.
//!
//! ```text
//!  ENTRY:   first ──the constructor, or the first call──▶ real ◀──settled────┐
//!                                                          └──a refusal──▶ counted
//! ```
//! Each function is one jump through its own pointer, so that counting costs nothing until it is needed.

// A static program and another C library have none of these names.
#![cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]

use super::armed::armed;
use super::notes::{self, Asker};
use super::real::Real;
use super::{library, panics, refusal, rust, unchecked};
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use oomguard_core::contract::Cause;
use oomguard_core::report::Request;
use oomguard_core::sys;

/// More can never be had, whatever the limit: malloc(3) refuses it without asking anybody. A mistake, no shortage.
const MOST_BYTES: usize = isize::MAX as usize;

/// After a call that gave null: whether memory was what was missing.
fn was_refused(bytes: usize) -> bool {
    sys::errno::errno() == libc::ENOMEM && bytes <= MOST_BYTES
}

/// musl's calloc, memalign and the like call malloc and aligned_alloc by their names, which are ours: what was refused there
/// comes here once more.
fn is_told_twice(bytes: usize) -> bool {
    !sys::c_library::is_glibc() && notes::was_just_refused(bytes as u64)
}

/// The C library's heap has refused a block: code that does not check for null will fault.
fn watch_for_unchecked() {
    if rust::IS_THERE && armed().is_some() && library::in_charge().is_none() {
        unchecked::watch();
    }
}

/// A request for memory was refused: tries what can be tried. `errno` is as the C library leaves it.
#[cold]
#[inline(never)]
fn refused(bytes: usize, align: Option<usize>, again: &mut dyn FnMut() -> *mut c_void) -> *mut c_void {
    if !was_refused(bytes) || is_told_twice(bytes) {
        return null_mut();
    }
    let mut block = null_mut();
    let request = Request { bytes: bytes as u64, align: align.map(|align| align as u64) };
    let survived = refusal::handle(Cause::Heap, Asker::Other, request, &mut || {
        block = again();
        !block.is_null()
    });
    if !survived {
        watch_for_unchecked();
    }
    sys::errno::set_errno(libc::ENOMEM);
    block
}

/// The functions that are used before the real ones are known, and in a static program, which has no linker to ask:
/// glibc's own, under the names that nobody hides.
mod before {
    use super::{c_void, null_mut, sys};
    use crate::real::weak;

    weak!(
        oomguard_libc_malloc "__libc_malloc",
        oomguard_libc_calloc "__libc_calloc",
        oomguard_libc_realloc "__libc_realloc",
        oomguard_libc_memalign "__libc_memalign",
        oomguard_libc_valloc "__libc_valloc",
        oomguard_libc_pvalloc "__libc_pvalloc",
        oomguard_libc_posix_memalign "__posix_memalign"
    );

    pub(super) type Found = Option<unsafe extern "C" fn()>;

    type Reallocarray = unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void;
    /// Has no other name that a program may use.
    // SAFETY: a function; called as what it is.
    pub(super) const REALLOCARRAY: Found =
        Some(unsafe { core::mem::transmute::<Reallocarray, unsafe extern "C" fn()>(reallocarray) });

    unsafe extern "C" fn reallocarray(block: *mut c_void, number: usize, size: usize) -> *mut c_void {
        match (super::realloc::real(), number.checked_mul(size)) {
            // SAFETY: the arguments are the caller's, whose contract is the same.
            (Some(realloc), Some(bytes)) => unsafe { realloc(block, bytes) },
            _ => {
                sys::errno::set_errno(libc::ENOMEM);
                null_mut()
            }
        }
    }
}

/// What the names mean in this program, where they are not ours: for what Rust's allocator calls.
mod linked {
    use super::super::real::weak;

    // Defined beside our names, and only there: see `anchor`.
    weak!(
        oomguard_table_of_malloc "oomguard_own_malloc",
        oomguard_table_of_calloc "oomguard_own_calloc",
        oomguard_table_of_realloc "oomguard_own_realloc",
        oomguard_table_of_memalign "oomguard_own_memalign"
    );

    macro_rules! linked {
        ($($name:ident $own:ident)*) => {
            $(pub(super) fn $name() -> Option<usize> {
                let linked = libc::$name as *const () as usize;
                // Nothing of ours is in a program without a guard: then nobody asks.
                $own.map(|own| own as *const () as usize).filter(|own| *own != linked).map(|_| linked)
            })*
        };
    }

    linked! {
        malloc oomguard_table_of_malloc
        calloc oomguard_table_of_calloc
        realloc oomguard_table_of_realloc
        memalign oomguard_table_of_memalign
    }
}

/// free(3), as Rust's allocator calls it: while it matters what a panic says, no block is read that is given back.
pub(super) mod free {
    use super::*;
    type Signature = unsafe extern "C" fn(*mut c_void);
    static ENTRY: AtomicPtr<c_void> = AtomicPtr::new(libc::free as Signature as *mut c_void);

    /// # Safety
    /// That of free(3).
    #[inline(always)]
    pub(crate) unsafe fn call(block: *mut c_void) {
        // Relaxed, here and below: whatever is read can be called at any time.
        let entry = ENTRY.load(Ordering::Relaxed);
        // SAFETY: only functions of this signature are stored there.
        let entry = unsafe { core::mem::transmute::<*mut c_void, Signature>(entry) };
        // SAFETY: the argument is the caller's, whose contract is the same.
        unsafe { entry(block) }
    }

    unsafe extern "C" fn told(block: *mut c_void) {
        panics::note_release(block as usize);
        // SAFETY: the argument is the caller's, whose contract is the same.
        unsafe { libc::free(block) }
    }

    pub(super) fn tell(on: bool) {
        if !rust::IS_THERE {
            return;
        }
        let entry: Signature = if on { told } else { libc::free };
        ENTRY.store(entry as *mut c_void, Ordering::Relaxed);
    }
}

macro_rules! family {
    ($(
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $type:ty),*) $symbol:literal, linked $linked:expr, before $before:expr,
        bytes $bytes:expr, align $align:expr, old $old:expr;
    )*) => {
        $(
            pub(super) mod $name {
                use super::*;
                pub(super) type Signature = unsafe extern "C" fn($($type),*) -> *mut c_void;
                pub(super) static REAL: Real = Real::linked_as($symbol, $linked);
                pub(super) static ENTRY: AtomicPtr<c_void> = AtomicPtr::new(first as Signature as *mut c_void);

                /// The call without a look at what it gives, for Rust's allocator, which looks itself.
                ///
                /// # Safety
                /// That of the C library's function of this name.
                #[inline(always)]
                #[allow(dead_code)] // Rust's allocator calls some.
                pub(crate) unsafe fn call($($argument: $type),*) -> *mut c_void {
                    // SAFETY: the arguments are the caller's, whose contract is the same.
                    unsafe { entry()($($argument),*) }
                }

                #[inline(always)]
                pub(super) fn entry() -> Signature {
                    // Relaxed, here and below: whatever is read can be called at any time.
                    let entry = ENTRY.load(Ordering::Relaxed);
                    // SAFETY: only functions of this signature are stored there.
                    unsafe { core::mem::transmute::<*mut c_void, Signature>(entry) }
                }

                pub(super) fn real() -> Option<Signature> {
                    let real = crate::real::call_real!(REAL, Signature);
                    real.or_else(|| if REAL.is_nowhere() { before() } else { None })
                }

                fn before() -> Option<Signature> {
                    let before: before::Found = $before;
                    // SAFETY: glibc's function of this purpose has this signature.
                    before.map(|before| unsafe { core::mem::transmute::<unsafe extern "C" fn(), Signature>(before) })
                }

                /// The first call, perhaps before any constructor has run.
                unsafe extern "C" fn first($($argument: $type),*) -> *mut c_void {
                    match real() {
                        Some(real) => {
                            let _ = ENTRY.compare_exchange(
                                first as Signature as *mut c_void,
                                real as *mut c_void,
                                Ordering::Relaxed,
                                Ordering::Relaxed,
                            );
                            // SAFETY: the arguments are the caller's, whose contract is the same.
                            unsafe { real($($argument),*) }
                        }
                        None => {
                            let Some(before) = before() else {
                                sys::errno::set_errno(libc::ENOMEM);
                                return null_mut();
                            };
                            // SAFETY: the arguments are the caller's, whose contract is the same.
                            unsafe { before($($argument),*) }
                        }
                    }
                }

                /// While it matters what is allocated after a refusal, or while a library is loaded.
                unsafe extern "C" fn counted($($argument: $type),*) -> *mut c_void {
                    if !notes::may_allocate($bytes) {
                        return null_mut();
                    }
                    // SAFETY: found when counting began; the arguments are the caller's.
                    let block = real().map_or(null_mut(), |real| unsafe { real($($argument),*) });
                    if !block.is_null() && notes::is_watching() {
                        notes::count($bytes);
                        // SAFETY: on its way to the program.
                        unsafe { panics::note_block(block.cast(), $bytes, $old) };
                    }
                    block
                }

                #[cold]
                #[inline(never)]
                pub(super) unsafe fn refused($($argument: $type),*) -> *mut c_void {
                    // SAFETY: the same call as the one that was refused, which has used nothing up.
                    super::refused($bytes, $align, &mut || unsafe { entry()($($argument),*) })
                }

                pub(super) fn resolve() {
                    if let Some(real) = real() {
                        ENTRY.store(real as *mut c_void, Ordering::Relaxed);
                    }
                }

                pub(super) fn count(on: bool) {
                    let is_known = ENTRY.load(Ordering::Relaxed) != first as Signature as *mut c_void;
                    // One that was never called is not looked up now, when memory may be gone.
                    if is_known && let Some(real) = real() {
                        let entry = if on { counted as Signature } else { real };
                        ENTRY.store(entry as *mut c_void, Ordering::Relaxed);
                    }
                }
            }

            $(#[$doc])*
            ///
            /// # Safety
            /// That of the C library's function of this name.
            #[inline(always)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> *mut c_void {
                // SAFETY: the arguments are the caller's, whose contract is the same.
                let block = unsafe { $name::entry()($($argument),*) };
                // SAFETY: as above.
                if block.is_null() { unsafe { $name::refused($($argument),*) } } else { block }
            }
        )*

        /// Finds the real functions, so that nobody has to later; and may be counted from now on.
        pub fn resolve() {
            $($name::resolve();)*
            let _ = POSIX_MEMALIGN.address();
            notes::count_heap_by(count);
        }

        /// Begins to count what is allocated, or stops.
        fn count(on: bool) {
            $($name::count(on);)*
            free::tell(on);
        }
    };
}

family! {
    /// malloc(3).
    malloc(bytes: usize) c"malloc", linked linked::malloc, before before::oomguard_libc_malloc,
        bytes bytes, align None, old null_mut();
    /// calloc(3).
    calloc(number: usize, size: usize) c"calloc", linked linked::calloc, before before::oomguard_libc_calloc,
        bytes number.saturating_mul(size), align None, old null_mut();
    /// realloc(3). Of no bytes it frees the block, and null is no refusal.
    realloc(block: *mut c_void, bytes: usize) c"realloc", linked linked::realloc, before before::oomguard_libc_realloc,
        bytes if bytes == 0 { usize::MAX } else { bytes }, align None, old block.cast();
    /// reallocarray(3).
    reallocarray(block: *mut c_void, number: usize, size: usize) c"reallocarray", linked || None, before before::REALLOCARRAY,
        bytes if number.saturating_mul(size) == 0 { usize::MAX } else { number.saturating_mul(size) }, align None, old block.cast();
    /// memalign(3).
    memalign(align: usize, bytes: usize) c"memalign", linked linked::memalign, before before::oomguard_libc_memalign,
        bytes bytes, align Some(align), old null_mut();
    /// aligned_alloc(3).
    aligned_alloc(align: usize, bytes: usize) c"aligned_alloc", linked || None, before before::oomguard_libc_memalign,
        bytes bytes, align Some(align), old null_mut();
    /// valloc(3).
    valloc(bytes: usize) c"valloc", linked || None, before before::oomguard_libc_valloc,
        bytes bytes, align Some(sys::memory::page_bytes() as usize), old null_mut();
    /// pvalloc(3).
    pvalloc(bytes: usize) c"pvalloc", linked || None, before before::oomguard_libc_pvalloc,
        bytes bytes, align Some(sys::memory::page_bytes() as usize), old null_mut();
}

type PosixMemalign = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;
static POSIX_MEMALIGN: Real = Real::new(c"posix_memalign");

/// posix_memalign(3): the answer is its result, and `errno` is left alone.
///
/// # Safety
/// That of the C library's function of this name.
#[inline]
pub unsafe extern "C" fn posix_memalign(block: *mut *mut c_void, align: usize, bytes: usize) -> c_int {
    let real = crate::real::call_real!(POSIX_MEMALIGN, PosixMemalign).or_else(|| {
        // SAFETY: glibc's function of this purpose has this signature.
        before::oomguard_libc_posix_memalign
            .map(|before| unsafe { core::mem::transmute::<unsafe extern "C" fn(), PosixMemalign>(before) })
    });
    let Some(real) = real else { return libc::ENOMEM };
    // SAFETY: the arguments are the caller's, whose contract is the same; a failed call has used nothing up.
    let call = || unsafe { real(block, align, bytes) };
    let result = if notes::may_allocate(bytes) { call() } else { libc::ENOMEM };
    if result == 0 && notes::is_watching() {
        notes::count(bytes);
    }
    if result == libc::ENOMEM { posix_memalign_refused(align, bytes, &call) } else { result }
}

#[cold]
#[inline(never)]
fn posix_memalign_refused(align: usize, bytes: usize, call: &dyn Fn() -> c_int) -> c_int {
    let errno = sys::errno::errno();
    if bytes > MOST_BYTES || is_told_twice(bytes) {
        return libc::ENOMEM;
    }
    let request = Request { bytes: bytes as u64, align: Some(align as u64) };
    let survived = refusal::handle(Cause::Heap, Asker::Other, request, &mut || call() == 0);
    sys::errno::set_errno(errno);
    if survived { 0 } else { libc::ENOMEM }
}
