//! A library with a guard, and what its host in C may ask of it.

use std::hint::black_box;

oomguard::guard!();

/// The limit that holds; 0 where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn guarded_limit() -> u64 {
    oomguard::status().limit.unwrap_or(0)
}

/// Needs so many bytes in small blocks, and gives them back.
#[unsafe(no_mangle)]
pub extern "C" fn guarded_hoard(bytes: u64) {
    let mut blocks = Vec::new();
    for _ in 0..bytes / 1000 {
        blocks.push(black_box(vec![1u8; 1000]));
    }
}

/// Whether a request that nobody can meet comes back as an error.
#[unsafe(no_mangle)]
pub extern "C" fn guarded_recovers() -> bool {
    Vec::<u8>::new().try_reserve(black_box(1 << 50)).is_err()
}
