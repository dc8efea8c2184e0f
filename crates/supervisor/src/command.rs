//! What is done to a `Command`, and to the child between fork and exec.
//!
//! Unsafe code is allowed here, for the closure that runs in the child. It follows the rules for signal handlers
//! (signal-safety(7)): it only reads atomics and makes system calls, as another thread may have held any lock at the moment
//! of a fork, and as the child of a command that is known in all its parts runs in this process's memory. For std's commands
//! it is registered last, so the hooks that one came with run before it, and unlimited.

use super::entrance::{self, LD_PRELOAD};
use super::foreground::{CHANGED, Found};
use super::invocation::{Command, Invocation, Started};
use super::joining::{self, Joining};
use super::program;
use super::sys;
use super::sys::memory::{Resource, Rlimit, rlimit, set_rlimit};
use super::sys::signals::Signals;
use crate::contract::{Measure, variable};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

/// A command that can be started more than once, each time with other limits.
pub(super) struct Prepared {
    command: Command,
    /// Variables of ours that the command came with: the user's word holds.
    theirs: HashSet<OsString>,
    between: Arc<BetweenForkAndExec>,
    hooked: bool,
}

/// When a worker whose program does not set its limit itself gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetLimit {
    /// Before the program's first instruction. The price, for a [`std::process::Command`], is a fork, which copies the
    /// page tables of this process; a [`Command`] of this module is started without one.
    #[default]
    BeforeExec,
    /// For a [`std::process::Command`]: by prlimit(2) as soon as posix_spawn(3) has come back, some ten microseconds after
    /// exec as a rule, and later on a busy machine. What the program has allocated by then it keeps, and what it has
    /// started by then is not limited at all: not for a shell, nor for anything else that starts others at once.
    AfterExec,
}

/// What one start asks for.
pub(super) struct Start {
    /// The measure that the limit counts, and the soft limit to set; `Some(None)` is as much as the hard one allows.
    pub(super) soft_limit: Option<(Measure, Option<u64>)>,
    /// The hard limit becomes the same.
    pub(super) hard: bool,
    /// Descriptors that the child keeps.
    pub(super) record_fd: Option<i32>,
    /// Its alone: whoever else had it would pass for its descendant.
    pub(super) lifeline: Option<OwnedFd>,
    pub(super) joining: Option<Joining>,
    /// If it is followed, its tracer moves the soft limit on data, and lowers it once the program is there.
    pub(super) tracer_moves_limit: bool,
    pub(super) die_with_parent: bool,
    pub(super) set_limit: SetLimit,
    pub(super) variables: Vec<(&'static str, OsString)>,
}

static STARTS: Mutex<()> = Mutex::new(());

const NO_FD: i32 = -1;
const KEEP: u64 = 0;
const TO_THE_HARD_LIMIT: u64 = u64::MAX;

/// What the closure reads: set by the parent before each fork, copied with it.
struct BetweenForkAndExec {
    record_fd: AtomicI32,
    lifeline_fd: AtomicI32,
    /// The descriptors to the tracer and for the answer, and the tracer's number.
    joining: [AtomicI32; 3],
    tracer_moves_limit: AtomicBool,
    /// `KEEP`, `TO_THE_HARD_LIMIT`, or bytes.
    address_space: AtomicU64,
    data: AtomicU64,
    /// Which of the two is to be the hard limit as well: the measure's place, plus one; zero for neither.
    hard: AtomicU32,
    /// The parent whose death is the child's; zero for none.
    parent: AtomicU32,
    /// Whether signals are to be blocked and ignored as they were found.
    restore_signals: AtomicBool,
    blocked: AtomicU64,
    ignored: AtomicU64,
}

impl Prepared {
    pub(super) fn new(command: Command) -> Prepared {
        let ours = |name: &OsStr| name.as_encoded_bytes().starts_with(b"OOMGUARD_");
        let theirs = command
            .as_ref()
            .get_envs()
            .map(|(name, _)| name)
            .filter(|name| ours(name))
            .map(OsString::from)
            .collect();
        let between = Arc::new(BetweenForkAndExec {
            record_fd: AtomicI32::new(NO_FD),
            lifeline_fd: AtomicI32::new(NO_FD),
            joining: [const { AtomicI32::new(NO_FD) }; 3],
            tracer_moves_limit: AtomicBool::new(false),
            address_space: AtomicU64::new(KEEP),
            data: AtomicU64::new(KEEP),
            hard: AtomicU32::new(0),
            parent: AtomicU32::new(0),
            restore_signals: AtomicBool::new(false),
            blocked: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
        });
        Prepared { command, theirs, between, hooked: false }
    }

    /// What the child will find under `name`, if the command says so itself.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.command.as_ref().get_envs().find(|(key, _)| *key == name).and_then(|(_, value)| value)
    }

    /// Has the child start with signals as they were found, where `Command` would reset them.
    pub(super) fn restore_signals(&self, found: Found) {
        // Relaxed: as in `set`.
        self.between.blocked.store(found.blocked.0, Ordering::Relaxed);
        self.between.ignored.store(found.ignored.0, Ordering::Relaxed);
        self.between.restore_signals.store(true, Ordering::Relaxed);
    }

    /// Starts the command.
    pub(super) fn start(&mut self, start: Start) -> io::Result<Started> {
        for (name, value) in &start.variables {
            self.set_variable(name, value);
        }
        self.heed_preloaded(&start);
        // One at a time: while the descriptors of one child are open to exec, no other worker may be started, or it
        // would inherit them. What is the child's alone is closed here before another one is started.
        let _alone = STARTS.lock();
        let start = start;
        match self.command.invocation()? {
            Some(invocation) => self.start_by_clone(&start, &invocation),
            None => self.start_by_std(&start).map(Started::from),
        }
    }

    /// A library of an outer launcher's has no business in a program that no library of ours gets into.
    fn heed_preloaded(&mut self, start: &Start) {
        let is_set = start.variables.iter().any(|(name, _)| *name == LD_PRELOAD);
        let list = self.variable(LD_PRELOAD).map(OsStr::to_owned).or_else(|| std::env::var_os(LD_PRELOAD));
        let Some(list) = list.filter(|_| !is_set) else { return };
        if !matches!(self.entrance(), entrance::Entrance::Foreign | entrance::Entrance::Sanitized) {
            return;
        }
        match entrance::without_ours(&list) {
            rest if rest.is_empty() => self.command.env_remove(LD_PRELOAD),
            rest => self.command.env(LD_PRELOAD, rest),
        };
        // Its search for leaks is a tracer, and would wait for ever where an outer launcher's tracer is there already.
        let is_traced = || sys::proc::tracer_of(sys::process::pid()).is_some();
        if self.entrance() == entrance::Entrance::Sanitized && is_traced() {
            let said =
                self.variable(LSAN_OPTIONS).map(OsStr::to_owned).or_else(|| std::env::var_os(LSAN_OPTIONS));
            let mut options = said.unwrap_or_default();
            options.push(if options.is_empty() { "detect_leaks=0" } else { ":detect_leaks=0" });
            self.command.env(LSAN_OPTIONS, options);
        }
    }

    fn start_by_clone(&self, start: &Start, invocation: &Invocation<'_>) -> io::Result<Started> {
        // Who is followed waits for its tracer.
        let is_followed = start.joining.is_some();
        let limits_itself = !start.hard
            && !is_followed
            && start.soft_limit.is_some_and(|(measure, soft)| self.child_limits_itself(measure, soft));
        self.between.set(start, !limits_itself);
        let started = invocation.start(&|| self.between.apply(), is_followed)?;
        if limits_itself {
            self.set_limits_after_exec(started.pid, start);
        }
        Ok(started)
    }

    fn start_by_std(&mut self, start: &Start) -> io::Result<Child> {
        if self.hooked || self.needs_hook(start) {
            self.between.set(start, true);
            self.hook();
            return self.command.std_in_full()?.spawn();
        }
        if let Some(fd) = start.record_fd {
            sys::child::keep_across_exec(fd, true)?;
        }
        let child = self.command.std_in_full().and_then(process::Command::spawn);
        if let Some(fd) = start.record_fd {
            sys::child::keep_across_exec(fd, false)?;
        }
        if let Ok(child) = &child {
            self.set_limits_after_exec(child.id(), start);
        }
        child
    }

    /// For a program that sets its limit itself, this only makes sure; for any other, it is what sets it.
    fn set_limits_after_exec(&self, pid: u32, start: &Start) {
        let [address_space, data] = wanted_soft_limits(start);
        for (wanted, measure) in [(address_space, Measure::AddressSpace), (data, Measure::Data)] {
            if wanted == KEEP {
                continue;
            }
            // Fails for a program that runs as another user, or that is gone already.
            let _ = sys::memory::change_soft_limit(pid, measure.into(), |now| match start.set_limit {
                SetLimit::AfterExec => within_hard(wanted, now.hard),
                // It may have lowered it further, for reasons of its own.
                SetLimit::BeforeExec => Some(now.soft.map_or(wanted, |soft| soft.min(wanted))),
            });
        }
    }

    /// Whether something has to be done between fork and exec. It is dear: with a hook, `Command` forks, copying the
    /// page tables of this process (measured: 0.2 ms for a small parent, 6 ms for one of 100 MiB); without one it uses
    /// posix_spawn(3), which does not.
    fn needs_hook(&self, start: &Start) -> bool {
        // Relaxed: written by this thread.
        self.between.restore_signals.load(Ordering::Relaxed)
            || start.die_with_parent
            || start.hard
            || start.lifeline.is_some()
            || start.joining.is_some()
            || start.set_limit == SetLimit::BeforeExec
                && start.soft_limit.is_some_and(|(measure, soft)| !self.child_limits_itself(measure, soft))
    }

    fn child_limits_itself(&self, measure: Measure, soft: Option<u64>) -> bool {
        let Some(bytes) = soft else { return false };
        let says_otherwise =
            [variable::LIMIT, variable::MEASURE].iter().any(|name| self.theirs.contains(OsStr::new(name)));
        // What this process has must neither bind the child, nor have come from a guard that would not want it to.
        let inherits_enough = (measure == Measure::Resident
            || rlimit(measure.into()).soft.is_none_or(|own| own >= bytes))
            && sys::memory::replaced_soft_limit(measure.other()).is_none()
            && (measure != Measure::Resident || sys::memory::replaced_soft_limit(measure).is_none());
        !says_otherwise && inherits_enough && self.program_file().is_some_and(program::arms_itself)
    }

    /// The file that will be executed, where that is certain: neither looked up in a path, nor from a directory that is
    /// entered first.
    fn program_file(&self) -> Option<&Path> {
        let command = self.command.as_ref();
        let program = Path::new(command.get_program());
        let certain = program.is_absolute()
            || command.get_current_dir().is_none() && program.components().nth(1).is_some();
        certain.then_some(program)
    }

    /// The file that will be executed, through scripts, where it is one that the library can be preloaded into.
    pub(super) fn preloadable_file(&self) -> Option<PathBuf> {
        let file = entrance::program_of(self.command.as_ref())?;
        (entrance::Entrance::of(self.command.as_ref()) == entrance::Entrance::Preload).then_some(file)
    }

    pub(super) fn entrance(&self) -> entrance::Entrance {
        entrance::Entrance::of(self.command.as_ref())
    }

    /// Whether the program has to be seen from outside, as far as its file tells.
    pub(super) fn is_seen_from_outside_only(&self) -> bool {
        entrance::is_seen_from_outside_only(self.command.as_ref())
    }

    fn set_variable(&mut self, name: &'static str, value: &OsStr) {
        // The record is between this process and its child: there is nothing for a user to say.
        if name != variable::RECORD && self.theirs.contains(OsStr::new(name)) {
            return;
        }
        self.command.env(name, value);
    }

    fn hook(&mut self) {
        if self.hooked {
            return;
        }
        self.hooked = true;
        let between = Arc::clone(&self.between);
        // SAFETY: the closure only reads atomics and makes system calls, all async-signal-safe; its captured Arc is
        // neither cloned nor dropped in the child.
        unsafe { self.command.std_mut().pre_exec(move || between.apply()) };
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.command.fmt(f)
    }
}

impl BetweenForkAndExec {
    fn set(&self, start: &Start, with_limits: bool) {
        // Relaxed, here and below: the child is forked by the thread that wrote this.
        self.record_fd.store(start.record_fd.unwrap_or(NO_FD), Ordering::Relaxed);
        let lifeline_fd = start.lifeline.as_ref().map_or(NO_FD, AsRawFd::as_raw_fd);
        self.lifeline_fd.store(lifeline_fd, Ordering::Relaxed);
        let joining = start
            .joining
            .map_or([NO_FD; 3], |joining| [joining.socket, joining.result, joining.tracer.cast_signed()]);
        for (cell, value) in self.joining.iter().zip(joining) {
            cell.store(value, Ordering::Relaxed);
        }
        self.tracer_moves_limit.store(start.tracer_moves_limit, Ordering::Relaxed);
        let [address_space, data] = if with_limits { wanted_soft_limits(start) } else { [KEEP; 2] };
        self.address_space.store(address_space, Ordering::Relaxed);
        self.data.store(data, Ordering::Relaxed);
        let hard = match start.soft_limit {
            Some((measure, Some(_))) if start.hard => measure as u32 + 1,
            _ => 0,
        };
        self.hard.store(hard, Ordering::Relaxed);
        let parent = if start.die_with_parent { sys::process::pid() } else { 0 };
        self.parent.store(parent, Ordering::Relaxed);
    }

    /// Runs in the child. Async-signal-safe.
    fn apply(&self) -> io::Result<()> {
        for fd in [&self.record_fd, &self.lifeline_fd] {
            let fd = fd.load(Ordering::Relaxed);
            if fd != NO_FD {
                sys::child::keep_across_exec(fd, true)?;
            }
        }
        let parent = self.parent.load(Ordering::Relaxed);
        if parent != 0 {
            sys::child::die_with_parent(parent)?;
        }
        let [socket, result, tracer] = self.joining.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        let is_followed =
            socket != NO_FD && joining::join(Joining { socket, result, tracer: tracer.cast_unsigned() });
        for (cell, measure) in [(&self.address_space, Measure::AddressSpace), (&self.data, Measure::Data)] {
            let hard = self.hard.load(Ordering::Relaxed) == measure as u32 + 1;
            set_limit(measure, cell.load(Ordering::Relaxed), hard)?;
        }
        if is_followed && self.tracer_moves_limit.load(Ordering::Relaxed) {
            let hard = rlimit(Resource::Data).hard;
            let soft = Some(sys::memory::marked_followed_up_to(hard));
            set_rlimit(Resource::Data, Rlimit { soft, hard });
        }
        if self.restore_signals.load(Ordering::Relaxed) {
            let ignored = Signals(self.ignored.load(Ordering::Relaxed));
            for signal in CHANGED.into_iter().filter(|signal| ignored.has(*signal)) {
                sys::signals::set_ignored(signal);
            }
            sys::signals::set_blocked(Signals(self.blocked.load(Ordering::Relaxed)));
        }
        Ok(())
    }
}

const LSAN_OPTIONS: &str = "LSAN_OPTIONS";

/// Sets the soft limit as far as the hard one lets it, and leaves that one as it is, unless it is to be the same.
/// Async-signal-safe.
fn set_limit(measure: Measure, wanted: u64, hard: bool) -> io::Result<()> {
    if wanted == KEEP {
        return Ok(());
    }
    let now = rlimit(measure.into());
    let soft = within_hard(wanted, now.hard);
    if set_rlimit(measure.into(), Rlimit { soft, hard: if hard { soft } else { now.hard } }) {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn within_hard(wanted: u64, hard: Option<u64>) -> Option<u64> {
    match (wanted, hard) {
        (TO_THE_HARD_LIMIT, hard) => hard,
        (wanted, Some(hard)) => Some(wanted.min(hard)),
        (wanted, None) => Some(wanted),
    }
}

/// For address space and data: `KEEP`, `TO_THE_HARD_LIMIT`, or bytes.
fn wanted_soft_limits(start: &Start) -> [u64; 2] {
    [Measure::AddressSpace, Measure::Data].map(|measure| match start.soft_limit {
        Some((limited, soft)) if limited == measure => soft.unwrap_or(TO_THE_HARD_LIMIT),
        // This process may have a guard that lowered the other limit for itself: not for its children.
        Some(_) => before_ours(measure).map_or(KEEP, |before| before.unwrap_or(TO_THE_HARD_LIMIT)),
        None => KEEP,
    })
}

/// The soft limit of this process that was there before one of ours, its guard's or an outer launcher's; the outer `None`: it is
/// none of ours.
pub(super) fn before_ours(measure: Measure) -> Option<Option<u64>> {
    sys::memory::replaced_soft_limit(measure).or_else(|| {
        let now = rlimit(measure.into());
        let is_ours = measure == Measure::Data && now.soft.is_some_and(sys::memory::is_marked);
        is_ours.then(|| sys::memory::ceiling_of(now))
    })
}
