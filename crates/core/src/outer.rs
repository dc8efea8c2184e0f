//! What an outer launcher or supervisor says of what it set, in `OOMGUARD_OUTER`, so that its descendants can tell it from
//! the user's own word. Each thing is told with its value, and counts only as long as that is the value in force: who
//! changes one of them has made it his own, and a variable that is out of date says nothing. Pure functions.

use crate::contract::Measure;
use crate::sys::memory::{Rlimit, is_marked};
use crate::text::{parts, position, whole_number};

/// Fields parted by blanks, the last of which may hold any bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer<'a> {
    /// `soft=data:SET:BEFORE`: a soft limit, and the one that it replaced.
    soft: Option<Soft>,
    /// `data-below=BYTES`: the soft limit on data that the user set, below which one of ours moves.
    data_below: Option<u64>,
    /// `limit=TEXT`: `OOMGUARD_LIMIT` was said on a command line.
    limit: Option<&'a [u8]>,
    /// From the first `above=DEVICE:INODE:LENGTH:TARGET` on: the targets of those above that one.
    above: &'a [u8],
    /// `report=DEVICE:INODE:TARGET`: `OOMGUARD_REPORT`, and what its descriptor refers to.
    report: Option<Report<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Soft {
    measure: Measure,
    set: u64,
    before: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report<'a> {
    file: (u64, u64),
    target: &'a [u8],
}

impl<'a> Outer<'a> {
    pub fn parse(value: &'a [u8]) -> Outer<'a> {
        let mut outer = Outer::default();
        let mut rest = value;
        while !rest.is_empty() {
            if let Some(report) = rest.strip_prefix(b"report=") {
                outer.report = Report::parse(report);
                break;
            }
            if let Some((_, behind)) = Report::parse_above(rest) {
                outer.above = if outer.above.is_empty() { rest } else { outer.above };
                rest = behind;
                continue;
            }
            let len = position(rest, b' ').unwrap_or(rest.len());
            let field = rest.get(..len).unwrap_or_default();
            if let Some(soft) = field.strip_prefix(b"soft=") {
                outer.soft = Soft::parse(soft);
            } else if let Some(bytes) = field.strip_prefix(b"data-below=") {
                outer.data_below = whole_number(bytes);
            } else if let Some(limit) = field.strip_prefix(b"limit=") {
                outer.limit = Some(limit);
            }
            rest = rest.get(len + 1..).unwrap_or_default();
        }
        outer
    }

    /// The soft limit that held before an outer one of ours, if `now` is that one; the outer `None`: it is not.
    pub fn replaced(&self, measure: Measure, now: Rlimit) -> Option<Option<u64>> {
        if let (Measure::Data, Some(below)) = (measure, self.data_below)
            && now.soft.is_some_and(is_marked)
        {
            return Some(Some(now.hard.map_or(below, |hard| below.min(hard))));
        }
        let soft = self.soft.filter(|soft| soft.measure == measure && now.soft == Some(soft.set))?;
        // Nobody gets beyond the hard limit.
        Some(match (soft.before, now.hard) {
            (Some(before), Some(hard)) => Some(before.min(hard)),
            (before, hard) => before.or(hard),
        })
    }

    /// Whether this limit was said on the command line of a launcher.
    pub fn says_limit(&self, limit: Option<&[u8]>) -> bool {
        self.limit.is_some() && self.limit == limit
    }

    /// The launcher's target of reports, and what its descriptor refers to there.
    pub fn report(&self) -> Option<(&'a [u8], (u64, u64))> {
        self.report.map(|report| (report.target, report.file))
    }

    /// The same of those above it, the next one first.
    pub fn reports_above(&self) -> impl Iterator<Item = (&'a [u8], (u64, u64))> {
        let mut rest = self.above;
        core::iter::from_fn(move || {
            let (report, behind) = Report::parse_above(rest)?;
            rest = behind;
            Some((report.target, report.file))
        })
    }

    /// Whether this target of the report is the launcher's; then what its descriptor refers to there.
    pub fn file_of_report(&self, target: Option<&[u8]>) -> Option<(u64, u64)> {
        self.report.filter(|report| Some(report.target) == target).map(|report| report.file)
    }
}

impl Soft {
    fn parse(value: &[u8]) -> Option<Soft> {
        let mut parts = parts(value, b':');
        let measure = Measure::parse(parts.next()?).ok()?;
        let set = whole_number(parts.next()?)?;
        let before = match parts.next()? {
            b"unlimited" => None,
            bytes => Some(whole_number(bytes)?),
        };
        parts.next().is_none().then_some(Soft { measure, set, before })
    }
}

impl<'a> Report<'a> {
    fn parse(value: &'a [u8]) -> Option<Report<'a>> {
        let mut parts = parts(value, b':');
        let file = (whole_number(parts.next()?)?, whole_number(parts.next()?)?);
        Some(Report { file, target: parts.rest()? })
    }

    /// One with its length, and what comes behind it.
    fn parse_above(field: &'a [u8]) -> Option<(Report<'a>, &'a [u8])> {
        let report = Report::parse(field.strip_prefix(b"above=")?)?;
        let mut parts = parts(report.target, b':');
        let len = usize::try_from(whole_number(parts.next()?)?).ok()?;
        let rest = parts.rest()?;
        let behind = rest.get(len..)?.strip_prefix(b" ")?;
        Some((Report { target: rest.get(..len)?, ..report }, behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Rlimit = Rlimit { soft: Some(100), hard: None };

    #[test]
    fn what_is_in_force_counts_and_what_is_out_of_date_does_not() {
        let outer = Outer::parse(b"soft=data:100:unlimited limit=150Mi report=1:2:fd:3");
        assert_eq!(outer.replaced(Measure::Data, NOW), Some(None));
        assert_eq!(outer.replaced(Measure::Data, Rlimit { hard: Some(120), ..NOW }), Some(Some(120)));
        assert_eq!(outer.replaced(Measure::AddressSpace, NOW), None);
        assert_eq!(outer.replaced(Measure::Data, Rlimit { soft: Some(99), ..NOW }), None);
        assert_eq!(outer.replaced(Measure::Data, Rlimit { soft: None, ..NOW }), None);
        assert!(outer.says_limit(Some(b"150Mi")) && !outer.says_limit(Some(b"200Mi")));
        assert!(!outer.says_limit(None) && !Outer::default().says_limit(None));
        assert_eq!(outer.file_of_report(Some(b"fd:3")), Some((1, 2)));
        assert_eq!(outer.file_of_report(Some(b"fd:4")), None);
        assert_eq!(outer.report(), Some((&b"fd:3"[..], (1, 2))));
        let outer = Outer::parse(b"above=3:4:4:/a b above=5:6:9:report=/c report=1:2:fd:3");
        assert!(outer.reports_above().eq([(&b"/a b"[..], (3, 4)), (b"report=/c", (5, 6))]));
        assert_eq!(outer.report(), Some((&b"fd:3"[..], (1, 2))));
    }

    #[test]
    fn a_lower_limit_of_the_users_is_the_one_that_comes_back() {
        let outer = Outer::parse(b"soft=address-space:100:300");
        assert_eq!(outer.replaced(Measure::AddressSpace, NOW), Some(Some(300)));
    }

    #[test]
    fn what_nobody_of_us_wrote_says_nothing() {
        for wrong in [
            "",
            " ",
            "soft=",
            "soft=data",
            "soft=data:1",
            "soft=rss:1:2",
            "soft=data:1:2:3",
            "report=1:2",
            "above=1:2:3:/a ",
            "above=1:2:/a",
            "above=1:2:2:/ab",
        ] {
            assert_eq!(Outer::parse(wrong.as_bytes()), Outer::default(), "{wrong}");
        }
    }
}
