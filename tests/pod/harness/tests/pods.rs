//! The harness, shown on pods whose fate is known. Skips, with the reason, where there
//! is no guest kernel.

#[path = "../../../common/skip.rs"]
mod skip;

use pod::{Capabilities, Change, Kernel, Outcome, Pod, Root, User};
use std::path::Path;
use std::time::Duration;

const LEAK: &str = env!("CARGO_BIN_EXE_leak");
const MIB: u64 = 1 << 20;

/// The outcome of the pod; `None`, and a line that says why, without a kernel.
fn run(pod: Pod) -> Option<Outcome> {
    if let Err(reason) = Kernel::find() {
        skip::skipped(reason);
        return None;
    }
    let outcome = pod.run().unwrap_or_else(|error| panic!("the harness failed: {error}"));
    println!("{}", outcome.report.json());
    Some(outcome)
}

fn stdout(outcome: &Outcome) -> String {
    String::from_utf8_lossy(&outcome.stdout).into_owned()
}

/// A pod that runs a shell line, with the programs it names.
fn shell(memory_max: u64, line: &str, programs: &[&str]) -> Pod {
    Pod {
        include: programs.iter().map(Into::into).collect(),
        ..Pod::new(Some(memory_max), ["/bin/sh", "-c", line])
    }
}

#[test]
fn an_empty_pod_exits_0() {
    let Some(outcome) = run(Pod::new(Some(64 * MIB), ["/bin/true"])) else { return };
    assert_eq!((outcome.report.exit, outcome.report.signal), (0, None));
    assert_eq!(outcome.report.oom_kill, 0);
    assert!(outcome.report.memory_peak > 0 && outcome.report.memory_peak < 64 * MIB);
}

#[test]
fn output_and_exit_code_pass_through() {
    let pod = shell(64 * MIB, "echo out; echo error >&2; exit 198", &[]);
    let Some(outcome) = run(pod) else { return };
    assert_eq!((outcome.report.exit, outcome.report.signal), (198, None));
    assert_eq!(stdout(&outcome), "out\n");
    assert_eq!(outcome.stderr, b"error\n");
}

#[test]
fn a_command_that_cannot_run_exits_127_or_126() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let Some(outcome) = run(Pod::new(Some(64 * MIB), [text])) else {
        return;
    };
    assert_eq!(outcome.report.exit, 126, "not executable");
    let Some(outcome) = run(shell(64 * MIB, "/bin/absent", &[])) else { return };
    assert_eq!(outcome.report.exit, 127, "not there");
}

#[test]
fn with_group_1_a_leaking_worker_takes_the_whole_pod() {
    let Some(outcome) = run(Pod::new(Some(64 * MIB), [LEAK, "parent"])) else { return };
    assert_eq!((outcome.report.exit, outcome.report.signal), (137, Some(9)));
    assert_eq!(outcome.report.oom_group_kill, 1);
    assert_eq!(stdout(&outcome), "");
    assert!(outcome.kernel_log.contains("Memory cgroup out of memory"));
}

#[test]
fn with_group_0_only_the_leaking_worker_dies() {
    let pod = Pod { oom_group: false, ..Pod::new(Some(64 * MIB), [LEAK, "parent"]) };
    let Some(outcome) = run(pod) else { return };
    assert_eq!((outcome.report.exit, outcome.report.signal), (0, None));
    assert_eq!((outcome.report.oom_kill, outcome.report.oom_group_kill), (1, 0));
    assert_eq!(stdout(&outcome), "worker: signal Some(9), code None\n");
}

#[test]
fn the_pod_sees_its_own_limit_read_only_and_its_changes() {
    let line = "cat /proc/self/cgroup; cd /sys/fs/cgroup; cat memory.max; \
                echo max 2>/dev/null >memory.max || echo refused; \
                while read -r max <memory.max && [ $max = 67108864 ]; do sleep 0.1; done; cat memory.max; echo $$";
    let mut pod = shell(64 * MIB, line, &["/bin/cat", "/bin/sleep"]);
    pod.changes.push(change("memory.max", "96M", 5.0));
    let Some(outcome) = run(pod) else { return };
    assert_eq!(stdout(&outcome), "0::/\n67108864\nrefused\n100663296\n1\n");
}

#[test]
fn a_pod_that_holds_more_than_its_lowered_limit_is_killed() {
    let mut pod = Pod::new(Some(96 * MIB), [LEAK, "hold", "32"]);
    pod.changes.push(change("memory.max", "16M", 5.0));
    let Some(outcome) = run(pod) else { return };
    assert_eq!(outcome.report.exit, 137);
    assert_eq!(outcome.report.oom_group_kill, 1);
    assert!(outcome.report.memory_peak > 32 * MIB);
    assert!(outcome.report.wall_s > 4.9);
}

#[test]
fn a_change_that_the_kernel_refuses_fails_the_run() {
    let mut pod = shell(64 * MIB, "sleep 5", &["/bin/sleep"]);
    pod.changes.push(change("memory.max", "plenty", 0.1));
    if let Err(reason) = Kernel::find() {
        skip::skipped(reason);
        return;
    }
    let error = pod.run().expect_err("the change is wrong").to_string();
    assert!(error.contains("cannot write 'plenty'"), "{error}");
}

#[test]
fn root_has_the_capabilities_of_a_container() {
    let Some(outcome) = run(capabilities_of(None, Capabilities::Default)) else { return };
    assert_eq!(stdout(&outcome), "0 00000000a80425fb 00000000a80425fb\n");
}

#[test]
fn another_user_without_capabilities_runs() {
    let nobody = Some(User { uid: 65534, gid: 65534 });
    let Some(outcome) = run(capabilities_of(nobody, Capabilities::None)) else { return };
    assert_eq!(stdout(&outcome), "65534 0000000000000000 0000000000000000\n");
    assert_eq!(outcome.report.exit, 0);
}

/// Prints user, effective and bounding set of the main process, by the shell alone.
fn capabilities_of(user: Option<User>, capabilities: Capabilities) -> Pod {
    let line = "while read -r key value rest; do case $key in Uid:) u=$value;; \
                CapEff:) e=$value;; CapBnd:) b=$value;; esac; done </proc/$$/status; echo $u $e $b";
    Pod { user, capabilities, ..shell(64 * MIB, line, &[]) }
}

#[test]
fn a_file_of_the_guest_is_written_before_the_pod_starts() {
    let parameter = "/sys/module/kernel/parameters/ignore_rlimit_data";
    let mut pod = Pod::new(Some(64 * MIB), ["/bin/cat", parameter]);
    let Some(before) = run(pod.clone()) else { return };
    assert_eq!(stdout(&before), "N\n");
    pod.guest_writes.push((parameter.to_owned(), "Y".to_owned()));
    let Some(after) = run(pod) else { return };
    assert_eq!(stdout(&after), "Y\n");
}

#[test]
fn a_pod_past_its_time_is_killed() {
    let mut pod = shell(64 * MIB, "echo begun; sleep 600", &["/bin/sleep"]);
    pod.timeout = Duration::from_secs(5);
    let Some(outcome) = run(pod) else { return };
    assert!(outcome.report.timed_out);
    assert_eq!(outcome.report.exit, 137);
    assert_eq!(outcome.report.oom_kill, 0);
    assert_eq!(stdout(&outcome), "begun\n");
}

#[test]
fn a_pod_may_see_the_host_read_only_with_a_writable_tmpdir() {
    let here = env!("CARGO_MANIFEST_DIR");
    let line = "head -c 11 Cargo.toml >$TMPDIR/copy && wc -c <$TMPDIR/copy; \
                touch Cargo.toml 2>/dev/null || echo refused; pwd";
    let pod = Pod { root: Root::Host, ..Pod::new(Some(64 * MIB), ["/bin/sh", "-c", line]) };
    let Some(outcome) = run(pod) else { return };
    assert_eq!(stdout(&outcome), format!("11\nrefused\n{here}\n"));
}

#[test]
fn nothing_is_left_of_a_run() {
    let Some(_) = run(Pod::new(Some(64 * MIB), ["/bin/true"])) else { return };
    // Other tests of this process run meanwhile, but each of their pods is short: wait.
    let mine = format!("pod.{}.", std::process::id());
    let left = || {
        ["/dev/shm", "/tmp"]
            .iter()
            .filter_map(|base| std::fs::read_dir(base).ok())
            .flat_map(|entries| entries.flatten())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine))
            .count()
    };
    let patience = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        left() == 0
    });
    assert!(patience, "run directories stay behind");
}

fn change(file: &str, value: &str, seconds: f64) -> Change {
    let at = Duration::from_secs_f64(seconds);
    Change { file: file.to_owned(), value: value.to_owned(), at, once_it_fits: false }
}
