//! What a worker left behind: processes of its group, and processes anywhere that still hold its lifeline.
//!
//! The lifeline is a pipe: every descendant inherits its writing end unless it closes what it does not know, so a
//! reading end that hangs up means that nobody is left, whatever group or session they moved to. Becoming the
//! subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)) would find them too, but changes what this whole process is.

use super::sys;
use crate::text::whole_number;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};

/// The processes that have come since the last call with the same `seen`, by number.
pub(super) fn arrivals(seen: &mut HashSet<u32>) -> Vec<u32> {
    let mut all = HashSet::new();
    sys::proc::for_each(|pid| {
        all.insert(pid);
    });
    let mut new: Vec<u32> = all.difference(seen).copied().collect();
    new.sort_unstable();
    *seen = all;
    new
}

/// What to do with the processes of a worker's own group when the worker itself has ended.
///
/// Matters only for a worker that leads a group, which [`process_group(0)`] makes it.
///
/// [`process_group(0)`]: std::os::unix::process::CommandExt::process_group
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLeftBehind {
    /// Say so in [`Ended::left_behind`](super::Ended::left_behind), and let them live.
    #[default]
    Report,
    /// Send them SIGKILL.
    Kill,
}

/// Processes that a worker started and that outlived it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftBehind {
    /// How many processes were left in the worker's own process group; zero, too, where it led none. Where the group
    /// was killed, those that were not dead 100 ms later.
    pub in_group: usize,
    /// Whether any descendant was left, in whatever group or session; `None` where that was not watched:
    /// [`Worker::watch_descendants`](super::Worker::watch_descendants).
    pub anywhere: Option<bool>,
}

impl LeftBehind {
    /// Returns whether something is known to have been left.
    pub fn is_any(&self) -> bool {
        self.in_group > 0 || self.anywhere == Some(true)
    }
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.in_group, self.anywhere) {
            (0, Some(true)) => f.write_str("it left processes behind, outside its process group"),
            (0, Some(false)) => f.write_str("it left no process behind"),
            (0, None) => f.write_str("whether it left processes behind is not known"),
            (count, _) => write!(f, "it left {count} of its process group behind"),
        }
    }
}

/// The parent's end.
pub(super) struct Lifeline {
    reader: PipeReader,
}

impl Lifeline {
    /// And the child's.
    pub(super) fn new(least_number: i32) -> io::Result<(Lifeline, OwnedFd)> {
        let (reader, writer): (PipeReader, PipeWriter) = io::pipe()?;
        Ok((Lifeline { reader }, sys::child::move_up(writer.into(), least_number)))
    }

    fn is_held(&self) -> bool {
        // Nobody writes: readable means hung up.
        !sys::child::poll([Some(self.reader.as_fd())], 0).is_ok_and(|[hung_up]| hung_up)
    }
}

/// Kills the rest of the group that the dead worker `pid` leads. Before it is reaped: until then the number is its.
pub(super) fn kill_group(pid: u32) {
    // ESRCH: nobody is left.
    let _ = sys::child::kill(pid, true, libc::SIGKILL);
}

/// Waits until those that `kill_group` has killed are dead, as their memory is not free before: for 100 ms at most, as
/// one may be in a system call that cannot be interrupted.
pub(super) fn wait_for_killed_group(pid: u32) {
    for _ in 0..100 {
        if sys::child::kill(pid, true, 0).is_err() || count_group(pid) == 0 {
            return;
        }
        sys::clock::sleep_ms(1);
    }
}

/// Looks for what is left of worker `pid`, which has been reaped.
pub(super) fn look(pid: u32, led_group: bool, lifeline: Option<&Lifeline>) -> LeftBehind {
    // The group's number is not given to anybody else as long as a process is in it.
    let group_lives = led_group && sys::child::kill(pid, true, 0).is_ok();
    LeftBehind {
        in_group: if group_lives { count_group(pid) } else { 0 },
        anywhere: lifeline.map(Lifeline::is_held),
    }
}

/// Whether process `pid` is `ancestor`, or descends from it, as far as its parents live.
pub(super) fn descends_from(pid: u32, ancestor: u32) -> bool {
    /// Deeper than anybody nests processes.
    const MOST: usize = 1000;
    let parent = |pid: &u32| sys::proc::parent_of(*pid);
    std::iter::successors(Some(pid), parent).take(MOST).any(|pid| pid == ancestor)
}

/// state, ppid, pgrp, …: proc_pid_stat(5).
fn fields_of(stat: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let fields = sys::proc::behind_name(stat)?.split(u8::is_ascii_whitespace);
    Some(fields.filter(|field| !field.is_empty()))
}

/// How many living processes are in group `group`: proc_pid_stat(5).
fn count_group(group: u32) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 1 };
    processes
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter_map(|entry| std::fs::read(entry.path().join("stat")).ok())
        .filter(|stat| is_alive_in_group(stat, group))
        .count()
}

fn is_alive_in_group(stat: &[u8], group: u32) -> bool {
    let Some(mut fields) = fields_of(stat) else { return false };
    let state = fields.next();
    let in_group = fields.nth(1).and_then(whole_number) == Some(group.into());
    in_group && !matches!(state, Some(b"Z" | b"X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_descends_from_whom_is_read_from_the_kernels_files() {
        let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
        assert!(descends_from(own, own) && descends_from(own, parent));
        assert!(!descends_from(parent, own) && !descends_from(own, u32::MAX));
    }

    #[test]
    fn names_with_brackets_do_not_confuse_the_group() {
        assert!(is_alive_in_group(b"42 (a) b (c)) S 1 77 77 0 -1", 77));
        assert!(!is_alive_in_group(b"42 (a 77 77) S 1 78 77 0 -1", 77));
        assert!(!is_alive_in_group(b"42 (dead) Z 1 77 77 0 -1", 77));
        assert!(is_alive_in_group(b"42 (caf\xc3) S 1 77 77 0 -1\n", 77));
        assert!(is_alive_in_group(b"42 (a\n7) Z 1\n) S 1 77 77 0 -1\n", 77));
        assert!(!is_alive_in_group(b"42 (\xff) S 1 78 77 0 -1\n", 77));
        assert!(!is_alive_in_group(b"garbage", 77));
        assert!(!is_alive_in_group(b"42 (cut) S 1", 77));
    }
}
