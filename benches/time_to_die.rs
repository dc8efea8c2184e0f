//! How long does a process live on after its first refusal, when 64 threads are refused at once? (Aim: at most 10 ms.)
//!
//! From the stamp that the allocator itself leaves at its first refusal, to `waitpid` returning in the parent; no
//! hooks. (Under `immediate` the process ends inside `malloc`, before the allocator could leave one.) Under a limit of 1 GiB of address space, once with nothing written to what was allocated, and once with all
//! of it resident: tearing down 1 GiB takes the kernel a time that no guard can shorten, so the same process killed by
//! SIGKILL stands beside it.

use benches::programs::{self, Prepared, wait_for};
use benches::{interleave, median, monotonic_ns, print_table, quantile};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

const ROUNDS: usize = 50;

fn main() {
    let [program] = programs::build(["bench_die_together"]);
    let stamp = shared_stamp();
    let environment = [("OOMGUARD_LIMIT", "1Gi"), ("OOMGUARD_QUIET", "1")];
    let data = [("OOMGUARD_LIMIT", "1Gi"), ("OOMGUARD_QUIET", "1"), ("OOMGUARD_MEASURE", "data")];
    let subjects = [
        ("address space, untouched", Prepared::new(&program, &["untouched"], &environment)),
        ("data, untouched", Prepared::new(&program, &["untouched"], &data)),
        ("address space, all resident", Prepared::new(&program, &["touched"], &environment)),
        ("data, all resident", Prepared::new(&program, &["touched"], &data)),
    ];
    let mut times = interleave(ROUNDS, subjects.len(), |subject| {
        stamp.store(0, Ordering::Relaxed);
        wait_for(subjects[subject].1.start(), 198);
        let gone = monotonic_ns();
        let refused = stamp.load(Ordering::Relaxed);
        assert_ne!(refused, 0, "the program died of something else");
        (gone - refused) as f64 / 1e6
    });
    let mut names: Vec<_> = subjects.iter().map(|(name, _)| *name).collect();
    names.push("1 GiB resident, killed by SIGKILL");
    times.push((0..ROUNDS / 5).map(|_| teardown_ms(1 << 30)).collect());
    let rows: Vec<_> = names
        .iter()
        .zip(&times)
        .map(|(name, own)| {
            vec![
                (*name).to_owned(),
                format!("{:.1}", median(own)),
                format!("{:.1}", quantile(own, 0.9)),
                format!("{:.1}", quantile(own, 1.0)),
            ]
        })
        .collect();
    print_table(
        &format!("From the first refusal to the process gone, 64 threads, {ROUNDS} runs each, in ms."),
        &["what was allocated", "median", "9 of 10 within", "worst"],
        &rows,
    );
}

/// A page that the children inherit as descriptor 3.
fn shared_stamp() -> &'static AtomicU64 {
    // SAFETY: the name is a C string that outlives the call.
    let file = unsafe { libc::memfd_create(c"stamp".as_ptr(), 0) };
    assert!(file >= 0, "the kernel has memory files");
    // SAFETY: just made, and owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), 4096) }, 0);
    // SAFETY: a new shared mapping at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    if file.as_raw_fd() == 3 {
        // Stays open, for the children.
        std::mem::forget(file);
    } else {
        // SAFETY: whatever was descriptor 3 came with the benchmark's start, and is not used by it.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 3) }, 3);
    }
    // SAFETY: a page that is never unmapped, aligned, and zero, which is a valid number.
    unsafe { &*page.cast::<AtomicU64>() }
}

/// How long a child with so many resident bytes takes to be gone once it is killed, in ms.
fn teardown_ms(bytes: usize) -> f64 {
    // SAFETY: this process has one thread, so the child may do anything.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let eaten = std::hint::black_box(vec![1u8; bytes]);
        // SAFETY: takes no pointer.
        unsafe { libc::raise(libc::SIGSTOP) };
        drop(eaten);
        std::process::exit(0);
    }
    let mut status = 0;
    // SAFETY: `status` is writable during the call.
    unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) };
    let begin = monotonic_ns();
    // SAFETY: our own child, not yet waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: `status` is writable during the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    (monotonic_ns() - begin) as f64 / 1e6
}
