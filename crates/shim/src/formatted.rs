//! Messages with a format: fprintf(3), error(3), err(3) and their kin. Once memory was refused, what they will say is put
//! together as far as it takes no more than texts and whole numbers. These functions take as many arguments as their callers
//! like: `crates/shim/` hands over the first ones and then goes on to the function whose address it gets.

use super::streams::{hear_error, is_read, stdout};
use super::{messages, variadic};
use core::ffi::{CStr, c_char, c_int, c_void};
use oomguard_core::sys;
use oomguard_core::text::{Text, position};
use oomguard_engine::notes;
use oomguard_engine::real::Real;

/// So much of a message is read.
const READ_BYTES: usize = 512;

/// The arguments behind a format, as far as they are known.
#[derive(Clone, Copy)]
enum Arguments {
    /// The registers, how many of them are arguments, where the others lie (0: not known), and how many have been taken.
    Registers { all: [usize; 5], known: usize, rest: usize, taken: usize },
    /// A `va_list`.
    List(usize),
}

impl Arguments {
    fn registers<const N: usize>(known: [usize; N], rest: usize) -> Arguments {
        let mut all = [0; 5];
        all.iter_mut().zip(known).for_each(|(slot, value)| *slot = value);
        Arguments::Registers { all, known: N.min(5), rest, taken: 0 }
    }

    /// The next text, pointer or whole number.
    ///
    /// # Safety
    /// The format says that there is one.
    unsafe fn next(&mut self) -> Option<usize> {
        match self {
            Arguments::Registers { all, known, rest, taken } => {
                let place = *taken;
                *taken += 1;
                match place.checked_sub(*known) {
                    None => all.get(place).copied(),
                    Some(_) if *rest == 0 => None,
                    // SAFETY: by contract: on the stack they lie one behind the other, eight bytes each.
                    Some(place) => Some(unsafe { (*rest as *const usize).wrapping_add(place).read() }),
                }
            }
            // SAFETY: by contract.
            Arguments::List(list) => unsafe { next_of_list(list) },
        }
    }
}

/// System V ABI, AMD64, 3.5.7: offsets into the saved registers, where the rest is, where they are. Reads, and leaves the
/// list as it is: `list` becomes a cursor, with the number of arguments taken in its upper bits.
///
/// # Safety
/// A list with such an argument in it.
#[cfg(target_arch = "x86_64")]
unsafe fn next_of_list(list: &mut usize) -> Option<usize> {
    /// User addresses have 47 bits.
    const TAKEN_SHIFT: u32 = 48;
    const REGISTERS_END: usize = 48;
    let taken = *list >> TAKEN_SHIFT;
    let at = *list & ((1 << TAKEN_SHIFT) - 1);
    *list += 1 << TAKEN_SHIFT;
    // SAFETY: the list, by contract: 24 bytes.
    let [offsets, rest, saved] = unsafe { (at as *const [usize; 3]).read() };
    let offset = offsets & u32::MAX as usize;
    let in_registers = REGISTERS_END.saturating_sub(offset) / 8;
    let place =
        if taken < in_registers { saved + offset + 8 * taken } else { rest + 8 * (taken - in_registers) };
    // SAFETY: the argument that the format speaks of.
    Some(unsafe { *(place as *const usize) })
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn next_of_list(_: &mut usize) -> Option<usize> {
    None
}

/// Hears what a format will say. What cannot be read of it is left out.
///
/// # Safety
/// A format of printf(3)'s and its arguments.
#[cold]
#[inline(never)]
unsafe fn hear_formatted(format: *const c_char, mut arguments: Arguments) {
    if format.is_null() {
        return;
    }
    let errno = sys::errno::errno();
    let mut text = Text::<READ_BYTES>::new();
    // SAFETY: a C string, by contract.
    let mut rest = unsafe { CStr::from_ptr(format) }.to_bytes();
    let mut are_known = true;
    while let Some(at) = position(rest, b'%') {
        text.push_bytes(rest.get(..at).unwrap_or(&[]));
        let directive = rest.get(at + 1..).unwrap_or(&[]);
        let is_modifier = |byte: &u8| b"0123456789.-+ #'lhqjztLI*".contains(byte);
        let len = directive.iter().position(|byte| !is_modifier(byte)).unwrap_or(directive.len());
        let modifiers = directive.get(..len).unwrap_or(&[]);
        let mut most_bytes = precision(modifiers);
        for at in (0..len).filter(|_| are_known).filter(|at| modifiers.get(*at) == Some(&b'*')) {
            // SAFETY: by contract: each star is a whole number.
            let number = unsafe { arguments.next() };
            if at.checked_sub(1).and_then(|before| modifiers.get(before)) == Some(&b'.') {
                // A negative one is none.
                most_bytes = number.and_then(|number| usize::try_from(number as i32).ok());
            }
        }
        match directive.get(len) {
            Some(b'%') => text.push("%"),
            Some(b'm') if errno == libc::ENOMEM => text.push("cannot allocate memory"),
            Some(b'm') => {}
            // Of a wide text the first letter at most would be read.
            Some(b's') if are_known && !modifiers.contains(&b'l') => {
                // SAFETY: by contract, as the format says.
                if let Some(at) = unsafe { arguments.next() } {
                    push_c_string(&mut text, at, most_bytes.unwrap_or(usize::MAX));
                }
            }
            Some(b'd' | b'u' | b'i') if are_known => {
                // SAFETY: as above.
                text.push_number(unsafe { arguments.next() }.unwrap_or(0) as u64 & u64::from(u32::MAX));
            }
            Some(b'x' | b'X' | b'o' | b'c' | b'p' | b's') if are_known => {
                // SAFETY: as above.
                unsafe { arguments.next() };
            }
            // In other registers.
            Some(b'e' | b'E' | b'f' | b'F' | b'g' | b'G' | b'a' | b'A') if !modifiers.contains(&b'L') => {}
            // Arguments by number: which is which is not told any more.
            _ => are_known = false,
        }
        rest = directive.get(len + 1..).unwrap_or(&[]);
    }
    text.push_bytes(rest);
    messages::hear(text.as_bytes());
    sys::errno::set_errno(errno);
}

/// How many bytes of a text are to be said at most, where the format itself says so: `%.8s`.
fn precision(modifiers: &[u8]) -> Option<usize> {
    let at = position(modifiers, b'.')?;
    let digits = modifiers.get(at + 1..)?;
    let len = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    // None at all stand for zero.
    let add = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
    Some(digits.get(..len)?.iter().fold(0, add))
}

/// Pushes the C string at an address, as far as it can be read, and at most so much of it: behind that it may have no end.
pub(super) fn push_c_string<const N: usize>(text: &mut Text<N>, at: usize, most_bytes: usize) {
    const MOST_BYTES: usize = 256;
    const PIECE: usize = 64;
    let most_bytes = most_bytes.min(MOST_BYTES);
    let mut read = 0;
    while read < most_bytes {
        let start = at.wrapping_add(read);
        // Never past the end of a piece: what lies behind the string may not be there.
        let len = (PIECE - start % PIECE).min(most_bytes - read);
        // SAFETY: the caller's for the length of its call.
        let Some(piece) = (unsafe { sys::memory::readable(start, len, len) }) else { return };
        match position(piece, 0) {
            Some(end) => return text.push_bytes(piece.get(..end).unwrap_or(&[])),
            None => text.push_bytes(piece),
        }
        read += len;
    }
}

/// The functions that are hidden.
macro_rules! hidden {
    ($($real:ident $name:literal;)*) => {
        $(static $real: Real = Real::new($name);)*

        pub(super) fn resolve() {
            for real in [$(&$real),*] {
                let _ = real.address();
            }
        }
    };
}

hidden! {
    FPRINTF c"fprintf";
    VFPRINTF c"vfprintf";
    FPRINTF_CHK c"__fprintf_chk";
    VFPRINTF_CHK c"__vfprintf_chk";
    PRINTF c"printf";
    PRINTF_CHK c"__printf_chk";
    ERROR c"error";
    ERR c"err";
    ERRX c"errx";
    WARN c"warn";
    WARNX c"warnx";
}

mod other_name {
    use super::{c_char, c_int, c_void};

    unsafe extern "C" {
        pub(super) fn _IO_fprintf(stream: *mut c_void, format: *const c_char, ...) -> c_int;
        pub(super) fn _IO_printf(format: *const c_char, ...) -> c_int;
        pub(super) fn _IO_vfprintf(
            stream: *mut c_void,
            format: *const c_char,
            arguments: *mut c_void,
        ) -> c_int;
    }
}

/// Has what an error number is called looked up before the C library does so by itself: what that is refused is refused to
/// nobody.
fn look_up(number: c_int) {
    let mut text = [0; 256];
    if number != 0 {
        // SAFETY: so many bytes are writable there.
        notes::while_translating(|| unsafe { libc::strerror_r(number, text.as_mut_ptr(), text.len()) });
    }
}

fn stdout_is_read() -> bool {
    // SAFETY: a variable of the C library, set before constructors run.
    is_read(unsafe { stdout })
}

/// Defines what is called before a function of this kin: it hears what that will say, if `$is_read`, and gives the address of
/// the real one, or of what stands for it. Six registers hold arguments; the seventh that `crates/shim/` hands over is where on the
/// stack the others lie.
macro_rules! before {
    ($(
        fn $name:ident($($argument:ident: $type:ty),*),
        if $is_read:expr, hears $format:ident with $arguments:expr $(, and of error $number:expr)?,
        then $real:ident or $other:path;
    )*) => {
        $(
            /// # Safety
            /// The arguments of the function that follows, as far as they are in registers.
            pub unsafe extern "C" fn $name($($argument: $type),*) -> usize {
                if $is_read {
                    let errno = sys::errno::errno();
                    // SAFETY: by contract.
                    unsafe { hear_formatted($format, $arguments) };
                    $(
                        let number = ($number)(errno);
                        hear_error(number);
                        look_up(number);
                    )?
                    sys::errno::set_errno(errno);
                }
                $real.address().unwrap_or($other as *const () as usize)
            }
        )*
    };
}

before! {
    fn before_fprintf(stream: *mut c_void, format: *const c_char, a: usize, b: usize, c: usize, d: usize, rest: usize),
    if is_read(stream), hears format with Arguments::registers([a, b, c, d], rest),
    then FPRINTF or other_name::_IO_fprintf;

    fn before_vfprintf(stream: *mut c_void, format: *const c_char, list: usize),
    if is_read(stream), hears format with Arguments::List(list),
    then VFPRINTF or other_name::_IO_vfprintf;

    // What `_FORTIFY_SOURCE` makes of them, with a flag.
    fn before_fprintf_chk(stream: *mut c_void, _flag: c_int, format: *const c_char, a: usize, b: usize, c: usize, rest: usize),
    if is_read(stream), hears format with Arguments::registers([a, b, c], rest),
    then FPRINTF_CHK or variadic::fprintf_chk;

    fn before_vfprintf_chk(stream: *mut c_void, _flag: c_int, format: *const c_char, list: usize),
    if is_read(stream), hears format with Arguments::List(list),
    then VFPRINTF_CHK or variadic::vfprintf_chk;

    fn before_printf(format: *const c_char, a: usize, b: usize, c: usize, d: usize, e: usize, rest: usize),
    if stdout_is_read(), hears format with Arguments::registers([a, b, c, d, e], rest),
    then PRINTF or other_name::_IO_printf;

    fn before_printf_chk(_flag: c_int, format: *const c_char, a: usize, b: usize, c: usize, d: usize, rest: usize),
    if stdout_is_read(), hears format with Arguments::registers([a, b, c, d], rest),
    then PRINTF_CHK or variadic::printf_chk;

    // error(3), which may end the program by itself, and err(3), whose error number is errno.
    fn before_error(_status: c_int, number: c_int, format: *const c_char, a: usize, b: usize, c: usize, rest: usize),
    if messages::are_read(), hears format with Arguments::registers([a, b, c], rest), and of error |_| number,
    then ERROR or variadic::error;

    fn before_err(_code: c_int, format: *const c_char, a: usize, b: usize, c: usize, d: usize, rest: usize),
    if messages::are_read(), hears format with Arguments::registers([a, b, c, d], rest), and of error core::convert::identity,
    then ERR or variadic::err;

    fn before_errx(_code: c_int, format: *const c_char, a: usize, b: usize, c: usize, d: usize, rest: usize),
    if messages::are_read(), hears format with Arguments::registers([a, b, c, d], rest),
    then ERRX or variadic::errx;

    fn before_warn(format: *const c_char, a: usize, b: usize, c: usize, d: usize, e: usize, rest: usize),
    if messages::are_read(), hears format with Arguments::registers([a, b, c, d, e], rest), and of error core::convert::identity,
    then WARN or variadic::warn;

    fn before_warnx(format: *const c_char, a: usize, b: usize, c: usize, d: usize, e: usize, rest: usize),
    if messages::are_read(), hears format with Arguments::registers([a, b, c, d, e], rest),
    then WARNX or variadic::warnx;
}
