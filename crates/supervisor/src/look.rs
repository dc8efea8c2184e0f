//! A look at a worker with a limit on what is resident, and at all that descends from it, the oftener the nearer they are.
//! What was mapped and is used later asks nobody: whoever is found over its limit, and still is a moment later, is told to
//! end. One that has no guard, or does not end, is killed, and this process speaks for it.
//!
//! It also moves the soft limits that the guards and tracers have set: what was granted and never used makes room for others,
//! and what was used without asking is taken off.

use super::descendants;
use super::sys;
use super::sys::memory::{MemoryUse, Mover, Resource, Untouched, is_marked, marked_standing, settled};
use super::threads::memory_of;
use crate::contract::{Cause, Evidence, LAST_WORDS_DEADLINE_MS, LimitSource, Measure};
use crate::overrun::{AGAIN_MS, Finding, Suspicion, TOLD, most, pause_ms};
use crate::record::{Claims, HEAD_BYTES, State};
use crate::text::Text;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Somebody who was over its limit and has been told to end, or killed.
#[derive(Clone)]
pub(super) struct Over {
    pub(super) cause: Cause,
    pub(super) pid: u32,
    pub(super) program: Text<64>,
    pub(super) memory: MemoryUse,
    /// When, by the clock that all processes share.
    pub(super) at_ms: u64,
}

#[derive(Default)]
struct Shared {
    is_over: bool,
    found: Vec<Over>,
}

/// Looks until it is dropped.
pub(super) struct Look {
    limit: Arc<AtomicU64>,
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

impl Look {
    pub(super) fn start(
        worker: u32,
        limit: u64,
        whose: Whose,
        record: OwnedFd,
        shares_budget: bool,
    ) -> std::io::Result<Look> {
        let shared = Arc::new((Mutex::new(Shared::default()), Condvar::new()));
        let limit = Arc::new(AtomicU64::new(limit));
        let looker = Looker {
            worker,
            limit: Arc::clone(&limit),
            has_changed: false,
            whose,
            record,
            shares_budget,
            shared: Arc::clone(&shared),
            tree: HashMap::new(),
            seen: HashSet::new(),
        };
        std::thread::Builder::new()
            .name("oomguard-look".into())
            .stack_size(128 << 10)
            .spawn(|| looker.run())?;
        Ok(Look { limit, shared })
    }

    /// The limit is another one now.
    pub(super) fn set_limit(&self, bytes: u64) {
        // Relaxed, here and below: a number by itself.
        self.limit.store(bytes, Ordering::Relaxed);
        self.shared.1.notify_all();
    }

    /// Those that were told to end so far.
    pub(super) fn found(&self) -> Vec<Over> {
        self.shared.0.lock().found.clone()
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.shared.0.lock().is_over = true;
        self.shared.1.notify_all();
    }
}

/// A process of the worker's tree.
struct Member {
    due: Instant,
    last: Option<(Instant, u64)>,
    untouched: Untouched,
    suspicion: Suspicion,
    /// By this nobody else can be meant, from the moment on in which it was found over its limit.
    pidfd: Option<OwnedFd>,
    standing: Standing,
}

enum Standing {
    Alive,
    /// It was told to end, or killed.
    Told(Instant),
    Gone,
}

/// Which processes are this one's to hold.
pub(super) struct Whose {
    /// A variable that all descendants have in their environment, or nothing.
    pub(super) mark: Text<80>,
    /// What the worker executes has no limit: nobody without that variable is held.
    pub(super) only_marked: bool,
    /// The variables by which a process that has got its limit from somebody else is known.
    pub(super) ours: Vec<(&'static str, OsString)>,
}

impl Whose {
    /// Whether its limit is not for this one to hold: it is below a launcher or a supervisor in the worker's tree, or has another
    /// one by the user's own word; or it was executed where what is executed has none. What was only forked has that still,
    /// whatever became of its environment: it is marked as ours.
    fn is_left_alone(&self, pid: u32) -> bool {
        let is_ours = || sys::memory::soft_limit_on_data_of(pid).is_some_and(is_marked);
        let was_executed = || !is_ours() && !sys::proc::environment_has(pid, self.mark.as_bytes());
        self.only_marked && was_executed() || has_another_limit(pid, &self.ours)
    }
}

struct Looker {
    worker: u32,
    limit: Arc<AtomicU64>,
    /// It is another one than at the start.
    has_changed: bool,
    whose: Whose,
    record: OwnedFd,
    /// The soft limits are as the leases are, and not to be moved here.
    shares_budget: bool,
    shared: Arc<(Mutex<Shared>, Condvar)>,
    tree: HashMap<u32, Member>,
    /// The processes that are known, and whose parents need not be asked after again.
    seen: HashSet<u32>,
}

/// How soon those that were told to end must have begun to.
const OBEYS_WITHIN: Duration = Duration::from_millis(50);
/// How long one may take that has begun to.
const ENDS_WITHIN: Duration = Duration::from_millis(LAST_WORDS_DEADLINE_MS + 2000);

impl Looker {
    fn run(mut self) {
        self.tree.insert(self.worker, Member::new());
        let mut next_search = Instant::now() + SEARCH_EVERY;
        let mut limit = self.limit.load(Ordering::Relaxed);
        loop {
            let now = Instant::now();
            let limit_now = self.limit.load(Ordering::Relaxed);
            if limit_now != limit {
                (limit, self.has_changed) = (limit_now, true);
                self.search();
                self.tree.values_mut().for_each(|member| member.due = now);
            }
            if now >= next_search {
                self.search();
                // A four-thousandth of a processor at most, where there are few processes.
                next_search =
                    Instant::now() + (now.elapsed() * 4000).clamp(SEARCH_EVERY, SEARCH_AT_LEAST_EVERY);
            }
            let due: Vec<u32> =
                self.tree.iter().filter(|(_, member)| member.due <= now).map(|(pid, _)| *pid).collect();
            for pid in due {
                self.look_at(pid);
            }
            self.tree.retain(|_, member| !matches!(member.standing, Standing::Gone));
            let until =
                self.tree.values().map(|member| member.due).min().unwrap_or(next_search).min(next_search);
            let shared = Arc::clone(&self.shared);
            let mut state = shared.0.lock();
            if !state.is_over {
                let _ = shared.1.wait_until(&mut state, until);
            }
            if state.is_over {
                return;
            }
        }
    }

    /// Finds the processes that have come since, and forgets those that have gone.
    fn search(&mut self) {
        let mut new = descendants::arrivals(&mut self.seen);
        let own = sys::process::pid();
        // A child may have a lower number than its parent, once the numbers have gone round.
        for _ in 0..2 {
            new.retain(|pid| {
                let Some(parent) = sys::proc::parent_of(*pid) else { return false };
                let is_orphan = parent == 1 || parent == own;
                let is_ours = self.tree.contains_key(&parent)
                    || is_orphan
                        && *pid != own
                        && !self.whose.mark.as_bytes().is_empty()
                        && sys::proc::environment_has(*pid, self.whose.mark.as_bytes());
                if is_ours {
                    self.tree.entry(*pid).or_insert_with(Member::new);
                }
                !is_ours
            });
        }
    }

    fn look_at(&mut self, pid: u32) {
        let limit = self.limit.load(Ordering::Relaxed);
        let Some(member) = self.tree.get_mut(&pid) else { return };
        let now = Instant::now();
        if let Standing::Told(at) = &member.standing {
            let has_begun = has_begun_to_end(&self.record, pid);
            if now >= *at + if has_begun { ENDS_WITHIN } else { OBEYS_WITHIN } {
                send(member.pidfd.as_ref(), pid, libc::SIGKILL);
                member.standing = Standing::Gone;
            } else if matches!(sys::proc::state_of(pid), None | Some(b'Z' | b'X')) {
                member.standing = Standing::Gone;
            }
            member.due = now + Duration::from_millis(AGAIN_MS);
            return;
        }
        let memory = memory_of(pid);
        let Some(held) = memory.held() else {
            // A zombie has no memory any more; one whose files may not be read is not looked at.
            member.standing = if pid == self.worker { Standing::Alive } else { Standing::Gone };
            member.due = now + SEARCH_AT_LEAST_EVERY;
            return;
        };
        let (grown, ms) = member.last.map_or((0, 0), |(at, before)| {
            (held.saturating_sub(before), u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX))
        });
        member.last = Some((now, held));
        member.due = now + Duration::from_millis(pause_ms(limit, held, grown, ms));
        if let Some(data) = memory.data {
            member.untouched.note(data, held, sys::clock::monotonic_ms());
            if !self.shares_budget {
                move_soft_limit(pid, limit, &member.untouched);
            }
            if self.has_changed && stands_elsewhere(pid, limit) && !self.whose.is_left_alone(pid) {
                let moved = |now| sys::memory::standing(now, limit);
                let _ = sys::memory::change_soft_limit(pid, Resource::Data, moved);
            }
        }
        let is_refused = || sys::memory::tells_of_refusal(sys::memory::soft_limit_on_data_of(pid));
        let is_refused = held > most(limit) && is_refused();
        match member.suspicion.look(limit, held, is_refused, sys::clock::monotonic_ms()) {
            Finding::Within => {
                member.pidfd = None;
                return;
            }
            Finding::Suspected(ms) => {
                member.pidfd = member.pidfd.take().or_else(|| sys::child::pidfd(pid).ok());
                member.due = now + Duration::from_millis(ms);
                return;
            }
            Finding::Over => {}
        }
        let asked = Instant::now();
        if self.whose.is_left_alone(pid) {
            member.suspicion.clear();
            member.due = now + SEARCH_AT_LEAST_EVERY;
            return;
        }
        if sys::memory::share_held_by(pid).is_some_and(|share| share <= most(limit)) {
            // It shares it with others. The answer is dear.
            member.suspicion.clear();
            member.due = Instant::now() + (asked.elapsed() * 100).max(Duration::from_millis(100));
            return;
        }
        let program = sys::proc::program_of(pid);
        self.shared.0.lock().found.push(Over {
            cause: Cause::Resident,
            pid,
            program,
            memory,
            at_ms: sys::clock::monotonic_ms(),
        });
        tell(member.pidfd.as_ref(), pid, TOLD);
        member.standing = Standing::Told(Instant::now());
        member.due = now + Duration::from_millis(AGAIN_MS);
    }
}

const SEARCH_EVERY: Duration = Duration::from_millis(100);
const SEARCH_AT_LEAST_EVERY: Duration = Duration::from_secs(2);

impl Member {
    fn new() -> Member {
        Member {
            due: Instant::now(),
            last: None,
            untouched: Untouched::default(),
            suspicion: Suspicion::default(),
            pidfd: None,
            standing: Standing::Alive,
        }
    }
}

/// The soft limit that a guard has set: to what is mapped and what is free, where it is far from that. Where a guard is
/// refused for that meanwhile, it asks again.
fn move_soft_limit(pid: u32, limit: u64, untouched: &Untouched) {
    let _ = sys::memory::change_soft_limit(pid, Resource::Data, |now| settled(now, untouched, limit));
}

/// Whether a limit of ours that nobody moves is another one than this.
fn stands_elsewhere(pid: u32, limit: u64) -> bool {
    let soft = sys::memory::soft_limit_on_data_of(pid);
    sys::memory::mover_of(soft) == Mover::Nobody && soft != Some(marked_standing(limit))
}

/// Whether a process was started with other values of these variables.
fn has_another_limit(pid: u32, ours: &[(&'static str, OsString)]) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|entry| {
        ours.iter().any(|(name, value)| {
            let said = entry.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            said.is_some_and(|said| said != value.as_bytes())
        })
    })
}

/// Whether it says its last words.
fn has_begun_to_end(record: &OwnedFd, pid: u32) -> bool {
    let mut copy = vec![0; HEAD_BYTES];
    let Ok(len) = sys::memfd::read_at(record.as_fd(), &mut copy, 0) else { return false };
    let copy = copy.get(..len).unwrap_or_default();
    let own = copy.first_chunk().and_then(Claims::read);
    let is_it = |claims: &Claims| claims.pid == pid && claims.state == State::Exhausted;
    own.is_some_and(|claims| is_it(&claims)) || Claims::read_descendants(copy).iter().any(is_it)
}

/// By a signal that a guard knows, and that nobody else gets.
pub(super) fn tell(pidfd: Option<&OwnedFd>, pid: u32, value: u64) {
    // A runtime without a guard may catch it, too, and would tell of a crash.
    if sys::memory::may_have_guard(pid) && sys::proc::handles(pid, libc::SIGABRT) {
        let told = sys::signals::Arrival {
            signal: libc::SIGABRT,
            code: libc::SI_QUEUE,
            sender: sys::process::pid(),
            user: 0,
            value,
        };
        if sys::signals::queue(pid, told).is_ok() {
            return;
        }
    }
    send(pidfd, pid, libc::SIGKILL);
}

pub(super) fn send(pidfd: Option<&OwnedFd>, pid: u32, signal: i32) {
    let _ = match pidfd {
        Some(pidfd) => sys::child::send_signal(pidfd.as_fd(), signal),
        None => sys::child::kill(pid, false, signal),
    };
}

impl Over {
    /// Whether that was so short before `at_ms` that who ended then may have passed it on.
    pub(super) fn is_recent(&self, at_ms: u64) -> bool {
        const SLACK_MS: u64 = 2000;
        let most_ms = u64::try_from(ENDS_WITHIN.as_millis()).unwrap_or(u64::MAX) + SLACK_MS;
        at_ms.saturating_sub(self.at_ms) <= most_ms
    }

    /// The report that it has not made itself; `known` is what a guard has said of the worker's limit.
    pub(super) fn report(
        &self,
        known: Option<&Claims>,
        limit: Option<u64>,
        source: LimitSource,
        exit_code: u8,
    ) -> Claims {
        let mut claims = known.cloned().unwrap_or_else(|| Claims::from_outside(exit_code, source));
        claims.limit = limit.or(claims.limit);
        claims.measure = Measure::Resident;
        Claims {
            state: State::Exhausted,
            pid: self.pid,
            tid: self.pid,
            program: self.program,
            thread: Text::from_bytes(b"main"),
            cause: self.cause,
            request: None,
            memory: self.memory,
            limit_refused: None,
            evidence: Some(Evidence::Outside),
            inferred: true,
            told: None,
            own_exit_code: None,
            own_signal: None,
            ..claims
        }
    }
}
