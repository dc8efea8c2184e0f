//! Every-failure sweep: a real workload is run again and again, and its 1st, 2nd, 3rd … allocation is refused, once
//! and from then on. Every run must end in 198 with one report, or in the right answer; none may hang, crash
//! otherwise, or answer wrongly.

mod common;

use common::child::{End, Remains, Start};
use common::report;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::thread;

oomguard::guard!(limit = "off", profile = off);

fn main() -> ExitCode {
    if std::env::var_os(common::ROLE).is_some() {
        let answer = workload();
        print!("{answer}");
        eprint!("{}", oomguard::inject::allocations());
        return ExitCode::SUCCESS;
    }
    let whole = Start::role("work").run().expect("the workload runs");
    assert_eq!(whole.end(), End::Exit(0), "{whole:#?}");
    let allocations: u64 = whole.stderr.parse().expect("a count on stderr");
    assert!((200..2000).contains(&allocations), "{allocations} allocations are too few or too many to sweep");
    assert!(whole.stdout.lines().count() > 5, "no answer: {whole:#?}");

    let mut trials = Vec::new();
    let answer: &'static str = whole.stdout.leak();
    // A little more than it needs: threads make the count vary.
    let last = allocations + allocations / 10;
    const CHUNK: u64 = 25;
    // With the profiler, each allocation is a sample.
    for (on_refusal, profile) in
        [("deferred", "off"), ("immediate", "off"), ("deferred", "1"), ("immediate", "1")]
    {
        for onwards in ["", "+"] {
            for first in (1..=last).step_by(CHUNK as usize) {
                let numbers = first..(first + CHUNK).min(last + 1);
                let name =
                    format!("allocations {numbers:?} refused{onwards} ({on_refusal}, profile {profile})");
                let sweep = move || {
                    numbers.clone().try_for_each(|nth| run(nth, onwards, on_refusal, profile, answer))
                };
                trials.push(Trial::test(name, sweep));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run(nth: u64, onwards: &str, on_refusal: &str, profile: &str, answer: &str) -> Result<(), Failed> {
    let plan = format!("{nth}{onwards}");
    let remains = Start::role("work")
        .env("OOMGUARD_INJECT", &plan)
        .env("OOMGUARD_ON_REFUSAL", on_refusal)
        .env("OOMGUARD_PROFILE", profile)
        .env("RUST_BACKTRACE", if nth.is_multiple_of(2) { "1" } else { "0" })
        .run()?;
    judge(&remains, answer).map_err(|wrong| format!("OOMGUARD_INJECT={plan}: {wrong}\n{remains:#?}").into())
}

fn judge(remains: &Remains, answer: &str) -> Result<(), String> {
    match remains.end() {
        End::Exit(198) => {
            let report = report::read(remains.report.as_deref().unwrap_or("(no file)"))?;
            if report["cause"] != "injected" {
                return Err(format!("cause is {}", report["cause"]));
            }
            match remains.stderr.matches("oomguard: out of memory: ").count() {
                1 => Ok(()),
                count => Err(format!("said {count} times")),
            }
        }
        End::Exit(0) if remains.stdout != answer => Err("a wrong answer".into()),
        End::Exit(0) if remains.report.is_some() => Err("a report of what was survived".into()),
        End::Exit(0) => Ok(()),
        end => Err(format!("{end:?}")),
    }
}

/// Reads lines of JSON in two threads, adds up by key, sorts, and builds a text: what many programs do.
fn workload() -> String {
    let lines: Vec<String> = (0..24)
        .map(|row| {
            format!(r#"{{"city":"c{}","amount":{},"tags":["a","b{}"]}}"#, row % 7, row * 13 % 101, row % 3)
        })
        .collect();
    let (left, right) = lines.split_at(lines.len() / 2);
    let (left, right) = thread::scope(|scope| {
        let left = scope.spawn(|| sums(left));
        let right = thread::Builder::new().name("right".into()).spawn_scoped(scope, || sums(right));
        let right = match right {
            Ok(right) => right.join().expect("no panic"),
            Err(_) => unreachable!("there is room for a thread"),
        };
        (left.join().expect("no panic"), right)
    });
    let mut sums: BTreeMap<String, u64> = left.into_iter().collect();
    for (city, sum) in right {
        *sums.entry(city).or_default() += sum;
    }
    let mut sorted: Vec<(String, u64)> = sums.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    // A nicety that the program can do without.
    let mut header = String::new();
    let header = if header.try_reserve(100).is_ok() {
        header.push_str("city: sum\n");
        header
    } else {
        "city: sum\n".into()
    };
    sorted.iter().fold(header, |text, (city, sum)| text + &format!("{city}: {sum}\n"))
}

fn sums(lines: &[String]) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for line in lines {
        let record: Value = match serde_json::from_str(line) {
            Ok(record) => record,
            Err(error) => panic!("{error} in {line}"),
        };
        let city = record["city"].as_str().unwrap_or_default().to_string();
        *sums.entry(city).or_default() += record["amount"].as_u64().unwrap_or_default();
    }
    sums
}
