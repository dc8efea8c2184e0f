//! `ChildLimit`: what a guarded program starts without a supervisor gets back what the guard took.

use super::interface::ChildLimit;
use oomguard_core::contract::Measure;
use oomguard_core::sys::memory::{Rlimit, replaced_soft_limit, rlimit, set_rlimit};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

impl ChildLimit for Command {
    fn limit_before_guard(&mut self) -> &mut Command {
        // SAFETY: it has captured nothing, reads atomics and makes system calls: all async-signal-safe.
        unsafe { self.pre_exec(give_back) }
    }
}

/// Runs in the child, between fork and exec. Async-signal-safe.
fn give_back() -> io::Result<()> {
    for measure in [Measure::AddressSpace, Measure::Data] {
        let Some(before) = replaced_soft_limit(measure) else { continue };
        let now = rlimit(measure.into());
        let soft = match (before, now.hard) {
            (Some(before), Some(hard)) => Some(before.min(hard)),
            (before, hard) => before.or(hard),
        };
        if !set_rlimit(measure.into(), Rlimit { soft, ..now }) {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
