//! A measure is a word, not text.

oomguard::guard!(measure = "data");

fn main() {}
