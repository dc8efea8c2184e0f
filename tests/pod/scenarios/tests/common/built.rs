//! Programs for the tests that are not of this package.

use std::path::PathBuf;
use std::process::Command;

/// Builds `oomguard`, and tells where it is.
pub fn launcher() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../Cargo.toml");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "oomguard-cli", "--message-format", "json"])
        .args(["--manifest-path", manifest])
        .output()
        .expect("cargo can be run");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.expect("cargo says where the program is")
}

/// Where Python is, as it starts by itself: a version manager's wrapper would be one more process.
#[allow(dead_code)] // Not every test needs it.
pub fn python() -> String {
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python = String::from_utf8(python.expect("python3 can be run").stdout).expect("a path");
    python.trim().to_owned()
}
