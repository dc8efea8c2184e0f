//! Where reports go, as `OOMGUARD_REPORT` says it: tried by the parent, once, so that it is an error before anything runs.

use super::sys;
use crate::text::whole_number;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// Whether a report could be written there. What a descriptor refers to; zeros for a path.
pub(super) fn check(target: &OsStr) -> io::Result<(u64, u64)> {
    let bad = |words: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    if let Some(number) = target.as_bytes().strip_prefix(b"fd:") {
        let Some(fd) = whole_number(number).and_then(|number| i32::try_from(number).ok()) else {
            return bad("not the number of a descriptor");
        };
        return match sys::fd::file_id(fd) {
            Some(id) if sys::fd::is_writable(fd) => Ok(id.numbers()),
            _ => bad("no descriptor that is open for writing"),
        };
    }
    let path = CString::new(target.as_bytes())?;
    let Some(slash) = target.as_bytes().iter().rposition(|byte| *byte == b'/') else {
        return bad("not an absolute path");
    };
    let directory = CString::new(target.as_bytes().get(..slash.max(1)).unwrap_or_default())?;
    if !target.as_bytes().starts_with(b"/") || target.as_bytes().ends_with(b"/") {
        return bad("not the absolute path of a file");
    }
    if sys::fd::can_append(&path, &directory) { Ok((0, 0)) } else { Err(io::Error::last_os_error()) }
}
