//! How much of its container a tree of processes can use that shares its budget, before the first of them is refused. Says so and
//! passes where there is no guest kernel; `tests/pod/install` fetches one.

#[path = "common/built.rs"]
mod built;
#[path = "../../../common/skip.rs"]
mod skip;

use built::launcher;
use pod::{Kernel, Pod, Root};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Thousandths of the container that `count` processes in it hold by then.
fn filled(launcher: &Path, program: &Path, budget: &str, mib: u64, count: u32, how: &str) -> u64 {
    let words = [launcher.display().to_string(), "run".into(), "--budget".into(), budget.into(), "--".into()]
        .into_iter()
        .chain([program.display().to_string(), count.to_string(), how.into()]);
    let outcome = Pod { root: Root::Host, ..Pod::new(Some(mib * MIB), words) }
        .run()
        .unwrap_or_else(|error| panic!("the harness failed: {error}"));
    let (report, stderr) = (&outcome.report, String::from_utf8_lossy(&outcome.stderr));
    println!("{budget} of {mib} MiB, {count} {how}: {}\n{stderr}", report.json());
    assert_eq!((report.exit, report.oom_kill, report.oom_group_kill), (0, 0, 0), "{budget}, {count} {how}");
    let held: u64 = String::from_utf8_lossy(&outcome.stdout).trim().parse().expect("a number of bytes");
    let thousandths = held * 1000 / (mib * MIB);
    println!("{thousandths} thousandths of the container");
    thousandths
}

fn fill(name: &str) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/fill.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let built = Command::new("cc").args(["-O1", source, "-o"]).arg(&program).status();
    assert!(built.expect("cc can be run").success(), "it cannot be built");
    program
}

#[test]
#[ignore = "a measurement, which a busy machine may decide"]
fn children_that_write_to_all_that_they_share_are_asked_to_leave_in_time() {
    if let Err(reason) = Kernel::find() {
        return skip::skipped(reason);
    }
    let launcher = launcher().display().to_string();
    let program = fill("fill-shared").display().to_string();
    // Where nobody may be traced they stand still by themselves.
    for (turn, traced) in [true, false].into_iter().cycle().take(6).enumerate() {
        let untraced: &[&str] = if traced { &[] } else { &[&program, "untraced"] };
        // 40 MiB, and four times as many written to: 200 MiB, where there are 128.
        let words = [&launcher, "run", "--budget", "auto", "--", &program, "4", "write", "40", "75"];
        let words = untraced.iter().chain(&words).map(|word| String::from(*word));
        let outcome = Pod { root: Root::Host, ..Pod::new(Some(128 * MIB), words) }
            .run()
            .unwrap_or_else(|error| panic!("the harness failed: {error}"));
        let (report, stderr) = (&outcome.report, String::from_utf8_lossy(&outcome.stderr));
        let stdout = String::from_utf8_lossy(&outcome.stdout);
        println!("{}, {stdout}{stderr}", report.json());
        assert_eq!((report.exit, report.oom_kill, report.oom_group_kill), (0, 0, 0), "turn {turn}");
        let left: u32 = stdout.split(' ').next().expect("a word").parse().expect("how many left");
        assert!((1..4).contains(&left), "turn {turn}: {left} of 4 left");
    }
}

#[test]
fn nine_tenths_of_a_container_can_be_used_by_one_or_many() {
    if let Err(reason) = Kernel::find() {
        return skip::skipped(reason);
    }
    let launcher = launcher();
    let program = fill("fill");
    for (count, how) in [(1, "forked"), (4, "executed"), (16, "forked"), (16, "executed")] {
        let thousandths = filled(&launcher, &program, "95%", 192, count, how);
        assert!(thousandths >= 900, "{count} {how}: {thousandths}");
    }
    // All together fill it before the first of them holds much.
    let thousandths = filled(&launcher, &program, "auto", 128, 16, "executed");
    assert!((800..=900).contains(&thousandths), "{thousandths}");
}
