//! What a supervisor gets to see of this process: fills the page that it handed over, while the process lives and as it
//! dies. Stores only: no allocation, no lock.

use super::armed::Armed;
use crate::contract::Cause;
use crate::profile::Tables;
use crate::record::{self, FILE_BYTES, Page, Place, ProfileState, RECORD_BYTES, Untold};
use crate::report::{Request, Snapshot};
use crate::sys;
use crate::sys::fd::Fd;
use crate::sys::memory::MemoryUse;
use crate::text::Text;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

static PAGE: AtomicPtr<Page> = AtomicPtr::new(core::ptr::null_mut());

/// The process that fills the page: a child that it forks must not.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// The tables behind the page, where they are mapped.
static TABLES: AtomicPtr<Tables> = AtomicPtr::new(core::ptr::null_mut());

/// Takes over the page that `OOMGUARD_RECORD` names. A descriptor that is no record, or one that another process
/// fills, is left alone: the variable is inherited by processes that it was not meant for.
/// `profiles`: the program has a profiler compiled in, whose tables are behind the page.
pub(super) fn attach(value: Option<&[u8]>, armed: &Armed, profiles: bool) {
    let named = value.and_then(record::from_variable);
    let Some(page) = named.and_then(|named| take_over(named, profiles)) else { return };
    page.write_profile_state(ProfileState::NotCompiledIn);
    write_armed(page, armed);
}

/// The limit is another one now.
#[cfg(feature = "shim")]
pub(super) fn note_armed(armed: &Armed) {
    if let Some(page) = page() {
        write_armed(page, armed);
    }
}

fn write_armed(page: &Page, armed: &Armed) {
    page.write_armed(&record::Armed {
        program: armed.program.as_bytes(),
        token: armed.token.as_ref().map(Text::as_bytes),
        limit: armed.limit.bytes(),
        limit_source: armed.limit.source(),
        measure: armed.measure,
        exit_code: armed.exit_code,
    });
}

fn take_over(place: Place, profiles: bool) -> Option<&'static Page> {
    let opened = match place.pid {
        Some(pid) => Some(sys::memfd::open_of(pid, place.fd)?),
        None => None,
    };
    let fd = opened.as_ref().map_or(place.fd, Fd::number);
    if fd <= libc::STDERR_FILENO || sys::memfd::sealed_inode(fd, FILE_BYTES) != Some(place.inode) {
        return None;
    }
    // All of it is too much for a process that will not use it: address space counts.
    let whole = if profiles { sys::memfd::map_for_ever(fd, FILE_BYTES) } else { None };
    let start = whole.or_else(|| sys::memfd::map_for_ever(fd, RECORD_BYTES))?;
    let at: *mut Page = start.cast();
    // SAFETY: a mapping of the page's size that is never unmapped and, being sealed, cannot shrink; its words are
    // atomics, so that others may write to it.
    let page = unsafe { &*at };
    let pid = sys::process::pid();
    if !page.claim(pid) {
        return None;
    }
    // The mapping stays; the children of this process must not get at it.
    if place.pid.is_none() {
        sys::fd::close_number(fd);
    }
    // Relaxed, here and below: start-up comes before everything that looks.
    OWNER.store(pid, Ordering::Relaxed);
    PAGE.store(at, Ordering::Relaxed);
    if let Some(whole) = whole {
        TABLES.store(whole.wrapping_add(RECORD_BYTES).cast(), Ordering::Relaxed);
    }
    Some(page)
}

fn page() -> Option<&'static Page> {
    let at = PAGE.load(Ordering::Relaxed);
    if at.is_null() || OWNER.load(Ordering::Relaxed) != sys::process::pid() {
        return None;
    }
    // SAFETY: as in `take_over`, which stored it.
    Some(unsafe { &*at })
}

/// The profile's tables that the parent reads: mapped for good and zeroed, where there is such a parent.
pub(super) fn profile_tables() -> Option<*mut Tables> {
    let tables = TABLES.load(Ordering::Relaxed);
    (!tables.is_null()).then_some(tables)
}

/// What became of the wish for a profile.
pub(super) fn note_profile(state: ProfileState) {
    if let Some(page) = page() {
        page.write_profile_state(state);
    }
}

/// A refusal was passed on to the program.
pub(super) fn note_refusal(request: Request, refusals: u64) {
    if let Some(page) = page() {
        page.write_refusal(request, refusals);
    }
}

/// Whether the process says now that memory is gone, after a refusal that it has not got over.
#[cfg(feature = "shim")]
pub(super) fn note_said(of_memory: bool) {
    if let Some(page) = page() {
        page.write_said(of_memory.then(sys::process::monotonic_ms));
    }
}

/// What of the end had nowhere to go.
pub(super) fn note_untold(untold: Untold) {
    if let Some(page) = page() {
        page.write_untold(untold);
    }
}

/// What the process was found to use.
pub(super) fn note_use(memory: &MemoryUse) {
    if let Some(page) = page() {
        page.write_use(memory);
    }
}

/// The end has been decided.
pub(super) fn note_end(cause: Cause, request: Option<Request>) {
    if let Some(page) = page() {
        page.write_end(cause, sys::process::tid(), request);
    }
}

/// All that is known at the end.
pub(super) fn note_last_words(snapshot: &Snapshot<'_>) {
    if let Some(page) = page() {
        page.write_last_words(snapshot);
    }
}
