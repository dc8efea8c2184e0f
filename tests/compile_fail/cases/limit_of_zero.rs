//! No program runs under a limit of zero.

oomguard::guard!(limit = "0");

fn main() {}
