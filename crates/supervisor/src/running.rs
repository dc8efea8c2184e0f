//! A started worker, until its verdict.

use super::descendants::{self, Lifeline, OnLeftBehind};
use super::followers::Followers;
use super::foreground::Foreground;
use super::inference::Inference;
use super::invocation::Started;
use super::judge::{Seen, judge};
use super::kernel_kills::Before;
use super::loading::{self, Room, Succeeds, may_be_end_of_loading};
use super::look::{Look, Over};
use super::outcome::{Ended, EndedBy, Outcome, announce};
use super::output::Output;
use super::profile::Profile;
use super::report::{LastLook, Report};
use super::sharing::SharedBudget;
use super::sys;
use super::sys::memory::Resource;
use crate::contract::{Cause, EXIT_CANNOT_GUARD, LimitSource, Measure, Sufficient};
use crate::message::Message;
use crate::record::{
    Claims, Failed, HEAD_BYTES, LIMIT_NOW_AT, ProfileState, RECORD_BYTES, State, passes_on, trouble,
};
use crate::text::Text;
use oomguard_core::profile::PROFILE_BYTES;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A worker that was started and whose end has not been seen yet.
///
/// Dropping it neither kills the worker nor leaves a zombie: a thread waits for it.
pub struct Running {
    /// The worker's stdin, where the command piped it.
    pub stdin: Option<ChildStdin>,
    /// The worker's stdout, where the command piped it.
    pub stdout: Option<ChildStdout>,
    /// The worker's stderr, where the command piped it.
    pub stderr: Option<ChildStderr>,
    pid: u32,
    pidfd: Option<OwnedFd>,
    record: OwnedFd,
    lifeline: Option<Lifeline>,
    inference: Option<Inference>,
    followers: Option<Followers>,
    loaded: Option<Loaded>,
    look: Option<Look>,
    share: Option<SharedBudget>,
    exit_code: u8,
    on_left_behind: OnLeftBehind,
    any_descendant: bool,
    sufficient: Sufficient,
    limit_source: LimitSource,
    measure: Measure,
    before: Before,
    limit: Option<u64>,
    tries: u32,
    started: Instant,
    deadline: Option<Instant>,
    ended_by: Option<EndedBy>,
    output: Option<Output>,
    ended: Option<Ended>,
}

/// How a worker with a preloaded guard is loaded.
pub(super) struct Loaded {
    /// Its program's file, where that loads the guard.
    pub(super) file: Option<PathBuf>,
    pub(super) preload: OsString,
    pub(super) measure: Measure,
    /// How the dynamic linker is asked again.
    pub(super) succeeds: Succeeds,
}

/// What a worker is given to run with.
pub(super) struct Equipment {
    pub(super) record: OwnedFd,
    pub(super) lifeline: Option<Lifeline>,
    pub(super) inference: Option<Inference>,
    pub(super) followers: Option<Followers>,
    pub(super) loaded: Option<Loaded>,
    /// Who looks whether it is over a limit on what is resident.
    pub(super) look: Option<Look>,
    pub(super) share: Option<SharedBudget>,
    pub(super) exit_code: u8,
    pub(super) on_left_behind: OnLeftBehind,
    pub(super) any_descendant: bool,
    pub(super) sufficient: Sufficient,
    pub(super) limit_source: LimitSource,
    pub(super) measure: Measure,
    pub(super) before: Before,
    pub(super) limit: Option<u64>,
    pub(super) time_limit: Option<Duration>,
    pub(super) tries: u32,
}

impl Running {
    pub(super) fn new(child: Started, equipment: Equipment) -> Running {
        let started = Instant::now();
        Running {
            stdin: child.stdin,
            stdout: child.stdout,
            stderr: child.stderr,
            pid: child.pid,
            pidfd: None,
            record: equipment.record,
            lifeline: equipment.lifeline,
            inference: equipment.inference,
            followers: equipment.followers,
            loaded: equipment.loaded,
            look: equipment.look,
            share: equipment.share,
            exit_code: equipment.exit_code,
            on_left_behind: equipment.on_left_behind,
            any_descendant: equipment.any_descendant,
            sufficient: equipment.sufficient,
            limit_source: equipment.limit_source,
            measure: equipment.measure,
            before: equipment.before,
            limit: equipment.limit,
            tries: equipment.tries,
            started,
            deadline: equipment.time_limit.and_then(|limit| started.checked_add(limit)),
            ended_by: None,
            output: None,
            ended: None,
        }
    }

    /// Returns the process number. It is the worker's until its end has been seen by one of the methods below.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Returns the soft limit that the worker was started with, in bytes.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Sets another limit while the worker runs, and all that it starts: what it holds above that it keeps, and is refused more. Only
    /// for one that has a limit. With the measure [`Resident`](Measure::Resident) it holds for the whole tree, and whoever stays above
    /// it ends by it, as under any limit; with the others for the worker, and for what it starts from then on.
    ///
    /// Not above the hard limit, and in a budget not above that.
    ///
    /// # Errors
    /// `InvalidInput` where `limit` stands for none, or the worker has none; those of prlimit(2): `ESRCH` for one that has ended,
    /// `EPERM` for another user's.
    pub fn set_limit(&mut self, limit: crate::Limit) -> io::Result<()> {
        let invalid = |words: &str| io::Error::new(io::ErrorKind::InvalidInput, words.to_owned());
        let bytes = super::resolve(limit, "").ok_or_else(|| invalid("that stands for no limit"))?;
        if self.limit.is_none() {
            return Err(invalid("a worker that was started without a limit cannot be given one"));
        }
        if self.ended.is_some() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let budget = self.share.as_ref().map_or(u64::MAX, SharedBudget::bytes);
        let bytes = bytes.min(budget);
        if self.measure == Measure::Resident {
            let record = std::fs::File::from(self.record.try_clone()?);
            record.write_all_at(&bytes.saturating_add(1).to_ne_bytes(), LIMIT_NOW_AT as u64)?;
            if let Some(look) = &self.look {
                look.set_limit(bytes);
            }
            // A program without a guard has a limit on data; a guard, and all that it has started by now, get the new one at a look.
            // Another user's is moved by its guard alone (prlimit(2), EPERM).
            let moved = |now| sys::memory::standing(now, bytes);
            let _ = sys::memory::change_soft_limit(self.pid, Resource::Data, moved);
            if let Some(inference) = &self.inference {
                inference.set_limit(bytes)?;
            }
            if let Some(followers) = &mut self.followers {
                followers.set_limit(bytes)?;
            }
        } else {
            sys::memory::change_soft_limit(self.pid, self.measure.into(), |now| {
                Some(bytes.min(now.hard.unwrap_or(u64::MAX)))
            })
            .map_err(io::Error::from_raw_os_error)?;
        }
        self.limit = Some(bytes);
        Ok(())
    }

    /// Returns whether refusals are watched from outside: [`Worker::infer_refusals`](super::Worker::infer_refusals)
    /// asked for it, and nothing here forbids it.
    pub fn is_inferring(&self) -> bool {
        self.inference.as_ref().is_some_and(Inference::is_inferring)
    }

    /// Returns what a guarded worker last said of itself, while it runs.
    pub fn look(&self) -> Option<LastLook> {
        self.claims().map(|claims| LastLook::new(claims, None))
    }

    /// Returns the outcome, if the worker has ended.
    ///
    /// # Errors
    /// Those of wait(2): `ECHILD` where something else in this process reaped the worker.
    pub fn try_wait(&mut self) -> io::Result<Option<Outcome>> {
        if self.ended.is_none() && sys::child::wait_dead(self.pid, false)? {
            self.conclude()?;
        }
        Ok(self.ended.as_ref().map(|ended| ended.outcome.clone()))
    }

    /// Waits for the worker's end. Closes its stdin first, as [`Child::wait`](std::process::Child::wait) does. If it has a time limit, kills it
    /// when the time is up.
    ///
    /// # Errors
    /// As for [`try_wait`](Running::try_wait).
    pub fn wait(&mut self) -> io::Result<Outcome> {
        Ok(self.wait_to_end()?.outcome)
    }

    /// As [`wait`](Running::wait), and returns everything that was seen.
    ///
    /// # Errors
    /// As for [`try_wait`](Running::try_wait).
    pub fn wait_to_end(&mut self) -> io::Result<Ended> {
        self.wait_looking_up(None)
    }

    /// Waits for at most `patience`; `None` if the worker has not ended by then.
    ///
    /// # Errors
    /// As for [`try_wait`](Running::try_wait).
    pub fn wait_timeout(&mut self, patience: Duration) -> io::Result<Option<Outcome>> {
        let until = Instant::now().checked_add(patience);
        while self.ended.is_none() {
            let (dead, _) = self.wait_a_little(until, None)?;
            if dead {
                self.conclude()?;
            } else if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Ok(self.ended.as_ref().map(|ended| ended.outcome.clone()))
    }

    /// Sends SIGKILL to the worker; to its whole process group, if it leads one (which
    /// [`process_group(0)`](std::os::unix::process::CommandExt::process_group) makes it). Nothing happens if its end
    /// has been seen already. It still has to be waited for.
    ///
    /// # Errors
    /// Those of kill(2): `EPERM` for a worker that runs as another user.
    pub fn kill(&mut self) -> io::Result<()> {
        self.kill_as(EndedBy::Kill)
    }

    fn kill_as(&mut self, ended_by: EndedBy) -> io::Result<()> {
        // Not reaped yet, so the number is still the worker's.
        if self.ended.is_some() || sys::child::wait_dead(self.pid, false)? {
            return Ok(());
        }
        sys::child::kill(self.pid, sys::child::leads_group(self.pid), libc::SIGKILL)?;
        self.ended_by.get_or_insert(ended_by);
        Ok(())
    }

    /// Has what the worker writes drained and kept: nobody else will.
    pub(super) fn keep_output(&mut self, keep_bytes: usize) -> io::Result<()> {
        self.output = Some(Output::take_from(&mut self.stdout, &mut self.stderr, keep_bytes)?);
        Ok(())
    }

    /// Waits for the end; calls `look_up` about every second meanwhile, if there is one.
    pub(super) fn wait_looking_up(&mut self, look_up: Option<&dyn Fn()>) -> io::Result<Ended> {
        const EVERY: Duration = Duration::from_secs(1);
        drop(self.stdin.take());
        loop {
            if let Some(ended) = &mut self.ended {
                return Ok(ended.clone());
            }
            let drained = self.output.as_ref().is_none_or(Output::is_closed);
            let blind = self.deadline.is_none() && self.followers.is_none() && look_up.is_none();
            let dead = if drained && blind {
                sys::child::wait_dead(self.pid, true)?
            } else {
                let (dead, looked) = self.wait_a_little(look_up.map(|_| Instant::now() + EVERY), None)?;
                if !looked && let Some(look_up) = look_up {
                    look_up();
                }
                dead
            };
            if dead {
                self.conclude()?;
            }
        }
    }

    /// Waits for the end; passes on what arrives for the worker meanwhile.
    pub(super) fn wait_in(&mut self, foreground: &mut Foreground) -> io::Result<Ended> {
        drop(self.stdin.take());
        loop {
            if let Some(ended) = &self.ended {
                foreground.stand_in_for(None);
                return Ok(ended.clone());
            }
            let pidfd = self.pidfd.as_ref().map(AsFd::as_fd);
            foreground.attend(self.pid, pidfd, &[self.pid]);
            if self.wait_a_little(None, Some(foreground.arrivals()))?.0 {
                // What it sent to its parent just before its end is under way.
                foreground.attend(self.pid, self.pidfd.as_ref().map(AsFd::as_fd), &[self.pid]);
                self.conclude()?;
            }
        }
    }

    /// Waits until the worker is dead, has written something, its time is up, something arrives, or `until` is reached.
    /// Whether it is dead; whether anything happened.
    fn wait_a_little(
        &mut self,
        until: Option<Instant>,
        arrivals: Option<BorrowedFd<'_>>,
    ) -> io::Result<(bool, bool)> {
        if self.pidfd.is_none() {
            // Linux before 5.3, a sandbox that forbids it, no descriptor left: then the worker is asked after often.
            self.pidfd = sys::child::pidfd(self.pid).ok();
        }
        let wake = match (self.deadline.filter(|_| self.ended_by.is_none()), until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        let [stdout, stderr] = self.output.as_ref().map_or([None, None], Output::open_pipes);
        let pidfd = self.pidfd.as_ref().map(AsFd::as_fd);
        let patience_ms = match (pidfd, milliseconds_until(wake)) {
            (Some(_), patience_ms) => patience_ms,
            (None, -1) => OFTEN_MS,
            (None, patience_ms) => patience_ms.min(OFTEN_MS),
        };
        let [asker, another] = self.followers.as_ref().map_or([None, None], Followers::arrivals);
        let sources = [pidfd, stdout, stderr, arrivals, asker, another];
        let happened = sys::child::poll(sources, patience_ms)?;
        if let Some(followers) = &mut self.followers {
            let ledger = self.share.as_ref().map(SharedBudget::ledger_fd);
            followers.attend(self.pid, self.record.as_fd(), ledger);
        }
        if let Some(output) = &mut self.output {
            output.drain();
        }
        let dead = match happened {
            [dead, ..] if self.pidfd.is_some() => dead,
            _ => sys::child::wait_dead(self.pid, false)?,
        };
        if !dead && self.ended_by.is_none() && self.deadline.is_some_and(|at| Instant::now() >= at) {
            self.kill_as(EndedBy::TimeLimit)?;
        }
        Ok((dead, dead || happened.contains(&true)))
    }

    /// Returns which code holds the memory of a profiled worker, while it runs. `None`: it is not profiled.
    pub fn profile(&self) -> Option<Profile> {
        Profile::parse(&self.profile_tables()?)
    }

    fn profile_tables(&self) -> Option<Vec<u8>> {
        let mut copy = vec![0; PROFILE_BYTES];
        let len = sys::memfd::read_at(self.record.as_fd(), &mut copy, HEAD_BYTES).ok()?;
        copy.truncate(len);
        Some(copy)
    }

    /// A copy of the page of the worker's own.
    fn page(&self) -> Option<[u8; RECORD_BYTES]> {
        let mut copy = [0; RECORD_BYTES];
        sys::memfd::read_at(self.record.as_fd(), &mut copy, 0).ok()?;
        Some(copy)
    }

    fn claims(&self) -> Option<Claims> {
        Claims::read(&self.page()?)
    }

    /// The failed child that the worker has waited for last, of those whose end it may have passed on; and the one that the first
    /// process of a PID namespace has waited for last.
    fn failed_children(&self, status: ExitStatus) -> [Option<Failed>; 2] {
        let Some(copy) = self.page() else { return [None, None] };
        let last = |is_it: &dyn Fn(&Failed) -> bool| {
            Failed::read_all(&copy)
                .filter(|failed| passes_on(status.into_raw(), failed.status) && is_it(failed))
                .max_by_key(|failed| failed.at_ms)
        };
        [last(&|failed| failed.parent == self.pid), last(&Failed::is_of_init)]
    }

    fn descendants(&self) -> Vec<Claims> {
        // In most no guard was ever.
        if !sys::memfd::was_touched(self.record.as_fd()) {
            return Vec::new();
        }
        let mut copy = vec![0; HEAD_BYTES];
        let read = sys::memfd::read_at(self.record.as_fd(), &mut copy, 0);
        read.map_or_else(|_| Vec::new(), |len| Claims::read_descendants(copy.get(..len).unwrap_or_default()))
    }

    /// The same, once those have ended who have just said that memory is gone, or are about to tell of their end: a command that
    /// was told so may be faster. For a moment at most.
    fn descendants_at_their_ends(&self) -> Vec<Claims> {
        const JUST_MS: u64 = 1000;
        const MOMENT_MS: u64 = 500;
        let until_ms = sys::clock::monotonic_ms() + MOMENT_MS;
        let has_just_said = |claims: &Claims, now_ms: u64| {
            let said = claims.open.as_ref().and_then(|open| open.said);
            said.is_some_and(|(message, at_ms, _)| {
                message == Message::OutOfMemory && now_ms.saturating_sub(at_ms) <= JUST_MS
            })
        };
        let is_dying = |claims: &Claims, now_ms: u64| {
            let is_at_its_end = match claims.state {
                State::Armed => has_just_said(claims, now_ms),
                State::Exhausted => claims.told.is_none() && !claims.inferred,
            };
            // Who is dead and yet to be waited for tells nothing more.
            let is_dead = || matches!(sys::proc::state_of(claims.pid), Some(b'Z' | b'X'));
            is_at_its_end && sys::child::is_alive(claims.pid) && !is_dead()
        };
        loop {
            let (descendants, now_ms) = (self.descendants(), sys::clock::monotonic_ms());
            if now_ms >= until_ms || !descendants.iter().any(|claims| is_dying(claims, now_ms)) {
                return descendants;
            }
            sys::clock::sleep_ms(1);
        }
    }

    /// Whether the worker ended while its program, or the one that it became, was being loaded, for want of room.
    fn could_not_load(&self, status: ExitStatus, claims: Option<&Claims>) -> bool {
        // What is resident is limited only once the guard is loaded.
        let Some(loaded) = self.loaded.as_ref().filter(|loaded| loaded.measure != Measure::Resident) else {
            return false;
        };
        let program = match claims {
            None => loaded.file.as_deref(),
            Some(claims) => claims.loading.as_ref().map(|loading| loading::path(loading.path.as_bytes())),
        };
        self.ended_by.is_none()
            && may_be_end_of_loading(status.code(), status.signal())
            && program.is_some_and(|program| self.has_no_room_for(loaded, program))
    }

    /// What the worker's guard says that kept it from its job.
    fn could_not_guard(&self, status: ExitStatus) -> Option<String> {
        if status.code() != Some(EXIT_CANNOT_GUARD.into()) {
            return None;
        }
        let reason = trouble(&self.page()?)?;
        Some(String::from_utf8_lossy(reason.as_bytes()).into_owned())
    }

    /// The descendant that ended so last, if the worker passed that on.
    fn unloaded(&self, status: ExitStatus, descendants: &[Claims]) -> Option<Claims> {
        let loaded = self.loaded.as_ref()?;
        if !may_be_end_of_loading(status.code(), None) {
            return None;
        }
        let (claims, loading) = descendants
            .iter()
            .filter_map(|claims| Some((claims, claims.loading.as_ref()?)))
            .max_by_key(|(_, loading)| loading.since_ms)?;
        let program = loading::path(loading.path.as_bytes());
        let name = program.file_name().unwrap_or_default();
        let is_it = !sys::child::is_alive(claims.pid) && self.has_no_room_for(loaded, program);
        is_it.then(|| Claims {
            program: Text::from_bytes(name.as_encoded_bytes()),
            tid: claims.pid,
            request: None,
            cause: Cause::Mapping,
            ..claims.clone()
        })
    }

    fn has_no_room_for(&self, loaded: &Loaded, program: &Path) -> bool {
        let Loaded { ref preload, measure, succeeds, .. } = *loaded;
        let room = |limit| Room { measure, limit, preload, succeeds };
        self.limit.is_some_and(|limit| room(limit).is_too_little_for(program))
    }

    /// The worker is dead: everything there is to know, and its number is given back.
    fn conclude(&mut self) -> io::Result<()> {
        let at_ms = sys::clock::monotonic_ms();
        let claims = self.claims();
        let is_profiled = claims.as_ref().is_some_and(|claims| claims.profile == Some(ProfileState::On));
        let tables = if is_profiled { self.profile_tables() } else { None };
        let profile = tables.and_then(|tables| Some((Arc::new(Profile::parse(&tables)?), tables.into())));
        let leads_group = sys::child::leads_group(self.pid);
        let killed_group =
            leads_group && (self.on_left_behind == OnLeftBehind::Kill || self.ended_by.is_some());
        if killed_group {
            descendants::kill_group(self.pid);
        }
        let reaped = sys::child::reap(self.pid)?;
        if killed_group {
            descendants::wait_for_killed_group(self.pid);
        }
        let ran_for = self.started.elapsed();
        let status = ExitStatus::from_raw(reaped.raw_status);
        let inferred = self.inference.as_ref().and_then(|inference| inference.verdict(status, at_ms));
        let followers = self.followers.as_ref();
        let [failed, of_init] = self.failed_children(status);
        // One that tells of its children has told of none that failed so: it ends of nothing but its own.
        let tells = claims.as_ref().is_some_and(|claims| claims.state == State::Armed);
        let inferred =
            inferred.or_else(|| followers?.verdict(self.pid, status, at_ms, [failed, of_init], tells));
        let mut descendants = self.descendants_at_their_ends();
        let own = claims.as_ref().map_or(self.pid, |claims| claims.pid);
        let fallen = followers.map(Followers::fallen).unwrap_or_default();
        descendants.extend(fallen.into_iter().filter(|claims| claims.pid != own));
        let could_not_load = self.could_not_load(status, claims.as_ref());
        let unloaded = if could_not_load { None } else { self.unloaded(status, &descendants) };
        let over: Vec<Over> = self
            .look
            .take()
            .map(|look| look.found())
            .unwrap_or_default()
            .into_iter()
            .chain(self.share.as_ref().map(SharedBudget::left).unwrap_or_default())
            .collect();
        let report =
            |over: &Over| over.report(claims.as_ref(), self.limit, self.limit_source, self.exit_code);
        let may_be_passed_on: Vec<Claims> =
            over.iter().filter(|over| over.pid == self.pid || over.is_recent(at_ms)).map(report).collect();
        let seen = Seen {
            status,
            over: &may_be_passed_on,
            unloaded: unloaded.as_ref(),
            ended_by: self.ended_by,
            pid: self.pid,
            claims: claims.as_ref(),
            descendants: &descendants,
            inferred,
            failed,
            at_ms,
            any_descendant: self.any_descendant,
            sufficient: self.sufficient,
        };
        let from_outside = self.inference.as_ref().and_then(Inference::refused).filter(|_| claims.is_none());
        let followed = followers.map(Followers::refused).unwrap_or_default();
        let guarded = descendants.iter().filter(|claims| !claims.inferred);
        let refused = || claims.iter().chain(guarded.clone()).chain(&from_outside).chain(&followed);
        let refusals = refused().map(|claims| claims.refusals).sum();
        let last_refused = refused().find_map(|claims| claims.request).map(|request| request.bytes);
        let (mut outcome, doubtful) = judge(seen, || self.before.take_kill());
        if let Outcome::OutOfMemory(report) = &mut outcome
            && claims.as_ref().is_some_and(|claims| claims.pid == report.pid())
        {
            report.attach_profile(profile.as_ref().map(|(profile, _)| Arc::clone(profile)));
        }
        let mut output = self.output.take();
        if let Some(output) = &mut output {
            output.drain();
        }
        let output_cut = output.as_ref().is_some_and(|output| output.cut);
        let (stdout, stderr) = output.map(Output::into_bytes).unwrap_or_default();
        // One in which nothing of ours ran cannot tell that it had to leave.
        let is_told = |pid| {
            pid == own
                || descendants.iter().any(|claims| claims.pid == pid && claims.state == State::Exhausted)
        };
        let untold: Vec<Claims> = over.iter().filter(|over| !is_told(over.pid)).map(report).collect();
        descendants.extend(untold);
        let ended = Ended {
            outcome,
            status,
            pid: self.pid,
            limit: self.limit,
            measure: self.measure,
            resident_peak: reaped.resident_peak,
            last_look: claims.map(|claims| LastLook::new(claims, profile)),
            descendants: descendants
                .into_iter()
                .filter(|claims| claims.state == State::Exhausted && self.sufficient.allows(claims.evidence))
                .map(Report::new)
                .collect(),
            could_not_load,
            could_not_guard: self.could_not_guard(status),
            refusals,
            last_refused,
            doubtful,
            ended_by: self.ended_by,
            traced_calls: self.inference.as_ref().map_or(0, Inference::stops)
                + followers.map_or(0, Followers::stops),
            left_behind: descendants::look(self.pid, leads_group, self.lifeline.as_ref()),
            tries: self.tries,
            ran_for,
            stdout,
            stderr,
            output_cut,
        };
        self.pidfd = None;
        self.lifeline = None;
        self.inference = None;
        self.followers = None;
        announce(&ended);
        self.ended = Some(ended);
        Ok(())
    }
}

/// How often a worker is asked after where the kernel cannot say when it ends, in milliseconds.
const OFTEN_MS: i32 = 2;

/// For poll(2): rounded up, so that the moment has come when it returns.
fn milliseconds_until(moment: Option<Instant>) -> i32 {
    let Some(moment) = moment else { return -1 };
    let left = moment.saturating_duration_since(Instant::now());
    i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.pid;
        if self.ended.is_some() || sys::child::wait_dead(pid, false).is_err() {
            return;
        }
        let reap = move || {
            let _ = sys::child::reap(pid);
        };
        if sys::child::wait_dead(pid, false).unwrap_or(true) {
            reap();
            return;
        }
        // A zombie stays only if no thread can be had.
        let _ = std::thread::Builder::new().name("oomguard-reaper".into()).spawn(reap);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("pid", &self.pid)
            .field("limit", &self.limit)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
