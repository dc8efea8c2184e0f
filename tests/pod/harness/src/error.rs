//! The harness failed: nothing is known about the pod.

use std::fmt;
use std::path::Path;

/// One sentence, which names the value, where it came from, and what to try.
#[derive(Clone, Debug)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }

    /// For `map_err`: what could not be done with which file.
    pub(crate) fn on<E: fmt::Display>(what: &str, path: &Path) -> impl FnOnce(E) -> Error {
        move |error| Error(format!("cannot {what} {}: {error}", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
