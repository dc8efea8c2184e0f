//! What one followed process was refused, and whether it got over it. Pure bookkeeping in fixed room: it is kept in a
//! process that may not allocate.
//!
//! A C library tries again by other means when one call was refused (brk, then mmap, then another arena), so the
//! refusals of one thread that no success interrupts are one *want*, as large as the smallest of them. A want is
//! made good by a success of that thread that is at least as large, or by the process mapping so much afterwards,
//! in whatever pieces, that it cannot have been the end of it. What is still wanted at death is what it died of.

/// How many wants are kept for a process; the oldest gives way.
const MOST_WANTS: usize = 8;

/// What a thread asked for and did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Want {
    tid: u32,
    /// The smallest of the refused requests, in bytes: what would do.
    least: u64,
    writable: bool,
    /// `Refusals::mapped` when it was refused last.
    mapped_before: u64,
    /// No success of this thread since, so another refusal is the same want.
    fresh: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    wants: [Option<Want>; MOST_WANTS],
    next: usize,
    /// How many requests were refused in all.
    pub(super) count: u64,
    /// Bytes mapped to be written since the first refusal.
    mapped: u64,
    /// Where the heap ended when brk(2) was last seen; zero for never.
    heap_end: u64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Refused { bytes: u64, writable: bool },
    Mapped { bytes: u64, writable: bool },
}

impl Refusals {
    /// A brk(2) that asked for `asked` and was answered with `end`.
    pub(super) fn of_break(&mut self, asked: u64, end: u64) -> Outcome {
        let before = std::mem::replace(&mut self.heap_end, end);
        if asked > end {
            return Outcome::Refused { bytes: asked - end, writable: true };
        }
        let bytes = if before == 0 { 0 } else { end.saturating_sub(before) };
        Outcome::Mapped { bytes, writable: true }
    }

    pub(super) fn note_refused(&mut self, tid: u32, bytes: u64, writable: bool) {
        self.count += 1;
        let mapped_before = self.mapped;
        let same = self.wants.iter_mut().flatten().find(|want| want.tid == tid && want.fresh);
        if let Some(want) = same {
            want.least = want.least.min(bytes);
            want.writable |= writable;
            want.mapped_before = mapped_before;
            return;
        }
        let want = Want { tid, least: bytes, writable, mapped_before, fresh: true };
        let free = self.wants.iter().position(Option::is_none).unwrap_or(self.next);
        self.next = (free + 1) % MOST_WANTS;
        if let Some(slot) = self.wants.get_mut(free) {
            *slot = Some(want);
        }
    }

    /// A request was granted; `enough` is how much a process maps only if it goes on.
    pub(super) fn note_mapped(&mut self, tid: u32, bytes: u64, writable: bool, enough: u64) {
        if writable {
            self.mapped = self.mapped.saturating_add(bytes);
        }
        for slot in &mut self.wants {
            let Some(want) = slot else { continue };
            let granted = want.tid == tid && bytes >= want.least && (writable || !want.writable);
            if granted || self.mapped - want.mapped_before >= enough {
                *slot = None;
            } else if want.tid == tid {
                want.fresh = false;
            }
        }
    }

    /// Whether something was refused that nothing has made good.
    pub(super) fn is_wanting(&self) -> bool {
        self.wants.iter().any(Option::is_some)
    }
}

/// How much a process with this limit maps only if it goes on.
pub(super) fn enough(limit: u64) -> u64 {
    (limit / 8).max(16 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn refused(requests: &[u64]) -> Refusals {
        let mut refusals = Refusals::default();
        for bytes in requests {
            refusals.note_refused(1, *bytes, true);
        }
        refusals
    }

    fn after(mut refusals: Refusals, granted: &[(u32, u64)]) -> bool {
        for (tid, bytes) in granted {
            refusals.note_mapped(*tid, *bytes, true, enough(64 * MIB));
        }
        refusals.is_wanting()
    }

    #[test]
    fn what_was_made_good_is_no_longer_wanted() {
        for (requests, granted, wanting) in [
            (&[][..], &[][..], false),
            (&[MIB], &[], true),
            (&[MIB], &[(1, MIB)], false),
            (&[MIB], &[(1, MIB - 1)], true),
            // brk refused, then mmap: the C library's second way.
            (&[132 << 10], &[(1, MIB)], false),
            // brk and mmap refused, then another arena: what was asked for is the smaller.
            (&[132 << 10, MIB], &[(1, 132 << 10)], false),
            // A large one, and afterwards the little that saying so takes.
            (&[64 * MIB, 64 * MIB], &[(1, 132 << 10), (1, 4096)], true),
            // Another thread's success says nothing of this one's want …
            (&[MIB], &[(2, 2 * MIB)], true),
            // … unless the whole process goes on.
            (&[MIB], &[(2, 8 * MIB), (3, 8 * MIB)], false),
            (&[1 << 40], &[(1, 10 * MIB), (1, 10 * MIB)], false),
        ] {
            assert_eq!(after(refused(requests), granted), wanting, "{requests:?} {granted:?}");
        }
    }

    #[test]
    fn a_refusal_after_a_success_is_another_want() {
        let mut refusals = refused(&[64 * MIB]);
        refusals.note_mapped(1, 4096, true, enough(0));
        refusals.note_refused(1, 4096, true);
        refusals.note_mapped(1, 4096, true, enough(0));
        assert!(refusals.is_wanting(), "the large one is still wanted");
    }

    #[test]
    fn a_reservation_does_not_make_good_what_was_to_be_written() {
        let mut refusals = refused(&[MIB]);
        refusals.note_mapped(1, 64 * MIB, false, enough(0));
        assert!(refusals.is_wanting());
    }

    #[test]
    fn the_heaps_end_tells_what_was_asked_for() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.of_break(500, 100), Outcome::Refused { bytes: 400, writable: true });
        assert_eq!(refusals.of_break(300, 300), Outcome::Mapped { bytes: 200, writable: true });
        assert_eq!(refusals.of_break(200, 200), Outcome::Mapped { bytes: 0, writable: true });
    }

    #[test]
    fn sixty_four_threads_fail_at_once_in_eight_places() {
        let mut refusals = Refusals::default();
        for tid in 0..64 {
            refusals.note_refused(tid, MIB, true);
        }
        assert_eq!(refusals.count, 64);
        for tid in 0..63 {
            refusals.note_mapped(tid, MIB, true, u64::MAX);
        }
        assert!(refusals.is_wanting());
    }
}
