//! A container that is resized while processes share it (Kubernetes does so in place): the budget follows, both ways. Says so and
//! passes where there is no guest kernel; `tests/pod/install` fetches one.

#[path = "common/built.rs"]
mod built;
#[path = "../../../common/skip.rs"]
mod skip;

use built::{launcher, python};
use pod::{Change, Kernel, Pod, Root};
use std::time::Duration;

const MIB: u64 = 1 << 20;

#[test]
fn who_holds_most_leaves_a_container_that_shrinks_and_one_that_grows_has_room() {
    if let Err(reason) = Kernel::find() {
        return skip::skipped(reason);
    }
    let (large, small) = ((240 * MIB).to_string(), (160 * MIB).to_string());
    let resize = |value: &str, at: u64| Change {
        file: "memory.max".into(),
        value: value.into(),
        at: Duration::from_secs(at),
        once_it_fits: false,
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/resized.py");
    let launcher = launcher().display().to_string();
    let words = [&launcher, "run", "--budget", "auto", "--", &python(), "-S", script, &large, &small];
    let outcome = Pod {
        root: Root::Host,
        changes: vec![resize(&small, 25), resize(&large, 45)],
        timeout: Duration::from_secs(300),
        ..Pod::new(Some(240 * MIB), words.map(String::from))
    }
    .run()
    .unwrap_or_else(|error| panic!("the harness failed: {error}"));
    let (report, stdout) = (&outcome.report, String::from_utf8_lossy(&outcome.stdout));
    println!("{}\n{stdout}{}", report.json(), String::from_utf8_lossy(&outcome.stderr));
    assert_eq!((report.exit, report.oom_kill, report.oom_group_kill), (0, 0, 0));
    assert!(stdout.contains("left with 198 and None\n"), "{stdout}");
    assert!(stdout.ends_with("the other 0\n"), "{stdout}");
}
