//! Processes that stand still for a moment. The thread that holds them is their tracer meanwhile (ptrace(2)): so no parent is told
//! of it, as one is of a process that SIGSTOP stops; who is stopped or let go on by somebody else at that time is as he left it
//! afterwards; and once that thread has ended, however it did, the kernel lets them go on. Whoever is traced already, or may not
//! be, is left alone.

use super::sys;
use crate::growth::is_alive;
use crate::ledger::Id;

#[derive(Default)]
pub(super) struct Stillness {
    /// Those that stand still, or are about to, each with its threads.
    held: Vec<(Id, Vec<u32>)>,
    /// Threads that were about to stand still when they were to go on.
    leaving: Vec<u32>,
}

impl Stillness {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Has a process stand still, all its threads. Nothing where it does so of itself.
    pub(super) fn hold(&mut self, id: Id) {
        let is_held = self.held.iter().any(|(held, _)| *held == id);
        if is_held || matches!(sys::proc::state_of(id.pid()), None | Some(b'T' | b't' | b'Z' | b'X')) {
            return;
        }
        let mut threads: Vec<u32> = Vec::new();
        // One that does not stand yet may start another.
        loop {
            let before = threads.len();
            for tid in threads_of(id.pid()) {
                if !threads.contains(&tid) && sys::trace::hold(tid) {
                    threads.push(tid);
                }
            }
            if threads.len() == before {
                break;
            }
        }
        if is_alive(id) {
            self.held.push((id, threads));
        } else {
            // Its number is another one's by now.
            self.leaving.extend(threads);
        }
    }

    /// Lets all go on, or that one.
    pub(super) fn go_on(&mut self, only: Option<Id>) {
        for (_, threads) in self.held.extract_if(.., |(id, _)| only.is_none_or(|only| only == *id)) {
            self.leaving.extend(threads);
        }
        self.finish();
    }

    /// Lets the one go on that has stood still longest.
    pub(super) fn next_goes_on(&mut self) {
        if let Some((first, _)) = self.held.first() {
            self.go_on(Some(*first));
        }
    }

    /// Nobody can be let go who does not stand yet: whether all who are to go on have.
    pub(super) fn finish(&mut self) -> bool {
        self.leaving.retain(|tid| !sys::trace::let_go(*tid));
        self.leaving.is_empty()
    }
}

fn threads_of(pid: u32) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            Sleeper(Command::new("sleep").arg("60").spawn().unwrap())
        }

        fn id(&self) -> Id {
            Id::new(self.0.id(), sys::proc::life_of(self.0.id()).unwrap().start)
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

    fn wait_for(sleepers: &[Sleeper], states: &str, still: &mut Stillness) {
        let began = Instant::now();
        loop {
            still.finish();
            let now: String = sleepers.iter().map(Sleeper::state).collect();
            if now == states {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{now} rather than {states}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn those_who_stand_still_go_on_one_after_the_other() {
        let (sleepers, mut still) = ([(); 3].map(|()| Sleeper::start()), Stillness::default());
        sleepers.iter().for_each(|sleeper| still.hold(sleeper.id()));
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
            sleepers.iter().for_each(|sleeper| still.hold(sleeper.id()));
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
        sleepers.iter().for_each(|sleeper| still.hold(sleeper.id()));
        wait_for(&sleepers, "Ttt", &mut still);
        sleepers[1].send(libc::SIGSTOP);
        sleepers[2].send(libc::SIGTERM);
        still.go_on(None);
        wait_for(&sleepers, "TTZ", &mut still);
        assert_eq!(sleepers[2].0.wait().unwrap().signal(), Some(libc::SIGTERM));
    }
}
