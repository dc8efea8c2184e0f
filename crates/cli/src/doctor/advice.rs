//! What will hurt here, and what to change. Each advice names the value, where it comes from and what to try.

use super::examination::Examination;
use oomguard::Measure;
use oomguard::contract::LimitSource;
use oomguard::supervisor::{CgroupVersion, Overcommit, size};

pub struct Advice {
    pub text: String,
    /// `run` could not do its job, rather than do it worse than it could.
    pub keeps_from_running: bool,
}

/// What keeps from running comes first.
pub fn on(found: &Examination) -> Vec<Advice> {
    let mut all = obstacles(found);
    let mut hint = |text: Option<String>| {
        all.extend(text.map(|text| Advice { text, keeps_from_running: false }));
    };
    hint(kills_together(found));
    hint(no_limit(found));
    hint(heeded_by_nobody(found));
    found.misspelt.iter().for_each(|line| hint(Some(line.clone())));
    hint(rlimit_wins(found));
    hint(scarce_data(found));
    hint(scarce_address_space(found));
    hint(swaps(found));
    hint(refuses_by_itself(found));
    for probe in found.probes.iter().filter(|probe| !probe.is_needed) {
        let cost = format!("{} does not work here, which would be {}", probe.name, probe.purpose);
        hint(probe.result.as_ref().err().map(|error| format!("{cost}: {error}")));
    }
    all
}

fn obstacles(found: &Examination) -> Vec<Advice> {
    let mut all: Vec<String> = bad_values(found).cloned().collect();
    if found.here.data_limit_is_ignored && found.run.measure != Measure::AddressSpace {
        all.push(
            "neither resident nor data can be limited, as /sys/module/kernel/parameters/ignore_rlimit_data is on: use \
             --measure address-space, or have it switched off"
                .into(),
        );
    }
    for probe in found.probes.iter().filter(|probe| probe.is_needed) {
        if let Err(error) = &probe.result {
            all.push(format!(
                "{} does not work here: {error}; does the container's seccomp profile refuse memfd_create(2)?",
                probe.name
            ));
        }
    }
    all.into_iter().map(|text| Advice { text, keeps_from_running: true }).collect()
}

fn kills_together(found: &Examination) -> Option<String> {
    let group = found.here.killed_together()?;
    Some(format!(
        "one process over the limit, and the kernel kills all of this container ({}/memory.oom.group is 1): start what may \
         grow with oomguard run, so that it ends alone",
        group.directory.display()
    ))
}

fn no_limit(found: &Examination) -> Option<String> {
    let is_asked_for = found.asked_limit.as_ref().is_ok_and(|asked| asked.is_some());
    if found.run.limit.is_some() || is_asked_for || found.asked_budget.is_some() || found.joined.is_some() {
        return None;
    }
    Some(
        "nothing limits memory here, so auto is no limit: give the container one, or say --limit or OOMGUARD_LIMIT"
            .into(),
    )
}

fn bad_values(found: &Examination) -> impl Iterator<Item = &String> {
    let bad = [found.asked_limit.as_ref().err(), found.asked_measure.as_ref().err()];
    bad.into_iter().flatten().chain(&found.bad)
}

/// Variables are for guards, and limit nothing by themselves.
fn heeded_by_nobody(found: &Examination) -> Option<String> {
    let names = found.variables.join(", ");
    // One thing after the other: what is wrong is told already.
    let is_good = bad_values(found).next().is_none();
    (!names.is_empty() && is_good && !found.preloads_us).then(|| {
        format!(
            "set here: {names}; that alone limits nothing: heeded by oomguard run, by programs with a guard of their own, and \
             where LD_PRELOAD names liboomguard"
        )
    })
}

fn rlimit_wins(found: &Examination) -> Option<String> {
    let limit = found.run.limit.filter(|limit| limit.source == LimitSource::Rlimit)?;
    Some(format!(
        "an rlimit of {} was there before and is lower than what oomguard would set: it wins; see ulimit -a, or whoever \
         started this",
        size(limit.bytes)
    ))
}

/// An rlimit of another measure than what `run` would count, which the kernel holds all the same.
fn scarce_data(found: &Examination) -> Option<String> {
    let bytes = found.here.rlimits.data.soft.filter(|_| found.run.measure == Measure::Resident)?;
    let is_lower = found.run.limit.is_none_or(|limit| bytes < limit.bytes);
    is_lower.then(|| {
        format!(
            "RLIMIT_DATA is {}: it wins where a program maps more than that, used or not; raise it with ulimit -d",
            size(bytes)
        )
    })
}

fn scarce_address_space(found: &Examination) -> Option<String> {
    let bytes = found.here.rlimits.address_space.soft?;
    Some(format!(
        "RLIMIT_AS is {}: Java, Node and Go reserve more than they use and may not start, and a library that maps much at \
         once, as LMDB does, fails with \"Cannot allocate memory\"; raise it with ulimit -v",
        size(bytes)
    ))
}

fn swaps(found: &Examination) -> Option<String> {
    found.here.machine_swap.filter(|bytes| *bytes > 0)?;
    let own = found.here.groups.iter().find(|group| group.max.is_some())?;
    if own.swap_max == Some(0) {
        return None;
    }
    let most =
        own.swap_max.map_or_else(|| "without a limit".into(), |bytes| format!("up to {}", size(bytes)));
    let cure = match own.version {
        CgroupVersion::V2 => "set memory.swap.max to 0",
        CgroupVersion::V1 => "set memory.memsw.limit_in_bytes to what memory.limit_in_bytes is",
    };
    Some(format!(
        "this container swaps {most} before it is killed, and crawls: {cure} in {}",
        own.directory.display()
    ))
}

fn refuses_by_itself(found: &Examination) -> Option<String> {
    (found.here.overcommit == Some(Overcommit::Never)).then(|| {
        "/proc/sys/vm/overcommit_memory is 2: the machine may refuse memory below every limit; see vm.overcommit_ratio in \
         proc_sys_vm(5)"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::probes::Probe;
    use crate::doctor::screen;
    use oomguard::supervisor::{Rlimit, Surroundings};
    use std::ffi::OsString;
    use std::fs;

    const POD: &[(&str, &str)] = &[
        ("proc/self/cgroup", "0::/\n"),
        ("proc/self/mountinfo", "29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ("proc/meminfo", "SwapTotal:         0 kB\n"),
        ("sys/fs/cgroup/memory.max", "536870912\n"),
    ];

    /// What is said on a host with these files.
    fn examined(
        files: &[(&str, &str)],
        environment: &[(&str, &str)],
        change: impl FnOnce(&mut Surroundings),
        probes: Vec<Probe>,
    ) -> Examination {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut here = Surroundings::below(root.path().to_str().unwrap());
        here.rlimits.address_space = Rlimit { soft: None, hard: None };
        here.rlimits.data = Rlimit { soft: None, hard: None };
        change(&mut here);
        let find = |name: &str| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value))
        };
        Examination::of(here, find, probes)
    }

    fn advice(
        files: &[(&str, &str)],
        environment: &[(&str, &str)],
        change: impl FnOnce(&mut Surroundings),
    ) -> Vec<(String, bool)> {
        let found = examined(files, environment, change, Vec::new());
        on(&found).into_iter().map(|advice| (advice.text, advice.keeps_from_running)).collect()
    }

    #[track_caller]
    fn one(advice: &[(String, bool)], part: &str, keeps_from_running: bool) {
        let [(text, keeps)] = advice else { panic!("{advice:?}") };
        assert!(text.contains(part), "{text}");
        assert_eq!(*keeps, keeps_from_running, "{text}");
    }

    #[test]
    fn a_healthy_container_needs_no_advice() {
        assert_eq!(advice(POD, &[], |_| ()), []);
    }

    #[test]
    fn a_container_that_dies_as_a_whole_is_told() {
        let files = [POD, &[("sys/fs/cgroup/memory.oom.group", "1\n")]].concat();
        one(&advice(&files, &[], |_| ()), "kills all of this container", false);
    }

    #[test]
    fn where_nothing_limits_somebody_has_to_say_something() {
        one(&advice(&[], &[], |_| ()), "auto is no limit", false);
        let preloaded = ("LD_PRELOAD", "/tmp/liboomguard.so");
        assert_eq!(advice(&[], &[("OOMGUARD_LIMIT", "1Gi"), preloaded], |_| ()), []);
        assert_eq!(advice(&[], &[("OOMGUARD_LIMIT", "off"), preloaded], |_| ()), [], "it was asked for");
        one(&advice(&[], &[("OOMGUARD_LIMIT", "off")], |_| ()), "that alone limits nothing", false);
    }

    #[test]
    fn bad_values_of_the_environment_keep_from_running() {
        one(&advice(POD, &[("OOMGUARD_LIMIT", "1 GB")], |_| ()), "OOMGUARD_LIMIT=\"1 GB\"", true);
        one(&advice(POD, &[("OOMGUARD_PATIENCE", "5")], |_| ()), "OOMGUARD_PATIENCE=\"5\"", true);
        one(&advice(POD, &[("OOMGUARD_BUDGET", "x")], |_| ()), "OOMGUARD_BUDGET=\"x\"", true);
        one(
            &advice(POD, &[("OOMGUARD_MEASURE", "rss")], |_| ()),
            "accepted: address-space, data or resident",
            true,
        );
    }

    #[test]
    fn a_machine_that_ignores_the_data_limit_keeps_from_running_unless_it_is_not_asked_for() {
        let ignore = |here: &mut Surroundings| here.data_limit_is_ignored = true;
        one(&advice(POD, &[], ignore), "ignore_rlimit_data", true);
        one(
            &advice(POD, &[("OOMGUARD_MEASURE", "address-space")], ignore),
            "that alone limits nothing",
            false,
        );
    }

    #[test]
    fn rlimits_swap_and_overcommit_are_told() {
        one(&advice(POD, &[], |here| here.rlimits.data.soft = Some(1 << 20)), "it wins", false);
        one(&advice(POD, &[], |here| here.rlimits.address_space.soft = Some(1 << 30)), "RLIMIT_AS is", false);
        one(&advice(POD, &[], |here| here.machine_swap = Some(1 << 30)), "without a limit", false);
        one(
            &advice(POD, &[], |here| here.overcommit = Some(Overcommit::Never)),
            "overcommit_memory is 2",
            false,
        );
        let no_swap = [POD, &[("sys/fs/cgroup/memory.swap.max", "0\n")]].concat();
        assert_eq!(advice(&no_swap, &[], |here| here.machine_swap = Some(1 << 30)), []);
    }

    #[test]
    fn what_was_tried_and_failed_says_why_on_one_screen() {
        let probe =
            |name, is_needed| Probe { name, purpose: "a test", result: Err("broken".into()), is_needed };
        let files = [POD, &[("sys/fs/cgroup/memory.oom.group", "1\n")]].concat();
        let found = examined(&files, &[], |_| (), vec![probe("record", true), probe("preload", false)]);
        let advice = on(&found);
        assert_eq!(advice.iter().filter(|advice| advice.text.contains("broken")).count(), 2);
        assert!(advice[0].keeps_from_running && !advice[1].keeps_from_running);
        let plain = screen::of(&found, &advice, false);
        assert!(plain.lines().count() <= 25 && !plain.contains('\x1b'), "{plain}");
        assert!(plain.contains("512 MiB") && plain.contains("all processes are killed"), "{plain}");
        assert!(screen::of(&found, &advice, true).contains("\x1b[31mno\x1b[0m"));
    }
}
