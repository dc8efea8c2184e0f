//! Where a container fills faster than anybody could be asked to leave: those who write to what they share with their parent ask
//! nobody, and four of them can fill it before one of them has so much as noticed. So they stand still until a look has found that
//! there is room, or until somebody has left.

use super::stillness::Stillness;
use super::sys;
use crate::cgroup::{Filling, UsageCounter, filling};
use crate::contract::Measure;
use crate::growth::is_alive;
use crate::ledger::{Id, Ledger, Row};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What was known of each process at the last look.
#[derive(Default)]
pub(super) struct Looked {
    /// When it was looked at, and how many pages it had been given by then: who has got none since holds no more.
    pub(super) pages: HashMap<Id, (Instant, u64)>,
    /// What it had written to files when the container began to be nearly full.
    pub(super) written: HashMap<Id, u64>,
}

pub(super) struct Race {
    ledger: &'static Ledger,
    pace: Pace,
    /// What the container is charged, cheap to read.
    usage: Option<UsageCounter>,
    still: Stillness,
    /// Somebody stands still.
    is_on: bool,
    /// It is for those who use memory without asking.
    by_heirs: bool,
    /// Those who have gone on, and the others not yet.
    turns: Vec<Turn>,
    /// When it was looked for more of them last, and whether somebody had to be held.
    sought: Option<(Instant, bool)>,
    /// Who was asked to leave last, and is not held.
    leaves: Option<Id>,
}

/// Somebody who goes on while others stand still.
struct Turn {
    id: Id,
    /// How much processor time it had used when it went on.
    processor_ns: u64,
    /// What the container was charged.
    charged: u64,
    at: Instant,
}

/// How fast the container fills.
#[derive(Default)]
struct Pace {
    /// When it was looked last, what was needed of the container, and what it was charged.
    last: Option<(Instant, Filling, u64)>,
    /// In bytes a millisecond.
    rate: u64,
    /// Whether the last look found it no fuller than the one before.
    is_still: bool,
    /// How long it took to find out what all hold together, in milliseconds.
    look_ms: u64,
    /// So many may write at the same time.
    processors: u64,
}

impl Turn {
    /// Whether it has run, or waits for something else than a processor.
    fn is_over(&self) -> bool {
        let has_run = || {
            sys::proc::processor_ns_of(self.id.pid())
                .is_none_or(|now| now.saturating_sub(self.processor_ns) >= TURN_NS)
        };
        let is_about_to = || matches!(sys::proc::state_of(self.id.pid()), Some(b'R' | b'D' | b't'));
        self.at.elapsed() >= TURN && (!is_about_to() || has_run())
    }
}

impl Pace {
    /// It is charged so much now.
    fn note_charge(&mut self, charged: u64) {
        let Some((at, _, before)) = self.last else { return };
        self.rate = self.rate.max(charged.saturating_sub(before) / ms_since(at));
    }

    /// A look found it so full. Whoever fills it may have been held up a moment ago, and goes on.
    fn note(&mut self, container: Option<Filling>, charged: u64) {
        let grown = |(at, before, _): (Instant, Filling, u64)| {
            container.map_or(0, |now| now.needed.saturating_sub(before.needed) / ms_since(at))
        };
        let rate = self.last.map_or(0, grown);
        self.rate = rate.max(self.rate / 2);
        self.is_still = self.last.zip(container).is_some_and(|((_, _, before), now)| {
            charged > 0 && charged.saturating_sub(before) <= now.left() / 64
        });
        self.last = container.map(|container| (Instant::now(), container, charged));
    }

    /// Whether so much of so large a container will be gone before one look more is over; or could be within a moment, whatever
    /// its pace was.
    fn is_race(&self, left: u64, limit: u64) -> bool {
        let in_a_moment = (self.processors << 22).min(limit / 16);
        let soon = self.rate.saturating_mul(RACE_MS.max(4 * self.look_ms));
        left < edge(limit).saturating_add(soon.max(in_a_moment))
    }

    /// Whether that little is left now, at that pace.
    fn is_full_soon(&self, left: u64) -> bool {
        let limit = self.last.map_or(0, |(_, container, _)| container.limit);
        self.rate > 0 && left < edge(limit).saturating_add(self.rate.saturating_mul(FULL_SOON_MS))
    }
}

fn ms_since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

/// A container that will be full so soon at its pace does not wait for a look at those who fill it.
const RACE_MS: u64 = 120;
/// The same where such a look takes long.
const MOST_RACE_MS: u64 = 300;
/// Whoever fills it stands still, forked or not, where nothing is left so soon.
const FULL_SOON_MS: u64 = 20;
/// So soon one has begun to leave who is asked to.
const BEGINS_WITHIN_MS: u64 = 10;
/// So long somebody stands still at most: one who was asked to leave is gone by then, or is none who can be made to.
const STILL_AT_MOST: Duration = Duration::from_secs(5);
/// Whoever has run for so long since it goes on has begun to take memory, if it does.
const TURN_NS: u64 = 1_000_000;
/// So soon one that stands still by itself has seen that it may go on.
const TURN: Duration = Duration::from_millis(4);
/// The container has hardly grown by less.
const LITTLE: u64 = 1 << 20;
/// As fast as memory is written to by one, this lasts until this process has looked, on a busy machine as well.
const ROOM_FOR_ONE: u64 = 64 << 20;

/// Those who were forked meanwhile are sought so often.
const SEEK_EVERY: Duration = Duration::from_millis(1);

impl Race {
    pub(super) fn new(ledger: &'static Ledger, processors: u64) -> Race {
        Race {
            ledger,
            pace: Pace { processors, ..Pace::default() },
            usage: None,
            still: Stillness::default(),
            is_on: false,
            by_heirs: false,
            turns: Vec::new(),
            sought: None,
            leaves: None,
        }
    }

    /// Whether there is anybody who could write to what it shares with its parent.
    pub(super) fn may_begin(&self) -> bool {
        heirs(self.ledger, |_, _| true).next().is_some()
    }

    /// Whether somebody stands still.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A look at the container: how full it is.
    pub(super) fn look(&mut self) -> Option<Filling> {
        let (filling, usage) = filling("").unzip();
        self.usage = usage;
        self.pace.note(filling, self.charged().unwrap_or(0));
        filling
    }

    /// What the container is charged.
    pub(super) fn charged(&self) -> Option<u64> {
        self.usage.as_ref().and_then(UsageCounter::read)
    }

    /// What was left of it at the last look.
    pub(super) fn left(&self) -> Option<u64> {
        self.pace.last.map(|(_, container, _)| container.left())
    }

    /// Whether the container is hardly fuller than at the look before.
    pub(super) fn is_still(&self) -> bool {
        self.pace.is_still
    }

    /// With so little left the container is about to overflow: by the time at which one who is asked to leave now has begun to, so
    /// much more is used; and so much is used by one who asks nobody, and goes on, before this process has looked again.
    pub(super) fn edge(&self, limit: u64) -> u64 {
        let soon = match () {
            () if self.by_heirs => limit / 16,
            () if self.is_on => self.pace.rate.saturating_mul(BEGINS_WITHIN_MS).min(limit / 16),
            () => 0,
        };
        edge(limit).saturating_add(soon)
    }

    /// Whether it is for those who use memory without asking.
    pub(super) fn is_by_heirs(&self) -> bool {
        self.by_heirs
    }

    /// It took so long to find out what all hold together.
    pub(super) fn note_duration_of_look(&mut self, duration: Duration) {
        // It takes longer while others run.
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let before = self.pace.look_ms;
        self.pace.look_ms = ms.min(MOST_RACE_MS / 4).max(before - before / 16);
    }

    /// Holds those who may be the reason, where nothing will be left in a moment. Whether it had to.
    pub(super) fn hold_if_it_is_one(&mut self, looked: &Looked) -> bool {
        // A look asks at each of a thousand rows.
        let lately = self.sought.filter(|(at, _)| at.elapsed() < SEEK_EVERY);
        if let Some((_, held)) = lately {
            return held;
        }
        let Some(left) = self.left_in_a_race() else { return false };
        let holds = self.hold(left, looked);
        self.sought = Some((Instant::now(), holds));
        holds
    }

    /// What is left of the container, if that will be gone in a moment; nothing, as long as somebody stands still.
    fn left_in_a_race(&mut self) -> Option<u64> {
        if self.is_on() {
            return Some(0);
        }
        let charged = self.charged()?;
        self.pace.note_charge(charged);
        let (_, before, charged_before) = self.pace.last?;
        let left = before.left().saturating_sub(charged.saturating_sub(charged_before));
        if !self.pace.is_race(left, before.limit) {
            return None;
        }
        let (now, _) = filling("")?;
        self.pace.is_race(now.left(), now.limit).then(|| now.left())
    }

    /// Holds those who may use what is left without asking, if they have begun to.
    fn hold(&mut self, left: u64, looked: &Looked) -> bool {
        if self.is_on() && !self.has_grown_in_these_turns() {
            return true;
        }
        let few_pages = if self.is_on() { 0 } else { 64 };
        // Whoever stands still already does nothing, and whoever leaves makes room.
        let is_loose =
            |id: &Id, row: &Row| Some(*id) != self.leaves && !row.is_leaving() && !self.still.holds(*id);
        let heirs: Vec<(Id, &'static Row)> = heirs(self.ledger, is_loose).collect();
        let have_begun = heirs.iter().any(|(id, _)| has_got_pages(*id, looked, few_pages));
        let unasked = heirs.iter().map(|(id, row)| may_use_unasked(*id, row)).fold(0, u64::saturating_add);
        let granted = self.ledger.taken_rows().map(granted_beside).fold(0, u64::saturating_add);
        let is_theirs = have_begun && unasked.saturating_add(granted) >= left;
        if !is_theirs && !self.is_on() && !self.pace.is_full_soon(left) {
            return false;
        }
        // What others were granted, and fill meanwhile, is no longer there for them.
        let others = self.ledger.taken_rows().filter_map(|row| Some((row.id()?, row)));
        let may_fill = |(id, row): &(Id, &'static Row)| {
            is_loose(id, row)
                && (granted_beside(row) >= 1 << 20
                    || has_got_pages(*id, looked, few_pages)
                    || has_written(*id, looked))
        };
        let others: Vec<(Id, &'static Row)> = others.filter(may_fill).filter(is_other).collect();
        let heirs = if is_theirs { &heirs[..] } else { &[] };
        heirs.iter().chain(&others).for_each(|(id, row)| self.still.hold(*id, row));
        self.is_on |= !self.still.is_empty();
        self.by_heirs |= is_theirs;
        self.turns.retain(|turn| !self.still.has(turn.id));
        self.is_on()
    }

    /// Whether the container has grown since those went on who have; or nobody has yet.
    fn has_grown_in_these_turns(&self) -> bool {
        let charged = self.charged();
        let before = self.turns.iter().map(|turn| turn.charged).min();
        before.zip(charged).is_none_or(|(before, now)| now.saturating_sub(before) > LITTLE)
    }

    /// After a look: lets those go on that stand still, unless there is no room for them yet. All, where there is room for all that
    /// they may take; otherwise few at a time, so that this process, which may have to wait for a processor, has looked before
    /// they have filled what is left: one that takes memory stands still again, and it is the next one's turn.
    pub(super) fn let_go_on(&mut self, is_to_wait: bool) {
        if !self.is_on {
            return;
        }
        if self.still.longest().is_some_and(|longest| longest > STILL_AT_MOST) {
            self.next_goes_on();
        } else if is_to_wait {
            return;
        } else if self.has_room_for_all() || self.at_once() > self.pace.processors {
            // No more than there are processors take memory at the same time.
            self.still.go_on(None);
        } else {
            let at_once = self.at_once();
            self.turns.retain(|turn| !turn.is_over());
            // A look at many takes long: all who may go on by what it has found do.
            while (self.turns.len() as u64) < at_once && !self.still.is_empty() {
                self.next_goes_on();
            }
        }
        if self.still.is_empty() {
            (self.is_on, self.by_heirs) = (false, false);
            self.turns.clear();
            // Who stood still could give nothing back to those who wait.
            self.ledger.note_movement(sys::clock::monotonic_ms());
        }
    }

    /// How many may take memory at once until it is looked again.
    fn at_once(&self) -> u64 {
        1 + self.left().unwrap_or(u64::MAX) / ROOM_FOR_ONE
    }

    fn next_goes_on(&mut self) {
        let charged = self.charged().unwrap_or(0);
        if let Some(id) = self.still.next_goes_on() {
            let processor_ns = sys::proc::processor_ns_of(id.pid()).unwrap_or(0);
            self.turns.push(Turn { id, processor_ns, charged, at: Instant::now() });
        }
    }

    /// Whether so much is left that nobody has to ask for.
    fn has_room_for_all(&self) -> bool {
        let Some((_, container, _)) = self.pace.last else { return true };
        let unasked = heirs(self.ledger, |_, _| true).map(|(id, row)| may_use_unasked(id, row));
        let granted = self.ledger.taken_rows().map(granted_beside);
        let wanted = unasked.chain(granted).fold(edge(container.limit), u64::saturating_add);
        wanted <= container.left()
    }

    /// Whether all have gone on who are to.
    pub(super) fn have_gone_on(&mut self) -> bool {
        self.still.finish()
    }

    /// That one was asked to leave, and goes on.
    pub(super) fn spare(&mut self, id: Id) {
        self.leaves = Some(id);
        self.still.go_on(Some(id));
    }
}

/// Those of them who were forked by one of ours that is still there.
fn heirs(
    ledger: &'static Ledger,
    are_meant: impl Fn(&Id, &Row) -> bool,
) -> impl Iterator<Item = (Id, &'static Row)> {
    let forked = ledger.taken_rows().filter(|row| row.base() > 0 && !row.is_outside());
    let meant = forked.filter_map(|row| Some((row.id()?, row))).filter(move |(id, row)| are_meant(id, row));
    meant.filter(|(_, row)| row.parent().is_some_and(is_alive))
}

/// Neither a launcher below this one, nor its tracer, by which others leave; nor one for whom this process waits, which would be told
/// of it.
fn is_other((id, row): &(Id, &'static Row)) -> bool {
    !row.name().as_bytes().starts_with(b"oomguard")
        && sys::proc::parent_of(id.pid()) != Some(sys::process::pid())
}

/// What it was granted and does not hold yet: it may fill that at any moment.
fn granted_beside(row: &Row) -> u64 {
    row.lease().saturating_sub(row.charge())
}

fn has_got_pages(id: Id, looked: &Looked, few: u64) -> bool {
    let before = looked.pages.get(&id).map_or(0, |(_, faults)| *faults);
    sys::proc::life_of(id.pid()).is_some_and(|life| life.faults > before.saturating_add(few))
}

/// It may be to a file in memory, for which nobody need ask; and it is at something.
fn has_written(id: Id, looked: &Looked) -> bool {
    const MUCH: u64 = 1 << 20;
    let is_much =
        |before: &u64| sys::proc::written_by(id.pid()).is_some_and(|now| now.saturating_sub(*before) >= MUCH);
    looked.written.get(&id).is_some_and(is_much) && matches!(sys::proc::state_of(id.pid()), Some(b'R' | b'D'))
}

/// What it shares with its parent, and what it has mapped and not touched.
fn may_use_unasked(id: Id, row: &Row) -> u64 {
    let memory = sys::memory::memory_use_of(id.pid());
    let resident = memory.of(Measure::Resident).unwrap_or(0);
    row.base().saturating_add(memory.data.unwrap_or(0).saturating_sub(resident))
}

/// With so little left the container is about to overflow.
pub(super) fn edge(limit: u64) -> u64 {
    (limit / 100).max(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::wait_until;
    use crate::growth::id_of;
    use std::io::BufRead;
    use std::process::{Command, Stdio};

    /// What was granted to others is used up meanwhile by those who write to what they share.
    #[test]
    #[allow(unsafe_code)]
    fn in_a_race_whoever_grows_stands_still_and_nobody_else() {
        // SAFETY: a ledger is made of integers.
        let ledger: &'static Ledger = Box::leak(unsafe { Box::<Ledger>::new_zeroed().assume_init() });
        ledger.open(1 << 30, 0, 0, 0);
        // Its three sleepers, and itself, which is a child of this process.
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "sleep 60 & echo $!; sleep 60 & echo $!; sleep 60 & echo $!; echo; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(shell.stdout.take().unwrap()).lines().map(Result::unwrap);
        let pids = lines.take_while(|line| !line.is_empty()).map(|line| line.parse().unwrap());
        let ids: Vec<Id> = pids.chain([shell.id()]).map(|pid| id_of(pid).unwrap()).collect();
        // Not before they are programs of their own, which have got pages.
        let is_program =
            |id: &Id| std::fs::read(format!("/proc/{}/comm", id.pid())).is_ok_and(|name| name == b"sleep\n");
        let has_begun = |id: &Id| is_program(id) && has_got_pages(*id, &Looked::default(), 0);
        wait_until("the sleepers begin", || ids.iter().take(3).all(has_begun));
        let rows: Vec<usize> = ids.iter().map(|id| ledger.take_row(*id).unwrap()).collect();
        ledger.row(rows[2]).unwrap().note_leaving();
        let mut race = Race::new(ledger, 2);
        let pages = HashMap::from([(ids[1], (Instant::now(), u64::MAX))]);
        let looked = Looked { pages, ..Looked::default() };
        assert!(!race.hold(0, &looked), "nobody has forked");
        race.is_on = true;
        assert!(race.hold(0, &looked));
        let held: Vec<bool> = ids.iter().map(|id| race.still.holds(*id)).collect();
        race.still.go_on(None);
        ids.iter().for_each(|id| sys::child::kill(id.pid(), false, libc::SIGKILL).unwrap());
        shell.wait().unwrap();
        assert_eq!(
            held,
            [true, false, false, false],
            "not who has taken nothing, leaves, or is waited for by this process"
        );
    }

    #[test]
    fn it_is_the_next_ones_turn_once_one_that_goes_on_has_run() {
        let mut busy = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let id = id_of(busy.id()).unwrap();
        let turn = |processor_ns| Turn { id, processor_ns, charged: 0, at: Instant::now() };
        let has_yet_to_run = turn(u64::MAX);
        let has_run = turn(0);
        wait_until("it has run", || has_run.is_over());
        let is_over = has_yet_to_run.is_over();
        busy.kill().and_then(|()| busy.wait()).unwrap();
        assert!(!is_over && has_yet_to_run.is_over(), "who is gone takes no memory");
    }

    #[test]
    fn whoever_fills_what_is_nearly_full_does_not_wait_for_a_look() {
        const LIMIT: u64 = 200 << 20;
        let full = Filling { limit: LIMIT, used: LIMIT, needed: LIMIT };
        let mut pace = Pace { processors: 2, last: Some((Instant::now(), full, 0)), ..Pace::default() };
        assert!(!pace.is_full_soon(0));
        pace.rate = 1 << 19;
        assert!(pace.is_full_soon(11 << 20) && !pace.is_full_soon(13 << 20));
    }

    #[test]
    fn a_container_that_fills_fast_is_a_race_the_sooner_the_longer_a_look_takes() {
        const LIMIT: u64 = 200 << 20;
        let mut pace = Pace { processors: 2, ..Pace::default() };
        assert!(!pace.is_race(10 << 20, LIMIT) && pace.is_race(9 << 20, LIMIT));
        pace.processors = 100;
        assert!(!pace.is_race(15 << 20, LIMIT) && pace.is_race(14 << 20, LIMIT));
        let ago = Instant::now().checked_sub(Duration::from_millis(100)).unwrap();
        let full = |needed| Filling { limit: LIMIT, used: needed, needed };
        pace.last = Some((ago, full(0), 0));
        pace.note(Some(full(100 << 20)), 100 << 20);
        // A MiB in a millisecond, or less where this was held up.
        assert!(pace.rate <= 1 << 20 && pace.last.is_some_and(|(_, now, _)| now.left() == 100 << 20));
        pace.rate = 1 << 20;
        assert!(pace.is_race(120 << 20, LIMIT) && !pace.is_race(140 << 20, LIMIT));
        pace.look_ms = 40;
        assert!(pace.is_race(150 << 20, LIMIT) && !pace.is_race(180 << 20, LIMIT));
        // Who fills it was held up; that is forgotten soon, and not at once.
        pace.note(Some(full(100 << 20)), 100 << 20);
        assert!(pace.rate == 1 << 19 && pace.is_still);
        pace.note(Some(full(110 << 20)), 110 << 20);
        assert!(!pace.is_still);
    }
}
