//! A sampling distance that is no size.

oomguard::guard!(profile = "now and then");

fn main() {}
