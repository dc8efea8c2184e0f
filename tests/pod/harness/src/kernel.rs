//! The guest kernel: Debian's user-mode Linux, an ordinary program.

use crate::Error;
use std::env;
use std::path::{Path, PathBuf};

const PROGRAM: &str = "linux.uml";

/// An existing `linux.uml`.
#[derive(Clone, Debug)]
pub struct Kernel(PathBuf);

impl Kernel {
    /// In `$POD_UML`, in `PATH`, or where `tests/pod/install` puts it. Tests that need a
    /// pod print the error as their reason to skip.
    pub fn find() -> Result<Kernel, Error> {
        if let Some(named) = env::var_os("POD_UML").map(PathBuf::from) {
            return if named.is_file() {
                Ok(Kernel(named))
            } else {
                Err(Error::new(format!(
                    "no guest kernel: POD_UML names {}, which is not a file",
                    named.display()
                )))
            };
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let in_path = env::split_paths(&path).map(|directory| directory.join(PROGRAM));
        let mut candidates = in_path.chain(installed());
        candidates.find(|file| file.is_file()).map(Kernel).ok_or_else(|| {
            let cache = installed().map_or("no HOME".into(), |file| file.display().to_string());
            Error::new(format!(
                "no guest kernel: {PROGRAM} is neither in PATH nor in the cache ({cache}); \
                 run tests/pod/install, or name one in POD_UML"
            ))
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// Where `tests/pod/install` puts it; `None` without a home.
fn installed() -> Option<PathBuf> {
    let home_cache = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home_cache)?;
    Some(cache.join("oomguard-pod/usr/bin").join(PROGRAM))
}
