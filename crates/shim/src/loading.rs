//! dlopen(3): the dynamic linker maps by system calls of its own, which cannot ask for more (`oomguard_engine::loading`). Who
//! looks up a name has loaded the library.

use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, Ordering};
use oomguard_engine::loading;
use oomguard_engine::real::Real;

static DLOPEN: Real = Real::new(c"dlopen");
static DLSYM: Real = Real::new(c"dlsym");

/// Where `dlopen` and `dlsym` go on to, by a jump: the linker looks at who called, whose library may say where others are.
/// Null where there is none, as in a static program.
pub static DLOPEN_ENTRY: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
pub static DLSYM_ENTRY: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

pub(super) fn resolve() {
    for (real, entry) in [(&DLOPEN, &DLOPEN_ENTRY), (&DLSYM, &DLSYM_ENTRY)] {
        if let Some(address) = real.address_by_now() {
            // Relaxed, here and below: the address decides alone.
            entry.store(address as *mut c_void, Ordering::Relaxed);
        }
    }
}

/// Before our constructor, or in a program that had no such function then.
fn resolve_late(entry: &AtomicPtr<c_void>) {
    if entry.load(Ordering::Relaxed).is_null() {
        resolve();
    }
}

/// `dlopen` is about to map a library.
pub extern "C" fn before_dlopen() {
    resolve_late(&DLOPEN_ENTRY);
    loading::begin();
}

/// `dlsym` is called.
pub extern "C" fn before_dlsym() {
    resolve_late(&DLSYM_ENTRY);
    loading::end_if_here();
}
