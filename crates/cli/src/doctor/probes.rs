//! What was tried rather than read: whether the ways in which a guard works are open here.

use crate::shim;
use oomguard::supervisor::{Entrance, Worker, can_infer, can_record};
use oomguard::{Limit, contract};
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub struct Probe {
    pub name: &'static str,
    /// What it is good for.
    pub purpose: &'static str,
    pub result: Result<(), String>,
    /// `run` cannot do its job without.
    pub is_needed: bool,
}

pub fn all() -> Vec<Probe> {
    vec![
        Probe {
            name: "record",
            purpose: "a guard tells its parent how memory ran out",
            result: can_record().map_err(|error| error.to_string()),
            is_needed: true,
        },
        Probe {
            name: "preload",
            purpose: "a guard for programs in any language",
            result: preload(),
            is_needed: false,
        },
        Probe {
            name: "tracing",
            purpose: "a verdict on programs that nothing can be preloaded into; no gdb or sudo there, unless --no-infer",
            result: can_infer().map_err(|error| error.to_string()),
            is_needed: false,
        },
    ]
}

/// Starts a program with the library, and looks whether it reported for duty.
fn preload() -> Result<(), String> {
    let library =
        shim::provide().map_err(|error| format!("liboomguard cannot be put into a file: {error}"))?;
    let Some(mut command) = candidates().find(|command| Entrance::of(command) == Entrance::Preload) else {
        return Err("not tried: neither this program nor /bin/sh is linked dynamically against glibc".into());
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in OURS {
        command.env_remove(name);
    }
    let ended = Worker::new(command)
        .limit(Limit::Off)
        .preload(&library)
        .run_to_end()
        .map_err(|error| format!("no program can be started: {error}"))?;
    match ended.last_look {
        Some(_) => Ok(()),
        None => Err(format!("the dynamic linker did not load {}: {}", library.display(), ended.outcome)),
    }
}

/// What the user set for others is not to spoil the probe.
const OURS: [&str; 9] = {
    use contract::variable::{
        EXIT_CODE, EXIT_ON_UNCAUGHT, INHERIT, ON_REFUSAL, REPORT, RESERVE, STALL, TOKEN, VERDICT,
    };
    [EXIT_CODE, EXIT_ON_UNCAUGHT, INHERIT, ON_REFUSAL, REPORT, RESERVE, STALL, TOKEN, VERDICT]
};

/// Programs that do nothing.
fn candidates() -> impl Iterator<Item = Command> {
    let ourselves = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    [(ourselves, &["--version"][..]), ("/bin/sh".into(), &["-c", ":"][..])].into_iter().map(
        |(program, arguments)| {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        },
    )
}
