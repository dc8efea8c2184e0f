//! What a supervisor gets to see of this process: fills the page that it handed over, while the process lives and as it
//! dies. Stores only: no allocation, no lock.

use super::armed::Armed;
use crate::contract::Cause;
use crate::record::{self, Page, RECORD_BYTES};
use crate::report::{Request, Snapshot};
use crate::sys;
use crate::sys::memory::MemoryUse;
use crate::text::Text;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

static PAGE: AtomicPtr<Page> = AtomicPtr::new(core::ptr::null_mut());

/// The process that fills the page: a child that it forks must not.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Takes over the page that `OOMGUARD_RECORD` names. A descriptor that is no record, or one that another process
/// fills, is left alone: the variable is inherited by processes that it was not meant for.
pub(super) fn attach(value: Option<&[u8]>, armed: &Armed) {
    let Some(page) = value.and_then(record::from_variable).and_then(take_over) else { return };
    page.write_armed(&record::Armed {
        program: armed.program.as_bytes(),
        token: armed.token.as_ref().map(Text::as_bytes),
        limit: armed.limit,
        limit_source: armed.limit_source,
        measure: armed.measure,
        exit_code: armed.exit_code,
    });
}

fn take_over((fd, inode): (i32, u64)) -> Option<&'static Page> {
    if fd <= libc::STDERR_FILENO || sys::memfd::sealed_inode(fd, RECORD_BYTES) != Some(inode) {
        return None;
    }
    let at: *mut Page = sys::memfd::map_for_ever(fd, RECORD_BYTES)?.cast();
    // SAFETY: a mapping of the page's size that is never unmapped and, being sealed, cannot shrink; its words are
    // atomics, so that others may write to it.
    let page = unsafe { &*at };
    let pid = sys::process::pid();
    if !page.claim(pid) {
        return None;
    }
    // The mapping stays; the children of this process must not get at it.
    sys::fd::close_number(fd);
    // Relaxed, here and below: start-up comes before everything that looks.
    OWNER.store(pid, Ordering::Relaxed);
    PAGE.store(at, Ordering::Relaxed);
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

/// A refusal was passed on to the program.
pub(super) fn note_refusal(request: Request, refusals: u64) {
    if let Some(page) = page() {
        page.write_refusal(request, refusals);
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
