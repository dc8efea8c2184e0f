//! Where the debug information of a stripped file may lie, as debuggers look for it (GDB manual, "Separate Debug
//! Files"): by its build-id in a few directories, or by the name that the file links to.

use super::below;
use super::elf_file::ElfFile;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the system's own debug files lie.
const SYSTEM: &str = "/usr/lib/debug";

#[derive(Debug)]
pub(super) struct DebugFiles {
    pub(super) root: PathBuf,
    /// The user's own.
    pub(super) directories: Vec<PathBuf>,
}

impl DebugFiles {
    pub(super) fn new() -> DebugFiles {
        DebugFiles { root: PathBuf::from("/"), directories: Vec::new() }
    }

    /// The debug information of a file that was loaded from `path`, which may be gone. Only what is certain to be that
    /// file's: by its build-id, or by the checksum in the file's link.
    pub(super) fn find(
        &self,
        build_id: &[u8],
        itself: Option<&ElfFile>,
        path: Option<&Path>,
    ) -> Option<ElfFile> {
        let by_build_id = self.by_build_id(build_id);
        let is_same = |file: &ElfFile| file.build_id == build_id && file.has_lines();
        if let Some(file) = by_build_id.iter().filter_map(|path| ElfFile::open(path).ok()).find(is_same) {
            return Some(file);
        }
        let (name, crc) = itself?.debug_link.as_ref()?;
        self.by_link(name, path?).iter().filter_map(|path| ElfFile::open(path).ok()).find(|file| {
            file.has_lines()
                && (!build_id.is_empty() && file.build_id == build_id
                    || file.crc().is_ok_and(|sum| sum == *crc))
        })
    }

    /// What `file` shares with others.
    pub(super) fn supplement_of(&self, file: &ElfFile) -> Option<ElfFile> {
        let (path, build_id) = file.supplement.as_ref()?;
        let path = Path::new(OsStr::from_bytes(path));
        let linked = match path.is_absolute() {
            true => below(&self.root, path),
            false => file.path.parent()?.join(path),
        };
        let candidates = std::iter::once(linked).chain(self.by_build_id(build_id));
        candidates.filter_map(|path| ElfFile::open(&path).ok()).find(|found| found.build_id == *build_id)
    }

    fn all(&self) -> impl Iterator<Item = PathBuf> {
        self.directories.iter().cloned().chain([below(&self.root, Path::new(SYSTEM))])
    }

    fn by_build_id(&self, build_id: &[u8]) -> Vec<PathBuf> {
        let Some((first, rest)) = build_id.split_first().filter(|(_, rest)| !rest.is_empty()) else {
            return Vec::new();
        };
        let rest = rest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        self.all().map(|directory| directory.join(format!(".build-id/{first:02x}/{rest}.debug"))).collect()
    }

    fn by_link(&self, name: &[u8], path: &Path) -> Vec<PathBuf> {
        // A name, says the manual: what has directories in it is none of ours.
        let name = Path::new(OsStr::from_bytes(name));
        let (Some(name), Some(parent)) = (name.file_name().filter(|only| *only == name), path.parent())
        else {
            return Vec::new();
        };
        let beside = below(&self.root, parent);
        let mut paths = vec![beside.join(name), beside.join(".debug").join(name)];
        for directory in self.all() {
            paths.push(below(&directory, parent).join(name));
            paths.push(directory.join(name));
        }
        paths
    }
}
