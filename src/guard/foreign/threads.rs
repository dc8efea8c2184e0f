//! pthread_create: a thread that could not be started for want of room for its stack.

use super::real::{Real, call_real};
use crate::guard::interpose::{PthreadCreate, ThreadBody, create_thread};
use core::ffi::{c_int, c_void};

static PTHREAD_CREATE: Real = Real::new(c"pthread_create");

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
    let Some(real) = call_real!(PTHREAD_CREATE, PthreadCreate) else { return libc::EAGAIN };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { create_thread(real, thread, attributes, body, argument) }
}
