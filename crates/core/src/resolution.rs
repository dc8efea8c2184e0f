//! Which limit holds: the order of precedence among those who may say one. Pure functions over what was read elsewhere,
//! for the guard, which sets the limit, and for a parent that wants to know beforehand.

use crate::contract::{AUTO_PERCENT, LimitSource};
use crate::limit::{Limit, Share};
use crate::sys::memory::Rlimit;

/// What the decision rests on. Bytes; `None` is "nothing said" or infinity.
#[derive(Clone, Copy)]
pub struct Known {
    pub from_environment: Option<Limit>,
    pub from_source: Option<Limit>,
    pub container: Option<u64>,
    pub machine: Option<u64>,
    pub existing: Rlimit,
}

/// A limit in bytes and who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub bytes: u64,
    pub source: LimitSource,
}

/// Whether the container's limit has to be looked up at all.
pub fn needs_container(from_environment: Option<Limit>, from_source: Option<Limit>) -> bool {
    matches!(from_environment.or(from_source).unwrap_or(Limit::Auto), Limit::Auto | Limit::Share(_))
}

/// Environment, then source, then `auto`; a lower rlimit that exists already wins over all of them.
pub fn resolve_limit(known: &Known) -> Option<Resolved> {
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
}
