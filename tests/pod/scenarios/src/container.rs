//! What a program in a pod sees of its own cgroup.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// More than anything takes in a guest on a busy host.
const PATIENCE: Duration = Duration::from_secs(90);

/// `memory.current`: bytes in use by the whole pod.
pub fn in_use() -> u64 {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.current").expect("memory.current can be read");
    text.trim().parse().expect("memory.current is a number")
}

/// `oom_kill` of `memory.events`.
pub fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.events").expect("memory.events can be read");
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
