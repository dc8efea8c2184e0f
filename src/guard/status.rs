//! `status()`: what a health endpoint wants to know.

use super::armed::{Armed, armed};
use super::{lease, record, refusal, startup};
use crate::contract::{LimitSource, Measure};
use crate::sys;

/// The guard's limit and how near this process is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The limit in bytes, as it is now; `None` where there is none, or no guard.
    pub limit: Option<u64>,
    /// Who set it; [`LimitSource::Changed`] where somebody has moved it since the start.
    pub source: Option<LimitSource>,
    /// What it counts.
    pub measure: Measure,
    /// What the process uses now of what the limit counts, in bytes; `None` where there is no `/proc`.
    pub in_use: Option<u64>,
    /// Allocations refused so far and passed on to the program.
    pub refusals: u64,
    /// Whether the guard can tell that the program dies of a refused allocation. False without a guard, and in a
    /// program that was built without what that is told by, as was said on stderr at its start: there the limit
    /// holds, and the end is the program's own.
    pub recognizes: bool,
    /// What the process and others may have together, in bytes; `None` where it shares no budget.
    pub budget: Option<u64>,
    /// What it may have of that for now, in bytes.
    pub lease: Option<u64>,
}

impl Status {
    /// Returns what is left until the limit, in bytes.
    pub fn headroom(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.in_use?))
    }
}

/// Returns the guard's limit and how near this process is to it, read from `/proc/self/status`: some 20 µs and no
/// allocation.
///
/// ```
/// let status = oomguard::status();
/// println!("{:?} of {:?} bytes in use, {:?} left", status.in_use, status.limit, status.headroom());
/// ```
pub fn status() -> Status {
    let armed = armed();
    let measure = armed.map_or(Measure::AddressSpace, |armed| armed.measure);
    let limit = armed.and_then(Armed::limit_now);
    let memory = sys::memory::memory_use();
    record::note_use(&memory);
    Status {
        limit: limit.map(|limit| limit.bytes),
        source: limit.map(|limit| limit.source),
        measure,
        in_use: memory.of(measure),
        refusals: refusal::refused_count(),
        recognizes: startup::recognizes(),
        budget: lease::budget(),
        lease: lease::bytes(),
    }
}
