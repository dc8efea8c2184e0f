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
use pod::{Change, Kernel, Outcome, Pod, Root};
use pod_scenarios::random::Random;
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

/// The container grows while they run, and is as it was again: first for whoever asks for more, which is told by `memory.high`,
/// and by which the kernel holds up whoever takes more; and as a limit, once they use no more.
fn resizes(seed: u64, limit: u64) -> Vec<Change> {
    let mut random = Random::new(seed);
    let mut at = Duration::ZERO;
    let mut after = |least_ms: u64, most_ms: u64| {
        at += Duration::from_millis(random.within(least_ms, most_ms));
        at
    };
    let change = |at: Duration, file: &str, value: String, once_it_fits: bool| Change {
        file: file.into(),
        value,
        at,
        once_it_fits,
    };
    let larger = (limit + 32 * MIB).to_string();
    vec![
        change(after(1000, 4000), "memory.max", larger, false),
        change(after(500, 6000), "memory.high", limit.to_string(), false),
        change(after(1000, 2000), "memory.max", limit.to_string(), true),
    ]
}

/// Builds the job, as a dynamic program or as a static one.
fn job(name: &str, options: &[&str]) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/job.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Whoever runs this at the same time may run the program.
    let new = program.with_extension(std::process::id().to_string());
    let built = Command::new("cc").args(["-O1", "-pthread", source, "-o"]).arg(&new).args(options).status();
    assert!(built.expect("cc can be run").success(), "{name} cannot be built");
    std::fs::rename(&new, &program).expect("it can be given its name");
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
            changes: resizes(from, mib * MIB),
            ..Pod::new(Some(mib * MIB), words.into_iter().chain(programs.clone()))
        }
        .run()
        .unwrap_or_else(|error| panic!("the harness failed: {error}"));
        println!("{}\n{}", String::from_utf8_lossy(&outcome.stdout), outcome.report.json());
        let kills = (outcome.report.oom_kill, outcome.report.oom_group_kill);
        if outcome.report.exit != 0 || kills != (0, 0) {
            println!("{}", String::from_utf8_lossy(&outcome.stderr));
            wrong.push(format!("from seed {from} in {mib} MiB: {}", in_short(&outcome)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Why a pod went wrong, for whoever gets to see nothing else: how it ended, which trees it got through, and what was wrong there.
fn in_short(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let numbers = format!(
        "exit {}{}, oom_kill {}, oom_group_kill {}, memory.peak {} KiB",
        report.exit,
        if report.timed_out { " after the time-out" } else { "" },
        report.oom_kill,
        report.oom_group_kill,
        report.memory_peak >> 10,
    );
    let stdout = String::from_utf8_lossy(&outcome.stdout).into_owned();
    let is_told = |line: &&str| line.starts_with("seed ") || line.starts_with("wrong, seed ");
    let lines = stdout.lines().filter(is_told).map(|line| line.chars().take(380).collect());
    [numbers].into_iter().chain(lines).collect::<Vec<String>>().join("\n  ")
}

/// What is inferred from outside, by the means that such a kernel has, is not refused what there is room for.
#[test]
fn a_static_program_gets_what_there_is_room_for() {
    if let Err(reason) = Kernel::find() {
        return skip::skipped(reason);
    }
    let program = job("job-static-alone", &["-static"]).display().to_string();
    let launcher = launcher().display().to_string();
    for (shape, script) in [("one", "\"$0\" \"$@\"; exit $?"), ("churn", "exec \"$0\" \"$@\"")] {
        let words = [&launcher, "run", "--budget", "auto", "--", "/bin/sh", "-c", script, &program]
            .into_iter()
            .chain([shape, "40000", "7", "1", "copes"]);
        let outcome = Pod { root: Root::Host, ..Pod::new(Some(128 * MIB), words) }
            .run()
            .unwrap_or_else(|error| panic!("the harness failed: {error}"));
        let stdout = String::from_utf8_lossy(&outcome.stdout);
        println!("{stdout}{}", String::from_utf8_lossy(&outcome.stderr));
        assert_eq!((outcome.report.exit, &stdout[..4]), (0, "sum "), "{shape}");
    }
}
