//! Which statuses are those of a program that failed by itself. Pure.

use crate::contract::CODES_OF_SIGNALS;

/// Whether a status is that of a process which failed by itself: a non-zero exit code, or a signal that a program's own
/// fault or abort raises. Who is ended by SIGTERM or SIGKILL was ended by somebody.
pub(super) fn is_death(status: i32) -> bool {
    if libc::WIFEXITED(status) {
        let code = u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX);
        return code != 0 && !CODES_OF_SIGNALS.contains(&code);
    }
    matches!(
        libc::WTERMSIG(status),
        libc::SIGABRT
            | libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGFPE
            | libc::SIGSYS
    )
}

/// The same, or an end by the signal that some libraries send their own process instead: whether it did is seen by who
/// follows it.
pub(super) fn may_be_death(status: i32) -> bool {
    is_death(status) || libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGINT
}
