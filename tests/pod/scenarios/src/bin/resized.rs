//! A guarded parent whose container becomes smaller while two workers hold memory: `resized WORKER`. The container is
//! to go from 128 to 96 MiB some seconds after the start.

use oomguard::Measure;
use oomguard::supervisor::{Budget, Job, Pool, TooLarge, Worker};
use pod_scenarios::container::{self, wait_until};
use pod_scenarios::task::{Fate, Task};
use std::error::Error;
use std::path::PathBuf;
use std::process::Stdio;

oomguard::guard!();

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let program = PathBuf::from(std::env::args().nth(1).ok_or("usage: resized WORKER")?);
    let budget = Budget::container()?.keep("16Mi".parse()?);
    assert_eq!(budget.bytes(), 112 * MIB, "the container was resized too early");
    let pool = Pool::new(budget);
    let with_limit = |worker: Worker, limit: &str| -> Result<Worker, Box<dyn Error>> {
        Ok(worker.limit(limit.parse()?).measure(Measure::Data))
    };

    let mut holding = Vec::new();
    for seed in [1, 2] {
        let task = Task { kib: 30 << 10, seed, fate: Fate::Hold };
        let (gate, gatekeeper) = std::io::pipe()?;
        let job = pool.submit(with_limit(task.worker(&program, gate), "40Mi")?)?;
        holding.push((task, job, gatekeeper));
    }
    let too_large_later = with_limit(Task::answer(1, 3).worker(&program, Stdio::null()), "100Mi")?;
    let too_large_later = pool.submit(too_large_later)?;
    assert_eq!((pool.running(), pool.waiting()), (2, 1));
    wait_until("both workers hold their memory", || container::in_use() > 60 * MIB);
    let before = Budget::container()?.bytes();
    assert_eq!(before, 128 * MIB, "the container was resized too early");
    println!("two workers hold {} MiB before", container::in_use() / MIB);

    wait_until("who waits for more than there is now is refused", || too_large_later.is_done());
    let refused = too_large_later.wait().err().ok_or("a worker of 100 MiB was started in 80")?;
    let refused = refused.get_ref().and_then(|error| error.downcast_ref::<TooLarge>()).copied();
    assert_eq!(refused, Some(TooLarge { asked: 100 * MIB, budget: 80 * MIB }));
    println!("refused: {}", refused.ok_or("no reason")?);

    // 80 and 28 would have fitted into 112.
    let late_task = Task::answer(20, 4);
    let late = pool.submit(with_limit(late_task.worker(&program, Stdio::null()), "28Mi")?)?;
    assert_eq!((pool.running(), pool.waiting(), pool.in_use()), (2, 1, 80 * MIB));
    println!("the budget is full: two run, one waits");

    let mut holding = holding.into_iter();
    let (task, job, gatekeeper) = holding.next().ok_or("no first worker")?;
    drop(gatekeeper);
    check(task, job)?;
    check(late_task, late)?;
    println!("one has ended, the late one has run");
    for (task, job, gatekeeper) in holding {
        drop(gatekeeper);
        check(task, job)?;
    }
    println!("all answers are right");
    Ok(())
}

fn check(task: Task, job: Job) -> Result<(), Box<dyn Error>> {
    let ended = job.wait_to_end()?;
    assert!(ended.outcome.is_success(), "{ended}");
    assert_eq!(String::from_utf8(ended.stdout)?, task.expected());
    Ok(())
}
