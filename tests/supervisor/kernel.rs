//! The kernel's own out-of-memory killer, where this process may make a cgroup (version 1, as root). On version 2, with
//! group kill, that is what the pod tests are for.

use super::{add, limit, role};
use libtest_mimic::Trial;
use oomguard::supervisor::{Outcome, Retry, Worker};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "the_kernels_killer_is_told_from_any_other", the_kernels_killer_is_told_from_any_other);
}

/// A cgroup with a limit, removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new(limit: &str) -> Result<Group, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = groups
            .lines()
            .find_map(|line| line.split_once(":memory:"))
            .ok_or("no memory controller of cgroup version 1")?
            .1;
        let directory = Path::new("/sys/fs/cgroup/memory")
            .join(own.trim_start_matches('/'))
            .join(format!("oomguard-test-{}", std::process::id()));
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let group = Group(directory);
        fs::write(group.0.join("memory.limit_in_bytes"), limit).map_err(|error| error.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        super::wait_for("the group is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

fn the_kernels_killer_is_told_from_any_other() {
    let group = match Group::new("64M") {
        Ok(group) => group,
        Err(why) => return super::skip::skipped(format!("no cgroup of version 1 can be made here: {why}")),
    };
    let output = role(&["in-group", group.0.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

pub fn play(group: &str) {
    fs::write(Path::new(group).join("cgroup.procs"), std::process::id().to_string()).unwrap();
    // Looks for the end of the last line of something that has neither.
    let hungry = || {
        let mut command = Command::new("tail");
        command.arg("-n1").stdin(File::open("/dev/zero").unwrap());
        Worker::new(command)
    };
    let killed_by_hand = || Worker::new(super::shell("kill -9 $$")).run().unwrap();
    assert!(matches!(killed_by_hand(), Outcome::Signaled(9)));
    // Started before the kernel's kill, and killed by hand after it.
    let mut bystander = Worker::new(super::shell("exec sleep 1000")).spawn().unwrap();
    match hungry().run().unwrap() {
        Outcome::OomKilled(kill) => assert_eq!((kill.counter(), kill.kills()), ("memory.oom_control", 1)),
        other => panic!("{other}"),
    }
    let bystander_pid = bystander.id().to_string();
    assert!(Command::new("/bin/kill").args(["-9", &bystander_pid]).status().unwrap().success());
    assert!(matches!(bystander.wait().unwrap(), Outcome::Signaled(9)), "one kill explains one death");
    assert!(matches!(killed_by_hand(), Outcome::Signaled(9)));
    // A limit above the container's does not help, and a larger one would not either.
    let ended = hungry().limit(limit("1GiB")).retry(Retry::grow(2.0).at_most(2)).run_to_end().unwrap();
    assert!(matches!(ended.outcome, Outcome::OomKilled(_)), "{ended}");
    assert_eq!(ended.tries, 1, "{ended}");
    // The same with a limit below the container's: no kill, and the parent lives on.
    let ended =
        Worker::new(super::unchecked_role(&["eat"])).limit(limit("40MiB")).quiet().run_to_end().unwrap();
    assert!(matches!(ended.outcome, Outcome::OutOfMemory(_)), "{ended}");
}
