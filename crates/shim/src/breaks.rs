//! The program's break: brk(2) and sbrk(2), looked at as mappings are.

use core::ffi::{c_int, c_void};
use oomguard_engine::call_real;
use oomguard_engine::mappings::{ask, look};
use oomguard_engine::real::Real;

type Brk = unsafe extern "C" fn(*mut c_void) -> c_int;
type Sbrk = unsafe extern "C" fn(isize) -> *mut c_void;

unsafe extern "C" {
    /// The C library's other name for it: for a static program, where there is no linker to ask for the next definition.
    fn __sbrk(more: isize) -> *mut c_void;
}

static BRK: Real = Real::new(c"brk");
static SBRK: Real = Real::new(c"sbrk");

pub(super) fn resolve() {
    for real in [&BRK, &SBRK] {
        let _ = real.address();
    }
}

/// brk(2).
///
/// # Safety
/// That of brk(2).
pub unsafe fn brk(end: *mut c_void) -> c_int {
    let real_sbrk = call_real!(SBRK, Sbrk).unwrap_or(__sbrk);
    // SAFETY: moves nothing.
    let before = unsafe { real_sbrk(0) } as usize;
    let set = || match call_real!(BRK, Brk) {
        // SAFETY: the argument is the caller's, whose contract is the same.
        Some(real) => unsafe { real(end) },
        None => {
            // SAFETY: as above: to the end that the caller asks for.
            let moved = unsafe { real_sbrk((end as isize).wrapping_sub(before as isize)) };
            if moved == libc::MAP_FAILED { -1 } else { 0 }
        }
    };
    let mut result = set();
    let more = (end as usize).saturating_sub(before);
    if result != 0 {
        ask(more, &mut || {
            result = set();
            result == 0
        });
    }
    look(result == 0, more, true);
    result
}

/// sbrk(2).
///
/// # Safety
/// That of sbrk(2).
pub unsafe fn sbrk(more: isize) -> *mut c_void {
    let real = call_real!(SBRK, Sbrk).unwrap_or(__sbrk);
    // SAFETY: the argument is the caller's, whose contract is the same.
    let mut before = unsafe { real(more) };
    let bytes = usize::try_from(more).unwrap_or(0);
    if before == libc::MAP_FAILED {
        ask(bytes, &mut || {
            // SAFETY: as above; the refused call has moved nothing.
            before = unsafe { real(more) };
            before != libc::MAP_FAILED
        });
    }
    look(before != libc::MAP_FAILED, bytes, true);
    before
}
