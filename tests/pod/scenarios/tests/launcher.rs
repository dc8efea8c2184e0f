//! The launcher under a real kernel with cgroup v2 and group kill: a Python parent whose workers know nothing of us.
//! Each test says so and passes where there is no guest kernel; `tests/pod/install` fetches one.

#[path = "common/built.rs"]
mod built;
#[path = "../../../common/skip.rs"]
mod skip;

use built::{launcher, python};
use pod::{Kernel, Outcome, Pod, Root};

const MIB: u64 = 1 << 20;

/// The parent with three workers of 4, 6 and 60 MiB in a pod of 128 MiB.
fn run(launcher: &str) -> Option<(Outcome, String)> {
    if let Err(reason) = Kernel::find() {
        skip::skipped(reason);
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/parent.py");
    let sizes = if launcher == "-" { ["4", "6", "200"] } else { ["4", "6", "60"] };
    let python = python();
    let command = [python.as_str(), script, launcher].into_iter().chain(sizes);
    let outcome = Pod { root: Root::Host, ..Pod::new(Some(128 * MIB), command) }
        .run()
        .unwrap_or_else(|error| panic!("the harness failed: {error}"));
    let stdout = String::from_utf8_lossy(&outcome.stdout).into_owned();
    println!("{}\n{stdout}\n{}", outcome.report.json(), String::from_utf8_lossy(&outcome.stderr));
    Some((outcome, stdout))
}

#[test]
fn the_danger_is_real_a_python_worker_takes_its_parent_along() {
    let Some((outcome, _)) = run("-") else { return };
    assert_eq!((outcome.report.exit, outcome.report.oom_group_kill), (137, 1));
}

#[test]
fn a_python_parent_survives_its_worker_and_tries_it_again_with_more() {
    let launcher = launcher();
    let Some((outcome, stdout)) = run(launcher.to_str().expect("a plain path")) else { return };
    assert_eq!(outcome.report.exit, 0);
    assert_eq!((outcome.report.oom_kill, outcome.report.oom_group_kill), (0, 0));
    assert!(stdout.contains("60 MiB: out of memory at 32 MiB, again\n"), "{stdout}");
    assert_eq!(stdout.matches(": right\n").count(), 3, "{stdout}");
}
