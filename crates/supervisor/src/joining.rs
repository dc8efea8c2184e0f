//! How a child has itself followed by a tracer, between fork and exec.

use super::sys;
use std::io;
use std::os::fd::RawFd;

/// What the child needs for it.
#[derive(Clone, Copy)]
pub(super) struct Joining {
    pub(super) socket: RawFd,
    pub(super) result: RawFd,
    pub(super) tracer: u32,
}

/// What the child says came of it: the step that failed and its error number, or zeros.
pub(super) type JoinResult = [u8; 2];

pub(super) const JOINED: JoinResult = [0; 2];

/// In the child: has it followed, and says what came of that; whether it is. Async-signal-safe.
pub(super) fn join(joining: Joining) -> bool {
    let result = match sys::join::join(joining.socket, joining.tracer) {
        Ok(()) => JOINED,
        Err((step, error)) => [step as u8, error as u8],
    };
    sys::fd::write_patiently(joining.result, &result, 0);
    result == JOINED
}

/// Starts a process that joins, and ends.
pub(super) fn start_trial(joining: Joining) -> io::Result<u32> {
    // SAFETY: `join` is async-signal-safe.
    unsafe { sys::trace::start_unseen(|| _ = join(joining)) }.map_err(io::Error::from_raw_os_error)
}
