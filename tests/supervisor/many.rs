//! Ten thousand workers: nothing is left of any of them.

use super::{add, limit};
use libtest_mimic::Trial;
use oomguard::supervisor::{Budget, Pool, Worker};
use std::process::Command;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "ten_thousand_workers_leave_nothing_behind", ten_thousand_workers);
}

/// In a process of its own, as other tests run in this one.
fn ten_thousand_workers() {
    let output = super::role(&["many", "10000"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    print!("{said}");
}

pub fn run(workers: usize) {
    let pool = Pool::new(Budget::of(limit("800MiB")));
    let batch = |count: usize| {
        let jobs: Vec<_> = (0..count)
            .map(|_| pool.submit(Worker::new(Command::new("/bin/true")).limit(limit("100MiB"))).unwrap())
            .collect();
        for job in jobs {
            let outcome = job.wait().unwrap();
            assert!(outcome.is_success(), "{outcome}");
        }
    };
    // The first ones warm the allocator up; queues of the same length all along.
    const BATCH: usize = 500;
    for _ in 0..2 {
        batch(BATCH);
    }
    let before = (resident_kib(), descriptors());
    for _ in 0..workers / BATCH {
        batch(BATCH);
    }
    let after = (resident_kib(), descriptors());
    println!(
        "{workers} workers: resident {} -> {} KiB, descriptors {} -> {}",
        before.0, after.0, before.1, after.1
    );
    assert_eq!(before.1, after.1, "descriptors");
    assert!(after.0.abs_diff(before.0) <= 1024, "resident {} -> {} KiB", before.0, after.0);
    // SAFETY: no status is asked for.
    let waited = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    assert_eq!(waited, -1, "a child, or a zombie, is left");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
