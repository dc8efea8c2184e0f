//! Whether a filter for system calls, seccomp(2), is in the way: it may kill the process for a call that the program does not
//! make itself.

use super::library;
use oomguard_core::sys;

/// Whether files may be opened here: a filter of the program's own may kill it for that.
pub fn may_ask() -> bool {
    match library::in_charge() {
        Some(library) => !(library.has_filter)(),
        None => !sys::process::is_filtered(),
    }
}

/// Whether the program has set a filter for its own calls, as far as that was seen.
pub(super) fn is_the_programs() -> bool {
    library::in_charge().is_some_and(|library| (library.has_filter)())
}
