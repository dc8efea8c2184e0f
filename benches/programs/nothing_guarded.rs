//! A program that does nothing, guarded.

oomguard::guard!();

fn main() {}
