//! Whether memory was refused to a worker that says nothing itself: the tracer's start, and what it found.

use super::deaths::may_be_death;
use super::findings::{
    FALLEN_AT, FALLEN_MS, FALLEN_PARENT, FELL_MS, FINDINGS_BYTES, HOLDER_WORDS, LIMIT_NOW, NOTES_AT, OWN_AT,
};
use super::joining::{self, JOINED, JoinResult, Joining};
use super::sys;
use super::sys::join::Step;
use super::terms::Terms;
use super::tracer::{self, Tracer};
use crate::contract::{EXIT_OUT_OF_MEMORY, Evidence, LimitSource, Measure};
use crate::record::PASSED_ON_MS;
use crate::record::{Claims, RECORD_BYTES, State, may_be, passes_on};
use crate::text::Text;
use oomguard_core::report::{HOLDERS, Holder};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Whether to find out from outside if a worker without a guard was refused memory before it died.
///
/// The worker and its descendants are followed by ptrace(2), and stopped by a seccomp(2) filter at nothing but the
/// calls that map memory: mmap, mremap, mprotect to writable, brk. After a refusal, the thread that met it is stopped
/// at each of its calls as well, for a second of its processor time. A death that a refusal by the limit led to, and
/// that nothing made good, is then [`Outcome::OutOfMemory`](super::Outcome::OutOfMemory) with a report that [is
/// inferred](super::Report::is_inferred).
///
/// What it costs and changes: one more process, forked from this one, for as long as the worker and its descendants
/// live, which are killed if it is; two stops for each call that maps memory and one for each thread's end; no
/// other tracer (gdb, strace) can attach; and set-user-ID programs that the worker starts run without their
/// privilege. Where the kernel or the container does not allow it, the worker is started without:
/// [`Running::is_inferring`](super::Running::is_inferring), [`can_infer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InferRefusals {
    /// No.
    #[default]
    Never,
    /// Only for a program that nothing can be preloaded into (LD_PRELOAD, ld.so(8)): a static one, or one for another
    /// C library than this program's. Not for a program with more privileges than ours, which it would lose.
    WhereNothingPreloads,
    /// For every program. What a guarded program says itself counts for more.
    Always,
}

/// A tracer for one worker.
pub(super) struct Inference {
    tracer: Process,
    findings: File,
    /// Where the child says what came of it.
    joined: Option<PipeReader>,
    childs_ends: Option<(UnixStream, PipeWriter)>,
    /// The numbers of the descendant that it is for, where it is not for the worker: one in each PID namespace.
    descendant: Vec<u32>,
    /// The first process of the PID namespace that it is in, where that is not the supervisor's, and who has started it.
    namespace: Option<(u32, u32)>,
    is_inferring: bool,
}

impl Inference {
    /// Starts the tracer, which waits for a child to join.
    pub(super) fn start(terms: Terms) -> io::Result<Inference> {
        sweep();
        let (childs, tracers) = UnixStream::pair()?;
        let (joined, result) = io::pipe()?;
        let findings = sys::memfd::create_sealed(c"oomguard-record", FINDINGS_BYTES)?;
        let mut tracer = Tracer::new(terms);
        let (socket, pages) = (tracers.as_raw_fd(), findings.as_raw_fd());
        let pid = tracer::start(&mut tracer, socket, pages, None)?;
        Ok(Inference {
            tracer: Process(pid),
            findings: File::from(findings),
            joined: Some(joined),
            childs_ends: Some((childs, result)),
            descendant: Vec::new(),
            namespace: None,
            is_inferring: false,
        })
    }

    /// Starts a tracer for process `pid`, a descendant, which waits for it at the other end of `stream`.
    pub(super) fn follow(mut stream: UnixStream, pid: u32, terms: Terms) -> io::Result<Inference> {
        sweep();
        let findings = sys::memfd::create_sealed(c"oomguard-record", FINDINGS_BYTES)?;
        let mut tracer = Tracer::new(terms);
        let (socket, pages) = (stream.as_raw_fd(), findings.as_raw_fd());
        let tracer = tracer::start(&mut tracer, socket, pages, Some(pid))?;
        let inference = Inference {
            tracer: Process(tracer),
            findings: File::from(findings),
            joined: None,
            childs_ends: None,
            descendant: numbers_of(pid),
            namespace: namespace_of(pid),
            is_inferring: true,
        };
        stream.write_all(&tracer.to_ne_bytes())?;
        Ok(inference)
    }

    pub(super) fn joining(&self) -> Option<Joining> {
        let (socket, result) = self.childs_ends.as_ref()?;
        Some(Joining { socket: socket.as_raw_fd(), result: result.as_raw_fd(), tracer: self.tracer.0 })
    }

    /// The child runs its program by now: whether it is followed, and what was in the way.
    pub(super) fn conclude_joining(&mut self) -> io::Result<()> {
        self.childs_ends = None;
        let mut result = JOINED;
        let Some(joined) = &mut self.joined else { return Ok(()) };
        joined.read_exact(&mut result)?;
        self.is_inferring = result == JOINED;
        if self.is_inferring { Ok(()) } else { Err(explain(result)) }
    }

    pub(super) fn is_inferring(&self) -> bool {
        self.is_inferring
    }

    /// How often a call was stopped at.
    pub(super) fn stops(&self) -> u64 {
        self.note(1)
    }

    /// Whether it is for process `pid`, a descendant, as somebody calls it.
    pub(super) fn is_for(&self, pid: u32) -> bool {
        self.descendant.contains(&pid)
    }

    /// The first process of the PID namespace that it is in, where that is another one, and who has started it.
    pub(super) fn namespace(&self) -> Option<(u32, u32)> {
        self.namespace
    }

    /// Whether the one that last died of what it was refused, or one that passed that on, was a child of process `parent` and
    /// came to its end after this moment.
    pub(super) fn has_fallen_after(&self, ms: u64, parent: u32) -> bool {
        let is_its = || u32::try_from(self.note(FALLEN_PARENT)).is_ok_and(|pid| may_be(pid, parent));
        self.fallen_status().is_some() && self.note(FELL_MS) > ms && is_its()
    }

    /// Why the worker died, which has been reaped, if memory that it was refused was the cause: its own refusal, or
    /// that of a descendant whose end it passed on.
    pub(super) fn verdict(&self, status: ExitStatus, at_ms: u64) -> Option<Claims> {
        if !self.is_inferring || !may_be_death(status.into_raw()) {
            return None;
        }
        self.claims(OWN_AT, status).or_else(|| self.verdict_of_descendant(status, at_ms))
    }

    /// The same of a worker that is not followed itself.
    pub(super) fn verdict_of_descendant(&self, status: ExitStatus, at_ms: u64) -> Option<Claims> {
        let fallen = self.fallen_status()?;
        let is_at_once = at_ms.saturating_sub(self.note(FALLEN_MS)) <= PASSED_ON_MS;
        let is_passed_on = is_at_once && passes_on(status.into_raw(), fallen.into_raw());
        is_passed_on.then(|| self.claims(FALLEN_AT, fallen))?
    }

    /// The one that last died of what it was refused, below the one that is followed.
    pub(super) fn fallen(&self) -> Option<Claims> {
        self.claims(FALLEN_AT, self.fallen_status()?)
    }

    fn fallen_status(&self) -> Option<ExitStatus> {
        self.wait_for_the_last_word();
        Some(ExitStatus::from_raw(i32::try_from(self.note(0).checked_sub(1)?).ok()?))
    }

    /// The tracer learns of an end first, and may still be about to write it down. It ends when nobody is left to
    /// follow.
    fn wait_for_the_last_word(&self) {
        const PATIENCE_MS: u32 = 20;
        for _ in 0..PATIENCE_MS {
            if self.note(0) != 0
                || !sys::child::is_alive(self.tracer.0)
                || sys::child::is_zombie(self.tracer.0)
            {
                return;
            }
            sys::clock::sleep_ms(1);
        }
    }

    /// What the worker was refused, whether it got over it or not.
    pub(super) fn refused(&self) -> Option<Claims> {
        let mut copy = [0; RECORD_BYTES];
        self.findings.read_exact_at(&mut copy, OWN_AT as u64).ok()?;
        Claims::read(&copy)
    }

    /// What was seen of a process that ended so.
    fn claims(&self, at: usize, end: ExitStatus) -> Option<Claims> {
        let mut copy = [0; RECORD_BYTES];
        self.findings.read_exact_at(&mut copy, at as u64).ok()?;
        let claims = Claims::read(&copy).filter(|claims| claims.state == State::Exhausted)?;
        let small = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
        Some(Claims {
            holders: self.holders(),
            inferred: true,
            evidence: Some(Evidence::Outside),
            own_exit_code: small(end.code()),
            own_signal: small(end.signal()),
            ..claims
        })
    }

    /// Who held most of the budget when it last had no room.
    fn holders(&self) -> [Option<Holder>; HOLDERS] {
        const FIRST_NOTE: usize = 2;
        std::array::from_fn(|place| {
            let words: [u64; HOLDER_WORDS] =
                std::array::from_fn(|word| self.note(FIRST_NOTE + place * HOLDER_WORDS + word));
            let [pid, bytes, name @ ..] = words;
            let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
            let name = name.map(u64::to_ne_bytes).concat();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(Holder { pid, name: Text::from_bytes(name), bytes })
        })
    }

    /// The limit on what is resident is another one now.
    pub(super) fn set_limit(&self, bytes: u64) -> io::Result<()> {
        self.findings.write_all_at(&bytes.saturating_add(1).to_ne_bytes(), (NOTES_AT + 8 * LIMIT_NOW) as u64)
    }

    fn note(&self, index: usize) -> u64 {
        let mut word = [0; 8];
        let read = self.findings.read_exact_at(&mut word, (NOTES_AT + 8 * index) as u64);
        read.map_or(0, |()| u64::from_ne_bytes(word))
    }
}

/// What process `pid` is called in each PID namespace that it is in: NSpid in proc_pid_status(5).
fn numbers_of(pid: u32) -> Vec<u32> {
    let status = std::fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
    let numbers = numbers.unwrap_or_default().split(u8::is_ascii_whitespace);
    let number = |text| u32::try_from(crate::text::whole_number(text)?).ok();
    std::iter::once(pid).chain(numbers.filter_map(number)).collect()
}

/// The ancestor of process `pid` that is the first one in its PID namespace, and the parent of that.
fn namespace_of(pid: u32) -> Option<(u32, u32)> {
    const MOST: usize = 1000;
    let own = numbers_of(pid).len();
    // Its own number, as this process has it, and once more.
    if own <= 2 {
        return None;
    }
    let above = |(_, parent): &(u32, u32)| Some((*parent, sys::proc::parent_of(*parent)?));
    std::iter::successors(above(&(0, pid)), above)
        .take(MOST)
        .find(|(_, parent)| numbers_of(*parent).len() < own)
}

fn explain([step, error]: JoinResult) -> io::Error {
    let error = io::Error::from_raw_os_error(i32::from(error));
    let what = match step {
        step if step == Step::Seize as u8 => {
            "ptrace(2) was refused, by the container's seccomp profile or Yama"
        }
        step if step == Step::Filter as u8 => {
            "seccomp(2) was refused, by the container's seccomp profile or the kernel"
        }
        _ => "the tracer did not answer",
    };
    io::Error::new(error.kind(), format!("refusals cannot be inferred here: {what}: {error}"))
}

/// Returns whether [`InferRefusals`] would work here and now, found out by trying it on a process of our own.
///
/// # Errors
/// What is in the way, in words: no permission for ptrace(2) or seccomp(2), an architecture that is not known.
pub fn can_infer() -> io::Result<()> {
    let terms = Terms {
        measure: Measure::default(),
        resident_limit: None,
        budget: None,
        exit_code: EXIT_OUT_OF_MEMORY,
        token: None,
        source: LimitSource::Environment,
        no_memory: Text::new(),
        numbers: process_numbers(),
    };
    let mut inference = Inference::start(terms)?;
    let joining = inference.joining().ok_or(io::ErrorKind::Other)?;
    let _trial = Process(joining::start_trial(joining)?);
    inference.conclude_joining()
}

/// A tracer's process, which nobody else can wait for.
struct Process(u32);

/// Those that were still there when their worker was dead: for a moment as a rule, and for as long as what it left
/// behind lives. The next start reaps those that have ended.
static LEFT: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn sweep() {
    LEFT.lock().retain(|pid| !sys::trace::reap_unseen(*pid));
}

impl Drop for Process {
    fn drop(&mut self) {
        LEFT.lock().push(self.0);
        sweep();
    }
}

/// Process numbers are below this.
pub(super) fn process_numbers() -> usize {
    const MOST: usize = 1 << 22;
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    text.trim().parse().map_or(MOST, |most: usize| most.clamp(1 << 15, MOST) + 1)
}
