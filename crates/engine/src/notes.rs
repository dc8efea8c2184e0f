//! What was refused last, and what has been allocated since: what a verdict rests on.
//!
//! ```text
//!   quiet ──a refusal, a message──▶ watching ──so much allocated that it was survived──▶ quiet
//! ```
//! Counting costs two atomic additions per allocation, so it goes on only while it may decide something. Atomics
//! throughout are relaxed, but where something else is said: each number stands by itself, the thread that dies is mostly
//! the one that was refused, and a race between two threads only shifts by one allocation what is a threshold anyhow.
//! `tests/models` has threads go through this file in every order.

use super::armed::{Armed, armed};
use super::hook::Hook;
use super::{filter, gone_on, onlooker, owner, record, refused, std_line};
use core::cell::Cell;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};
use oomguard_core::contract::Cause;
use oomguard_core::record::Counted;
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::local::Zeroed;
use oomguard_core::sys::process::Doings;

static WATCHING: AtomicBool = AtomicBool::new(false);

/// How many allocations have worked while counting was on, and their bytes.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

/// When so many bytes have been allocated, counting ends.
static ENOUGH_BYTES: AtomicU64 = AtomicU64::new(0);

/// Who asked for what was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Rust's global allocator: whoever cannot go on without the block calls `handle_alloc_error`.
    Rust,
    /// Anybody else: whether the program copes shows in what it does next.
    Other,
}

/// A moment, and what the program had done by then: whether it has gone on since shows in how much it has worked and
/// waited.
pub struct Moment {
    ms: AtomicU64,
    processor_ms: AtomicU64,
    waits: AtomicU64,
    childrens_pages: AtomicU64,
}

/// What the program did since some moment.
#[derive(Clone, Copy)]
pub struct Since {
    pub ms: u64,
    processor_ms: u64,
    waits: u64,
    has_waited_for_child: bool,
}

impl Moment {
    pub const fn new() -> Self {
        Moment {
            ms: AtomicU64::new(0),
            processor_ms: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            childrens_pages: AtomicU64::new(0),
        }
    }

    pub fn set_now(&self) {
        let doings = doings();
        self.ms.store(sys::clock::monotonic_ms(), Relaxed);
        self.processor_ms.store(doings.processor_ms, Relaxed);
        self.waits.store(doings.waits, Relaxed);
        self.childrens_pages.store(doings.childrens_pages, Relaxed);
    }

    pub fn since(&self) -> Since {
        let doings = doings();
        Since {
            ms: sys::clock::monotonic_ms().saturating_sub(self.ms.load(Relaxed)),
            processor_ms: doings.processor_ms.saturating_sub(self.processor_ms.load(Relaxed)),
            waits: doings.waits.saturating_sub(self.waits.load(Relaxed)),
            has_waited_for_child: doings.childrens_pages > self.childrens_pages.load(Relaxed),
        }
    }
}

fn doings() -> Doings {
    let mut doings = if filter::may_ask() { sys::process::doings() } else { Doings::default() };
    doings.childrens_pages = doings.childrens_pages.saturating_sub(LEFT_OUT_PAGES.load(Relaxed));
    doings
}

/// The pages of children who say nothing about how this process goes on.
static LEFT_OUT_PAGES: AtomicU64 = AtomicU64::new(0);

pub fn leave_out_children(pages: u64) {
    LEFT_OUT_PAGES.fetch_add(pages, Relaxed);
}

impl Since {
    /// Whether a program can be on its way out all this time: it tidies up, and writes what it holds. Who starts another
    /// process and waits for it has gone on, and may pass on how that ended.
    pub fn is_way_out(self) -> bool {
        self.ms <= 5000
            && self.processor_ms <= 1000
            && !self.has_served(100, 400)
            && !self.has_waited_for_child
    }

    /// The same after a request that can never be met, which is missing at any time: no more work than it takes to give
    /// `bytes` back and to leave.
    pub(super) fn is_straight_way_out(self, bytes: u64) -> bool {
        self.is_way_out() && self.processor_ms <= gone_on::way_out_ms(bytes)
    }

    /// Whether it has slept so long: who is on the way out does not. One that never waits only lacks a processor.
    pub(super) fn has_slept(self, ms: u64) -> bool {
        self.waits > 0 && self.ms.saturating_sub(self.processor_ms) > ms
    }

    /// Whether hardly anything can have been done since.
    pub(super) fn is_a_moment(self) -> bool {
        self.ms <= 1000 && self.processor_ms <= 1 && !self.has_served(10, 0) && !self.has_waited_for_child
    }

    /// The same of one that has said something else meanwhile.
    pub fn is_short_way_out(self) -> bool {
        self.ms <= 2000 && self.processor_ms <= 200 && !self.has_served(50, 200) && !self.has_waited_for_child
    }

    /// Whether what was refused may still be what the program ends for, if it says so.
    fn may_matter(self) -> bool {
        self.ms <= 600_000 && self.processor_ms <= 60_000 && !self.has_served(1000, 10_000)
    }

    /// Who has waited so often serves somebody; threads that end, and a collector's, wait often, too, but not for long.
    fn has_served(self, waits: u64, ms: u64) -> bool {
        self.waits > waits && self.ms > ms
    }
}

/// A refusal that the program has not got over yet.
struct Note {
    /// Plus one; zero where there is none.
    bytes: AtomicU64,
    align: Align,
    is_thread: AtomicBool,
    is_rusts: AtomicBool,
    tid: AtomicU32,
    at: Moment,
    allocations_before: AtomicU64,
    bytes_before: AtomicU64,
    /// When so many bytes have been allocated since, the program has got over it.
    enough_bytes: AtomicU64,
}

impl Note {
    const fn new() -> Self {
        Note {
            bytes: AtomicU64::new(0),
            align: Align::new(),
            is_thread: AtomicBool::new(false),
            is_rusts: AtomicBool::new(false),
            tid: AtomicU32::new(0),
            at: Moment::new(),
            allocations_before: AtomicU64::new(0),
            bytes_before: AtomicU64::new(0),
            enough_bytes: AtomicU64::new(0),
        }
    }
}

impl Note {
    fn is_of_this_thread(&self) -> bool {
        self.tid.load(Relaxed) == sys::process::tid()
    }

    /// What all have allocated since.
    fn by_all(&self) -> Counted {
        Counted {
            allocations: ALLOCATIONS.load(Relaxed).saturating_sub(self.allocations_before.load(Relaxed)),
            bytes: ALLOCATED_BYTES.load(Relaxed).saturating_sub(self.bytes_before.load(Relaxed)),
        }
    }

    /// What the calling thread has, if it is the refused one: what others do is no sign that it has gone on.
    #[inline(never)]
    fn by_this_thread(&self) -> Option<Counted> {
        self.is_of_this_thread().then(|| {
            let (now, before) = (here().counted.get(), here().before(self).get());
            Counted {
                allocations: now.allocations.wrapping_sub(before.allocations),
                bytes: now.bytes.wrapping_sub(before.bytes),
            }
        })
    }

    /// The bytes that have been allocated since: by the calling thread, if it is the refused one and that is not long ago. Later,
    /// others may have done its work.
    fn bytes_since(&self, since: Since) -> u64 {
        let own = self.by_this_thread().filter(|_| since.is_short_way_out());
        own.unwrap_or_else(|| self.by_all()).bytes
    }

    /// Whether another thread has been refused this a moment ago, and may come to say what it ends for, however much others
    /// allocate meanwhile.
    #[inline(never)]
    fn may_be_told_of(&self) -> bool {
        /// That of a short way out.
        const TIME_MS: u64 = 2000;
        self.bytes.load(Relaxed) != 0
            && sys::clock::monotonic_ms().saturating_sub(self.at.ms.load(Relaxed)) <= TIME_MS
            && self.by_this_thread().is_none_or(|own| own.bytes <= self.enough_bytes.load(Relaxed))
    }

    /// The program has got over what was `noted`, unless another thread has been refused something else by now.
    fn get_over(&self, noted: u64) {
        let _ = self.bytes.compare_exchange(noted, 0, Relaxed, Relaxed);
    }

    /// What was refused, got over or not.
    fn refused(&self) -> Option<(Cause, Request)> {
        let bytes = self.bytes.load(Relaxed).checked_sub(1)?;
        let cause = match () {
            () if core::ptr::eq(self, &raw const MAPPED) => Cause::Mapping,
            () if self.is_thread.load(Relaxed) => Cause::Thread,
            () => Cause::Heap,
        };
        Some((cause, Request { bytes, align: self.align.get() }))
    }
}

/// The alignment that was asked for; zero where nobody asked for one.
struct Align(AtomicU64);

impl Align {
    const fn new() -> Self {
        Align(AtomicU64::new(0))
    }

    fn set(&self, align: Option<u64>) {
        self.0.store(align.unwrap_or(0), Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|align| *align != 0)
    }
}

/// The last refusal of the malloc family or of a thread, and that of a mapping.
static REQUESTED: Note = Note::new();
static MAPPED: Note = Note::new();

/// From this size on, getting as much as was refused means to have got over it. Smaller blocks are served from what
/// other sizes cannot use.
const TELLING_BYTES: u64 = 1 << 20;

/// What is known of a refusal.
#[derive(Clone, Copy)]
pub struct Noted {
    pub cause: Cause,
    pub(super) asker: Asker,
    pub bytes: u64,
    pub align: Option<u64>,
    pub tid: u32,
    /// The time since then, in milliseconds.
    pub ms_since: u64,
    pub(super) since: Since,
    /// By the thread that asks, where it is the refused one, and has neither waited, nor run for long, nor started a thread since; by
    /// all otherwise.
    pub allocations_since: u64,
    pub bytes_since: u64,
    /// By the thread that asks, where it is the refused one.
    own: Option<Counted>,
}

impl Noted {
    pub fn request(&self) -> Request {
        Request { bytes: self.bytes, align: self.align }
    }

    /// The same, where it tells enough what the refused thread has done itself, though it has waited.
    pub fn by_its_thread(self) -> Noted {
        let Some(Counted { allocations, bytes }) = self.own else { return self };
        Noted { allocations_since: allocations, bytes_since: bytes, ..self }
    }
}

/// This process is guarded from now on; also in a child of fork(2).
pub fn begin() {
    refused::forget_full();
    LEFT_OUT_PAGES.store(0, Relaxed);
    owner::begin();
    CLOSED.set(None);
    IS_CLOSED_BY_WORK.store(false, Relaxed);
    record::begin();
    forget();
}

/// The library for other languages begins the notes of a child itself, at the fork.
pub fn begin_only_here() {
    BEGINS_IN_CHILDREN.store(false, Relaxed);
    begin();
}

static BEGINS_IN_CHILDREN: AtomicBool = AtomicBool::new(true);

fn forget() {
    REQUESTED.bytes.store(0, Relaxed);
    MAPPED.bytes.store(0, Relaxed);
}

/// Whether the notes are this process's. A child that was forked begins its own with its first refusal; the library
/// for other languages has begun them at the fork, and leaves a child of vfork(2) alone.
fn are_ours() -> bool {
    if BEGINS_IN_CHILDREN.load(Relaxed) && owner::has_begun() && !owner::is_guarded() {
        begin();
        onlooker::begin();
    }
    owner::is_guarded()
}

/// Something was refused, and the refusal is passed on to the program.
pub(super) fn note(cause: Cause, asker: Asker, request: Request) {
    if !are_ours() {
        return;
    }
    let note = if cause == Cause::Mapping { &MAPPED } else { &REQUESTED };
    note.align.set(request.align);
    note.is_thread.store(cause == Cause::Thread, Relaxed);
    note.is_rusts.store(asker == Asker::Rust, Relaxed);
    note.tid.store(sys::process::tid(), Relaxed);
    note.at.set_now();
    note.allocations_before.store(ALLOCATIONS.load(Relaxed), Relaxed);
    note.bytes_before.store(ALLOCATED_BYTES.load(Relaxed), Relaxed);
    here().before(note).set(here().counted.get());
    if asker == Asker::Other {
        gone_on::begin(request.bytes);
    }
    note.enough_bytes.store(armed().map_or(u64::MAX, |armed| enough(armed, request.bytes)), Relaxed);
    // Release: pairs with the Acquire in `close`, so that who sees this refusal does not take the one before for it.
    note.bytes.store(request.bytes.saturating_add(1), Release);
    CLOSED.set(None);
    IS_CLOSED_BY_WORK.store(false, Relaxed);
    // Rust's allocator has a function of its own for those who cannot go on.
    if asker == Asker::Other {
        let counted =
            Counted { allocations: ALLOCATIONS.load(Relaxed), bytes: ALLOCATED_BYTES.load(Relaxed) };
        record::note_open(cause, request.bytes, counted);
    }
    watch(request.bytes);
}

/// How much a program may allocate after a death was announced or led to, and still be dying.
pub fn last_bytes(armed: &Armed) -> u64 {
    armed.limit.bytes().map_or(0, |limit| limit / 8).max(16 << 20)
}

/// How much a program that was refused so many bytes may allocate without having got over it.
fn enough(armed: &Armed, bytes: u64) -> u64 {
    let possible = armed.limit.bytes().unwrap_or(u64::MAX >> 1);
    if bytes <= possible { bytes } else { 0 }.max(last_bytes(armed))
}

/// Counts from now on, at least until more than `bytes` have been allocated.
pub fn watch(bytes: u64) {
    let Some(armed) = armed() else { return };
    let enough = enough(armed, bytes);
    ENOUGH_BYTES.fetch_max(ALLOCATED_BYTES.load(Relaxed).saturating_add(enough), Relaxed);
    if !WATCHING.swap(true, SeqCst) {
        WATCHES.fetch_add(1, Relaxed);
        count_as_watched();
    }
}

/// How often that has begun.
static WATCHES: AtomicU64 = AtomicU64::new(0);

/// Another number with each block that this thread is given, by one more; by more than that where it may have been given some
/// that were not counted.
pub(super) fn given_here() -> u64 {
    here().counted.get().allocations.wrapping_add(WATCHES.load(Relaxed) << 32)
}

/// How the C library's heap is counted, or is not, where it can be.
static COUNT_HEAP: Hook<fn(bool)> = Hook::new();

/// Before `main`.
pub(super) fn count_heap_by(count: fn(bool)) {
    COUNT_HEAP.set(count);
}

/// Has the C library's heap counted, or not, as `WATCHING` says. Two threads may be here at once, the one to begin and the
/// other to end it: whoever wrote last looks again. SeqCst, here and where `WATCHING` changes, as a look before the write
/// is seen by others would miss theirs; and a fence on either side of the write: who does not see in the end that `WATCHING`
/// has changed has written before whoever changed it does.
fn count_as_watched() {
    loop {
        let on = is_counting();
        fence(SeqCst);
        if let Some(count) = COUNT_HEAP.get() {
            count(on);
        }
        fence(SeqCst);
        if is_counting() == on {
            return;
        }
    }
}

fn is_counting() -> bool {
    WATCHING.load(SeqCst) || IS_LOADING.load(SeqCst)
}

/// A library is loaded, and whoever looks after that is asked before each allocation.
static IS_LOADING: AtomicBool = AtomicBool::new(false);
static ASK_LOADING: Hook<fn(usize) -> bool> = Hook::new();

/// Has `ask` asked before anything is allocated, or nobody any more.
pub(super) fn count_for_loading(ask: Option<fn(usize) -> bool>) {
    if let Some(ask) = ask {
        ASK_LOADING.set(ask);
    }
    IS_LOADING.store(ask.is_some(), SeqCst);
    count_as_watched();
}

/// Whether the allocator is to be asked for so many bytes; with errno where it is not.
pub(super) fn may_allocate(bytes: usize) -> bool {
    // More than can be is refused by whoever is asked.
    let ask = ASK_LOADING.get().filter(|_| IS_LOADING.load(Relaxed) && bytes <= isize::MAX as usize);
    ask.is_none_or(|ask| ask(bytes))
}

/// Whether what is allocated is counted.
#[inline(always)]
pub(super) fn is_watching() -> bool {
    WATCHING.load(Relaxed)
}

/// What a thread does.
struct Here {
    /// It is in the C library, which looks up what to say.
    finds_words: Cell<bool>,
    /// What that is refused does no harm: the text is then given as it is in the program.
    does_without: Cell<bool>,
    /// What it has allocated while that was counted.
    counted: Cell<Counted>,
    /// The same by the last refusal, and by that of a mapping.
    before_refusal: Cell<Counted>,
    before_mapping: Cell<Counted>,
}

impl Here {
    fn before(&self, note: &Note) -> &Cell<Counted> {
        if core::ptr::eq(note, &raw const MAPPED) { &self.before_mapping } else { &self.before_refusal }
    }
}

// SAFETY: cells of numbers, and of flags that are false; nothing to drop.
unsafe impl Zeroed for Here {}

oomguard_core::thread_own!(fn here() -> Here, "oomguard_notes_here");

/// Calls what looks up, translates or converts a text, as a program's last words are: whatever that allocates is part of
/// them, and not the program going on. In another language than English it is much.
pub fn while_finding_words<T>(find: impl FnOnce() -> T) -> T {
    let before = here().finds_words.replace(true);
    let found = find();
    here().finds_words.set(before);
    found
}

/// The same of a text that is there in any case, in the program's own language.
pub fn while_translating<T>(find: impl FnOnce() -> T) -> T {
    let before = here().does_without.replace(true);
    let found = while_finding_words(find);
    here().does_without.set(before);
    found
}

/// Whether what is refused to this thread now is refused to nobody who could die of it.
pub(super) fn is_translating() -> bool {
    here().does_without.get()
}

/// An allocation of so many bytes worked.
pub(super) fn count(bytes: usize) {
    if here().finds_words.get() {
        return;
    }
    if std_line::is_held() {
        std_line::release_if_left();
    }
    let bytes = bytes as u64;
    if bytes == 0 || bytes > isize::MAX as u64 {
        return;
    }
    let own = here().counted.get();
    here()
        .counted
        .set(Counted { allocations: own.allocations.wrapping_add(1), bytes: own.bytes.wrapping_add(bytes) });
    let allocations = ALLOCATIONS.fetch_add(1, Relaxed).saturating_add(1);
    let all = ALLOCATED_BYTES.fetch_add(bytes, Relaxed).saturating_add(bytes);
    record::note_count(Counted { allocations, bytes: all });
    if bytes >= TELLING_BYTES {
        for note in [&REQUESTED, &MAPPED] {
            let noted = note.bytes.load(Relaxed);
            if noted > TELLING_BYTES && is_as_good(note, noted - 1, bytes) && is_gone_on(note) {
                if noted - 1 > bytes {
                    keep_closed(note);
                }
                note.get_over(noted);
            }
        }
        close_record();
    }
    if all > ENOUGH_BYTES.load(Relaxed) {
        if let Some(note) = [&REQUESTED, &MAPPED].into_iter().find(|note| note.may_be_told_of()) {
            ENOUGH_BYTES.fetch_max(all.saturating_add(note.enough_bytes.load(Relaxed)), Relaxed);
        } else if WATCHING.swap(false, SeqCst) {
            count_as_watched();
            close();
        }
    }
}

/// The thread has got as much in another way, which no limit of ours counts: a file that it maps in the place of memory.
pub(super) fn note_other_way(bytes: usize) {
    let noted = REQUESTED.bytes.load(Relaxed);
    if noted > TELLING_BYTES
        && noted - 1 <= bytes as u64
        && REQUESTED.is_of_this_thread()
        && owner::is_guarded()
    {
        keep_closed(&REQUESTED);
        REQUESTED.get_over(noted);
        close_record();
    }
}

/// Whether who was refused so much can do with what it got now: as much, or a buffer that is smaller. Who reserves a
/// heap of its own, as JavaScriptCore does, halves what it asks for until it gets it.
fn is_as_good(note: &Note, refused: u64, got: u64) -> bool {
    let smaller_by = match () {
        () if !note.is_of_this_thread() => 1,
        () if core::ptr::eq(note, &raw const MAPPED) => 2,
        () => 4,
    };
    refused <= got.saturating_mul(smaller_by)
}

/// Whether a thread that gets something now tells that the refused one has gone on: it is the same, or that one has had
/// the time to say what it dies of.
fn is_gone_on(note: &Note) -> bool {
    const TIME_MS: u64 = 1000;
    note.is_of_this_thread() || sys::clock::monotonic_ms().saturating_sub(note.at.ms.load(Relaxed)) > TIME_MS
}

/// A refusal that is kept for later, in words that threads may race for.
pub struct Kept {
    /// Plus one; zero where there is none.
    bytes: AtomicU64,
    align: Align,
    /// Its place in `CAUSES`.
    cause: AtomicU32,
}

const CAUSES: [Cause; 3] = [Cause::Heap, Cause::Thread, Cause::Mapping];

impl Kept {
    pub const fn new() -> Self {
        Kept { bytes: AtomicU64::new(0), align: Align::new(), cause: AtomicU32::new(0) }
    }

    pub fn set(&self, refused: Option<(Cause, Request)>) {
        let place = |cause| CAUSES.iter().position(|known| *known == cause).unwrap_or(0) as u32;
        self.align.set(refused.and_then(|(_, request)| request.align));
        self.cause.store(refused.map_or(0, |(cause, _)| place(cause)), Relaxed);
        self.bytes.store(refused.map_or(0, |(_, request)| request.bytes.saturating_add(1)), Relaxed);
    }

    fn is_set(&self) -> bool {
        self.bytes.load(Relaxed) != 0
    }

    pub fn get(&self) -> Option<(Cause, Request)> {
        let bytes = self.bytes.load(Relaxed).checked_sub(1)?;
        let cause = CAUSES.get(self.cause.load(Relaxed) as usize).copied()?;
        Some((cause, Request { bytes, align: self.align.get() }))
    }
}

/// What the program got over last, by work: it may have been no more than a backtrace.
static CLOSED: Kept = Kept::new();
static CLOSED_AT_MS: AtomicU64 = AtomicU64::new(0);
/// By work alone: it has not got as much in another way.
static IS_CLOSED_BY_WORK: AtomicBool = AtomicBool::new(false);

/// Words that follow at once may still be about it.
fn keep_closed(note: &Note) {
    CLOSED.set(note.refused());
    IS_CLOSED_BY_WORK.store(false, Relaxed);
    CLOSED_AT_MS.store(sys::clock::monotonic_ms(), Relaxed);
}

fn close() {
    if let Some(note) = [&REQUESTED, &MAPPED].into_iter().find(|note| note.refused().is_some()) {
        keep_closed(note);
        IS_CLOSED_BY_WORK.store(true, Relaxed);
    }
    // What another thread was refused in this very moment stands.
    for note in [&REQUESTED, &MAPPED] {
        // Acquire: pairs with the Release in `note`.
        let noted = note.bytes.load(Acquire);
        if note.by_all().bytes > note.enough_bytes.load(Relaxed) {
            note.get_over(noted);
        }
    }
    close_record();
}

/// Nothing is open any more, if that is so.
fn close_record() {
    if [&REQUESTED, &MAPPED].iter().all(|note| note.bytes.load(Relaxed) == 0) {
        record::note_closed();
    }
}

fn open() -> Option<(Cause, Request)> {
    requested().or_else(mapped).map(|noted| (noted.cause, noted.request()))
}

/// What was refused and not got over, or got over a moment ago: for who knows that it was a backtrace.
pub fn open_or_just_closed() -> Option<(Cause, Request)> {
    open().or_else(|| {
        // What others have allocated meanwhile has not closed one that its thread may still tell of.
        let stands = || [&REQUESTED, &MAPPED].into_iter().find(|note| note.may_be_told_of())?.refused();
        CLOSED.get().filter(|_| is_just_closed()).or_else(stands).filter(|_| owner::is_guarded())
    })
}

fn is_just_closed() -> bool {
    const MOMENT_MS: u64 = 5000;
    sys::clock::monotonic_ms().saturating_sub(CLOSED_AT_MS.load(Relaxed)) < MOMENT_MS
}

/// Whether that may be so: without a system call, for what is asked often.
#[inline]
pub fn may_be_spoken_of() -> bool {
    is_watching() || CLOSED.is_set() && filter::may_ask() && is_just_closed()
}

/// Whether the program has worked on without what it was refused, and not got it in any other way.
pub(super) fn is_worked_on_without() -> bool {
    IS_CLOSED_BY_WORK.load(Relaxed)
}

/// The bytes that have been counted so far.
pub fn allocated_bytes() -> u64 {
    ALLOCATED_BYTES.load(Relaxed)
}

/// The same of the calling thread.
pub fn allocated_bytes_here() -> u64 {
    here().counted.get().bytes
}

/// The allocations and mappings that have been counted so far.
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

/// The last refusal of the malloc family or of a thread, if the program has not got over it.
pub fn requested() -> Option<Noted> {
    let cause = if REQUESTED.is_thread.load(Relaxed) { Cause::Thread } else { Cause::Heap };
    noted(&REQUESTED, cause)
}

/// Whether the last refusal is one of so many bytes to this thread, and nothing has been allocated since.
pub(super) fn was_just_refused(bytes: u64) -> bool {
    requested().is_some_and(|noted| {
        noted.bytes == bytes && noted.bytes_since == 0 && noted.tid == sys::process::tid()
    })
}

/// The last refused mapping, likewise.
pub fn mapped() -> Option<Noted> {
    noted(&MAPPED, Cause::Mapping)
}

#[inline(never)]
fn noted(note: &Note, cause: Cause) -> Option<Noted> {
    if !owner::is_guarded() {
        return None;
    }
    let bytes = note.bytes.load(Relaxed).checked_sub(1)?;
    let since = note.at.since();
    if note.bytes_since(since) > note.enough_bytes.load(Relaxed) || !since.may_matter() {
        return None;
    }
    let own = note.by_this_thread();
    // One that has waited may have had others do its work.
    let counted = own.filter(|_| gone_on::has_stayed_here()).unwrap_or_else(|| note.by_all());
    Some(Noted {
        cause,
        asker: if note.is_rusts.load(Relaxed) { Asker::Rust } else { Asker::Other },
        bytes,
        align: note.align.get(),
        tid: note.tid.load(Relaxed),
        ms_since: since.ms,
        since,
        allocations_since: counted.allocations,
        bytes_since: counted.bytes,
        own,
    })
}
