//! What an outer launcher or supervisor says of what it set: written for descendants, and read for this process.

use super::sys::memfd;
use super::sys::memory::{note_replaced_soft_limit, replaced_soft_limit, rlimit};
use super::target;
use crate::Limit;
use crate::contract::{Measure, variable};
use crate::record::{self, Armed, Claims, Told};
use crate::text::Text;
use oomguard_core::outer::Outer;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Where reports go, and which file that is.
type Target = (OsString, (u64, u64));

/// The value of such a variable. `above`: the targets of the launchers above the one whose `report` is.
pub(super) fn variable_value(
    soft: Option<(Measure, u64, Option<u64>)>,
    data_below: Option<u64>,
    limit: Option<&str>,
    above: &[Target],
    report: Option<(&(u64, u64), &OsStr)>,
) -> OsString {
    let mut value = OsString::new();
    if let Some((measure, set, before)) = soft {
        let before = before.map_or_else(|| "unlimited".to_owned(), |before| before.to_string());
        value.push(format!("soft={}:{set}:{before} ", measure.as_str()));
    }
    if let Some(below) = data_below {
        value.push(format!("data-below={below} "));
    }
    if let Some(limit) = limit {
        value.push(format!("limit={limit} "));
    }
    for (target, (device, inode)) in above {
        value.push(format!("above={device}:{inode}:{}:", target.len()));
        value.push(target);
        value.push(" ");
    }
    if let Some(((device, inode), target)) = report {
        value.push(format!("report={device}:{inode}:"));
        value.push(target);
    }
    value
}

/// The target of reports that an outer launcher was told, if it still is what the environment says.
pub(super) fn inherited_report() -> Option<(OsString, (u64, u64))> {
    let value = std::env::var_os(variable::OUTER)?;
    let target = std::env::var_os(variable::REPORT)?;
    let file = Outer::parse(value.as_bytes()).file_of_report(Some(target.as_bytes()))?;
    Some((target, file))
}

/// The targets of reports that the launchers above were told, the next one first, if that one is asked for.
pub(super) fn reports_above(with_next: bool) -> Vec<Target> {
    let value = std::env::var_os(variable::OUTER).unwrap_or_default();
    let outer = Outer::parse(value.as_bytes());
    let next = outer.report().filter(|_| with_next);
    let all = next.into_iter().chain(outer.reports_above());
    all.map(|(target, file)| (OsStr::from_bytes(target).to_owned(), file)).collect()
}

/// Those of them that this process reaches.
pub(super) fn reports_of_outer(with_next: bool) -> Vec<OsString> {
    reports_above(with_next).into_iter().filter(is_reached).map(|(target, _)| target).collect()
}

fn is_reached((target, file): &Target) -> bool {
    target::check(target).is_ok_and(|now| now == *file)
}

/// What has been told of a process below this one: by this one, if not by that one, as far as it reaches them.
fn told_by_now() -> Told {
    let (all, above) = (reports_above(true), reports_above(false));
    let next = all.get(..all.len() - above.len()).unwrap_or_default();
    let is_told = |targets: &[Target]| targets.is_empty() || targets.iter().any(is_reached);
    Told { lines: true, report: is_told(next), above: is_told(&above) }
}

/// Whether `OOMGUARD_LIMIT` is what an outer launcher was told.
pub(super) fn inherits_limit() -> bool {
    let said = |name| std::env::var_os(name);
    let (outer, limit) = (said(variable::OUTER).unwrap_or_default(), said(variable::LIMIT));
    Outer::parse(outer.as_bytes()).says_limit(limit.as_deref().map(OsStrExt::as_bytes))
}

/// Tells an outer launcher how a process below this one ended. `None`: there is no outer one to be told.
pub(super) fn pass_on(claims: &Claims) -> Option<()> {
    let place = record::from_variable(std::env::var_os(variable::RECORD)?.as_bytes())?;
    let head = memfd::head_at(place)?;
    let page = head.claim_for(claims.pid)?;
    page.write_armed(&Armed {
        program: claims.program.as_bytes(),
        token: claims.token.as_ref().map(Text::as_bytes),
        limit: claims.limit,
        limit_source: claims.limit_source,
        measure: claims.measure,
        exit_code: claims.exit_code,
    });
    page.write_parent(super::sys::process::pid());
    page.write_last_words(&claims.snapshot());
    page.write_told(told_by_now());
    head.count_end(page);
    Some(())
}

/// Takes note of soft limits of this process that an outer launcher or supervisor set: they are not the user's word.
pub(super) fn note_replaced() {
    let Some(value) = std::env::var_os(variable::OUTER) else { return note_guards() };
    let outer = Outer::parse(value.as_bytes());
    for measure in [Measure::AddressSpace, Measure::Data] {
        // A guard in this process knows more.
        if replaced_soft_limit(measure).is_none()
            && let Some(before) = outer.replaced(measure, rlimit(measure.into()))
        {
            note_replaced_soft_limit(measure, before);
        }
    }
}

/// A guard that no launcher started sets no such variable. Its limit is known by being what `OOMGUARD_LIMIT` says; what it
/// replaced is not known.
fn note_guards() {
    let said = |name| std::env::var_os(name);
    let measure = match said(variable::MEASURE).map(|word| Measure::parse(word.as_bytes())) {
        None => Measure::default(),
        Some(Ok(measure)) => measure,
        Some(Err(_)) => return,
    };
    let limit = said(variable::LIMIT).and_then(|limit| Limit::parse(limit.as_bytes()).ok());
    let now = rlimit(measure.into());
    if let Some(Limit::Bytes(bytes)) = limit
        && now.soft == Some(bytes)
        && now.hard != Some(bytes)
        && replaced_soft_limit(measure).is_none()
    {
        note_replaced_soft_limit(measure, now.hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rlimit;

    #[test]
    fn what_is_written_is_read_back() {
        let target = OsStr::new("/a b/report=1 soft=data:7:8");
        let above = [(OsString::from("/c report=2"), (3, 4)), (OsString::from("fd:5"), (5, 6))];
        let value = variable_value(
            Some((Measure::Data, 5, Some(6))),
            None,
            Some("auto"),
            &above,
            Some((&(0, 9), target)),
        );
        let outer = Outer::parse(value.as_bytes());
        let now = Rlimit { soft: Some(5), hard: None };
        assert_eq!(outer.replaced(Measure::Data, now), Some(Some(6)));
        assert!(outer.says_limit(Some(b"auto")));
        assert_eq!(outer.file_of_report(Some(target.as_bytes())), Some((0, 9)));
        assert!(outer.reports_above().eq(above.iter().map(|(target, file)| (target.as_bytes(), *file))));
        let value = variable_value(None, Some(7), None, &[], None);
        let outer = Outer::parse(value.as_bytes());
        let marked = Rlimit { soft: Some(oomguard_core::sys::memory::marked(4, true)), hard: None };
        assert_eq!(outer.replaced(Measure::Data, marked), Some(Some(7)));
        assert_eq!(outer.replaced(Measure::Data, Rlimit { soft: Some(4096), hard: None }), None);
        assert_eq!(Outer::parse(variable_value(None, None, None, &[], None).as_bytes()), Outer::default());
    }
}
