//! The kernel's own out-of-memory killer, where this process may make a cgroup (version 1, as root). On version 2, with
//! group kill, that is what the pod tests are for.

use super::memory_group::Group;
use super::{add, limit, role};
use libtest_mimic::Trial;
use oomguard::supervisor::{Outcome, Retry, Worker};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "the_kernels_killer_is_told_from_any_other", the_kernels_killer_is_told_from_any_other);
}

fn the_kernels_killer_is_told_from_any_other() {
    let group = match Group::new("killed", "64M") {
        Ok(group) => group,
        Err(why) => return super::skip::skipped(format!("no cgroup of version 1 can be made here: {why}")),
    };
    let output = role(&["in-group", group.path().to_str().unwrap()]).output().unwrap();
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
