//! How many instructions does the guard add to an alloc and its free? (Aim: at most 4.) And to a line on stderr, which it
//! looks at once something was refused? (Aim: 1.02 times before, 1.05 after.)
//!
//! Counted by valgrind's callgrind, which must be installed: each program runs with N and with 2N pairs, and the
//! difference divided by N is the price of one. So start-up does not count, and noise there is none.
//!
//! Three ways to the allocator: its methods called on a static; as the `#[global_allocator]` from the crate that
//! defines it, where the compiler inlines it; and as the `#[global_allocator]` from code compiled before, such as the
//! standard library's, which calls it by its symbol.

use benches::{print_table, programs};
use oomguard::Guard;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

static BARE: System = System;
static GUARDED: Guard<System> = Guard::new(System);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, who, what, times, ..] = arguments.as_slice()
        && let Ok(times) = times.parse()
    {
        return match who.as_str() {
            "bare" => work(&BARE, what, times),
            _ => work(&GUARDED, what, times),
        };
    }
    let own = std::env::current_exe().expect("a program knows where it is");
    let [bare, guarded] = programs::build(["bench_pairs_bare", "bench_pairs_guarded"]);
    let methods = |what: &'static str| [(&own, vec!["bare", what]), (&own, vec!["guarded", what])];
    let global = |what: &'static str| [(&bare, vec![what]), (&guarded, vec![what])];
    let rows: Vec<_> = [
        ("64 B, methods", methods("pairs"), 2000, 1),
        ("realloc by doubling, methods, per call", methods("growth"), 200, 11),
        ("64 B, global, inlined", global("box"), 2000, 1),
        ("16–1024 B in batches of 1024, global, inlined", global("batch"), 16, 1024),
        ("64 B, global, by symbol", global("std"), 2000, 1),
        ("realloc by doubling, global, by symbol, per call", global("vec"), 200, 11),
        ("a line on stderr", global("line"), 1000, 1),
        ("a line on stderr, straight after a refusal that was survived", global("line-heard"), 15, 1),
        ("a line on stderr, 32 lines after a refusal that was survived", global("line-later"), 1000, 1),
    ]
    .into_iter()
    .map(|(name, [(bare, bare_arguments), (guarded, guarded_arguments)], times, calls)| {
        let bare = per_time(bare, &bare_arguments, times) / f64::from(calls);
        let guarded = per_time(guarded, &guarded_arguments, times) / f64::from(calls);
        vec![
            name.to_owned(),
            format!("{bare:.1}"),
            format!("{:+.1}", guarded - bare),
            format!("{:.3}", guarded / bare),
        ]
    })
    .collect();
    print_table(
        "Instructions per pair of alloc and free, or line (`System`, then what the guard adds).",
        &["work", "`System`", "`Guard<System>`", "ratio"],
        &rows,
    );
}

/// Instructions for one time of the work.
fn per_time(program: &Path, arguments: &[&str], times: u32) -> f64 {
    let count = |times: u32| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args(arguments)
            .arg(times.to_string())
            .arg("1")
            .output()
            .expect("valgrind is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1));
        let number = collected.and_then(|number| number.trim().parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("callgrind counted nothing:\n{said}")) as f64
    };
    (count(2 * times) - count(times)) / f64::from(times)
}

#[inline(never)]
fn work<A: GlobalAlloc>(allocator: &A, what: &str, times: u32) {
    match what {
        "pairs" => pairs(allocator, times),
        _ => growth(allocator, times),
    }
}

#[inline(never)]
fn pairs<A: GlobalAlloc>(allocator: &A, times: u32) {
    for _ in 0..times {
        let layout = black_box(Layout::new::<[u64; 8]>());
        // SAFETY: the layout is not empty.
        let block = black_box(unsafe { allocator.alloc(layout) });
        // SAFETY: allocated on the line above, with this layout.
        unsafe { allocator.dealloc(block, layout) };
    }
}

/// From 64 B to 64 KiB: one alloc, ten reallocs, one free.
#[inline(never)]
fn growth<A: GlobalAlloc>(allocator: &A, times: u32) {
    for _ in 0..times {
        let mut layout = black_box(Layout::new::<[u64; 8]>());
        // SAFETY: the layout is not empty.
        let mut block = unsafe { allocator.alloc(layout) };
        while layout.size() < 64 << 10 {
            let bytes = layout.size() * 2;
            // SAFETY: allocated with this layout; the new size is neither zero nor too large.
            block = black_box(unsafe { allocator.realloc(block, layout, bytes) });
            layout = Layout::from_size_align(bytes, layout.align()).expect("at most 64 KiB");
        }
        // SAFETY: allocated with this layout.
        unsafe { allocator.dealloc(block, layout) };
    }
}
