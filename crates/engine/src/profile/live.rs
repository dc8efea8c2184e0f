//! The samples that are live: from a block's address to its site and what it stands for, and the filter that tells
//! nearly all other blocks from them in one load.
//!
//! A block is entered before the program gets it and taken out before the allocator gets it back, so no two threads
//! ever handle the same address at once, and what orders them is the program's own handing over of the block. All
//! orderings are relaxed for that reason, but for a slot that changes hands: whoever takes it for another address has
//! nothing else in common with the one that left it.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use oomguard_core::profile::SiteIndex;

/// Slots of the filter: a third of a small first-level cache.
pub(super) const FILTER_SLOTS: usize = 16 << 10;

/// How many live samples fall on each slot; 255 stays.
static FILTER: [AtomicU8; FILTER_SLOTS] = [const { AtomicU8::new(0) }; FILTER_SLOTS];

/// Neighbours share cache lines of the filter, as they do in the heap.
#[inline(always)]
fn slot_of(address: usize) -> &'static AtomicU8 {
    // The mask makes this an index without a check.
    &FILTER[address >> 4 & (FILTER_SLOTS - 1)]
}

/// Whether the block at `address` may be a live sample.
#[inline(always)]
pub(super) fn may_hold(address: usize) -> bool {
    slot_of(address).load(Ordering::Relaxed) != 0
}

/// Slots of one bucket: the keys are a cache line.
const WAYS: usize = 8;
const BUCKETS: usize = 4096;

/// The table: each address may lie in two buckets, and nowhere else, so that looking in vain costs two cache lines
/// however long the process has run.
#[repr(C, align(64))]
pub(super) struct Live {
    keys: [[AtomicU64; WAYS]; BUCKETS],
    values: [[AtomicU64; WAYS]; BUCKETS],
}

/// What is kept of a live sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    pub(super) site: SiteIndex,
    pub(super) stands_for: u64,
}

const BYTES_BITS: u32 = 48;

impl Sample {
    /// Cut to what fits: 256 TiB.
    pub(super) fn new(site: SiteIndex, stands_for: u64) -> Sample {
        Sample { site, stands_for: stands_for.min((1 << BYTES_BITS) - 1) }
    }

    fn encode(self) -> u64 {
        u64::from(self.site.0) << BYTES_BITS | self.stands_for
    }

    fn decode(value: u64) -> Sample {
        Sample { site: SiteIndex((value >> BYTES_BITS) as u16), stands_for: value & ((1 << BYTES_BITS) - 1) }
    }
}

impl Live {
    /// False where there is no room.
    pub(super) fn insert(&self, address: usize, sample: Sample) -> bool {
        // First the filter: no release may be missed.
        let slot = slot_of(address);
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
        for bucket in buckets_of(address) {
            let (Some(keys), Some(values)) = (self.keys.get(bucket), self.values.get(bucket)) else {
                continue;
            };
            for (key, value) in keys.iter().zip(values) {
                // Acquire: pairs with the Release in `remove`. Without it our value might be stored before the one
                // that left the slot has read its own. Nothing is read on failure.
                if key.load(Ordering::Relaxed) == 0
                    && key.compare_exchange(0, address as u64, Ordering::Acquire, Ordering::Relaxed).is_ok()
                {
                    value.store(sample.encode(), Ordering::Relaxed);
                    return true;
                }
            }
        }
        leave(slot);
        false
    }

    /// Takes a sample out, if that address is one.
    pub(super) fn remove(&self, address: usize) -> Option<Sample> {
        for bucket in buckets_of(address) {
            let (Some(keys), Some(values)) = (self.keys.get(bucket), self.values.get(bucket)) else {
                continue;
            };
            for (key, value) in keys.iter().zip(values) {
                if key.load(Ordering::Relaxed) == address as u64 {
                    let sample = Sample::decode(value.load(Ordering::Relaxed));
                    // Release: pairs with the Acquire of whoever takes the slot, so that the value is read before.
                    key.store(0, Ordering::Release);
                    leave(slot_of(address));
                    return Some(sample);
                }
            }
        }
        None
    }
}

fn leave(slot: &AtomicU8) {
    let one_less = |count: u8| if count == u8::MAX { None } else { count.checked_sub(1) };
    let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
}

fn buckets_of(address: usize) -> [usize; 2] {
    let mixed = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(mixed >> 52) as usize % BUCKETS, (mixed >> 40) as usize % BUCKETS]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Box<Live> {
        // In place: the table is larger than some stacks.
        let words = vec![0u64; size_of::<Live>() / 8 + 8].leak();
        let at = words.as_mut_ptr().cast::<u8>();
        // SAFETY: within the leaked words, which are eight more than the table takes.
        let at = unsafe { at.add(at.align_offset(64)) };
        // SAFETY: zeroes are a valid table; aligned above, leaked before, and freed by nobody: see `forget` below.
        unsafe { Box::from_raw(at.cast()) }
    }

    #[test]
    fn what_is_entered_is_found_once() {
        let live = fresh();
        let sample = |n: usize| Sample::new(SiteIndex((n % 4097) as u16), n as u64 * 1000);
        // Addresses of a test of its own: the filter is the process's.
        let address = |n: usize| 0x7000_0000_0000 + n * 48;
        for n in 1..20_000 {
            assert!(live.insert(address(n), sample(n)), "no room for {n}");
            assert!(may_hold(address(n)));
        }
        for n in 1..20_000 {
            assert_eq!(live.remove(address(n)), Some(sample(n)));
            assert_eq!(live.remove(address(n)), None);
        }
        std::mem::forget(live);
    }

    #[test]
    fn a_full_table_refuses_and_recovers() {
        let live = fresh();
        let address = |n: usize| 0x6000_0000_0000 + n * 1040;
        let entered: Vec<usize> =
            (0..60_000).map(address).filter(|at| live.insert(*at, Sample::new(SiteIndex(1), 1))).collect();
        assert!(entered.len() > WAYS * BUCKETS * 8 / 10, "only {} found room", entered.len());
        assert!(entered.len() < 60_000);
        for at in &entered {
            assert!(live.remove(*at).is_some());
        }
        assert!(live.insert(address(1), Sample::new(SiteIndex(1), 1)));
        assert!(live.remove(address(1)).is_some());
        std::mem::forget(live);
    }
}
