//! The C and C++ compilers of this machine, for what is written against `include/oomguard.h`. Without one, the test
//! that asks says that it skips.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory of the header.
pub fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// The compiler in `variable` (`CC`, `CXX`), else `usual`; `None` where neither runs.
fn compiler(variable: &str, usual: &str) -> Option<PathBuf> {
    let program =
        std::env::var_os(variable).filter(|value| !value.is_empty()).unwrap_or_else(|| usual.into());
    let runs = Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !runs.is_ok_and(|status| status.success()) {
        super::skip::skipped(format!("there is no {} here", program.display()));
        return None;
    }
    Some(program.into())
}

pub fn c() -> Option<PathBuf> {
    compiler("CC", "cc")
}

pub fn cpp() -> Option<PathBuf> {
    compiler("CXX", "c++")
}

/// Runs a compiler; what it has to say is the test's failure.
pub fn compile(compiler: &mut Command) {
    let output = compiler.output().expect("the compiler was found");
    assert!(output.status.success(), "{compiler:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}
