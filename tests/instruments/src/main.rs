//! Ends as its argument says, under what `run` beside it puts it: a debugger of memory, a sanitizer, a filter, a lock.

mod filter;

use std::hint::black_box;
use std::process::{abort, exit};

oomguard::guard!(limit = "off");

/// More than any machine has, and less than what a sanitizer takes for a mistake.
const TOO_MUCH: usize = 1 << 36;

fn main() {
    let way = std::env::args().nth(1).unwrap_or_default();
    match way.as_str() {
        // Refused in every way that is survived, in two threads, and said so.
        "survive" => survive(),
        // The same under a filter that knows what std does, and one thing of ours.
        "survive-filtered" => {
            filter::permit(filter::OF_STD, filter::OF_SURVIVING);
            survive();
        }
        "hoard" => hoard(),
        "hoard-filtered" => {
            filter::permit(filter::OF_STD, filter::OF_THE_END);
            hoard();
        }
        "panic" => panic!("of its own"),
        "panic-after-all" => {
            survive();
            panic!("of its own");
        }
        "abort" => abort(),
        // For an ordinary user: all that is there is locked, and a thread's stack with it.
        "locked" => {
            // SAFETY: takes no pointer.
            let locked = unsafe { libc::mlockall(libc::MCL_CURRENT) };
            println!("{locked}");
        }
        other => {
            eprintln!("no such way: {other}");
            exit(77);
        }
    }
}

fn survive() {
    refused();
    std::thread::spawn(refused).join().expect("it survives");
    std::thread::spawn(|| {
        refused();
        let caught = std::panic::catch_unwind(|| panic!("on purpose"));
        assert!(caught.is_err());
    })
    .join()
    .expect("it survives");
    eprintln!("a line on stderr");
    println!("survived");
}

fn refused() {
    limit(Some(512 << 20));
    assert!(Vec::<u8>::new().try_reserve_exact(black_box(TOO_MUCH)).is_err());
    eprintln!("refused");
    // SAFETY: null, or a block that is not used.
    let block = unsafe { libc::malloc(black_box(TOO_MUCH)) };
    eprintln!("{}", if block.is_null() { "refused" } else { "not refused" });
    limit(None);
    let survivor = black_box(vec![7u8; 100_000]);
    assert_eq!(survivor.len(), 100_000);
}

/// A sanitizer's shadow and valgrind's own memory count too: a limit that only what is too much meets.
fn limit(more_bytes: Option<u64>) {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writable during the call.
    unsafe { libc::getrlimit(libc::RLIMIT_DATA, &raw mut now) };
    now.rlim_cur = more_bytes.map_or(now.rlim_max, |more| more.saturating_add(data_in_use()));
    // SAFETY: readable during the call.
    unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const now) };
}

fn data_in_use() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmData:")?.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0u64) << 10
}

fn hoard() {
    limit(Some(64 << 20));
    let mut blocks = Vec::new();
    loop {
        blocks.push(black_box(vec![1u8; 100_000]));
    }
}
