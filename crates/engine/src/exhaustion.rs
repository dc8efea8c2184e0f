//! From a refusal not survived to `_exit`: the report and the last words, in the one thread that gets to speak.

use super::armed::{Armed, ReportTarget};
use super::callbacks::EXHAUSTED;
use super::standing::{self, REPORT_DEADLINE_MS, Standing};
use super::{filter, lease, profile, record, refused, reserve, resident, std_line, watchdog, written};
use core::cell::UnsafeCell;
use oomguard_core::contract::{
    Cause, Evidence, LAST_WORDS_DEADLINE_MS, LimitSource, Measure, REPORT_MAX_BYTES, TOKEN_MAX_BYTES,
};
use oomguard_core::record::Told;
use oomguard_core::report::{HOLDERS, Request, Snapshot};
use oomguard_core::sys;
use oomguard_core::sys::memory::{MemoryUse, Rlimit, rlimit};
use oomguard_core::text::{Text, until};

/// How long a reader of stderr is waited for, in milliseconds.
const STDERR_PATIENCE_MS: i32 = 200;

/// Why the process ends here, and how it would have ended without us.
#[derive(Clone, Copy)]
pub struct Verdict {
    pub cause: Cause,
    pub request: Option<Request>,
    pub evidence: Evidence,
    pub own: Own,
}

/// How the process would have ended without us.
#[derive(Clone, Copy)]
pub enum Own {
    Exit(u8),
    Signal(u8),
    Unknown,
}

impl Own {
    pub const ABORT: Own = Own::Signal(libc::SIGABRT as u8);

    fn exit_code(self) -> Option<u8> {
        if let Own::Exit(code) = self { Some(code) } else { None }
    }

    fn signal(self) -> Option<u8> {
        if let Own::Signal(signal) = self { Some(signal) } else { None }
    }
}

/// Ends the process, if the evidence is what its user wants: the report, the last words, `_exit`. Every thread may call it; one
/// gets to speak. Where it comes back, the program ends as it would without a guard, or goes on.
pub fn end(armed: &Armed, verdict: Verdict) {
    if suffices(armed, verdict) {
        end_for_certain(armed, verdict)
    }
}

/// The same on evidence that always suffices.
pub fn end_for_certain(armed: &Armed, verdict: Verdict) -> ! {
    say_last_words(armed, verdict);
    standing::exit(armed)
}

/// Whether the process may be ended on this evidence. Where not, whoever started it is told by the record.
pub fn suffices(armed: &Armed, verdict: Verdict) -> bool {
    let suffices = armed.sufficient.allows(Some(verdict.evidence));
    if !suffices {
        let may_ask = !filter::is_the_programs();
        let memory = if may_ask { sys::memory::memory_use() } else { MemoryUse::default() };
        let thread = if may_ask { sys::process::thread_name() } else { NO_NAME };
        let refused_by = refused_by(armed, &memory, verdict);
        record::note_doubt(&snapshot(
            armed,
            verdict,
            &thread,
            token(armed, &mut Text::new()),
            memory,
            refused_by,
        ));
    }
    suffices
}

const NO_NAME: [u8; 16] = *b"?\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The report and the last words, in the one thread that gets to speak; the others end here.
pub fn say_last_words(armed: &Armed, verdict: Verdict) {
    if !standing::win() {
        match standing::here() {
            // Out of memory again, inside the last words: all is said that could be.
            Standing::Dying => standing::exit(armed),
            _ => standing::park(armed),
        }
    }
    if filter::is_the_programs() {
        return tell_by_record_alone(armed, verdict);
    }
    std_line::forget();
    written::listen_closely();
    // A reader that has gone, or a file that may not grow, must not change the way we leave.
    sys::signals::block(libc::SIGPIPE);
    sys::signals::block(libc::SIGXFSZ);
    // Before anything that may take time, or fail.
    record::note_end(verdict.cause, verdict.request);
    lease::note_end();
    // SAFETY: only the winner comes here, once.
    unsafe { watchdog::start(REPORT_DEADLINE_MS) };
    // SAFETY: only the winner comes here, once; nobody else touches the workspace.
    let workspace = unsafe { &mut *WORKSPACE.0.get() };
    armed.settle_limit();
    let thread = sys::process::thread_name();
    let memory = MemoryUse { heap: profile::heap_use(), ..sys::memory::memory_use() };
    reserve::begin(armed, &memory);
    let refused_by = refused_by(armed, &memory, verdict);
    let token = token(armed, &mut workspace.token);
    let holders = lease::greatest::<HOLDERS>();
    lease::note_death(memory.held(), verdict.request.map(|request| request.bytes));
    let snapshot =
        Snapshot { holders: &holders, ..snapshot(armed, verdict, &thread, token, memory, refused_by) };
    record::note_last_words(&snapshot);
    let unwritten = write_report(armed, &snapshot, &mut workspace.report).err();
    let lines = write_lines(armed, &snapshot, unwritten, &mut workspace.lines);
    record::note_told(Told { lines, report: unwritten.is_none() && armed.report_is_parents, above: false });
    profile::note_end();
    profile::write_beside(&armed.report, &mut workspace.beside, REPORT_DEADLINE_MS as i32);
    if !EXHAUSTED.is_empty() {
        watchdog::extend(LAST_WORDS_DEADLINE_MS);
        if reserve::is_alone(&snapshot.memory) {
            reserve::lend_for_good(armed);
        } else {
            reserve::let_others_park();
            watchdog::extend(LAST_WORDS_DEADLINE_MS);
        }
        EXHAUSTED.run_all();
    }
}

/// What the report is built in: not on the stack, which may be a signal handler's of a few KiB.
struct Workspace {
    report: Text<REPORT_MAX_BYTES>,
    lines: Text<2048>,
    token: Text<TOKEN_MAX_BYTES>,
    /// The path of the profile's file.
    beside: Text<{ profile::BESIDE_MAX_BYTES }>,
}

struct WorkspaceCell(UnsafeCell<Workspace>);

// SAFETY: used by the one thread that `win` elects.
unsafe impl Sync for WorkspaceCell {}

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static WORKSPACE: WorkspaceCell = WorkspaceCell(UnsafeCell::new(Workspace {
    report: Text::new(),
    lines: Text::new(),
    token: Text::new(),
    beside: Text::new(),
}));

/// The program has set a filter that may kill it for a call that it does not make itself: nothing is opened or asked for.
/// Whoever gave it the record says the rest.
fn tell_by_record_alone(armed: &Armed, verdict: Verdict) {
    let refused_by = RefusedBy {
        measure: armed.measure,
        limit: armed.limit.bytes(),
        source: armed.limit.source(),
        had_no_room: verdict.request.map(|_| true),
    };
    record::note_last_words(&snapshot(
        armed,
        verdict,
        &NO_NAME,
        token(armed, &mut Text::new()),
        MemoryUse::default(),
        refused_by,
    ));
    record::note_told(Told { lines: false, report: false, above: false });
}

/// What the process is at, if it says so; else what its parent knows it by.
fn token<'a>(armed: &'a Armed, text: &'a mut Text<TOKEN_MAX_BYTES>) -> Option<&'a [u8]> {
    #[cfg(feature = "shim")]
    if let Some(task) = super::task::current(text) {
        return Some(task);
    }
    #[cfg(not(feature = "shim"))]
    let _ = text;
    armed.token.as_ref().map(Text::as_bytes)
}

fn snapshot<'a>(
    armed: &'a Armed,
    verdict: Verdict,
    thread: &'a [u8; 16],
    token: Option<&'a [u8]>,
    memory: MemoryUse,
    refused_by: RefusedBy,
) -> Snapshot<'a> {
    let Verdict { cause, request, evidence, own } = verdict;
    let (pid, tid) = (sys::process::pid(), sys::process::tid());
    let name = until(thread, 0);
    Snapshot {
        cause,
        pid,
        tid,
        program: armed.program.as_bytes(),
        // As Rust names it; the kernel calls it by the program's name.
        thread: if pid == tid { b"main" } else { name },
        request,
        limit: refused_by.limit,
        limit_source: refused_by.source,
        measure: refused_by.measure,
        limit_refused: refused_by.had_no_room,
        memory,
        refusals: refused::count(),
        exit_code: armed.exit_code,
        uptime_ms: sys::clock::monotonic_ms().saturating_sub(armed.started_ms),
        token,
        evidence: Some(evidence),
        own_exit_code: own.exit_code(),
        own_signal: own.signal(),
        budget: lease::budget(),
        budget_used: lease::used(),
        waited_ms: lease::waited_ms(),
        holders: &[],
        inferred: false,
    }
}

struct RefusedBy {
    measure: oomguard_core::contract::Measure,
    limit: Option<u64>,
    source: Option<LimitSource>,
    had_no_room: Option<bool>,
}

/// As below; or the budget, where others who share it had what was missing.
fn refused_by(armed: &Armed, memory: &MemoryUse, verdict: Verdict) -> RefusedBy {
    let refused_by = refused_by_limit(armed, memory, verdict.request);
    let is_refused = verdict.request.is_some() && lease::has_refused();
    if refused_by.measure == Measure::Resident && (is_refused || verdict.cause == Cause::AskedToLeave) {
        let limit = resident::limit(armed);
        return RefusedBy { limit, source: Some(LimitSource::Budget), had_no_room: Some(true), ..refused_by };
    }
    refused_by
}

/// The limit that was seen to refuse; where none was, the guard's own, unless it had plenty of room and an rlimit of the
/// other measure had not.
fn refused_by_limit(armed: &Armed, memory: &MemoryUse, request: Option<Request>) -> RefusedBy {
    if let Some(full) = refused::last_full().filter(|_| request.is_some()) {
        let then = Rlimit { soft: Some(full.limit), ..rlimit(full.measure.into()) };
        let held = match armed.limit_as_of(then) {
            Some(own) if full.measure == armed.measure => (own.bytes, own.source),
            _ if [armed.other_limit, armed.users_data_limit].contains(&Some(full.limit)) => {
                (full.limit, LimitSource::Rlimit)
            }
            _ => (full.limit, LimitSource::Changed),
        };
        let (measure, limit, source) = (full.measure, Some(held.0), Some(held.1));
        return RefusedBy { measure, limit, source, had_no_room: Some(true) };
    }
    let no_room = |measure, limit: Option<u64>| {
        // A program that gives its memory back before it ends was refused nearer to its peak.
        let (limit, in_use) = (limit?, memory.of(measure)?.max(memory.resident_peak.unwrap_or(0)));
        // Allocators ask for more than they were asked for, and others may have freed memory meanwhile.
        let wanted = request.map_or(0, |request| request.bytes).saturating_add((64 << 20).max(limit / 8));
        Some(limit.saturating_sub(in_use) < wanted)
    };
    let own = armed.limit_now();
    let own_limit = own.map(|own| own.bytes);
    let own_has_no_room = no_room(armed.measure, own_limit);
    let other = armed.measure.other();
    let other_limit = rlimit(other.into()).soft;
    if own_has_no_room != Some(true) && no_room(other, other_limit) == Some(true) {
        return RefusedBy {
            measure: other,
            limit: other_limit,
            source: Some(if other_limit == armed.other_limit {
                LimitSource::Rlimit
            } else {
                LimitSource::Changed
            }),
            had_no_room: Some(true),
        };
    }
    RefusedBy {
        measure: armed.measure,
        limit: own_limit,
        source: own.map(|own| own.source),
        had_no_room: request.and(own_has_no_room),
    }
}

/// Where that does not work, why: errno.
fn write_report(
    armed: &Armed,
    snapshot: &Snapshot<'_>,
    report: &mut Text<REPORT_MAX_BYTES>,
) -> Result<(), i32> {
    let write = |fd, report: &Text<REPORT_MAX_BYTES>| {
        let written = sys::fd::write_patiently(fd, report.as_bytes(), REPORT_DEADLINE_MS as i32);
        if written { Ok(()) } else { Err(sys::errno::errno()) }
    };
    match &armed.report {
        ReportTarget::Nowhere => Ok(()),
        ReportTarget::Descriptor(fd, id) => {
            snapshot.write_report(report);
            // The number may have been closed, and given to a file of the program's.
            if sys::fd::file_id(*fd) == Some(*id) { write(*fd, report) } else { Err(libc::EBADF) }
        }
        ReportTarget::File(path) => {
            snapshot.write_report(report);
            let file = sys::fd::open_to_append(path).or_else(|| {
                // No descriptor left: standard input will not be needed any more.
                sys::fd::close_number(libc::STDIN_FILENO);
                sys::fd::open_to_append(path)
            });
            match file {
                Some(file) => write(file.number(), report),
                None => Err(sys::errno::errno()),
            }
        }
    }
}

/// `unwritten`: why the report was not written. Whether the lines are, or nobody wants them.
fn write_lines(
    armed: &Armed,
    snapshot: &Snapshot<'_>,
    unwritten: Option<i32>,
    lines: &mut Text<2048>,
) -> bool {
    if armed.quiet {
        return true;
    }
    snapshot.write_lines(lines);
    if let Some(errno) = unwritten {
        push_unwritten(&armed.report, errno, lines);
    }
    sys::fd::write_patiently(libc::STDERR_FILENO, lines.as_bytes(), STDERR_PATIENCE_MS)
}

fn push_unwritten(target: &ReportTarget, errno: i32, lines: &mut Text<2048>) {
    /// A longer path is told by its end.
    const SHOWN_BYTES: usize = 400;
    lines.push("oomguard:   report: not written to ");
    match target {
        ReportTarget::Nowhere => {}
        ReportTarget::Descriptor(fd, _) => {
            lines.push("fd:");
            lines.push_number(u64::from(fd.unsigned_abs()));
        }
        ReportTarget::File(path) => {
            let path = path.to_bytes();
            let (cut, shown) = match path.len().checked_sub(SHOWN_BYTES).and_then(|cut| path.get(cut..)) {
                Some(end) => ("…", end),
                None => ("", path),
            };
            lines.push(cut);
            lines.push_foreign(shown);
        }
    }
    lines.push(": ");
    lines.push(match errno {
        libc::ENOENT => "no such directory any more",
        libc::EACCES | libc::EPERM => "permission denied",
        libc::EROFS => "read-only file system",
        libc::ENOSPC | libc::EDQUOT => "no space left",
        libc::EFBIG => "file too large",
        libc::EMFILE | libc::ENFILE => "too many open files",
        libc::EBADF => "not the file any more that it was at the start",
        libc::EPIPE | libc::ENXIO => "nobody has it open for reading",
        libc::ETIMEDOUT => "nobody reads it",
        _ => "cannot be written",
    });
    lines.push(" (errno ");
    lines.push_number(u64::from(errno.unsigned_abs()));
    lines.push(")\n");
}
