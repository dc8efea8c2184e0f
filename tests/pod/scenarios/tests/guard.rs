//! The guard under a real kernel with cgroup v2 and group kill. Each test says so and passes where there is no guest
//! kernel; `tests/pod/install` fetches one.

#[path = "../../../common/skip.rs"]
mod skip;

use pod::{Capabilities, Kernel, Outcome, Pod, User};

const HUNGRY: &str = env!("CARGO_BIN_EXE_hungry");
const UNGUARDED: &str = env!("CARGO_BIN_EXE_hungry-unguarded");
const PARENT: &str = env!("CARGO_BIN_EXE_parent");
const MIB: u64 = 1 << 20;

/// A pod of 128 MiB that runs a command, with the two workers beside it.
fn pod(command: &[&str]) -> Pod {
    Pod {
        include: vec![HUNGRY.into(), UNGUARDED.into()],
        ..Pod::new(Some(128 * MIB), command.iter().copied())
    }
}

fn run(pod: Pod) -> Option<Outcome> {
    if let Err(reason) = Kernel::find() {
        skip::skipped(reason);
        return None;
    }
    let outcome = pod.run().unwrap_or_else(|error| panic!("the harness failed: {error}"));
    println!("{}", outcome.report.json());
    println!("{}\n{}", stdout(&outcome), stderr(&outcome));
    Some(outcome)
}

fn stdout(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.stdout).into_owned()
}

fn stderr(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.stderr).into_owned()
}

fn assert_no_kernel_kill(outcome: &Outcome) {
    assert_eq!((outcome.report.oom_kill, outcome.report.oom_group_kill), (0, 0));
}

#[test]
fn the_danger_is_real_an_unguarded_worker_takes_its_parent_along() {
    let Some(outcome) = run(pod(&[PARENT, UNGUARDED, "200", "-", "-"])) else { return };
    assert_eq!((outcome.report.exit, outcome.report.signal), (137, Some(9)));
    assert_eq!(outcome.report.oom_group_kill, 1);
}

#[test]
fn a_guarded_worker_leaves_by_itself_and_the_parent_finishes_the_job() {
    let Some(outcome) = run(pod(&[PARENT, HUNGRY, "60", "40Mi", "90Mi"])) else { return };
    assert_eq!(outcome.report.exit, 0);
    assert_no_kernel_kill(&outcome);
    let text = stdout(&outcome);
    assert!(text.contains("limit 40Mi: exit status: 198"), "{text}");
    assert!(text.contains(&format!("sum {}", 60 * MIB)), "{text}");
}

#[test]
fn without_any_setting_the_limit_comes_from_the_container() {
    let Some(outcome) = run(pod(&[PARENT, HUNGRY, "200", "-"])) else { return };
    assert_eq!(outcome.report.exit, 1);
    assert_no_kernel_kill(&outcome);
    assert!(stdout(&outcome).contains("limit -: exit status: 198"));
    assert!(stderr(&outcome).contains("115.1 MiB (120795955 bytes) of address-space, from the container"));
}

#[test]
fn an_ordinary_user_without_capabilities_is_guarded_the_same_way() {
    let ordinary = Pod {
        user: Some(User { uid: 65534, gid: 65534 }),
        capabilities: Capabilities::None,
        ..pod(&[PARENT, HUNGRY, "60", "40Mi", "90Mi"])
    };
    let Some(outcome) = run(ordinary) else { return };
    assert_eq!(outcome.report.exit, 0);
    assert_no_kernel_kill(&outcome);
}

#[test]
fn a_machine_that_ignores_the_data_limit_is_found_out_at_start() {
    const SWITCH: &str = "/sys/module/kernel/parameters/ignore_rlimit_data";
    let data = |ignored: &str| Pod {
        environment: vec![
            ("OOMGUARD_MEASURE".into(), "data".into()),
            ("OOMGUARD_LIMIT".into(), "40Mi".into()),
        ],
        guest_writes: vec![(SWITCH.into(), ignored.into())],
        ..pod(&[HUNGRY, "60"])
    };
    let Some(outcome) = run(data("Y")) else { return };
    assert_eq!(outcome.report.exit, 125);
    assert_eq!(stdout(&outcome), "");
    let text = stderr(&outcome);
    assert!(text.starts_with("oomguard: cannot guard this process: ") && text.contains(SWITCH), "{text}");
    assert_eq!(text.lines().count(), 1);

    let Some(outcome) = run(data("N")) else { return };
    assert_eq!(outcome.report.exit, 198);
    assert_no_kernel_kill(&outcome);
}
