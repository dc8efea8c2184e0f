//! What do the measure `resident` and a budget cost programs that allocate much? Processor time, the launcher's included, against the
//! same under `data`, taking turns. As many rounds as the first argument says.

use std::path::Path;
use std::process::Command;

const WAYS: [(&str, &[&str]); 4] = [
    ("data", &["--measure", "data", "-m", "4Gi"]),
    ("data, once more", &["--measure", "data", "-m", "4Gi"]),
    ("resident", &["-m", "4Gi"]),
    ("in a budget", &["--budget", "4Gi"]),
];

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(21);
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/programs"));
    let (source, program) =
        (sources.join("allocate.c"), std::env::temp_dir().join("oomguard-bench-allocate"));
    let built = Command::new("cc").arg("-O2").arg(source).arg("-o").arg(&program).status();
    assert!(built.expect("cc can be run").success(), "it cannot be built");
    let (program, lists) = (program.display().to_string(), sources.join("lists.py").display().to_string());
    let programs: [(&str, &[&str]); 2] =
        [("malloc and free", &[&program, "1500000"]), ("lists in Python", &["python3", &lists, "6"])];
    for (name, words) in programs {
        let mut times = WAYS.map(|_| Vec::new());
        for round in 0..rounds {
            for turn in 0..WAYS.len() {
                let way = (round + turn) % WAYS.len();
                times[way].push(processor_seconds(WAYS[way].1, words));
            }
        }
        for ((way, _), own) in WAYS.iter().zip(&times) {
            let mut ratios: Vec<f64> = own.iter().zip(&times[0]).map(|(own, data)| own / data).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            println!("{name}, {way}: {:.3}", ratios[ratios.len() / 2]);
        }
    }
}

fn processor_seconds(options: &[&str], words: &[&str]) -> f64 {
    let before = children();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomguard"));
    command.arg("run").args(options).arg("--").args(words).stdout(std::process::Stdio::null());
    assert!(command.status().expect("it can be run").success(), "{words:?}");
    children() - before
}

/// What all children together have used that were waited for.
fn children() -> f64 {
    // SAFETY: all zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable during the call.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
