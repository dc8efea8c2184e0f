//! A tree of processes that a seed decides: jobs of several kinds, several at once, that together want more than there is.

use crate::random::Random;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The launcher; `None`: nothing is guarded.
    pub launcher: Option<PathBuf>,
    pub job: PathBuf,
    pub job_static: PathBuf,
    pub python: PathBuf,
    pub pool: PathBuf,
}

/// What does a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dynamic,
    Static,
    PythonPool,
}

/// What stands between the tree's root and the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    Root,
    Shell,
    ShellThatBecomesIt,
    Launcher,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub kind: Kind,
    shape: &'static str,
    kib: u64,
    seed: u64,
    width: u64,
    end: &'static str,
    below: Below,
    /// How long after the one before it it starts.
    pub delay_ms: u64,
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub jobs: Vec<Job>,
    /// So many run at once.
    pub at_once: usize,
    pub patience: &'static str,
}

const SHAPES: [&str; 10] =
    ["blocks", "one", "late", "threads", "shared", "memfd", "forked", "spawned", "churn", "exec"];

impl Tree {
    /// The tree of that seed for a container of so many bytes: each job fits into it alone.
    pub fn draw(seed: u64, container: u64) -> Tree {
        let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_97f4_a7c1));
        let kib = container >> 10;
        // Now and then a large one, which leaves the others little.
        let jobs = (0..random.within(3, 8))
            .map(|_| {
                let kind = match random.within(0, 9) {
                    0..=5 => Kind::Dynamic,
                    6..=7 => Kind::Static,
                    _ => Kind::PythonPool,
                };
                let most = if random.within(0, 4) == 0 { kib * 11 / 20 } else { kib * 3 / 10 };
                Job {
                    kind,
                    shape: pick(&mut random, &SHAPES),
                    kib: random.within(kib / 40, most) / 4 * 4,
                    seed: random.within(0, u64::MAX - 1),
                    width: random.within(1, 4),
                    end: pick(&mut random, &["copes", "aborts", "exits"]),
                    below: match random.within(0, 7) {
                        0 => Below::Shell,
                        1 => Below::ShellThatBecomesIt,
                        2 => Below::Launcher,
                        _ => Below::Root,
                    },
                    delay_ms: random.within(0, 1).saturating_mul(random.within(0, 150)),
                }
            })
            .collect();
        let at_once = random.within(3, 6) as usize;
        Tree { jobs, at_once, patience: pick(&mut random, &["1s", "1s", "300ms", "0"]) }
    }
}

fn pick(random: &mut Random, of: &[&'static str]) -> &'static str {
    let last = of.len() as u64 - 1;
    of.get(random.within(0, last) as usize).copied().unwrap_or_default()
}

impl Job {
    pub fn command(&self, programs: &Programs) -> Command {
        let numbers = [self.kib, self.seed, self.width].map(|number| number.to_string());
        let mut words: Vec<String> = Vec::new();
        match (self.below, &programs.launcher) {
            (Below::Shell, _) => words.extend(["/bin/sh", "-c", "\"$0\" \"$@\"; exit $?"].map(String::from)),
            (Below::ShellThatBecomesIt, _) => {
                words.extend(["/bin/sh", "-c", "exec \"$0\" \"$@\""].map(String::from));
            }
            (Below::Launcher, Some(launcher)) => {
                words.extend([launcher.display().to_string(), "run".into(), "--".into()]);
            }
            (Below::Launcher, None) | (Below::Root, _) => {}
        }
        words.extend(match self.kind {
            Kind::Dynamic => vec![programs.job.display().to_string()],
            Kind::Static => vec![programs.job_static.display().to_string()],
            // Without what a distribution adds to it.
            Kind::PythonPool => {
                let [python, pool] =
                    [&programs.python, &programs.pool].map(|path| path.display().to_string());
                vec![python, "-S".into(), pool]
            }
        });
        let [kib, seed, width] = numbers;
        words.extend([self.shape.into(), kib, seed, width, self.end.into()]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// What it prints that is not refused anything.
    pub fn answer(&self) -> String {
        let number = |page: u64| {
            let mut random = Random::new(self.seed.wrapping_add(page.wrapping_mul(Random::STEP)));
            random.next().unwrap_or_default()
        };
        let sum = (0..self.kib / 4).map(number).fold(0, u64::wrapping_add);
        format!("sum {sum:x}\n")
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { kind, shape, kib, width, end, below, .. } = self;
        write!(f, "{kind:?} {shape} of {kib} KiB, {width} wide, {end}, below {below:?}")
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Right,
    Refused,
    /// It was made to leave, without last words: one that could not be waited for. Or a static program that was refused ended in its
    /// own way: only its launcher knows better, and here that is the root's.
    Left,
    Wrong(String),
}

impl Ended {
    /// By its exit code as a shell tells it, and what it printed.
    pub fn of(job: &Job, code: i32, stdout: &str) -> Ended {
        const SAID_SO: i32 = 1;
        const COPED: i32 = 3;
        const CHILD_LEFT: i32 = 4;
        const CHILD_ABORTED: i32 = 5;
        match code {
            0 if stdout == job.answer() => Ended::Right,
            198 => Ended::Refused,
            COPED if stdout == "refused\n" => Ended::Refused,
            CHILD_LEFT | 137 => Ended::Left,
            SAID_SO if job.kind == Kind::Static && job.below != Below::Launcher => Ended::Left,
            CHILD_ABORTED | 134 if job.kind == Kind::Static => Ended::Left,
            _ => Ended::Wrong(format!("exit code {code}, {stdout:?}")),
        }
    }
}
