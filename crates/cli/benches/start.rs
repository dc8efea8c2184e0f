//! What does the launcher cost a command that does nothing? `true` alone and under `oomguard run`, one after the other.

use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 100;

fn main() {
    let launcher = env!("CARGO_BIN_EXE_oomguard");
    let commands: [(&str, &[&str]); 5] = [
        ("/bin/true", &["/bin/true"]),
        ("run -m 1Gi -- /bin/true", &[launcher, "run", "-m", "1Gi", "--", "/bin/true"]),
        ("run --budget 1Gi -- /bin/true", &[launcher, "run", "--budget", "1Gi", "--", "/bin/true"]),
        (
            "run -m 1Gi --no-preload -- /bin/true",
            &[launcher, "run", "-m", "1Gi", "--no-preload", "--", "/bin/true"],
        ),
        ("--version", &[launcher, "--version"]),
    ];
    let mut times = commands.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for ((_, words), times) in commands.iter().zip(&mut times) {
            times.push(time(words));
        }
    }
    println!("{:36} {:>10} {:>10}", "milliseconds", "median", "least");
    for ((name, _), times) in commands.iter().zip(&mut times) {
        times.sort();
        println!("{name:36} {:>10.2} {:>10.2}", milliseconds(times[ROUNDS / 2]), milliseconds(times[0]));
    }
}

fn time(words: &[&str]) -> Duration {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(std::process::Stdio::null());
    let started = Instant::now();
    let status = command.status().unwrap_or_else(|error| panic!("{}: {error}", words[0]));
    assert!(status.success(), "{words:?}: {status}");
    started.elapsed()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
