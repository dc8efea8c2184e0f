//! Whether memory was refused to a worker that says nothing itself: the tracer's start, and what it found.

use super::sys;
use super::sys::join::Step;
use super::tracer::{
    self, FALLEN_AT, FINDINGS_BYTES, HOLDER_WORDS, LIMIT_NOW, NOTES_AT, OWN_AT, Terms, Tracer,
};
use crate::contract::{EXIT_OUT_OF_MEMORY, Evidence, LimitSource, Measure};
use crate::record::{Claims, RECORD_BYTES, State};
use crate::report::{HOLDERS, Holder};
use crate::text::Text;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
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
    is_inferring: bool,
}

/// What the child needs between fork and exec.
#[derive(Clone, Copy)]
pub(super) struct Joining {
    pub(super) socket: RawFd,
    pub(super) result: RawFd,
    pub(super) tracer: u32,
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
        let mut result = [0; RESULT_BYTES];
        let Some(joined) = &mut self.joined else { return Ok(()) };
        joined.read_exact(&mut result)?;
        self.is_inferring = result == [0; RESULT_BYTES];
        if self.is_inferring { Ok(()) } else { Err(explain(result)) }
    }

    pub(super) fn is_inferring(&self) -> bool {
        self.is_inferring
    }

    /// How often a call was stopped at.
    pub(super) fn stops(&self) -> u64 {
        self.note(1)
    }

    /// Why the worker died, which has been reaped, if memory that it was refused was the cause: its own refusal, or
    /// that of a descendant whose end it passed on.
    pub(super) fn verdict(&self, status: ExitStatus) -> Option<Claims> {
        if !self.is_inferring || !tracer::is_death(status.into_raw()) {
            return None;
        }
        self.claims(OWN_AT, status).or_else(|| self.verdict_of_descendant(status))
    }

    /// The same of a worker that is not followed itself.
    pub(super) fn verdict_of_descendant(&self, status: ExitStatus) -> Option<Claims> {
        let fallen = self.fallen_status()?;
        passes_on(status, fallen).then(|| self.claims(FALLEN_AT, fallen))?
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
            sys::process::sleep_ms(1);
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

/// Whether a process that ended with `status` passed on the end of a child, as shells and wrappers do: the same status,
/// or 128 and the signal.
fn passes_on(status: ExitStatus, childs: ExitStatus) -> bool {
    status == childs
        || status.code().is_some_and(|code| childs.signal().is_some_and(|signal| code == 128 + signal))
}

const RESULT_BYTES: usize = 2;

/// In the child, between fork and exec: has it followed, and says what came of that; whether it is. Async-signal-safe.
pub(super) fn join(joining: Joining) -> bool {
    let result = match sys::join::join(joining.socket, joining.tracer) {
        Ok(()) => [0; RESULT_BYTES],
        Err((step, error)) => [step as u8, error as u8],
    };
    sys::fd::write_patiently(joining.result, &result, 0);
    result == [0; RESULT_BYTES]
}

fn explain([step, error]: [u8; RESULT_BYTES]) -> io::Error {
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
    let _trial = Process(tracer::start_trial(joining)?);
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
