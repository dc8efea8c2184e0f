//! What the tests are about: liboomguard.so as it is shipped, and the C programs that are started with it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where what is built for these tests lies.
pub fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim");
    std::fs::create_dir_all(&directory).expect("a directory for what is built");
    directory
}

/// Builds the library in its own profile.
pub fn build() -> PathBuf {
    let target = directory().join("target");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "oomguard-shim", "--profile", "shim", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // As cargo would have it without the test around it.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "the shim does not build: {status}");
    target.join("shim/liboomguard.so")
}

/// The C compiler; `None` where there is none.
pub fn compiler(name: &str) -> Option<&str> {
    Command::new(name).arg("--version").output().ok().map(|_| name)
}

/// Compiles one of the programs beside this file.
pub fn compile(compiler: &str, source: &str, output: &str, flags: &[&str]) -> PathBuf {
    let output = directory().join(output);
    let status = Command::new(compiler)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/programs").join(source))
        .args(["-O1", "-w", "-o"])
        .arg(&output)
        .args(flags)
        .status()
        .expect("the compiler can be started");
    assert!(status.success(), "{source} does not compile: {status}");
    output
}
