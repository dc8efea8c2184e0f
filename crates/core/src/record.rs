//! The record: memory that a supervisor and its guarded child share, so that the parent knows how the child stood
//! when it died, whatever it died of. This is the layout that both sides read; neither acts here.
//!
//! ```text
//!   the child's page | a page for each descendant that was refused something | the child's profile
//! ```
//! The parent makes it and says in `OOMGUARD_RECORD` where the child finds it: `fd:N:INODE`, or
//! `proc:PID:N:INODE` for a descriptor that stays the parent's: then descendants find it, too. A page is an array of
//! 64-bit words, all zero at first; only the process that it belongs to writes. A number is stored plus one, so that zero is "not known".
//! The writer neither allocates nor waits. The reader takes a copy and trusts nothing in it: lengths are clamped,
//! words that mean nothing are unknown, and every number is a claim of that child about itself.

use crate::contract::TOKEN_MAX_BYTES;
use crate::contract::{Cause, Evidence, LimitSource, Measure};
use crate::message::Message;
use crate::profile::PROFILE_BYTES;
use crate::report::{HOLDERS, Holder, Request, Snapshot};
use crate::sys::memory::HeapUse;
use crate::sys::memory::MemoryUse;
use crate::text::{Text, parts, whole_number};
use core::sync::atomic::{AtomicU64, Ordering};

/// The name of the note in a guarded program's file, and its content: the layout of the record that the program fills.
pub const NOTE_NAME: &[u8] = b"oomguard\0";
pub const NOTE_LAYOUT: u32 = LAYOUT as u32;

/// The bytes of a process's page.
pub const RECORD_BYTES: usize = 1024;
/// How many descendants can have a page at once; those that have got over their refusals give way, then the oldest.
const MOST_DESCENDANTS: usize = 31;
/// The bytes of all pages; the profile's tables lie behind them.
pub const HEAD_BYTES: usize = RECORD_BYTES * (1 + MOST_DESCENDANTS);
/// The bytes of the file that holds it all. What nobody writes takes no memory.
pub const FILE_BYTES: usize = HEAD_BYTES + PROFILE_BYTES;
const WORDS: usize = RECORD_BYTES / 8;

const MAGIC: u64 = u64::from_le_bytes(*b"oomguard");
const LAYOUT: u64 = 2;

/// A longer path is none.
pub const PATH_MAX_BYTES: usize = (at::PARENT - at::PATH - 1) * 8;
/// Where a supervisor says that the limit is another one now.
pub const LIMIT_NOW_AT: usize = at::LIMIT_NOW * 8;
const PROGRAM_MAX_BYTES: usize = 64;
const THREAD_MAX_BYTES: usize = 16;
/// A longer reason is cut.
const TROUBLE_MAX_BYTES: usize = (at::PARENT - at::TROUBLE - 1) * 8;

/// Where each value lies.
// One layout, whichever side uses which of it.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const LAYOUT: usize = 1;
    pub(super) const STATE: usize = 2;
    /// The process that fills the record.
    pub(super) const OWNER: usize = 3;
    pub(super) const CAUSE: usize = 4;
    pub(super) const TID: usize = 5;
    pub(super) const REQUESTED: usize = 6;
    pub(super) const ALIGN: usize = 7;
    pub(super) const LIMIT: usize = 8;
    pub(super) const LIMIT_SOURCE: usize = 9;
    pub(super) const MEASURE: usize = 10;
    pub(super) const LIMIT_REFUSED: usize = 11;
    pub(super) const ADDRESS_SPACE: usize = 12;
    pub(super) const DATA: usize = 13;
    pub(super) const RESIDENT: usize = 14;
    pub(super) const RESIDENT_PEAK: usize = 15;
    pub(super) const REFUSALS: usize = 16;
    pub(super) const EXIT_CODE: usize = 17;
    pub(super) const UPTIME_MS: usize = 18;
    pub(super) const HEAP_LIVE: usize = 19;
    pub(super) const HEAP_PEAK: usize = 20;
    pub(super) const PROFILE: usize = 21;
    pub(super) const EVIDENCE: usize = 22;
    pub(super) const OWN_EXIT_CODE: usize = 23;
    pub(super) const OWN_SIGNAL: usize = 24;
    pub(super) const BUDGET: usize = 25;
    pub(super) const BUDGET_USED: usize = 26;
    pub(super) const WAITED_MS: usize = 27;
    /// What has been told by the process itself: bits.
    pub(super) const TOLD: usize = 28;
    /// Which of the descendants' ends this was; in the child's own page, how many there were.
    pub(super) const ENDS: usize = 29;
    /// It came to an end that the guard looked at, and not of a refusal; or of one that the user wants better evidence of.
    pub(super) const INNOCENT: usize = 30;
    /// The descendant's page was left behind: its number is another process's now.
    pub(super) const PAST: usize = 31;
    /// Texts: the length plus one, then the bytes.
    pub(super) const PROGRAM: usize = 32;
    /// In the place of all texts: why there is no guard.
    pub(super) const TROUBLE: usize = PROGRAM;
    pub(super) const THREAD: usize = 48;
    pub(super) const TOKEN: usize = 56;
    /// The refusal that is open, of which the words below tell; zero where there is none.
    pub(super) const OPEN: usize = 72;
    pub(super) const OPEN_CAUSE: usize = 73;
    pub(super) const OPEN_SINCE_MS: usize = 74;
    /// What was allocated before it, and by now: blocks and bytes.
    pub(super) const ALLOCATIONS_BEFORE: usize = 75;
    pub(super) const BYTES_BEFORE: usize = 76;
    pub(super) const ALLOCATIONS: usize = 77;
    pub(super) const BYTES: usize = 78;
    /// What was said since, when, and what had been allocated then.
    pub(super) const SAID: usize = 79;
    pub(super) const SAID_MS: usize = 80;
    pub(super) const SAID_AT_BYTES: usize = 81;
    /// What the process is about to become, since when, and the program's path: a text as above.
    pub(super) const BECOMING: usize = 82;
    pub(super) const BECOMING_MS: usize = 83;
    pub(super) const PATH: usize = 84;
    /// The process that started a descendant, as that calls it.
    pub(super) const PARENT: usize = FAILED - 1;
    /// The failed children that were heard of last, of the worker or of a descendant: for each three words, see `Failed`. In
    /// the worker's own page; whoever hears of one writes.
    pub(super) const FAILED: usize = LIMIT_NOW - super::FAILED_WORDS * super::MOST_FAILED;
    /// The limit on what is resident, where the supervisor has changed it since: in the worker's own page, for all that descend
    /// from it as well.
    pub(super) const LIMIT_NOW: usize = super::WORDS - 1;
}

/// What became of the wish for a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileState {
    /// The program has no profiler compiled in.
    NotCompiledIn,
    /// It has, and was told not to use it.
    Off,
    On,
    /// There was no memory for it, or the kernel is too old.
    Failed,
}

/// How far the child got. Stored last, so that what a state promises is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The guard is set up: limit, source, measure and exit code are known.
    Armed,
    /// The process could not go on: cause, thread and request are known.
    Exhausted,
}

const ACQUITTED: u64 = 1;
const DOUBTFUL: u64 = 2;

const ARMED: u64 = 1;
const EXHAUSTED: u64 = 2;
/// The guard could not be set up, and the process ends: nothing is known but the reason.
const UNGUARDED: u64 = 3;

/// The value of `OOMGUARD_RECORD` for a record that the child finds as descriptor `fd`.
#[cfg(any(feature = "alloc", not(feature = "shim")))]
pub fn variable_value(fd: i32, inode: u64) -> alloc::string::String {
    alloc::format!("fd:{fd}:{inode}")
}

/// The same for a record that the child finds among the descriptors of process `pid`: it inherits none, and neither does
/// what it starts, and the record is found again when the process becomes another program.
#[cfg(any(feature = "alloc", not(feature = "shim")))]
pub fn variable_value_of(pid: u32, fd: i32, inode: u64) -> alloc::string::String {
    alloc::format!("proc:{pid}:{fd}:{inode}")
}

/// Where a record is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The process whose descriptor it is; `None` for this one.
    pub pid: Option<u32>,
    pub fd: i32,
    pub inode: u64,
}

/// What such a value says.
pub fn from_variable(value: &[u8]) -> Option<Place> {
    let mut fields = parts(value, b':');
    let pid = match fields.next()? {
        b"fd" => None,
        b"proc" => Some(u32::try_from(whole_number(fields.next()?)?).ok()?),
        _ => return None,
    };
    let fd = i32::try_from(whole_number(fields.next()?)?).ok()?;
    let inode = whole_number(fields.next()?)?;
    fields.next().is_none().then_some(Place { pid, fd, inode })
}

/// All pages, as the processes that fill them see them.
#[repr(C)]
pub struct Head {
    pub own: Page,
    descendants: [Page; MOST_DESCENDANTS],
}

impl Head {
    /// The page of descendant `pid`, if it has one.
    pub fn page_of(&self, pid: u32) -> Option<&Page> {
        let me = encode(Some(pid.into()));
        self.descendants.iter().find(|page| page.load(at::OWNER) == me && page.load(at::PAST) == 0)
    }

    /// A page for descendant `pid`: a free one, that of a process which has got over its refusals, or the oldest.
    pub fn claim_for(&self, pid: u32) -> Option<&Page> {
        if let Some(page) = self.page_of(pid) {
            return Some(page);
        }
        if let Some(page) = self.descendants.iter().find(|page| page.claim(pid)) {
            return Some(page);
        }
        let rank = |page: &&Page| {
            let is_dead = page.load(at::STATE) == EXHAUSTED;
            (is_dead, page.load(at::OPEN) != 0, page.load(at::ENDS), page.load(at::OPEN_SINCE_MS))
        };
        self.descendants.iter().min_by_key(rank).filter(|page| page.take_over(pid))
    }

    /// Process `pid` begins to run a program: what was noted under its number is another program's, or another
    /// process's that is dead.
    pub fn begin(&self, pid: u32) {
        self.forget_failed(pid);
        while let Some(page) = self.page_of(pid) {
            if page.load(at::STATE) == EXHAUSTED {
                page.store(at::PAST, 1);
            } else {
                page.store_state(0);
                page.store(at::OPEN, 0);
                page.store(at::OWNER, 0);
            }
        }
    }

    /// Process `parent`, a child of `above`, has waited for its child, which failed with this status (wait(2)). Who passes on
    /// what its own child failed with is not the one that is told of.
    pub fn note_failed(&self, parent: u32, above: u32, child: Child, status: i32, now_ms: u64) {
        let own = &self.own;
        let (mut passed_on, mut like_it, mut oldest, mut oldest_ms, mut told_ms) =
            (None, None, 0, u64::MAX, 0);
        for place in 0..MOST_FAILED {
            let Some(before) = Failed::at(place, |word| own.load(word)) else {
                (oldest, oldest_ms) = (place, 0);
                continue;
            };
            let is_of_child = match child {
                Child::Number(child) => before.parent == child,
                // It may be: another child of this process, which has failed since, and had a child that failed so.
                Child::DeadAfter(ms) => {
                    before.parent != parent && may_be(before.above, parent) && before.at_ms > ms
                }
            };
            let is_at_once = now_ms.saturating_sub(before.at_ms) <= PASSED_ON_MS;
            if is_of_child && is_at_once && passes_on(status, before.status) {
                passed_on = Some((place, before.child, before.of));
            }
            // What a namespace's first process has told of, its parent knows by another number.
            if before.status == status && (!before.is_of_init() || before.parent == parent) {
                like_it = Some(place);
            }
            if before.at_ms < oldest_ms {
                (oldest, oldest_ms) = (place, before.at_ms);
            }
            if before.parent == parent {
                told_ms = told_ms.max(before.at_ms);
            }
        }
        let (child, of) = match (passed_on, child) {
            (Some((_, child, of)), _) => (child, of),
            // One that nobody knows is none of those that were told of before.
            (None, Child::DeadAfter(ms)) => (Child::DeadAfter(ms.max(told_ms)), parent),
            (None, child) => (child, parent),
        };
        let place = passed_on.map(|(place, ..)| place).or(like_it).unwrap_or(oldest);
        let failed = Failed { child, of, parent, above, status, at_ms: now_ms };
        for (word, value) in failed.words().into_iter().enumerate() {
            own.store(at::FAILED + FAILED_WORDS * place + word, value);
        }
    }

    /// Process `parent` is another one now, or becomes another program, which does not pass on how the children failed that were
    /// waited for before.
    pub fn forget_failed(&self, parent: u32) {
        for place in 0..MOST_FAILED {
            if Failed::at(place, |word| self.own.load(word)).is_some_and(|failed| failed.parent == parent) {
                self.own.store(at::FAILED + FAILED_WORDS * place + 1, 0);
            }
        }
    }

    /// The process that fills `page` ends of what it was refused: gives its end a number.
    pub fn count_end(&self, page: &Page) {
        if core::ptr::eq(page, &raw const self.own) {
            return;
        }
        let Some(ends) = self.own.words.get(at::ENDS) else { return };
        // Relaxed: each gets a number of its own, and the order of two at once is of no matter.
        page.store(at::ENDS, ends.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

/// Why the guard of the process that filled this copy of a page could not be set up.
pub fn trouble(copy: &[u8; RECORD_BYTES]) -> Option<Text<TROUBLE_MAX_BYTES>> {
    let copy = Copied(copy);
    let is_one = copy.word(at::MAGIC) == MAGIC && copy.word(at::LAYOUT) == LAYOUT;
    if is_one && copy.word(at::STATE) == UNGUARDED { copy.text(at::TROUBLE) } else { None }
}

/// The page of one process, as that sees it.
#[repr(C)]
pub struct Page {
    words: [AtomicU64; WORDS],
}

impl Page {
    /// Makes `pid` the process that fills a page which others fill no more.
    fn take_over(&self, pid: u32) -> bool {
        let Some(owner) = self.words.get(at::OWNER) else { return false };
        let before = owner.load(Ordering::Relaxed);
        let me = encode(Some(pid.into()));
        // Relaxed: who wins writes what the others read.
        if owner.compare_exchange(before, me, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        self.store_state(0);
        for word in (0..WORDS).filter(|word| !matches!(*word, at::OWNER | at::STATE)) {
            self.store(word, 0);
        }
        true
    }

    /// Makes `pid` the process that fills the record, unless there is another one already.
    pub fn claim(&self, pid: u32) -> bool {
        let Some(owner) = self.words.get(at::OWNER) else { return false };
        let me = encode(Some(pid.into()));
        // Relaxed: the value alone decides, and nothing was written before it.
        match owner.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            // The same process, which has become another program: execve(2).
            Err(before) => before == me,
        }
    }

    /// Who has started the descendant that fills the page.
    pub fn write_parent(&self, pid: u32) {
        self.store(at::PARENT, encode(Some(pid.into())));
    }

    /// Makes `pid` the process that the record is about: for one that is written from outside.
    pub fn write_owner(&self, pid: u32) {
        self.store(at::OWNER, encode(Some(pid.into())));
    }

    /// The guard is set up.
    pub fn write_armed(&self, armed: &Armed<'_>) {
        self.store(at::MAGIC, MAGIC);
        self.store(at::LAYOUT, LAYOUT);
        self.write_text(at::PROGRAM, armed.program);
        if let Some(token) = armed.token {
            self.write_text(at::TOKEN, token);
        }
        self.store(at::LIMIT, encode(armed.limit));
        self.store(at::LIMIT_SOURCE, armed.limit_source.map_or(0, |source| source.number().into()));
        self.store(at::MEASURE, armed.measure.number().into());
        self.store(at::EXIT_CODE, encode(Some(armed.exit_code.into())));
        self.close();
        self.store(at::INNOCENT, 0);
        self.store(at::BECOMING, 0);
        self.store_state(ARMED);
    }

    /// The guard cannot be set up, and the process ends.
    pub fn write_trouble(&self, reason: &[u8]) {
        self.store(at::MAGIC, MAGIC);
        self.store(at::LAYOUT, LAYOUT);
        self.write_text(at::TROUBLE, reason.get(..TROUBLE_MAX_BYTES).unwrap_or(reason));
        self.store_state(UNGUARDED);
    }

    /// A refusal is open from now on, until it is closed or the process is gone. That of a mapping, which is often a
    /// probe, gives way to others.
    pub fn open(&self, cause: Cause, tid: u32, bytes: u64, now_ms: u64, counted: Counted) {
        let has_other = self.load(at::OPEN) != 0 && self.load(at::OPEN_CAUSE) != cause_code(Cause::Mapping);
        if cause == Cause::Mapping && has_other {
            return;
        }
        self.store(at::TID, encode(Some(tid.into())));
        self.store(at::OPEN_CAUSE, cause_code(cause));
        self.store(at::OPEN_SINCE_MS, encode(Some(now_ms)));
        self.store(at::ALLOCATIONS_BEFORE, counted.allocations);
        self.store(at::BYTES_BEFORE, counted.bytes);
        self.count(counted);
        self.store(at::INNOCENT, 0);
        self.store(at::OPEN, encode(Some(bytes)));
    }

    /// Since when a refusal is open.
    pub fn is_open_since_ms(&self) -> Option<u64> {
        if self.load(at::OPEN) == 0 { None } else { self.load(at::OPEN_SINCE_MS).checked_sub(1) }
    }

    /// The refusals are got over.
    pub fn close(&self) {
        self.store(at::OPEN, 0);
    }

    /// So much has been allocated by now.
    pub fn count(&self, counted: Counted) {
        self.store(at::ALLOCATIONS, counted.allocations);
        self.store(at::BYTES, counted.bytes);
    }

    /// The process has said something that bears on its death; `None` takes it back.
    pub fn say(&self, message: Option<Message>, now_ms: u64) {
        self.store(at::SAID_MS, encode(Some(now_ms)));
        self.store(at::SAID_AT_BYTES, self.load(at::BYTES));
        self.store(at::SAID, message.map_or(0, message_code));
    }

    /// The process ends for a reason of its own, as far as the guard can tell.
    pub fn acquit(&self) {
        if self.load(at::INNOCENT) != DOUBTFUL {
            self.store(at::INNOCENT, ACQUITTED);
        }
    }

    /// The process ends of a refusal, as far as the guard can tell, and is let end as it would without: the user wants better
    /// evidence.
    pub fn write_doubt(&self, snapshot: &Snapshot<'_>) {
        self.write_snapshot(snapshot);
        self.store(at::CAUSE, cause_code(snapshot.cause));
        self.store(at::TID, encode(Some(snapshot.tid.into())));
        self.write_request(snapshot.request);
        self.store(at::INNOCENT, DOUBTFUL);
    }

    /// The process is about to become another program: what it was refused as this one is over.
    pub fn write_becoming(&self, what: Becoming, path: &[u8]) {
        let path = if path.len() <= PATH_MAX_BYTES { path } else { b"" };
        if what != Becoming::Nothing {
            self.close();
            self.store(at::INNOCENT, 0);
            self.store(at::BECOMING_MS, encode(Some(crate::sys::clock::monotonic_ms())));
            self.write_text(at::PATH, path);
        }
        self.store(at::BECOMING, if what == Becoming::Guarded { LOADING } else { 0 });
    }

    /// The process has told of its end itself.
    pub fn write_told(&self, told: Told) {
        self.store(at::TOLD, 1 | u64::from(told.lines) << 1 | u64::from(told.record) << 2);
    }

    /// What the process was found to use.
    pub fn write_use(&self, memory: &MemoryUse) {
        self.store(at::ADDRESS_SPACE, encode(memory.address_space));
        self.store(at::DATA, encode(memory.data));
        self.store(at::RESIDENT, encode(memory.resident));
        self.store(at::RESIDENT_PEAK, encode(memory.resident_peak));
        self.store(at::HEAP_LIVE, encode(memory.heap.live));
        self.store(at::HEAP_PEAK, encode(memory.heap.peak));
    }

    /// What became of the wish for a profile.
    pub fn write_profile_state(&self, state: ProfileState) {
        self.store(at::PROFILE, profile_code(state));
    }

    /// A refusal was passed on to the program.
    pub fn write_refusal(&self, request: Request, refusals: u64) {
        self.write_request(Some(request));
        self.store(at::REFUSALS, encode(Some(refusals)));
    }

    /// The end has been decided; what else there is to know may follow.
    pub fn write_end(&self, cause: Cause, tid: u32, request: Option<Request>) {
        self.store(at::CAUSE, cause_code(cause));
        self.store(at::TID, encode(Some(tid.into())));
        self.write_request(request);
        self.store_state(EXHAUSTED);
    }

    /// All that is known at the end.
    pub fn write_last_words(&self, snapshot: &Snapshot<'_>) {
        self.write_snapshot(snapshot);
        self.write_end(snapshot.cause, snapshot.tid, snapshot.request);
    }

    fn write_snapshot(&self, snapshot: &Snapshot<'_>) {
        self.write_text(at::THREAD, snapshot.thread);
        self.store(at::LIMIT, encode(snapshot.limit));
        self.store(at::LIMIT_SOURCE, snapshot.limit_source.map_or(0, |source| source.number().into()));
        self.store(at::MEASURE, snapshot.measure.number().into());
        self.store(at::LIMIT_REFUSED, encode(snapshot.limit_refused.map(u64::from)));
        self.store(at::REFUSALS, encode(Some(snapshot.refusals)));
        self.store(at::EXIT_CODE, encode(Some(snapshot.exit_code.into())));
        self.store(at::UPTIME_MS, encode(Some(snapshot.uptime_ms)));
        self.store(at::EVIDENCE, snapshot.evidence.map_or(0, evidence_code));
        self.store(at::OWN_EXIT_CODE, encode(snapshot.own_exit_code.map(u64::from)));
        self.store(at::OWN_SIGNAL, encode(snapshot.own_signal.map(u64::from)));
        self.store(at::BUDGET, encode(snapshot.budget));
        self.store(at::BUDGET_USED, encode(snapshot.budget_used));
        self.store(at::WAITED_MS, encode(snapshot.waited_ms));
        self.write_use(&snapshot.memory);
    }

    fn write_request(&self, request: Option<Request>) {
        self.store(at::REQUESTED, encode(request.map(|request| request.bytes)));
        self.store(at::ALIGN, encode(request.and_then(|request| request.align)));
    }

    fn write_text(&self, word: usize, text: &[u8]) {
        for (index, chunk) in text.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.store(word + 1 + index, u64::from_ne_bytes(bytes));
        }
        self.store(word, encode(Some(text.len() as u64)));
    }

    /// The limit on what is resident, where the supervisor has changed it since.
    pub fn limit_now(&self) -> Option<u64> {
        self.load(at::LIMIT_NOW).checked_sub(1)
    }

    fn load(&self, word: usize) -> u64 {
        // Relaxed: what another process writes meanwhile is found or not.
        self.words.get(word).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    fn store(&self, word: usize, value: u64) {
        if let Some(slot) = self.words.get(word) {
            // Relaxed: the parent reads when this process is dead, or takes what it finds.
            slot.store(value, Ordering::Relaxed);
        }
    }

    fn store_state(&self, state: u64) {
        if let Some(slot) = self.words.get(at::STATE) {
            // Release: whoever sees the state sees what it promises; the parent's copy is made by the kernel.
            slot.store(state, Ordering::Release);
        }
    }
}

/// Which child it was that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    Number(u32),
    /// Nobody knows its number, but that it ended later than at this moment of the clock that all processes share.
    DeadAfter(u64),
}

/// How soon a wrapper passes on how its child failed. Who takes longer has done something else.
pub const PASSED_ON_MS: u64 = 1000;

/// A failed child that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    pub child: Child,
    /// Whose child it was.
    pub of: u32,
    /// Who has waited for it last, or for one that passed its end on; and who has started that one: zero where nobody knows.
    pub parent: u32,
    pub above: u32,
    /// As wait(2) encodes it.
    pub status: i32,
    /// Of the clock that all processes share.
    pub at_ms: u64,
}

/// No process has such a number: in its place stands for how many milliseconds, at most, a child has been dead.
const UNKNOWN: u32 = 1 << 31;

/// How many of them are kept, each with another status.
const MOST_FAILED: usize = 4;
const FAILED_WORDS: usize = 3;

/// Whether it may be this process. Zero: nobody knows who it is, as it is in another PID namespace.
pub fn may_be(known: u32, pid: u32) -> bool {
    known == 0 || known == pid
}

impl Failed {
    /// It was told of by the first process of a PID namespace, which its own parent knows by another number.
    pub fn is_of_init(&self) -> bool {
        self.parent == 1 && self.above == 0
    }

    /// What stands in a copy of the worker's page. Of two that were written at once the words may be mixed: no process has all
    /// of that.
    pub fn read_all(copy: &[u8; RECORD_BYTES]) -> impl Iterator<Item = Failed> {
        let copy = Copied(copy);
        (0..MOST_FAILED).filter_map(move |place| Failed::at(place, |word| copy.word(word)))
    }

    fn at(place: usize, word: impl Fn(usize) -> u64) -> Option<Failed> {
        let first = at::FAILED + FAILED_WORDS * place;
        let (who, how, whose) = (word(first), word(first + 1), word(first + 2));
        let at_ms = how >> 16;
        let child = (who >> 32) as u32;
        let failed = Failed {
            child: match child & !UNKNOWN {
                before_ms if child != before_ms => Child::DeadAfter(at_ms.saturating_sub(before_ms.into())),
                _ => Child::Number(child),
            },
            of: whose as u32,
            parent: who as u32,
            above: (whose >> 32) as u32,
            status: i32::from(how as u16),
            at_ms,
        };
        (how != 0).then_some(failed)
    }

    fn words(self) -> [u64; FAILED_WORDS] {
        let Failed { child, of, parent, above, status, at_ms } = self;
        let child = match child {
            Child::Number(child) => child,
            Child::DeadAfter(ms) => UNKNOWN | at_ms.saturating_sub(ms).min((UNKNOWN - 1).into()) as u32,
        };
        [
            u64::from(child) << 32 | u64::from(parent),
            at_ms << 16 | u64::from(status as u16),
            u64::from(above) << 32 | u64::from(of),
        ]
    }
}

/// Whether a process that ended with `status` passed on the end of a child, as shells and wrappers do: the same status, or 128
/// and the signal. As wait(2) encodes them.
pub fn passes_on(status: i32, childs: i32) -> bool {
    let is_of_signal = || {
        libc::WIFSIGNALED(childs)
            && libc::WIFEXITED(status)
            && libc::WEXITSTATUS(status) == 128 + libc::WTERMSIG(childs)
    };
    let without_core = |status: i32| status & !0x80;
    status == childs
        || libc::WIFSIGNALED(childs) && without_core(status) == without_core(childs)
        || is_of_signal()
}

/// What the child knows once its guard is set up.
pub struct Armed<'a> {
    pub program: &'a [u8],
    pub token: Option<&'a [u8]>,
    pub limit: Option<u64>,
    pub limit_source: Option<LimitSource>,
    pub measure: Measure,
    pub exit_code: u8,
}

/// What was allocated while that was counted.
#[derive(Clone, Copy)]
pub struct Counted {
    pub allocations: u64,
    pub bytes: u64,
}

/// What a process is about to become by execve(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becoming {
    /// Nothing: it is the program that fills the page.
    Nothing,
    /// One with the same guard, which says so as soon as it has been loaded.
    Guarded,
    /// One that the guard does not get into, or does not see everything of.
    Unguarded,
}

/// A program that its process had begun to load when it was last heard of.
#[derive(Clone, Copy)]
pub struct Loading {
    pub since_ms: u64,
    pub path: Text<PATH_MAX_BYTES>,
}

/// What a process has told of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The lines on stderr, or nobody wants them.
    pub lines: bool,
    /// The report, or nobody wants it.
    pub record: bool,
}

/// A refusal that a process had not got over when it was last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub cause: Cause,
    pub bytes: u64,
    /// Of the clock that all processes share.
    pub since_ms: u64,
    pub allocations_since: u64,
    pub bytes_since: u64,
    /// What was said since, when, and how many bytes were allocated after that.
    pub said: Option<(Message, u64, u64)>,
}

/// What a child says of itself.
#[derive(Clone)]
pub struct Claims {
    pub state: State,
    pub pid: u32,
    /// Who has started it, as far as that is known: of a descendant.
    pub parent: u32,
    pub cause: Cause,
    pub tid: u32,
    pub program: Text<PROGRAM_MAX_BYTES>,
    pub thread: Text<THREAD_MAX_BYTES>,
    pub token: Option<Text<TOKEN_MAX_BYTES>>,
    pub request: Option<Request>,
    pub limit: Option<u64>,
    pub limit_source: Option<LimitSource>,
    pub measure: Measure,
    pub limit_refused: Option<bool>,
    pub memory: MemoryUse,
    pub refusals: u64,
    pub exit_code: u8,
    pub uptime_ms: u64,
    pub evidence: Option<Evidence>,
    pub own_exit_code: Option<u8>,
    pub own_signal: Option<u8>,
    pub budget: Option<u64>,
    pub budget_used: Option<u64>,
    pub waited_ms: Option<u64>,
    /// Who held most of the budget; known of those that a tracer followed.
    pub holders: [Option<Holder>; HOLDERS],
    /// Written not by the process itself but by the tracer that followed it.
    pub inferred: bool,
    pub profile: Option<ProfileState>,
    /// What it has told itself of its end; `None`: it did not come to that.
    pub told: Option<Told>,
    /// `None`, too, where its guard found that it ends for another reason.
    pub open: Option<Open>,
    /// Which of the descendants' ends it was.
    pub order: u64,
    /// The program that it was becoming, which would have a guard.
    pub loading: Option<Loading>,
    /// Its guard has looked at its end, and found that it is not of a refusal.
    pub is_acquitted: bool,
    /// The same, but for want of better evidence that it is.
    pub is_doubtful: bool,
}

impl Claims {
    /// Of a process that has no guard: nothing but what a parent knows.
    pub fn from_outside(exit_code: u8, source: LimitSource) -> Claims {
        let page = Page { words: [const { AtomicU64::new(0) }; WORDS] };
        page.write_owner(0);
        page.write_armed(&Armed {
            program: b"?",
            token: None,
            limit: None,
            limit_source: Some(source),
            measure: Measure::Resident,
            exit_code,
        });
        let mut copy = [0; RECORD_BYTES];
        for (bytes, word) in copy.chunks_exact_mut(8).zip(&page.words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        Claims::read(&copy).unwrap_or_else(|| unreachable!("what was written just now is a record"))
    }

    /// Reads a copy of a record. `None`: no guard ever filled it, or what filled it was none.
    pub fn read(copy: &[u8; RECORD_BYTES]) -> Option<Claims> {
        let copy = Copied(copy);
        if copy.word(at::MAGIC) != MAGIC || copy.word(at::LAYOUT) != LAYOUT {
            return None;
        }
        let state = match copy.word(at::STATE) {
            ARMED => State::Armed,
            EXHAUSTED => State::Exhausted,
            _ => return None,
        };
        Some(Claims {
            state,
            pid: copy.small(at::OWNER)?,
            parent: copy.small(at::PARENT).unwrap_or(0),
            cause: cause_from(copy.word(at::CAUSE)),
            tid: copy.small(at::TID).unwrap_or(0),
            program: copy.text(at::PROGRAM)?,
            thread: copy.text(at::THREAD).unwrap_or(Text::from_bytes(b"?")),
            token: copy.text(at::TOKEN),
            request: copy.number(at::REQUESTED).map(|bytes| Request { bytes, align: copy.number(at::ALIGN) }),
            limit: copy.number(at::LIMIT),
            limit_source: source_from(copy.word(at::LIMIT_SOURCE)),
            measure: measure_from(copy.word(at::MEASURE)),
            limit_refused: copy.number(at::LIMIT_REFUSED).map(|refused| refused != 0),
            memory: MemoryUse {
                address_space: copy.number(at::ADDRESS_SPACE),
                data: copy.number(at::DATA),
                resident: copy.number(at::RESIDENT),
                resident_peak: copy.number(at::RESIDENT_PEAK),
                anonymous: None,
                shared: None,
                swapped: None,
                threads: None,
                heap: HeapUse { live: copy.number(at::HEAP_LIVE), peak: copy.number(at::HEAP_PEAK) },
            },
            refusals: copy.number(at::REFUSALS).unwrap_or(0),
            exit_code: copy.byte(at::EXIT_CODE)?,
            uptime_ms: copy.number(at::UPTIME_MS).unwrap_or(0),
            evidence: evidence_from(copy.word(at::EVIDENCE)),
            own_exit_code: copy.byte(at::OWN_EXIT_CODE),
            own_signal: copy.byte(at::OWN_SIGNAL),
            budget: copy.number(at::BUDGET),
            budget_used: copy.number(at::BUDGET_USED),
            waited_ms: copy.number(at::WAITED_MS),
            holders: [None; HOLDERS],
            inferred: false,
            profile: profile_from(copy.word(at::PROFILE)),
            told: match copy.word(at::TOLD) {
                0 => None,
                told => Some(Told { lines: told & 2 != 0, record: told & 4 != 0 }),
            },
            open: if copy.word(at::INNOCENT) == 0 { copy.open() } else { None },
            order: copy.word(at::ENDS),
            loading: if copy.word(at::BECOMING) == LOADING { copy.loading() } else { None },
            is_acquitted: copy.word(at::INNOCENT) != 0,
            is_doubtful: copy.word(at::INNOCENT) == DOUBTFUL,
        })
    }

    /// The pages of descendants that were refused something, in a copy of the head; those that ended of it in the order of
    /// their ends.
    #[cfg(any(feature = "alloc", not(feature = "shim")))]
    pub fn read_descendants(head: &[u8]) -> alloc::vec::Vec<Claims> {
        let pages = head.chunks_exact(RECORD_BYTES).skip(1).take(MOST_DESCENDANTS);
        let mut claims: alloc::vec::Vec<Claims> =
            pages.filter_map(|page| Claims::read(page.first_chunk::<RECORD_BYTES>()?)).collect();
        claims.sort_by_key(|claims| claims.order);
        claims
    }

    /// The same for the report's two forms.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            cause: self.cause,
            pid: self.pid,
            tid: self.tid,
            program: self.program.as_bytes(),
            thread: self.thread.as_bytes(),
            request: self.request,
            limit: self.limit,
            limit_source: self.limit_source,
            measure: self.measure,
            limit_refused: self.limit_refused,
            memory: self.memory,
            refusals: self.refusals,
            exit_code: self.exit_code,
            uptime_ms: self.uptime_ms,
            token: self.token.as_ref().map(Text::as_bytes),
            evidence: self.evidence,
            own_exit_code: self.own_exit_code,
            own_signal: self.own_signal,
            budget: self.budget,
            budget_used: self.budget_used,
            waited_ms: self.waited_ms,
            holders: &self.holders,
            inferred: self.inferred,
        }
    }
}

struct Copied<'a>(&'a [u8; RECORD_BYTES]);

impl Copied<'_> {
    fn word(&self, word: usize) -> u64 {
        let bytes = self.0.get(word * 8..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    fn number(&self, word: usize) -> Option<u64> {
        self.word(word).checked_sub(1)
    }

    fn open(&self) -> Option<Open> {
        let bytes = self.number(at::OPEN)?;
        let since = |now, before| self.word(now).saturating_sub(self.word(before));
        let said = message_from(self.word(at::SAID))
            .and_then(|said| Some((said, self.number(at::SAID_MS)?, since(at::BYTES, at::SAID_AT_BYTES))));
        Some(Open {
            cause: cause_from(self.word(at::OPEN_CAUSE)),
            bytes,
            since_ms: self.number(at::OPEN_SINCE_MS)?,
            allocations_since: since(at::ALLOCATIONS, at::ALLOCATIONS_BEFORE),
            bytes_since: since(at::BYTES, at::BYTES_BEFORE),
            said,
        })
    }

    fn loading(&self) -> Option<Loading> {
        Some(Loading { since_ms: self.number(at::BECOMING_MS)?, path: self.text(at::PATH)? })
    }

    fn small(&self, word: usize) -> Option<u32> {
        self.number(word).and_then(|number| u32::try_from(number).ok())
    }

    fn byte(&self, word: usize) -> Option<u8> {
        self.number(word).and_then(|number| u8::try_from(number).ok())
    }

    fn text<const N: usize>(&self, word: usize) -> Option<Text<N>> {
        let len = usize::try_from(self.number(word)?).unwrap_or(N).min(N);
        let start = (word + 1) * 8;
        self.0.get(start..start + len).map(Text::from_bytes)
    }
}

fn encode(number: Option<u64>) -> u64 {
    number.map_or(0, |number| number.saturating_add(1))
}

fn profile_code(state: ProfileState) -> u64 {
    match state {
        ProfileState::NotCompiledIn => 1,
        ProfileState::Off => 2,
        ProfileState::On => 3,
        ProfileState::Failed => 4,
    }
}

fn profile_from(code: u64) -> Option<ProfileState> {
    match code {
        1 => Some(ProfileState::NotCompiledIn),
        2 => Some(ProfileState::Off),
        3 => Some(ProfileState::On),
        4 => Some(ProfileState::Failed),
        _ => None,
    }
}

fn cause_code(cause: Cause) -> u64 {
    match cause {
        Cause::Heap => 1,
        Cause::Stack => 2,
        Cause::Thread => 3,
        Cause::Mapping => 4,
        Cause::Injected => 5,
        Cause::Resident => 6,
        Cause::AskedToLeave => 7,
    }
}

fn cause_from(code: u64) -> Cause {
    match code {
        2 => Cause::Stack,
        3 => Cause::Thread,
        4 => Cause::Mapping,
        5 => Cause::Injected,
        6 => Cause::Resident,
        7 => Cause::AskedToLeave,
        _ => Cause::Heap,
    }
}

fn source_from(code: u64) -> Option<LimitSource> {
    match code {
        1 => Some(LimitSource::Environment),
        2 => Some(LimitSource::Source),
        3 => Some(LimitSource::Cgroup),
        4 => Some(LimitSource::Rlimit),
        5 => Some(LimitSource::Budget),
        6 => Some(LimitSource::Changed),
        7 => Some(LimitSource::CommandLine),
        _ => None,
    }
}

fn evidence_code(evidence: Evidence) -> u64 {
    match evidence {
        Evidence::Exact => 1,
        Evidence::Fault => 2,
        Evidence::Said => 3,
        Evidence::Missing => 4,
        Evidence::Straight => 5,
        Evidence::Outside => 6,
    }
}

fn evidence_from(code: u64) -> Option<Evidence> {
    match code {
        1 => Some(Evidence::Exact),
        2 => Some(Evidence::Fault),
        3 => Some(Evidence::Said),
        4 => Some(Evidence::Missing),
        5 => Some(Evidence::Straight),
        6 => Some(Evidence::Outside),
        _ => None,
    }
}

const LOADING: u64 = 1;

fn message_code(message: Message) -> u64 {
    match message {
        Message::OutOfMemory => 1,
        Message::OtherDeath => 2,
        Message::Unrelated => 3,
    }
}

fn message_from(code: u64) -> Option<Message> {
    match code {
        1 => Some(Message::OutOfMemory),
        2 => Some(Message::OtherDeath),
        3 => Some(Message::Unrelated),
        _ => None,
    }
}

fn measure_from(code: u64) -> Measure {
    match code {
        2 => Measure::Data,
        3 => Measure::Resident,
        _ => Measure::AddressSpace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Page {
        Page { words: [const { AtomicU64::new(0) }; WORDS] }
    }

    fn copy(page: &Page) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        for (index, word) in page.words.iter().enumerate() {
            bytes[index * 8..][..8].copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes
    }

    fn armed<'a>() -> Armed<'a> {
        Armed {
            program: b"worker",
            token: Some(b"mine"),
            limit: Some(64 << 20),
            limit_source: Some(LimitSource::Environment),
            measure: Measure::Data,
            exit_code: 198,
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_c_header() {
        let header = include_str!("../../../include/oomguard.h");
        let number = |name: &str| -> u64 {
            let define = format!("#define OOMGUARD_{name} ");
            let rest =
                header.lines().find_map(|line| line.strip_prefix(&define)).expect("the header defines it");
            rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        assert_eq!(number("ADDRESS_SPACE"), Measure::AddressSpace.number().into());
        assert_eq!(number("DATA"), Measure::Data.number().into());
        assert_eq!(number("RESIDENT"), Measure::Resident.number().into());
        assert_eq!(number("SOURCE_ENVIRONMENT"), LimitSource::Environment.number().into());
        assert_eq!(number("SOURCE_SOURCE"), LimitSource::Source.number().into());
        assert_eq!(number("SOURCE_CGROUP"), LimitSource::Cgroup.number().into());
        assert_eq!(number("SOURCE_RLIMIT"), LimitSource::Rlimit.number().into());
        assert_eq!(number("SOURCE_BUDGET"), LimitSource::Budget.number().into());
        assert_eq!(number("SOURCE_CHANGED"), LimitSource::Changed.number().into());
        assert_eq!(source_from(number("SOURCE_NONE")), None);
    }

    #[test]
    fn what_the_child_writes_the_parent_reads() {
        let page = fresh();
        assert!(page.claim(7));
        assert!(!page.claim(8), "a second process took the record over");
        page.write_armed(&armed());
        let claims = Claims::read(&copy(&page)).unwrap();
        assert_eq!((claims.state, claims.pid, claims.exit_code), (State::Armed, 7, 198));
        assert_eq!(claims.program.as_bytes(), b"worker");

        page.write_refusal(Request { bytes: 4096, align: Some(16) }, 3);
        let claims = Claims::read(&copy(&page)).unwrap();
        assert_eq!((claims.refusals, claims.request), (3, Some(Request { bytes: 4096, align: Some(16) })));

        let mut last = claims.clone();
        last.cause = Cause::AskedToLeave;
        last.limit_source = Some(LimitSource::Changed);
        last.evidence = Some(Evidence::Straight);
        last.own_exit_code = Some(0);
        last.own_signal = Some(11);
        (last.budget, last.budget_used, last.waited_ms) = (Some(0), Some(1), Some(u64::MAX - 1));
        last.tid = 9;
        last.thread = Text::from_bytes(b"a thread of 15b");
        last.limit_refused = Some(false);
        last.memory.data = Some(u64::MAX - 1);
        page.write_last_words(&last.snapshot());
        let read = Claims::read(&copy(&page)).unwrap();
        assert_eq!((read.state, read.cause, read.tid), (State::Exhausted, Cause::AskedToLeave, 9));
        assert_eq!((read.limit_source, read.evidence), (last.limit_source, last.evidence));
        assert_eq!((read.own_exit_code, read.own_signal), (Some(0), Some(11)));
        assert_eq!((read.budget, read.budget_used, read.waited_ms), (Some(0), Some(1), Some(u64::MAX - 1)));
        assert_eq!(read.thread.as_bytes(), b"a thread of 15b");
        assert_eq!((read.limit_refused, read.memory.data), (Some(false), Some(u64::MAX - 1)));
        assert_eq!(read.token.unwrap().as_bytes(), b"mine");
    }

    #[test]
    fn a_failed_child_is_told_of_beyond_those_who_pass_its_end_on() {
        let head = Head { own: fresh(), descendants: std::array::from_fn(|_| fresh()) };
        let found = |status| Failed::read_all(&copy(&head.own)).find(|failed| failed.status == status);
        let exit = |code: i32| code << 8;
        let failed = |child, of, parent, status, at_ms| Failed { child, of, parent, above: 0, status, at_ms };
        assert_eq!(found(exit(2)), None);
        head.note_failed(10, 0, Child::Number(11), exit(2), 1);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(11), 10, 10, exit(2), 1)));
        // Its parent ends likewise: the child is the one.
        head.note_failed(9, 0, Child::Number(10), exit(2), 2);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(11), 10, 9, exit(2), 2)));
        // Another child that fails otherwise; another that fails likewise; and a parent that ends otherwise.
        head.note_failed(9, 0, Child::Number(13), libc::SIGKILL, 3);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(11), 10, 9, exit(2), 2)));
        head.note_failed(9, 0, Child::Number(12), exit(2), 4);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(12), 9, 9, exit(2), 4)));
        head.note_failed(8, 0, Child::Number(9), exit(1), 5);
        assert_eq!(found(exit(1)), Some(failed(Child::Number(9), 8, 8, exit(1), 5)));
        // By a shell.
        head.note_failed(8, 0, Child::Number(9), exit(128 + libc::SIGKILL), 6);
        let killed = exit(128 + libc::SIGKILL);
        assert_eq!(found(killed), Some(failed(Child::Number(13), 9, 8, killed, 6)));
        // The oldest gives way.
        (20..24).for_each(|code| head.note_failed(8, 0, Child::Number(9), exit(code), 7));
        assert_eq!(found(exit(1)), None);
        // Whose parent took longer has an end of its own.
        head.note_failed(7, 0, Child::Number(8), exit(23), 8 + PASSED_ON_MS);
        assert_eq!(found(exit(23)).map(|failed| failed.child), Some(Child::Number(8)));
        // A parent that has become another program has not failed of what came before.
        head.begin(7);
        assert_eq!(found(exit(23)), None);
        head.note_failed(7, 0, Child::Number(8), exit(23), 8 + PASSED_ON_MS);
        // One that nobody knows is none that was told of before; but of another's it may be.
        head.note_failed(7, 0, Child::DeadAfter(5), exit(24), 2000);
        assert_eq!(found(exit(24)).map(|failed| failed.child), Some(Child::DeadAfter(8 + PASSED_ON_MS)));
        head.note_failed(6, 0, Child::DeadAfter(5), exit(25), 2000);
        assert_eq!(found(exit(25)).map(|failed| failed.child), Some(Child::DeadAfter(5)));
        // It may pass on how a child of its own failed since it was started; but not if another process has started it.
        let passed_on = (Child::Number(31), 30);
        for (started_ms, above, child) in [
            (2000, 0, passed_on),
            (2000, 5, passed_on),
            (2000, 4, (Child::DeadAfter(2000), 5)),
            (2001, 5, (Child::DeadAfter(2001), 5)),
        ] {
            head.note_failed(30, above, Child::Number(31), exit(26), 2001);
            head.note_failed(5, 4, Child::DeadAfter(started_ms), exit(26), 2002);
            let found = found(exit(26)).map(|failed| (failed.child, failed.of));
            assert_eq!(found, Some(child), "{started_ms} {above}");
        }
    }

    #[test]
    fn an_end_is_passed_on_as_it_was_or_as_shells_say_it() {
        let exit = |code: i32| code << 8;
        const CORE: i32 = 0x80;
        for (status, childs, is_passed_on) in [
            (exit(2), exit(2), true),
            (exit(1), exit(2), false),
            (exit(139), libc::SIGSEGV, true),
            (exit(139), libc::SIGSEGV | CORE, true),
            (libc::SIGSEGV, libc::SIGSEGV | CORE, true),
            (libc::SIGABRT, libc::SIGSEGV, false),
            (exit(11), libc::SIGSEGV, false),
        ] {
            assert_eq!(passes_on(status, childs), is_passed_on, "{status:#x} {childs:#x}");
        }
    }

    #[test]
    fn the_variable_names_a_descriptor_and_what_it_must_be() {
        let inode = u64::MAX;
        let here = Place { pid: None, fd: 104, inode };
        assert_eq!(from_variable(variable_value(104, inode).as_bytes()), Some(here));
        let there = Place { pid: Some(7), ..here };
        assert_eq!(from_variable(variable_value_of(7, 104, inode).as_bytes()), Some(there));
        for wrong in [
            "",
            "fd:",
            "fd:1",
            "fd:1:",
            "fd::2",
            "1:2",
            "fd:-1:2",
            "fd:4294967296:2",
            "fd:1:2:3",
            "fd:1:2 ",
            "proc:1:2",
            "proc::1:2",
        ] {
            assert_eq!(from_variable(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_record_that_no_guard_filled_says_nothing() {
        assert!(Claims::read(&[0; RECORD_BYTES]).is_none());
        assert!(Claims::read(&copy(&fresh())).is_none());
        assert!(Claims::read(&[0xff; RECORD_BYTES]).is_none());
    }

    #[test]
    fn a_hostile_record_is_clamped_and_never_panics() {
        // xorshift: the same pages every time.
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..2000u64 {
            let page = fresh();
            page.write_armed(&armed());
            for word in 2..WORDS {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                page.store(word, if random & 3 == 0 { random % 70 } else { random });
            }
            page.store(at::STATE, 1 + round % 2);
            page.store(at::OWNER, 1 + round);
            page.store(at::EXIT_CODE, 199);
            page.store(at::PROGRAM, random | 1);
            let claims = Claims::read(&copy(&page)).unwrap();
            let mut record = Text::new();
            claims.snapshot().write_record(&mut record);
            assert!(!record.is_cut() && record.as_bytes().ends_with(b"}\n"));
            let mut lines = Text::new();
            claims.snapshot().write_lines(&mut lines);
            assert!(claims.program.len() <= PROGRAM_MAX_BYTES);
        }
    }
}
