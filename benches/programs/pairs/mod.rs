//! What both programs do: the work that the first argument names, as often as the second one says, on as many
//! threads as the third one says. Prints the nanoseconds that it took.

use std::hint::black_box;
use std::time::Instant;

pub fn run_as_told() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, times, threads] = arguments.as_slice() else { panic!("usage: WHAT N THREADS") };
    let work: fn(u64) = match what.as_str() {
        "box" => boxes,
        "std" => strings_made_by_std,
        "vec" => growing_vectors,
        "batch" => batches,
        "line" => lines,
        "line-heard" => lines_at_once_after_a_refusal,
        "line-later" => lines_after_a_refusal,
        other => panic!("no such work: {other}"),
    };
    let times: u64 = times.parse().expect("a number of times");
    let threads: usize = threads.parse().expect("a number of threads");
    let begin = Instant::now();
    if threads == 1 {
        work(times);
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| work(times));
            }
        });
    }
    println!("{}", begin.elapsed().as_nanos());
}

/// One block of 64 bytes, allocated and freed: the allocator is inlined into this crate.
#[inline(never)]
fn boxes(times: u64) {
    for _ in 0..times {
        drop(black_box(Box::<[u64; 8]>::new_uninit()));
    }
}

/// One block of 64 bytes, allocated in code that was compiled before the program: the allocator is called by its
/// symbol, as it is from other crates unless there is link-time optimization.
#[inline(never)]
fn strings_made_by_std(times: u64) {
    let text = "A text of exactly sixty-four bytes, which the program lowers 64.";
    assert_eq!(text.len(), 64);
    for _ in 0..times {
        drop(black_box(black_box(text).to_lowercase()));
    }
}

/// A vector that grows from 64 B to 64 KiB by doubling.
#[inline(never)]
fn growing_vectors(times: u64) {
    for _ in 0..times {
        let mut bytes: Vec<u8> = Vec::with_capacity(64);
        while bytes.capacity() < 64 << 10 {
            let doubled = bytes.capacity() * 2;
            bytes.reserve_exact(doubled);
            black_box(&mut bytes);
        }
    }
}

/// 1024 blocks of 16 to 1024 bytes, then all freed.
#[inline(never)]
fn batches(times: u64) {
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(1024);
    for _ in 0..times {
        for index in 0..1024usize {
            blocks.push(black_box(Vec::with_capacity(16 + index * 619 % 1009)));
        }
        blocks.clear();
    }
}

/// A line on stderr.
#[inline(never)]
fn lines(times: u64) {
    for row in 0..times {
        eprintln!("row {}", row % 10);
    }
}

/// The same straight after memory was refused: as many as are listened to, at most.
#[inline(never)]
fn lines_at_once_after_a_refusal(times: u64) {
    let refused = Vec::<u8>::new().try_reserve(black_box(1 << 40));
    assert!(refused.is_err());
    lines(times);
}

/// The same in a program that was refused memory, and has got over it.
#[inline(never)]
fn lines_after_a_refusal(times: u64) {
    let refused = Vec::<u8>::new().try_reserve(black_box(1 << 40));
    assert!(refused.is_err());
    for _ in 0..64 {
        drop(black_box(vec![1u8; black_box(1 << 20)]));
    }
    // More than is listened to.
    lines(40);
    lines(times);
}
