//! A guarded parent that names no size at all: `automatic WORKER`. Its own limit, its workers' and the budget come from
//! the container.

use oomguard::supervisor::{Budget, Outcome, Pool};
use oomguard::{Limit, LimitSource};
use pod_scenarios::task::{Fate, Task};
use std::error::Error;
use std::path::PathBuf;
use std::process::Stdio;

oomguard::guard!();

fn main() -> Result<(), Box<dyn Error>> {
    let program = PathBuf::from(std::env::args().nth(1).ok_or("usage: automatic WORKER")?);
    let leak = Task { kib: 0, seed: 1, fate: Fate::Leak };

    // Nothing set: the worker's own guard looks the container up.
    let alone = leak.worker(&program, Stdio::null()).run()?;
    let Outcome::OutOfMemory(report) = &alone else { return Err(alone.to_string().into()) };
    assert_eq!(report.limit_source(), Some(LimitSource::Cgroup));
    println!("without a limit: {alone}");

    // The parent looks it up; a tenth is kept, so one such worker at a time fits.
    let pool = Pool::new(Budget::container()?.keep(Limit::Auto));
    let leaking = pool.submit(leak.worker(&program, Stdio::null()).limit(Limit::Auto))?;
    let task = Task::answer(60, 2);
    let working = pool.submit(task.worker(&program, Stdio::null()).limit(Limit::Auto))?;
    assert_eq!((pool.running(), pool.waiting()), (1, 1));
    let outcome = leaking.wait()?;
    assert!(matches!(outcome, Outcome::OutOfMemory(_)), "{outcome}");
    println!("auto, in a pool: {outcome}");
    let ended = working.wait_to_end()?;
    assert!(ended.outcome.is_success(), "{ended}");
    assert_eq!(String::from_utf8(ended.stdout)?, task.expected());

    println!("the parent lives and finishes its own work");
    pod_scenarios::work(20);
    Ok(())
}
