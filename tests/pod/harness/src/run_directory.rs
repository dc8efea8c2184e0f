//! The directory of one run: the guest's root and the exchange with it. The guest's RAM
//! is a file without a name next to it, so that this must be a place with room.

use crate::{Error, sys};
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

/// Not removed here: its keeper does.
pub struct RunDirectory {
    base: PathBuf,
    path: PathBuf,
}

impl RunDirectory {
    /// On /dev/shm where it has room for the guest's RAM, else in `$TMPDIR` or /tmp.
    pub fn create(ram_bytes: u64) -> Result<RunDirectory, Error> {
        let mut refusals = Vec::new();
        let named = env::var_os("TMPDIR").map(PathBuf::from);
        for base in [PathBuf::from("/dev/shm")].into_iter().chain(named).chain(["/tmp".into()]) {
            match usable(&base, ram_bytes).and_then(|()| make_fresh(&base)) {
                Ok(path) => return Ok(RunDirectory { base, path }),
                Err(reason) => refusals.push(format!("{}: {reason}", base.display())),
            }
        }
        Err(Error::new(format!(
            "no place for a guest with {} MiB of RAM ({}); set TMPDIR to a directory with room",
            ram_bytes >> 20,
            refusals.join("; ")
        )))
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A subdirectory that every user of the guest may enter.
    pub fn make(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        make_public(&path).map_err(Error::on("make", &path))?;
        Ok(path)
    }
}

fn usable(base: &Path, ram_bytes: u64) -> Result<(), String> {
    if base.as_os_str().as_encoded_bytes().iter().any(u8::is_ascii_whitespace) {
        return Err("the name holds a space, which a kernel command line cannot".to_owned());
    }
    let room = sys::room_in(base).map_err(|e| e.to_string())?;
    if room.noexec {
        return Err("mounted noexec".to_owned());
    }
    if room.free_bytes < ram_bytes {
        return Err(format!("only {} MiB free", room.free_bytes >> 20));
    }
    Ok(())
}

fn make_fresh(base: &Path) -> Result<PathBuf, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Relaxed: only the numbers must differ.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("pod.{}.{number}", process::id()));
        match make_public(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path).map_err(|e| e.to_string()),
        }
    }
}

/// Whatever the umask, and whatever the mode of its like on the host: the guest checks
/// permissions by itself, and a pod's user other than root must find its program.
pub fn make_public(path: &Path) -> std::io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}
