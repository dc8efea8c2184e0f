//! Random trials under the container's budget: `trials WORKER SEED COUNT`. Each starts one to four workers with random
//! sizes, first limits and fates, and compares every verdict and answer with what must have happened.

use oomguard::supervisor::{Budget, Ended, Outcome, Pool, Retry, Worker};
use oomguard::{Limit, Measure};
use pod_scenarios::container::oom_kills;
use pod_scenarios::random::Random;
use pod_scenarios::task::{Fate, Task};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Stdio;

oomguard::guard!();

const KIB: u64 = 1 << 10;
/// What a worker needs besides its task, at most: between this and nothing, both verdicts are right.
const BESIDES: u64 = 2 << 20;

struct Trial {
    task: Task,
    first_limit: u64,
    /// The largest limit to try with; `None` for a single try.
    ceiling: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [worker, seed, count] = &arguments[..] else { return Err("usage: trials WORKER SEED COUNT".into()) };
    let program = PathBuf::from(worker);
    let (seed, count): (u64, u64) = (seed.parse()?, count.parse()?);
    let pool = Pool::new(Budget::container()?.keep("16Mi".parse()?));
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut wrong, mut retried, mut waited) = (0, 0, 0);
    for number in 0..count {
        let mut random = Random::new(seed.wrapping_add(number << 32));
        let mut jobs = Vec::new();
        for _ in 0..random.within(1, 4) {
            let trial = Trial::draw(&mut random);
            let job = pool.submit(trial.worker(&program))?;
            waited += u64::from(pool.waiting() > 0);
            jobs.push((trial, job));
        }
        for (trial, job) in jobs {
            let ended = job.wait_to_end()?;
            *seen.entry(name(&ended.outcome)).or_default() += 1;
            retried += u64::from(ended.tries > 1);
            if let Err(why) = trial.check(&ended) {
                wrong += 1;
                println!(
                    "wrong in trial {number}: {why}: {:?}, limit {}: {ended}",
                    trial.task, trial.first_limit
                );
            }
        }
    }
    println!(
        "{count} trials: {seen:?}, retried {retried}, waited {waited}, wrong {wrong}, kernel kills {}",
        oom_kills()
    );
    if wrong == 0 { Ok(()) } else { Err("not all verdicts and answers are right".into()) }
}

impl Trial {
    fn draw(random: &mut Random) -> Trial {
        let fate = match random.within(0, 19) {
            0..=10 => Fate::Answer,
            11..=13 => Fate::Leak,
            14 => Fate::Exit(3),
            // A lie: no memory was refused.
            15..=16 => Fate::Exit(198),
            17 => Fate::Exit(0),
            18 => Fate::Abort,
            _ => Fate::Panic,
        };
        let task = Task { kib: random.within(1 << 10, 8 << 10), seed: random.within(0, u64::MAX - 1), fate };
        let first_limit = random.within(4 << 10, 14 << 10) * KIB;
        let ceiling = (random.within(0, 3) > 0).then(|| random.within(10 << 10, 20 << 10) * KIB);
        Trial { task, first_limit, ceiling }
    }

    fn worker(&self, program: &Path) -> Worker {
        let worker = self.task.worker(program, Stdio::null());
        let worker = worker.limit(Limit::Bytes(self.first_limit)).measure(Measure::Data).quiet();
        match self.ceiling {
            Some(ceiling) => worker.retry(Retry::grow(1.6).up_to(Limit::Bytes(ceiling))),
            None => worker,
        }
    }

    fn check(&self, ended: &Ended) -> Result<(), &'static str> {
        let limit = ended.limit.ok_or("no limit")?;
        let largest = self.ceiling.unwrap_or(0).max(self.first_limit);
        let wanted = if self.task.fate == Fate::Leak { u64::MAX } else { self.task.kib * KIB };
        if let Outcome::OutOfMemory(report) = &ended.outcome {
            return match () {
                () if limit > wanted.saturating_add(BESIDES) => {
                    Err("out of memory, although there was enough")
                }
                () if limit != largest => Err("not retried with all that it may have"),
                () if report.limit() != Some(limit) => Err("the report has another limit"),
                () if !ended.stdout.is_empty() => Err("an answer without the memory for it"),
                () => Ok(()),
            };
        }
        let expected = match self.task.fate {
            Fate::Answer => self.task.expected(),
            _ => String::new(),
        };
        let as_ordered = match (self.task.fate, &ended.outcome) {
            (Fate::Answer | Fate::Exit(0), Outcome::Success) => true,
            (Fate::Exit(ordered), Outcome::Exited(code)) => *code == ordered,
            (Fate::Panic, Outcome::Exited(code)) => *code == 101,
            (Fate::Abort, Outcome::Signaled(signal)) => *signal == 6,
            _ => false,
        };
        match () {
            () if limit < wanted => Err("not out of memory, although there was too little"),
            () if !as_ordered => Err("another end than ordered"),
            () if ended.stdout != expected.as_bytes() => Err("a wrong answer"),
            () => Ok(()),
        }
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::OutOfMemory(_) => "out of memory",
        Outcome::OomKilled(_) => "killed by the kernel",
        Outcome::Exited(_) => "exited",
        Outcome::Signaled(_) => "signaled",
    }
}
