//! How much memory there is to share among workers.

use crate::cgroup::container_limit;
use oomguard_core::limit::{Limit, Share};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory that all workers of a [`Pool`](super::Pool) may have together.
#[derive(Debug)]
pub struct Budget {
    source: Source,
    keep: Limit,
}

#[derive(Debug)]
enum Source {
    Fixed(u64),
    /// `root` is empty for the real system; `last` is what was read last.
    Container {
        root: String,
        last: AtomicU64,
    },
}

impl Budget {
    /// Makes a budget of the limit of the container that this process is in: the smallest `memory.max` or
    /// `memory.high` (cgroup v2), or `memory.limit_in_bytes` (v1), from its own cgroup up to the root. It is read
    /// again whenever a worker is to be started, as a container can be resized while it runs.
    ///
    /// # Errors
    /// `NotFound` where there is no such limit: [`Budget::of`] sets one.
    pub fn container() -> io::Result<Budget> {
        Budget::container_below(String::new())
    }

    pub(super) fn container_below(root: String) -> io::Result<Budget> {
        let Some(bytes) = container_limit(&root) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no memory limit on the way from this process's cgroup to the root, so there is nothing to share: give \
                 the container one, or say how much there is with Budget::of",
            ));
        };
        Ok(Budget { source: Source::Container { root, last: AtomicU64::new(bytes) }, keep: Limit::Off })
    }

    /// Makes a budget of so much, whatever the container has. Where `limit` stands for no limit at all, neither has
    /// the budget one.
    pub fn of(limit: Limit) -> Budget {
        Budget { source: Source::Fixed(super::resolve(limit, "").unwrap_or(u64::MAX)), keep: Limit::Off }
    }

    /// What `OOMGUARD_BUDGET` says: for a process that is told from outside what it and its workers may have.
    ///
    /// # Errors
    /// `NotFound` where it is not set; `InvalidInput` where it is no limit.
    pub fn from_env() -> io::Result<Budget> {
        let name = crate::contract::variable::BUDGET;
        let unset = || format!("{name} is not set: set it, or say how much there is with Budget::of");
        let value = std::env::var_os(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, unset()))?;
        let limit: Limit = value.to_string_lossy().parse().map_err(|error: crate::ParseLimitError| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name}={value:?}: {error}"))
        })?;
        match limit {
            Limit::Auto | Limit::Share(_) if container_limit("").is_some() => {
                let kept = match limit {
                    Limit::Share(share) => Limit::Share(share.rest()),
                    _ => Limit::Auto,
                };
                Ok(Budget::container()?.keep(kept))
            }
            limit => Ok(Budget::of(limit)),
        }
    }

    /// Sets what this process keeps for itself, and for everything else in its container: a size, or a share of the
    /// whole.
    ///
    /// A cgroup charges more than a limit counts: with the measure `data`, allow some 2 MiB for each worker that runs
    /// at once, for its libraries and its main stack.
    #[must_use]
    pub fn keep(mut self, keep: Limit) -> Budget {
        self.keep = keep;
        self
    }

    /// Returns what there is for the workers here and now, in bytes.
    pub fn bytes(&self) -> u64 {
        let whole = match &self.source {
            Source::Fixed(bytes) => *bytes,
            Source::Container { root, last } => match container_limit(root) {
                Some(bytes) => {
                    // Relaxed, here and below: a number by itself.
                    last.store(bytes, Ordering::Relaxed);
                    bytes
                }
                // Gone, or not to be read for the moment: not a reason to start everything at once.
                None => last.load(Ordering::Relaxed),
            },
        };
        let keep = match self.keep {
            Limit::Bytes(bytes) => bytes,
            Limit::Share(share) => share.of(whole),
            Limit::Auto => whole - Share::percent(crate::contract::AUTO_PERCENT).of(whole),
            Limit::Off => 0,
        };
        whole.saturating_sub(keep)
    }
}

impl Budget {
    /// The bytes that a worker's limit stands for at this moment, in the container that this is the budget of.
    pub(super) fn resolve(&self, limit: Limit) -> Option<u64> {
        let root = match &self.source {
            Source::Fixed(_) => "",
            Source::Container { root, .. } => root,
        };
        super::resolve(limit, root)
    }
}

/// A worker that can never run: its limit is more than the whole budget.
///
/// It comes as the inner error of an [`io::Error`] of kind `InvalidInput`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The worker's limit in bytes.
    pub asked: u64,
    /// The whole budget in bytes.
    pub budget: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a worker with a limit of {} can never run: the whole budget is {}; give it a smaller limit, keep less for \
             the parent, or make the container larger",
            super::size(self.asked),
            super::size(self.budget)
        )
    }
}

impl std::error::Error for TooLarge {}

impl From<TooLarge> for io::Error {
    fn from(error: TooLarge) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_container_is_read_again_and_the_parent_keeps_its_part() {
        let root = std::env::temp_dir().join(format!("oomguard-budget-{}", std::process::id()));
        let group = root.join("sys/fs/cgroup/a");
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(root.join("proc/self")).unwrap();
        fs::write(root.join("proc/self/cgroup"), "0::/a\n").unwrap();
        let set = |text: &str| fs::write(group.join("memory.max"), text).unwrap();
        set("1000\n");
        let budget = Budget::container_below(root.to_str().unwrap().into()).unwrap();
        assert_eq!(budget.bytes(), 1000);
        let budget = budget.keep(Limit::Bytes(100));
        assert_eq!(budget.bytes(), 900);
        set("500\n");
        assert_eq!(budget.bytes(), 400);
        set("50\n");
        assert_eq!(budget.bytes(), 0);
        set("max\n");
        assert_eq!(budget.bytes(), 0, "a limit that vanishes is not a reason to start everything");
        set("2000\n");
        assert_eq!(budget.keep("25%".parse().unwrap()).bytes(), 1500);
        set("max\n");
        assert!(Budget::container_below(root.to_str().unwrap().into()).is_err());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_budget_can_be_any_number() {
        assert_eq!(Budget::of(Limit::Bytes(5)).bytes(), 5);
        assert_eq!(Budget::of(Limit::Off).keep(Limit::Bytes(1)).bytes(), u64::MAX - 1);
    }

    #[test]
    fn too_large_names_both_sizes() {
        let text = TooLarge { asked: 2 << 30, budget: 1 << 30 }.to_string();
        assert!(text.contains("2048 MiB") && text.contains("1024 MiB"), "{text}");
    }
}
