//! A reserve with an unknown unit.

oomguard::guard!(reserve = "8 MB");

fn main() {}
