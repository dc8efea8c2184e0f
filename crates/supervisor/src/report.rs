//! What a guarded worker said of itself: read from the record, owned, and in the two forms of the contract.

use super::outer;
use super::profile::Profile;
use super::read_back::{self, ParseReportError};
use crate::contract::{Cause, Evidence, LimitSource, Measure, REPORT_MAX_BYTES};
use crate::record::{Claims, ProfileState, State};
use crate::text::Text;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Why and how a worker ran out of memory, as it said itself while it died.
///
/// `Display` is the lines that the worker wrote to its stderr, for people; [`to_json`](Report::to_json) is the line
/// for machines. Every value is the worker's own claim: bounded and well-formed, but not checked.
#[derive(Clone)]
pub struct Report {
    // Boxed, so that an outcome is small.
    claims: Box<Claims>,
    profile: Option<Arc<Profile>>,
}

/// How a guarded worker stood when it was last heard of, whatever it died of.
#[derive(Clone)]
pub struct LastLook {
    claims: Claims,
    profile: Option<Arc<Profile>>,
    /// What the profile was read from.
    tables: Option<Arc<[u8]>>,
}

/// Whether a worker's live allocations were sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profiling {
    /// The program has no profiler: it wants `guard!(profile = on)`, or `profile = off` to leave it to
    /// `OOMGUARD_PROFILE`.
    NotCompiledIn,
    /// The program has one, and was told not to use it.
    Off,
    /// They were.
    On,
    /// They should have been; there was no memory for it, or the kernel is older than 4.14.
    Failed,
}

impl Report {
    pub(crate) fn new(claims: Claims) -> Report {
        Report { claims: Box::new(claims), profile: None }
    }

    /// Tells a launcher above this process, if there is one. Where this process passes the exit code on, that is then
    /// [out of memory](super::Outcome::OutOfMemory) there, too, and tried again, if the launcher was told to.
    pub fn pass_on(&self) {
        let _ = outer::pass_on(&self.claims);
    }

    pub(super) fn attach_profile(&mut self, profile: Option<Arc<Profile>>) {
        self.profile = profile;
    }

    /// Returns which code held the memory. `None` where the worker was not [profiled](Profiling).
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// Returns whether the worker was profiled, and if not, why.
    pub fn profiling(&self) -> Option<Profiling> {
        profiling(&self.claims)
    }

    /// Returns what was refused.
    pub fn cause(&self) -> Cause {
        self.claims.cause
    }

    /// Returns the process's number, as it knows itself: another number than the parent's where there is a PID
    /// namespace between them, and another process where the worker is a wrapper that passed the exit code on.
    pub fn pid(&self) -> u32 {
        self.claims.pid
    }

    /// Returns the thread that could not go on.
    pub fn tid(&self) -> u32 {
        self.claims.tid
    }

    /// Returns the program's name without its directory: as it is, control characters included.
    /// [`printable`](super::printable) makes it fit for a terminal.
    pub fn program(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.claims.program.as_bytes())
    }

    /// Returns the thread's name, as it is.
    pub fn thread(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.claims.thread.as_bytes())
    }

    /// Returns the request that was refused, in bytes.
    pub fn requested(&self) -> Option<u64> {
        self.claims.request.map(|request| request.bytes)
    }

    /// Returns the alignment of that request, in bytes.
    pub fn align(&self) -> Option<u64> {
        self.claims.request.and_then(|request| request.align)
    }

    /// Returns the limit, in bytes.
    pub fn limit(&self) -> Option<u64> {
        self.claims.limit
    }

    /// Returns who set the limit, as the worker saw it; `environment` where a supervisor did.
    pub fn limit_source(&self) -> Option<LimitSource> {
        self.claims.limit_source
    }

    /// Returns what the limit counts.
    pub fn measure(&self) -> Measure {
        self.claims.measure
    }

    /// Returns the address space in use at the end, in bytes: `VmSize` in proc_pid_status(5).
    pub fn address_space(&self) -> Option<u64> {
        self.claims.memory.address_space
    }

    /// Returns the private writable memory in use at the end, in bytes: `VmData` in proc_pid_status(5).
    pub fn data(&self) -> Option<u64> {
        self.claims.memory.data
    }

    /// Returns the resident memory at the end, in bytes.
    pub fn resident(&self) -> Option<u64> {
        self.claims.memory.resident
    }

    /// Returns the most that was ever resident, in bytes.
    pub fn resident_peak(&self) -> Option<u64> {
        self.claims.memory.resident_peak
    }

    /// Returns how many requests were refused in all.
    pub fn refusals(&self) -> u64 {
        self.claims.refusals
    }

    /// Returns the exit code that the worker meant to end with.
    pub fn exit_code(&self) -> u8 {
        self.claims.exit_code
    }

    /// Returns why its end counts as running out of memory. `None`: a guard of another version did not say.
    pub fn evidence(&self) -> Option<Evidence> {
        self.claims.evidence
    }

    /// Returns the exit code that the worker would have ended with, had the guard not come first, where that is known.
    pub fn own_exit_code(&self) -> Option<u8> {
        self.claims.own_exit_code
    }

    /// Returns the signal that the worker would have been ended by, had the guard not come first, where that is known.
    pub fn own_signal(&self) -> Option<u8> {
        self.claims.own_signal
    }

    /// Returns how long the worker had been running.
    pub fn uptime(&self) -> Duration {
        Duration::from_millis(self.claims.uptime_ms)
    }

    /// Returns whether this was put together from outside, for a worker that has no guard: what its refused calls and
    /// its end were seen to be ([`InferRefusals`](super::InferRefusals)). The worker did not end with
    /// [`exit_code`](Report::exit_code) then, but in a way of its own: [`Ended::status`](super::Ended::status).
    pub fn is_inferred(&self) -> bool {
        self.claims.inferred
    }

    /// Returns whether the process has written the lines itself. It has not where the report is inferred, or where it
    /// had closed its stderr: a supervisor may want to say them then.
    pub fn has_told_lines(&self) -> bool {
        self.claims.told.is_some_and(|told| told.lines)
    }

    /// Returns whether the process has written the JSON line itself.
    pub fn has_told_record(&self) -> bool {
        self.claims.told.is_some_and(|told| told.report)
    }

    /// Returns whether a launcher below this one has written the JSON line for those above this one, too.
    pub fn has_told_record_above(&self) -> bool {
        self.claims.told.is_some_and(|told| told.above)
    }

    /// Returns the worker's token.
    pub fn token(&self) -> Option<Cow<'_, str>> {
        token(&self.claims)
    }

    /// Returns the report as JSON: one object on one line without a newline, with all keys of the report.
    pub fn to_json(&self) -> String {
        let mut line = Text::<REPORT_MAX_BYTES>::new();
        self.claims.snapshot().write_report(&mut line);
        String::from_utf8_lossy(line.as_bytes().trim_ascii_end()).into_owned()
    }

    /// The one line that a log wants.
    pub(super) fn summary(&self) -> String {
        let mut line = format!("{} (pid {}) was refused ", super::printable(&self.program()), self.pid());
        line += &match self.requested() {
            Some(bytes) => format!("{bytes} bytes"),
            None => "memory".into(),
        };
        if let Some(limit) = self.limit() {
            line += &format!(" at its limit of {} ({})", super::size(limit), self.measure().as_str());
        }
        line
    }
}

/// Reads the report: what [`to_json`](Report::to_json) gives, and what a process that ran out of memory writes where
/// `OOMGUARD_REPORT` says, one line for each.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// for line in std::fs::read_to_string("reports.jsonl")?.lines() {
///     let report: oomguard::supervisor::Report = line.parse()?;
///     println!("{} needed more than {:?} bytes", report.program(), report.limit());
/// }
/// # Ok(())
/// # }
/// ```
impl FromStr for Report {
    type Err = ParseReportError;

    fn from_str(line: &str) -> Result<Report, ParseReportError> {
        read_back::read(line)
    }
}

impl LastLook {
    pub(super) fn new(claims: Claims, profile: Option<(Arc<Profile>, Arc<[u8]>)>) -> LastLook {
        let (profile, tables) = profile.unzip();
        LastLook { claims, profile, tables }
    }

    /// Writes the [profile](LastLook::profile) as the worker left it, for
    /// [`Profile::read_file`](super::Profile::read_file) and `oomguard report`, here or elsewhere: 0.8 MiB. Nothing
    /// where there is none.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_profile(&self, mut to: impl io::Write) -> io::Result<()> {
        to.write_all(self.tables.as_deref().unwrap_or(&[]))
    }

    /// Returns which code held the memory when the worker died, whatever it died of. `None` where it was not
    /// [profiled](Profiling), and while it runs: [`Running::profile`](super::Running::profile) reads that.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// Returns whether the worker was profiled, and if not, why. `None`: a guard of another version.
    pub fn profiling(&self) -> Option<Profiling> {
        profiling(&self.claims)
    }

    /// Returns the process's number, as it knows itself.
    pub fn pid(&self) -> u32 {
        self.claims.pid
    }

    /// Returns the limit, in bytes.
    pub fn limit(&self) -> Option<u64> {
        self.claims.limit
    }

    /// Returns who set the limit.
    pub fn limit_source(&self) -> Option<LimitSource> {
        self.claims.limit_source
    }

    /// Returns what the limit counts.
    pub fn measure(&self) -> Measure {
        self.claims.measure
    }

    /// Returns what was in use of it, in bytes, when the worker last looked: when it called `oomguard::status`
    /// or ran out of memory.
    pub fn in_use(&self) -> Option<u64> {
        self.claims.memory.of(self.claims.measure)
    }

    /// Returns the most that had been resident until then, in bytes.
    pub fn resident_peak(&self) -> Option<u64> {
        self.claims.memory.resident_peak
    }

    /// Returns how many requests had been refused.
    pub fn refusals(&self) -> u64 {
        self.claims.refusals
    }

    /// Returns the request that was refused last, in bytes.
    pub fn last_refused(&self) -> Option<u64> {
        self.claims.request.map(|request| request.bytes)
    }

    /// Returns whether it had begun its last words. With an outcome other than
    /// [`OutOfMemory`](super::Outcome::OutOfMemory) it was killed while it said them, or did not leave with its exit
    /// code.
    pub fn had_run_out(&self) -> bool {
        self.claims.state == State::Exhausted
    }

    /// Returns the exit code that stands for "out of memory" in this worker.
    pub fn exit_code(&self) -> u8 {
        self.claims.exit_code
    }

    /// Returns the worker's token.
    pub fn token(&self) -> Option<Cow<'_, str>> {
        token(&self.claims)
    }
}

fn profiling(claims: &Claims) -> Option<Profiling> {
    claims.profile.map(|state| match state {
        ProfileState::NotCompiledIn => Profiling::NotCompiledIn,
        ProfileState::Off => Profiling::Off,
        ProfileState::On => Profiling::On,
        ProfileState::Failed => Profiling::Failed,
    })
}

fn token(claims: &Claims) -> Option<Cow<'_, str>> {
    claims.token.as_ref().map(|token| String::from_utf8_lossy(token.as_bytes()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Text::<2048>::new();
        self.claims.snapshot().write_lines(&mut lines);
        f.write_str(String::from_utf8_lossy(lines.as_bytes()).trim_end())
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Report").field(&self.to_json()).finish()
    }
}

impl fmt::Debug for LastLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastLook")
            .field("pid", &self.pid())
            .field("limit", &self.limit())
            .field("in_use", &self.in_use())
            .field("refusals", &self.refusals())
            .field("last_refused", &self.last_refused())
            .finish_non_exhaustive()
    }
}
