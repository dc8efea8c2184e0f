//! The words that a program asks the C library for: its messages in the user's language, and those for error numbers.
//! Who asks is about to say it, in whatever language; so what is asked for is heard, in English, once memory was refused. And
//! what is allocated for the answer is part of the message.

use super::messages;
use super::streams::hear_error;
use crate::guard::notes;
use crate::guard::real::{Real, call_real};
use crate::message::Message;
use crate::sys;
use core::ffi::{CStr, c_char, c_int, c_ulong, c_void};

macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $real:ident = $symbol:literal: fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty,
        hears $hears:expr, else $otherwise:expr;
    )*) => {
        $(static $real: Real = Real::new($symbol);)*

        pub(super) fn resolve() {
            for real in [$(&$real),*] {
                let _ = real.address();
            }
        }

        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// That of the C library's function of this name.
            pub unsafe fn $name($($argument: $type),*) -> $result {
                if messages::are_read() {
                    let () = $hears;
                }
                let real = call_real!($real, unsafe extern "C" fn($($type),*) -> $result);
                match real {
                    // SAFETY: the arguments are the caller's, whose contract is the same.
                    Some(real) => notes::while_finding_words(|| unsafe { real($($argument),*) }),
                    None => $otherwise,
                }
            }
        )*
    };
}

words! {
    /// gettext(3).
    GETTEXT = c"gettext": fn gettext(text: *const c_char) -> *mut c_char,
        hears hear_id(text), else text.cast_mut();
    /// dgettext(3).
    DGETTEXT = c"dgettext": fn dgettext(domain: *const c_char, text: *const c_char) -> *mut c_char,
        hears hear_id(text), else text.cast_mut();
    /// dcgettext(3).
    DCGETTEXT = c"dcgettext": fn dcgettext(domain: *const c_char, text: *const c_char, category: c_int) -> *mut c_char,
        hears hear_id(text), else text.cast_mut();
    /// ngettext(3).
    NGETTEXT = c"ngettext": fn ngettext(one: *const c_char, more: *const c_char, number: c_ulong) -> *mut c_char,
        hears hear_id(one), else (if number == 1 { one } else { more }).cast_mut();
    /// strerror_r(3), GNU's.
    STRERROR_R = c"strerror_r": fn strerror_r(number: c_int, text: *mut c_char, len: usize) -> *mut c_char,
        hears hear_number(number), else describe(number, text, len);
    /// strerror_l(3).
    STRERROR_L = c"strerror_l": fn strerror_l(number: c_int, locale: *mut c_void) -> *mut c_char,
        // SAFETY: the argument is the caller's.
        hears hear_number(number), else unsafe { super::strerror(number) };
    /// setlocale(3).
    SETLOCALE = c"setlocale": fn setlocale(category: c_int, locale: *const c_char) -> *mut c_char,
        hears (), else core::ptr::null_mut();
    /// iconv_open(3).
    ICONV_OPEN = c"iconv_open": fn iconv_open(to: *const c_char, from: *const c_char) -> *mut c_void,
        hears (), else usize::MAX as *mut c_void;
}

/// The text that is to be translated: only what claims something about a death. Programs may ask for others in advance.
fn hear_id(text: *const c_char) {
    if text.is_null() {
        return;
    }
    let errno = sys::fd::errno();
    // SAFETY: a C string, by the contract of the functions above.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    if matches!(Message::of(text), Some(Message::OutOfMemory | Message::OtherDeath)) {
        messages::hear(text);
    }
    sys::fd::set_errno(errno);
}

fn hear_number(number: c_int) {
    let errno = sys::fd::errno();
    hear_error(number);
    sys::fd::set_errno(errno);
}

/// In a static program, where there is no linker to ask for the real one: its other name.
fn describe(number: c_int, text: *mut c_char, len: usize) -> *mut c_char {
    unsafe extern "C" {
        fn __xpg_strerror_r(number: c_int, text: *mut c_char, len: usize) -> c_int;
    }
    // SAFETY: `len` bytes are writable at `text`, by the contract of strerror_r.
    unsafe { __xpg_strerror_r(number, text, len) };
    text
}
