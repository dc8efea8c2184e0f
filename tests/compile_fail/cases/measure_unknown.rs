//! There are two measures.

oomguard::guard!(measure = resident);

fn main() {}
