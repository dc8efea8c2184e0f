//! The process that follows a worker and its descendants, stops them at the calls that map memory, and notes what was
//! refused. Everything else passes: signals are handed on, group stops are left alone.
//!
//! It is forked from the supervisor, and must be a process of its own: a tracer in the supervisor's process would have
//! its stops reported to every wait(2) there, and would take the worker along when the supervisor dies. So it follows
//! the rules for signal handlers: it neither allocates, locks nor panics. Unsafe code is allowed here, for the memory
//! that it shares with the supervisor.

use super::inference::{Joining, join};
use super::refusals::{Outcome, Refusals, enough};
use crate::contract::{Cause, LimitSource, Measure, TOKEN_MAX_BYTES};
use crate::record::{Armed, Page, RECORD_BYTES};
use crate::report::{Request, Snapshot};
use crate::sys;
use crate::sys::memory::{HeapUse, MemoryUse, Rlimit, rlimit, set_rlimit};
use crate::sys::trace::{Event, MappingCall};
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
pub(super) struct Terms {
    pub(super) measure: Measure,
    pub(super) exit_code: u8,
    pub(super) token: Option<Text<TOKEN_MAX_BYTES>>,
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
    /// When `facts` was gathered.
    at_ms: u64,
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
#[derive(Clone, Copy)]
#[repr(C)]
struct Call {
    /// Bytes asked for; or the end of the heap that was.
    value: u64,
    /// The process that the thread belongs to.
    process: u32,
    is_break: bool,
    is_writable: bool,
}

pub(super) struct Tracer {
    terms: Terms,
    worker: u32,
    started_ms: u64,
    troubled: [Option<Troubled>; MOST_PROCESSES],
    next: usize,
}

impl Tracer {
    pub(super) fn new(terms: Terms) -> Box<Tracer> {
        let started_ms = sys::process::monotonic_ms();
        Box::new(Tracer { terms, worker: 0, started_ms, troubled: [None; MOST_PROCESSES], next: 0 })
    }

    /// The life of the tracer: until nobody is left to follow.
    pub(super) fn run(&mut self, socket: RawFd, findings: RawFd) {
        sys::trace::withdraw(c"oomguard-tracer", [socket, findings]);
        lift_own_limits();
        if let (Some(findings), Some(calls)) = (map_findings(findings), map_calls(self.terms.numbers))
            && let Some(worker) = sys::trace::answer(socket)
        {
            self.worker = worker;
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
                    if call.note(tid) {
                        sys::trace::go_on_to_return(tid);
                    } else {
                        sys::trace::go_on(tid, 0);
                    }
                }
                Event::Returned => {
                    if let Some(result) = sys::trace::result_of(tid) {
                        self.judge_call(tid, call, result, findings);
                    }
                    sys::trace::go_on(tid, 0);
                }
                Event::Exec => {
                    // Its number is the process's from now on, whichever thread it was.
                    call.process = tid;
                    self.forget(tid, findings);
                    sys::trace::go_on(tid, 0);
                }
                Event::Gone(status) => {
                    call.process = 0;
                    self.note_death(tid, status, findings);
                }
                other => let_run(tid, other),
            }
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
        let (first, is_worker) = (self.terms.measure, call.process == self.worker);
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
                    self.arm(findings, &troubled.facts);
                }
            }
            Outcome::Refused { bytes, writable } => {
                // Thousands a second are met with; the figures of the same millisecond will do.
                if troubled.at_ms != now_ms || memory.is_some() {
                    troubled.at_ms = now_ms;
                    troubled.facts.memory = memory.unwrap_or_else(|| sys::memory::process_of(tid).1);
                }
                if !troubled.facts.explain(call.process, bytes, writable, first) {
                    return;
                }
                let new = !troubled.refusals.is_wanting() || troubled.facts.tid != tid;
                troubled.refusals.note_refused(tid, bytes, writable);
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
                *slot = Some(Troubled { pid, refusals: Refusals::default(), facts: Facts::new(), at_ms: 0 });
                free
            }
        };
        self.troubled.get_mut(index)?.as_mut()
    }

    /// Process `pid` runs another program, or is gone: what it was refused is over.
    fn forget(&mut self, pid: u32, findings: &Findings) -> Option<Troubled> {
        let is_it = |slot: &&mut Option<Troubled>| slot.as_ref().is_some_and(|troubled| troubled.pid == pid);
        let gone = self.troubled.iter_mut().find(is_it)?.take()?;
        if pid == self.worker {
            self.arm(findings, &gone.facts);
        }
        Some(gone)
    }

    fn note_death(&mut self, pid: u32, status: i32, findings: &Findings) {
        // The worker's own page says already what there is to say, and is read from now on.
        if pid == self.worker {
            return;
        }
        let Some(gone) = self.forget(pid, findings) else { return };
        if gone.refusals.is_wanting() && is_death(status) {
            self.write(&findings.fallen, &gone);
            // Relaxed, as all the page: it is read when the worker is dead, which this process sees first.
            findings.fallen_status.store(u64::from(status.cast_unsigned()) + 1, Ordering::Relaxed);
        }
    }

    fn arm(&self, findings: &Findings, facts: &Facts) {
        findings.own.write_armed(&self.armed(facts));
    }

    fn armed<'a>(&'a self, facts: &'a Facts) -> Armed<'a> {
        Armed {
            program: facts.program.as_bytes(),
            token: self.terms.token.as_ref().map(Text::as_bytes),
            limit: facts.limit,
            limit_source: Some(LimitSource::Environment),
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
            limit_source: Some(LimitSource::Environment),
            measure: facts.measure,
            limit_refused: Some(true),
            memory: facts.memory,
            refusals: troubled.refusals.count,
            exit_code: self.terms.exit_code,
            uptime_ms: sys::process::monotonic_ms().saturating_sub(self.started_ms),
            token: self.terms.token.as_ref().map(Text::as_bytes),
            inferred: true,
        });
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
                threads: None,
                heap: HeapUse { live: None, peak: None },
            },
        }
    }

    /// Whether one of the process's limits had no room for so much; which one is noted. The kernel has other reasons
    /// to say ENOMEM: an address that is not there, too many mappings, a whole system without memory.
    fn explain(&mut self, pid: u32, bytes: u64, writable: bool, first: Measure) -> bool {
        for measure in [first, first.other()] {
            let Some(limit) = sys::memory::soft_limit_of(pid, measure.into()) else { continue };
            // Other threads may have given some back since.
            let room = limit / 16;
            let is_full = self
                .memory
                .of(measure)
                .is_none_or(|used| used.saturating_add(bytes).saturating_add(room) > limit);
            if is_full && (writable || measure == Measure::AddressSpace) {
                (self.measure, self.limit) = (measure, Some(limit));
                return true;
            }
        }
        false
    }
}

impl Call {
    /// Notes what thread `tid` is about to ask for; whether that matters.
    fn note(&mut self, tid: u32) -> bool {
        match sys::trace::call_of(tid) {
            Some(MappingCall::Map { bytes, writable }) => {
                (self.value, self.is_writable, self.is_break) = (bytes, writable, false);
                bytes > 0
            }
            Some(MappingCall::Break { end }) => {
                (self.value, self.is_writable, self.is_break) = (end, true, true);
                true
            }
            None => false,
        }
    }
}

/// Starts a tracer in a process of its own.
pub(super) fn start(tracer: &mut Tracer, socket: RawFd, findings: RawFd) -> io::Result<u32> {
    // SAFETY: `run` makes system calls, touches atomics, mappings of its own and the memory it was given, which was
    // allocated before; and it has no way to panic.
    unsafe { sys::trace::start_unseen(|| tracer.run(socket, findings)) }.map_err(io::Error::from_raw_os_error)
}

/// Starts a process that joins, and ends.
pub(super) fn start_trial(joining: Joining) -> io::Result<u32> {
    // SAFETY: `join` is async-signal-safe.
    unsafe { sys::trace::start_unseen(|| join(joining)) }.map_err(io::Error::from_raw_os_error)
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
        return libc::WEXITSTATUS(status) != 0;
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
