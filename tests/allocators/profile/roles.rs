//! What this program does as a worker.

use std::hint::black_box;
use std::io::{Read, Write};
use std::mem;

pub fn play(arguments: &[String]) -> ! {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["hoard"] => hoard(),
        ["hoard-and-wait"] => {
            hold(64 << 20);
            println!("ready");
            let _ = std::io::stdin().read(&mut [0]);
        }
        ["churn", threads] => crate::kills::churn(threads.parse().unwrap()),
        ["hand-over"] => hand_over(),
        ["fork"] => fork(),
        ["short-threads"] => short_threads(),
        ["refuse"] => refuse(),
        ["program", name] => crate::truth::play(name),
        _ => std::process::exit(77),
    }
    std::process::exit(0);
}

/// Eats until there is no more; three parts in four of it here, one part there.
fn hoard() {
    loop {
        three_parts();
        one_part();
    }
}

#[inline(never)]
fn three_parts() {
    for _ in 0..3 {
        keep(32 << 10);
    }
    black_box(());
}

#[inline(never)]
fn one_part() {
    keep(32 << 10);
    black_box(());
}

#[inline(always)]
fn keep(bytes: usize) {
    mem::forget(black_box(vec![1u8; black_box(bytes)]));
}

#[inline(never)]
fn hold(bytes: usize) {
    for _ in 0..bytes / 4096 {
        keep(4096);
    }
    black_box(());
}

/// Allocated by one thread, released by another: nothing is left but the last hold.
fn hand_over() {
    let (send, receive) = std::sync::mpsc::sync_channel::<Vec<u8>>(64);
    let other = std::thread::spawn(move || receive.iter().map(|block| black_box(block).len()).sum::<usize>());
    for _ in 0..100_000 {
        send.send(vec![1u8; black_box(1000)]).unwrap();
    }
    drop(send);
    assert_eq!(other.join().unwrap(), 100_000_000);
    hold(16 << 20);
}

/// Each allocates less than a thread tells at once, leaves it to others, and ends.
fn short_threads() {
    for _ in 0..1024 {
        std::thread::spawn(|| keep(16 << 10)).join().unwrap();
    }
}

/// A child allocates and releases what its parent had; the parent's profile is the parent's.
fn fork() {
    let blocks: Vec<Vec<u8>> = (0..16384).map(|_| vec![1u8; black_box(4096)]).collect();
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(black_box(blocks));
        hold(256 << 20);
        // SAFETY: ends the child without running anything else.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable during the call.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    print!("{}", black_box(&blocks).len());
    std::io::stdout().flush().unwrap();
    mem::forget(blocks);
}

#[inline(never)]
fn refuse() {
    let mut block = Vec::<u8>::new();
    assert!(block.try_reserve(black_box(1 << 50)).is_err());
}
