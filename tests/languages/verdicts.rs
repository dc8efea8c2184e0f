//! How often is the verdict wrong? Runs every way of the matrix and of the adversaries many times, judges by exit code
//! and report alone, and prints the tables of docs/verdicts.md.
//!
//!     cargo bench -p oomguard-cli --bench verdicts [-- [--runs N] [NAME]]      (10 runs; only cells whose name contains NAME)

#![allow(dead_code)] // Of the shared files, a part is used here.

#[path = "../common/mod.rs"]
mod common;
mod judge;
mod languages;
mod runtime;

use judge::Cell;
use languages::{ADVERSARIES, ALL, Fate, Language, MEASURES};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How the runs of one cell were judged.
#[derive(Default)]
struct Count {
    right: u32,
    /// Exhaustion that was not recognised.
    missed: u32,
    /// 198 for an end of another kind.
    false_alarms: u32,
    /// Neither: another code, or no end in time.
    other: Vec<i32>,
}

fn main() {
    let (runs, filter) = arguments();
    println!("{runs} runs of each way and measure.\n\n### The matrix\n");
    table(&count(ALL, runs, &filter), true);
    println!("\n### Programs that are hard to judge\n");
    table(&count(ADVERSARIES, runs, &filter), false);
}

fn arguments() -> (u32, String) {
    let (mut runs, mut filter) = (10, String::new());
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => runs = arguments.next().and_then(|number| number.parse().ok()).expect("--runs N"),
            name => filter = name.into(),
        }
    }
    (runs, filter)
}

type Counts = Vec<(Cell, Count)>;

/// Two at a time, as many as the cores that these numbers were taken on.
fn count(languages: &[&'static Language], runs: u32, filter: &str) -> Counts {
    let cells: Vec<Cell> = languages
        .iter()
        .filter(|language| match runtime::find(language) {
            Ok(_) => true,
            Err(missing) => {
                println!("skipped: {}: {missing}\n", language.name);
                false
            }
        })
        .flat_map(|language| MEASURES.iter().flat_map(|measure| Cell::all(language, *measure)))
        .filter(|cell| cell.name().contains(filter))
        .collect();
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Relaxed: each number is taken once; what it stands for was there before the threads.
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut count = Count::default();
                    for _ in 0..runs {
                        count.add(cell);
                    }
                    counts.lock().unwrap_or_else(PoisonError::into_inner).insert(cell.name(), count);
                }
            });
        }
    });
    let mut counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    cells.into_iter().map(|cell| (cell, counts.remove(&cell.name()).unwrap_or_default())).collect()
}

impl Count {
    fn add(&mut self, cell: &Cell) {
        let remains = cell.start().unwrap_or_else(|error| panic!("{}: {error}", cell.name()));
        let exhausted = remains.code() == 198 && remains.report.is_some();
        match cell.row.fate {
            Fate::OutOfMemory(_) if exhausted => self.right += 1,
            Fate::OutOfMemory(_) if remains.code() != 124 => self.missed += 1,
            Fate::OutOfMemory(_) => self.other.push(124),
            _ if exhausted => self.false_alarms += 1,
            _ if remains.code() == cell.expected() && remains.report.is_none() => self.right += 1,
            _ => self.other.push(remains.code()),
        }
    }

    fn runs(&self) -> usize {
        (self.right + self.missed + self.false_alarms) as usize + self.other.len()
    }

    fn cells(&self) -> String {
        let other = if self.other.is_empty() { String::new() } else { format!("{:?}", self.other) };
        let number = |number: u32| if number == 0 { String::new() } else { format!("**{number}**") };
        format!(
            "{} | {} | {} | {} | {other}",
            self.runs(),
            self.right,
            number(self.missed),
            number(self.false_alarms)
        )
    }

    fn take(&mut self, other: &Count) {
        self.right += other.right;
        self.missed += other.missed;
        self.false_alarms += other.false_alarms;
        self.other.extend(&other.other);
    }
}

/// A line per cell; or, where `summed`, per language and fate, and below it the cells that were ever judged wrong.
fn table(counts: &Counts, summed: bool) {
    println!(
        "| | runs | right | exhaustion missed | taken for exhaustion | other ends |\n|---|---:|---:|---:|---:|---|"
    );
    let mut sums: Vec<(String, Count)> = Vec::new();
    for (cell, count) in counts {
        let dies = matches!(cell.row.fate, Fate::OutOfMemory(_));
        let name = if summed {
            format!(
                "{}, {}",
                cell.language.name,
                if dies { "dies of it" } else { "recovers, or its own end" }
            )
        } else {
            cell.name()
        };
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => sum.take(count),
            None => {
                let mut sum = Count::default();
                sum.take(count);
                sums.push((name, sum));
            }
        }
    }
    let mut all = Count::default();
    for (name, sum) in &sums {
        println!("| {name} | {} |", sum.cells());
        all.take(sum);
    }
    println!("| all | {} |", all.cells());
    if summed {
        println!("\nEver judged wrong:\n");
        for (cell, count) in counts.iter().filter(|(_, count)| count.runs() != count.right as usize) {
            println!("- {}: {} of {} right", cell.name(), count.right, count.runs());
        }
    }
}
