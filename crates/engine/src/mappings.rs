//! mmap and the like: look at the answer, and pass it on. A refused mapping is a note and never more: allocators and
//! runtimes probe, are refused and go on.

// A static program and another C library have none of these names.
#![cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]

use super::armed::armed;
use super::lease::{Kind, Pledge};
use super::notes;
use super::real::{Real, call_real};
use super::resident::Refused;
use super::{filter, lease, loading, owner, refusal, resident};
use core::ffi::c_long;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use oomguard_core::growth;
use oomguard_core::report::Request;
use oomguard_core::shortage::Asked;
use oomguard_core::sys;
use oomguard_core::sys::memory::{Resource, rlimit};

type Mmap = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
type Mremap = unsafe extern "C" fn(*mut c_void, usize, usize, c_int, *mut c_void) -> *mut c_void;
type Mprotect = unsafe extern "C" fn(*mut c_void, usize, c_int) -> c_int;

static MMAP: Real = Real::new(c"mmap");
static MREMAP: Real = Real::new(c"mremap");
static MPROTECT: Real = Real::new(c"mprotect");

pub fn resolve() {
    for real in [&MMAP, &MREMAP, &MPROTECT] {
        let _ = real.address();
    }
}

/// The same of what only the library defines.
pub fn resolve_allocation() {
    for real in [&FALLOCATE, &POSIX_FALLOCATE, &TEST_CANCEL] {
        let _ = real.address();
    }
}

/// Takes note of what a mapping call gave: so many bytes, which the program can write to and shares with nobody, or not.
#[inline(always)]
pub fn look(worked: bool, bytes: usize, writable: bool) {
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
    let errno = sys::errno::errno();
    if errno == libc::ENOMEM
        && let Some(armed) = armed()
        && owner::is_guarded()
    {
        let asked = Asked { bytes: bytes as u64, writable, by_allocator: false };
        if refusal::is_by_limit(armed, asked) {
            refusal::note_mapping(Request { bytes: asked.bytes, align: None });
        }
    }
    sys::errno::set_errno(errno);
}

/// A call that would take so many bytes of data was refused: may it have more? `errno` is then as it was before, whatever
/// the answer.
#[cold]
#[inline(never)]
pub fn ask(bytes: usize, again: &mut dyn FnMut() -> bool) {
    let errno = sys::errno::errno();
    if errno == libc::ENOMEM
        && let Some(armed) = armed()
    {
        let _has_it = resident::ask(armed, bytes as u64, again)
            || resident::wait(armed, bytes as u64, Kind::Mapping, again);
        // Who looked on the way may have found somebody gone (ESRCH), and the refusal is the program's to see.
        sys::errno::set_errno(errno);
    }
}

/// Whether it is room for code that the program makes as it runs: V8, in Node 24, has 512 MiB of that at its start, all writable at
/// once, and uses little of it.
fn is_range_for_code(bytes: usize, protection: c_int) -> bool {
    /// More than is made at a time.
    const LEAST_BYTES: usize = 64 << 20;
    let wanted = libc::PROT_WRITE | libc::PROT_EXEC;
    bytes >= LEAST_BYTES && protection & wanted == wanted
}

/// A call that was refused, once more, where a look finds what is used of it. `errno` is then as it was before.
#[cold]
#[inline(never)]
fn let_pass(again: &mut dyn FnMut()) {
    let errno = sys::errno::errno();
    if errno == libc::ENOMEM && resident::lift_for_loading() {
        again();
        resident::settle_after_loading();
        sys::errno::set_errno(errno);
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

/// What is asked for before a call that no limit refuses.
enum Before {
    Nothing,
    /// In a budget.
    Pledged {
        pledge: Pledge,
        of_shared: bool,
    },
    Refused,
}

/// The same of a mapping.
#[cold]
#[inline(never)]
fn ask_before_mapping(
    at: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> Before {
    let errno = sys::errno::errno();
    let before = if is_data(protection, flags) {
        lay_over(at, bytes)
    } else {
        take_shared(if flags & libc::MAP_ANONYMOUS != 0 {
            bytes as u64
        } else {
            let file = sys::fd::kept_in_memory(fd);
            file.map_or(0, |file| file.more_mapped(offset.cast_unsigned(), bytes as u64))
        })
    };
    sys::errno::set_errno(errno);
    before
}

/// A writable mapping laid over other mappings (MAP_FIXED): whether it takes more than RLIMIT_DATA allows. The kernel takes
/// off what lies below it, whether that was counted or not (mmap_region in mm/vma.c), and so lets a program write to all
/// that it ever reserved.
fn lay_over(at: *mut c_void, bytes: usize) -> Before {
    let page = sys::memory::page_bytes();
    let Some(wanted) = (bytes as u64).checked_next_multiple_of(page) else { return Before::Nothing };
    let take = |left: u64| left.checked_sub(wanted);
    if UNSEEN_LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() || !filter::may_ask() {
        return Before::Nothing;
    }
    // Before anything is looked at that it rests on. Without a budget nothing is pledged.
    let pledge = Pledge::new(wanted);
    let own = pledge.as_ref().map_or(0, Pledge::bytes);
    let others = lease::pledged().saturating_sub(own);
    // Where nothing is limited there is nothing to look for.
    let (Some(limit), Some(used)) = (rlimit(Resource::Data).soft, sys::memory::memory_use().data) else {
        return Before::Nothing;
    };
    let room = limit.saturating_sub(used).saturating_sub(others);
    let left = if room >= wanted.saturating_add(AMPLE_BYTES) { UNSEEN_BYTES } else { 0 };
    UNSEEN_LEFT.store(left, Ordering::Relaxed);
    let replaced = || {
        let start = at as usize;
        sys::memory::data_within(start..start.saturating_add(bytes))
    };
    let Some(more) = growth::laid_over(room, wanted, replaced) else {
        return Before::with(pledge, false);
    };
    drop(pledge);
    if !lease::is_shared() {
        return if resident::would_be_refused(bytes) { Before::Refused } else { Before::Nothing };
    }
    Before::of(armed().map_or(Ok(None), |armed| resident::pledge(armed, more)), false)
}

/// So many bytes of shared memory are about to come into use: in a budget they are asked for. What one process could never have it
/// may map all the same, as it cannot mean to use all of that.
fn take_shared(bytes: u64) -> Before {
    /// Less than this is found by a look.
    const UNSEEN_BYTES: u64 = 256 << 10;
    let Some(armed) = armed().filter(|_| bytes >= UNSEEN_BYTES && filter::may_ask()) else {
        return Before::Nothing;
    };
    if resident::limit(armed).is_none_or(|limit| bytes > limit) {
        return Before::Nothing;
    }
    Before::of(resident::pledge(armed, bytes), true)
}

impl Before {
    fn of(answer: Result<Option<Pledge>, Refused>, of_shared: bool) -> Before {
        answer.map_or(Before::Refused, |pledge| Before::with(pledge, of_shared))
    }

    fn with(pledge: Option<Pledge>, of_shared: bool) -> Before {
        pledge.map_or(Before::Nothing, |pledge| Before::Pledged { pledge, of_shared })
    }

    fn is_pledged(&self) -> bool {
        matches!(self, Before::Pledged { .. })
    }

    /// The call has been made.
    #[inline(always)]
    fn end(self, worked: bool) {
        if self.is_pledged() {
            self.end_pledge(worked);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_pledge(self, worked: bool) {
        let errno = sys::errno::errno();
        if let Before::Pledged { pledge, of_shared: true } = &self
            && worked
        {
            lease::note_new_shared(pledge.bytes());
        }
        drop(self);
        sys::errno::set_errno(errno);
    }
}

/// Whether a mapping takes memory that RLIMIT_DATA knows nothing of: what may be shared, and is written to.
fn is_shared(protection: c_int, flags: c_int) -> bool {
    protection & libc::PROT_WRITE != 0 && flags & libc::MAP_TYPE != libc::MAP_PRIVATE
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
    loading::end_if_here();
    let is_laid_over = flags & libc::MAP_FIXED != 0 && is_data(protection, flags);
    let is_shared = is_shared(protection, flags);
    let before = if (is_laid_over || is_shared && lease::is_shared()) && armed().is_some() {
        ask_before_mapping(at, bytes, protection, flags, fd, offset)
    } else {
        Before::Nothing
    };
    if let Before::Refused = before {
        sys::errno::set_errno(libc::ENOMEM);
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
    let may_take = !is_data(protection, flags) || loading::may_take(bytes);
    let mut mapped = if may_take { map() } else { libc::MAP_FAILED };
    before.end(mapped != libc::MAP_FAILED);
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
    let more = bytes.saturating_sub(old_bytes);
    let mut mapped = if loading::may_take(more) { map() } else { libc::MAP_FAILED };
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
    let errno = sys::errno::errno();
    // SAFETY: MS_ASYNC looks at what is mapped and does nothing.
    let result = unsafe { libc::syscall(libc::SYS_msync, at, bytes, libc::MS_ASYNC) };
    let has_hole = result != 0 && sys::errno::errno() == libc::ENOMEM;
    sys::errno::set_errno(errno);
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
    let mut result = if !writable || loading::may_take(bytes) { protect() } else { -1 };
    if result != 0 && is_range_for_code(bytes, protection) {
        let_pass(&mut || {
            result = protect();
            if result == 0 {
                lease::note_room_for_code(bytes as u64);
            }
        });
    }
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

// "C-unwind": in glibc it is a cancellation point, from which a cancelled thread is unwound through its callers.
type Fallocate = unsafe extern "C-unwind" fn(c_int, c_int, i64, i64) -> c_int;
type TestCancel = unsafe extern "C-unwind" fn();
type PosixFallocate = unsafe extern "C" fn(c_int, i64, i64) -> c_int;

static FALLOCATE: Real = Real::new(c"fallocate");
static TEST_CANCEL: Real = Real::new(c"pthread_testcancel");
static POSIX_FALLOCATE: Real = Real::new(c"posix_fallocate");

/// What is asked for before a file gets memory for so many bytes that it shows nobody yet.
#[cold]
#[inline(never)]
fn ask_before_allocation(fd: c_int, offset: i64, bytes: i64) -> Before {
    if !lease::is_shared() {
        return Before::Nothing;
    }
    let errno = sys::errno::errno();
    let (offset, bytes) = (u64::try_from(offset).unwrap_or(0), u64::try_from(bytes).unwrap_or(0));
    let before = take_shared(sys::fd::kept_in_memory(fd).map_or(0, |file| file.more_with(offset, bytes)));
    if let Before::Refused = before {
        sys::errno::set_errno(libc::ENOMEM);
        look(false, usize::try_from(bytes).unwrap_or(usize::MAX), true);
    }
    sys::errno::set_errno(errno);
    before
}

/// fallocate(2), whose memory nobody has mapped yet where the file is kept in memory.
///
/// # Safety
/// That of fallocate(2).
pub unsafe extern "C-unwind" fn fallocate(fd: c_int, mode: c_int, offset: i64, bytes: i64) -> c_int {
    let real = call_real!(FALLOCATE, Fallocate);
    // SAFETY: the arguments are the caller's, whose contract is the same.
    unsafe { fallocate_by(real, fd, mode, offset, bytes) }
}

/// # Safety
/// That of fallocate(2).
unsafe fn fallocate_by(real: Option<Fallocate>, fd: c_int, mode: c_int, offset: i64, bytes: i64) -> c_int {
    // All other modes give back, or move.
    let takes = mode & !libc::FALLOC_FL_KEEP_SIZE == 0;
    let before = if takes { ask_before_allocation(fd, offset, bytes) } else { Before::Nothing };
    if let Before::Refused = before {
        sys::errno::set_errno(libc::ENOMEM);
        return -1;
    }
    let by_instruction = || {
        let arguments = [fd as usize, mode as usize, offset as usize, bytes as usize, 0, 0];
        // SAFETY: the system call behind it, with the caller's arguments.
        unsafe { sys::raw::call_with_errno(libc::SYS_fallocate, arguments) as c_int }
    };
    if !before.is_pledged() {
        // Nothing is to be done for a thread that is ended in there: pthread_cancel(3).
        drop(before);
        return match real {
            // SAFETY: as above.
            Some(real) => unsafe { real(fd, mode, offset, bytes) },
            None => by_instruction(),
        };
    }
    let result = by_instruction();
    before.end(result == 0);
    if let Some(test_cancel) = call_real!(TEST_CANCEL, TestCancel).filter(|_| real.is_some()) {
        // SAFETY: it takes nothing; nothing is left to be done here, should the thread end.
        unsafe { test_cancel() };
    }
    result
}

/// posix_fallocate(3), likewise; the error is what it returns.
///
/// # Safety
/// That of posix_fallocate(3).
pub unsafe extern "C" fn posix_fallocate(fd: c_int, offset: i64, bytes: i64) -> c_int {
    let before = ask_before_allocation(fd, offset, bytes);
    if let Before::Refused = before {
        return libc::ENOMEM;
    }
    let result = match call_real!(POSIX_FALLOCATE, PosixFallocate) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, offset, bytes) },
        // SAFETY: the system call behind it; its error is a negative number.
        None => unsafe {
            let arguments = [fd as usize, 0, offset as usize, bytes as usize, 0, 0];
            -(sys::raw::call(libc::SYS_fallocate, arguments) as c_int)
        },
    };
    before.end(result == 0);
    result
}

/// A mapping call that a program makes by its number, as SBCL does and tcmalloc, whose own `mmap` is made of it: what
/// goes on to the next `mmap` would come back here for ever.
///
/// # Safety
/// That of the call.
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
        libc::SYS_fallocate => unsafe {
            fallocate_by(None, a as c_int, b as c_int, c as i64, d as i64).into()
        },
        // SAFETY: as above.
        _ => unsafe { mprotect_by(None, at, b, c as c_int).into() },
    }
}
