//! Ends as its argument says: what `run` beside it tries on each target.

use std::hint::black_box;
use std::io::Read;

oomguard::guard!(profile = on);

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("hoard") => {
            let mut blocks = Vec::new();
            loop {
                blocks.push(black_box(vec![1u8; 100_000]));
            }
        }
        Some("recover") => {
            let mut block = Vec::<u8>::new();
            assert!(block.try_reserve(black_box(1 << 50)).is_err());
        }
        Some("read") => {
            let mut text = Vec::new();
            std::fs::File::open("/dev/zero").unwrap().take(1 << 40).read_to_end(&mut text).unwrap();
        }
        Some("threads") => loop {
            std::thread::spawn(std::thread::park);
        },
        Some("panic") => panic!("of its own"),
        Some("abort") => std::process::abort(),
        other => panic!("no such end: {other:?}"),
    }
}
