//! A guarded parent with four workers at once under the container's budget: `coordinator WORKER`. Three of them want
//! more than their first limit.

use oomguard::Measure;
use oomguard::supervisor::{Budget, Outcome, Pool, Retry};
use pod_scenarios::container;
use pod_scenarios::task::Task;
use std::error::Error;
use std::path::PathBuf;
use std::sync::mpsc;

oomguard::guard!();

const MIB_WANTED: [u64; 4] = [16, 40, 40, 60];

fn main() -> Result<(), Box<dyn Error>> {
    let program = PathBuf::from(std::env::args().nth(1).ok_or("usage: coordinator WORKER")?);
    println!("cgroup mount read-only: {}", container::is_read_only());
    let budget = Budget::container()?.keep("16Mi".parse()?);
    println!("budget {}", budget.bytes());
    let pool = Pool::new(budget);

    // No worker begins before all four are there.
    let (gate, gatekeeper) = std::io::pipe()?;
    let (again, tries) = mpsc::channel();
    let mut jobs = Vec::new();
    for (mib, seed) in MIB_WANTED.into_iter().zip(1..) {
        let task = Task::answer(mib, seed);
        let again = again.clone();
        let retry = Retry::grow(2.0).between(move |ended| {
            let _ = again.send((mib, ended.clone()));
        });
        let worker = task.worker(&program, gate.try_clone()?);
        let worker = worker.limit("24Mi".parse()?).measure(Measure::Data).retry(retry);
        jobs.push((task, pool.submit(worker)?));
    }
    assert_eq!((pool.running(), pool.in_use()), (4, 96 << 20));
    println!("four run at once");
    drop((gate, gatekeeper, again));

    for (task, job) in jobs {
        let ended = job.wait_to_end()?;
        println!("{} MiB: {ended}", task.kib >> 10);
        assert!(ended.outcome.is_success(), "{ended}");
        assert_eq!(String::from_utf8(ended.stdout)?, task.expected());
    }
    for (mib, ended) in tries {
        let Outcome::OutOfMemory(report) = &ended.outcome else { return Err(ended.to_string().into()) };
        assert_eq!((report.limit(), report.measure()), (ended.limit, Measure::Data));
        println!("again: {mib} MiB: {ended}");
    }
    println!("all answers are right");
    Ok(())
}
