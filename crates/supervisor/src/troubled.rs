//! A process that was refused something, as its tracer knows it. Like the tracer, it neither allocates, locks nor panics.

use super::refusals::{Moment, Refusals, is_for_system_log};
use super::sys;
use super::sys::memory::{HeapUse, MemoryUse, Mover, marked_standing, mover_of};
use super::terms::Terms;
use crate::contract::Measure;
use crate::message::drop_colours;
use crate::shortage::Asked;
use crate::text::{Text, place_of};

/// A process that was refused something.
#[derive(Clone, Copy)]
pub(super) struct Troubled {
    pub(super) pid: u32,
    pub(super) refusals: Refusals,
    pub(super) facts: Facts,
    /// When `facts` was gathered, and the children's pages by then.
    pub(super) at_ms: u64,
    pub(super) childrens_pages: u64,
    /// It ends, and not of that.
    pub(super) is_innocent: bool,
    /// Known once it ends.
    pub(super) parent: Option<u32>,
    pub(super) ending_ms: u64,
}

/// What the report will say.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) tid: u32,
    pub(super) thread: Text<16>,
    pub(super) program: Text<64>,
    pub(super) bytes: u64,
    pub(super) measure: Measure,
    pub(super) limit: Option<u64>,
    pub(super) memory: MemoryUse,
    /// It was the budget that had no room, for so long.
    pub(super) waited_ms: Option<u64>,
}

/// Whether the program that process `pid` runs has Rust's standard library in it: the name of the variable that std reads when it
/// panics.
pub(super) fn is_of_rust(pid: u32) -> bool {
    const NAME: &[u8] = b"RUST_BACKTRACE";
    let path = sys::proc::proc_path(pid, "exe");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes());
    let Some(file) = path.ok().and_then(sys::fd::open_to_read) else { return false };
    let (mut piece, mut from) = ([0; 16 << 10], 0);
    loop {
        let len = file.read_at(&mut piece, from);
        if place_of(piece.get(..len).unwrap_or(&[]), NAME).is_some() {
            return true;
        }
        if len < NAME.len() {
            return false;
        }
        // A name that this piece cuts off is in the next one.
        from += (len + 1 - NAME.len()) as u64;
    }
}

impl Troubled {
    pub(super) fn new(pid: u32) -> Troubled {
        Troubled {
            pid,
            refusals: Refusals::default(),
            facts: Facts::new(),
            at_ms: 0,
            childrens_pages: 0,
            is_innocent: false,
            parent: None,
            ending_ms: 0,
        }
    }

    /// Takes in what thread `tid` is about to say.
    pub(super) fn hear(&mut self, tid: u32, fd: u64, at: u64, len: u64, no_memory: &[u8]) {
        let on_stderr = fd == libc::STDERR_FILENO as u64;
        self.hear_if(tid, at, len, |_| true, no_memory, on_stderr);
    }

    /// The same of what it sends, if that is for the system's log, which is as good as stderr.
    pub(super) fn hear_sent(&mut self, tid: u32, at: u64, len: u64, no_memory: &[u8]) {
        self.hear_if(tid, at, len, is_for_system_log, no_memory, true);
    }

    fn hear_if(
        &mut self,
        tid: u32,
        at: u64,
        len: u64,
        is_heard: fn(&[u8]) -> bool,
        no_memory: &[u8],
        on_stderr: bool,
    ) {
        const READ_BYTES: usize = 4096;
        let mut buffer = [0; READ_BYTES];
        let shown = usize::try_from(len).map_or(READ_BYTES, |len| len.min(READ_BYTES));
        let Some(buffer) = buffer.get_mut(..shown) else { return };
        let len = sys::trace::read_memory(tid, at, buffer).len();
        let len = buffer.get_mut(..len).map_or(0, drop_colours);
        let text = buffer.get(..len).unwrap_or(&[]);
        if is_heard(text) {
            self.refusals.note_said(text, no_memory, on_stderr, now_of(self.pid));
        }
    }

    /// The same of `count` parts, of which `parts` is the table.
    pub(super) fn hear_parts(&mut self, tid: u32, fd: u64, parts: u64, count: u64, no_memory: &[u8]) {
        for index in 0..count.min(MOST_PARTS) {
            let Some((at, len)) = part_of(tid, parts, index) else { return };
            self.hear(tid, fd, at, len, no_memory);
        }
    }

    /// Takes in what thread `tid` has read, `len` bytes of it: to `at`, or to the first of `parts` parts, of which that is the table.
    pub(super) fn take_in(&mut self, tid: u32, at: u64, parts: u64, len: u64, no_memory: &[u8]) {
        const READ_BYTES: usize = 4096;
        let mut buffer = [0; READ_BYTES];
        let mut kept = 0;
        let mut left = len.min(READ_BYTES as u64);
        for index in 0..parts.clamp(1, MOST_PARTS) {
            let part = if parts == 0 { Some((at, left)) } else { part_of(tid, at, index) };
            let Some((at, most)) = part else { break };
            let Some(room) = buffer.get_mut(kept..kept + left.min(most) as usize) else { break };
            let got = sys::trace::read_memory(tid, at, room).len();
            (kept, left) = (kept + got, left - got as u64);
        }
        self.refusals.note_read(buffer.get(..kept).unwrap_or(&[]), no_memory);
    }

    /// `began_ns`: how much processor time it had used when the call began, where that is known.
    pub(super) fn note_released(&mut self, bytes: u64, began_ns: Option<u64>) {
        let limit = self.facts.limit.unwrap_or(u64::MAX);
        let now = now_of(self.pid);
        let took_ns = began_ns.map_or(0, |began_ns| now.used_ns.saturating_sub(began_ns));
        self.refusals.note_released(bytes, took_ns, now, limit);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.refusals.are_worth_watching(now_of(self.pid))
    }
}

const MOST_PARTS: u64 = 16;

/// A part of a table of them: where, and how long.
fn part_of(tid: u32, parts: u64, index: u64) -> Option<(u64, u64)> {
    // struct iovec: an address and a length.
    let mut words = [0; 16];
    let words = sys::trace::read_memory(tid, parts.wrapping_add(16 * index), &mut words);
    let (at, len) = words.split_first_chunk()?;
    Some((u64::from_ne_bytes(*at), u64::from_ne_bytes(*len.first_chunk()?)))
}

impl Facts {
    pub(super) const fn new() -> Facts {
        Facts {
            tid: 0,
            thread: Text::new(),
            program: Text::new(),
            bytes: 0,
            measure: Measure::AddressSpace,
            limit: None,
            memory: MemoryUse {
                address_space: None,
                data: None,
                resident: None,
                resident_peak: None,
                anonymous: None,
                shared: None,
                swapped: None,
                threads: None,
                heap: HeapUse { live: None, peak: None },
            },
            waited_ms: None,
        }
    }

    /// Whether one of the process's limits had no room for so much; which one is noted.
    pub(super) fn explain(&mut self, pid: u32, bytes: u64, writable: bool, terms: &Terms) -> bool {
        // Which mappings are an allocator's cannot be seen from outside.
        let asked = Asked { bytes, writable, by_allocator: true };
        let first = terms.measure;
        let limit_of = |measure: Measure| match (first, measure) {
            (_, Measure::Resident) => terms.resident_limit.filter(|limit| !has_another(pid, *limit)),
            // What is moved as the program goes says nothing of data.
            (Measure::Resident, Measure::Data) => sys::memory::standing_limit_of(pid),
            _ => sys::memory::soft_limit_of(pid, measure.into()),
        };
        let Some(full) = asked.refused_by(first, limit_of, &self.memory) else { return false };
        (self.measure, self.limit) = (full.measure, Some(full.limit));
        true
    }
}

/// Whether a program that nobody moves the limit of has another one than this: from an inner launcher.
pub(super) fn has_another(pid: u32, limit: u64) -> bool {
    let soft = sys::memory::soft_limit_on_data_of(pid);
    mover_of(soft) == Mover::Nobody && soft != Some(marked_standing(limit))
}

/// The time, and the processor time that process `pid` has used.
pub(super) fn now_of(pid: u32) -> Moment {
    Moment { used_ns: sys::proc::processor_ns_of(pid).unwrap_or(0), at_ms: sys::clock::monotonic_ms() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::LimitSource;
    use std::process::{Command, Stdio};

    const LIMIT: u64 = 1 << 30;

    /// Which limit explains that a process was refused so much, with so much in use by either measure.
    fn explained(used: u64, bytes: u64, writable: bool, first: Measure) -> Option<Measure> {
        // Ends when its input does.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        for resource in [Measure::AddressSpace.into(), Measure::Data.into()] {
            sys::memory::change_soft_limit(child.id(), resource, |_| Some(LIMIT)).unwrap();
        }
        let mut facts = Facts::new();
        (facts.memory.address_space, facts.memory.data) = (Some(used), Some(used));
        let terms = Terms {
            measure: first,
            resident_limit: None,
            budget: None,
            exit_code: 198,
            token: None,
            source: LimitSource::Environment,
            no_memory: Text::new(),
            numbers: 0,
        };
        let is_explained = facts.explain(child.id(), bytes, writable, &terms);
        drop(child.stdin.take());
        child.wait().unwrap();
        is_explained.then_some(facts.measure)
    }

    #[test]
    fn of_two_limits_that_are_reached_the_one_that_was_asked_for_is_told() {
        for measure in [Measure::AddressSpace, Measure::Data] {
            assert_eq!(explained(LIMIT / 2, LIMIT, true, measure), Some(measure));
        }
        assert_eq!(explained(LIMIT / 2, LIMIT, false, Measure::Data), Some(Measure::AddressSpace));
    }

    #[test]
    fn other_threads_may_have_given_a_little_back_since_the_refusal() {
        let bytes = 1 << 20;
        assert!(explained(LIMIT - bytes - LIMIT / 32, bytes, true, Measure::Data).is_some());
        assert_eq!(explained(LIMIT - bytes - LIMIT / 8, bytes, true, Measure::Data), None);
    }
}
