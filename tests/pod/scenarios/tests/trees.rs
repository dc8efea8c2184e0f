//! Random trees of processes that want more memory together than their pod has, each in one budget: `oomguard run --budget auto` under
//! a real kernel that kills the whole pod. Says so and passes where there is no guest kernel; `tests/pod/install` fetches one.
//!
//! `TREES_FIRST` and `TREES_COUNT` say which seeds; a pod takes a few, as one that is killed takes the others along. A failure
//! names its seed.

#[path = "common/built.rs"]
mod built;
#[path = "../../../common/skip.rs"]
mod skip;

use built::{launcher, python};
use pod::{Change, Kernel, Pod, Root};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Of these seeds nobody knows anything special.
const FIRST: u64 = 1;
/// Each takes some 5 s, and ten times as long on a machine that is busy.
const COUNT: u64 = 4;
const PER_POD: u64 = 4;

fn number(variable: &str, otherwise: u64) -> u64 {
    let said = std::env::var(variable).ok();
    said.map_or(otherwise, |said| {
        said.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {said:?}"))
    })
}

/// Builds the job, as a dynamic program or as a static one.
fn job(name: &str, options: &[&str]) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/job.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let status = Command::new("cc")
        .args(["-O1", "-pthread", source, "-o"])
        .arg(&program)
        .args(options)
        .status()
        .expect("cc can be run");
    assert!(status.success(), "{name} cannot be built");
    program
}

#[test]
fn random_trees_share_their_budget_and_nobody_is_killed_by_the_kernel() {
    if let Err(reason) = Kernel::find() {
        return skip::skipped(reason);
    }
    let launcher = launcher();
    let programs = [
        launcher.display().to_string(),
        job("job", &[]).display().to_string(),
        job("job-static", &["-static"]).display().to_string(),
        python(),
        concat!(env!("CARGO_MANIFEST_DIR"), "/programs/pool.py").to_owned(),
    ];
    let (first, count) = (number("TREES_FIRST", FIRST), number("TREES_COUNT", COUNT));
    let mut wrong = Vec::new();
    for (pod, from) in (first..first + count).step_by(PER_POD as usize).enumerate() {
        let many = PER_POD.min(first + count - from);
        let mib = [128, 192, 256, 160][pod % 4];
        println!("TREES_FIRST={from} TREES_COUNT={many}, a pod of {mib} MiB");
        let words =
            [env!("CARGO_BIN_EXE_trees"), env!("CARGO_BIN_EXE_tree"), &from.to_string(), &many.to_string()]
                .map(str::to_owned);
        let outcome = Pod {
            root: Root::Host,
            timeout: Duration::from_secs(900),
            // It grows while they run, and is as it was again.
            changes: vec![Change {
                file: "memory.max".into(),
                value: ((mib + 32) * MIB).to_string(),
                at: Duration::from_secs(5),
            }],
            ..Pod::new(Some(mib * MIB), words.into_iter().chain(programs.clone()))
        }
        .run()
        .unwrap_or_else(|error| panic!("the harness failed: {error}"));
        println!("{}\n{}", String::from_utf8_lossy(&outcome.stdout), outcome.report.json());
        let kills = (outcome.report.oom_kill, outcome.report.oom_group_kill);
        if outcome.report.exit != 0 || kills != (0, 0) {
            println!("{}", String::from_utf8_lossy(&outcome.stderr));
            wrong.push(from);
        }
    }
    assert!(wrong.is_empty(), "wrong in the pods whose first seed is {wrong:?}");
}
