//! The process that follows a worker and its descendants, stops them at the calls that map memory, and notes what was
//! refused. Everything else passes: signals are handed on, group stops are left alone. A thread that was refused something
//! is stopped at every system call for a while, as what it says and gives back bears on the verdict.
//!
//! It is forked from the supervisor, and must be a process of its own: a tracer in the supervisor's process would have
//! its stops reported to every wait(2) there, and would take the worker along when the supervisor dies. So it follows
//! the rules for signal handlers: it neither allocates, locks nor panics. Unsafe code is allowed here, for the memory
//! that it shares with the supervisor.

use super::inference::{Joining, join};
use super::refusals::{End, Moment, Outcome, Refusals, enough};
use super::room::{Answer, Room};
use crate::contract::{CODES_OF_SIGNALS, Cause, Evidence, LimitSource, Measure, TOKEN_MAX_BYTES};
use crate::record::{Armed, Page, RECORD_BYTES};
use crate::report::{Request, Snapshot};
use crate::shortage::Asked;
use crate::sys;
use crate::sys::locale::NO_MEMORY_BYTES;
use crate::sys::memory::{HeapUse, MemoryUse, Rlimit, rlimit, set_rlimit};
use crate::sys::trace::{CallStop, Event, MappingCall};
use crate::text::Text;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the supervisor reads when the worker is dead.
#[repr(C)]
pub(super) struct Findings {
    /// The worker itself.
    own: Page,
    /// The descendant that last died of what it was refused.
    fallen: Page,
    /// Its status, plus one.
    fallen_status: AtomicU64,
    stops: AtomicU64,
    rest: [u64; RECORD_BYTES / 8 - 2],
}

pub(super) const FINDINGS_BYTES: usize = size_of::<Findings>();
/// Where in the file each part lies.
pub(super) const OWN_AT: usize = 0;
pub(super) const FALLEN_AT: usize = RECORD_BYTES;
pub(super) const NOTES_AT: usize = 2 * RECORD_BYTES;

/// What the worker was started with.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) measure: Measure,
    /// The limit on what is resident, if that is the measure.
    pub(super) resident_limit: Option<u64>,
    pub(super) exit_code: u8,
    pub(super) token: Option<Text<TOKEN_MAX_BYTES>>,
    /// Who set its limit.
    pub(super) source: LimitSource,
    /// How the C library tells of ENOMEM in the user's language; empty in English.
    pub(super) no_memory: Text<NO_MEMORY_BYTES>,
    /// Process numbers are below this.
    pub(super) numbers: usize,
}

/// How many processes with refusals are kept in mind at once; the oldest gives way.
const MOST_PROCESSES: usize = 64;

/// A process that was refused something.
#[derive(Clone, Copy)]
struct Troubled {
    pid: u32,
    refusals: Refusals,
    facts: Facts,
    /// When `facts` was gathered, and the children's pages by then.
    at_ms: u64,
    childrens_pages: u64,
    /// It ends, and not of that.
    is_innocent: bool,
}

/// What the report will say.
#[derive(Clone, Copy)]
struct Facts {
    tid: u32,
    thread: Text<16>,
    program: Text<64>,
    bytes: u64,
    measure: Measure,
    limit: Option<u64>,
    memory: MemoryUse,
}

/// A thread, and the call that it is making. All zero: nothing is known.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Call {
    /// Bytes asked for; or the end of the heap that was.
    value: u64,
    /// The call's first argument.
    first: u64,
    /// The process that the thread belongs to.
    process: u32,
    is_break: bool,
    is_writable: bool,
    /// The call that it makes maps memory, and its result is waited for.
    is_noted: bool,
    /// How often it was made again since it was refused.
    tries: u32,
    /// The call that it makes gives so much memory back, and began when its process had used so much processor time.
    released: u64,
    began_ns: u64,
    /// The call that it makes reads something.
    reads: bool,
    /// It is stopped at every call.
    is_watched: bool,
}

pub(super) struct Tracer {
    terms: Terms,
    /// The worker; or the descendant that is followed.
    worker: u32,
    follows_descendant: bool,
    started_ms: u64,
    room: Option<Room>,
    troubled: [Option<Troubled>; MOST_PROCESSES],
    next: usize,
}

impl Tracer {
    pub(super) fn new(terms: Terms) -> Box<Tracer> {
        let started_ms = sys::process::monotonic_ms();
        let room = terms.resident_limit.map(Room::new);
        Box::new(Tracer {
            terms,
            room,
            worker: 0,
            follows_descendant: false,
            started_ms,
            troubled: [None; MOST_PROCESSES],
            next: 0,
        })
    }

    /// The life of the tracer: until nobody is left to follow. `descendant`: whom it is for, where that is not the worker.
    pub(super) fn run(&mut self, socket: RawFd, findings: RawFd, descendant: Option<u32>) {
        sys::trace::withdraw(c"oomguard-tracer", [socket, findings]);
        lift_own_limits();
        if let (Some(findings), Some(calls)) = (map_findings(findings), map_calls(self.terms.numbers))
            && let Some(followed) = sys::trace::answer(socket, descendant)
        {
            (self.worker, self.follows_descendant) = (followed, descendant.is_some());
            self.follow(findings, calls);
        }
    }

    fn follow(&mut self, findings: &Findings, calls: &mut [Call]) {
        while let Some((tid, event)) = sys::trace::wait_any() {
            // A number beyond the table has no slot of its own; it is let run, unseen.
            let Some(call) = calls.get_mut(tid as usize) else {
                let_run(tid, event);
                continue;
            };
            match event {
                Event::Call => {
                    // Relaxed: a number by itself.
                    findings.stops.fetch_add(1, Ordering::Relaxed);
                    call.is_noted = call.note(tid);
                    if call.is_noted {
                        sys::trace::go_on_to_call(tid, 0);
                    } else {
                        call.go_on(tid, 0);
                    }
                }
                Event::CallStop => {
                    self.stop_at_call(tid, call, findings);
                    call.go_on(tid, 0);
                }
                Event::Exec => {
                    // Its number is the process's from now on, whichever thread it was.
                    *call = Call { process: tid, ..Call::default() };
                    self.forget(tid, findings);
                    if let Some(room) = &self.room {
                        room.settle(tid);
                    }
                    call.go_on(tid, 0);
                }
                Event::Ending => {
                    self.judge_end(tid, call, findings);
                    sys::trace::go_on(tid, 0);
                }
                Event::Gone(status) => {
                    *call = Call::default();
                    self.note_death(tid, status, findings);
                }
                Event::Forked => {
                    self.note_forked(tid, call);
                    call.go_on(tid, 0);
                }
                Event::GroupStop => sys::trace::leave_stopped(tid),
                Event::Signal(signal) => call.go_on(tid, signal),
                Event::Other => call.go_on(tid, 0),
            }
        }
    }

    fn stop_at_call(&mut self, tid: u32, call: &mut Call, findings: &Findings) {
        let Some(stop) = sys::trace::call_stop_of(tid) else { return };
        if let CallStop::Returned(result) = stop {
            if call.is_noted {
                self.judge_call(tid, call, result, findings);
            } else if (call.released > 0 || call.reads)
                && let Some(troubled) = self.find(call.process, false)
            {
                if call.reads && result > 0 {
                    troubled.refusals.note_goes_on();
                }
                if call.released > 0 {
                    troubled.note_released(call.released, Some(call.began_ns));
                }
            }
            (call.is_noted, call.released, call.reads) = (false, 0, false);
            return;
        }
        let no_memory = self.terms.no_memory;
        let no_memory = no_memory.as_bytes();
        let troubled = self.find(call.process, false);
        let Some(troubled) = troubled.filter(|troubled| troubled.is_watched()) else {
            call.is_watched = false;
            return;
        };
        call.released = if let CallStop::Unmap { bytes } = stop { bytes } else { 0 };
        if call.released > 0 {
            call.began_ns = now_of(call.process).used_ns;
        }
        call.reads = stop == CallStop::Read;
        match stop {
            CallStop::Wait => troubled.refusals.note_goes_on(),
            CallStop::Write { fd, at, len } => troubled.hear(tid, fd, at, len, no_memory),
            CallStop::WriteParts { fd, parts, count } => {
                troubled.hear_parts(tid, fd, parts, count, no_memory);
            }
            _ => {}
        }
    }

    /// A thread of a process that may have been refused something has started another process.
    fn note_forked(&mut self, tid: u32, call: &Call) {
        if self.troubled.iter().all(Option::is_none) {
            return;
        }
        let process = if call.process == 0 { sys::memory::process_of(tid).0 } else { Some(call.process) };
        if let Some(troubled) = self.find(process.unwrap_or(tid), false) {
            troubled.refusals.note_forked(tid, now_of(troubled.pid));
        }
    }

    fn judge_call(&mut self, tid: u32, call: &mut Call, result: i64, findings: &Findings) {
        let failed = (-4095..0).contains(&result);
        let refused = if call.is_break {
            result >= 0 && result.cast_unsigned() < call.value
        } else {
            // EAGAIN would be about locked memory, which is another limit.
            result == -i64::from(libc::ENOMEM)
        };
        let tries = std::mem::take(&mut call.tries);
        if !refused && (failed || self.troubled.iter().all(Option::is_none)) {
            return;
        }
        let now_ms = sys::process::monotonic_ms();
        let mut memory = None;
        if call.process == 0 {
            let (process, found) = sys::memory::process_of(tid);
            call.process = process.unwrap_or(tid);
            memory = Some(found);
        }
        if refused && let Some(room) = &mut self.room {
            let bytes =
                if call.is_break { call.value.saturating_sub(result.cast_unsigned()) } else { call.value };
            let used = *memory.get_or_insert_with(|| sys::memory::process_of(tid).1);
            if call.is_writable
                && room.ask(call.process, &used, bytes, tries) == Answer::Again
                && sys::trace::make_call_again(tid, call.first)
            {
                call.tries = tries + 1;
                return;
            }
        }
        let (terms, is_worker) = (self.terms, call.process == self.worker);
        let Some(troubled) = self.find(call.process, refused) else { return };
        let outcome = match (call.is_break, refused) {
            (true, _) => troubled.refusals.of_break(call.value, result.cast_unsigned()),
            (false, true) => Outcome::Refused { bytes: call.value, writable: call.is_writable },
            (false, false) => Outcome::Mapped { bytes: call.value, writable: call.is_writable },
        };
        match outcome {
            Outcome::Mapped { bytes, writable } => {
                let before = troubled.refusals.is_wanting();
                let enough = enough(troubled.facts.limit.unwrap_or(u64::MAX));
                troubled.refusals.note_mapped(tid, bytes, writable, enough);
                let recovered = before && !troubled.refusals.is_wanting();
                if recovered && is_worker {
                    let troubled = *troubled;
                    self.arm(findings, &troubled);
                }
            }
            Outcome::Released { bytes } => troubled.note_released(bytes, None),
            Outcome::Refused { bytes, writable } => {
                // Thousands a second are met with; the figures of the same millisecond will do.
                if troubled.at_ms != now_ms || memory.is_some() {
                    troubled.at_ms = now_ms;
                    troubled.childrens_pages = sys::process::childrens_pages_of(call.process);
                    troubled.facts.memory = memory.unwrap_or_else(|| sys::memory::process_of(tid).1);
                }
                if !troubled.facts.explain(call.process, bytes, writable, &terms) {
                    return;
                }
                let new = !troubled.refusals.is_wanting() || troubled.facts.tid != tid;
                troubled.refusals.note_refused(tid, bytes, writable, now_of(call.process));
                call.is_watched = troubled.is_watched();
                if new || bytes > troubled.facts.bytes {
                    troubled.facts.bytes = bytes;
                }
                if new {
                    troubled.facts.tid = tid;
                    troubled.facts.thread = sys::process::name_of(tid);
                    troubled.facts.program = sys::process::program_of(call.process);
                }
                if is_worker {
                    let troubled = *troubled;
                    self.write(&findings.own, &troubled);
                }
            }
        }
    }

    /// The process's entry; made, where that is asked for.
    fn find(&mut self, pid: u32, make: bool) -> Option<&mut Troubled> {
        let is_it = |slot: &Option<Troubled>| slot.as_ref().is_some_and(|troubled| troubled.pid == pid);
        let index = match self.troubled.iter().position(is_it) {
            Some(index) => index,
            None if !make => return None,
            None => {
                let free = self.troubled.iter().position(Option::is_none).unwrap_or(self.next);
                self.next = (free + 1) % MOST_PROCESSES;
                let slot = self.troubled.get_mut(free)?;
                *slot = Some(Troubled::new(pid));
                free
            }
        };
        self.troubled.get_mut(index)?.as_mut()
    }

    /// A thread ends, and its process with it, if it is the last one. It still has its memory: whether it dies of what it
    /// was refused.
    fn judge_end(&mut self, tid: u32, call: &Call, findings: &Findings) {
        if self.troubled.iter().all(Option::is_none) {
            return;
        }
        let (process, memory) = sys::memory::process_of(tid);
        let pid = process.unwrap_or(call.process);
        let is_worker = pid == self.worker;
        let Some(troubled) = self.find(pid, false) else { return };
        let facts = &troubled.facts;
        let end = End {
            now: now_of(pid),
            limit: facts.limit.unwrap_or(u64::MAX),
            in_use: memory.of(facts.measure),
            has_waited_for_child: sys::process::childrens_pages_of(pid) > troubled.childrens_pages,
        };
        troubled.is_innocent = !troubled.refusals.are_fatal(end);
        if is_worker {
            let troubled = *troubled;
            if troubled.is_innocent {
                self.arm(findings, &troubled);
            } else {
                self.write(&findings.own, &troubled);
            }
        }
    }

    /// Process `pid` runs another program, or is gone: what it was refused is over.
    fn forget(&mut self, pid: u32, findings: &Findings) -> Option<Troubled> {
        let is_it = |slot: &&mut Option<Troubled>| slot.as_ref().is_some_and(|troubled| troubled.pid == pid);
        let gone = self.troubled.iter_mut().find(is_it)?.take()?;
        if pid == self.worker {
            self.arm(findings, &gone);
        }
        Some(gone)
    }

    fn note_death(&mut self, pid: u32, status: i32, findings: &Findings) {
        // The worker's own page says already what there is to say, and is read from now on. Of a descendant nobody else
        // tells how it ended.
        if pid == self.worker && !self.follows_descendant {
            return;
        }
        let Some(gone) = self.forget(pid, findings) else { return };
        if gone.refusals.is_wanting() && !gone.is_innocent && is_death(status) {
            self.write(&findings.fallen, &gone);
            // Relaxed, as all the page: it is read when the worker is dead, which this process sees first.
            findings.fallen_status.store(u64::from(status.cast_unsigned()) + 1, Ordering::Relaxed);
        }
    }

    /// What was refused is over; that it was is told.
    fn arm(&self, findings: &Findings, troubled: &Troubled) {
        findings.own.write_owner(troubled.pid);
        findings.own.write_armed(&self.armed(&troubled.facts));
        let request = Request { bytes: troubled.facts.bytes, align: None };
        findings.own.write_refusal(request, troubled.refusals.count);
    }

    fn armed<'a>(&'a self, facts: &'a Facts) -> Armed<'a> {
        Armed {
            program: facts.program.as_bytes(),
            token: self.terms.token.as_ref().map(Text::as_bytes),
            limit: facts.limit,
            limit_source: Some(self.terms.source),
            measure: facts.measure,
            exit_code: self.terms.exit_code,
        }
    }

    fn write(&self, page: &Page, troubled: &Troubled) {
        let facts = &troubled.facts;
        page.write_owner(troubled.pid);
        page.write_armed(&self.armed(facts));
        page.write_last_words(&Snapshot {
            cause: Cause::Mapping,
            pid: troubled.pid,
            tid: facts.tid,
            program: facts.program.as_bytes(),
            thread: facts.thread.as_bytes(),
            request: Some(Request { bytes: facts.bytes, align: None }),
            limit: facts.limit,
            limit_source: Some(self.terms.source),
            measure: facts.measure,
            limit_refused: Some(true),
            memory: facts.memory,
            refusals: troubled.refusals.count,
            exit_code: self.terms.exit_code,
            uptime_ms: sys::process::monotonic_ms().saturating_sub(self.started_ms),
            token: self.terms.token.as_ref().map(Text::as_bytes),
            evidence: Some(Evidence::Outside),
            // The parent knows, who reaps it.
            own_exit_code: None,
            own_signal: None,
            budget: None,
            budget_used: None,
            waited_ms: None,
            holders: &[],
            inferred: true,
        });
    }
}

impl Troubled {
    fn new(pid: u32) -> Troubled {
        Troubled {
            pid,
            refusals: Refusals::default(),
            facts: Facts::new(),
            at_ms: 0,
            childrens_pages: 0,
            is_innocent: false,
        }
    }

    /// Takes in what thread `tid` is about to say.
    fn hear(&mut self, tid: u32, fd: u64, at: u64, len: u64, no_memory: &[u8]) {
        const READ_BYTES: usize = 4096;
        let mut buffer = [0; READ_BYTES];
        let shown = usize::try_from(len).map_or(READ_BYTES, |len| len.min(READ_BYTES));
        let Some(buffer) = buffer.get_mut(..shown) else { return };
        let text = sys::trace::read_memory(tid, at, buffer);
        self.refusals.note_said(text, no_memory, fd == libc::STDERR_FILENO as u64, now_of(self.pid));
    }

    /// The same of `count` parts, of which `parts` is the table.
    fn hear_parts(&mut self, tid: u32, fd: u64, parts: u64, count: u64, no_memory: &[u8]) {
        const MOST_PARTS: u64 = 16;
        for index in 0..count.min(MOST_PARTS) {
            // struct iovec: an address and a length.
            let mut words = [0; 16];
            let words = sys::trace::read_memory(tid, parts.wrapping_add(16 * index), &mut words);
            let Some((at, len)) = words.split_first_chunk() else { return };
            let Some(len) = len.first_chunk() else { return };
            self.hear(tid, fd, u64::from_ne_bytes(*at), u64::from_ne_bytes(*len), no_memory);
        }
    }

    /// `began_ns`: how much processor time it had used when the call began, where that is known.
    fn note_released(&mut self, bytes: u64, began_ns: Option<u64>) {
        let limit = self.facts.limit.unwrap_or(u64::MAX);
        let now = now_of(self.pid);
        let took_ns = began_ns.map_or(0, |began_ns| now.used_ns.saturating_sub(began_ns));
        self.refusals.note_released(bytes, took_ns, now, limit);
    }

    fn is_watched(&self) -> bool {
        self.refusals.are_worth_watching(now_of(self.pid))
    }
}

impl Facts {
    const fn new() -> Facts {
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
        }
    }

    /// Whether one of the process's limits had no room for so much; which one is noted.
    fn explain(&mut self, pid: u32, bytes: u64, writable: bool, terms: &Terms) -> bool {
        // Which mappings are an allocator's cannot be seen from outside.
        let asked = Asked { bytes, writable, by_allocator: true };
        let first = terms.measure;
        let limit_of = |measure: Measure| match (first, measure) {
            (_, Measure::Resident) => terms.resident_limit,
            // What is moved as the program goes says nothing of data.
            (Measure::Resident, Measure::Data) => sys::memory::standing_limit_of(pid),
            _ => sys::memory::soft_limit_of(pid, measure.into()),
        };
        let Some(full) = asked.refused_by(first, limit_of, &self.memory) else { return false };
        (self.measure, self.limit) = (full.measure, Some(full.limit));
        true
    }
}

impl Call {
    /// Notes what thread `tid` is about to ask for; whether that matters.
    fn note(&mut self, tid: u32) -> bool {
        match sys::trace::call_of(tid) {
            Some(MappingCall::Map { bytes, writable, first }) => {
                (self.value, self.first, self.is_writable, self.is_break) = (bytes, first, writable, false);
                bytes > 0
            }
            Some(MappingCall::Break { end }) => {
                (self.value, self.first, self.is_writable, self.is_break) = (end, end, true, true);
                true
            }
            None => false,
        }
    }

    /// Lets the thread go on, to its next call if it is watched.
    fn go_on(&self, tid: u32, signal: i32) {
        if self.is_watched {
            sys::trace::go_on_to_call(tid, signal);
        } else {
            sys::trace::go_on(tid, signal);
        }
    }
}

/// The time, and the processor time that process `pid` has used.
fn now_of(pid: u32) -> Moment {
    Moment { used_ns: sys::process::processor_ns_of(pid).unwrap_or(0), at_ms: sys::process::monotonic_ms() }
}

/// Starts a tracer in a process of its own.
pub(super) fn start(
    tracer: &mut Tracer,
    socket: RawFd,
    findings: RawFd,
    descendant: Option<u32>,
) -> io::Result<u32> {
    // SAFETY: `run` makes system calls, touches atomics, mappings of its own and the memory it was given, which was
    // allocated before; and it has no way to panic.
    unsafe { sys::trace::start_unseen(|| tracer.run(socket, findings, descendant)) }
        .map_err(io::Error::from_raw_os_error)
}

/// Starts a process that joins, and ends.
pub(super) fn start_trial(joining: Joining) -> io::Result<u32> {
    // SAFETY: `join` is async-signal-safe.
    unsafe { sys::trace::start_unseen(|| _ = join(joining)) }.map_err(io::Error::from_raw_os_error)
}

/// Events that are not about memory.
fn let_run(tid: u32, event: Event) {
    match event {
        Event::GroupStop => sys::trace::leave_stopped(tid),
        Event::Signal(signal) => sys::trace::go_on(tid, signal),
        Event::Gone(_) => {}
        _ => sys::trace::go_on(tid, 0),
    }
}

/// Whether a status is that of a process which failed by itself: a non-zero exit code, or a signal that a program's own
/// fault or abort raises. Who is ended by SIGTERM or SIGKILL was ended by somebody.
pub(super) fn is_death(status: i32) -> bool {
    if libc::WIFEXITED(status) {
        let code = u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX);
        return code != 0 && !CODES_OF_SIGNALS.contains(&code);
    }
    matches!(
        libc::WTERMSIG(status),
        libc::SIGABRT
            | libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGFPE
            | libc::SIGSYS
    )
}

/// The supervisor may have a small soft limit of its own; this process is not what it is for.
fn lift_own_limits() {
    for measure in [Measure::AddressSpace, Measure::Data] {
        let hard = rlimit(measure.into()).hard;
        set_rlimit(measure.into(), Rlimit { soft: hard, hard });
    }
}

fn map_findings(fd: RawFd) -> Option<&'static Findings> {
    let at = sys::memfd::map_for_ever(fd, FINDINGS_BYTES)?;
    // SAFETY: page-aligned, as large as the type, never unmapped, and made of words that any bytes are valid for; what
    // both processes touch at the same time is atomic.
    Some(unsafe { &*at.cast::<Findings>() })
}

/// One slot for each process number there can be. Only the pages of those that are met take memory.
fn map_calls(numbers: usize) -> Option<&'static mut [Call]> {
    let at = sys::memory::map_zeros_for_ever(numbers.checked_mul(size_of::<Call>())?)?;
    // SAFETY: page-aligned zeros, which are a valid `Call`, never unmapped, and known to nobody else.
    Some(unsafe { std::slice::from_raw_parts_mut(at.cast::<Call>(), numbers) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const LIMIT: u64 = 1 << 30;

    /// Which limit explains that a process was refused so much, with so much in use by either measure.
    fn explained(used: u64, bytes: u64, writable: bool, first: Measure) -> Option<Measure> {
        // Ends when its input does.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: libc::RLIM_INFINITY };
        for resource in [libc::RLIMIT_AS, libc::RLIMIT_DATA] {
            // SAFETY: `limit` is readable during the call, and the old one is not asked for.
            let set = unsafe {
                libc::prlimit(child.id().cast_signed(), resource, &raw const limit, std::ptr::null_mut())
            };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        }
        let mut facts = Facts::new();
        (facts.memory.address_space, facts.memory.data) = (Some(used), Some(used));
        let terms = Terms {
            measure: first,
            resident_limit: None,
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
