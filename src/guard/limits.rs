//! Which rlimit brings a limit about, and leaves room for the last words. Pure functions.

pub(super) use crate::resolution::{Known, Resolved, needs_container, resolve_limit};

/// What the dying process may raise its soft limit to.
pub(super) fn raised_for_last_words(limit: Option<u64>, reserve: u64, hard: Option<u64>) -> Option<u64> {
    let wanted = limit?.checked_add(reserve)?;
    Some(hard.map_or(wanted, |hard| wanted.min(hard)))
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
    fn the_reserve_lies_above_the_limit_as_far_as_the_hard_limit_lets_it() {
        assert_eq!(raised_for_last_words(Some(100), 10, None), Some(110));
        assert_eq!(raised_for_last_words(Some(100), 10, Some(104)), Some(104));
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
