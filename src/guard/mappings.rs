//! mmap and the like: look at the answer, and pass it on. A refused mapping is a note and never more: allocators and
//! runtimes probe, are refused and go on.

// A static program and another C library have none of these names.
#![cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]

use super::notes;
use super::real::{Real, call_real};
use super::refusal;
use crate::report::Request;
use crate::sys;
use core::ffi::{c_int, c_void};

type Mmap = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
type Mremap = unsafe extern "C" fn(*mut c_void, usize, usize, c_int, *mut c_void) -> *mut c_void;
type Mprotect = unsafe extern "C" fn(*mut c_void, usize, c_int) -> c_int;

static MMAP: Real = Real::new(c"mmap");
static MREMAP: Real = Real::new(c"mremap");
static MPROTECT: Real = Real::new(c"mprotect");

pub(super) fn resolve() {
    for real in [&MMAP, &MREMAP, &MPROTECT] {
        let _ = real.address();
    }
}

/// Takes note of what a mapping call gave.
#[inline(always)]
pub(super) fn look(worked: bool, bytes: usize) {
    if !worked || notes::is_watching() {
        look_closely(worked, bytes);
    }
}

#[cold]
#[inline(never)]
fn look_closely(worked: bool, bytes: usize) {
    if worked {
        refusal::count_mapping(bytes);
        return;
    }
    // A note leaves errno alone.
    if sys::fd::errno() == libc::ENOMEM && notes::is_guarded() {
        refusal::note_mapping(Request { bytes: bytes as u64, align: None });
    }
}

/// mmap(2).
///
/// # Safety
/// That of mmap(2).
#[inline]
pub unsafe extern "C" fn mmap(
    at: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let mapped = match call_real!(MMAP, Mmap) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(at, bytes, protection, flags, fd, offset) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe {
            libc::syscall(libc::SYS_mmap, at, bytes, protection, flags, fd, offset) as *mut c_void
        },
    };
    // What a success says about room: only what the program can write to.
    let counted = if protection & libc::PROT_WRITE != 0 || mapped == libc::MAP_FAILED { bytes } else { 0 };
    look(mapped != libc::MAP_FAILED, counted);
    mapped
}

/// mremap(2), with the fifth argument that only some flags have.
///
/// # Safety
/// That of mremap(2).
#[inline]
pub unsafe extern "C" fn mremap(
    at: *mut c_void,
    old_bytes: usize,
    bytes: usize,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    let mapped = match call_real!(MREMAP, Mremap) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(at, old_bytes, bytes, flags, to) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_mremap, at, old_bytes, bytes, flags, to) as *mut c_void },
    };
    look(mapped != libc::MAP_FAILED, bytes.saturating_sub(old_bytes));
    mapped
}

/// mprotect(2): under a limit on data, becoming writable is what is charged.
///
/// # Safety
/// That of mprotect(2).
#[inline]
pub unsafe extern "C" fn mprotect(at: *mut c_void, bytes: usize, protection: c_int) -> c_int {
    let result = match call_real!(MPROTECT, Mprotect) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(at, bytes, protection) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_mprotect, at, bytes, protection) as c_int },
    };
    let counted = if protection & libc::PROT_WRITE != 0 || result != 0 { bytes } else { 0 };
    look(result == 0, counted);
    result
}
