//! The user's language, as the environment says it: locale(7). For who may allocate.

use crate::text::Text;
use core::ffi::{CStr, c_char, c_int, c_void};

pub(crate) const NO_MEMORY_BYTES: usize = 128;

unsafe extern "C" {
    fn strerror_l(number: c_int, locale: *mut c_void) -> *const c_char;
}

/// How the C library tells of ENOMEM there; empty where that is English, or nobody knows.
pub(crate) fn no_memory() -> Text<NO_MEMORY_BYTES> {
    let mask = libc::LC_MESSAGES_MASK | libc::LC_CTYPE_MASK;
    // SAFETY: an empty name stands for what the environment says; no other locale is changed.
    let locale = unsafe { libc::newlocale(mask, c"".as_ptr(), core::ptr::null_mut()) };
    if locale.is_null() {
        return Text::new();
    }
    // SAFETY: a locale.
    let text = unsafe { strerror_l(libc::ENOMEM, locale.cast()) };
    let text = if text.is_null() {
        Text::new()
    } else {
        // SAFETY: a C string, until this thread asks for another one.
        Text::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes())
    };
    // SAFETY: made above, and used by nobody any more.
    unsafe { libc::freelocale(locale) };
    let is_english = text.as_bytes() == b"Cannot allocate memory" || text.as_bytes() == b"Out of memory";
    if text.is_cut() || is_english { Text::new() } else { text }
}
