//! The words that a program asks the C library for: its messages in the user's language, and those for error numbers.
//! Who asks is about to say it, in whatever language; so what is asked for is read, in English, once memory was refused. It
//! counts when what came of it is said. And what is allocated for the answer is part of the message.

use super::{lookups, messages};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use oomguard_core::contract::Cause;
use oomguard_core::message::{ANOTHER_ERROR, Message, Story};
use oomguard_core::sys;
use oomguard_engine::call_real;
use oomguard_engine::real::Real;
use oomguard_engine::{notes, threads};

macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $real:ident = $symbol:literal: fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty,
        by $call:ident, reads $reads:expr, else $otherwise:expr;
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
                let real = call_real!($real, unsafe extern "C" fn($($type),*) -> $result);
                let found = match real {
                    // SAFETY: the arguments are the caller's, whose contract is the same.
                    Some(real) => notes::$call(|| unsafe { real($($argument),*) }),
                    None => $otherwise,
                };
                if messages::are_read() {
                    let errno = sys::errno::errno();
                    let read: fn($($type,)* $result) = $reads;
                    read($($argument,)* found);
                    sys::errno::set_errno(errno);
                }
                found
            }
        )*
    };
}

words! {
    /// gettext(3).
    GETTEXT = c"gettext": fn gettext(text: *const c_char) -> *mut c_char,
        by while_translating, reads read_id, else text.cast_mut();
    /// dgettext(3).
    DGETTEXT = c"dgettext": fn dgettext(domain: *const c_char, text: *const c_char) -> *mut c_char,
        by while_translating, reads |_, text, found| read_id(text, found), else text.cast_mut();
    /// dcgettext(3).
    DCGETTEXT = c"dcgettext": fn dcgettext(domain: *const c_char, text: *const c_char, category: c_int) -> *mut c_char,
        by while_translating, reads |_, text, _, found| read_id(text, found), else text.cast_mut();
    /// ngettext(3).
    NGETTEXT = c"ngettext": fn ngettext(one: *const c_char, more: *const c_char, number: c_ulong) -> *mut c_char,
        by while_translating, reads |one, _, _, found| read_id(one, found), else (if number == 1 { one } else { more }).cast_mut();
    /// strerror(3).
    STRERROR = c"strerror": fn strerror(number: c_int) -> *mut c_char,
        by while_translating, reads read_number, else notes::while_translating(|| {
            describe(number, ERROR_TEXT.0.get().cast(), ErrorText::BYTES)
        });
    /// strerror_r(3): GNU's, which gives a text, or POSIX's, which gives a number and puts the text where it was told.
    STRERROR_R = c"strerror_r": fn strerror_r(number: c_int, text: *mut c_char, len: usize) -> *mut c_char,
        by while_translating, reads |number, text, _, found| read_number(
            number,
            if sys::c_library::is_glibc() { found } else { text },
        ), else notes::while_translating(|| describe(number, text, len));
    /// strerror_l(3).
    STRERROR_L = c"strerror_l": fn strerror_l(number: c_int, locale: *mut c_void) -> *mut c_char,
        // SAFETY: the argument is the caller's.
        by while_translating, reads |number, _, found| read_number(number, found), else unsafe { strerror(number) };
    /// setlocale(3).
    SETLOCALE = c"setlocale": fn setlocale(category: c_int, locale: *const c_char) -> *mut c_char,
        by while_finding_words, reads |_, _, _| (), else core::ptr::null_mut();
    /// iconv_open(3).
    ICONV_OPEN = c"iconv_open": fn iconv_open(to: *const c_char, from: *const c_char) -> *mut c_void,
        by while_finding_words, reads |_, _, _| (), else usize::MAX as *mut c_void;
}

/// A text that was to be translated, and what came of it: only what claims something about a death. Programs may ask for
/// others in advance.
fn read_id(text: *const c_char, found: *mut c_char) {
    if text.is_null() {
        return;
    }
    // SAFETY: a C string, by the contract of the functions above.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let mut story = Story::default();
    story.hear(text);
    match story.last {
        Some(Message::OutOfMemory) => lookups::note_claim(found),
        Some(Message::OtherDeath) => messages::hear(text),
        Some(Message::Unrelated) if story.fails_otherwise => lookups::note_other_failure(),
        _ => {}
    }
}

/// Whether an error number tells that memory was refused.
pub(super) fn is_of_memory(number: c_int) -> bool {
    number == libc::ENOMEM
        || number == libc::EAGAIN
            && notes::requested().is_some_and(|noted| noted.cause == Cause::Thread)
            && threads::is_none_started_since()
}

/// What an error number is called.
pub(super) fn read_number(number: c_int, found: *mut c_char) {
    match number {
        0 => {}
        _ if is_of_memory(number) => lookups::note_claim(found),
        // In whatever language: it fails at something else.
        _ => messages::hear(ANOTHER_ERROR),
    }
}

/// What strerror(3) gives where the real one was not found: not safe among threads, as that one is not either.
struct ErrorText(UnsafeCell<[c_char; ErrorText::BYTES]>);

impl ErrorText {
    const BYTES: usize = 128;
}

// SAFETY: the standard lets strerror's callers race for its text.
unsafe impl Sync for ErrorText {}

static ERROR_TEXT: ErrorText = ErrorText(UnsafeCell::new([0; ErrorText::BYTES]));

/// In a static program, where there is no linker to ask for the real one: its other name.
fn describe(number: c_int, text: *mut c_char, len: usize) -> *mut c_char {
    unsafe extern "C" {
        fn __xpg_strerror_r(number: c_int, text: *mut c_char, len: usize) -> c_int;
    }
    // SAFETY: `len` bytes are writable at `text`, by the contract of strerror_r.
    unsafe { __xpg_strerror_r(number, text, len) };
    text
}
