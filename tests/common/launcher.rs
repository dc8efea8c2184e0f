//! The launcher, built once and found as users find it: in PATH.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The directory with the program `oomguard`.
pub static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    // cargo says it to integration tests only, and this file is a part of another program, too.
    let Some(temporary) = option_env!("CARGO_TARGET_TMPDIR") else { panic!("this is no integration test") };
    let target = Path::new(temporary).parent().expect("tmp lies in the target directory");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "oomguard-cli", "--bin", "oomguard", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the launcher does not build");
    target.join("debug")
});

/// PATH with `directory` before all others.
pub fn path_with(directory: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).expect("no colon in it")
}
