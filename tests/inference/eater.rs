//! What eater.c does, in Rust without a guard.
use std::hint::black_box;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("checked") => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                all.push(black_box(vec![1; 1 << 20]));
            }
        }
        Some("grow") => {
            let mut all: Vec<u8> = Vec::new();
            loop {
                all.extend_from_slice(&[1; 4096]);
            }
        }
        Some("cope") => assert!(black_box(Vec::<u8>::new()).try_reserve(black_box(1 << 40)).is_err()),
        Some("fail") => std::process::exit(3),
        _ => std::process::exit(99),
    }
}
