//! Who looks after a budget that processes share. Grants need nobody, but somebody looks whether what the ledger says is true: charges
//! those who have taken memory without asking; compares all with what the container is charged, and takes what no row holds off
//! the budget; and asks the greediest to leave before the kernel kills everybody. A few times a second, and the oftener the nearer.

use super::charges::{Charges, Holdings, held_throughout, sum_of};
use super::look::{Over, send, tell};
use super::race::{Race, edge};
use super::sys;
use super::sys::memory::MemoryUse;
use super::threads::threads_of;
use crate::cgroup::Filling;
use crate::contract::{Cause, LAST_WORDS_DEADLINE_MS};
use crate::growth::is_alive;
use crate::ledger::{Id, Ledger, Row};
use crate::overrun::{AGAIN_MS, ASKED_TO_LEAVE, most};
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What those who have a budget know of who looks after it.
#[derive(Default)]
pub(super) struct Notes {
    state: Mutex<State>,
    is_over: Condvar,
}

#[derive(Default)]
struct State {
    is_over: bool,
    left: Vec<Over>,
    /// Whom to tell that it gets short.
    listeners: Vec<Listener>,
}

pub(super) type Listener = Box<dyn FnMut(Shortage) + Send>;

impl Notes {
    /// Nobody has the budget any more.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.is_over.notify_all();
    }

    /// Those that were asked to leave so far.
    pub(super) fn left(&self) -> Vec<Over> {
        self.state.lock().left.clone()
    }

    pub(super) fn add_listener(&self, listener: Listener) {
        self.state.lock().listeners.push(listener);
    }
}

/// How a shared budget stands that gets short.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Shortage {
    /// What there is to share, in bytes; less where the container has no room for more.
    pub permitted: u64,
    /// What of it is leased.
    pub leased: u64,
    /// How many processes wait for others to give memory back.
    pub waiting: usize,
}

struct Watch {
    ledger: &'static Ledger,
    /// What there is to share, here and now.
    size: Box<dyn Fn() -> Option<u64> + Send>,
    notes: Arc<Notes>,
    charges: Charges,
    race: Race,
    /// Since when more is in use than there may be.
    over_since: Option<Instant>,
    /// When it was looked last, and what was in use.
    last: Option<(Instant, u64)>,
    next_search: Instant,
    asked: Option<Asked>,
    /// Those that could not be made to leave: another user's, or one that the kernel holds.
    stay: HashSet<Id>,
    /// It was short at the last look.
    is_short: bool,
    /// More than half of it was left.
    has_much_room: bool,
    processors: u64,
}

/// Somebody who was asked to leave.
struct Asked {
    id: Id,
    pidfd: Option<OwnedFd>,
    at: Instant,
    /// How much processor time it had used by then.
    processor_ns: u64,
}

impl Asked {
    /// Whether it has had the time to begin to. To kill one that gets no processor would not end it sooner. `may_run`: it does not
    /// stand still any more.
    fn has_had_its_time(&self, may_run: bool) -> bool {
        let pid = self.id.pid();
        let has_run = || {
            sys::proc::processor_ns_of(pid)
                .is_none_or(|now| now.saturating_sub(self.processor_ns) >= OBEYS_WITHIN_NS)
        };
        let waits = || {
            matches!(sys::proc::state_of(pid), Some(b'R' | b'D'))
                && sys::proc::is_to_handle(pid, libc::SIGABRT)
        };
        let is_about_to = || !may_run || waits();
        let elapsed = self.at.elapsed();
        elapsed > OBEYS_WITHIN && (elapsed > ENDS_WITHIN || !is_about_to() || has_run())
    }
}

/// So many of its threads come first.
const MOST_THREADS: usize = 64;
/// How soon one who was asked to leave must have begun to.
const OBEYS_WITHIN: Duration = Duration::from_millis(50);
/// So much processor time it may use until then, where it has to wait for one.
const OBEYS_WITHIN_NS: u64 = 20_000_000;
/// How long one may take that has begun to.
const ENDS_WITHIN: Duration = Duration::from_millis(LAST_WORDS_DEADLINE_MS + 2000);
/// So long nobody else is looked at, where the others stand still.
const LEAVES_ALONE: Duration = Duration::from_millis(250);
const SEARCH_EVERY: Duration = Duration::from_millis(200);
const SEARCH_AT_LEAST_EVERY: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Where more than half of the budget is left.
const LONGEST_PAUSE_WITH_ROOM: Duration = Duration::from_secs(2);
const SHORTEST_PAUSE_MS: u64 = 5;
/// Where they were held still, as they fill the container.
const PAUSE_IN_A_RACE: Duration = Duration::from_millis(2);
/// Where one of those is yet to go on.
const PAUSE_TO_LET_GO: Duration = Duration::from_micros(200);
/// The least time between two glances at what the container is charged.
const SHORTEST_GLANCE: Duration = Duration::from_millis(4);
/// The same where some may write to what they share with their parent.
const SHORTEST_GLANCE_AT_HEIRS: Duration = Duration::from_millis(1);

/// What a look found, in bytes.
struct Found {
    /// What all rows together are charged for.
    charged: u64,
    /// What is in use that they are not charged for, as far as the tree is concerned.
    beside: u64,
    container: Option<Filling>,
    /// With so little left the container is about to overflow.
    edge: u64,
}

impl Found {
    /// Whether the container is about to overflow, and those who share the budget have a part in it: where others fill it,
    /// nothing is gained by their end. `own`: what they hold.
    fn fills(&self, container: Filling, own: u64) -> bool {
        container.left() < self.edge && own >= container.limit / 16
    }

    /// Whether what is left of the container is not enough for a moment's growth, as after it was made smaller.
    fn is_near(&self) -> bool {
        self.container.is_some_and(|container| container.left() < container.limit / 16)
    }
}

/// Looks after that budget from now on, until it is told the end.
pub(super) fn start(
    ledger: &'static Ledger,
    size: impl Fn() -> Option<u64> + Send + 'static,
    mark: Vec<u8>,
) -> io::Result<Arc<Notes>> {
    let notes = Arc::new(Notes::default());
    // Which reads files of the cgroup.
    let processors = std::thread::available_parallelism().map_or(1, |number| number.get() as u64);
    let watch = Watch {
        ledger,
        size: Box::new(size),
        notes: Arc::clone(&notes),
        charges: Charges::new(ledger, mark),
        race: Race::new(ledger, processors),
        over_since: None,
        last: None,
        next_search: Instant::now(),
        asked: None,
        stay: HashSet::new(),
        is_short: false,
        has_much_room: false,
        processors,
    };
    let builder = std::thread::Builder::new().name("oomguard-budget".into()).stack_size(128 << 10);
    builder.spawn(|| watch.run())?;
    Ok(notes)
}

impl Watch {
    /// Until nobody has the budget any more. Whoever stands still then goes on, as this thread ends.
    fn run(mut self) {
        sys::turns::come_first();
        loop {
            let pause = self.look();
            self.race.let_go_on(self.asked.is_some() || self.over_since.is_some());
            // It may take its time: nobody stands still for it who need not.
            self.tell_if_short();
            if self.rest(pause) {
                return;
            }
        }
    }

    /// One look; how long it is until the next.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        self.charges.hold_if_it_is_a_race(&mut self.race);
        let is_new = |asked: &Asked| asked.at.elapsed() < LEAVES_ALONE;
        if self.race.is_on() && self.asked.as_ref().is_some_and(is_new) && self.is_waiting_for_leave() {
            // The others stand still, and it needs the processor more than a look does.
            return PAUSE_IN_A_RACE;
        }
        if now >= self.next_search {
            self.charges.search();
            // A two-hundredth of a processor at most, and a tenth of that where there is much room.
            let times = if self.has_much_room { 2000 } else { 200 };
            self.next_search =
                Instant::now() + (now.elapsed() * times).clamp(SEARCH_EVERY, SEARCH_AT_LEAST_EVERY);
            if let Some(budget) = (self.size)().filter(|bytes| *bytes != self.ledger.budget()) {
                self.ledger.set_budget(budget);
                self.ledger.note_movement(sys::clock::monotonic_ms());
            }
        }
        let left_behind = self.ledger.left_behind();
        let charged = self.charges.charge(self.has_much_room, &mut self.race);
        let mut container = self.race.look();
        let beside = self.charges.held_beside(charged, container, &mut self.race);
        if self.charges.holdings_since(now).is_some() {
            // To find out what all hold takes its time.
            container = self.race.look();
        }
        let edge = container.map_or(0, |container| self.race.edge(container.limit));
        let found = Found { charged, beside, container, edge };
        self.charges.note_written(found.container);
        self.set_ceiling(&found);
        self.ledger.forget_left_behind(left_behind);
        let room = self.room(&found);
        self.has_much_room = !self.is_short && room.is_some_and(|room| room > self.ledger.budget() / 2);
        let in_use = found.charged.saturating_add(found.beside);
        let grown = self.last.map_or(0, |(at, before)| {
            let ms = u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX).max(1);
            in_use.saturating_sub(before) / ms
        });
        self.last = Some((now, in_use));
        let was_asked = self.asked.is_some();
        if self.is_waiting_for_leave() {
            self.over_since = None;
            return Duration::from_millis(SHORTEST_PAUSE_MS);
        }
        if was_asked {
            // It has made room since the container was looked at.
            self.over_since = Some(now);
            return PAUSE_TO_LET_GO;
        }
        let Some(room) = room else {
            self.ledger.note_over(sys::clock::monotonic_ms());
            let is_time = self.is_time_to_leave(&found);
            let holdings = if is_time { self.over_indeed(&found, now) } else { None };
            let is_over = holdings.is_some();
            if let Some(holdings) = holdings {
                self.ask_the_greediest(&holdings);
            }
            // Nobody stands still for what was counted twice.
            let is_decided = is_over || is_time && self.race.is_on();
            self.over_since = if is_decided { None } else { self.over_since.or(Some(now)) };
            return Duration::from_millis(AGAIN_MS.min(SHORTEST_PAUSE_MS));
        };
        self.over_since = None;
        if self.race.is_on() {
            return PAUSE_IN_A_RACE;
        }
        // As with a single process's limit: they may begin at any moment to use what they have mapped, one on each processor,
        // at some GiB a second.
        let pause = room / (2 * grown).max(self.processors << 20);
        // A glance finds soon enough that a container fills that has not of late.
        let is_quiet = grown == 0 && (!found.is_near() || self.race.is_still());
        let least = if is_quiet { 20 } else { SHORTEST_PAUSE_MS };
        // A thousandth of a processor, if that is not too seldom.
        let longest = if self.has_much_room { now.elapsed() * 1000 } else { Duration::ZERO };
        let longest = longest.clamp(LONGEST_PAUSE, LONGEST_PAUSE_WITH_ROOM);
        Duration::from_millis(pause).clamp(Duration::from_millis(least), longest)
    }

    /// Waits for the next look, or until the container is charged so much more that it cannot wait. Whether it was the last.
    fn rest(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let left = self.race.left().unwrap_or(u64::MAX);
        // As fast as memory is written to, by one on each processor.
        let shortest = if self.race.may_begin() { SHORTEST_GLANCE_AT_HEIRS } else { SHORTEST_GLANCE };
        let glance = Duration::from_millis(left / (self.processors << 22)).max(shortest);
        let before = if glance < pause { self.race.charged() } else { None };
        let mut state = self.notes.state.lock();
        while !state.is_over {
            let most = match before {
                _ if !self.race.have_gone_on() => PAUSE_TO_LET_GO,
                Some(_) => glance,
                None => pause,
            };
            let _ = self.notes.is_over.wait_until(&mut state, until.min(Instant::now() + most));
            let now = || self.race.charged();
            let has_grown =
                || before.zip(now()).is_some_and(|(before, now)| now.saturating_sub(before) > left / 4);
            if Instant::now() >= until || has_grown() {
                break;
            }
        }
        state.is_over
    }

    /// Tells those who want to know that it has got short.
    fn tell_if_short(&mut self) {
        let (permitted, leased) = (self.ledger.permitted(), self.ledger.leased());
        let waiting = self.ledger.taken_rows().filter(|row| row.waiting_since_ms() != 0).count();
        let was_short = std::mem::replace(
            &mut self.is_short,
            waiting > 0 || permitted.saturating_sub(leased) < permitted / 16,
        );
        if !self.is_short || was_short {
            return;
        }
        // Not under the lock, which whoever listens may want.
        let mut listeners = std::mem::take(&mut self.notes.state.lock().listeners);
        listeners.iter_mut().for_each(|tell| tell(Shortage { permitted, leased, waiting }));
        let mut state = self.notes.state.lock();
        listeners.append(&mut state.listeners);
        state.listeners = listeners;
    }

    /// Takes what no row holds off what may be leased, and what rows hold above their leases: it is in use, and nobody else's to have.
    fn set_ceiling(&self, found: &Found) {
        let tree = self.ledger.budget().saturating_sub(found.beside).saturating_sub(self.charges.beyond());
        let container = found.container.map_or(u64::MAX, |container| {
            let free = container.free().saturating_sub(margin(container.limit));
            found.charged.saturating_sub(self.charges.beyond()).saturating_add(free)
        });
        let uncovered =
            found.container.map_or(found.beside, |container| container.used.saturating_sub(found.charged));
        self.ledger.note_container(found.container.map(|container| container.limit), uncovered);
        self.ledger.set_ceiling(tree.min(container));
    }

    /// What is left until somebody has to leave; `None`: somebody has to.
    fn room(&self, found: &Found) -> Option<u64> {
        let tree = most(self.ledger.budget()).checked_sub(found.charged.saturating_add(found.beside))?;
        let container = match found.container {
            Some(container) => container.left().checked_sub(found.edge)?,
            None => u64::MAX,
        };
        Some(tree.min(container))
    }

    /// Whether somebody has to leave now: a container that is about to overflow does not wait, and neither does a tree that
    /// is far over its budget. One that is a little over has a moment to give something back; a short one, where some stand still.
    fn is_time_to_leave(&self, found: &Found) -> bool {
        const MOMENT: Duration = Duration::from_secs(1);
        const MOMENT_IN_A_RACE: Duration = Duration::from_millis(40);
        let (budget, in_use) = (self.ledger.budget(), found.charged.saturating_add(found.beside));
        if self.race.is_on() {
            let is_full = found.container.is_some_and(|container| {
                let edge = if self.race.is_by_heirs() { found.edge } else { edge(container.limit) };
                container.left() < edge
            });
            let is_old = self.over_since.is_some_and(|since| since.elapsed() >= MOMENT_IN_A_RACE);
            return in_use > budget || is_full || is_old;
        }
        let Some(since) = self.over_since else { return false };
        let is_far = in_use > budget.saturating_add(budget / 8);
        let is_full = found.container.is_some_and(|container| found.fills(container, in_use))
            || self.is_written_full(found);
        is_far || is_full || since.elapsed() >= if found.is_near() { MOMENT / 10 } else { MOMENT }
    }

    /// What each holds, if the container is still about to overflow now that this is known; or if what they hold together is too
    /// much, also when it is looked once more than in the look that began `then`.
    fn over_indeed(&mut self, found: &Found, then: Instant) -> Option<Holdings> {
        let mut holdings = self.charges.holdings();
        let own = sum_of(&holdings);
        let found = Found { container: self.race.look(), ..*found };
        let fills = found.container.is_some_and(|container| found.fills(container, own));
        if fills || self.is_written_full(&found) {
            return Some(holdings);
        }
        let together = match self.charges.holdings_since(then) {
            Some(before) => held_throughout(before, &holdings),
            // Whoever grew stands still.
            None if self.race.is_on() && self.charges.are_those_of(&holdings) => own,
            None => {
                let before = std::mem::replace(&mut holdings, self.charges.holdings());
                held_throughout(&before, &holdings)
            }
        };
        if together > most(self.ledger.budget()) {
            return Some(holdings);
        }
        let needed = found.container.map_or(0, |container| container.needed);
        self.charges.note_together(sum_of(&holdings), found.charged, needed);
        None
    }

    /// Whether the container is about to overflow with files in memory that nobody holds, and one of those who share the budget has
    /// written them: while that one goes on, nothing helps that others leave.
    fn is_written_full(&self, found: &Found) -> bool {
        found.container.is_some_and(|container| container.left() < found.edge)
            && self.charges.writer().is_some()
    }

    /// Asks the process that holds most to leave; or the one that writes what nobody holds.
    fn ask_the_greediest(&mut self, holdings: &Holdings) {
        let writer = self.charges.writer();
        // Of those that hold about the same, the youngest: not the one that the others are part of.
        let step = (self.ledger.budget() / 16).max(1);
        let by_use = |row: &&Row| {
            let id = row.id();
            let share = id.and_then(|id| holdings.get(&id).copied()).unwrap_or(row.held());
            (writer.is_some() && id == writer, share / step, id.map(Id::start), id.map(Id::pid))
        };
        let may_go = |row: &&Row| row.id().is_some_and(|id| !self.stay.contains(&id));
        let Some(row) = self.ledger.taken_rows().filter(may_go).max_by_key(by_use) else { return };
        let Some(id) = row.id().filter(|id| is_alive(*id)) else { return };
        let pidfd = sys::child::pidfd(id.pid()).ok();
        if !is_alive(id) {
            return;
        }
        row.ask_to_leave(sys::clock::monotonic_ms());
        let memory: MemoryUse = sys::memory::memory_use_of(id.pid());
        let program = sys::proc::program_of(id.pid());
        let over = Over {
            cause: Cause::AskedToLeave,
            pid: id.pid(),
            program,
            memory,
            at_ms: sys::clock::monotonic_ms(),
        };
        self.notes.state.lock().left.push(over);
        // Nobody is served by its having to wait for a processor.
        threads_of(id.pid()).take(MOST_THREADS).for_each(sys::turns::let_come_first);
        tell(pidfd.as_ref(), id.pid(), ASKED_TO_LEAVE);
        self.race.spare(id);
        let processor_ns = sys::proc::processor_ns_of(id.pid()).unwrap_or(0);
        self.asked = Some(Asked { id, pidfd, at: Instant::now(), processor_ns });
    }

    /// Whether one who was asked to leave is still there; it is made to, once it has had its time.
    fn is_waiting_for_leave(&mut self) -> bool {
        let may_run = self.race.have_gone_on();
        let Some(asked) = &self.asked else { return false };
        if !is_alive(asked.id) {
            self.asked = None;
            return false;
        }
        if asked.at.elapsed() > 2 * ENDS_WITHIN {
            self.stay.insert(asked.id);
            self.asked = None;
            return false;
        }
        let has_begun = self.ledger.taken_rows().any(|row| row.id() == Some(asked.id) && row.is_leaving());
        let has_had_its_time =
            if has_begun { asked.at.elapsed() > ENDS_WITHIN } else { asked.has_had_its_time(may_run) };
        if has_had_its_time {
            send(asked.pidfd.as_ref(), asked.id.pid(), libc::SIGKILL);
        }
        true
    }
}

/// So much of a container's limit is never leased: between two looks, others in it take memory as well.
fn margin(limit: u64) -> u64 {
    (limit / 64).max(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::wait_until;
    use crate::growth::id_of;
    use std::process::{Child, Command};

    #[test]
    fn who_is_asked_to_leave_and_gets_no_processor_has_not_had_its_time() {
        let shell = |does| Command::new("/bin/sh").args(["-c", does]).spawn().unwrap();
        let mut busy = shell("trap exit ABRT; while :; do :; done");
        let mut deaf = shell("trap '' ABRT; while :; do :; done");
        let mut idle = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let at = Instant::now().checked_sub(OBEYS_WITHIN * 2).unwrap();
        let asked = |pid, processor_ns| Asked { id: id_of(pid).unwrap(), pidfd: None, at, processor_ns };
        let [waits, has_run] = [u64::MAX, 0].map(|processor_ns| asked(busy.id(), processor_ns));
        let [ignores, sleeps] = [&deaf, &idle].map(|one| asked(one.id(), u64::MAX));
        let runs = |one: &Child| sys::proc::processor_ns_of(one.id()).is_some_and(|ns| ns > 100_000_000);
        wait_until("the shells have begun", || runs(&busy) && runs(&deaf));
        wait_until("it has run", || has_run.has_had_its_time(true));
        let state = |pid| sys::proc::state_of(pid);
        wait_until("two run, one sleeps", || {
            [&busy, &deaf, &idle].map(|one| state(one.id())) == [Some(b'R'), Some(b'R'), Some(b'S')]
        });
        let found = [(&waits, true), (&ignores, true), (&sleeps, true), (&sleeps, false)]
            .map(|(asked, may_run)| asked.has_had_its_time(may_run));
        for one in [&mut busy, &mut deaf, &mut idle] {
            one.kill().and_then(|()| one.wait()).unwrap();
        }
        assert_eq!(
            found,
            [false, true, true, false],
            "who waits for a processor; does not heed; sleeps; is yet to go on"
        );
    }
}
