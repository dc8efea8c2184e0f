//! A reserve is a size, not a share.

oomguard::guard!(reserve = "5%");

fn main() {}
