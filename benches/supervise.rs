//! What does supervision cost: starting `/bin/true` and waiting for it, through `Worker` and through plain `Command`?
//!
//! 500 each (or as many as the first argument says), taking turns; a second argument is MiB of memory that the parent
//! has touched, as the price of fork(2) grows with it. The ratio is that of the medians.

use oomguard::supervisor::{self, SetLimit, Worker};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

// Started with `nothing`, this program is the guarded worker.
oomguard::guard!(limit = "off");

const SUBJECTS: usize = 10;
/// The place of a guarded program that is started plainly.
const GUARDED: usize = 8;
/// Without a factor in common with that number.
const STEPS: [usize; 4] = [1, 3, 7, 9];

fn main() {
    if std::env::args().nth(1).as_deref() == Some("nothing") {
        return;
    }
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let rounds = numbers.next().unwrap_or(500);
    let ballast = vec![1u8; numbers.next().unwrap_or(0) << 20];
    std::hint::black_box(&ballast);

    let command = || Command::new("/bin/true");
    let known = || supervisor::Command::new("/bin/true");
    let limit = "256MiB".parse().unwrap();
    let itself = std::env::current_exe().unwrap();
    let guarded = || {
        let mut command = Command::new(&itself);
        command.arg("nothing");
        command
    };
    let known_guarded = || {
        let mut command = supervisor::Command::new(&itself);
        command.arg("nothing");
        command
    };
    let plainly = |mut command: Command| assert!(command.spawn().unwrap().wait().unwrap().success());
    let run = |mut worker: Worker| assert!(worker.run().unwrap().is_success());
    // What is measured, and the place of what it is compared with.
    type Subject<'a> = (&'a str, usize, Box<dyn Fn() + 'a>);
    let subjects: [Subject<'_>; SUBJECTS] = [
        ("Command", 0, Box::new(|| plainly(command()))),
        ("Command, once more", 0, Box::new(|| plainly(command()))),
        ("Command, with a hook between fork and exec", 0, Box::new(|| plainly(with_empty_hook(command())))),
        ("Worker", 0, Box::new(|| run(Worker::new(known())))),
        ("Worker with a limit", 0, Box::new(|| run(Worker::new(known()).limit(limit)))),
        ("Worker of std's Command", 0, Box::new(|| run(Worker::new(command())))),
        ("Worker of std's Command with a limit", 0, Box::new(|| run(Worker::new(command()).limit(limit)))),
        (
            "Worker of std's Command with a limit, set after exec",
            0,
            Box::new(|| run(Worker::new(command()).limit(limit).set_limit(SetLimit::AfterExec))),
        ),
        ("Command, guarded program", GUARDED, Box::new(|| plainly(guarded()))),
        (
            "Worker with a limit, guarded program",
            GUARDED,
            Box::new(|| run(Worker::new(known_guarded()).limit(limit))),
        ),
    ];
    let mut times = [const { Vec::new() }; SUBJECTS];
    for round in 0..rounds {
        // Another order each time, so that nobody always follows the same one.
        for turn in 0..SUBJECTS {
            let subject = (round + turn * STEPS[round % STEPS.len()]) % SUBJECTS;
            let begin = Instant::now();
            (subjects[subject].2)();
            times[subject].push(begin.elapsed().as_secs_f64() * 1e6);
        }
    }
    for own in &mut times {
        own.sort_unstable_by(f64::total_cmp);
    }
    let median = |own: &[f64]| own[own.len() / 2];
    println!("| {rounds} each, parent {} MiB | median, µs | 10 % below, µs | ratio |", ballast.len() >> 20);
    println!("|---|---|---|---|");
    for ((name, base, _), own) in subjects.iter().zip(&times) {
        println!(
            "| {name} | {:.0} | {:.0} | {:.3} |",
            median(own),
            own[own.len() / 10],
            median(own) / median(&times[*base])
        );
    }
}

/// With any hook, std forks where it would have used posix_spawn(3): what a limit between fork and exec costs at least.
fn with_empty_hook(mut command: Command) -> Command {
    // SAFETY: the hook does nothing.
    unsafe { command.pre_exec(|| Ok(())) };
    command
}
