//! Whether the kernel's out-of-memory killer was at work: its counter in this process's own cgroup, before and after.
//!
//! The kernel counts a kill before it sends the signal, so the counter has risen when the death can be seen. It does
//! not say whom it killed: a worker that died of SIGKILL while the counter rose is taken for the victim, each rise for
//! one worker at most. A worker that moves to a cgroup that is not below this process's own is not counted here.

use crate::cgroup::{KillCounter, kill_counter};
use parking_lot::Mutex;
use std::fmt;
use std::sync::OnceLock;

/// How the kernel's out-of-memory killer was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKill {
    counter: &'static str,
    kills: u64,
}

impl OomKill {
    /// Returns the file whose `oom_kill` rose: `memory.events` (cgroup v2) or `memory.oom_control` (v1).
    pub fn counter(&self) -> &'static str {
        self.counter
    }

    /// Returns by how many it rose between the worker's start and its death; other processes' deaths included.
    pub fn kills(&self) -> u64 {
        self.kills
    }
}

impl fmt::Display for OomKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGKILL, and oom_kill in {} rose by {}", self.counter, self.kills)
    }
}

/// The counters when a worker started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    kills: Option<u64>,
    explained: u64,
}

/// Kills that were found to be some worker's.
static EXPLAINED: Mutex<u64> = Mutex::new(0);

fn counter() -> Option<&'static KillCounter> {
    static COUNTER: OnceLock<Option<KillCounter>> = OnceLock::new();
    COUNTER.get_or_init(|| kill_counter("")).as_ref()
}

impl Before {
    pub(super) fn now() -> Before {
        let explained = *EXPLAINED.lock();
        Before { kills: counter().and_then(KillCounter::read), explained }
    }

    /// Takes one kill since then for the worker that died of SIGKILL, if there is one that nobody else took.
    pub(super) fn take_kill(&self) -> Option<OomKill> {
        let counter = counter()?;
        let mut explained = EXPLAINED.lock();
        let kills = counter.read()?.saturating_sub(self.kills?);
        is_unexplained(kills, *explained - self.explained).then(|| {
            *explained += 1;
            OomKill { counter: counter.name, kills }
        })
    }
}

fn is_unexplained(kills: u64, explained: u64) -> bool {
    kills > explained
}

#[cfg(test)]
impl OomKill {
    pub(super) fn example() -> OomKill {
        OomKill { counter: "memory.events", kills: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_explains_one_death() {
        assert!(!is_unexplained(0, 0));
        assert!(is_unexplained(1, 0));
        assert!(!is_unexplained(1, 1));
        assert!(is_unexplained(3, 1));
    }
}
