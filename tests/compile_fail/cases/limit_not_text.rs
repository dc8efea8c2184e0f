//! A limit is text, so that it has a unit.

oomguard::guard!(limit = 512);

fn main() {}
