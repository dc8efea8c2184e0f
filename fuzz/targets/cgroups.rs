//! `/proc/self/mountinfo`, `/proc/self/cgroup` and the files of a cgroup, as a recorded host would have them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomguard::__fuzz;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::{env, fs, process};

const CGROUP: &str = "sys/fs/cgroup";
const V1: &str = "sys/fs/cgroup/memory";

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = env::temp_dir().join(format!("oomguard-fuzz-host-{}", process::id()));
    for directory in ["proc/self", CGROUP, V1] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    root
});

fuzz_target!(|data: &[u8]| {
    // The three, with a zero byte between them.
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut put = |directories: &[&str], names: &[&str]| {
        let content = parts.next().unwrap_or(&[]);
        for (directory, name) in
            directories.iter().flat_map(|directory| names.iter().map(move |name| (directory, name)))
        {
            fs::write(ROOT.join(directory).join(name), content).unwrap();
        }
    };
    put(&["proc/self"], &["mountinfo"]);
    put(&["proc/self"], &["cgroup"]);
    put(
        &[CGROUP, V1],
        &["memory.max", "memory.stat", "memory.events", "memory.current", "memory.limit_in_bytes"],
    );
    let _ = __fuzz::container_limit(ROOT.to_str().unwrap());
});
