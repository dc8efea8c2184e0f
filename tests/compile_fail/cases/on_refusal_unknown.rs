//! A refusal is deferred or immediate.

oomguard::guard!(on_refusal = panic);

fn main() {}
