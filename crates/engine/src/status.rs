//! `status()`: what a health endpoint wants to know.

use super::armed::{Armed, armed};
use super::interface::Status;
use super::{lease, record, refused, startup};
use oomguard_core::contract::Measure;
use oomguard_core::sys;

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
        refusals: refused::count(),
        recognizes: startup::recognizes(),
        budget: lease::budget(),
        lease: lease::bytes(),
        waiting_ms: lease::waiting_ms(),
    }
}
