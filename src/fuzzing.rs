//! What the package `fuzz` calls: the readers of what others write, as far as the interface does not have them by
//! themselves. Built with `--cfg fuzzing` only.

use oomguard_core::cgroup;
use oomguard_core::limit;

pub use oomguard_supervisor::__fuzz::{pages, program, samples};
pub use oomguard_symbols::__fuzz::named_file;

/// The length of a copy of all pages, and of one of a profile's tables.
pub const HEAD_BYTES: usize = oomguard_core::record::HEAD_BYTES;
pub const PROFILE_BYTES: usize = oomguard_core::profile::PROFILE_BYTES;

/// What a message offers whoever wrote this in the place of a limit.
pub fn meant(text: &str) -> Option<String> {
    limit::meant(text.as_bytes()).map(|words| String::from_utf8(words.as_bytes().to_vec()).expect("text"))
}

/// The container's limit, by the files of /proc and those of the cgroup tree below `root`.
pub fn container_limit(root: &str) -> Option<u64> {
    let _ = cgroup::filling(root);
    let _ = cgroup::kill_counter(root);
    cgroup::container_limit(root)
}

/// What these unwind tables say of a return address, `into` bytes behind their beginning.
pub fn unwind(tables: &[u8], into: usize) {
    oomguard_engine::unwind::fuzz(tables, into);
}
