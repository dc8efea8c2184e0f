//! The page of one process, which that process fills.

use super::codes::{ProfileState, cause_code, evidence_code, message_code, profile_code};
use super::layout::*;
use crate::contract::{Cause, LimitSource, Measure};
use crate::message::Message;
use crate::report::{Request, Snapshot};
use crate::sys::memory::MemoryUse;
use core::sync::atomic::{AtomicU64, Ordering};

/// The page of one process, as that sees it.
#[repr(C)]
pub struct Page {
    pub(super) words: [AtomicU64; WORDS],
}

impl Page {
    /// One that nobody has written to.
    pub(super) fn blank() -> Page {
        Page { words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// What stands in it now.
    pub(super) fn copy(&self) -> [u8; RECORD_BYTES] {
        let mut copy = [0; RECORD_BYTES];
        for (bytes, word) in copy.chunks_exact_mut(8).zip(&self.words) {
            // Relaxed: nobody writes meanwhile.
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        copy
    }

    /// Makes `pid` the process that fills a page which others fill no more.
    pub(super) fn take_over(&self, pid: u32) -> bool {
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
        let Told { lines, report, above } = told;
        self.store(at::TOLD, 1 | u64::from(lines) << 1 | u64::from(report) << 2 | u64::from(above) << 3);
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

    pub(super) fn load(&self, word: usize) -> u64 {
        // Relaxed: what another process writes meanwhile is found or not.
        self.words.get(word).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    pub(super) fn store(&self, word: usize, value: u64) {
        if let Some(slot) = self.words.get(word) {
            // Relaxed: the parent reads when this process is dead, or takes what it finds.
            slot.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn store_state(&self, state: u64) {
        if let Some(slot) = self.words.get(at::STATE) {
            // Release: whoever sees the state sees what it promises; the parent's copy is made by the kernel.
            slot.store(state, Ordering::Release);
        }
    }
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

/// What a process has told of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The lines on stderr, or nobody wants them.
    pub lines: bool,
    /// The report, or nobody wants it.
    pub report: bool,
    /// The same for the launchers above the one whose page this is.
    pub above: bool,
}
