//! The library that travels inside this program, in a file that the dynamic linker of any descendant can open.

use flate2::{Crc, read::GzDecoder};
use rustix::fs::StatVfsMountFlags;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// In gzip's format (RFC 1952), whose last eight bytes are the checksum and the size of what it holds.
static PACKED: &[u8] = include_bytes!(env!("OOMGUARD_SHIM"));

fn library() -> io::Result<Vec<u8>> {
    let mut library = Vec::new();
    GzDecoder::new(PACKED).read_to_end(&mut library)?;
    Ok(library)
}

/// Nobody else can have written `content`; that it is all there is what has to be seen.
fn is_library(content: &[u8]) -> bool {
    let mut sum = Crc::new();
    sum.update(content);
    PACKED.ends_with(&[sum.sum().to_le_bytes(), sum.amount().to_le_bytes()].concat())
}

/// A path of the library for `LD_PRELOAD`. A file that is there already is used again: what was started may outlive
/// this process, and start others later, so it is never removed. Where no directory will do, a memory file of this
/// process.
pub fn provide() -> io::Result<PathBuf> {
    for place in places() {
        if let Ok(path) = provide_in(&place) {
            return Ok(path);
        }
    }
    in_memory()
}

fn places() -> impl Iterator<Item = PathBuf> {
    let said = |name| std::env::var_os(name).map(PathBuf::from);
    // Sandboxes give those below them a /tmp of their own (bubblewrap), and leave them the rest to read.
    let usual = ["/var/tmp", "/tmp", "/dev/shm", "/run"].map(PathBuf::from);
    // The last one is for this user's eyes only, and descendants may be others.
    said("TMPDIR").into_iter().chain(usual).chain(said("XDG_RUNTIME_DIR"))
}

fn provide_in(place: &Path) -> io::Result<PathBuf> {
    // To the dynamic linker two of them are separators, and one begins a token: ld.so(8).
    let is_plain = |path: &Path| {
        path.is_absolute()
            && !path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'$'))
    };
    // Where others may rename what is ours, they may put theirs in its place: those who may write there, and whoever it
    // belongs to.
    let user = rustix::process::geteuid().as_raw();
    let found = fs::metadata(place)?;
    let is_safe = (found.uid() == user || found.uid() == 0)
        && (found.mode() & 0o022 == 0 || found.mode() & libc::S_ISVTX != 0);
    if !is_plain(place) || !is_safe || rustix::fs::statvfs(place)?.f_flag.contains(StatVfsMountFlags::NOEXEC)
    {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let directory = place.join(format!("oomguard-{user}"));
    match DirBuilder::new().mode(0o755).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Others must not have made it, nor be able to change it: what lies there becomes code of the command.
    let found = fs::symlink_metadata(&directory)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let path = directory.join(concat!("liboomguard-", env!("OOMGUARD_SHIM_FINGERPRINT"), ".so"));
    if !is_ours(&path, user) {
        write_whole(&directory, &path)?;
    }
    Ok(path)
}

fn is_ours(path: &Path, user: u32) -> bool {
    let is_ours = || -> io::Result<bool> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != user || found.mode() & 0o022 != 0 {
            return Ok(false);
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(is_library(&content))
    };
    is_ours().unwrap_or(false)
}

/// Under its final name only when complete.
fn write_whole(directory: &Path, path: &Path) -> io::Result<()> {
    let unfinished = directory.join(format!("unfinished-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&unfinished)?;
        file.write_all(&library()?)?;
        // Whatever the umask says: a descendant may be another user.
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

/// Lives as long as this process, which waits for the command.
fn in_memory() -> io::Result<PathBuf> {
    let file = rustix::fs::memfd_create("liboomguard.so", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(&library()?)?;
    let number = std::os::fd::IntoRawFd::into_raw_fd(file);
    Ok(OsString::from(format!("/proc/{}/fd/{number}", std::process::id())).into())
}
