//! How much of a limit of 1 GiB can a program fill until its first refusal?
//!
//! Threads with 2 MiB stacks allocate blocks of 64 B to 64 KiB (log-uniform), touch and keep them, until the allocator
//! returns null to any of them. The share is what they asked for, divided by the limit. Each cell is the median of
//! several processes, each with another seed; the variants take turns.
//!
//! Not one program for all allocators: linking another one takes about one per cent of the limit.

// The benchmark's own allocations go through the allocator's raw interface, to see the null.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const LIMIT: &str = "1Gi";
const LIMIT_BYTES: f64 = (1u64 << 30) as f64;
const ROLE: &str = "USABLE_SHARE_ROLE";

/// One row of the table: a name, and what is set in the environment for it.
pub struct Variant {
    pub name: &'static str,
    pub environment: &'static [(&'static str, &'static str)],
}

/// In the parent: runs everything and prints the table. In a child: fills its memory and prints the share.
pub fn main(variants: &[Variant], threads: &[usize]) {
    if let Ok(role) = std::env::var(ROLE) {
        let (threads, seed) = role.split_once(' ').unwrap();
        println!("{}", fill(threads.parse().unwrap(), seed.parse().unwrap()) as f64 / LIMIT_BYTES);
        return;
    }
    // `cargo bench -- 9` runs nine rounds; cargo adds `--bench`.
    let rounds: u64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let mut shares = vec![vec![Vec::new(); threads.len()]; variants.len()];
    for round in 0..rounds {
        for (column, threads) in threads.iter().enumerate() {
            for (row, variant) in variants.iter().enumerate() {
                shares[row][column].extend(share(variant, *threads, round));
            }
        }
    }
    print!("| of 1 GiB until the first refusal, median of {rounds} [least] |");
    threads.iter().for_each(|threads| print!(" {threads} |"));
    println!("\n|---|{}", "---|".repeat(threads.len()));
    for (variant, row) in variants.iter().zip(&mut shares) {
        print!("| {} |", variant.name);
        for cell in row {
            cell.sort_by(f64::total_cmp);
            match cell[..] {
                [] => print!(" – |"),
                _ => print!(" {:.3} [{:.3}] |", cell[cell.len() / 2], cell[0]),
            }
        }
        println!();
    }
}

/// The share that one process reached; none if it could not even start its threads.
fn share(variant: &Variant, threads: usize, seed: u64) -> Option<f64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, format!("{threads} {seed}"))
        .env("OOMGUARD_LIMIT", LIMIT)
        .envs(variant.environment.iter().copied())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().ok()
}

static STARTED: AtomicUsize = AtomicUsize::new(0);
static GO: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicBool = AtomicBool::new(false);

/// The bytes that were live when the first allocation was refused.
fn fill(threads: usize, seed: u64) -> usize {
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let seed = (seed * 1000 + index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            std::thread::Builder::new().stack_size(2 << 20).spawn(move || fill_alone(seed)).unwrap()
        })
        .collect();
    // The start of a thread must not meet the limit.
    while STARTED.load(Ordering::SeqCst) < threads {
        std::thread::sleep(Duration::from_millis(1));
    }
    GO.store(true, Ordering::SeqCst);
    workers.into_iter().map(|worker| worker.join().unwrap()).sum()
}

fn fill_alone(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    STARTED.fetch_add(1, Ordering::SeqCst);
    while !GO.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let mut live = 0;
    while !REFUSED.load(Ordering::Relaxed) {
        let bytes = (64.0 * 1024f64.powf(random.f64())) as usize;
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            REFUSED.store(true, Ordering::Relaxed);
            break;
        }
        // SAFETY: the block has at least 64 bytes.
        unsafe { block.write_volatile(1) };
        live += bytes;
    }
    live
}
