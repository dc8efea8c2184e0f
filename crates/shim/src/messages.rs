//! What a dying program says: `write` and `writev` to stdout and stderr, read once memory was refused. Nothing is kept
//! but what kind of message it was, and when.

use super::{lookups, overheard, python, uncaught};
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use oomguard_core::busy::Busy;
use oomguard_core::contract::Evidence;
use oomguard_core::message::{
    Message, STD_LINE, Story, claims_failure_for_memory, claims_failure_to_start_thread, drop_colours,
    has_backtrace, is_of_backtrace, is_of_runtime_heap, says_to_try_again,
};
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;
use oomguard_core::text::place_of;
use oomguard_engine::armed::{Armed, armed};
use oomguard_engine::call_real;
use oomguard_engine::exhaustion::{self, Own};
use oomguard_engine::judge::{self, Said};
use oomguard_engine::notes::{self, Kept, Moment, Since};
use oomguard_engine::real::Real;
use oomguard_engine::thrown::{Known, Other, Thrown};
use oomguard_engine::{filter, gone_on, owner, record, refused, standing, threads};

type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type Writev = unsafe extern "C" fn(c_int, *const libc::iovec, c_int) -> isize;

static WRITE: Real = Real::new(c"write");
static WRITEV: Real = Real::new(c"writev");

pub(super) fn resolve() {
    for real in [&WRITE, &WRITEV] {
        let _ = real.address();
    }
}

// Relaxed throughout: flags and numbers that stand by themselves. Who says something and ends is one thread, as a rule; what two
// say at once is mixed up here as it is on the screen, but for what the thread that ends has said itself (`own_words`).
/// What was said last: the place in `MESSAGES` plus one; zero for nothing.
static LAST: AtomicU8 = AtomicU8::new(0);
const MESSAGES: [Message; 3] = [Message::OutOfMemory, Message::OtherDeath, Message::Unrelated];
/// The rest of the story: see `Story`.
static GOES_ON: AtomicBool = AtomicBool::new(false);
static IS_CHAINED: AtomicBool = AtomicBool::new(false);
static FAILS_OTHERWISE: AtomicBool = AtomicBool::new(false);
static FAILS_TO_MAKE: AtomicBool = AtomicBool::new(false);
static IS_PANIC: AtomicBool = AtomicBool::new(false);
static IS_IN_CLEANUP: AtomicBool = AtomicBool::new(false);
static COPES: AtomicBool = AtomicBool::new(false);
/// What had been refused when it was said that memory is gone, and not got over.
static ABOUT: Kept = Kept::new();
/// A backtrace was announced after that: what it takes to print is not the program getting over it.
static IS_TRACED: AtomicBool = AtomicBool::new(false);
/// When that was said, and what had been allocated by then.
static SAID_AT: Moment = Moment::new();
static SAID_AT_BYTES: AtomicU64 = AtomicU64::new(0);
/// The thread that said it.
static SAID_BY: AtomicU32 = AtomicU32::new(0);
/// The thread that spoke last.
static LAST_BY: AtomicU32 = AtomicU32::new(0);
/// A heap limit of a runtime was set: its own words count near that limit, even if nothing was refused.
static HINTED: AtomicBool = AtomicBool::new(false);
/// The program has sent itself a signal that is to end it, a moment after a refusal: OpenBLAS does, which CPython makes a
/// KeyboardInterrupt of.
static GIVES_UP: AtomicBool = AtomicBool::new(false);

pub(super) fn expect_hinted() {
    HINTED.store(true, Relaxed);
}

pub(super) fn forget() {
    put(Story::default());
    lookups::forget();
    ABOUT.set(None);
    GIVES_UP.store(false, Relaxed);
}

fn story() -> Story {
    let last = usize::from(LAST.load(Relaxed)).checked_sub(1).and_then(|place| MESSAGES.get(place));
    Story {
        last: last.copied(),
        goes_on: GOES_ON.load(Relaxed),
        is_chained: IS_CHAINED.load(Relaxed),
        fails_otherwise: FAILS_OTHERWISE.load(Relaxed),
        fails_to_make: FAILS_TO_MAKE.load(Relaxed),
        is_panic: IS_PANIC.load(Relaxed),
        is_in_cleanup: IS_IN_CLEANUP.load(Relaxed),
        was_other_panic: false,
        copes: COPES.load(Relaxed),
    }
}

fn put(story: Story) {
    let place = story.last.and_then(|last| MESSAGES.iter().position(|message| *message == last));
    GOES_ON.store(story.goes_on, Relaxed);
    IS_CHAINED.store(story.is_chained, Relaxed);
    FAILS_OTHERWISE.store(story.fails_otherwise, Relaxed);
    FAILS_TO_MAKE.store(story.fails_to_make, Relaxed);
    IS_PANIC.store(story.is_panic, Relaxed);
    IS_IN_CLEANUP.store(story.is_in_cleanup, Relaxed);
    COPES.store(story.copes, Relaxed);
    LAST.store(place.map_or(0, |place| place as u8 + 1), Relaxed);
}

/// What a thread does when it panics.
struct Here {
    /// It has said since it panicked last that it does, or that memory is gone.
    has_told: Cell<bool>,
    /// It prints a backtrace, and comes to a new line of it.
    is_in_backtrace: Cell<bool>,
    begins_line: Cell<bool>,
    /// What it had allocated when it said last that memory is gone.
    bytes_before: Cell<u64>,
    /// What it has said last itself that tells why it may end, and how often it had waited by then.
    says_of_memory: Cell<bool>,
    says_of_another: Cell<bool>,
    waits_before: Cell<u64>,
}

// SAFETY: cells of flags that are false, and of numbers; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_messages_here");

impl Here {
    /// Whether it is a piece of the backtrace that std prints: the names of functions, in as many pieces as they have parts, are no
    /// message. Its lines begin with spaces.
    fn goes_on_with_backtrace(&self, message: &[u8]) -> bool {
        const BEGINS: &[u8] = b"stack backtrace:\n";
        let is_of_it =
            self.is_in_backtrace.get() && (!self.begins_line.get() || message.first() == Some(&b' '));
        self.is_in_backtrace.set(is_of_it || message.ends_with(BEGINS));
        self.begins_line.set(message.last() == Some(&b'\n'));
        is_of_it
    }
}

/// What the calling thread has said itself, and has not waited since, where another has spoken after it.
fn own_words() -> Option<Message> {
    let tid = sys::process::tid();
    let here = here();
    let is_own = LAST_BY.load(Relaxed) != tid && waits() == here.waits_before.get();
    match () {
        // Where nobody may ask, it may have waited.
        () if is_own && here.says_of_memory.get() && SAID_BY.load(Relaxed) == tid && filter::may_ask() => {
            Some(Message::OutOfMemory)
        }
        () if is_own && here.says_of_another.get() => Some(Message::Unrelated),
        () => None,
    }
}

/// The calling thread has said this, and so far the program has that.
fn note_own_words(message: &[u8], story: Story) {
    let tid = sys::process::tid();
    let mut own = story;
    if LAST_BY.swap(tid, Relaxed) != tid {
        own = Story::default();
        own.hear(message);
    }
    if own.fails_otherwise || matches!(own.last, Some(Message::OutOfMemory | Message::OtherDeath)) {
        here().says_of_memory.set(own.last == Some(Message::OutOfMemory));
        here().says_of_another.set(own.fails_otherwise);
        here().waits_before.set(waits());
    }
}

fn waits() -> u64 {
    if filter::may_ask() { sys::process::thread_waits() } else { u64::MAX }
}

/// What was thrown since something was refused.
static THROWN: Known = Known::new();

/// Something was thrown before that: what it has left half done stays so.
static OTHER_PANIC: Other = Other::new();

/// A program in Rust panics, and has said why, or nothing. One that says nothing is about what it throws: a text, or an error; or
/// about what another one was, which was caught.
pub(super) fn note_thrown(thrown: Thrown) {
    if !owner::is_guarded() || !are_read() {
        OTHER_PANIC.note(sys::clock::monotonic_ms());
        return;
    }
    let is_thrown_on = THROWN.meet(thrown);
    let has_told = here().has_told.replace(false);
    here().is_in_backtrace.set(false);
    let says = thrown.words();
    let is_of_memory = || match says.text() {
        Some(text) => claims_failure_for_memory(text) || says_to_try_again(text),
        None => says.are_error_of_memory(),
    };
    if !has_told && !is_thrown_on && !is_of_memory() {
        put(Story { last: Some(Message::Unrelated), fails_otherwise: true, ..Story::default() });
        record::note_said(Some(Message::Unrelated));
    }
}

/// A refusal: what was said before it has nothing to do with it. That it dies of something else holds for as long as that
/// may take.
pub(crate) fn note_refusal() {
    const DEATH_MS: u64 = 1000;
    let story = story();
    let is_over = match story.last {
        Some(Message::Unrelated) => true,
        Some(Message::OtherDeath) => SAID_AT.since().ms > DEATH_MS,
        _ => false,
    };
    if is_over {
        put(Story::default());
        record::note_said(None);
    }
    lookups::forget_other_failure();
    here().says_of_another.set(false);
}

/// What has been allocated since: by the thread that said it, if it is the one that ends, and soon. Later, others may have done its
/// work.
fn bytes_since_said(since: Since) -> u64 {
    if SAID_BY.load(Relaxed) == sys::process::tid() && since.is_short_way_out() {
        notes::allocated_bytes_here().wrapping_sub(here().bytes_before.get())
    } else {
        notes::allocated_bytes().saturating_sub(SAID_AT_BYTES.load(Relaxed))
    }
}

/// What the program, which is dying now, said last, as far as it bears on its death, and has not gone on since.
pub(super) fn said(armed: &Armed) -> Option<Said> {
    let mut story = story();
    match own_words() {
        Some(Message::OutOfMemory) if story.last == Some(Message::Unrelated) => {
            story = Story { last: Some(Message::OutOfMemory), ..Story::default() };
        }
        Some(Message::Unrelated) if story.last == Some(Message::OutOfMemory) => {
            return Some(Said::of_another_failure());
        }
        _ => {}
    }
    if !matches!(story.last, Some(Message::OutOfMemory | Message::OtherDeath))
        && let Some(said) = lookups::said(armed)
    {
        return Some(said);
    }
    let Some(message) = story.last else {
        return lookups::fails_otherwise().then(Said::of_another_failure);
    };
    if message == Message::OutOfMemory {
        let since = SAID_AT.since();
        let is_still = bytes_since_said(since) < notes::last_bytes(armed)
            && if story.goes_on { since.is_short_way_out() } else { since.is_way_out() };
        return is_still.then(|| Said {
            message,
            about: ABOUT.get(),
            fails_otherwise: false,
            fails_to_make: false,
        });
    }
    Some(Said {
        message,
        about: None,
        fails_otherwise: story.fails_otherwise,
        fails_to_make: story.fails_to_make,
    })
}

/// Whether messages are read at all.
pub(super) fn are_read() -> bool {
    !super::filter::is_strict() && (refused::count() > 0 || HINTED.load(Relaxed)) && armed().is_some()
}

/// Whether the program has said a moment ago that memory is gone, and nothing since.
pub(super) fn has_just_spoken() -> bool {
    const MOMENT_MS: u64 = 500;
    let story = story();
    story.last == Some(Message::OutOfMemory) && !story.goes_on && SAID_AT.since().ms <= MOMENT_MS
}

pub(super) fn gives_up() -> bool {
    GIVES_UP.load(Relaxed)
}

/// The program has sent itself a signal that is to end it.
pub(super) fn note_giving_up() {
    GIVES_UP.store(true, Relaxed);
}

/// write(2).
///
/// # Safety
/// That of write(2).
#[inline]
pub unsafe fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    if (fd == libc::STDERR_FILENO || fd == libc::STDOUT_FILENO) && are_read() {
        look_at_written(fd, bytes as usize, len);
    }
    match call_real!(WRITE, Write) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, bytes, len) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) as isize },
    }
}

/// writev(2).
///
/// # Safety
/// That of writev(2).
#[inline]
pub unsafe fn writev(fd: c_int, parts: *const libc::iovec, count: c_int) -> isize {
    if (fd == libc::STDERR_FILENO || fd == libc::STDOUT_FILENO) && are_read() {
        // SAFETY: `count` parts lie there, by contract.
        unsafe { look_at_parts(parts, count) };
    }
    match call_real!(WRITEV, Writev) {
        // SAFETY: the arguments are the caller's, whose contract is the same.
        Some(real) => unsafe { real(fd, parts, count) },
        // SAFETY: the system call behind it, with the same arguments.
        None => unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) as isize },
    }
}

/// On stderr a piece of a line counts for nothing: Python's faulthandler writes each word of its traceback by a call.
#[cold]
fn look_at_written(fd: c_int, start: usize, len: usize) {
    let errno = sys::errno::errno();
    // SAFETY: the caller's for the length of the call.
    if let Some(text) = unsafe { sys::memory::readable(start, len, READ_BYTES) } {
        if fd == libc::STDERR_FILENO && text.last() != Some(&b'\n') {
            gone_on::note_piece(len);
        }
        hear(text);
    }
    sys::errno::set_errno(errno);
}

/// # Safety
/// `count` parts lie at `parts`, or the program would get EFAULT.
#[cold]
unsafe fn look_at_parts(parts: *const libc::iovec, count: c_int) {
    const MOST_PARTS: usize = 16;
    let errno = sys::errno::errno();
    for index in 0..usize::try_from(count).unwrap_or(0).min(MOST_PARTS) {
        let part = (parts as usize).wrapping_add(index * size_of::<libc::iovec>());
        if !sys::memory::is_readable(part & !7) || !sys::memory::is_readable((part + 8) & !7) {
            break;
        }
        // SAFETY: just found readable, and the caller's for the length of the call.
        let part = unsafe { (part as *const libc::iovec).read_unaligned() };
        look_at(&[(part.iov_base as usize, part.iov_len)]);
    }
    sys::errno::set_errno(errno);
}

/// So much of a message is read.
const READ_BYTES: usize = 4096;

/// Reads a message on its way to a person.
#[cold]
#[inline(never)]
pub(super) fn look_at(parts: &[(usize, usize)]) {
    let errno = sys::errno::errno();
    for &(start, len) in parts {
        // SAFETY: the caller's for the length of the call.
        if let Some(text) = unsafe { sys::memory::readable(start, len, READ_BYTES) } {
            hear(text);
        }
    }
    sys::errno::set_errno(errno);
}

/// Where a message is looked at without its colours: not on the stack, which may be a signal handler's of a few KiB.
struct Plain(UnsafeCell<[u8; READ_BYTES]>);

// SAFETY: used by the one thread that `READING` lets through.
unsafe impl Sync for Plain {}

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static PLAIN: Plain = Plain(UnsafeCell::new([0; READ_BYTES]));
static READING: Busy = Busy::new();

/// Takes in what the program says.
pub(super) fn hear(message: &[u8]) {
    if !owner::is_guarded() {
        return;
    }
    const ESCAPE: u8 = 0x1b;
    if message.contains(&ESCAPE)
        && let Some(_inside) = READING.try_enter()
    {
        // SAFETY: one thread at a time, by `READING`; what hears it keeps nothing of it.
        let plain = unsafe { &mut *PLAIN.0.get() };
        let len = message.len().min(READ_BYTES);
        plain.iter_mut().zip(message).for_each(|(to, from)| *to = *from);
        let len = plain.get_mut(..len).map_or(0, drop_colours);
        return hear_plain(plain.get(..len).unwrap_or(&[]));
    }
    hear_plain(message);
}

/// Whether it is std's line for an allocation that failed, whole or its first piece or two. The function that says it never
/// returns, but may hang: its backtrace takes a lock that a panicking thread holds.
fn is_of_rust(message: &[u8]) -> bool {
    message.strip_prefix(STD_LINE).is_some_and(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest.is_empty()
            || digits > 0
                && rest
                    .get(digits..)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b" bytes failed"))
    })
}

fn hear_plain(message: &[u8]) {
    // An allocator of the program's own, as rustc's, is refused mappings.
    let is_of_this_thread = |noted: &notes::Noted| noted.tid == sys::process::tid();
    if is_of_rust(message)
        && let Some(armed) = armed()
        && let Some(noted) =
            [notes::requested(), notes::mapped()].into_iter().flatten().find(is_of_this_thread)
        && !standing::is_under_way()
    {
        exhaustion::end(armed, judge::guilt(&noted, Evidence::Said).verdict(Own::ABORT));
    }
    if here().goes_on_with_backtrace(message) {
        if story().last == Some(Message::OutOfMemory) {
            set_said_now();
        }
        return;
    }
    let is_ignored = python::hear(message);
    uncaught::hear(message);
    if is_ignored {
        return;
    }
    if Message::of(message) == Some(Message::OutOfMemory) || place_of(message, PANICKED).is_some() {
        here().has_told.set(true);
    }
    let mut now = story();
    let before = now;
    let is_what_was_looked_up = lookups::hear(message);
    if is_what_was_looked_up {
        now = Story { last: Some(Message::OutOfMemory), ..Story::default() };
    } else {
        now.was_other_panic = OTHER_PANIC.is_recent();
        now.hear(message);
    }
    // A panic in the system's words for a thread that could not be had.
    if place_of(message, PANICKED).is_some() && says_to_try_again(message) && threads::may_say_to_try_again()
    {
        now = Story { last: Some(Message::OutOfMemory), is_panic: true, ..Story::default() };
    }
    if now.last == Some(Message::OutOfMemory)
        && claims_failure_to_start_thread(message)
        && !threads::is_one_refused()
    {
        // There are too many: no limit of memory refused it, whatever was refused before.
        now = Story { last: Some(Message::Unrelated), fails_otherwise: true, ..Story::default() };
    }
    if now.last == Some(Message::OtherDeath) && GIVES_UP.load(Relaxed) && contains_interrupt(message) {
        return;
    }
    if now.last == Some(Message::OutOfMemory) && (is_what_was_looked_up || is_said_anew(before, message)) {
        let about = notes::open_or_just_closed();
        // Nothing that this process was refused is open: its words are about something else.
        if about.is_none() && !is_of_hinted_heap(message) {
            return;
        }
        if about.is_some() && overheard::has(message) {
            // What it has said itself stays said.
            if before.last == Some(Message::OutOfMemory) {
                return;
            }
            put(Story { last: Some(Message::Unrelated), fails_otherwise: true, ..Story::default() });
            return record::note_said(Some(Message::Unrelated));
        }
        ABOUT.set(about);
        set_said_now();
        IS_TRACED.store(has_backtrace(message), Relaxed);
        notes::watch(0);
    } else if now.last == Some(Message::OutOfMemory)
        && (has_backtrace(message) || IS_TRACED.load(Relaxed) && is_of_backtrace(message))
    {
        // It still says the same: names are looked up in files of debug information, of whatever size.
        IS_TRACED.store(true, Relaxed);
        set_said_now();
    } else if now.last == Some(Message::OtherDeath) && before.last != now.last {
        SAID_AT.set_now();
    }
    put(now);
    note_own_words(message, now);
    record::note_said(now.last);
}

fn set_said_now() {
    SAID_AT.set_now();
    SAID_AT_BYTES.store(notes::allocated_bytes(), Relaxed);
    SAID_BY.store(sys::process::tid(), Relaxed);
    here().bytes_before.set(notes::allocated_bytes_here());
}

fn is_said_anew(before: Story, message: &[u8]) -> bool {
    before.last != Some(Message::OutOfMemory) || Message::of(message) == Some(Message::OutOfMemory)
}

/// In what std says of a panic.
const PANICKED: &[u8] = b" panicked at ";

fn contains_interrupt(message: &[u8]) -> bool {
    const NAME: &[u8] = b"KeyboardInterrupt";
    place_of(message, NAME).is_some()
}

/// Whether a runtime says that the heap is full which the launcher has given it: it is, where so much of the limit has
/// been in use.
fn is_of_hinted_heap(message: &[u8]) -> bool {
    let Some(limit) = armed().and_then(|armed| armed.limit.bytes()) else { return false };
    HINTED.load(Relaxed)
        && is_of_runtime_heap(message)
        && sys::memory::memory_use().resident_peak.is_some_and(|peak| peak > limit / 5 * 2)
}
