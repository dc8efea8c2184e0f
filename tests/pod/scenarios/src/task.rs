//! A task with an answer that can be checked: fill so much memory with the numbers of a seed, and add them up.

use crate::random::Random;
use oomguard::supervisor::Worker;
use std::path::Path;
use std::process::{Command, Stdio};

/// Below the threshold from which malloc asks the kernel for each block: many small refusals, not one large.
const WORDS_PER_BLOCK: usize = 12_500;
/// One number of each page is added up: an unoptimized worker is to spend its time on memory.
const WORDS_PER_PAGE: usize = 512;

/// What a worker does, and what its parent knows about it.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub kib: u64,
    pub seed: u64,
    pub fate: Fate,
}

/// How the worker ends when it has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Prints it. Does not start before its stdin is closed.
    Answer,
    /// Fills its memory at once, and prints the answer when its stdin is closed.
    Hold,
    /// Never has one: takes memory until it is stopped.
    Leak,
    /// Ends with this code, which may be the one that means "out of memory", and is a lie then.
    Exit(i32),
    Abort,
    Panic,
}

impl Task {
    pub fn answer(mib: u64, seed: u64) -> Task {
        Task { kib: mib << 10, seed, fate: Fate::Answer }
    }

    /// The answer, found without memory.
    pub fn expected(&self) -> String {
        let block_sum =
            |(words, number): (usize, u64)| number.wrapping_mul(words.div_ceil(WORDS_PER_PAGE) as u64);
        let sum = self.blocks().map(block_sum).fold(0, u64::wrapping_add);
        format!("sum {sum:x}\n")
    }

    /// The worker that does it; its answer is piped.
    pub fn worker(&self, program: &Path, stdin: impl Into<Stdio>) -> Worker {
        let mut command = Command::new(program);
        command.arg(self.kib.to_string()).arg(self.seed.to_string()).arg(self.fate.to_text());
        command.stdin(stdin).stdout(Stdio::piped());
        Worker::new(command)
    }

    /// The same task in the worker: its arguments.
    pub fn from_arguments(arguments: &[String]) -> Option<Task> {
        let [kib, seed, fate] = arguments else { return None };
        Some(Task { kib: kib.parse().ok()?, seed: seed.parse().ok()?, fate: Fate::from_text(fate)? })
    }

    /// Does it.
    pub fn run(&self) {
        if self.fate != Fate::Hold {
            wait_for_end_of_stdin();
        }
        let held: Vec<Vec<u64>> = self.blocks().map(|(words, number)| vec![number; words]).collect();
        if self.fate == Fate::Hold {
            wait_for_end_of_stdin();
        }
        let sum = held
            .iter()
            .flat_map(|block| block.iter().step_by(WORDS_PER_PAGE))
            .copied()
            .fold(0, u64::wrapping_add);
        match self.fate {
            Fate::Exit(code) => std::process::exit(code),
            Fate::Abort => std::process::abort(),
            Fate::Panic => panic!("as ordered"),
            Fate::Answer | Fate::Hold | Fate::Leak => println!("sum {sum:x}"),
        }
    }

    /// The length of each block in words, and the number that fills it.
    fn blocks(&self) -> impl Iterator<Item = (usize, u64)> {
        let words = if self.fate == Fate::Leak { usize::MAX } else { self.kib as usize * 128 };
        let starts = (0..words).step_by(WORDS_PER_BLOCK);
        starts.map(move |start| WORDS_PER_BLOCK.min(words - start)).zip(Random::new(self.seed))
    }
}

impl Fate {
    fn to_text(self) -> String {
        match self {
            Fate::Answer => "answer".into(),
            Fate::Hold => "hold".into(),
            Fate::Leak => "leak".into(),
            Fate::Exit(code) => code.to_string(),
            Fate::Abort => "abort".into(),
            Fate::Panic => "panic".into(),
        }
    }

    fn from_text(text: &str) -> Option<Fate> {
        Some(match text {
            "answer" => Fate::Answer,
            "hold" => Fate::Hold,
            "leak" => Fate::Leak,
            "abort" => Fate::Abort,
            "panic" => Fate::Panic,
            code => Fate::Exit(code.parse().ok()?),
        })
    }
}

fn wait_for_end_of_stdin() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}
