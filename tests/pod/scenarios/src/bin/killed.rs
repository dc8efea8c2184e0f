//! A guarded parent and two workers that die of SIGKILL, sent by the kernel and by somebody else: `killed UNGUARDED
//! WORKER`. Needs /bin/sh, and a container without group kill.

use oomguard::Limit;
use oomguard::supervisor::{EndedBy, Outcome, Running, Worker};
use pod_scenarios::container::{in_use, oom_kills, wait_until};
use pod_scenarios::task::{Fate, Task};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

oomguard::guard!();

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [unguarded, worker] = &arguments[..] else { return Err("usage: killed UNGUARDED WORKER".into()) };
    let worker = PathBuf::from(worker);

    // A worker that lives through it, so as to be killed by hand afterwards, with the counter up.
    let mut witness = holding(&worker)?;
    let mut command = Command::new(unguarded);
    command.arg("200");
    let ended = Worker::new(command).limit(Limit::Off).run_to_end()?;
    println!("the kernel: {ended}");
    let Outcome::OomKilled(kill) = &ended.outcome else { return Err(ended.to_string().into()) };
    assert_eq!((kill.counter(), kill.kills(), oom_kills()), ("memory.events", 1, 1));
    let look = witness.look().ok_or("the witness has no record")?;
    println!("the witness lives: {look:?}");

    // Its counter rose as well, but that kill has its victim already.
    by_hand(&witness)?;
    let ended = witness.wait_to_end()?;
    println!("by hand: {ended}");
    assert!(matches!(ended.outcome, Outcome::Signaled(9)) && ended.ended_by.is_none(), "{ended}");

    let mut later = holding(&worker)?;
    by_hand(&later)?;
    let ended = later.wait_to_end()?;
    println!("by hand, started later: {ended}");
    assert!(matches!(ended.outcome, Outcome::Signaled(9)) && ended.ended_by.is_none(), "{ended}");

    let mut last = holding(&worker)?;
    last.kill()?;
    let ended = last.wait_to_end()?;
    println!("by its parent: {ended}");
    assert!(matches!(ended.outcome, Outcome::Signaled(9)), "{ended}");
    assert_eq!(ended.ended_by, Some(EndedBy::Kill));
    Ok(())
}

/// A guarded worker that holds 4 MiB until it is killed: its stdin stays open.
fn holding(program: &Path) -> Result<Running, Box<dyn Error>> {
    let before = in_use();
    let running = Task { kib: 4 << 10, seed: 1, fate: Fate::Hold }.worker(program, Stdio::piped()).spawn()?;
    wait_until("the worker holds its memory", || in_use() > before + (4 << 20));
    Ok(running)
}

/// SIGKILL that the supervisor knows nothing of.
fn by_hand(victim: &Running) -> Result<(), Box<dyn Error>> {
    let status = Command::new("/bin/sh").arg("-c").arg(format!("kill -9 {}", victim.id())).status()?;
    if status.success() { Ok(()) } else { Err(format!("kill: {status}").into()) }
}
