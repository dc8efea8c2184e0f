//! What does it cost to ask the ledger of a budget for more, without the system calls around it: alone, with 8 threads that ask as
//! processes would, and with a row for each of 1000 processes? Beside it stands what each question costs anyway: looking at the
//! soft limit and setting it.

use benches::{interleave, median, quantile};
use oomguard_core::ledger::{Decision, Id, Ledger};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 41;
const QUESTIONS: u32 = 200;

fn with_rows(rows: u32) -> Box<Ledger> {
    // SAFETY: a ledger is made of integers.
    let ledger: Box<Ledger> = unsafe { Box::<Ledger>::new_zeroed().assume_init() };
    ledger.open(1 << 40, 1000, 0, 0);
    for pid in 1..=rows {
        ledger.take_row(Id::new(pid, 1)).expect("there is a row");
    }
    ledger
}

/// Microseconds for each question of that process, which asks until it has what it wants.
fn ask(ledger: &Ledger, pid: u32) -> f64 {
    let row = ledger.find(Id::new(pid, 1)).and_then(|place| ledger.row(place)).expect("it has a row");
    let began = Instant::now();
    for _ in 0..QUESTIONS {
        loop {
            assert!(row.claim(4096));
            if black_box(ledger.decide(row)) == Decision::Granted {
                break;
            }
        }
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(QUESTIONS)
}

fn limit() -> f64 {
    let began = Instant::now();
    for _ in 0..QUESTIONS {
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a place for what is there, which is then set as it is.
        unsafe { libc::getrlimit(libc::RLIMIT_DATA, &mut now) };
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_DATA, &now) };
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(QUESTIONS)
}

fn main() {
    let (few, many) = (with_rows(8), with_rows(1000));
    let at_once = || {
        let asks = (1..=8).map(|pid| {
            let few = &few;
            move || ask(few, pid)
        });
        let each: Vec<f64> = std::thread::scope(|scope| {
            let threads: Vec<_> = asks.map(|ask| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it asks")).collect()
        });
        median(&each)
    };
    let names = ["getrlimit and setrlimit", "a question, alone", "8 at once", "in a ledger of 1000"];
    let results = interleave(ROUNDS, names.len(), |index| match index {
        0 => limit(),
        1 => ask(&few, 1),
        2 => at_once(),
        _ => ask(&many, 500),
    });
    println!(
        "| {ROUNDS} rounds of {QUESTIONS} | median, µs | 9 of 10 below, µs | against the system calls |"
    );
    println!("|---|---:|---:|---:|");
    for (name, own) in names.iter().zip(&results) {
        println!(
            "| {name} | {:.2} | {:.2} | {:.1} |",
            median(own),
            quantile(own, 0.9),
            median(own) / median(&results[0])
        );
    }
}
