//! A negative code would be seen as another one.

oomguard::guard!(exit_code = -225);

fn main() {}
