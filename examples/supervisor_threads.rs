//! A parent that gives each line of its input to a worker, four at a time, and prints the answers in order.
//!
//!     supervisor_threads BUDGET FIRST_LIMIT CEILING PROGRAM [ARGUMENT]... < LINES
//!
//! Each worker gets one line as its last argument. Its threads are the program's own, as they would be in a service
//! that has a thread pool already; the pool of workers only makes them wait until the memory is there.

use oomguard::Limit;
use oomguard::supervisor::{Budget, Command, Ended, Pool, Retry, Stdio, Worker};
use std::error::Error;
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::Mutex;

const THREADS: usize = 4;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [budget, first, ceiling, program @ ..] = arguments.as_slice() else {
        return Err(
            "usage: supervisor_threads BUDGET FIRST_LIMIT CEILING PROGRAM [ARGUMENT]... < LINES".into()
        );
    };
    let pool = Pool::new(Budget::of(budget.parse()?));
    let (first, ceiling): (Limit, Limit) = (first.parse()?, ceiling.parse()?);
    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;

    let next = Mutex::new(lines.iter().enumerate());
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    // In a statement of its own, so that the lock is not held while the worker runs.
                    let Some((index, line)) = next.lock().unwrap().next() else { break };
                    let retry = Retry::grow(2.0).up_to(ceiling).between(|ended| eprintln!("again: {ended}"));
                    let ended = pool.run_to_end(worker(program, line).limit(first).retry(retry));
                    answers.lock().unwrap().push((index, ended));
                }
            });
        }
    });

    let mut answers = answers.into_inner()?;
    answers.sort_unstable_by_key(|(index, _)| *index);
    let failed =
        answers.into_iter().map(|(index, ended)| print(&lines[index], ended)).filter(|ok| !ok).count();
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn worker(program: &[String], line: &str) -> Worker {
    let (name, arguments) =
        program.split_first().map_or(("true", &[][..]), |(name, rest)| (name.as_str(), rest));
    let mut command = Command::new(name);
    command.args(arguments).arg(line).stdout(Stdio::piped());
    Worker::new(command)
}

fn print(line: &str, ended: std::io::Result<Ended>) -> bool {
    match ended {
        Ok(ended) if ended.outcome.is_success() => {
            print!("{line}: {}", String::from_utf8_lossy(&ended.stdout));
            true
        }
        Ok(ended) => {
            eprintln!("{line}: {ended}");
            false
        }
        Err(error) => {
            eprintln!("{line}: {error}");
            false
        }
    }
}
