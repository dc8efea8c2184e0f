//! What a child says of itself, read from a copy of its page. Trusts nothing in it.

use super::codes::*;
use super::layout::*;
use super::page::{Armed, Page, Told};
use crate::contract::{Cause, Evidence, LimitSource, Measure, TOKEN_MAX_BYTES};
use crate::message::Message;
use crate::report::{HOLDERS, Holder, Request, Snapshot};
use crate::sys::memory::{HeapUse, MemoryUse};
use crate::text::Text;

/// How far the child got. Stored last, so that what a state promises is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The guard is set up: limit, source, measure and exit code are known.
    Armed,
    /// The process could not go on: cause, thread and request are known.
    Exhausted,
}

/// Why the guard of the process that filled this copy of a page could not be set up.
pub fn trouble(copy: &[u8; RECORD_BYTES]) -> Option<Text<TROUBLE_MAX_BYTES>> {
    let copy = Copied(copy);
    let is_one = copy.word(at::MAGIC) == MAGIC && copy.word(at::LAYOUT) == LAYOUT;
    if is_one && copy.word(at::STATE) == UNGUARDED { copy.text(at::TROUBLE) } else { None }
}

/// A program that its process had begun to load when it was last heard of.
#[derive(Clone, Copy)]
pub struct Loading {
    pub since_ms: u64,
    pub path: Text<PATH_MAX_BYTES>,
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
        let page = Page::blank();
        page.write_owner(0);
        page.write_armed(&Armed {
            program: b"?",
            token: None,
            limit: None,
            limit_source: Some(source),
            measure: Measure::Resident,
            exit_code,
        });
        Claims::read(&page.copy()).unwrap_or_else(|| unreachable!("what was written just now is a record"))
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
                told => Some(Told { lines: told & 2 != 0, report: told & 4 != 0, above: told & 8 != 0 }),
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

pub(super) struct Copied<'a>(pub(super) &'a [u8; RECORD_BYTES]);

impl Copied<'_> {
    pub(super) fn word(&self, word: usize) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_the_child_writes_the_parent_reads() {
        let page = Page::blank();
        assert!(page.claim(7));
        assert!(!page.claim(8), "a second process took the record over");
        page.write_armed(&armed());
        let claims = Claims::read(&page.copy()).unwrap();
        assert_eq!((claims.state, claims.pid, claims.exit_code), (State::Armed, 7, 198));
        assert_eq!(claims.program.as_bytes(), b"worker");

        page.write_refusal(Request { bytes: 4096, align: Some(16) }, 3);
        let claims = Claims::read(&page.copy()).unwrap();
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
        let read = Claims::read(&page.copy()).unwrap();
        assert_eq!((read.state, read.cause, read.tid), (State::Exhausted, Cause::AskedToLeave, 9));
        assert_eq!((read.limit_source, read.evidence), (last.limit_source, last.evidence));
        assert_eq!((read.own_exit_code, read.own_signal), (Some(0), Some(11)));
        assert_eq!((read.budget, read.budget_used, read.waited_ms), (Some(0), Some(1), Some(u64::MAX - 1)));
        assert_eq!(read.thread.as_bytes(), b"a thread of 15b");
        assert_eq!((read.limit_refused, read.memory.data), (Some(false), Some(u64::MAX - 1)));
        assert_eq!(read.token.unwrap().as_bytes(), b"mine");
    }

    #[test]
    fn a_record_that_no_guard_filled_says_nothing() {
        assert!(Claims::read(&[0; RECORD_BYTES]).is_none());
        assert!(Claims::read(&Page::blank().copy()).is_none());
        assert!(Claims::read(&[0xff; RECORD_BYTES]).is_none());
    }

    #[test]
    fn a_hostile_record_is_clamped_and_never_panics() {
        // xorshift: the same pages every time.
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..2000u64 {
            let page = Page::blank();
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
            let claims = Claims::read(&page.copy()).unwrap();
            let mut report = Text::new();
            claims.snapshot().write_report(&mut report);
            assert!(!report.is_cut() && report.as_bytes().ends_with(b"}\n"));
            let mut lines = Text::new();
            claims.snapshot().write_lines(&mut lines);
            assert!(claims.program.len() <= PROGRAM_MAX_BYTES);
        }
    }
}
