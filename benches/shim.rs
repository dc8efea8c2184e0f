//! What does the preloaded shim cost a program that knows nothing of it? (Aim: malloc and free of 64 B at most 1.12
//! times as long, with 1 and 2 threads.) And how much later does a program start?
//!
//! Beside it stands the least that such a library can do: a malloc that calls the C library's and compares with null.
//!
//! One program, started in turns with and without LD_PRELOAD. For its work the processor time of the whole process is
//! compared, as others use the machine as well. For start-up, `/bin/true` is timed from just before `posix_spawn` to just
//! after `waitpid`.

use benches::programs::{self, Prepared};
use benches::{COMPARED, compared, differences, interleave, median, monotonic_ns, print_table, quantile};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROUNDS: usize = 21;
const STARTS: usize = 500;

fn main() {
    let [program] = programs::build(["bench_pairs_bare"]);
    let library = build_library(&program);
    let library = library.to_str().expect("a path in UTF-8");
    let preloaded = ("LD_PRELOAD", library);
    let least = build_least(&program);
    let least = least.to_str().expect("a path in UTF-8");
    let subjects: [(&str, &[(&str, &str)]); 6] = [
        ("bare", &[]),
        ("bare, once more", &[]),
        ("a malloc that only forwards and compares", &[("LD_PRELOAD", least)]),
        ("preloaded, `OOMGUARD_LIMIT=off`", &[preloaded, ("OOMGUARD_LIMIT", "off")]),
        ("preloaded, 1Gi of address space", &[preloaded, ("OOMGUARD_LIMIT", "1Gi")]),
        ("preloaded, 1Gi of data", &[preloaded, ("OOMGUARD_LIMIT", "1Gi"), ("OOMGUARD_MEASURE", "data")]),
    ];
    for threads in ["1", "2"] {
        work(&program, threads, &subjects);
    }
    start_up(&subjects);
}

/// Builds the library the way that it is shipped.
fn build_library(program: &Path) -> PathBuf {
    // The program is in target/release/examples.
    let target = program.ancestors().nth(3).expect("cargo has put it three folders deep");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", "shim", "--package", "oomguard-shim", "--target-dir"]);
    cargo.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().expect("cargo starts").success(), "the shim does not build");
    target.join("shim/liboomguard.so")
}

/// The peer, by the C compiler.
fn build_least(program: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/forward.c");
    let library = program.with_file_name("libforward.so");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]);
    cc.args(["-DEXPORTED=__attribute__((visibility(\"default\")))", "-o"]).arg(&library).arg(source);
    assert!(cc.status().expect("there is a C compiler").success(), "the peer does not build");
    library
}

fn work(program: &Path, threads: &str, subjects: &[(&str, &[(&str, &str)])]) {
    let works = [
        ("box", "5000000", "64 B"),
        ("batch", "2000", "16–1024 B, batches of 1024"),
        ("vec", "20000", "realloc 64 B → 64 KiB"),
    ];
    let mut rows: Vec<_> = subjects.iter().skip(1).map(|(name, _)| vec![(*name).to_owned()]).collect();
    for (work, count, _) in works {
        let times = interleave(ROUNDS, subjects.len(), |subject| {
            // `wait_for` waits for it, and asks what it used.
            #[allow(clippy::zombie_processes)]
            let child = Command::new(program)
                .args([work, count, threads])
                .envs(subjects[subject].1.iter().copied())
                .stdout(Stdio::null())
                .spawn()
                .expect("the program starts");
            programs::wait_for(child.id().cast_signed(), 0) as f64
        });
        for (row, own) in rows.iter_mut().zip(times.iter().skip(1)) {
            row.push(compared(own, &times[0], 2));
        }
    }
    print_table(
        &format!(
            "Processor time of a program with the shim preloaded against the same without, {threads} thread(s), {ROUNDS} \
             rounds: {COMPARED}."
        ),
        &["program", works[0].2, works[1].2, works[2].2],
        &rows,
    );
}

fn start_up(subjects: &[(&str, &[(&str, &str)])]) {
    let prepared: Vec<_> = subjects
        .iter()
        .map(|(_, environment)| Prepared::new(Path::new("/bin/true"), &[], environment))
        .collect();
    benches::pin_to(0);
    let times = interleave(STARTS, subjects.len(), |subject| {
        let begin = monotonic_ns();
        prepared[subject].run(0);
        (monotonic_ns() - begin) as f64 / 1000.0
    });
    let rows: Vec<_> = subjects
        .iter()
        .zip(&times)
        .map(|((name, _), own)| {
            let more = differences(own, &times[0]);
            vec![
                (*name).to_owned(),
                format!("{:.0}", median(own)),
                format!("{:+.0}", median(&more)),
                format!("{:+.0} to {:+.0}", quantile(&more, 0.25), quantile(&more, 0.75)),
            ]
        })
        .collect();
    print_table(
        &format!("`/bin/true`, started and waited for, {STARTS} times each."),
        &["program", "median, µs", "median difference, µs", "middle half, µs"],
        &rows,
    );
}
