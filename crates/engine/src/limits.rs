//! Which rlimit brings a limit about, and leaves room for the last words. Pure functions.

use oomguard_core::contract::LimitSource;
pub(super) use oomguard_core::resolution::{Known, Resolved, needs_container, resolve_limit};

/// The limit that holds where `set` was set and the soft rlimit is `soft` now: another one if somebody moved it since, and
/// not we ourselves to one of `ours`.
pub(super) fn holding(set: Option<Resolved>, ours: [Option<u64>; 2], soft: Option<u64>) -> Option<Resolved> {
    let soft = soft?;
    match set {
        Some(set) if set.bytes == soft || ours.contains(&Some(soft)) => Some(set),
        _ => Some(Resolved { bytes: soft, source: LimitSource::Changed }),
    }
}

/// What the dying process may raise its soft limit to: nothing where somebody has lowered the hard one below it.
pub(super) fn raised_for_last_words(limit: Option<u64>, reserve: u64, hard: Option<u64>) -> Option<u64> {
    let limit = limit?;
    let wanted = limit.checked_add(reserve)?;
    Some(hard.map_or(wanted, |hard| wanted.min(hard))).filter(|raised| *raised >= limit)
}

/// Where the hard limit leaves less than the reserve above the limit, the reserve is taken from below it: the soft
/// limit that keeps it, or `None` where nothing has to change. At most a quarter of what is still free is taken.
pub(super) fn lowered_to_keep_reserve(
    limit: u64,
    reserve: u64,
    hard: Option<u64>,
    in_use: u64,
) -> Option<u64> {
    let above = hard?.saturating_sub(limit);
    let missing = reserve.saturating_sub(above);
    let taken = missing.min(limit.saturating_sub(in_use) / 4);
    (taken > 0).then(|| limit - taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_moved_is_what_holds() {
        let set = Resolved { bytes: 1000, source: LimitSource::Environment };
        let moved = |bytes| Some(Resolved { bytes, source: LimitSource::Changed });
        let ours = [Some(900), Some(1100)];
        for same in [1000, 900, 1100] {
            assert_eq!(holding(Some(set), ours, Some(same)), Some(set));
        }
        for other in [1, 999, 1001, 2000] {
            assert_eq!(holding(Some(set), ours, Some(other)), moved(other));
        }
        assert_eq!(holding(Some(set), ours, None), None);
        assert_eq!(holding(None, [None; 2], None), None);
        assert_eq!(holding(None, [None; 2], Some(5)), moved(5));
    }

    #[test]
    fn the_reserve_lies_above_the_limit_as_far_as_the_hard_limit_lets_it() {
        assert_eq!(raised_for_last_words(Some(100), 10, None), Some(110));
        assert_eq!(raised_for_last_words(Some(100), 10, Some(104)), Some(104));
        assert_eq!(raised_for_last_words(Some(100), 10, Some(100)), Some(100));
        assert_eq!(raised_for_last_words(Some(100), 10, Some(99)), None);
        assert_eq!(raised_for_last_words(None, 10, None), None);
        assert_eq!(raised_for_last_words(Some(u64::MAX), 10, None), None);
    }

    #[test]
    fn a_hard_limit_without_room_moves_the_reserve_below() {
        assert_eq!(lowered_to_keep_reserve(1000, 100, None, 10), None);
        assert_eq!(lowered_to_keep_reserve(1000, 100, Some(1100), 10), None);
        assert_eq!(lowered_to_keep_reserve(1000, 100, Some(1040), 10), Some(940));
        assert_eq!(lowered_to_keep_reserve(1000, 100, Some(1000), 10), Some(900));
        assert_eq!(lowered_to_keep_reserve(1000, 100, Some(1000), 800), Some(950));
        assert_eq!(lowered_to_keep_reserve(1000, 100, Some(1000), 1000), None);
    }
}
