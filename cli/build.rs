//! Builds the shim with the profile made for it, so that the launcher can carry it along.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let manifest = PathBuf::from(set_by_cargo("CARGO_MANIFEST_DIR")).join("../shim/Cargo.toml");
    let target_directory = PathBuf::from(set_by_cargo("OUT_DIR")).join("shim");
    let target = set_by_cargo("TARGET");
    for watched in ["../shim", "../src", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={watched}");
    }

    let mut build = Command::new(set_by_cargo("CARGO"));
    build
        .args(["build", "--quiet", "--profile", "shim", "--target", &target])
        .arg("--manifest-path")
        .arg(&manifest);
    build.arg("--target-dir").arg(&target_directory);
    // Half the time for those who only try something; what is optimized is what users get.
    if set_by_cargo("PROFILE") == "debug" {
        build.args(["--config", "profile.shim.lto=\"off\"", "--config", "profile.shim.codegen-units=16"]);
    }
    // A static launcher still carries a shared library; and what a lint or coverage run asks for is not for it.
    for ours_alone in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CARGO_TARGET_DIR",
    ] {
        build.env_remove(ours_alone);
    }
    let built = build.status().unwrap_or_else(|error| panic!("cannot run cargo to build the shim: {error}"));
    assert!(built.success(), "the shim could not be built: see above");
    let library = target_directory.join(target).join("shim/liboomguard.so");
    println!("cargo::rustc-env=OOMGUARD_SHIM={}", library.display());
    let content = std::fs::read(&library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    println!("cargo::rustc-env=OOMGUARD_SHIM_FINGERPRINT={:016x}", fingerprint(&content));
}

/// FNV-1a: tells versions apart by their file's name; what is there is compared byte for byte.
fn fingerprint(content: &[u8]) -> u64 {
    content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn set_by_cargo(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
