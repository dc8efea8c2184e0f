//! Processes that stand still for a moment. The thread that holds them is their tracer meanwhile (ptrace(2)): so no parent is told
//! of it, as one is of a process that SIGSTOP stops; who is stopped or let go on by somebody else at that time is as he left it
//! afterwards; and once that thread has ended, however it did, the kernel lets them go on. One that is followed has a tracer of ours
//! already, which is told to hold it. Where nobody may be traced, a forked child with a guard stands still by itself, in the handler of a
//! signal: only those of its threads are told that run, as a call that waits may end with EINTR then. All others are left alone.

use super::sys;
use super::sys::signals::Arrival;
use super::threads::threads_of;
use crate::growth::{id_of, is_alive};
use crate::ledger::{Id, Row};
use crate::overrun::{STAND_STILL, STILL_SIGNAL};
use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct Stillness {
    /// Those that stand still, or are about to.
    held: Vec<Held>,
    /// Threads that were about to stand still when they were to go on.
    leaving: Vec<u32>,
}

struct Held {
    id: Id,
    since: Instant,
    row: &'static Row,
    how: How,
}

enum How {
    /// This thread traces these of its threads.
    Traced(Vec<u32>),
    /// Its own tracer holds it.
    Followed,
    /// By itself, with those of its threads that were told to.
    ByItself,
}

impl Stillness {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether it stands still with all its threads.
    pub(super) fn holds(&self, id: Id) -> bool {
        self.held.iter().any(|held| held.id == id && !matches!(held.how, How::ByItself))
    }

    /// Whether it stands still, or has been told to.
    pub(super) fn has(&self, id: Id) -> bool {
        self.held.iter().any(|held| held.id == id)
    }

    /// Has a process stand still, which has that row, with all its threads. Nothing where it does so of itself.
    pub(super) fn hold(&mut self, id: Id, row: &'static Row) {
        if self.holds(id) || matches!(sys::proc::state_of(id.pid()), None | Some(b'T' | b't' | b'Z' | b'X')) {
            return;
        }
        if self.has(id) {
            tell_those_who_run(id);
            return;
        }
        let threads = hold_threads_of(id.pid());
        let how = if !is_alive(id) {
            // Its number is another one's by now.
            self.leaving.extend(threads);
            return;
        } else if !threads.is_empty() {
            How::Traced(threads)
        } else if has_tracer_hold(id, row) {
            How::Followed
        } else if row.heeds_stillness() {
            row.hold_still_for(id_of(sys::process::pid()));
            tell_those_who_run(id);
            How::ByItself
        } else {
            return;
        };
        self.held.push(Held { id, since: Instant::now(), row, how });
    }

    /// Lets all go on, or that one.
    pub(super) fn go_on(&mut self, only: Option<Id>) {
        for held in self.held.extract_if(.., |held| only.is_none_or(|only| only == held.id)) {
            match held.how {
                How::Traced(threads) => self.leaving.extend(threads),
                How::Followed | How::ByItself if held.row.id() == Some(held.id) => {
                    held.row.hold_still_for(None);
                }
                How::Followed | How::ByItself => {}
            }
        }
        self.finish();
    }

    /// Lets the one go on that has stood still longest: which that is.
    pub(super) fn next_goes_on(&mut self) -> Option<Id> {
        let first = self.held.first().map(|held| held.id);
        first.inspect(|first| self.go_on(Some(*first)))
    }

    /// How long that one has.
    pub(super) fn longest(&self) -> Option<Duration> {
        self.held.first().map(|held| held.since.elapsed())
    }

    /// Nobody can be let go who does not stand yet: whether all who are to go on have.
    pub(super) fn finish(&mut self) -> bool {
        self.leaving.retain(|tid| !sys::trace::let_go(*tid));
        self.leaving.is_empty()
    }
}

/// Whom its own tracer holds, that goes on as well when the thread has ended that had it do so.
impl Drop for Stillness {
    fn drop(&mut self) {
        self.go_on(None);
    }
}

/// Those that may be held.
fn hold_threads_of(pid: u32) -> Vec<u32> {
    let mut threads: Vec<u32> = Vec::new();
    // One that does not stand yet may start another.
    loop {
        let before = threads.len();
        for tid in threads_of(pid) {
            if !threads.contains(&tid) && sys::trace::hold(tid) {
                threads.push(tid);
            }
        }
        if threads.len() == before {
            return threads;
        }
    }
}

/// Has a tracer of ours hold a process that it follows; false where there is none.
fn has_tracer_hold(id: Id, row: &Row) -> bool {
    let own = sys::process::pid();
    if sys::proc::tracer_of(id.pid())
        .is_none_or(|tracer| sys::proc::name_of(tracer).as_bytes() != b"oomguard-tracer")
    {
        return false;
    }
    row.hold_still_for(id_of(own));
    // Its tracer does not hand it on.
    let is_told = threads_of(id.pid()).filter(|tid| tell(id, *tid, libc::SIGSTOP)).count() > 0;
    if !is_told {
        row.hold_still_for(None);
    }
    is_told
}

/// Each of its threads that runs stands still in the handler of that signal.
fn tell_those_who_run(id: Id) {
    let runs = |tid: &u32| matches!(sys::proc::state_of(*tid), Some(b'R' | b'D'));
    threads_of(id.pid()).filter(runs).for_each(|tid| _ = tell(id, tid, STILL_SIGNAL));
}

fn tell(id: Id, tid: u32, signal: i32) -> bool {
    let sender = sys::process::pid();
    let told = Arrival { signal, code: libc::SI_QUEUE, sender, user: 0, value: STAND_STILL };
    sys::signals::queue_to_thread(id.pid(), tid, told).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::wait_until;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            Sleeper(Command::new("sleep").arg("60").spawn().unwrap())
        }

        fn id(&self) -> Id {
            id_of(self.0.id()).unwrap()
        }

        fn send(&self, signal: i32) {
            sys::child::kill(self.0.id(), false, signal).unwrap();
        }

        fn state(&self) -> char {
            sys::proc::state_of(self.0.id()).map_or('-', char::from)
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().and_then(|()| self.0.wait()).unwrap();
        }
    }

    /// Of no matter for those who have no tracer.
    #[allow(unsafe_code)]
    fn row() -> &'static Row {
        // SAFETY: a row is made of integers.
        Box::leak(unsafe { Box::<Row>::new_zeroed().assume_init() })
    }

    fn wait_for(sleepers: &[Sleeper], states: &str, still: &mut Stillness) {
        wait_until(states, || {
            still.finish();
            sleepers.iter().map(Sleeper::state).eq(states.chars())
        });
    }

    #[test]
    fn those_who_stand_still_go_on_one_after_the_other() {
        let (sleepers, mut still) = ([(); 3].map(|()| Sleeper::start()), Stillness::default());
        sleepers.iter().for_each(|sleeper| still.hold(sleeper.id(), row()));
        wait_for(&sleepers, "ttt", &mut still);
        still.next_goes_on();
        wait_for(&sleepers, "Stt", &mut still);
        still.go_on(Some(sleepers[2].id()));
        wait_for(&sleepers, "StS", &mut still);
        still.go_on(None);
        wait_for(&sleepers, "SSS", &mut still);
        assert!(still.is_empty());
    }

    #[test]
    fn they_go_on_when_the_thread_has_ended_that_holds_them() {
        let sleepers = [(); 3].map(|()| Sleeper::start());
        let hold = || {
            let mut still = Stillness::default();
            sleepers.iter().for_each(|sleeper| still.hold(sleeper.id(), row()));
            wait_for(&sleepers, "ttt", &mut still);
        };
        std::thread::scope(|scope| drop(scope.spawn(hold)));
        wait_for(&sleepers, "SSS", &mut Stillness::default());
    }

    #[test]
    fn whoever_is_stopped_by_somebody_else_stays_so_and_a_signal_arrives() {
        let (mut sleepers, mut still) = ([(); 3].map(|()| Sleeper::start()), Stillness::default());
        sleepers[0].send(libc::SIGSTOP);
        wait_for(&sleepers, "TSS", &mut still);
        sleepers.iter().for_each(|sleeper| still.hold(sleeper.id(), row()));
        wait_for(&sleepers, "Ttt", &mut still);
        sleepers[1].send(libc::SIGSTOP);
        sleepers[2].send(libc::SIGTERM);
        still.go_on(None);
        wait_for(&sleepers, "TTZ", &mut still);
        assert_eq!(sleepers[2].0.wait().unwrap().signal(), Some(libc::SIGTERM));
    }
}
