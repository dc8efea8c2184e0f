//! What does supervision cost: starting `/bin/true` and waiting for it, through `Worker` and through plain `Command`?
//!
//! 500 each (or as many as the first argument says), taking turns; a second argument is MiB of memory that the parent
//! has touched, as the price of fork(2) grows with it. The ratio is that of the medians.

use oomguard::supervisor::Worker;
use std::process::Command;
use std::time::Instant;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let rounds = numbers.next().unwrap_or(500);
    let ballast = vec![1u8; numbers.next().unwrap_or(0) << 20];
    std::hint::black_box(&ballast);

    let command = || Command::new("/bin/true");
    let limit = "256MiB".parse().unwrap();
    type Subject<'a> = (&'a str, Box<dyn FnMut() + 'a>);
    let mut subjects: [Subject<'_>; 4] = [
        ("Command", Box::new(|| assert!(command().spawn().unwrap().wait().unwrap().success()))),
        ("Command, once more", Box::new(|| assert!(command().spawn().unwrap().wait().unwrap().success()))),
        ("Worker", Box::new(|| assert!(Worker::new(command()).run().unwrap().is_success()))),
        (
            "Worker with a limit",
            Box::new(move || assert!(Worker::new(command()).limit(limit).run().unwrap().is_success())),
        ),
    ];
    let mut times = [const { Vec::new() }; 4];
    for round in 0..rounds {
        // Another order each time, so that nobody always follows the same one.
        for turn in 0..4 {
            let subject = (round * 5 + turn * (1 + 2 * (round & 1))) % 4;
            let begin = Instant::now();
            (subjects[subject].1)();
            times[subject].push(begin.elapsed().as_secs_f64() * 1e6);
        }
    }
    for own in &mut times {
        own.sort_unstable_by(f64::total_cmp);
    }
    let median = |own: &[f64]| own[own.len() / 2];
    println!("| {rounds} each, parent {} MiB | median, µs | 10 % below, µs | ratio |", ballast.len() >> 20);
    println!("|---|---|---|---|");
    for ((name, _), own) in subjects.iter().zip(&times) {
        println!(
            "| {name} | {:.0} | {:.0} | {:.3} |",
            median(own),
            own[own.len() / 10],
            median(own) / median(&times[0])
        );
    }
}
