//! A key that does not exist.

oomguard::guard!(limits = "512MiB");

fn main() {}
