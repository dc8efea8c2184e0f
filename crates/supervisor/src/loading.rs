//! Programs that ended before there was a guard in them: the dynamic linker had no room for a library ("failed to map
//! segment from shared object", exit code 127), or the kernel none for the program itself (SIGKILL, SIGSEGV).
//!
//! The linker ends so for other reasons, too. So it is asked again: to load the program and not to run it, without the
//! limit and with it.

use super::elf::Elf;
use crate::Limit;
use crate::contract::Measure;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a program was to be loaded with.
pub(super) struct Room<'a> {
    pub(super) measure: Measure,
    pub(super) limit: u64,
    /// `LD_PRELOAD`.
    pub(super) preload: &'a OsStr,
    pub(super) succeeds: Succeeds,
}

/// Runs a command under a limit, not for longer than that: whether it came to a good end.
pub(super) type Succeeds = fn(Command, Limit, Measure, Duration) -> bool;

/// Whether a process that ended with this exit code, or a shell that passed it on, may have ended so.
pub(super) fn may_be_end_of_loading(code: Option<i32>, signal: Option<i32>) -> bool {
    matches!(code, Some(127 | 137 | 139)) || matches!(signal, Some(libc::SIGKILL | libc::SIGSEGV))
}

impl Room<'_> {
    /// Whether there is too little to load the program in that file.
    pub(super) fn is_too_little_for(&self, program: &Path) -> bool {
        let Some(linker) = linker_of(program) else { return false };
        // The linker asked so is a program itself, and what is left of a KiB differs from run to run.
        let less = self.limit.saturating_sub((self.limit / 16).max(512 << 10));
        self.loads(&linker, program, Limit::Off) && !self.loads(&linker, program, Limit::Bytes(less.max(1)))
    }

    fn loads(&self, linker: &OsStr, program: &Path, limit: Limit) -> bool {
        const PATIENCE: Duration = Duration::from_secs(5);
        let mut command = Command::new(linker);
        // ld.so(8): lists what it has loaded.
        command.arg("--list").arg(program).env("LD_PRELOAD", self.preload);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        (self.succeeds)(command, limit, self.measure, PATIENCE)
    }
}

/// The dynamic linker that the program, or a script's interpreter, asks for.
fn linker_of(program: &Path) -> Option<OsString> {
    let file = File::open(program).ok()?;
    let linker = Elf::read(&file)?.interpreter(&file)?;
    super::sys::image::is_known(&linker).then(|| OsString::from_vec(linker))
}

/// The file that a process had begun to load.
pub(super) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
