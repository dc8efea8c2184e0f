//! A key that is given twice.

oomguard::guard!(limit = "1Gi", measure = data, limit = "2Gi");

fn main() {}
