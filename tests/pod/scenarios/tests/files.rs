//! Files in memory that nobody has mapped: whoever fills its container with them leaves, and not everybody. Says so and passes where
//! there is no guest kernel; `tests/pod/install` fetches one.

#[path = "common/built.rs"]
mod built;
#[path = "../../../common/skip.rs"]
mod skip;

use built::{launcher, python};
use pod::{Kernel, Pod, Root};
use std::time::Duration;

/// What is told on stdout and stderr by that program in a container of 128 MiB, of which nobody was killed.
fn outputs(what: &str) -> (String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/files.py");
    let launcher = launcher().display().to_string();
    let words = [&launcher, "run", "--budget", "auto", "--", &python(), "-S", script, what];
    let timeout = Duration::from_secs(300);
    let outcome = Pod { root: Root::Host, timeout, ..Pod::new(Some(128 << 20), words.map(String::from)) }
        .run()
        .unwrap_or_else(|error| panic!("the harness failed: {error}"));
    let report = &outcome.report;
    let [stdout, stderr] =
        [&outcome.stdout, &outcome.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    println!("{}\n{stdout}{stderr}", report.json());
    assert_eq!((report.exit, report.oom_kill, report.oom_group_kill), (0, 0, 0));
    (stdout, stderr)
}

#[test]
#[ignore = "a measurement, which a busy machine may decide"]
fn of_several_who_fill_it_with_files_that_nobody_holds_some_leave() {
    if let Err(reason) = Kernel::find() {
        return skip::skipped(reason);
    }
    let (stdout, _) = outputs("many");
    assert!(["1 of 1\n", "2 of 2\n", "3 of 3\n"].contains(&stdout.as_str()), "{stdout}");
}

#[test]
fn who_fills_a_container_with_files_that_nobody_holds_leaves_it_alone() {
    if let Err(reason) = Kernel::find() {
        return skip::skipped(reason);
    }
    let (stdout, stderr) = outputs("write");
    // What is written stays, so the other one may have to leave as well.
    assert!(stdout.starts_with("fill 198\n"), "{stdout}");
    assert!(stderr.contains(": nobody "), "{stderr}");
}
