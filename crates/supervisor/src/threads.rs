//! The threads of a process, and what it uses where its first one has ended.

use super::sys;
use super::sys::memory::MemoryUse;

pub(super) fn threads_of(pid: u32) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What process `pid` uses. A thread that has ended uses nothing, and the first one may end before the others: pthread_exit(3).
pub(super) fn memory_of(pid: u32) -> MemoryUse {
    let memory = sys::memory::memory_use_of(pid);
    if memory.held().is_some() || memory.threads.is_none_or(|threads| threads < 2) {
        return memory;
    }
    let of_others = threads_of(pid).map(sys::memory::memory_use_of);
    of_others.into_iter().find(|memory| memory.held().is_some()).unwrap_or(memory)
}
