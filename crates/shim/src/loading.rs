//! dlopen(3), where what is resident is limited: the dynamic linker maps a library's data by system calls of its own, which
//! cannot ask for more. So it is asked for before.

use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, Ordering};
use oomguard_engine::real::Real;
use oomguard_engine::resident;

static DLOPEN: Real = Real::new(c"dlopen");

pub(super) fn resolve() {
    if let Some(address) = DLOPEN.address_by_now() {
        // Relaxed: the address decides alone.
        DLOPEN_ENTRY.store(address as *mut c_void, Ordering::Relaxed);
    }
}

/// Where `dlopen` goes on to, by a jump: the linker looks at who called, whose library may say where others are.
/// Null where there is none, as in a static program.
pub static DLOPEN_ENTRY: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// `dlopen` is about to map a library.
pub extern "C" fn before_dlopen() {
    // Before our constructor, or in a program that had no such function then.
    if DLOPEN_ENTRY.load(Ordering::Relaxed).is_null() {
        resolve();
    }
    resident::make_room_for_loading();
}
