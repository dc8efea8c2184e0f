//! The same parent on tokio: a submitted worker is a future, so a thousand lines need no thousand threads.
//!
//!     supervisor_tokio BUDGET FIRST_LIMIT CEILING PROGRAM [ARGUMENT]... < LINES
//!
//! Each worker gets one line as its last argument. `BUDGET` may be `container`: what the container has, less 64 MiB.

use oomguard::Limit;
use oomguard::supervisor::{Budget, Command, Pool, Retry, Stdio, Worker};
use std::error::Error;
use std::io::BufRead;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [budget, first, ceiling, program, rest @ ..] = arguments.as_slice() else {
        return Err("usage: supervisor_tokio BUDGET FIRST_LIMIT CEILING PROGRAM [ARGUMENT]... < LINES".into());
    };
    let budget = match budget.as_str() {
        "container" => Budget::container()?.keep("64MiB".parse()?),
        size => Budget::of(size.parse()?),
    };
    let pool = Pool::new(budget);
    let (first, ceiling): (Limit, Limit) = (first.parse()?, ceiling.parse()?);

    let mut jobs = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut command = Command::new(program);
        command.args(rest).arg(&line).stdout(Stdio::piped());
        let worker = Worker::new(command).limit(first).retry(Retry::grow(2.0).up_to(ceiling));
        jobs.push((line, pool.submit(worker)?));
    }

    let watch = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            eprintln!("{pool:?}");
        }
    });
    for (line, job) in jobs {
        let ended = job.await?;
        if ended.outcome.is_success() {
            print!("{line}: {}", String::from_utf8_lossy(&ended.stdout));
        } else {
            eprintln!("{line}: {ended}");
        }
    }
    watch.abort();
    Ok(())
}
