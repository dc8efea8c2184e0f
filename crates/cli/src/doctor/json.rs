//! What was found, for machines: one object. Sizes are bytes; `null` is no limit, or not known.

use super::advice::Advice;
use super::examination::{Examination, Plan};
use oomguard::supervisor::{CgroupVersion, ControlGroup, Overcommit, Rlimit};
use serde_json::{Map, Value, json};

pub fn of(found: &Examination, advice: &[Advice]) -> Value {
    let here = &found.here;
    let limit = here.container_limit();
    json!({
        "container": {
            "limit": limit.as_ref().map(|(bytes, _)| bytes),
            "limit_file": limit.as_ref().map(|(_, file)| file.to_string_lossy()),
            "killed_together": here.killed_together().map(|group| group.directory.to_string_lossy()),
            "groups": here.groups.iter().map(group).collect::<Vec<_>>(),
        },
        "machine": {
            "memory": here.machine_memory,
            "swap": here.machine_swap,
            "overcommit": here.overcommit.map(|mode| match mode {
                Overcommit::Heuristic => "heuristic",
                Overcommit::Always => "always",
                Overcommit::Never => "never",
            }),
            "ignores_data_limit": here.data_limit_is_ignored,
        },
        "rlimits": {
            "address_space": rlimit(here.rlimits.address_space),
            "data": rlimit(here.rlimits.data),
            "stack": rlimit(here.rlimits.stack),
            "processes": rlimit(here.rlimits.processes),
        },
        "run": plan(&found.run),
        "guard": plan(&found.guard),
        "budget": {
            "auto": found.budget,
            "asked": found.asked_budget,
            "joined": found.joined.map(|joined| json!({ "bytes": joined.bytes, "used": joined.used })),
        },
        "hints": found.hints.iter().map(|(name, value)| {
            ((*name).to_owned(), Value::from(value.to_string_lossy()))
        }).collect::<Map<_, _>>(),
        "works": found.probes.iter().map(|probe| (probe.name.to_owned(), json!({
            "works": probe.result.is_ok(),
            "error": probe.result.as_ref().err(),
        }))).collect::<Map<_, _>>(),
        "advice": advice.iter().map(|advice| json!({
            "text": advice.text,
            "keeps_from_running": advice.keeps_from_running,
        })).collect::<Vec<_>>(),
    })
}

fn group(group: &ControlGroup) -> Value {
    json!({
        "directory": group.directory.to_string_lossy(),
        "version": match group.version {
            CgroupVersion::V1 => 1,
            CgroupVersion::V2 => 2,
        },
        "max": group.max,
        "high": group.high,
        "swap_max": group.swap_max,
        "in_use": group.in_use,
        "oom_group": group.oom_group,
    })
}

fn rlimit(limit: Rlimit) -> Value {
    json!({ "soft": limit.soft, "hard": limit.hard })
}

fn plan(plan: &Plan) -> Value {
    json!({
        "limit": plan.limit.map(|limit| limit.bytes),
        "limit_source": plan.limit.map(|limit| limit.source.as_str()),
        "measure": plan.measure.report_word(),
    })
}
