//! The profiler with real processes: this program is profiled and is its own worker. Started with `role NAME …` it
//! plays that part, and its profile is judged from the parent's side.

mod kills;
mod roles;
mod samples;
#[path = "../../common/trials.rs"]
mod trials;
mod truth;

use libtest_mimic::Arguments;
use oomguard::supervisor::Worker;
use std::process::Command;
use trials::{add, role_to_play};

oomguard::guard!(limit = "off", profile = off, allocator = truth::Exact);

fn main() {
    if let Some(role) = role_to_play() {
        roles::play(&role);
    }
    let mut trials = Vec::new();
    samples::add_to(&mut trials);
    truth::add_to(&mut trials);
    kills::add_to(&mut trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// This program in one of its roles.
fn role(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"OOMGUARD_") {
            command.env_remove(name);
        }
    }
    command.arg("role").args(arguments);
    command
}

fn worker(arguments: &[&str], limit: &str) -> Worker {
    Worker::new(role(arguments)).limit(limit.parse().unwrap()).quiet()
}
