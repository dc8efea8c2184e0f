//! What a dying program says through stdio, whose own writes never pass `write`: the functions that a message goes
//! through, read for stderr and stdout once memory was refused. `formatted` has those that take a format.

use super::messages;
use super::words::{is_of_memory, strerror};
use core::ffi::{CStr, c_char, c_int, c_void};
use oomguard_core::message::ANOTHER_ERROR;
use oomguard_core::sys;
use oomguard_engine::call_real;
use oomguard_engine::notes;
use oomguard_engine::real::Real;

type Fwrite = unsafe extern "C" fn(*const c_void, usize, usize, *mut c_void) -> usize;
type Fputs = unsafe extern "C" fn(*const c_char, *mut c_void) -> c_int;
type Puts = unsafe extern "C" fn(*const c_char) -> c_int;
type Perror = unsafe extern "C" fn(*const c_char);

static FWRITE: Real = Real::new(c"fwrite");
static FPUTS: Real = Real::new(c"fputs");
static PERROR: Real = Real::new(c"perror");
static PUTS: Real = Real::new(c"puts");

pub(super) fn resolve() {
    for real in [&FWRITE, &FPUTS, &PUTS, &PERROR] {
        let _ = real.address();
    }
}

/// glibc's other names for the same functions, which nobody hides: for a static program, where there is no linker to
/// ask for the next definition.
mod other_name {
    use super::{c_char, c_int, c_void};

    unsafe extern "C" {
        pub(super) fn _IO_fwrite(
            bytes: *const c_void,
            size: usize,
            number: usize,
            stream: *mut c_void,
        ) -> usize;
        pub(super) fn _IO_fputs(text: *const c_char, stream: *mut c_void) -> c_int;
        pub(super) fn _IO_puts(text: *const c_char) -> c_int;
    }
}

unsafe extern "C" {
    pub(super) static stdout: *mut c_void;
    pub(super) static stderr: *mut c_void;
}

/// Whether what goes to this stream is read.
#[inline]
pub(super) fn is_read(stream: *mut c_void) -> bool {
    if !messages::are_read() {
        return false;
    }
    // SAFETY: variables of the C library, set before constructors run.
    let error = unsafe { stderr };
    // SAFETY: as above.
    let output = unsafe { stdout };
    stream == error || stream == output
}

/// # Safety
/// `text` is a C string.
#[cold]
pub(super) unsafe fn hear_text(text: *const c_char) {
    let errno = sys::errno::errno();
    if !text.is_null() {
        // SAFETY: by contract.
        messages::hear(unsafe { CStr::from_ptr(text) }.to_bytes());
    }
    sys::errno::set_errno(errno);
}

/// fwrite(3).
///
/// # Safety
/// That of fwrite(3).
#[inline]
pub unsafe fn fwrite(bytes: *const c_void, size: usize, number: usize, stream: *mut c_void) -> usize {
    if is_read(stream) {
        messages::look_at(&[(bytes as usize, size.saturating_mul(number))]);
    }
    let real = call_real!(FWRITE, Fwrite).unwrap_or(other_name::_IO_fwrite);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { real(bytes, size, number, stream) }
}

/// fputs(3).
///
/// # Safety
/// That of fputs(3).
#[inline]
pub unsafe fn fputs(text: *const c_char, stream: *mut c_void) -> c_int {
    if is_read(stream) {
        // SAFETY: a C string, by contract.
        unsafe { hear_text(text) };
    }
    let real = call_real!(FPUTS, Fputs).unwrap_or(other_name::_IO_fputs);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { real(text, stream) }
}

/// puts(3).
///
/// # Safety
/// That of puts(3).
#[inline]
pub unsafe fn puts(text: *const c_char) -> c_int {
    if messages::are_read() {
        // SAFETY: a C string, by contract.
        unsafe { hear_text(text) };
    }
    let real = call_real!(PUTS, Puts).unwrap_or(other_name::_IO_puts);
    // SAFETY: the argument is the caller's, whose contract is the same.
    unsafe { real(text) }
}

/// What the C library says for an error number.
pub(super) fn hear_error(number: c_int) {
    if !messages::are_read() {
        return;
    }
    if is_of_memory(number) {
        messages::hear(b"enomem");
    } else if number != 0 {
        // In whatever language: it fails at something else.
        messages::hear(ANOTHER_ERROR);
    }
}

/// perror(3).
///
/// # Safety
/// That of perror(3).
pub unsafe fn perror(text: *const c_char) {
    let errno = sys::errno::errno();
    hear_error(errno);
    sys::errno::set_errno(errno);
    if let Some(real) = call_real!(PERROR, Perror) {
        // SAFETY: the argument is the caller's, whose contract is the same.
        return notes::while_translating(|| unsafe { real(text) });
    }
    // SAFETY: a variable of the C library, set before constructors run.
    let error = unsafe { stderr };
    // SAFETY: as above; the text is a C string that lives for ever.
    let put = |text: *const c_char| unsafe { other_name::_IO_fputs(text, error) };
    if !text.is_null() {
        put(text);
        put(c": ".as_ptr());
    }
    // SAFETY: the result is a C string of the C library's, or ours.
    put(unsafe { strerror(errno) });
    put(c"\n".as_ptr());
}
