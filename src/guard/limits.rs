//! Which limit holds, and which rlimit brings it about. Pure functions over what was read elsewhere.

use crate::contract::{AUTO_PERCENT, LimitSource};
use crate::limit::{Limit, Share};
use crate::sys::memory::Rlimit;

/// What the decision rests on. Bytes; `None` is "nothing said" or infinity.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) from_environment: Option<Limit>,
    pub(super) from_source: Option<Limit>,
    pub(super) container: Option<u64>,
    pub(super) machine: Option<u64>,
    pub(super) existing: Rlimit,
}

/// A limit in bytes and who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) bytes: u64,
    pub(super) source: LimitSource,
}

/// Whether the container's limit has to be looked up at all.
pub(super) fn needs_container(from_environment: Option<Limit>, from_source: Option<Limit>) -> bool {
    matches!(from_environment.or(from_source).unwrap_or(Limit::Auto), Limit::Auto | Limit::Share(_))
}

/// Environment, then source, then `auto`; a lower rlimit that exists already wins over all of them.
pub(super) fn resolve_limit(known: &Known) -> Option<Resolved> {
    let (asked, who) = match (known.from_environment, known.from_source) {
        (Some(limit), _) => (limit, LimitSource::Environment),
        (None, Some(limit)) => (limit, LimitSource::Source),
        (None, None) => (Limit::Auto, LimitSource::Cgroup),
    };
    let asked = match asked {
        Limit::Bytes(bytes) => Some(Resolved { bytes, source: who }),
        Limit::Share(share) => {
            known.container.or(known.machine).map(|whole| Resolved { bytes: share.of(whole), source: who })
        }
        Limit::Auto => known.container.map(|whole| Resolved {
            bytes: Share::percent(AUTO_PERCENT).of(whole),
            source: LimitSource::Cgroup,
        }),
        Limit::Off => None,
    };
    match (asked, lowest(known.existing)) {
        (Some(asked), Some(existing)) if existing < asked.bytes => Some(rlimit(existing)),
        (None, Some(existing)) => Some(rlimit(existing)),
        (asked, _) => asked,
    }
}

fn rlimit(bytes: u64) -> Resolved {
    Resolved { bytes, source: LimitSource::Rlimit }
}

/// The lower of soft and hard; the kernel keeps soft at or below hard, but costs nothing to be sure.
fn lowest(rlimit: Rlimit) -> Option<u64> {
    match (rlimit.soft, rlimit.hard) {
        (Some(soft), Some(hard)) => Some(soft.min(hard)),
        (soft, hard) => soft.or(hard),
    }
}

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

    const NO_RLIMIT: Rlimit = Rlimit { soft: None, hard: None };
    const NOTHING: Known = Known {
        from_environment: None,
        from_source: None,
        container: None,
        machine: None,
        existing: NO_RLIMIT,
    };

    fn resolved(known: Known) -> Option<(u64, LimitSource)> {
        resolve_limit(&known).map(|resolved| (resolved.bytes, resolved.source))
    }

    #[test]
    fn the_order_of_precedence() {
        use LimitSource::*;
        let bytes = |bytes| Some(Limit::Bytes(bytes));
        let share = "50%".parse().ok();
        let both = Known {
            from_environment: bytes(100),
            from_source: bytes(200),
            container: Some(1000),
            machine: Some(4000),
            ..NOTHING
        };
        let rlimits = |soft, hard| crate::sys::memory::Rlimit { soft, hard };
        let table = [
            (NOTHING, None),
            (both, Some((100, Environment))),
            (Known { from_environment: None, ..both }, Some((200, Source))),
            (Known { from_environment: None, from_source: None, ..both }, Some((900, Cgroup))),
            (Known { from_environment: Some(Limit::Auto), ..both }, Some((900, Cgroup))),
            (Known { from_environment: Some(Limit::Auto), container: None, ..both }, None),
            (Known { from_environment: Some(Limit::Off), ..both }, None),
            (Known { from_environment: share, ..both }, Some((500, Environment))),
            (Known { from_environment: share, container: None, ..both }, Some((2000, Environment))),
            (Known { from_environment: None, from_source: share, ..both }, Some((500, Source))),
            (Known { existing: rlimits(Some(50), None), ..both }, Some((50, Rlimit))),
            (Known { existing: rlimits(Some(50), Some(60)), ..both }, Some((50, Rlimit))),
            (Known { existing: rlimits(None, Some(60)), ..both }, Some((60, Rlimit))),
            (Known { existing: rlimits(Some(100), Some(100)), ..both }, Some((100, Environment))),
            (Known { existing: rlimits(Some(101), None), ..both }, Some((100, Environment))),
            (
                Known { from_environment: Some(Limit::Off), existing: rlimits(Some(50), None), ..both },
                Some((50, Rlimit)),
            ),
        ];
        for (index, (known, expected)) in table.into_iter().enumerate() {
            assert_eq!(resolved(known), expected, "row {index}");
        }
    }

    #[test]
    fn the_container_is_asked_only_where_it_matters() {
        assert!(needs_container(None, None));
        assert!(needs_container(Some(Limit::Auto), Some(Limit::Bytes(1))));
        assert!(needs_container(None, "5%".parse().ok()));
        assert!(!needs_container(Some(Limit::Bytes(1)), Some(Limit::Auto)));
        assert!(!needs_container(Some(Limit::Off), None));
    }

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
