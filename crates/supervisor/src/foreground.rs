//! A process that stands in for its worker: whoever signals it means the worker. See signal(7), signalfd(2).
//!
//! Nothing is handled and nothing is sent twice: all signals are blocked, and read where the worker's end is waited for.
//! The worker is started with the mask and the dispositions that this process was found with, and in the same process
//! group, so that the terminal and all who signal the group treat it as they would without this process. What was sent
//! to the whole group has reached it; a witness, which is in the group as well, knows.
//!
//! | arrived | sent to | what is done |
//! |---|---|---|
//! | any signal | this process | the worker gets it, with the value of sigqueue(3) |
//! | any signal | the process group | nothing: the worker has it; unless it left the group that this process leads |
//! | any signal | this process, by the worker | its parent gets it, as it stands where the worker would have stood |
//! | SIGCHLD | | orphans are reaped |
//! | the worker stops | | this process stops by the same signal, and hands the terminal back when it goes on |
//! | the worker goes on, or ends, while this process is stopped | | this process goes on |
//! | SIGSTOP | this process | the worker stops within a quarter of a second |
//! | SIGKILL | this process | the worker is killed, if it is to be |

use super::sys;
use super::sys::signals::{Arrival, Signals};
use super::witness::{Ward, Witness};
use crate::text::Text;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Those after which nobody wants another try.
const ASK_TO_END: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Those that the kernel sends to a process for what it did itself, and not for what happened.
const OWN_DOING: [i32; 3] = [libc::SIGPIPE, libc::SIGXCPU, libc::SIGXFSZ];

/// Makes this process stand in for a worker, as a launcher or the first process of a container does.
///
/// Every signal that can be caught, but for SIGCHLD, is passed on to the worker, unless the worker has got it already: as a
/// member of the process group, from a key on the terminal or from kill(2). What the worker sends to this process goes to
/// this process's parent. This process stops when the worker does, by the same signal, and both go on together. Children
/// that this process did not start (orphans, where it is process 1 or a subreaper) are reaped: there must be no other child
/// that it means to wait for. The worker gets the signal mask that was in force when [`enter`](Foreground::enter) was
/// called, and SIGPIPE and SIGCHLD are ignored in it if they were then; [`Command`](std::process::Command) alone would
/// reset them.
///
/// While a worker runs there is one more process beside it, a copy of this one that sleeps.
#[derive(Debug)]
pub struct Foreground {
    arrivals: OwnedFd,
    found: Found,
    told_to_end: bool,
    /// `None`: no such process could be had.
    witness: Option<Witness>,
    has_witness_tried: bool,
    dies_with_parent: bool,
    /// What arrived before there was a worker.
    early: Vec<Arrival>,
}

/// How signals stood when this process was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) blocked: Signals,
    pub(super) ignored: Signals,
}

/// The signals whose disposition this process, or `Command`, changes.
pub(super) const CHANGED: [i32; 2] = [libc::SIGPIPE, libc::SIGCHLD];

impl Foreground {
    /// Blocks all signals in this thread, for good. To be called before there is a second thread, which would get the
    /// signals instead. Rust's runtime ignores SIGPIPE before `main`, and opens descriptors 0 to 2 where they are
    /// closed: a launcher that wants to pass these on as they were has a C `main` (`#![no_main]`).
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn enter() -> io::Result<Foreground> {
        let ignored = CHANGED.into_iter().filter(|signal| sys::signals::is_ignored(*signal));
        let ignored = Signals::of(&ignored.collect::<Vec<_>>());
        let arrivals = sys::child::move_up(sys::signals::arrivals(Signals::ALL)?, 100);
        // While SIGCHLD is ignored, the kernel reaps all children, and nobody learns how they ended.
        sys::signals::set_default(libc::SIGCHLD);
        let blocked = sys::signals::block_these(Signals::ALL);
        Ok(Foreground {
            arrivals,
            found: Found { blocked, ignored },
            told_to_end: false,
            witness: None,
            has_witness_tried: false,
            dies_with_parent: false,
            early: Vec::new(),
        })
    }

    /// Has this process killed when its parent ends, and the worker with it where that is to die with this process.
    pub fn die_with_parent(&mut self) {
        self.dies_with_parent = true;
    }

    pub(super) fn found(&self) -> Found {
        self.found
    }

    /// Readable when there is something to attend to.
    pub(super) fn arrivals(&self) -> BorrowedFd<'_> {
        self.arrivals.as_fd()
    }

    /// Whether a signal has arrived that asks this process to end.
    pub(super) fn told_to_end(&self) -> bool {
        self.told_to_end
    }

    /// Whether one has arrived while there is no worker to pass it on to.
    pub(super) fn is_asked_to_end(&self) -> bool {
        self.told_to_end || self.early.iter().any(|arrival| ASK_TO_END.contains(&arrival.signal))
    }

    /// A worker is about to be started, which will not have got what has arrived by now.
    pub(super) fn prepare(&mut self) {
        if !self.has_witness_tried {
            self.has_witness_tried = true;
            let parent = if self.dies_with_parent { self.bind_to_parent() } else { None };
            self.witness = Witness::start(parent).ok();
        }
        while let Some(arrival) = sys::signals::next_arrival(self.arrivals.as_fd()) {
            self.was_for_all(arrival);
            if arrival.signal != libc::SIGCHLD {
                self.early.push(arrival);
            }
        }
    }

    /// A descriptor of the parent, by which its end is known. As long as the kernel sees to it that is better: whoever
    /// started this process may have been a thread that ends before its process does.
    fn bind_to_parent(&self) -> Option<OwnedFd> {
        let parent = sys::process::parent_pid();
        let pidfd = sys::child::pidfd(parent).ok().filter(|_| parent == sys::process::parent_pid());
        if pidfd.is_none() {
            // Outside this PID namespace, or a kernel before 5.3.
            sys::child::die_with_whoever_is_parent();
        }
        pidfd
    }

    /// A worker is about to be started whose death is to be this process's, with all that it starts and that has this variable.
    pub(super) fn expect(&mut self, mark: Text<80>) {
        if let Some(witness) = &mut self.witness {
            witness.expect(mark);
        }
    }

    /// There is a worker; or none any more.
    pub(super) fn stand_in_for(&mut self, ward: Option<Ward>) {
        if let Some(witness) = &mut self.witness {
            witness.watch(ward);
        }
    }

    /// Deals with what has arrived while worker `pid` runs; `ours` are the children that are waited for elsewhere.
    pub(super) fn attend(&mut self, pid: u32, pidfd: Option<BorrowedFd<'_>>, ours: &[u32]) {
        let worker = Worker { pid, pidfd };
        for arrival in std::mem::take(&mut self.early) {
            self.deal_with(arrival, false, &worker);
        }
        while let Some(arrival) = sys::signals::next_arrival(self.arrivals.as_fd()) {
            if arrival.signal == libc::SIGCHLD {
                sys::child::reap_strangers(ours);
                continue;
            }
            let was_for_all = self.was_for_all(arrival);
            self.deal_with(arrival, was_for_all, &worker);
        }
        // After what lets the worker go on was passed on to it.
        if let Some(signal) = sys::child::take_stop(pid) {
            self.stop_as(signal, pid);
        }
    }

    fn was_for_all(&mut self, arrival: Arrival) -> bool {
        match &mut self.witness {
            Some(witness) => witness.was_for_all(arrival.signal),
            // A key on the terminal sends to all of the group, but a terminal that hangs up to the session's leader alone.
            None => {
                arrival.is_by_kernel() && !(arrival.signal == libc::SIGHUP && sys::child::leads_session())
            }
        }
    }

    fn deal_with(&mut self, arrival: Arrival, was_for_all: bool, worker: &Worker<'_>) {
        let place = Place {
            own: sys::process::pid(),
            worker: worker.pid,
            witness: self.witness.as_ref().map(Witness::id),
            leads_group: sys::process::group() == sys::process::pid(),
            worker_is_in_group: sys::proc::group_of(worker.pid) == sys::process::group(),
        };
        let to = recipient(arrival, was_for_all, &place);
        self.told_to_end |= ASK_TO_END.contains(&arrival.signal) && to != Recipient::Parent;
        match to {
            Recipient::Nobody => {}
            Recipient::Parent => {
                let parent = sys::process::parent_pid();
                if parent != 0 {
                    let _ = sys::child::kill(parent, false, arrival.signal);
                }
            }
            Recipient::Worker => worker.send(arrival),
            Recipient::WorkersGroup => worker.send_to_group(arrival),
        }
    }

    /// The worker was stopped, and this process stops with it: its parent, often a shell, is to see that.
    fn stop_as(&mut self, signal: i32, worker: u32) {
        let (own, workers) = (sys::process::group(), sys::proc::group_of(worker));
        let has_terminal = own != workers && sys::terminal::foreground() == Some(workers);
        if let Some(witness) = &mut self.witness {
            witness.stops();
        }
        sys::signals::stop_here(signal);
        if let Some(witness) = &mut self.witness {
            witness.goes_on();
        }
        // A shell gives the terminal to the group that it knows.
        if has_terminal && sys::terminal::foreground() == Some(own) {
            sys::terminal::set_foreground(workers);
        }
    }
}

struct Worker<'a> {
    pid: u32,
    pidfd: Option<BorrowedFd<'a>>,
}

impl Worker<'_> {
    /// Fails for a worker that runs as another user, or is dead; it has not been reaped, so that its number is its own.
    fn send(&self, arrival: Arrival) {
        if arrival.code == libc::SI_QUEUE && sys::signals::queue(self.pid, arrival).is_ok() {
            return;
        }
        let _ = match self.pidfd {
            Some(pidfd) => sys::child::send_signal(pidfd, arrival.signal),
            None => sys::child::kill(self.pid, false, arrival.signal),
        };
    }

    fn send_to_group(&self, arrival: Arrival) {
        if sys::child::leads_group(self.pid) {
            let _ = sys::child::kill(self.pid, true, arrival.signal);
        } else {
            self.send(arrival);
        }
    }
}

/// Who stands where.
struct Place {
    own: u32,
    worker: u32,
    witness: Option<u32>,
    /// Whether this process leads its process group, which then is what others know the worker by.
    leads_group: bool,
    worker_is_in_group: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipient {
    Nobody,
    Worker,
    WorkersGroup,
    Parent,
}

fn recipient(arrival: Arrival, was_for_all: bool, place: &Place) -> Recipient {
    let is_senders = |pid: u32| !arrival.is_by_kernel() && arrival.sender == pid;
    if is_senders(place.own) || place.witness.is_some_and(is_senders) {
        return Recipient::Nobody;
    }
    if arrival.is_by_kernel() && OWN_DOING.contains(&arrival.signal) {
        return Recipient::Nobody;
    }
    if was_for_all {
        return match () {
            () if place.worker_is_in_group => Recipient::Nobody,
            // Without this process the worker would be the leader, and could not have left.
            () if place.leads_group => Recipient::WorkersGroup,
            () => Recipient::Nobody,
        };
    }
    // Process 1 has no parent, and who signals it from inside means the program that the container is for.
    if is_senders(place.worker) && place.own != 1 {
        // Where nobody knows what was sent to all, that is likelier; and passed on, it could go round for ever.
        return if place.witness.is_some() { Recipient::Parent } else { Recipient::Nobody };
    }
    Recipient::Worker
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 5;
    const WITNESS: u32 = 6;
    const WORKER: u32 = 7;

    #[test]
    fn each_signal_has_one_recipient() {
        use Recipient::{Nobody, Parent, WorkersGroup};
        let user = |signal, sender| Arrival { signal, code: libc::SI_USER, sender, user: 0, value: 0 };
        let kernel = |signal| Arrival { code: libc::SI_KERNEL, ..user(signal, 0) };
        let in_group = Place {
            own: OWN,
            worker: WORKER,
            witness: Some(WITNESS),
            leads_group: true,
            worker_is_in_group: true,
        };
        let moved = Place { worker_is_in_group: false, ..in_group };
        let member = Place { leads_group: false, ..moved };
        let alone = Place { witness: None, ..in_group };
        let first = Place { own: 1, ..in_group };
        let (term, int, hup) = (libc::SIGTERM, libc::SIGINT, libc::SIGHUP);
        for (arrival, was_for_all, place, to) in [
            (user(term, 1), false, &in_group, Recipient::Worker),
            // From outside the PID namespace.
            (user(term, 0), false, &in_group, Recipient::Worker),
            (user(term, 1), true, &in_group, Nobody),
            (user(term, 1), true, &moved, WorkersGroup),
            (user(term, 1), true, &member, Nobody),
            // A key on the terminal; one that hangs up; alarm(2) from before exec.
            (kernel(int), true, &in_group, Nobody),
            (kernel(hup), false, &in_group, Recipient::Worker),
            (kernel(libc::SIGALRM), false, &in_group, Recipient::Worker),
            (kernel(libc::SIGXCPU), false, &in_group, Nobody),
            (user(libc::SIGXCPU, 1), false, &in_group, Recipient::Worker),
            // Our own.
            (user(libc::SIGPIPE, OWN), false, &in_group, Nobody),
            (user(libc::SIGCONT, WITNESS), false, &in_group, Nobody),
            // kill 0 in the worker; kill $PPID there.
            (user(term, WORKER), true, &in_group, Nobody),
            (user(term, WORKER), false, &in_group, Parent),
            (user(term, WORKER), false, &first, Recipient::Worker),
            (user(term, WORKER), false, &alone, Nobody),
        ] {
            assert_eq!(recipient(arrival, was_for_all, place), to, "{arrival:?} {was_for_all}");
        }
    }
}
