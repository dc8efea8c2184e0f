//! One program has one guard.

oomguard::guard!(limit = "1Gi"); oomguard::guard!(limit = "2Gi");

fn main() {}
