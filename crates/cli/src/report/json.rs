//! The report for machines: one object. Keys are only ever added.

use super::death::Death;
use super::stacks::Stacks;
use oomguard::supervisor::Profile;
use oomguard::supervisor::symbols::Detail;
use serde_json::{Value, json};

/// Where there is no profile, what would come from it is null.
pub fn of(death: &Death, mut stacks: Option<&mut Stacks<'_>>) -> Value {
    let profile = stacks.as_ref().map(|stacks| stacks.profile);
    let sites = stacks.as_deref_mut().map(sites);
    let last_refusal = stacks.as_deref_mut().and_then(last_refusal);
    let modules = stacks.map(modules);
    json!({
        "pid": death.pid(),
        "program": death.program(),
        "report": death.report,
        "death": death.ending,
        "limit": death.limit(),
        "live_bytes": profile.map(|profile| profile.live_bytes),
        "peak_bytes": profile.map(|profile| profile.peak_bytes),
        "sampling_distance": profile.map(|profile| profile.sampling_distance),
        "samples": profile.map(|profile| profile.samples),
        "sampled_bytes": profile.map(Profile::sampled_bytes),
        "sites": sites,
        "last_refusal": last_refusal,
        "timeline": profile.map(timeline),
        "modules": modules,
        "method": profile.map(|profile| json!({
            "frames_by_table": profile.method.frames_by_table,
            "frames_by_pointer": profile.method.frames_by_pointer,
            "stacks_cut": profile.method.stacks_cut,
        })),
        "lost": profile.map(|profile| json!({
            "live_samples": profile.lost.live_samples,
            "live_bytes": profile.lost.live_bytes,
            "without_site": profile.lost.without_site,
            "without_frames": profile.lost.without_frames,
            "nested": profile.lost.nested,
            "modules": profile.lost.modules,
        })),
    })
}

fn sites(stacks: &mut Stacks<'_>) -> Vec<Value> {
    let profile = stacks.profile;
    profile
        .sites
        .iter()
        .map(|site| {
            json!({
                "share": profile.share(site),
                "live_bytes": site.live_bytes,
                "live_samples": site.live_samples,
                "total_bytes": site.total_bytes,
                "total_samples": site.total_samples,
                "stack": stack(&site.frames, stacks),
            })
        })
        .collect()
}

fn last_refusal(stacks: &mut Stacks<'_>) -> Option<Value> {
    let (bytes, frames) = stacks.profile.last_refusal.as_ref()?;
    Some(json!({"bytes": bytes, "stack": stack(frames, stacks)}))
}

fn timeline(profile: &Profile) -> Vec<Value> {
    profile
        .timeline
        .iter()
        .map(|moment| json!({"at_ms": moment.at.as_millis() as u64, "live_bytes": moment.live_bytes}))
        .collect()
}

fn stack(frames: &[u64], stacks: &mut Stacks<'_>) -> Vec<Value> {
    frames
        .iter()
        .map(|address| {
            let place = stacks.place(*address);
            let functions: Vec<Value> = place
                .functions
                .iter()
                .map(|function| {
                    json!({
                        "name": function.name,
                        "file": function.file,
                        "line": function.line,
                        "inlined": function.is_inlined,
                    })
                })
                .collect();
            json!({
                "address": address,
                "module": place.module,
                "offset": place.offset,
                "functions": functions,
            })
        })
        .collect()
}

fn modules(stacks: &mut Stacks<'_>) -> Vec<Value> {
    let profile = stacks.profile;
    profile
        .modules
        .iter()
        .map(|module| {
            let names = stacks.names_of(module);
            json!({
                "path": module.path.as_ref().map(|path| path.to_string_lossy()),
                "start": module.start,
                "end": module.end,
                "bias": module.bias,
                "build_id": super::hexadecimal(&module.build_id),
                "names": {
                    "detail": match names.detail {
                        Detail::Lines => "lines",
                        Detail::Symbols => "symbols",
                        Detail::Exported => "exported",
                        _ => "nothing",
                    },
                    "from": names.from.as_ref().map(|path| path.to_string_lossy()),
                    "problem": names.problem.as_ref().map(ToString::to_string),
                    "verified": names.is_verified,
                },
            })
        })
        .collect()
}
