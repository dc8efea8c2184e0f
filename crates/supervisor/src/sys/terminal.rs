//! The controlling terminal, and which process group it listens to: tcsetpgrp(3). It is opened anew each time, so that
//! nobody inherits it.

use super::fd::{Fd, open};
use libc::c_int;

fn controlling() -> Option<Fd> {
    open(c"/dev/tty", libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK)
}

/// The process group in its foreground. `None`: there is no terminal.
pub(crate) fn foreground() -> Option<u32> {
    let terminal = controlling()?;
    // SAFETY: tcgetpgrp takes a descriptor.
    u32::try_from(unsafe { libc::tcgetpgrp(terminal.number()) }).ok()
}

/// Puts a process group of this session in its foreground. From the background only while SIGTTOU is blocked.
pub(crate) fn set_foreground(group: u32) {
    let Some(terminal) = controlling() else { return };
    // SAFETY: tcsetpgrp takes numbers.
    unsafe { libc::tcsetpgrp(terminal.number(), group as c_int) };
}
