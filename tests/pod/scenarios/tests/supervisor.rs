//! The supervisor under a real kernel with cgroup v2. Each test says so and passes where there is no guest kernel;
//! `tests/pod/install` fetches one. The programs in the pod check most things themselves: they end with 0 if all held.

#[path = "../../../common/skip.rs"]
mod skip;

use pod::{Capabilities, Change, Kernel, Outcome, Pod, User};
use std::time::{Duration, SystemTime};

const WORKER: &str = env!("CARGO_BIN_EXE_worker");
const UNGUARDED: &str = env!("CARGO_BIN_EXE_hungry-unguarded");
const MIB: u64 = 1 << 20;

/// A pod of 128 MiB that runs a command, with the programs that it starts beside it.
fn pod(command: &[&str]) -> Pod {
    Pod {
        include: vec![WORKER.into(), UNGUARDED.into(), "/bin/sh".into()],
        ..Pod::new(Some(128 * MIB), command.iter().copied())
    }
}

/// Runs a pod whose main process is to succeed; what it printed, unless there is no kernel to run it.
fn run(pod: Pod) -> Option<(Outcome, String)> {
    if let Err(reason) = Kernel::find() {
        skip::skipped(reason);
        return None;
    }
    let outcome = pod.run().unwrap_or_else(|error| panic!("the harness failed: {error}"));
    let stdout = String::from_utf8_lossy(&outcome.stdout).into_owned();
    println!("{}\n{stdout}\n{}", outcome.report.json(), String::from_utf8_lossy(&outcome.stderr));
    assert_eq!(outcome.report.exit, 0);
    Some((outcome, stdout))
}

fn run_without_kernel_kill(pod: Pod) -> Option<String> {
    let (outcome, stdout) = run(pod)?;
    assert_eq!((outcome.report.oom_kill, outcome.report.oom_group_kill), (0, 0));
    Some(stdout)
}

fn assert_three_of_four_were_retried(stdout: &str) {
    assert!(stdout.contains("four run at once\n") && stdout.ends_with("all answers are right\n"));
    // 24 MiB are too little for 40 and for 60, and 48 for 60.
    let agains = |mib: u64| stdout.matches(&format!("again: {mib} MiB: ")).count();
    assert_eq!((agains(16), agains(40), agains(60)), (0, 2, 2));
}

#[test]
fn four_workers_share_the_container_and_three_are_retried_with_more() {
    let Some(stdout) = run_without_kernel_kill(pod(&[env!("CARGO_BIN_EXE_coordinator"), WORKER])) else {
        return;
    };
    assert!(stdout.contains(&format!("budget {}\n", 112 * MIB)));
    assert_three_of_four_were_retried(&stdout);
}

#[test]
fn an_ordinary_user_without_capabilities_supervises_the_same_way() {
    let ordinary = Pod {
        user: Some(User { uid: 65534, gid: 65534 }),
        capabilities: Capabilities::None,
        ..pod(&[env!("CARGO_BIN_EXE_coordinator"), WORKER])
    };
    let Some(stdout) = run_without_kernel_kill(ordinary) else { return };
    assert!(stdout.contains("cgroup mount read-only: true\n"));
    assert_three_of_four_were_retried(&stdout);
}

#[test]
fn a_parent_and_workers_whose_sizes_all_come_from_the_container_live_with_each_other() {
    let Some(stdout) = run_without_kernel_kill(pod(&[env!("CARGO_BIN_EXE_automatic"), WORKER])) else {
        return;
    };
    assert!(stdout.ends_with(&format!("sum {}\n", 20 * MIB)));
}

/// What runs fits into the smaller container. Had it not, the kernel would have killed at once, whoever supervises:
/// memory that is in use cannot be taken back.
#[test]
fn a_container_that_shrinks_starts_no_worker_beyond_its_new_size() {
    let shrinking = Pod {
        changes: vec![Change {
            file: "memory.max".into(),
            value: "96M".into(),
            at: Duration::from_secs(30),
            once_it_fits: false,
        }],
        timeout: Duration::from_secs(300),
        ..pod(&[env!("CARGO_BIN_EXE_resized"), WORKER])
    };
    let Some(stdout) = run_without_kernel_kill(shrinking) else { return };
    assert!(stdout.ends_with("all answers are right\n"));
}

#[test]
fn a_kill_by_the_kernel_is_told_from_one_by_anybody_else() {
    let single = Pod { oom_group: false, ..pod(&[env!("CARGO_BIN_EXE_killed"), UNGUARDED, WORKER]) };
    let Some((outcome, _)) = run(single) else { return };
    assert_eq!((outcome.report.oom_kill, outcome.report.oom_group_kill), (1, 0));
}

/// With `TRIALS_SEED=N` the trials of an earlier run.
#[test]
fn two_hundred_random_trials_end_as_they_must_and_the_kernel_kills_nobody() {
    const COUNT: &str = "200";
    let seed = std::env::var("TRIALS_SEED").unwrap_or_else(|_| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        since.subsec_nanos().to_string()
    });
    println!("TRIALS_SEED={seed}");
    let trials = Pod {
        memory_max: Some(48 * MIB),
        timeout: Duration::from_secs(900),
        ..pod(&[env!("CARGO_BIN_EXE_trials"), WORKER, &seed, COUNT])
    };
    let Some(stdout) = run_without_kernel_kill(trials) else { return };
    assert!(stdout.contains("200 trials: ") && stdout.contains(", wrong 0, kernel kills 0"));
}
