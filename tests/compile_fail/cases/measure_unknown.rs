//! There are three measures.

oomguard::guard!(measure = cpu_time);

fn main() {}
