//! mmap and the like: look at the answer, and pass it on. A refused mapping is a note and never more: allocators and
//! runtimes probe, are refused and go on.

// A static program and another C library have none of these names.
#![cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]

use super::armed::armed;
use super::lease::Kind;
use super::notes;
use super::real::{Real, call_real};
use super::{refusal, resident};
use crate::report::Request;
use crate::shortage::Asked;
use crate::sys;
use crate::sys::memory::{Resource, rlimit};
#[cfg(feature = "shim")]
use core::ffi::c_long;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};

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

/// Takes note of what a mapping call gave: so many bytes, which the program can write to and shares with nobody, or not.
#[inline(always)]
pub(super) fn look(worked: bool, bytes: usize, writable: bool) {
    if !worked {
        look_at_refusal(bytes, writable);
    } else if notes::is_watching() {
        // What a success says about room: only what the program can write to.
        refusal::count_mapping(if writable { bytes } else { 0 });
    }
}

#[cold]
#[inline(never)]
fn look_at_refusal(bytes: usize, writable: bool) {
    let errno = sys::fd::errno();
    if errno == libc::ENOMEM
        && let Some(armed) = armed()
        && notes::is_guarded()
    {
        let asked = Asked { bytes: bytes as u64, writable, by_allocator: false };
        if refusal::is_by_limit(armed, asked) {
            refusal::note_mapping(Request { bytes: asked.bytes, align: None });
        }
    }
    sys::fd::set_errno(errno);
}

/// A call that would take so many bytes of data was refused: may it have more? `errno` is then as it was before.
#[cold]
#[inline(never)]
pub(super) fn ask(bytes: usize, again: &mut dyn FnMut() -> bool) {
    let errno = sys::fd::errno();
    if errno == libc::ENOMEM
        && let Some(armed) = armed()
        && (resident::ask(armed, bytes as u64, again)
            || resident::wait(armed, bytes as u64, Kind::Mapping, again))
    {
        sys::fd::set_errno(errno);
    }
}

/// Whether RLIMIT_DATA counts such a mapping.
fn is_data(protection: c_int, flags: c_int) -> bool {
    protection & libc::PROT_WRITE != 0 && flags & libc::MAP_TYPE == libc::MAP_PRIVATE
}

/// Of what is laid over other mappings of the program's own, so much is let pass until use is looked at again …
const UNSEEN_BYTES: u64 = 1 << 20;
/// … while there was so much room when it was looked at.
const AMPLE_BYTES: u64 = 64 << 20;

/// How much may still be laid over other mappings before use is looked at. Relaxed: two threads at once let pass a little
/// more.
static UNSEEN_LEFT: AtomicU64 = AtomicU64::new(0);

/// Whether a writable mapping laid over other mappings (MAP_FIXED) takes more than RLIMIT_DATA allows. The kernel takes
/// off what lies below it, whether that was counted or not (mmap_region in mm/vma.c), and so lets a program write to all
/// that it ever reserved.
#[cold]
#[inline(never)]
fn exceeds_limit(at: *mut c_void, bytes: usize) -> bool {
    let page = sys::memory::page_bytes();
    let Some(wanted) = (bytes as u64).checked_next_multiple_of(page) else { return false };
    let take = |left: u64| left.checked_sub(wanted);
    if UNSEEN_LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() || !refusal::may_ask() {
        return false;
    }
    let errno = sys::fd::errno();
    // Where nothing is limited there is nothing to look for.
    let Some(limit) = rlimit(Resource::Data).soft else { return false };
    let exceeds = match sys::memory::memory_use().data {
        Some(used) => {
            let room = limit.saturating_sub(used);
            let left = if room >= wanted.saturating_add(AMPLE_BYTES) { UNSEEN_BYTES } else { 0 };
            UNSEEN_LEFT.store(left, Ordering::Relaxed);
            room < wanted && {
                let start = at as usize;
                let replaced = sys::memory::data_within(start..start.saturating_add(bytes));
                replaced.is_some_and(|replaced| room.saturating_add(replaced) < wanted)
                    && resident::would_be_refused(bytes)
            }
        }
        None => false,
    };
    sys::fd::set_errno(errno);
    exceeds
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
    let real = call_real!(MMAP, Mmap);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { mmap_by(real, at, bytes, protection, flags, fd, offset) }
}

/// mmap(2) by this function, by the system call itself where there is none.
///
/// # Safety
/// That of mmap(2).
#[inline(always)]
unsafe fn mmap_by(
    real: Option<Mmap>,
    at: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    if flags & libc::MAP_FIXED != 0
        && is_data(protection, flags)
        && armed().is_some()
        && exceeds_limit(at, bytes)
    {
        sys::fd::set_errno(libc::ENOMEM);
        look(false, bytes, true);
        return libc::MAP_FAILED;
    }
    let map = || match real {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(at, bytes, protection, flags, fd, offset) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe {
            let (protection, flags, fd) = (protection as usize, flags as usize, fd as usize);
            sys::raw::call_with_errno(
                libc::SYS_mmap,
                [at as usize, bytes, protection, flags, fd, offset as usize],
            ) as *mut c_void
        },
    };
    let mut mapped = map();
    if mapped == libc::MAP_FAILED && is_data(protection, flags) {
        ask(bytes, &mut || {
            mapped = map();
            mapped != libc::MAP_FAILED
        });
    }
    if mapped == libc::MAP_FAILED {
        refusal::lend_to_python(&mut || {
            mapped = map();
            mapped != libc::MAP_FAILED
        });
    }
    look(mapped != libc::MAP_FAILED, bytes, is_data(protection, flags));
    let is_shared = protection & libc::PROT_WRITE != 0 && flags & libc::MAP_TYPE != libc::MAP_PRIVATE;
    if is_shared && mapped != libc::MAP_FAILED && notes::is_watching() {
        notes::note_other_way(bytes);
    }
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
    let real = call_real!(MREMAP, Mremap);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { mremap_by(real, at, old_bytes, bytes, flags, to) }
}

/// mremap(2), as `mmap_by` does.
///
/// # Safety
/// That of mremap(2).
#[inline(always)]
unsafe fn mremap_by(
    real: Option<Mremap>,
    at: *mut c_void,
    old_bytes: usize,
    bytes: usize,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    let map = || match real {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(at, old_bytes, bytes, flags, to) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe {
            sys::raw::call_with_errno(
                libc::SYS_mremap,
                [at as usize, old_bytes, bytes, flags as usize, to as usize, 0],
            ) as *mut c_void
        },
    };
    let mut mapped = map();
    let more = bytes.saturating_sub(old_bytes);
    if mapped == libc::MAP_FAILED && more > 0 {
        ask(more, &mut || {
            mapped = map();
            mapped != libc::MAP_FAILED
        });
    }
    look(mapped != libc::MAP_FAILED, more, true);
    mapped
}

/// Whether something is missing in that range, which nothing can be made of: msync(2).
#[cold]
fn has_hole(at: *mut c_void, bytes: usize) -> bool {
    let errno = sys::fd::errno();
    // SAFETY: MS_ASYNC looks at what is mapped and does nothing.
    let result = unsafe { libc::syscall(libc::SYS_msync, at, bytes, libc::MS_ASYNC) };
    let has_hole = result != 0 && sys::fd::errno() == libc::ENOMEM;
    sys::fd::set_errno(errno);
    has_hole
}

/// mprotect(2): under a limit on data, becoming writable is what is charged.
///
/// # Safety
/// That of mprotect(2).
#[inline]
pub unsafe extern "C" fn mprotect(at: *mut c_void, bytes: usize, protection: c_int) -> c_int {
    let real = call_real!(MPROTECT, Mprotect);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { mprotect_by(real, at, bytes, protection) }
}

/// mprotect(2), as `mmap_by` does.
///
/// # Safety
/// That of mprotect(2).
#[inline(always)]
unsafe fn mprotect_by(real: Option<Mprotect>, at: *mut c_void, bytes: usize, protection: c_int) -> c_int {
    let protect = || match real {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(at, bytes, protection) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe {
            sys::raw::call_with_errno(libc::SYS_mprotect, [at as usize, bytes, protection as usize, 0, 0, 0])
                as c_int
        },
    };
    let writable = protection & libc::PROT_WRITE != 0;
    let mut result = protect();
    if result != 0 && writable {
        ask(bytes, &mut || {
            result = protect();
            result == 0
        });
    }
    // What was not all there was not all to be had: mprotect(2) says ENOMEM for that as well.
    if result == 0 || !has_hole(at, bytes) {
        look(result == 0, bytes, writable);
    }
    result
}

/// A mapping call that a program makes by its number, as SBCL does and tcmalloc, whose own `mmap` is made of it: what
/// goes on to the next `mmap` would come back here for ever.
///
/// # Safety
/// That of the call.
#[cfg(feature = "shim")]
pub unsafe extern "C" fn mapping_syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let at = a as *mut c_void;
    match number {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        libc::SYS_mmap => unsafe {
            mmap_by(None, at, b, c as c_int, d as c_int, e as c_int, f as i64) as c_long
        },
        // SAFETY: as above.
        libc::SYS_mremap => unsafe { mremap_by(None, at, b, c, d as c_int, e as *mut c_void) as c_long },
        // SAFETY: as above.
        _ => unsafe { mprotect_by(None, at, b, c as c_int).into() },
    }
}
