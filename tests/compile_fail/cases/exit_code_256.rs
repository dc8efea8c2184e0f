//! An exit code has eight bits.

oomguard::guard!(exit_code = 256);

fn main() {}
