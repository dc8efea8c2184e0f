//! The numbers that stand for values in a page.

use crate::contract::{Cause, Evidence, LimitSource, Measure};
use crate::message::Message;

/// What became of the wish for a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileState {
    /// The program has no profiler compiled in.
    NotCompiledIn,
    /// It has, and was told not to use it.
    Off,
    On,
    /// There was no memory for it, or the kernel is too old.
    Failed,
}

pub(super) fn profile_code(state: ProfileState) -> u64 {
    match state {
        ProfileState::NotCompiledIn => 1,
        ProfileState::Off => 2,
        ProfileState::On => 3,
        ProfileState::Failed => 4,
    }
}

pub(super) fn profile_from(code: u64) -> Option<ProfileState> {
    match code {
        1 => Some(ProfileState::NotCompiledIn),
        2 => Some(ProfileState::Off),
        3 => Some(ProfileState::On),
        4 => Some(ProfileState::Failed),
        _ => None,
    }
}

pub(super) fn cause_code(cause: Cause) -> u64 {
    match cause {
        Cause::Heap => 1,
        Cause::Stack => 2,
        Cause::Thread => 3,
        Cause::Mapping => 4,
        Cause::Injected => 5,
        Cause::Resident => 6,
        Cause::AskedToLeave => 7,
    }
}

pub(super) fn cause_from(code: u64) -> Cause {
    match code {
        2 => Cause::Stack,
        3 => Cause::Thread,
        4 => Cause::Mapping,
        5 => Cause::Injected,
        6 => Cause::Resident,
        7 => Cause::AskedToLeave,
        _ => Cause::Heap,
    }
}

pub(super) fn source_from(code: u64) -> Option<LimitSource> {
    match code {
        1 => Some(LimitSource::Environment),
        2 => Some(LimitSource::Source),
        3 => Some(LimitSource::Cgroup),
        4 => Some(LimitSource::Rlimit),
        5 => Some(LimitSource::Budget),
        6 => Some(LimitSource::Changed),
        7 => Some(LimitSource::CommandLine),
        _ => None,
    }
}

pub(super) fn evidence_code(evidence: Evidence) -> u64 {
    match evidence {
        Evidence::Exact => 1,
        Evidence::Fault => 2,
        Evidence::Said => 3,
        Evidence::Missing => 4,
        Evidence::Straight => 5,
        Evidence::Outside => 6,
    }
}

pub(super) fn evidence_from(code: u64) -> Option<Evidence> {
    match code {
        1 => Some(Evidence::Exact),
        2 => Some(Evidence::Fault),
        3 => Some(Evidence::Said),
        4 => Some(Evidence::Missing),
        5 => Some(Evidence::Straight),
        6 => Some(Evidence::Outside),
        _ => None,
    }
}

pub(super) fn message_code(message: Message) -> u64 {
    match message {
        Message::OutOfMemory => 1,
        Message::OtherDeath => 2,
        Message::Unrelated => 3,
    }
}

pub(super) fn message_from(code: u64) -> Option<Message> {
    match code {
        1 => Some(Message::OutOfMemory),
        2 => Some(Message::OtherDeath),
        3 => Some(Message::Unrelated),
        _ => None,
    }
}

pub(super) fn measure_from(code: u64) -> Measure {
    match code {
        2 => Measure::Data,
        3 => Measure::Resident,
        _ => Measure::AddressSpace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_c_header() {
        let header = include_str!("../../../../include/oomguard.h");
        let number = |name: &str| -> u64 {
            let define = format!("#define OOMGUARD_{name} ");
            let rest =
                header.lines().find_map(|line| line.strip_prefix(&define)).expect("the header defines it");
            rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        assert_eq!(number("ADDRESS_SPACE"), Measure::AddressSpace.number().into());
        assert_eq!(number("DATA"), Measure::Data.number().into());
        assert_eq!(number("RESIDENT"), Measure::Resident.number().into());
        assert_eq!(number("SOURCE_ENVIRONMENT"), LimitSource::Environment.number().into());
        assert_eq!(number("SOURCE_SOURCE"), LimitSource::Source.number().into());
        assert_eq!(number("SOURCE_CGROUP"), LimitSource::Cgroup.number().into());
        assert_eq!(number("SOURCE_RLIMIT"), LimitSource::Rlimit.number().into());
        assert_eq!(number("SOURCE_BUDGET"), LimitSource::Budget.number().into());
        assert_eq!(number("SOURCE_CHANGED"), LimitSource::Changed.number().into());
        assert_eq!(source_from(number("SOURCE_NONE")), None);
    }
}
