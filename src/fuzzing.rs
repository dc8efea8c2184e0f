//! What the package `fuzz` calls: the readers of what others write, as far as the interface does not have them by
//! themselves. Built with `--cfg fuzzing` only.

use crate::cgroup;
use crate::limit;
use crate::record::Claims;
use crate::supervisor::{Profile, Report};
use std::fs::File;
use std::path::Path;

/// The length of a copy of all pages, and of one of a profile's tables.
pub const HEAD_BYTES: usize = crate::record::HEAD_BYTES;
pub const PROFILE_BYTES: usize = crate::profile::PROFILE_BYTES;

/// What a message offers whoever wrote this in the place of a limit.
pub fn meant(text: &str) -> Option<String> {
    limit::meant(text.as_bytes()).map(|words| String::from_utf8(words.as_bytes().to_vec()).expect("text"))
}

/// What a worker and its descendants say of themselves in a copy of their pages.
pub fn pages(head: &[u8]) -> Vec<Report> {
    let own = head.first_chunk().and_then(Claims::read);
    own.into_iter().chain(Claims::read_descendants(head)).map(Report::new).collect()
}

/// A profile in a copy of its tables.
pub fn samples(tables: &[u8]) -> Option<Profile> {
    Profile::parse(tables)
}

/// The container's limit, by the files of /proc and those of the cgroup tree below `root`.
pub fn container_limit(root: &str) -> Option<u64> {
    let _ = cgroup::filling(root);
    let _ = cgroup::kill_counter(root);
    cgroup::container_limit(root)
}

/// What these unwind tables say of a return address, `into` bytes behind their beginning.
pub fn unwind(tables: &[u8], into: usize) {
    crate::guard::fuzz_unwind(tables, into);
}

/// What is asked of a program's file before it is started.
pub fn program(file: &File) {
    crate::supervisor::fuzz_program(file);
}

/// What is asked of a file that a profile names.
pub fn named_file(path: &Path, address: u64) {
    crate::supervisor::symbols::fuzz_named_file(path, address);
}
