//! The supervisor with real processes. This program is guarded and is its own worker: started with `role NAME …` it
//! plays that part, and everything is judged from the parent's side.

mod kernel;
mod life_and_death;
mod many;
#[path = "../common/memory_group.rs"]
mod memory_group;
mod outcomes;
mod pools;
mod roles;
mod setup;
mod sharers;
#[path = "../common/skip.rs"]
mod skip;
mod starts;
#[path = "../common/trials.rs"]
mod trials;

use libtest_mimic::Arguments;
use std::process::Command;
use std::time::{Duration, Instant};
use trials::{add, role_to_play};

// Only a worker is to have a limit; the parent's own would come from whatever container this runs in.
oomguard::guard!(limit = "off");

fn main() {
    if let Some(role) = role_to_play() {
        roles::play(&role);
    }
    let mut trials = Vec::new();
    outcomes::add_to(&mut trials);
    setup::add_to(&mut trials);
    starts::add_to(&mut trials);
    life_and_death::add_to(&mut trials);
    pools::add_to(&mut trials);
    kernel::add_to(&mut trials);
    many::add_to(&mut trials);
    sharers::add_to(&mut trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// This program in one of its roles.
fn role(arguments: &[&str]) -> Command {
    // Nothing that whoever runs the tests may have set.
    for name in
        ["LIMIT", "MEASURE", "EXIT_CODE", "ON_REFUSAL", "RESERVE", "REPORT", "TOKEN", "QUIET", "PROFILE"]
    {
        assert!(std::env::var_os(format!("OOMGUARD_{name}")).is_none(), "OOMGUARD_{name} is set");
    }
    unchecked_role(arguments)
}

fn unchecked_role(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("role").args(arguments);
    command
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    command
}

fn limit(text: &str) -> oomguard::Limit {
    text.parse().unwrap()
}

/// Waits for a condition, and not for ever.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The state letter of a process, as proc_pid_stat(5) has it; `None` if there is none of that number.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may be any bytes.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_end + 2).map(|state| char::from(*state))
}

fn is_gone(pid: u32) -> bool {
    // An orphan's zombie is its reaper's affair, not ours.
    matches!(state_of(pid), None | Some('Z' | 'X'))
}
