//! Keys are separated by commas.

oomguard::guard!(limit = "1Gi" measure = data);

fn main() {}
