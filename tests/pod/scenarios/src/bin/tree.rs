//! The root of a random tree: `tree CONTAINER_BYTES SEED JOB|all LAUNCHER|- JOB_PROGRAM STATIC_PROGRAM PYTHON POOL_SCRIPT`. Starts the
//! jobs, so many at once as the seed says, and prints a line for each: how it ended.

use pod_scenarios::tree::{Ended, Job, Programs, Tree};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [container, seed, which, launcher, job, job_static, python, pool] = &arguments[..] else {
        panic!("usage: tree CONTAINER_BYTES SEED JOB|all LAUNCHER|- JOB STATIC PYTHON POOL");
    };
    let programs = Programs {
        launcher: Some(launcher.into()).filter(|_| launcher != "-"),
        job: job.into(),
        job_static: job_static.into(),
        python: python.into(),
        pool: pool.into(),
    };
    let tree = Tree::draw(seed.parse().expect("a seed"), container.parse().expect("bytes"));
    let is_wanted = |index: &usize| which == "all" || which.parse() == Ok(*index);
    let mut running: Vec<(usize, Child)> = Vec::new();
    for (index, job) in tree.jobs.iter().enumerate().filter(|(index, _)| is_wanted(index)) {
        while running.len() >= tree.at_once {
            tell_of_the_ended(&tree.jobs, &mut running);
        }
        std::thread::sleep(Duration::from_millis(job.delay_ms));
        match job.command(&programs).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn() {
            Ok(child) => running.push((index, child)),
            Err(error) => println!("{index} wrong cannot be started: {error}"),
        }
    }
    while !running.is_empty() {
        tell_of_the_ended(&tree.jobs, &mut running);
    }
}

/// Waits until one has ended.
fn tell_of_the_ended(jobs: &[Job], running: &mut Vec<(usize, Child)>) {
    let before = running.len();
    while running.len() == before {
        running.retain_mut(|(index, child)| {
            let Some(status) = child.try_wait().expect("it can be waited for") else { return true };
            if !status.success() {
                // A pool's workers do not see that their parent was made to leave, and would stay for ever.
                let _ = Command::new("/bin/sh")
                    .args(["-c", &format!("kill -9 -{} 2>/dev/null", child.id())])
                    .status();
            }
            let mut stdout = String::new();
            let read = child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut stdout));
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            let ended = match read {
                Some(Ok(_)) => Ended::of(&jobs[*index], code, &stdout),
                _ => Ended::Wrong("its output cannot be read".into()),
            };
            match ended {
                Ended::Right => println!("{index} right"),
                Ended::Refused => println!("{index} refused"),
                Ended::Left => println!("{index} left"),
                Ended::Wrong(why) => println!("{index} wrong {why}"),
            }
            false
        });
        std::thread::sleep(Duration::from_millis(2));
    }
}
