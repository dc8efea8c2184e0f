//! What the programs share: the work of `hungry`, and checked tasks for supervised workers.

pub mod container;
pub mod random;
pub mod task;
pub mod tree;

/// Fills so many MiB, 100 kB at a time, and prints the sum of what it wrote.
pub fn work(mib: u64) {
    let wanted = (mib << 20) as usize;
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    while bytes < wanted {
        let block = vec![1u8; 100_000.min(wanted - bytes)];
        bytes += block.len();
        held.push(block);
    }
    let sum: u64 = held.iter().flatten().map(|byte| u64::from(*byte)).sum();
    println!("sum {sum}");
}

/// The worker's argument.
pub fn mib_wanted() -> u64 {
    let argument = std::env::args().nth(1).unwrap_or_default();
    argument.parse().unwrap_or_else(|_| panic!("usage: hungry MIB, not {argument:?}"))
}
