//! What the process tests share: starting this binary again in a role, and judging the child from outside.
#![allow(dead_code)] // Each test binary uses a part.

pub mod c;
pub mod child;
pub mod dispositions;
pub mod launcher;
pub mod report;
pub mod skip;

/// The variable that makes a test binary play a role instead of running its tests.
pub const ROLE: &str = "OOMGUARD_TEST_ROLE";

/// The exit code of a role that did not get as far as it should have: no code that a test waits for.
pub const BROKEN_ROLE: i32 = 77;

/// The size in bytes that a limit such as `64Mi` means; only the forms that the tests use.
pub fn mebibytes(limit: &str) -> u64 {
    limit.strip_suffix("Mi").and_then(|number| number.parse::<u64>().ok()).expect("written as 64Mi") << 20
}

/// Is there such a program? Says so if not.
pub fn have(program: &str) -> bool {
    let found = std::process::Command::new(program)
        .arg("--version")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        skip::skipped(format!("there is no {program} here"));
    }
    found
}
