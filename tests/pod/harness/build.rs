//! Builds the two parts that do not run as part of this package: the guest's init
//! (static: the guest has no libraries of its own) and the ptrace shim (a shared
//! object). The harness embeds both, so that `podrun` is one file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for source in ["guest", "shim", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={source}");
    }
    let parts = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("parts");
    build(&parts, "pod-init", &["-C", "target-feature=+crt-static"]);
    build(&parts, "pod-shim", &[]);
    embed("POD_INIT", &parts.join("release/pod-init"));
    embed("POD_SHIM", &parts.join("release/libpod_shim.so"));
}

/// A nested cargo with a target directory of its own, so that it never waits for
/// the lock of the cargo that runs this script. `rustc_flags` reach the named
/// package alone, which is why this is `cargo rustc`, not a setting of the workspace.
fn build(parts: &Path, package: &str, rustc_flags: &[&str]) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.args(["rustc", "--quiet", "--release", "--locked", "--offline"]);
    cargo.args(["--package", package, "--target-dir"]).arg(parts);
    cargo.arg("--").args(rustc_flags);
    // What concerns the outer build only: clippy's wrapper, its flags, its target.
    for outer in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(outer);
    }
    let status = cargo.status().unwrap_or_else(|error| panic!("cannot start {cargo:?}: {error}"));
    assert!(
        status.success(),
        "building {package} failed ({status}); the static init needs libc.a (Debian: libc6-dev)"
    );
}

fn embed(variable: &str, file: &Path) {
    println!("cargo::rustc-env={variable}={}", file.display());
}
