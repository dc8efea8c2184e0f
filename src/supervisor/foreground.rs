//! A process that stands in for its worker: whoever signals it means the worker. See signal(7), signalfd(2).
//!
//! Nothing is handled and nothing is sent twice: the signals are blocked, and read where the worker's end is waited for.
//! The worker is started with the mask and the dispositions that this process was found with.

use crate::sys;
use crate::sys::signals::{Arrival, Signals};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is passed on. SIGTSTP and SIGCONT are left alone: job control stops and continues the whole process group.
const PASSED_ON: [i32; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// Those after which nobody wants another try.
const ASK_TO_END: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Makes this process stand in for a worker, as a launcher or the first process of a container does.
///
/// SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH are passed on to the worker, unless a key on the
/// terminal sent them, which has reached the worker's process group already, or the worker itself did. Children that this
/// process did not start (orphans, where it is process 1 or a subreaper) are reaped: there must be no other child that
/// it means to wait for. The worker gets the signal mask that was in force when [`enter`](Foreground::enter) was called,
/// and SIGPIPE and SIGCHLD are ignored in it if they were then; [`Command`](std::process::Command) alone would reset
/// them.
#[derive(Debug)]
pub struct Foreground {
    arrivals: OwnedFd,
    found: Found,
    told_to_end: bool,
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
    /// Blocks the signals in this thread, for good. To be called before there is a second thread, which would get the
    /// signals instead. Rust's runtime ignores SIGPIPE before `main`, and opens descriptors 0 to 2 where they are
    /// closed: a launcher that wants to pass these on as they were has a C `main` (`#![no_main]`).
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn enter() -> io::Result<Foreground> {
        let ignored = CHANGED.into_iter().filter(|signal| sys::signals::is_ignored(*signal));
        let ignored = Signals::of(&ignored.collect::<Vec<_>>());
        let arriving = [&PASSED_ON[..], &[libc::SIGCHLD]].concat();
        let arrivals = sys::child::move_up(sys::signals::arrivals(Signals::of(&arriving))?, 100);
        // While SIGCHLD is ignored, the kernel reaps all children, and nobody learns how they ended.
        sys::signals::set_default(libc::SIGCHLD);
        // Blocked SIGPIPE: a message that nobody reads must not end this process before its worker.
        let blocked = sys::signals::block_these(Signals::of(&[&arriving[..], &[libc::SIGPIPE]].concat()));
        Ok(Foreground { arrivals, found: Found { blocked, ignored }, told_to_end: false })
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

    /// Deals with what has arrived while worker `pid` runs; `ours` are the children that are waited for elsewhere.
    pub(super) fn attend(&mut self, pid: u32, pidfd: Option<BorrowedFd<'_>>, ours: &[u32]) {
        while let Some(arrival) = sys::signals::next_arrival(self.arrivals.as_fd()) {
            if arrival.signal == libc::SIGCHLD {
                sys::child::reap_strangers(ours);
                continue;
            }
            self.told_to_end |= ASK_TO_END.contains(&arrival.signal);
            if is_to_be_passed_on(arrival, pid, sys::child::leads_session) {
                // Fails for a worker that runs as another user, or is dead; it has not been reaped, so that its number is
                // its own.
                let _ = match pidfd {
                    Some(pidfd) => sys::child::send_signal(pidfd, arrival.signal),
                    None => sys::child::kill(pid, false, arrival.signal),
                };
            }
        }
    }
}

fn is_to_be_passed_on(arrival: Arrival, worker: u32, leads_session: impl Fn() -> bool) -> bool {
    if arrival.by_kernel {
        // A terminal that hangs up tells the leader of the session alone.
        return arrival.signal == libc::SIGHUP && leads_session();
    }
    // A worker that signals its whole process group has got its signal already; passed on, it could go round for ever.
    arrival.sender != worker
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_worker_has_got_already_is_not_sent_again() {
        let arrival = |signal, by_kernel, sender| Arrival { signal, by_kernel, sender };
        let passed = |arrival, leads| is_to_be_passed_on(arrival, 7, || leads);
        assert!(passed(arrival(libc::SIGTERM, false, 1), false));
        assert!(passed(arrival(libc::SIGTERM, false, 0), false), "from outside the PID namespace");
        assert!(!passed(arrival(libc::SIGINT, true, 0), true), "a key on the terminal");
        assert!(!passed(arrival(libc::SIGTERM, false, 7), false), "kill 0 in the worker");
        assert!(passed(arrival(libc::SIGHUP, true, 0), true));
        assert!(!passed(arrival(libc::SIGHUP, true, 0), false));
    }
}
