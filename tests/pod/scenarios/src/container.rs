//! What a program in a pod sees of its own cgroup.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// More than anything takes in a guest on a busy host.
const PATIENCE: Duration = Duration::from_secs(90);

/// A file of this process's own group: `v1` where the kernel has control groups of version 1, as a machine may that tests run on, and
/// otherwise `v2`. A pod's own group is the root of what it sees.
fn file(v1: &str, v2: &str) -> PathBuf {
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("a process's groups can be read");
    let group = |title: &str| own.lines().find_map(|line| line.split_once(title)).map(|(_, path)| path);
    match group(":memory:/") {
        Some(path) => Path::new("/sys/fs/cgroup/memory").join(path).join(v1),
        None => Path::new("/sys/fs/cgroup").join(group("0::/").unwrap_or_default()).join(v2),
    }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// `memory.current`: bytes in use by the whole pod.
pub fn in_use() -> u64 {
    let text = read(&file("memory.usage_in_bytes", "memory.current"));
    text.trim().parse().expect("memory.current is a number")
}

/// The container's limit when it is asked for, in bytes.
pub fn limit() -> u64 {
    let text = read(&file("memory.limit_in_bytes", "memory.max"));
    text.trim().parse().expect("there is a limit")
}

/// `oom_kill` of `memory.events`.
pub fn oom_kills() -> u64 {
    let text = read(&file("memory.oom_control", "memory.events"));
    let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|kills| kills.parse().ok()).expect("memory.events has oom_kill")
}

/// Whether the cgroup file system is mounted read-only.
pub fn is_read_only() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts can be read");
    mounts.lines().any(|line| {
        let mut words = line.split(' ');
        words.nth(2) == Some("cgroup2")
            && words.next().is_some_and(|options| options.split(',').any(|o| o == "ro"))
    })
}

/// Waits for something that the program cannot be told of.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}
