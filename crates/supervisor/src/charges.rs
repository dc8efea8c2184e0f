//! What those who share a budget hold, each by its row: a look charges those who have taken memory without asking, and those who
//! cannot ask, and finds out what is held above all charges.

use super::descendants;
use super::race::{Looked, Race};
use super::sys;
use super::sys::fd::KeptInMemory;
use super::threads::memory_of;
use crate::cgroup::Filling;
use crate::contract::Measure;
use crate::growth::{id_of, is_alive};
use crate::ledger::{Id, Ledger, Row, Seen};
use std::collections::{HashMap, HashSet};
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// What each holds; of what it shares, its part.
pub(super) type Holdings = HashMap<Id, u64>;

pub(super) struct Charges {
    ledger: &'static Ledger,
    own: Id,
    /// The variable that all have in their environment who share it, as long as they do not change that.
    mark: Vec<u8>,
    /// The processes that were there at the last search.
    seen: HashSet<u32>,
    looked: Looked,
    /// What each held when that last counted as movement.
    held: HashMap<Id, u64>,
    forked: Forked,
    written: Written,
    /// What some held above their leases at the last look, as there was no room to charge them for it.
    beyond: u64,
    /// What some were found to hold of what they share.
    shares: HashMap<Id, Share>,
    /// Somebody was swapped out: what the container needs is less than what they hold.
    has_swapped: bool,
    /// When it was looked last whether all are in the container that this process is in, and whether they are.
    are_here: Option<(Instant, bool)>,
    /// What they were found to hold last, and when that was begun to be found out.
    together: Option<(Instant, Holdings)>,
}

/// What each has written to files since the container began to be nearly full: one kept in memory, as in `/dev/shm`, is nobody's.
#[derive(Default)]
struct Written {
    /// What the container needed by then.
    needed: u64,
    /// What each had written by then, and what its children had been given that it has waited for: their files count as its own
    /// from then on.
    before: HashMap<Id, (u64, u64)>,
    /// What of each file in memory was in use by then that one of them had open.
    files: HashMap<(u64, u64), u64>,
    /// Who has written most to files in memory that it has open, where those who did have written most of what it has needed since.
    writer: Option<Id>,
}

/// What a process was found to hold of what it shares: dear to find out.
struct Share {
    at: Instant,
    /// The pages that it had been given by then, and what it held.
    before: (u64, u64),
    bytes: Option<u64>,
}

/// Those who were forked, when that was looked at last.
#[derive(Default)]
struct Forked {
    /// When it may be looked at again.
    next: Option<Instant>,
    /// How many pages they had been given.
    faults: u64,
    /// What they held above what all are charged for, in bytes.
    beside: u64,
    /// The most that all were charged for since.
    charged: u64,
    /// What the container needed.
    needed: u64,
}

/// What was found to be held beside all leases is looked for again so soon.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(250);
/// However little a process seems to do, it is looked at so often.
const UNSEEN_AT_MOST: Duration = Duration::from_secs(30);

impl Charges {
    pub(super) fn new(ledger: &'static Ledger, mark: Vec<u8>) -> Charges {
        let own = sys::process::pid();
        let mut seen = HashSet::new();
        // Of those that are here already nobody can share it.
        descendants::arrivals(&mut seen);
        Charges {
            ledger,
            own: id_of(own).unwrap_or(Id::new(own, 0)),
            mark,
            seen,
            looked: Looked::default(),
            held: HashMap::new(),
            forked: Forked::default(),
            written: Written::default(),
            beyond: 0,
            shares: HashMap::new(),
            has_swapped: false,
            are_here: None,
            together: None,
        }
    }

    /// Has those stand still that fill the container, where nothing will be left in a moment. A closer look is due then.
    pub(super) fn hold_if_it_is_a_race(&mut self, race: &mut Race) {
        if race.hold_if_it_is_one(&self.looked) {
            self.hurry();
        }
    }

    /// A look found the container so full.
    pub(super) fn note_written(&mut self, container: Option<Filling>) {
        let near = container.filter(|container| container.left() < container.limit / 8);
        let Some(container) = near else {
            self.written = Written::default();
            self.looked.written.clear();
            return;
        };
        let Written { needed, before, files, writer } = &mut self.written;
        if *needed == 0 {
            *needed = container.needed;
            let ids = self.ledger.taken_rows().filter_map(Row::id);
            files.extend(ids.flat_map(|id| written_files_of(id.pid())).map(|file| (file.id, file.in_use)));
        }
        // A file that was as large before fills nothing, whatever is written elsewhere.
        let grown_of =
            |file: &KeptInMemory| file.in_use.saturating_sub(files.get(&file.id).copied().unwrap_or(0));
        let largest_of = |pid| written_files_of(pid).map(|file| grown_of(&file)).max().unwrap_or(0);
        let written = self.ledger.taken_rows().filter_map(|row| {
            let id = row.id()?;
            let children = || sys::proc::childrens_pages_of(id.pid());
            let all = || Some(sys::proc::written_by(id.pid())?.saturating_add(row.shared_to_come()));
            let now = all()?;
            self.looked.written.entry(id).or_insert(now);
            let before = before.entry(id).or_insert_with(|| (now, children()));
            // In this order: whoever is waited for after that is seen the next time.
            if before.0 != now && before.1 != children() {
                let children = children();
                *before = (all()?, children);
            }
            Some((id, now.saturating_sub(before.0)))
        });
        let grown = container.needed.saturating_sub(*needed);
        // What goes to a pipe or to a disk fills nothing.
        let part = |(id, bytes): (Id, u64)| {
            let may_fill = grown > 0 && bytes > grown / 16;
            let part = if may_fill { bytes.min(largest_of(id.pid())) } else { 0 };
            (part > grown / 16).then_some((id, part))
        };
        let parts: Vec<(Id, u64)> = written.filter_map(part).collect();
        let is_theirs = parts.iter().map(|(_, part)| *part).fold(0, u64::saturating_add) > grown / 2;
        *writer = parts.into_iter().max_by_key(|(_, part)| *part).filter(|_| is_theirs).map(|(id, _)| id);
    }

    /// Who has written most to files in memory, if that is why the container is nearly full.
    pub(super) fn writer(&self) -> Option<Id> {
        self.written.writer.filter(|id| is_alive(*id))
    }

    pub(super) fn beyond(&self) -> u64 {
        self.beyond
    }

    /// A closer look is due at once.
    fn hurry(&mut self) {
        self.forked.next = None;
    }

    /// Brings the rows up to date; what they are charged for together. Where there is much room, those who have done nothing are not
    /// looked at.
    pub(super) fn charge(&mut self, has_much_room: bool, race: &mut Race) -> u64 {
        let mut charged = 0u64;
        let mut given_back = 0u64;
        self.beyond = 0;
        self.has_swapped &= has_much_room;
        for row in self.ledger.taken_rows() {
            let Some(id) = row.id() else { continue };
            // To look at all of them takes so long that the container may be full by then.
            self.hold_if_it_is_a_race(race);
            let life = sys::proc::life_of(id.pid()).filter(|life| life.is_alive && life.start == id.start());
            let Some(life) = life else {
                if is_alive(id) {
                    continue;
                }
                self.looked.pages.remove(&id);
                let taken = self.ledger.take_from(row, id, sys::clock::monotonic_ms()).unwrap_or(0);
                given_back = given_back.saturating_add(taken);
                continue;
            };
            let is_idle =
                |(at, faults): &(Instant, u64)| *faults == life.faults && at.elapsed() < UNSEEN_AT_MOST;
            if has_much_room && self.looked.pages.get(&id).is_some_and(is_idle) {
                charged = charged.saturating_add(row.charge().min(row.lease()));
                continue;
            }
            self.looked.pages.insert(id, (Instant::now(), life.faults));
            let memory = memory_of(id.pid());
            let Some(held) = memory.of(Measure::Resident) else {
                // It is about to be gone, and its memory is not yet.
                charged = charged.saturating_add(row.charge().min(row.lease()));
                continue;
            };
            self.has_swapped |= memory.swapped.is_some_and(|bytes| bytes > 0);
            let seen =
                Seen { data: memory.data.unwrap_or(held), held, in_shared: memory.shared.unwrap_or(0) };
            self.ledger.note_use(row, seen, sys::clock::monotonic_ms());
            self.note_movement(id, held);
            let mut share = || share_of(&mut self.shares, id, (life.faults, held));
            let due = if row.is_outside() {
                let due = if held > 4 << 20 { share().unwrap_or(held).min(held) } else { held };
                // It may be that it can ask by now, and has.
                row.take_unused(1, || row.is_outside().then_some(due));
                due
            } else if row.charge() > row.lease().saturating_add(64 << 10) {
                row.charge().min(share().unwrap_or(u64::MAX))
            } else {
                charged = charged.saturating_add(row.charge().min(row.lease()));
                continue;
            };
            // The leases come to no more than they may; what is held above that is seen all the same.
            self.ledger.charge(row, due);
            charged = charged.saturating_add(due);
            self.beyond = self.beyond.saturating_add(due.saturating_sub(row.lease()));
        }
        self.ledger.note_given_back(given_back, sys::clock::monotonic_ms());
        charged
    }

    /// Whoever still fills what it was granted is not done with it: others wait on meanwhile.
    fn note_movement(&mut self, id: Id, held: u64) {
        let before = self.held.entry(id).or_insert(held);
        if held >= before.saturating_add((self.ledger.permitted() / 64).max(1)) {
            self.ledger.note_movement(sys::clock::monotonic_ms());
            *before = held;
        }
        *before = held.min(*before);
    }

    /// What a process writes to that it shared with its parent is its own from then on, and its use looks as before: what those
    /// hold above their charge who were forked. To find that out is dear. How many pages they were given is not, and it can be
    /// no more than that, nor than what the container needs.
    pub(super) fn held_beside(&mut self, charged: u64, container: Option<Filling>, race: &mut Race) -> u64 {
        let forked = || self.ledger.taken_rows().filter(|row| row.base() > 0).filter_map(Row::id);
        if forked().next().is_none() {
            self.forked = Forked { charged, ..Forked::default() };
            return 0;
        }
        let given = forked().filter_map(|id| sys::proc::life_of(id.pid())).map(|life| life.faults);
        let faults = given.fold(0, u64::saturating_add);
        let lately = faults.saturating_sub(self.forked.faults).saturating_mul(sys::memory::page_bytes());
        let at_most = self.forked.beside.saturating_add(lately);
        let budget = self.ledger.budget();
        // Whoever has left behind what others were charged for with it.
        let orphaned = self.forked.charged.saturating_sub(charged);
        let near = budget - budget / 8;
        let may_be_near =
            charged.saturating_add(at_most) > near || lately > budget / 8 || orphaned > budget / 8;
        let needed = container.map_or(0, |container| container.needed);
        // What is swapped out, or charged elsewhere, is not in there.
        let is_all_there = |charges: &mut Charges| {
            container.is_some() && !charges.has_swapped && charges.are_in_the_container(race.is_on())
        };
        let is_near = may_be_near && (needed > near || !is_all_there(self));
        // Where some stand still, the processor is for who leaves. Before one is asked to, it is found out what all hold.
        if race.is_on() && is_all_there(self) {
            let since = needed.saturating_sub(self.forked.needed);
            let at_most = self.forked.beside.saturating_add(since);
            return needed.saturating_sub(charged).min(at_most);
        }
        // What was found then may be gone since, with whoever held it.
        let is_old = self.forked.beside > budget / 16;
        let now = Instant::now();
        let is_due = |pause| self.forked.next.is_none_or(|next| now >= next + pause);
        if is_near && is_due(Duration::ZERO) || is_old && is_due(FORGOTTEN_AFTER) {
            let together = self.held_together(race);
            race.note_duration_of_look(now.elapsed());
            // What has been touched since the look began is not beside it.
            let charged = self.charge(false, race).max(charged);
            let beside = together.saturating_sub(charged);
            let next = Instant::now() + now.elapsed() * 4;
            self.forked = Forked { next: Some(next), faults, beside, charged, needed };
            return beside;
        } else if faults < self.forked.faults {
            // Some have gone.
            self.forked.faults = faults;
        }
        self.forked.charged = self.forked.charged.max(charged);
        self.forked.beside
    }

    /// Whether all are in the same control groups as this process, so that what they use is charged to its container. Some may
    /// have been put into others, as by a manager of jobs. `has_no_time`: as it was known last will do.
    fn are_in_the_container(&mut self, has_no_time: bool) -> bool {
        let groups_of = |pid: u32| std::fs::read(format!("/proc/{pid}/cgroup")).ok();
        if let Some((_, are)) = self.are_here.filter(|(at, _)| has_no_time || at.elapsed() < FORGOTTEN_AFTER)
        {
            return are;
        }
        let own = groups_of(self.own.pid());
        let mut others = self.ledger.taken_rows().filter_map(Row::id).filter_map(|id| groups_of(id.pid()));
        let are = others.all(|groups| Some(&groups) == own.as_ref());
        self.are_here = Some((Instant::now(), are));
        are
    }

    /// What all hold together, each shared page once.
    fn held_together(&mut self, race: &mut Race) -> u64 {
        let rows = || self.ledger.taken_rows();
        let parents: HashSet<Id> = rows().filter_map(Row::parent).collect();
        let has_unknown = rows().any(Row::is_outside);
        // Nobody shares what it was just found to hold: it was not forked, has forked nobody, and uses no shared memory.
        let is_alone = |row: &Row, id: &Id| {
            !has_unknown && row.base() == 0 && row.in_shared() == 0 && !parents.contains(id)
        };
        let begun = Instant::now();
        let mut holdings = Holdings::new();
        for row in rows() {
            let Some(id) = row.id() else { continue };
            race.hold_if_it_is_one(&self.looked);
            let share =
                if is_alone(row, &id) { Some(row.held()) } else { sys::memory::share_held_by(id.pid()) };
            share.inspect(|share| row.note_share(*share));
            holdings.insert(id, share.unwrap_or(row.charge()));
        }
        let together = sum_of(&holdings);
        self.together = Some((begun, holdings));
        together
    }

    /// What each holds now.
    pub(super) fn holdings(&self) -> Holdings {
        let held = |row: &Row| {
            let id = row.id()?;
            let share = sys::memory::share_held_by(id.pid());
            is_alive(id).then(|| (id, share.unwrap_or(row.charge())))
        };
        self.ledger.taken_rows().filter_map(held).collect()
    }

    /// Whether nobody has come or gone since then.
    pub(super) fn are_those_of(&self, holdings: &Holdings) -> bool {
        let mut now = self.ledger.taken_rows().filter_map(Row::id).filter(|id| is_alive(*id));
        now.all(|id| holdings.contains_key(&id)) && holdings.keys().all(|id| is_alive(*id))
    }

    /// Together they hold so much, and are charged for so much, where the container needs so much.
    pub(super) fn note_together(&mut self, together: u64, charged: u64, needed: u64) {
        self.forked.beside = together.saturating_sub(charged);
        self.forked.needed = needed;
    }

    /// What they were found to hold since then, if that was found out.
    pub(super) fn holdings_since(&self, then: Instant) -> Option<&Holdings> {
        self.together.as_ref().filter(|(begun, _)| *begun >= then).map(|(_, holdings)| holdings)
    }

    /// Gives those a row who have none: nothing of ours runs in them, and they are charged for what they hold.
    pub(super) fn search(&mut self) {
        let new = descendants::arrivals(&mut self.seen);
        let mut members: HashSet<u32> =
            self.ledger.taken_rows().filter_map(|row| row.id()).map(Id::pid).collect();
        self.looked.pages.retain(|id, _| members.contains(&id.pid()));
        self.held.retain(|id, _| members.contains(&id.pid()));
        self.shares.retain(|id, _| members.contains(&id.pid()));
        for pid in new.into_iter().filter(|pid| *pid != self.own.pid()) {
            let is_ours = members.contains(&pid)
                || sys::proc::environment_has(pid, &self.mark)
                || sys::proc::parent_of(pid).is_some_and(|parent| members.contains(&parent));
            if !is_ours || !members.insert(pid) {
                continue;
            }
            let Some(life) = sys::proc::life_of(pid).filter(|life| life.is_alive) else { continue };
            let id = Id::new(pid, life.start);
            self.ledger.take_row_outside(id, sys::proc::name_of(pid).as_bytes(), self.own);
        }
    }
}

/// What process `id` holds of what it shares, which is as it was a moment ago where it has done nothing since.
fn share_of(shares: &mut HashMap<Id, Share>, id: Id, now: (u64, u64)) -> Option<u64> {
    let known = shares.get(&id).filter(|share| share.before == now && share.at.elapsed() < FORGOTTEN_AFTER);
    if let Some(known) = known {
        return known.bytes;
    }
    let bytes = sys::memory::share_held_by(id.pid());
    shares.insert(id, Share { at: Instant::now(), before: now, bytes });
    bytes
}

pub(super) fn sum_of(holdings: &Holdings) -> u64 {
    holdings.values().copied().fold(0, u64::saturating_add)
}

/// What all hold together, where one comes while another goes: nothing counts that was not there in between.
pub(super) fn held_throughout(before: &Holdings, after: &Holdings) -> u64 {
    let least = |(id, held): (&Id, &u64)| before.get(id).map_or(0, |before| *before.min(held));
    after.iter().map(least).fold(0, u64::saturating_add)
}

/// The files in memory that process `pid` has open to write to.
fn written_files_of(pid: u32) -> impl Iterator<Item = KeptInMemory> {
    /// A server may have any number open.
    const MOST_FILES: usize = 1024;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    // The link's own mode tells how it was opened: proc_pid_fd(5).
    let is_written = |file: &DirEntry| file.metadata().is_ok_and(|link| link.mode() & 0o200 != 0);
    files.take(MOST_FILES).flatten().filter(is_written).filter_map(move |file| {
        let fd = file.file_name().to_str()?.parse().ok()?;
        sys::fd::kept_in_memory_of(pid, fd)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::wait_until;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn only_what_is_kept_in_memory_counts_as_written_there() {
        let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else { return };
        file.write_all(&[1; 1 << 20]).unwrap();
        let sleep = |stdout: Stdio| {
            let mut sleep = Command::new("/bin/sleep");
            sleep.arg("60").stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
            let mut sleeper = sleep.spawn().unwrap();
            let bytes = written_files_of(sleeper.id()).map(|file| file.in_use).max().unwrap_or(0);
            sleeper.kill().and_then(|()| sleeper.wait()).unwrap();
            bytes
        };
        assert_eq!([sleep(file.into()), sleep(Stdio::null()), sleep(Stdio::piped())], [1 << 20, 0, 0]);
    }

    #[test]
    #[allow(unsafe_code)]
    fn who_had_a_large_file_before_and_writes_elsewhere_is_not_why_the_container_fills() {
        const LITTLE: u64 = 64 << 10;
        let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else { return };
        file.write_all(&[1; 1 << 20]).unwrap();
        // SAFETY: a ledger is made of integers.
        let ledger: &'static Ledger = Box::leak(unsafe { Box::<Ledger>::new_zeroed().assume_init() });
        ledger.open(1 << 30, 0, 0, 0);
        let mut server = Command::new("/bin/sh")
            .args(["-c", "while :; do echo 0123456789 > /dev/null; done"])
            .stdout(file.try_clone().unwrap())
            .spawn()
            .unwrap();
        let id = id_of(server.id()).unwrap();
        ledger.take_row(id).unwrap();
        let mut charges = Charges::new(ledger, Vec::new());
        let mut fill = |needed| {
            charges.note_written(Some(Filling { limit: 1 << 30, used: needed, needed }));
            charges.writer()
        };
        let before = (1 << 30) - (2 << 20);
        let at_first = fill(before);
        let written = || sys::proc::written_by(id.pid()).unwrap();
        let then = written();
        wait_until("it has written that much", || written() - then > LITTLE);
        let innocent = fill(before + LITTLE);
        file.write_all(&[1; LITTLE as usize]).unwrap();
        let guilty = fill(before + LITTLE);
        server.kill().and_then(|()| server.wait()).unwrap();
        assert_eq!([at_first, innocent, guilty], [None, None, Some(id)]);
    }
}
