//! What was found, for people: one screen.

use super::advice::Advice;
use super::examination::{Examination, Plan};
use crate::screen::{GREEN, RED, Screen, YELLOW, printable};
use oomguard::contract::LimitSource;
use oomguard::supervisor::{CgroupVersion, Overcommit, Rlimit, size};
use std::fmt::Write;

pub fn of(found: &Examination, advice: &[Advice], coloured: bool) -> String {
    let mut screen = Screen::new(coloured);
    container(found, &mut screen);
    process(found, &mut screen);
    plans(found, &mut screen);
    probes(found, &mut screen);
    to_change(advice, &mut screen);
    screen.text
}

fn container(found: &Examination, screen: &mut Screen) {
    let here = &found.here;
    let Some(own) = here.groups.first() else {
        screen.heading("Container: no cgroup with a memory limit to be seen");
        return machine(found, screen);
    };
    let version = match own.version {
        CgroupVersion::V1 => 1,
        CgroupVersion::V2 => 2,
    };
    screen.heading(&format!("Container: cgroup v{version}"));
    match here.container_limit() {
        Some((bytes, file)) => screen.row("limit", &size(bytes), &file.display().to_string()),
        None => screen.row("limit", "none", &own.directory.display().to_string()),
    }
    let known = |bytes: Option<u64>| bytes.map_or_else(|| "not known".into(), size);
    let swap = match (own.swap_max, here.machine_swap) {
        (_, Some(0)) => "no swap".into(),
        (None, _) => "swap without limit".into(),
        (Some(bytes), _) => format!("swap up to {}", size(bytes)),
    };
    screen.row("in use", &known(own.in_use), &swap);
    match here.killed_together() {
        Some(group) => {
            let file = group.directory.join("memory.oom.group");
            screen.row("over it", "all processes are killed", &format!("{} is 1", file.display()));
        }
        None => screen.row("over it", "one process is killed", "the kernel chooses which"),
    }
    machine(found, screen);
}

fn machine(found: &Examination, screen: &mut Screen) {
    let memory = found.here.machine_memory.map_or_else(|| "not known".into(), size);
    let overcommit = match found.here.overcommit {
        Some(Overcommit::Heuristic) => "overcommit: heuristic",
        Some(Overcommit::Always) => "overcommit: always",
        Some(Overcommit::Never) => "overcommit: never",
        None => "",
    };
    screen.row("machine", &memory, overcommit);
}

fn process(found: &Examination, screen: &mut Screen) {
    let rlimits = &found.here.rlimits;
    let ignored = if found.here.data_limit_is_ignored { ", ignored by this machine" } else { "" };
    screen.heading("Process");
    screen.row(
        "address-space",
        &soft(rlimits.address_space, size),
        &hard(rlimits.address_space, size, "RLIMIT_AS"),
    );
    screen.row("data", &soft(rlimits.data, size), &(hard(rlimits.data, size, "RLIMIT_DATA") + ignored));
    screen.row("stack", &soft(rlimits.stack, size), &hard(rlimits.stack, size, "RLIMIT_STACK"));
    let count = |count: u64| count.to_string();
    screen.row("processes", &soft(rlimits.processes, count), &hard(rlimits.processes, count, "RLIMIT_NPROC"));
}

fn soft(limit: Rlimit, show: fn(u64) -> String) -> String {
    limit.soft.map_or_else(|| "no limit".into(), show)
}

fn hard(limit: Rlimit, show: fn(u64) -> String, name: &str) -> String {
    match limit.hard {
        Some(hard) if limit.soft != limit.hard => format!("{name}, at most {}", show(hard)),
        _ => name.to_owned(),
    }
}

fn plans(found: &Examination, screen: &mut Screen) {
    screen.heading("What oomguard would do");
    for (name, plan) in [("oomguard run", &found.run), ("guard!()", &found.guard)] {
        let (limit, origin) = planned(plan);
        screen.row(name, &limit, &origin);
    }
    let (size_of_it, origin) = shared(found);
    let name = if found.asked_budget.is_some() { "run, together" } else { "--budget auto" };
    screen.row(name, &size_of_it, &origin);
    screen.row("held by", "the soft rlimit", "which ulimit, su and sudo may lift: run --hard");
    let mut names: Vec<String> =
        found.hints.iter().map(|(name, value)| format!("{name}={}", value.to_string_lossy())).collect();
    if names.is_empty() {
        names.push("nothing".into());
    }
    // No line of its own, so that all of it is on one screen.
    let mut name = "run --hints";
    let mut choices = "services: --exit-on-uncaught; batch jobs: --on-refusal immediate";
    for pair in names.chunks(2) {
        screen.row(name, &pair.join(" "), choices);
        (name, choices) = ("", "");
    }
}

/// What a budget would be here, or is.
fn shared(found: &Examination) -> (String, String) {
    let is_traced = found.probes.iter().any(|probe| probe.name == "tracing" && probe.result.is_ok());
    let cannot = if is_traced {
        "set-user-ID programs cannot ask"
    } else {
        "static and set-user-ID programs cannot ask, nor be held still"
    };
    if let Some(joined) = found.joined {
        return (size(joined.bytes), format!("{} leased; run joins it; {cannot}", size(joined.used)));
    }
    if let Some(bytes) = found.asked_budget {
        return (size(bytes), format!("from OOMGUARD_BUDGET; {cannot}"));
    }
    match found.budget {
        Some(bytes) => {
            let in_use = found.here.groups.first().and_then(|own| own.in_use);
            let in_use =
                in_use.map_or_else(|| "use not known".into(), |bytes| format!("{} in use", size(bytes)));
            (size(bytes), format!("90 % of the container's limit; {in_use}; {cannot}"))
        }
        None => ("nothing".into(), format!("no container's limit: --budget 2Gi; {cannot}")),
    }
}

fn planned(plan: &Plan) -> (String, String) {
    let measure = plan.measure.as_str();
    let Some(limit) = plan.limit else { return ("no limit".into(), String::new()) };
    let origin = match limit.source {
        LimitSource::Environment => "from OOMGUARD_LIMIT",
        LimitSource::CommandLine => "from an outer --limit",
        LimitSource::Source => "from the source code",
        LimitSource::Cgroup => "90 % of the container's limit",
        LimitSource::Rlimit => "the rlimit that is there",
        LimitSource::Budget => "from the budget",
        LimitSource::Changed => "an rlimit that was moved",
        // The library that this is built with has no others.
        _ => "from elsewhere",
    };
    (size(limit.bytes), format!("of {measure}, {origin}"))
}

fn probes(found: &Examination, screen: &mut Screen) {
    screen.heading("Works here");
    for probe in &found.probes {
        let answer = match (&probe.result, probe.is_needed) {
            (Ok(()), _) => screen.painted(GREEN, "yes"),
            (Err(_), true) => screen.painted(RED, "no"),
            (Err(_), false) => screen.painted(YELLOW, "no"),
        };
        let _ = writeln!(screen.text, "  {:<14} {answer}: {}", probe.name, probe.purpose);
    }
}

fn to_change(advice: &[Advice], screen: &mut Screen) {
    if advice.is_empty() {
        return;
    }
    screen.heading("To change");
    for advice in advice {
        let mark = screen.painted(if advice.keeps_from_running { RED } else { YELLOW }, "!");
        let _ = writeln!(screen.text, "  {mark} {}", printable(&advice.text));
    }
}
