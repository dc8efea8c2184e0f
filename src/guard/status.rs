//! `status()`: what a health endpoint wants to know.

use super::armed::armed;
use super::{record, refusal};
use crate::contract::{LimitSource, Measure};
use crate::sys;

/// The guard's limit and how near this process is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The limit in bytes; `None` where there is none, or no guard.
    pub limit: Option<u64>,
    /// Who set it.
    pub source: Option<LimitSource>,
    /// What it counts.
    pub measure: Measure,
    /// What the process uses now of what the limit counts, in bytes; `None` where there is no `/proc`.
    pub in_use: Option<u64>,
    /// Allocations refused so far and passed on to the program.
    pub refusals: u64,
}

impl Status {
    /// What is left until the limit, in bytes.
    pub fn headroom(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.in_use?))
    }
}

/// The guard's limit and how near this process is to it, read from `/proc/self/status`: some 20 µs and no allocation.
///
/// ```
/// let status = oomguard::status();
/// println!("{:?} of {:?} bytes in use, {:?} left", status.in_use, status.limit, status.headroom());
/// ```
pub fn status() -> Status {
    let armed = armed();
    let measure = armed.map_or(Measure::AddressSpace, |armed| armed.measure);
    let memory = sys::memory::memory_use();
    record::note_use(&memory);
    Status {
        limit: armed.and_then(|armed| armed.limit.bytes()),
        source: armed.and_then(|armed| armed.limit.source()),
        measure,
        in_use: memory.of(measure),
        refusals: refusal::refused_count(),
    }
}
