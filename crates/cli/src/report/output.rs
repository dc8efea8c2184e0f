//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes to `path`, in place of what is there when all is written; `-` is stdout.
pub fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    let written =
        if path == Path::new("-") { io::stdout().lock().write_all(content) } else { put(path, content) };
    written.map_err(|error| format!("cannot write {path:?}: {error}; is its directory there, and writable?"))
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    // Where a symbolic link leads, and never in place of a device or a pipe.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
        return File::options().write(true).open(&target)?.write_all(content);
    }
    let unfinished = beside(&target).ok_or(io::ErrorKind::IsADirectory)?;
    let whole = || -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(&unfinished)?;
        file.write_all(content)?;
        fs::rename(&unfinished, &target)
    };
    whole().inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

fn beside(target: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name()?);
    name.push(format!(".{}", std::process::id()));
    Some(target.with_file_name(name))
}
