//! Zero would be success.

oomguard::guard!(exit_code = 0);

fn main() {}
