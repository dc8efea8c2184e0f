//! What to start, and how.

use super::command::{Prepared, SetLimit, Start, before_ours};
use super::descendants::{Lifeline, OnLeftBehind};
use super::entrance::{Entrance, LD_PRELOAD, without_ours};
use super::followers::Followers;
use super::foreground::Foreground;
use super::inference::{InferRefusals, Inference, process_numbers};
use super::invocation::Command;
use super::kernel_kills::Before;
use super::look::{Look, Whose};
use super::outcome::{Ended, Outcome};
use super::outer;
use super::output::KEPT_BYTES;
use super::retry::Retry;
use super::room::SharedLedger;
use super::running::{Equipment, Loaded, Running};
use super::sharing::SharedBudget;
use super::sys;
use super::sys::memory::rlimit;
use super::terms::Terms;
use super::witness::Ward;
use super::{resolve, starter, target};
use crate::Limit;
use crate::contract::{EXIT_OUT_OF_MEMORY, LimitSource, Measure, Sufficient, TOKEN_MAX_BYTES, variable};
use crate::record::{self, FILE_BYTES};
use crate::text::Text;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The child finds its descriptors from this number on, where no program expects any.
const FIRST_DESCRIPTOR: i32 = 100;

/// What the report is to repeat.
#[derive(Debug)]
enum Token {
    New,
    Given(String),
    Inherited,
}

/// What becomes of a worker when this process dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnSupervisorDeath {
    /// It goes on, as any child does.
    #[default]
    Live,
    /// The kernel sends it SIGKILL (PR_SET_PDEATHSIG, prctl(2)). Such workers are started by one thread that lives
    /// as long as this process. A set-user-ID program takes no part in this, nor do the worker's own children.
    Kill,
}

/// Where the limit was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    OnCommandLine,
    InEnvironment,
    Nowhere,
}

/// A program to be run with a memory limit of its own.
///
/// The [`Command`], or [`std::process::Command`], is used as it is: its environment, stdio, working directory, user,
/// process group and `pre_exec` hooks. What is added, between fork and exec: the soft rlimit, the variables `OOMGUARD_LIMIT`, `OOMGUARD_MEASURE`,
/// `OOMGUARD_EXIT_CODE`, `OOMGUARD_TOKEN`, `OOMGUARD_QUIET` (each only if it was asked for and the command does not
/// say something else itself) and `OOMGUARD_RECORD`, and one descriptor, from 100 on, which a guarded program closes
/// before `main`. The variables are inherited by what the worker starts, as rlimits are.
///
/// A [`Command`] is started as posix_spawn(3) does it, without a fork: this thread waits until the child is the program,
/// or cannot be. So is a `std::process::Command` whose program is guarded (its file says so) or gets no limit: what it needs
/// travels in the environment, and it sets the limit before `main`. Any other of std's commands gets its limit between
/// fork(2) and exec, and so does each of those whose supervisor's death is its own, or whose descendants are watched. A fork
/// copies the page tables of this process: 0.1 ms for a small one, milliseconds for one with a large heap. Workers are
/// started one at a time; a child that another thread starts by other means in the moment in which one of std's commands
/// is started may inherit the descriptor.
///
/// Without a [`limit`](Worker::limit) the worker has the limits that it would have anyway.
pub struct Worker {
    prepared: Prepared,
    pub(super) limit: Option<Limit>,
    measure: Option<Measure>,
    set_limit: SetLimit,
    exit_code: Option<u8>,
    token: Token,
    quiet: bool,
    profile: Option<String>,
    pub(super) retry: Option<Retry>,
    time_limit: Option<Duration>,
    keep_output: usize,
    on_supervisor_death: OnSupervisorDeath,
    on_left_behind: OnLeftBehind,
    watch_descendants: bool,
    preload: Option<OsString>,
    keep_lower_limit: bool,
    hard: bool,
    limit_is_said: Said,
    report: Option<(OsString, (u64, u64))>,
    on_start: Option<OnStart>,
    by_limit: Option<ByLimit>,
    infer_refusals: InferRefusals,
    any_descendant: bool,
    sufficient: Sufficient,
    share: Option<SharedBudget>,
    /// What was free when the next try was decided on.
    need: Option<u64>,
}

/// Which thread forks a worker whose death is to be this process's: the kernel looks at the thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Starter {
    LongLived,
    ThisThread,
}

type OnStart = Box<dyn FnMut(&Running) + Send>;
type ByLimit = Box<dyn Fn(u64) -> Vec<(&'static str, OsString)> + Send>;

impl Worker {
    /// Takes the command as it is. Nothing is started yet.
    pub fn new(command: impl Into<Command>) -> Worker {
        outer::note_replaced();
        Worker {
            prepared: Prepared::new(command.into()),
            limit: None,
            measure: None,
            set_limit: SetLimit::default(),
            exit_code: None,
            token: Token::New,
            quiet: false,
            profile: None,
            retry: None,
            time_limit: None,
            keep_output: KEPT_BYTES,
            on_supervisor_death: OnSupervisorDeath::default(),
            on_left_behind: OnLeftBehind::default(),
            watch_descendants: false,
            preload: None,
            keep_lower_limit: false,
            hard: false,
            limit_is_said: Said::InEnvironment,
            report: None,
            on_start: None,
            by_limit: None,
            infer_refusals: InferRefusals::default(),
            any_descendant: false,
            sufficient: Sufficient::default(),
            share: None,
            need: None,
        }
    }

    /// Sets the limit of the worker, and of each process that it starts. It becomes the soft rlimit; the hard one
    /// stays, so a limit above that is cut to it. `auto` and `%` are of the container that this process is in.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Worker {
        self.limit = Some(limit);
        self
    }

    /// Has the worker, and all that it starts, share this budget with others: it takes of it what it needs, waits where others have
    /// it, and is refused once nothing moves. What counts is what is resident; the [`limit`](Worker::limit), if there is
    /// one, is the most that one process may have. A program that no guard gets into cannot ask: it is charged for what it is
    /// found to hold.
    #[must_use]
    pub fn share(mut self, budget: SharedBudget) -> Worker {
        self.share = Some(budget);
        self
    }

    /// Sets what the limit counts. Where it is not said: what `OOMGUARD_MEASURE` says in the worker's environment, else
    /// address space. Runtimes that reserve address space and never use it (Java, Go, Node) want
    /// [`Measure::Data`].
    #[must_use]
    pub fn measure(mut self, measure: Measure) -> Worker {
        self.measure = Some(measure);
        self
    }

    /// Sets when a program that does not set its limit itself gets it: a choice for parents whose heap is so large
    /// that a fork takes too long.
    #[must_use]
    pub fn set_limit(mut self, when: SetLimit) -> Worker {
        self.set_limit = when;
        self
    }

    /// Sets the exit code by which a guarded worker says that memory ran out, 1–255; 198 where it is not said. Zero is
    /// refused by the worker's guard.
    #[must_use]
    pub fn exit_code(mut self, code: u8) -> Worker {
        self.exit_code = Some(code);
        self
    }

    /// Sets the text that the report repeats, up to 64 bytes. Where it is not said: one that no other worker of this
    /// process has.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Worker {
        self.token = Token::Given(token.into());
        self
    }

    /// Sets no token: the worker inherits what `OOMGUARD_TOKEN` says, if it is set.
    #[must_use]
    pub fn inherit_token(mut self) -> Worker {
        self.token = Token::Inherited;
        self
    }

    /// Has a guarded worker write no lines to its stderr when memory runs out.
    #[must_use]
    pub fn quiet(mut self) -> Worker {
        self.quiet = true;
        self
    }

    /// Samples the worker's live allocations, so that its end tells which code held the memory
    /// ([`Report::profile`](super::Report::profile)). Only a program that has the profiler compiled in does so:
    /// `guard!(profile = off)` is enough.
    #[must_use]
    pub fn profile(mut self) -> Worker {
        self.profile = Some("on".into());
        self
    }

    /// As [`profile`](Worker::profile), with one sample per so many allocated bytes, in the mean. Zero is refused by
    /// the worker's guard.
    #[must_use]
    pub fn profile_every(mut self, bytes: u64) -> Worker {
        self.profile = Some(bytes.to_string());
        self
    }

    /// Tries again with more when memory was the cause. [`run`](Worker::run) and a [`Pool`](super::Pool) do so;
    /// [`spawn`](Worker::spawn) starts one try. A worker without a limit is not tried again, as there is nothing to
    /// grow.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Worker {
        self.retry = Some(retry);
        self
    }

    /// Sets how long each try may run; then it is killed, with its process group if it leads one.
    #[must_use]
    pub fn time_limit(mut self, time_limit: Duration) -> Worker {
        self.time_limit = Some(time_limit);
        self
    }

    /// Sets how many bytes of piped stdout, and of piped stderr, [`run_to_end`](Worker::run_to_end) and a
    /// [`Pool`](super::Pool) keep: 1 MiB where it is not said. The rest is read and dropped.
    #[must_use]
    pub fn keep_output(mut self, bytes: usize) -> Worker {
        self.keep_output = bytes;
        self
    }

    /// Sets what becomes of the worker when this process dies.
    #[must_use]
    pub fn on_supervisor_death(mut self, what: OnSupervisorDeath) -> Worker {
        self.on_supervisor_death = what;
        self
    }

    /// Sets what to do with processes of its group that it leaves behind.
    #[must_use]
    pub fn on_left_behind(mut self, what: OnLeftBehind) -> Worker {
        self.on_left_behind = what;
        self
    }

    /// Finds out whether the worker left descendants behind, even in other process groups and sessions. They are known
    /// by a pipe that the worker gets as one more descriptor, from 100 on; one that closes all its descriptors
    /// escapes unseen.
    #[must_use]
    pub fn watch_descendants(mut self) -> Worker {
        self.watch_descendants = true;
        self
    }

    /// Guards a program that is not written in Rust: preloads `library`, which is `liboomguard.so`, before what
    /// `LD_PRELOAD` says already (ld.so(8)). It has to be a path without spaces and colons.
    ///
    /// What the worker starts gets the library, too. Ask [`Entrance`](super::Entrance) first: a program with another
    /// C library than glibc or musl does not start with it.
    #[must_use]
    pub fn preload(mut self, library: impl Into<OsString>) -> Worker {
        let mut list = library.into();
        let theirs = match self.prepared.variable(LD_PRELOAD) {
            Some(theirs) => Some(theirs.to_owned()),
            None => std::env::var_os(LD_PRELOAD),
        };
        // An outer launcher's may lie where the worker cannot see it.
        let theirs = theirs.map(|theirs| without_ours(&theirs));
        if let Some(theirs) = theirs.filter(|theirs| !theirs.is_empty()) {
            list.push(":");
            list.push(theirs);
        }
        self.preload = Some(list);
        self
    }

    /// Leaves a soft rlimit of this process in force where it is lower than the limit, and hands the limit to the
    /// worker as it was written: what a launcher wants, whose own limits are its caller's word.
    #[must_use]
    pub fn keep_lower_limit(mut self) -> Worker {
        self.keep_lower_limit = true;
        self
    }

    /// Sets the hard rlimit to the limit, too: nothing that the worker starts can go beyond it, unless privileged. A
    /// guard then has its last words from what it keeps back below the limit.
    #[must_use]
    pub fn hard_limit(mut self) -> Worker {
        self.hard = true;
        self
    }

    /// Says that the limit comes from a command line: reports call it so, and not by the name of the variable that
    /// hands it over.
    #[must_use]
    pub fn said_on_command_line(mut self) -> Worker {
        self.limit_is_said = Said::OnCommandLine;
        self
    }

    /// Nobody has asked for [`Limit::Auto`], or in a budget for [`Limit::Off`]: it is what holds where nothing else does, and a
    /// worker whose source says a limit keeps that.
    #[must_use]
    pub fn unsaid_limit(mut self) -> Worker {
        self.limit_is_said = Said::Nowhere;
        self
    }

    /// Where reports go, as `OOMGUARD_REPORT` says it: an absolute path, or `fd:N` for a descriptor that the worker
    /// inherits from this process. For a worker or a descendant that cannot write there, in another root directory or
    /// without that descriptor, it is no error.
    ///
    /// # Errors
    /// `InvalidInput` for anything else; what keeps this process from writing there.
    pub fn report_to(mut self, target: impl Into<OsString>) -> io::Result<Worker> {
        let target = target.into();
        let file = target::check(&target)?;
        self.report = Some((target, file));
        Ok(self)
    }

    /// Sets variables that depend on the limit, in bytes, for each try: what a runtime's own collector is told to stay
    /// under, say. Not called where there is no limit.
    #[must_use]
    pub fn env_by_limit(
        mut self,
        variables: impl Fn(u64) -> Vec<(&'static str, OsString)> + Send + 'static,
    ) -> Worker {
        self.by_limit = Some(Box::new(variables));
        self
    }

    /// Calls `look` for each try as soon as it has been started: to pass signals on, say.
    #[must_use]
    pub fn on_start(mut self, look: impl FnMut(&Running) + Send + 'static) -> Worker {
        self.on_start = Some(Box::new(look));
        self
    }

    /// Finds out from outside whether memory was refused before a worker without a guard died.
    #[must_use]
    pub fn infer_refusals(mut self, when: InferRefusals) -> Worker {
        self.infer_refusals = when;
        self
    }

    /// A descendant that ran out of memory counts for the outcome even if the worker did not pass its exit code on, as
    /// `make` and tests do: [`Ended::descendants`]. It has to be guarded, and to find the worker's record:
    /// [`preload`](Worker::preload).
    #[must_use]
    pub fn any_descendant(mut self) -> Worker {
        self.any_descendant = true;
        self
    }

    /// Which evidence suffices for [`Outcome::OutOfMemory`]. A guarded worker is told, and on less ends as it would without a
    /// guard.
    #[must_use]
    pub fn sufficient(mut self, evidence: Sufficient) -> Worker {
        self.sufficient = evidence;
        self
    }

    /// Starts the worker, once.
    ///
    /// # Errors
    /// Those of [`std::process::Command::spawn`]; those of memfd_create(2) and pipe(2); a token that is too long
    /// (`InvalidInput`).
    pub fn spawn(&mut self) -> io::Result<Running> {
        self.start(self.limit, 1, false)
    }

    /// Runs the worker to its end, with retries. Piped output is read and dropped.
    ///
    /// # Errors
    /// As for [`spawn`](Worker::spawn); those of wait(2).
    pub fn run(&mut self) -> io::Result<Outcome> {
        Ok(self.run_to_end()?.outcome)
    }

    /// As [`run`](Worker::run), and returns everything that was seen, piped output included.
    ///
    /// # Errors
    /// As for [`run`](Worker::run).
    pub fn run_to_end(&mut self) -> io::Result<Ended> {
        self.run_tries(None)
    }

    /// As [`run_to_end`](Worker::run_to_end), in a process that stands in for the worker. After a signal that asked
    /// to end there is no other try.
    ///
    /// # Errors
    /// As for [`run`](Worker::run).
    pub fn run_in_foreground(&mut self, foreground: &mut Foreground) -> io::Result<Ended> {
        self.prepared.restore_signals(foreground.found());
        self.run_tries(Some(foreground))
    }

    fn run_tries(&mut self, mut foreground: Option<&mut Foreground>) -> io::Result<Ended> {
        let ceiling = self.retry.as_ref().map_or(0, Retry::ceiling_bytes);
        let mut limit = self.limit;
        let mut tries = 0;
        loop {
            tries += 1;
            let ended = match &mut foreground {
                Some(foreground) => self.try_in(foreground, limit, tries)?,
                None => self.try_once(limit, tries, None)?,
            };
            let told_to_end = foreground.as_ref().is_some_and(|foreground| foreground.told_to_end());
            let next = match &self.share {
                Some(_) => self.next_limit_in_budget(&ended, limit, ceiling),
                None => self.next_limit(&ended, ceiling).map(|next| Some(Limit::Bytes(next))),
            };
            match next {
                Some(next) if !told_to_end => limit = next,
                _ => return Ok(ended),
            }
            if let Some(retry) = &mut self.retry {
                retry.clean_up(&ended);
            }
            let need = needed(&ended);
            if let Some(share) = &self.share {
                let gives_up = || match &mut foreground {
                    Some(foreground) => {
                        foreground.prepare();
                        foreground.is_asked_to_end()
                    }
                    None => false,
                };
                if !share.wait_for_room(need, gives_up) {
                    return Ok(ended);
                }
                self.need = Some(need);
            }
        }
    }

    /// In a budget a try that others left no room is tried again as it was; one that met its own limit, with a larger one.
    fn next_limit_in_budget(
        &self,
        ended: &Ended,
        limit: Option<Limit>,
        ceiling: u64,
    ) -> Option<Option<Limit>> {
        let retry = self.retry.as_ref().filter(|retry| retry.is_due(ended))?;
        let who = match &ended.outcome {
            Outcome::OutOfMemory(report) => report.limit_source(),
            _ => None,
        };
        match (who, limit) {
            (Some(LimitSource::Budget), _) => return Some(limit),
            // What its source says is no limit of ours that could grow.
            (Some(LimitSource::Source), None | Some(Limit::Off)) => return None,
            (_, None | Some(Limit::Off)) => return Some(limit),
            _ => {}
        }
        let budget = self.share.as_ref().map_or(u64::MAX, SharedBudget::bytes);
        Some(Some(Limit::Bytes(retry.next(ended, ceiling.min(budget))?)))
    }

    fn try_in(&mut self, foreground: &mut Foreground, limit: Option<Limit>, tries: u32) -> io::Result<Ended> {
        foreground.prepare();
        // This thread waits for the worker, so that its end is this process's.
        let dies_with_us = self.on_supervisor_death == OnSupervisorDeath::Kill;
        let about_to_start = |mark| {
            if dies_with_us {
                foreground.expect(mark)
            }
        };
        let (mut running, mark) = self.start_from(limit, tries, Starter::ThisThread, true, about_to_start)?;
        foreground.stand_in_for(Some(Ward { pid: running.id(), dies_with_us, mark }));
        running.keep_output(self.keep_output)?;
        running.wait_in(foreground)
    }

    pub(super) fn next_limit(&self, ended: &Ended, ceiling: u64) -> Option<u64> {
        let next = self.retry.as_ref()?.next(ended, ceiling)?;
        // What lies above it would be the same try again.
        let most = self.most_bytes(self.effective_measure());
        most.is_none_or(|most| ended.limit < Some(most)).then_some(next)
    }

    /// The `tries`th try from start to end.
    pub(super) fn try_once(
        &mut self,
        limit: Option<Limit>,
        tries: u32,
        look_up: Option<&dyn Fn()>,
    ) -> io::Result<Ended> {
        let mut running = self.start(limit, tries, true)?;
        running.keep_output(self.keep_output)?;
        running.wait_looking_up(look_up)
    }

    fn start(&mut self, limit: Option<Limit>, tries: u32, is_waited_for: bool) -> io::Result<Running> {
        Ok(self.start_from(limit, tries, Starter::LongLived, is_waited_for, |_| ())?.0)
    }

    /// The worker, and the variable that all that it starts inherits and nobody else has, if there is one.
    /// `is_waited_for`: from the start to the end, by this thread. `about_to_start` is told the variable before there is anybody
    /// who has it.
    fn start_from(
        &mut self,
        limit: Option<Limit>,
        tries: u32,
        starter: Starter,
        is_waited_for: bool,
        about_to_start: impl FnOnce(Text<80>),
    ) -> io::Result<(Running, Text<80>)> {
        let record = new_record()?;
        let lifeline = self.watch_descendants.then(|| Lifeline::new(FIRST_DESCRIPTOR)).transpose()?;
        let (lifeline, childs_end) = lifeline.unzip();
        let measure = self.effective_measure();
        let limit = if self.share.is_some() && limit.is_none() {
            self.limit_is_said = Said::Nowhere;
            Some(Limit::Off)
        } else {
            limit
        };
        let own = limit.and_then(|limit| resolve(limit, ""));
        let budget = self.share.as_ref().map(SharedBudget::bytes);
        let bytes = match (own, budget) {
            (Some(own), Some(budget)) => Some(own.min(budget)),
            (own, budget) => own.or(budget),
        };
        let bytes = bytes.map(|bytes| self.most_bytes(measure).map_or(bytes, |most| bytes.min(most)));
        let counted = match self.counted_by_rlimit(measure) {
            // Nobody will move what an outer launcher has set.
            Measure::Resident if bytes.is_none() && self.keep_lower_limit => Measure::Data,
            counted => counted,
        };
        let soft_limit = self.soft_limit(limit, bytes, counted).map(|(_, soft)| match soft {
            // A limit of the user's on data stays in force.
            Some(soft)
                if counted != measure && soft_of_the_users(counted).is_some_and(|users| users < soft) =>
            {
                (counted, soft_of_the_users(counted))
            }
            // It holds another measure, and is nobody's word about data.
            Some(soft) if counted != measure => (counted, Some(sys::memory::marked_standing(soft))),
            soft => (counted, soft),
        });
        let variables = self.variables(limit, bytes, measure, soft_limit, &record)?;
        let mark = self.mark(&variables);
        let leaves_alone = self.prepared.variable(variable::INHERIT).is_some_and(|said| said == "0");
        let only_marked = leaves_alone && !mark.as_bytes().is_empty();
        let by_us = |name: &str| matches!(name, variable::RECORD | variable::LIMIT);
        let ours = variables.iter().filter(|(name, _)| by_us(name)).cloned().collect();
        // Where that is forbidden, the worker is started without; `Running::is_inferring` says so.
        let mut inference = self
            .wants_inference(bytes)
            .then(|| Inference::start(self.terms(measure, bytes, own)).ok())
            .flatten();
        let start = Start {
            soft_limit,
            // What is resident is held by a limit that moves.
            hard: self.hard && measure != Measure::Resident,
            record_fd: self.preload.is_none().then(|| record.as_raw_fd()),
            lifeline: childs_end,
            joining: inference.as_ref().and_then(Inference::joining),
            tracer_moves_limit: measure == Measure::Resident && !self.has_limit_of_the_users_on_data(),
            die_with_parent: self.on_supervisor_death == OnSupervisorDeath::Kill,
            set_limit: self.set_limit,
            variables,
        };
        let followers = if let Some(preload) = self.preload.as_deref().filter(|_| is_waited_for) {
            // What is followed as a whole needs nobody to ask for it.
            let follows =
                bytes.is_some() && inference.is_none() && self.infer_refusals != InferRefusals::Never;
            let terms = follows.then(|| self.terms(measure, bytes, own));
            sys::memfd::sealed_inode(record.as_raw_fd(), FILE_BYTES)
                .and_then(|inode| Followers::listen(inode, terms, preload).ok())
        } else {
            None
        };
        let before = Before::now();
        about_to_start(mark);
        let child = if start.die_with_parent && starter == Starter::LongLived {
            // The command goes to the starter thread and comes back.
            let mut prepared = std::mem::replace(&mut self.prepared, Prepared::new(Command::new("")));
            let (prepared, child) = starter::run_there(move || {
                let child = prepared.start(start);
                (prepared, child)
            })?;
            self.prepared = prepared;
            child
        } else {
            self.prepared.start(start)
        }?;
        if let Some(started) = &mut inference
            && started.conclude_joining().is_err()
        {
            inference = None;
        }
        // In a budget it is that which is looked after, and this only holds a process's own limit.
        let own_limit = if budget.is_some() { own } else { bytes };
        let look = match (measure, own_limit) {
            // Where no thread can be had, nobody looks.
            (Measure::Resident, Some(limit)) => record
                .try_clone()
                .and_then(|record| {
                    let whose = Whose { mark, only_marked, ours };
                    Look::start(child.pid, limit, whose, record, self.share.is_some())
                })
                .ok(),
            _ => None,
        };
        let equipment = Equipment {
            record,
            lifeline,
            inference,
            followers,
            loaded: self.preload.clone().map(|preload| Loaded {
                file: self.prepared.preloadable_file(),
                preload,
                measure,
                succeeds: |command, limit, measure, patience| {
                    let ended = Worker::new(command).limit(limit).measure(measure).time_limit(patience).run();
                    matches!(ended, Ok(Outcome::Success))
                },
            }),
            look,
            share: self.share.clone(),
            exit_code: self.exit_code.unwrap_or(EXIT_OUT_OF_MEMORY),
            on_left_behind: self.on_left_behind,
            any_descendant: self.any_descendant,
            sufficient: self.sufficient,
            limit_source: self.limit_source(),
            measure,
            before,
            limit: bytes,
            time_limit: self.time_limit,
            tries,
        };
        let running = Running::new(child, equipment);
        if let (Some(share), Some(need)) = (&self.share, self.need.take()) {
            share.has_begun(Some(running.id()), need);
        }
        if let Some(look) = &mut self.on_start {
            look(&running);
        }
        Ok((running, mark))
    }

    fn mark(&self, variables: &[(&'static str, OsString)]) -> Text<80> {
        let mut mark = Text::new();
        let place = variables.iter().find(|(name, _)| self.preload.is_some() && *name == variable::RECORD);
        if let Some((name, value)) = place {
            mark.push(name);
            mark.push("=");
            mark.push_bytes(value.as_bytes());
        }
        mark
    }

    /// What the worker's rlimit is to count: what is resident is held by a guard, from within, or by a tracer. A
    /// program that none gets into is given a limit on data, which is never less than what is resident; its tracer
    /// takes that over.
    fn counted_by_rlimit(&self, measure: Measure) -> Measure {
        if measure != Measure::Resident {
            return measure;
        }
        match self.prepared.entrance() {
            Entrance::Guarded => measure,
            Entrance::Preload if self.preload.is_some() => measure,
            _ => Measure::Data,
        }
    }

    /// Whether somebody else has limited data: then nothing moves that limit but a guard, which knows about it.
    fn has_limit_of_the_users_on_data(&self) -> bool {
        soft_of_the_users(Measure::Data) != rlimit(Measure::Data.into()).hard
    }

    /// The most that a worker can get: the hard limit stays, and perhaps the soft one, unless that is one of ours.
    fn most_bytes(&self, measure: Measure) -> Option<u64> {
        if measure == Measure::Resident {
            return None;
        }
        let now = rlimit(measure.into());
        if self.keep_lower_limit { soft_of_the_users(measure).or(now.hard) } else { now.hard }
    }

    /// What to set; `Some((_, None))` is as much as the hard limit allows.
    fn soft_limit(
        &self,
        limit: Option<Limit>,
        bytes: Option<u64>,
        measure: Measure,
    ) -> Option<(Measure, Option<u64>)> {
        limit?;
        match bytes {
            None if self.keep_lower_limit => {
                let before = before_ours(measure)?;
                Some((measure, before))
            }
            bytes => Some((measure, bytes)),
        }
    }

    fn wants_inference(&self, limit: Option<u64>) -> bool {
        limit.is_some()
            && match self.infer_refusals {
                InferRefusals::Never => false,
                InferRefusals::WhereNothingPreloads => self.prepared.is_seen_from_outside_only(),
                InferRefusals::Always => true,
            }
    }

    /// Whose word the limit is for those who are not told it by the environment.
    fn limit_source(&self) -> LimitSource {
        match self.limit_is_said {
            Said::OnCommandLine => LimitSource::CommandLine,
            Said::InEnvironment | Said::Nowhere => LimitSource::Environment,
        }
    }

    /// `own`: what it may have of the budget that it shares, if that is limited.
    fn terms(&self, measure: Measure, limit: Option<u64>, own: Option<u64>) -> Terms {
        let ledger = self.share.as_ref().and_then(SharedBudget::ledger);
        Terms {
            measure,
            resident_limit: limit.filter(|_| measure == Measure::Resident),
            budget: ledger.map(|ledger| SharedLedger {
                ledger,
                is_the_limit: own.is_none_or(|own| own >= ledger.budget()),
            }),
            source: self.limit_source(),
            exit_code: self.exit_code.unwrap_or(EXIT_OUT_OF_MEMORY),
            token: match &self.token {
                Token::Given(token) => Some(Text::from_bytes(token.as_bytes())),
                Token::New => None,
                Token::Inherited => {
                    std::env::var(variable::TOKEN).ok().map(|token| Text::from_bytes(token.as_bytes()))
                }
            },
            no_memory: sys::locale::no_memory(),
            numbers: process_numbers(),
        }
    }

    fn effective_measure(&self) -> Measure {
        let from_environment = || match self.prepared.variable(variable::MEASURE) {
            Some(value) => Measure::parse(value.as_bytes()).ok(),
            None => Measure::parse(std::env::var_os(variable::MEASURE)?.as_bytes()).ok(),
        };
        if self.share.is_some() {
            return Measure::Resident;
        }
        match self.measure.or_else(from_environment).unwrap_or_default() {
            // Without `/proc` nobody can look at what is resident; a limit on data is never less than that.
            Measure::Resident if !std::path::Path::new("/proc/self/status").exists() => Measure::Data,
            measure => measure,
        }
    }

    fn variables(
        &self,
        limit: Option<Limit>,
        bytes: Option<u64>,
        measure: Measure,
        soft_limit: Option<(Measure, Option<u64>)>,
        record: &OwnedFd,
    ) -> io::Result<Vec<(&'static str, OsString)>> {
        let fd = record.as_raw_fd();
        let inode = sys::memfd::sealed_inode(fd, FILE_BYTES).ok_or_else(io::Error::last_os_error)?;
        // What is preloaded is often a wrapper, which becomes another program; and its children are guarded, too.
        let place = match self.preload {
            Some(_) => record::variable_value_of(sys::process::pid(), fd, inode),
            None => record::variable_value(fd, inode),
        };
        let mut variables = vec![(variable::RECORD, place.into())];
        let mut said = None;
        if let Some(asked) = limit {
            let resolved = bytes.map_or(Limit::Off, Limit::Bytes);
            let limit = if self.keep_lower_limit { asked } else { resolved };
            let text = limit.to_string();
            said = (self.limit_is_said == Said::OnCommandLine).then(|| text.clone());
            if !(self.limit_is_said == Said::Nowhere && matches!(asked, Limit::Auto | Limit::Off)) {
                variables.push((variable::LIMIT, text.into()));
            }
            variables.push((variable::MEASURE, measure.as_str().into()));
        }
        // Under the measure `resident` a guard sets it, and marks it.
        let soft_limit = soft_limit.filter(|(measure, _)| *measure != Measure::Resident);
        let soft = soft_limit.and_then(|(measure, set)| Some((measure, set?, soft_of_the_users(measure))));
        let data_below = soft_of_the_users(Measure::Data).filter(|_| self.has_limit_of_the_users_on_data());
        let inherited = if self.report.is_none() { outer::inherited_report() } else { None };
        let report = self.report.as_ref().or(inherited.as_ref());
        let report = report.map(|(target, file)| (file, target.as_os_str()));
        if let Some((_, target)) = report {
            variables.push((variable::REPORT, target.to_owned()));
        }
        let above = outer::reports_above(inherited.is_none());
        let outer = outer::variable_value(soft, data_below, said.as_deref(), &above, report);
        if !outer.is_empty() {
            variables.push((variable::OUTER, outer));
        }
        if let (Some(by_limit), Some(bytes)) = (&self.by_limit, bytes) {
            variables.extend(by_limit(bytes));
        }
        if let Some(list) = &self.preload {
            variables.push((LD_PRELOAD, list.clone()));
        }
        variables.extend(self.share.as_ref().map(SharedBudget::variable));
        if let Some(code) = self.exit_code {
            variables.push((variable::EXIT_CODE, code.to_string().into()));
        }
        if self.sufficient != Sufficient::default() || std::env::var_os(variable::VERDICT).is_some() {
            variables.push((variable::VERDICT, self.sufficient.as_str().into()));
        }
        if self.quiet {
            variables.push((variable::QUIET, "1".into()));
        }
        if let Some(profile) = &self.profile {
            variables.push((variable::PROFILE, profile.clone().into()));
        }
        let token = match &self.token {
            Token::Given(token) => token.clone(),
            Token::New => new_token(),
            Token::Inherited => return Ok(variables),
        };
        if token.len() > TOKEN_MAX_BYTES || token.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("token {token:?} cannot be used: write up to {TOKEN_MAX_BYTES} bytes without NUL"),
            ));
        }
        variables.push((variable::TOKEN, token.into()));
        Ok(variables)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("command", &self.prepared)
            .field("limit", &self.limit)
            .field("measure", &self.measure)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// What a try held and asked for, in bytes: so much has to be free for another one.
fn needed(ended: &Ended) -> u64 {
    match &ended.outcome {
        Outcome::OutOfMemory(report) => {
            report.resident().unwrap_or(0).saturating_add(report.requested().unwrap_or(0))
        }
        _ => 0,
    }
}

/// The soft limit of this process, but for one that a guard or an outer launcher set.
fn soft_of_the_users(measure: Measure) -> Option<u64> {
    let now = rlimit(measure.into());
    let users = || if measure == Measure::AddressSpace { now.soft } else { sys::memory::ceiling_of(now) };
    sys::memory::replaced_soft_limit(measure).unwrap_or_else(users)
}

fn new_record() -> io::Result<OwnedFd> {
    let record = sys::memfd::create_sealed(c"oomguard-record", FILE_BYTES)?;
    Ok(sys::child::move_up(record, FIRST_DESCRIPTOR))
}

fn new_token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: only that no two are the same.
    format!("{}-{}", sys::process::pid(), NEXT.fetch_add(1, Ordering::Relaxed))
}
