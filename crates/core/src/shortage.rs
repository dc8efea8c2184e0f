//! Whether a limit explains that memory was refused. The kernel and the C library say ENOMEM for other reasons, too: no
//! huge pages, too many mappings, a range with a hole in it, memory that may not be locked, a size that no machine has. One
//! answer for all who see a refusal, from inside and from outside; pure.

// The guard asks where there are C's names to look at.

use crate::contract::Measure;
use crate::sys::memory::{MemoryUse, page_bytes};

/// Whether the error of the last call that failed tells that a program is missing something else than memory: a file, a right, a
/// peer. A refusal leaves ENOMEM behind; who tidies up may close what is closed, and end who has ended.
pub fn is_of_another_thing(errno: i32) -> bool {
    const FILES: [i32; 5] = [libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOTDIR, libc::EISDIR];
    FILES.contains(&errno) || [libc::EADDRINUSE, libc::ECONNREFUSED].contains(&errno)
}

/// What was asked for, and not given.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub bytes: u64,
    /// It would have been private and writable: what RLIMIT_DATA counts.
    pub writable: bool,
    /// An allocator asked the kernel on somebody's behalf, and for more than that one wanted.
    pub by_allocator: bool,
}

/// A limit that had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    pub measure: Measure,
    /// Its bytes at that moment.
    pub limit: u64,
}

/// More than this no process can address, whatever its limits: 47 bits on x86-64 (without a hint of the program's own that
/// it wants more), 48 as a rule elsewhere.
const ADDRESSABLE_BYTES: u64 = if cfg!(target_arch = "x86_64") { 1 << 47 } else { 1 << 48 };

/// What the C library takes from the kernel beside a block, at once (M_TOP_PAD in mallopt(3)), and a page for rounding.
pub const LEAST_STEP_BYTES: u64 = (128 + 4) << 10;

impl Asked {
    pub fn of_heap(bytes: u64) -> Asked {
        Asked { bytes, writable: true, by_allocator: true }
    }

    /// The limit that had no room for it: `first`, or the other one. `limit_of` reads it now; `used` is what the process
    /// used at that moment, or as soon as it could be read.
    pub fn refused_by(
        self,
        first: Measure,
        limit_of: impl Fn(Measure) -> Option<u64>,
        used: &MemoryUse,
    ) -> Option<Full> {
        if !self.is_possible() {
            return None;
        }
        let is_counted = |measure: &Measure| self.writable || *measure == Measure::AddressSpace;
        // Under the measure `resident`, a limit on data that there was before stays in force.
        let data = (first == Measure::Resident).then_some(Measure::Data);
        let limits = [first, first.other()].into_iter().chain(data).filter(is_counted);
        limits.filter_map(|measure| Some(Full { measure, limit: limit_of(measure)? })).find(|full| {
            let wanted = self.whole_pages().saturating_add(self.beside(full.limit, used));
            used.of(full.measure).is_none_or(|used| used.saturating_add(wanted) > full.limit)
        })
    }

    /// Whether any process could have it.
    pub fn is_possible(self) -> bool {
        self.whole_pages() < ADDRESSABLE_BYTES
    }

    fn whole_pages(self) -> u64 {
        self.bytes.checked_next_multiple_of(page_bytes()).unwrap_or(u64::MAX)
    }

    /// What may have been missing beside it: what an allocator takes in one step, and what other threads have given back
    /// since.
    fn beside(self, limit: u64, used: &MemoryUse) -> u64 {
        if self.by_allocator || used.threads != Some(1) { (limit / 16).max(LEAST_STEP_BYTES) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn used(address_space: u64, data: u64, threads: u64) -> MemoryUse {
        let known = Some;
        MemoryUse {
            address_space: known(address_space),
            data: known(data),
            threads: known(threads),
            ..MemoryUse::default()
        }
    }

    /// With 64 MiB of data allowed, and 256 MiB of address space.
    fn refused_by(asked: Asked, used: &MemoryUse) -> Option<Measure> {
        let limit_of = |measure| match measure {
            Measure::Data => Some(64 * MIB),
            _ => Some(256 * MIB),
        };
        asked.refused_by(Measure::Data, limit_of, used).map(|full| full.measure)
    }

    #[test]
    fn what_fits_was_refused_for_another_reason() {
        let mapping = Asked { bytes: MIB, writable: true, by_allocator: false };
        let reservation = Asked { writable: false, ..mapping };
        let block = Asked { by_allocator: true, ..mapping };
        for (asked, used, expected) in [
            (mapping, used(100 * MIB, 10 * MIB, 1), None),
            (mapping, used(100 * MIB, 63 * MIB, 1), None),
            (mapping, used(100 * MIB, 63 * MIB + 4096, 1), Some(Measure::Data)),
            (mapping, used(255 * MIB + 4096, 10 * MIB, 1), Some(Measure::AddressSpace)),
            (reservation, used(100 * MIB, 64 * MIB, 1), None),
            (reservation, used(256 * MIB, 10 * MIB, 1), Some(Measure::AddressSpace)),
            // Others may have given a little back since.
            (mapping, used(100 * MIB, 60 * MIB, 2), Some(Measure::Data)),
            (mapping, used(100 * MIB, 58 * MIB, 2), None),
            (block, used(100 * MIB, 60 * MIB, 1), Some(Measure::Data)),
            (block, used(100 * MIB, 58 * MIB, 1), None),
            // A part of a page is a page.
            (Asked { bytes: 1, ..mapping }, used(100 * MIB, 64 * MIB, 1), Some(Measure::Data)),
            (mapping, MemoryUse::default(), Some(Measure::Data)),
        ] {
            assert_eq!(refused_by(asked, &used), expected, "{asked:?} {used:?}");
        }
    }

    #[test]
    fn what_no_process_can_have_was_not_refused_by_a_limit() {
        for (bytes, expected) in [
            (1 << 40, Some(Measure::Data)),
            (1 << 63, None),
            (i64::MAX as u64, None),
            (u64::MAX, None),
            (ADDRESSABLE_BYTES, None),
        ] {
            let asked = Asked { bytes, writable: true, by_allocator: true };
            assert_eq!(refused_by(asked, &used(MIB, MIB, 1)), expected, "{bytes}");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_refused_by_one() {
        let asked = Asked { bytes: 1 << 40, writable: true, by_allocator: true };
        assert_eq!(asked.refused_by(Measure::Data, |_| None, &used(MIB, MIB, 1)), None);
    }
}
