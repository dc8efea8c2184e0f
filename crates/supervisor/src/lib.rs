//! The parent's side: users find it as `supervisor` in the package `oomguard`, where it is described with what they do
//! with it. Nothing here knows what happens inside a guarded process but by what the two agree on, `oomguard-core`.
//!
//! | file | what it holds |
//! |---|---|
//! | `worker` | `Worker`: what to start, and how |
//! | `invocation` | `Command`, `Stdio`: what is known in all its parts can be started without a fork |
//! | `command` | what is done to the `Command`, and between fork and exec |
//! | `program` | whether a program arms itself |
//! | `entrance` | how the guard can get into a program |
//! | `elf` | the file of a program, as far as those two ask |
//! | `foreground` | `Foreground`: a process that stands in for its worker |
//! | `witness` | a second process beside that one: what was sent to all of the group, and who goes on |
//! | `starter` | the thread that starts workers which must not outlive this process |
//! | `running` | `Running`: a started worker, until its verdict |
//! | `outer` | what an outer launcher set, said to descendants and read for this process |
//! | `output` | what a worker wrote, drained while it runs |
//! | `descendants` | what a worker left behind |
//! | `kernel_kills` | whether the kernel's out-of-memory killer was at work |
//! | `inference` | whether memory was refused to a worker that says nothing itself |
//! | `joining` | how a child has itself followed |
//! | `followers` | descendants that ask to be followed |
//! | `tracer` | the process that follows such a worker |
//! | `room` | the measure `resident` for a followed process: may it have more? |
//! | `refusals` | what a followed process was refused, and whether it got over it; pure |
//! | `look` | who is over its limit without having asked, as a parent sees it |
//! | `loading` | programs that ended before there was a guard in them |
//! | `judge` | from status, record and counters to a verdict; pure |
//! | `outcome` | `Outcome`, `Ended`: the verdict as users are told it |
//! | `report` | `Report`, `LastLook`: what a guarded worker said of itself |
//! | `read_back` | a report from its line; pure |
//! | `profile` | `Profile`: which code held the memory, read from a copy of the tables |
//! | `retry` | `Retry`: the next limit; pure |
//! | `accounts` | who runs and who waits under a budget; pure |
//! | `budget` | `Budget`: how much there is to share |
//! | `surroundings` | `Surroundings`: which limits hold where this process runs |
//! | `sys` | the system calls that only this side needs |
//! | `target` | where reports go: whether that can be written |
//! | `pool` | `Pool`, `Job`: workers that wait until their limit fits |
//! | `sharing`, `shares` | `SharedBudget`, `Shares`: a budget that processes share; who holds what of it |
//! | `watch`, `charges`, `race`, `stillness` | who looks after a shared budget: what each is charged, who fills a container too fast and stands still |
//! | `fuzzing` | what the package `fuzz` calls |
#![cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![deny(unsafe_code)]

// What both sides use goes by its own name.
use oomguard_core::limit::{Limit, ParseLimitError};
use oomguard_core::{
    cgroup, contract, forms, growth, ledger, message, names, overrun, record, resolution, shortage, text,
    wait,
};

#[cfg(fuzzing)]
#[doc(hidden)]
#[path = "fuzzing.rs"]
pub mod __fuzz;
mod accounts;
mod budget;
// Unsafe code is allowed here: the table of calls, which is mapped.
#[allow(unsafe_code)]
mod calls;
mod charges;
// Unsafe code is allowed here: the closure between fork and exec.
#[allow(unsafe_code)]
mod command;
#[cfg(test)]
mod conditions;
mod deaths;
mod descendants;
mod elf;
mod entrance;
// Unsafe code is allowed here: memory that a tracer shares with this process.
#[allow(unsafe_code)]
mod findings;
mod followers;
mod foreground;
mod inference;
mod invocation;
// Unsafe code is allowed here: a forked process.
#[allow(unsafe_code)]
mod joining;
mod judge;
mod kernel_kills;
mod loading;
mod look;
mod outcome;
mod outer;
mod output;
mod pool;
mod profile;
mod program;
mod race;
mod read_back;
mod refusals;
mod report;
mod retry;
mod room;
mod running;
mod shares;
mod sharing;
mod starter;
mod stillness;
mod surroundings;
// Unsafe code is allowed here; each block says what makes it sound.
#[allow(unsafe_code)]
mod sys;
mod target;
mod terms;
mod threads;
// Unsafe code is allowed here: a forked process.
#[allow(unsafe_code)]
mod tracer;
mod troubled;
mod watch;
// Unsafe code is allowed here: a forked process.
#[allow(unsafe_code)]
mod witness;
mod worker;

pub use crate::contract::Sufficient;
pub use budget::{Budget, TooLarge};
pub use command::SetLimit;
pub use descendants::{LeftBehind, OnLeftBehind};
pub use entrance::Entrance;
pub use foreground::Foreground;
pub use inference::{InferRefusals, can_infer};
pub use invocation::{Command, Stdio};
pub use kernel_kills::OomKill;
pub use oomguard_core::sys::memory::Rlimit;
pub use outcome::{Ended, EndedBy, Outcome};
pub use pool::{Job, Pool};
pub use profile::{Lost, Method, Module, Moment, Profile, Site};
pub use read_back::ParseReportError;
pub use report::{LastLook, Profiling, Report};
pub use retry::Retry;
pub use running::Running;
pub use shares::{Dead, Share, Shares, budgets_here};
pub use sharing::{SharedBudget, patience};
pub use surroundings::{
    CgroupVersion, ControlGroup, LimitHere, Overcommit, Rlimits, Surroundings, can_record, misspelt_variables,
};
pub use watch::Shortage;
pub use worker::{OnSupervisorDeath, Worker};

/// Returns whether `OOMGUARD_REPORT` is the word of an outer launcher, which has tried whether reports can be written
/// there.
pub fn inherits_report() -> bool {
    outer::inherited_report().is_some()
}

/// Returns the targets of reports that the launchers above this process were told, the next one first, as far as this process
/// reaches them, whatever `OOMGUARD_REPORT` says. `with_next`: whether that of the next launcher is asked for, too.
pub fn reports_of_outer(with_next: bool) -> Vec<std::ffi::OsString> {
    outer::reports_of_outer(with_next)
}

/// Returns whether `OOMGUARD_LIMIT` is what an outer launcher was told on its command line.
pub fn inherits_limit() -> bool {
    outer::inherits_limit()
}

/// A size for people: `512 MiB`.
pub fn size(bytes: u64) -> String {
    let mut text = crate::text::Text::<32>::new();
    text.push_size(bytes);
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

/// Text that somebody else chose, fit for a terminal: each control character in it is a `?`. Those are what a terminal
/// obeys rather than shows: ESC and the like, DEL, and U+0080 to U+009F.
pub fn printable(text: &str) -> String {
    text.chars().map(crate::text::harmless).collect()
}

/// The bytes that a limit stands for, here and now; `None` is no limit.
fn resolve(limit: Limit, root: &str) -> Option<u64> {
    use contract::AUTO_PERCENT;
    use oomguard_core::limit::Share;
    let container = || crate::cgroup::container_limit(root);
    match limit {
        Limit::Bytes(bytes) => Some(bytes),
        Limit::Share(share) => container().or_else(sys::memory::machine_memory).map(|whole| share.of(whole)),
        Limit::Auto => container().map(|whole| Share::percent(AUTO_PERCENT).of(whole)),
        Limit::Off => None,
    }
}
