//! A limit that is no number.

oomguard::guard!(limit = "512 megabytes");

fn main() {}
