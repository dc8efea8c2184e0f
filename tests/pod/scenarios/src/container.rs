//! What a program in a pod sees of its own cgroup.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// More than anything takes in a guest on a busy host.
const PATIENCE: Duration = Duration::from_secs(90);

/// `memory.current`: bytes in use by the whole pod.
pub fn in_use() -> u64 {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.current").expect("memory.current can be read");
    text.trim().parse().expect("memory.current is a number")
}

/// The directory of this process's own group where the kernel has control groups of version 1, as a machine may that tests run on.
fn v1_group() -> Option<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.split_once(":memory:/"))?.1.to_owned();
    Some(Path::new("/sys/fs/cgroup/memory").join(path))
}

/// The container's limit when it is asked for, in bytes.
pub fn limit() -> u64 {
    let file = v1_group().map(|group| group.join("memory.limit_in_bytes"));
    let text = std::fs::read_to_string(file.unwrap_or_else(|| "/sys/fs/cgroup/memory.max".into()));
    text.expect("the limit can be read").trim().parse().expect("there is a limit")
}

/// `oom_kill` of `memory.events`.
pub fn oom_kills() -> u64 {
    let file = v1_group().map(|group| group.join("memory.oom_control"));
    let text = std::fs::read_to_string(file.unwrap_or_else(|| "/sys/fs/cgroup/memory.events".into()))
        .expect("memory.events can be read");
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
