//! What `guard!` is told may be a constant, or come from whoever builds the program: `env!`. And its allocator may be made of
//! something. What such a program starts has the same limit, or the one from before.

use oomguard::ChildLimit;
use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const RESERVE: &str = "2MiB";

const LIMIT: &str = concat!(env!("CARGO_PKG_VERSION_MINOR"), "GiB");

/// Counts in steps of its own.
struct Counting<A> {
    inner: A,
    step: u64,
}

static COUNTED: AtomicU64 = AtomicU64::new(0);

impl<A> Counting<A> {
    const fn new(inner: A, step: u64) -> Self {
        Counting { inner, step }
    }
}

// SAFETY: passes every call on, as it is.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTED.fetch_add(self.step, Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { self.inner.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.inner.dealloc(block, layout) }
    }
}

oomguard::guard!(
    limit = LIMIT, allocator: Counting<System> = Counting::new(System, 7), reserve = RESERVE, measure = data
);

#[test]
fn the_limit_is_what_the_constant_says() {
    let status = oomguard::status();
    assert_eq!(status.limit, Some(1 << 30), "{status:?}");
    assert_eq!(status.source, Some(oomguard::LimitSource::Source));
    assert!(oomguard::on_pressure(1.0, || ()).unwrap(), "there is a limit to watch");
}

#[test]
fn the_allocator_is_the_value_that_was_given() {
    let before = COUNTED.load(Relaxed);
    drop(std::hint::black_box(Box::new(1u64)));
    let counted = COUNTED.load(Relaxed);
    assert!(counted > before && counted.is_multiple_of(7), "{before}, {counted}");
}

/// The limit on data of a process, as proc_pid_limits(5) has it.
fn limit_in(limits: &str) -> String {
    limits.lines().find(|line| line.starts_with("Max data size")).expect("a line for it").to_owned()
}

#[test]
fn what_it_starts_has_its_limit_or_the_one_from_before() {
    let limits = || {
        let mut command = Command::new("cat");
        command.arg("/proc/self/limits");
        command
    };
    let of = |command: &mut Command| limit_in(&String::from_utf8(command.output().unwrap().stdout).unwrap());
    let own = of(&mut limits());
    assert!(own.contains("1073741824"), "{own}");
    // Whoever started this program has what this one had before its guard.
    let parents = std::fs::read_to_string(format!("/proc/{}/limits", std::os::unix::process::parent_id()));
    assert_eq!(of(limits().limit_before_guard()), limit_in(&parents.unwrap()));
}
