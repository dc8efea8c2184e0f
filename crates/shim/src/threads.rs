//! pthread_create: a thread that could not be started for want of room for its stack.

use super::python;
use core::ffi::{c_int, c_void};
use oomguard_core::weak;
use oomguard_engine::call_real;
use oomguard_engine::interpose::{PthreadCreate, ThreadBody, create_thread};
use oomguard_engine::notes::Asker;
use oomguard_engine::real::Real;

static PTHREAD_CREATE: Real = Real::new(c"pthread_create");

// In a static program, which has no linker to ask, and only where it was linked for (see oomguard.h).
weak!(oomguard_libc_pthread_create "__pthread_create");

pub(super) fn resolve() {
    let _ = PTHREAD_CREATE.address();
}

/// pthread_create(3).
///
/// # Safety
/// That of pthread_create(3).
pub unsafe fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    body: ThreadBody,
    argument: *mut c_void,
) -> c_int {
    let real = call_real!(by_now PTHREAD_CREATE, PthreadCreate).or_else(|| {
        // SAFETY: glibc's function of this purpose has this signature.
        oomguard_libc_pthread_create
            .map(|create| unsafe { core::mem::transmute::<unsafe extern "C" fn(), PthreadCreate>(create) })
    });
    let Some(real) = real else { return libc::EAGAIN };
    python::expect_threads();
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { create_thread(real, thread, attributes, body, argument, Asker::Other) }
}
