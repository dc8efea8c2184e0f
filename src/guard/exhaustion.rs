//! From a refusal not survived to `_exit`: one thread wins, says what happened, and ends the process; the others wait
//! for that as soon as they need memory.
//!
//! ```text
//!              end()                 last words, exit()
//!   Alive ───────────────▶ Dying ───────────────────────▶ gone
//!     │  another thread's end()
//!     └──────────────────▶ Outlived ── park() ───────────▶ gone
//! ```

use super::armed::{Armed, ReportTarget, armed};
use super::callbacks::EXHAUSTED;
use super::limits::{lowered_to_keep_reserve, raised_for_last_words};
use super::real::{Real, call_real};
use super::{
    interpose, lease, onlooker, profile, record, refusal, resident, rust, std_line, verdict, watchdog,
};
use crate::contract::{
    Cause, Evidence, LAST_WORDS_DEADLINE_MS, LimitSource, Measure, REPORT_MAX_BYTES, TOKEN_MAX_BYTES,
};
use crate::record::Told;
use crate::report::{HOLDERS, Request, Snapshot};
use crate::sys;
use crate::sys::memory::{MemoryUse, Rlimit, rlimit, set_rlimit};
use crate::text::Text;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

/// How long the report may take to be written, in milliseconds.
const REPORT_DEADLINE_MS: u64 = 1000;

/// How long a reader of stderr is waited for, in milliseconds.
const STDERR_PATIENCE_MS: i32 = 200;

/// How long a parked thread waits for the end that another one promised, in milliseconds.
const PARK_DEADLINE_MS: u64 = REPORT_DEADLINE_MS + LAST_WORDS_DEADLINE_MS + 1000;

/// Who says the last words: process number and thread number; zero while nobody does. With the process number, so
/// that a child forked meanwhile does not take itself for its parent.
static WINNER: AtomicU64 = AtomicU64::new(0);

/// Where the calling thread stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody is dying.
    Alive,
    /// This thread is saying the last words.
    Dying,
    /// Another thread is.
    Outlived,
}

pub(super) fn standing() -> Standing {
    // Relaxed, here and below: the value alone decides; what the winner writes is read by nobody else.
    match WINNER.load(Ordering::Relaxed) {
        0 => Standing::Alive,
        winner if winner == sys::process::pid_and_tid() => Standing::Dying,
        winner if winner >> 32 == u64::from(sys::process::pid()) => Standing::Outlived,
        _ => Standing::Alive,
    }
}

/// Whether some thread of this process is saying the last words.
pub(super) fn is_under_way() -> bool {
    standing() != Standing::Alive
}

/// The same of process `pid`, this one, for a thread that is nobody's.
pub(super) fn is_anybody_dying(pid: u32) -> bool {
    WINNER.load(Ordering::Relaxed) >> 32 == u64::from(pid)
}

/// Why the process ends here, and how it would have ended without us.
#[derive(Clone, Copy)]
pub(super) struct Verdict {
    pub(super) cause: Cause,
    pub(super) request: Option<Request>,
    pub(super) evidence: Evidence,
    pub(super) own: Own,
}

/// How the process would have ended without us.
#[derive(Clone, Copy)]
pub(super) enum Own {
    Exit(u8),
    Signal(u8),
    Unknown,
}

impl Own {
    pub(super) const ABORT: Own = Own::Signal(libc::SIGABRT as u8);

    fn exit_code(self) -> Option<u8> {
        if let Own::Exit(code) = self { Some(code) } else { None }
    }

    fn signal(self) -> Option<u8> {
        if let Own::Signal(signal) = self { Some(signal) } else { None }
    }
}

/// Ends the process, if the evidence is what its user wants: the report, the last words, `_exit`. Every thread may call it; one
/// gets to speak. Where it comes back, the program ends as it would without a guard, or goes on.
pub(super) fn end(armed: &Armed, verdict: Verdict) {
    if suffices(armed, verdict) {
        end_for_certain(armed, verdict)
    }
}

/// The same on evidence that always suffices.
pub(super) fn end_for_certain(armed: &Armed, verdict: Verdict) -> ! {
    say_last_words(armed, verdict);
    exit(armed)
}

/// Whether the process may be ended on this evidence. Where not, whoever started it is told by the record.
pub(super) fn suffices(armed: &Armed, verdict: Verdict) -> bool {
    let suffices = armed.sufficient.allows(Some(verdict.evidence));
    if !suffices {
        let may_ask = !refusal::has_filter_of_its_own();
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
pub(super) fn say_last_words(armed: &Armed, verdict: Verdict) {
    if !win() {
        match standing() {
            // Out of memory again, inside the last words: all is said that could be.
            Standing::Dying => exit(armed),
            _ => park(armed),
        }
    }
    if refusal::has_filter_of_its_own() {
        return tell_by_record_alone(armed, verdict);
    }
    std_line::forget();
    interpose::listen(true);
    // A reader that has gone, or a file that may not grow, must not change the way we leave.
    sys::signals::block(libc::SIGPIPE);
    sys::signals::block(libc::SIGXFSZ);
    // Before anything that may take time, or fail.
    record::note_end(verdict.cause, verdict.request);
    // SAFETY: only the winner comes here, once.
    unsafe { watchdog::start(REPORT_DEADLINE_MS) };
    // SAFETY: only the winner comes here, once; nobody else touches the workspace.
    let workspace = unsafe { &mut *WORKSPACE.0.get() };
    armed.settle_limit();
    let thread = sys::process::thread_name();
    let memory = MemoryUse { heap: profile::heap_use(), ..sys::memory::memory_use() };
    let refused_by = refused_by(armed, &memory, verdict);
    let token = token(armed, &mut workspace.token);
    let holders = lease::greatest::<HOLDERS>();
    lease::note_death(memory.held(), verdict.request.map(|request| request.bytes));
    let snapshot =
        Snapshot { holders: &holders, ..snapshot(armed, verdict, &thread, token, memory, refused_by) };
    record::note_last_words(&snapshot);
    let unwritten = write_record(armed, &snapshot, &mut workspace.record).err();
    let lines = write_lines(armed, &snapshot, unwritten, &mut workspace.lines);
    record::note_told(Told { lines, record: unwritten.is_none() });
    profile::note_end();
    profile::write_beside(&armed.report, &mut workspace.beside, REPORT_DEADLINE_MS as i32);
    if !EXHAUSTED.is_empty() {
        watchdog::extend(LAST_WORDS_DEADLINE_MS);
        if is_alone(&snapshot.memory) {
            lend_for_good(armed);
        } else {
            let_others_park();
        }
        EXHAUSTED.run_all();
    }
}

/// Leaves with the reserved code.
pub(super) fn exit(armed: &Armed) -> ! {
    sys::process::exit_now(armed.exit_code)
}

/// How many threads are parked. Relaxed: a number that is watched, and orders nothing.
static PARKED: AtomicU64 = AtomicU64::new(0);

/// Waits for another thread to end the process.
pub(super) fn park(armed: &Armed) -> ! {
    PARKED.fetch_add(1, Ordering::Relaxed);
    let until = sys::process::monotonic_ms() + PARK_DEADLINE_MS;
    while sys::process::monotonic_ms() < until {
        sys::process::sleep_ms(PARK_DEADLINE_MS);
    }
    exit(armed)
}

/// Makes this thread the one that speaks, if nobody in this process is.
fn win() -> bool {
    let me = sys::process::pid_and_tid();
    let this_process = me >> 32;
    let claim = |winner: u64| if winner >> 32 == this_process { None } else { Some(me) };
    // Relaxed: as in `standing`.
    WINNER.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).is_ok()
}

/// What the report is built in: not on the stack, which may be a signal handler's of a few KiB.
struct Workspace {
    record: Text<REPORT_MAX_BYTES>,
    lines: Text<2048>,
    token: Text<TOKEN_MAX_BYTES>,
    /// The path of the profile's file.
    beside: Text<{ profile::BESIDE_MAX_BYTES }>,
}

struct WorkspaceCell(UnsafeCell<Workspace>);

// SAFETY: used by the one thread that `win` elects.
unsafe impl Sync for WorkspaceCell {}

static WORKSPACE: WorkspaceCell = WorkspaceCell(UnsafeCell::new(Workspace {
    record: Text::new(),
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
    record::note_told(Told { lines: false, record: false });
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
    let name = thread.split(|byte| *byte == 0).next().unwrap_or(thread);
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
        refusals: refusal::refused_count(),
        exit_code: armed.exit_code,
        uptime_ms: sys::process::monotonic_ms().saturating_sub(armed.started_ms),
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
    measure: crate::contract::Measure,
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
    if let Some(full) = refusal::last_full().filter(|_| request.is_some()) {
        let then = Rlimit { soft: Some(full.limit), ..rlimit(full.measure.into()) };
        let held = match armed.limit_as_of(then) {
            Some(own) if full.measure == armed.measure => (own.bytes, own.source),
            _ if Some(full.limit) == armed.other_limit => (full.limit, LimitSource::Rlimit),
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
fn write_record(
    armed: &Armed,
    snapshot: &Snapshot<'_>,
    record: &mut Text<REPORT_MAX_BYTES>,
) -> Result<(), i32> {
    let write = |fd, record: &Text<REPORT_MAX_BYTES>| {
        let written = sys::fd::write_patiently(fd, record.as_bytes(), REPORT_DEADLINE_MS as i32);
        if written { Ok(()) } else { Err(sys::fd::errno()) }
    };
    match &armed.report {
        ReportTarget::Nowhere => Ok(()),
        ReportTarget::Descriptor(fd, id) => {
            snapshot.write_record(record);
            // The number may have been closed, and given to a file of the program's.
            if sys::fd::file_id(*fd) == Some(*id) { write(*fd, record) } else { Err(libc::EBADF) }
        }
        ReportTarget::File(path) => {
            snapshot.write_record(record);
            let file = sys::fd::open_to_append(path).or_else(|| {
                // No descriptor left: standard input will not be needed any more.
                sys::fd::close_number(libc::STDIN_FILENO);
                sys::fd::open_to_append(path)
            });
            match file {
                Some(file) => write(file.number(), record),
                None => Err(sys::fd::errno()),
            }
        }
    }
}

/// `unwritten`: why the record was not written. Whether the lines are, or nobody wants them.
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

/// The rlimit with the reserve, and as it is now.
fn with_and_without_reserve(armed: &Armed) -> Option<(Rlimit, Rlimit)> {
    let now = rlimit(armed.measure.into());
    let limit = armed.limit_now()?.bytes;
    // Under the measure `resident` the rlimit may have fallen behind what is mapped.
    let limit = if armed.measure == Measure::Resident {
        now.soft?.max(sys::memory::memory_use().data.unwrap_or(0))
    } else {
        limit
    };
    let raised = raised_for_last_words(Some(limit), armed.reserve_bytes, now.hard)?;
    Some((Rlimit { soft: Some(raised), ..now }, now))
}

/// An allocation of the dying thread was refused: tries it again with the reserve. The limit is raised only for that
/// moment, as it is the whole process's: another thread that needs memory in between is refused, and parked.
pub(super) fn lend_reserve(armed: &Armed, again: &mut dyn FnMut() -> bool) -> bool {
    let Some((raised, kept)) = with_and_without_reserve(armed) else { return again() };
    set_rlimit(armed.measure.into(), raised);
    let worked = again();
    set_rlimit(armed.measure.into(), kept);
    worked
}

/// Whether there is no other thread that may want memory: two are this one and the watchdog.
fn is_alone(memory: &MemoryUse) -> bool {
    memory.threads.is_some_and(|threads| threads <= 2 + rust::idle_threads() + onlooker::threads())
}

/// With nobody else to eat it, the reserve is there for everything, the C library's own allocations included.
fn lend_for_good(armed: &Armed) {
    if let Some((raised, _)) = with_and_without_reserve(armed) {
        set_rlimit(armed.measure.into(), raised);
    }
}

/// Gives the threads that are eating the time to be refused, and parked, while there is nothing to be had: those that
/// meet the moment in which the reserve is lent would take their part of it.
fn let_others_park() {
    /// Nobody parked for so long: whoever is left does not need memory.
    const QUIET_MS: u32 = 10;
    const MOST_MS: u32 = 100;
    let mut parked = PARKED.load(Ordering::Relaxed);
    let mut quiet_ms = 0;
    for _ in 0..MOST_MS {
        sys::process::sleep_ms(1);
        let now = PARKED.load(Ordering::Relaxed);
        quiet_ms = if now == parked { quiet_ms + 1 } else { 0 };
        parked = now;
        if quiet_ms == QUIET_MS {
            return;
        }
    }
}

/// There are last words to be said: where the hard limit leaves no room above the soft one, makes room below it.
pub(super) fn keep_reserve() {
    let Some(armed) = armed() else { return };
    let now = rlimit(armed.measure.into());
    if let (Some(limit), Some(in_use)) = (armed.limit.bytes(), sys::memory::memory_use().of(armed.measure))
        && now.soft == Some(limit)
        && let Some(lowered) = lowered_to_keep_reserve(limit, armed.reserve_bytes, now.hard, in_use)
    {
        armed.limit.note_lowered(lowered);
        set_rlimit(armed.measure.into(), Rlimit { soft: Some(lowered), ..now });
    }
}

/// Has `exit(3)` ask us last, when the program's own handlers have run.
#[cfg(target_env = "gnu")]
pub(super) fn watch_exit() {
    unsafe extern "C" {
        // on_exit(3); its first 32 handlers need no allocation.
        fn on_exit(handler: extern "C" fn(i32, *mut libc::c_void), argument: *mut libc::c_void) -> i32;
    }
    extern "C" fn ask(code: i32, _: *mut libc::c_void) {
        let Some((armed, verdict)) = verdict_on_exit(Some(code)) else { return };
        say_last_words(armed, verdict);
        // What is left is to write out what C's streams hold, as far as somebody reads it.
        watchdog::extend(REPORT_DEADLINE_MS);
        // Called again from a handler, exit goes on where it was, with the new code: exit(3), as glibc has it.
        // SAFETY: only this thread is in exit.
        unsafe { libc::exit(i32::from(armed.exit_code)) }
    }
    // SAFETY: `ask` lives as long as the process and ignores its argument.
    unsafe { on_exit(ask, core::ptr::null_mut()) };
}

/// As above; musl tells a handler no exit code. In a static program its `exit` ends in our `_Exit`, which learns it.
#[cfg(not(target_env = "gnu"))]
pub(super) fn watch_exit() {
    extern "C" fn ask() {
        at_exit(None);
    }
    // SAFETY: `ask` lives as long as the process.
    unsafe { libc::atexit(ask) };
}

/// `_exit(2)` and `_Exit(3)`, as the program and its libraries call them.
#[cfg_attr(not(any(target_env = "gnu", target_feature = "crt-static")), allow(dead_code))]
pub(super) extern "C" fn exit_at_once(code: i32) -> ! {
    at_exit(Some(code));
    // A parent sees no more of it.
    sys::process::exit_now(code.cast_unsigned() as u8)
}

#[cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]
static QUICK_EXIT: Real = Real::new(c"quick_exit");

/// `quick_exit(3)`: whose handlers are told no code.
#[cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]
pub(super) extern "C" fn quick_exit(code: i32) -> ! {
    at_exit(Some(code));
    if let Some(real) = call_real!(QUICK_EXIT, extern "C" fn(i32) -> !) {
        real(code)
    }
    exit_at_once(code)
}

fn at_exit(code: Option<i32>) {
    if let Some((armed, verdict)) = verdict_on_exit(code) {
        end_for_certain(armed, verdict);
    }
}

fn verdict_on_exit(code: Option<i32>) -> Option<(&'static Armed, Verdict)> {
    let armed = armed()?;
    match standing() {
        Standing::Dying => exit(armed),
        Standing::Outlived => park(armed),
        Standing::Alive => {}
    }
    // What a parent sees of it. Where the code is not told, nothing is.
    let code = code.map_or(0, |code| code.cast_unsigned() as u8);
    let verdict = if code == 0 { None } else { verdict::of_exit(armed, code) };
    if verdict.is_none() {
        std_line::release();
        record::acquit();
    }
    verdict.filter(|verdict| suffices(armed, *verdict)).map(|verdict| (armed, verdict))
}
