//! What a supervisor gets to see of this process: fills the page that it handed over, while the process lives and as it
//! dies. Stores only: no allocation, no lock.

use super::armed::{Armed, armed};
use super::owner;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use oomguard_core::contract::Cause;
use oomguard_core::message::Message;
use oomguard_core::profile::Tables;
use oomguard_core::record::{self, Counted, FILE_BYTES, HEAD_BYTES, Head, Page, Place, ProfileState, Told};
use oomguard_core::record::{Becoming, Child};
use oomguard_core::report::{Request, Snapshot};
use oomguard_core::sys;
use oomguard_core::sys::fd::Fd;
use oomguard_core::sys::memory::MemoryUse;
use oomguard_core::text::Text;

static HEAD: AtomicPtr<Head> = AtomicPtr::new(core::ptr::null_mut());

/// The process whose own page it is: what it forks or starts gets one among the descendants', once it is refused something.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// The tables behind the page, where they are mapped.
static TABLES: AtomicPtr<Tables> = AtomicPtr::new(core::ptr::null_mut());

/// Takes over the page that `OOMGUARD_RECORD` names, unless another process fills it. A descriptor that is no record is
/// left alone: the variable is inherited by processes that it was not meant for.
/// `profiles`: the program has a profiler compiled in, whose tables are behind the pages.
pub(super) fn attach(value: Option<&[u8]>, armed: &Armed, profiles: bool) {
    let named = value.and_then(record::from_variable);
    let Some(page) = named.and_then(|named| take_over(named, profiles)) else { return };
    page.write_profile_state(ProfileState::NotCompiledIn);
    write_armed(page, armed);
}

/// The guard cannot be set up, and the process ends.
pub(super) fn note_trouble(value: Option<&[u8]>, reason: &[u8]) {
    let named = value.and_then(record::from_variable);
    if let Some(page) = named.and_then(|named| take_over(named, false)) {
        page.write_trouble(reason);
    }
}

/// The limit is another one now.
pub fn note_armed(armed: &Armed) {
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
        Some(pid) => Some(sys::memfd::record_of(pid, place.fd, place.inode, FILE_BYTES)?),
        None => None,
    };
    let fd = opened.as_ref().map_or(place.fd, Fd::number);
    // A stream of the program's is none; but where those are closed, what was opened here has such a number for a while.
    let may_be_stream = opened.is_none() && fd <= libc::STDERR_FILENO;
    if may_be_stream || sys::memfd::sealed_inode(fd, FILE_BYTES) != Some(place.inode) {
        return None;
    }
    // All of it is too much for a process that will not use it: address space counts.
    let whole = if profiles { sys::memfd::map_for_ever(fd, FILE_BYTES) } else { None };
    let start = whole.or_else(|| sys::memfd::map_for_ever(fd, HEAD_BYTES))?;
    let at: *mut Head = start.cast();
    // SAFETY: a mapping of the head's size that is never unmapped and, being sealed, cannot shrink; its words are
    // atomics, so that others may write to it.
    let head = unsafe { &*at };
    // The mapping stays; the children of this process must not get at it.
    if place.pid.is_none() {
        sys::fd::close_number(fd);
    }
    // Relaxed, here and below: start-up comes before everything that looks.
    HEAD.store(at, Ordering::Relaxed);
    if let Some(keeper) = place.pid {
        KEEPER.store(keeper, Ordering::Relaxed);
        INODE.store(place.inode, Ordering::Relaxed);
    }
    let pid = sys::process::pid();
    if !head.own.claim(pid) {
        head.begin(pid);
        return None;
    }
    OWNER.store(pid, Ordering::Relaxed);
    if let Some(whole) = whole {
        TABLES.store(whole.wrapping_add(HEAD_BYTES).cast(), Ordering::Relaxed);
    }
    Some(&head.own)
}

fn head() -> Option<&'static Head> {
    let at = HEAD.load(Ordering::Relaxed);
    if at.is_null() {
        return None;
    }
    // SAFETY: as in `take_over`, which stored it.
    Some(unsafe { &*at })
}

/// Whether somebody shares a record with this process.
pub fn is_shared() -> bool {
    head().is_some()
}

/// The limit on what is resident, where the supervisor has changed it since.
pub(super) fn limit_now() -> Option<u64> {
    head()?.own.limit_now()
}

/// The page of this process, if it has one.
fn page() -> Option<&'static Page> {
    let head = head()?;
    let pid = sys::process::pid();
    if OWNER.load(Ordering::Relaxed) == pid { Some(&head.own) } else { head.page_of(pid) }
}

/// The same; a descendant gets one that has none yet. A child of vfork(2) is on its way to exec, and gets none.
fn page_to_fill() -> Option<&'static Page> {
    page().or_else(|| {
        let page = if owner::is_guarded() { head()?.claim_for(sys::process::pid())? } else { return None };
        page.write_parent(sys::process::parent_pid());
        page.write_profile_state(ProfileState::NotCompiledIn);
        write_armed(page, armed()?);
        Some(page)
    })
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
    if let Some(page) = page_to_fill() {
        page.write_refusal(request, refusals);
    }
}

/// The page in which what is counted is told; null where nothing is open, and in a child that was forked since.
static COUNTING: AtomicPtr<Page> = AtomicPtr::new(core::ptr::null_mut());

/// A refusal is open, until `note_closed`: if this process is gone before, its parent finds it so.
pub(super) fn note_open(cause: Cause, bytes: u64, counted: Counted) {
    /// Thousands of refusals a second are met with; what was in use a moment ago will do.
    const MOMENT_MS: u64 = 100;
    if let Some(page) = page_to_fill() {
        let now_ms = sys::clock::monotonic_ms();
        if page.is_open_since_ms().is_none_or(|since_ms| now_ms.saturating_sub(since_ms) > MOMENT_MS) {
            page.write_use(&sys::memory::memory_use());
        }
        page.open(cause, sys::process::tid(), bytes, now_ms, counted);
        COUNTING.store(core::ptr::from_ref(page).cast_mut(), Ordering::Relaxed);
    }
}

/// Nothing is open any more.
pub(super) fn note_closed() {
    if let Some(page) = counting() {
        page.close();
    }
    begin();
}

/// This process, a child that was forked, has noted nothing yet.
pub(super) fn begin() {
    COUNTING.store(core::ptr::null_mut(), Ordering::Relaxed);
}

#[inline]
fn counting() -> Option<&'static Page> {
    let page = COUNTING.load(Ordering::Relaxed);
    // SAFETY: null, or a page of the mapping that is never unmapped.
    unsafe { page.as_ref() }
}

/// So much has been allocated by now.
#[inline]
pub(super) fn note_count(counted: Counted) {
    if let Some(page) = counting() {
        page.count(counted);
    }
}

/// The program has said something that bears on its death; `None` takes it back.
pub fn note_said(message: Option<Message>) {
    if let Some(page) = counting() {
        page.say(message, sys::clock::monotonic_ms());
    }
}

/// The process ends, or stops to be the program that it is, for another reason than a refusal.
pub fn acquit() {
    if let Some(page) = page() {
        page.acquit();
    }
}

/// This process is about to become the program at `path`, or does not after all. Also in a child of vfork(2).
pub fn note_becoming(what: Becoming, path: &[u8]) {
    let Some(head) = head() else { return };
    let page = page().or_else(|| {
        // Of one that is loaded in vain there is nobody else to tell.
        let page =
            if what == Becoming::Guarded { head.claim_for(sys::process::pid())? } else { return None };
        page.write_parent(sys::process::parent_pid());
        write_armed(page, armed()?);
        Some(page)
    });
    if let Some(page) = page {
        page.write_becoming(what, path);
    }
    if what != Becoming::Nothing {
        head.forget_failed(sys::process::pid());
    }
}

/// Has this process followed from outside from now on, if its record's keeper does so.
pub fn ask_to_be_followed() {
    let inode = INODE.load(Ordering::Relaxed);
    if inode != 0 {
        sys::join::ask_to_be_followed(inode);
    }
}

/// The record that stays its keeper's descriptor; zero where there is none.
static INODE: AtomicU64 = AtomicU64::new(0);

/// The process whose descriptor that is; zero where there is none.
static KEEPER: AtomicU32 = AtomicU32::new(0);

/// The program of the record's keeper, with a NUL at the end, if there is one.
pub fn keepers_program() -> Option<Text<48>> {
    let keeper = KEEPER.load(Ordering::Relaxed);
    let mut path = Text::new();
    path.push("/proc/");
    path.push_number(u64::from(keeper));
    path.push("/exe\0");
    (keeper != 0).then_some(path)
}

/// This process has waited for a child that failed.
pub fn note_failed_child(child: Child, status: i32) {
    if let Some(head) = head() {
        let (pid, parent) = (sys::process::pid(), sys::process::parent_pid());
        head.note_failed(pid, parent, child, status, sys::clock::monotonic_ms());
    }
}

/// What has been told of the end.
pub(super) fn note_told(told: Told) {
    if let Some(page) = page() {
        page.write_told(told);
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
    if let (Some(head), Some(page)) = (head(), page_to_fill()) {
        page.write_end(cause, sys::process::tid(), request);
        head.count_end(page);
    }
}

/// The process ends of a refusal on evidence that does not suffice.
pub(super) fn note_doubt(snapshot: &Snapshot<'_>) {
    if let Some(page) = page_to_fill() {
        page.write_doubt(snapshot);
    }
}

/// All that is known at the end.
pub(super) fn note_last_words(snapshot: &Snapshot<'_>) {
    if let Some(page) = page_to_fill() {
        page.write_last_words(snapshot);
    }
}
