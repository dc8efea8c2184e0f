//! What does it cost a whole program that its heap is profiled? (Aim: pairs at most 1.08 times the bare allocator with
//! one thread and 1.12 with two, batches at most 1.06.)
//!
//! The same program with and without, started in turns; each reports how long its work took. Beside the guard's
//! profiler stand jemalloc with its own, with the same mean distance between two samples, against jemalloc without;
//! dhat, which samples nothing and keeps all; and two that only count.

use benches::programs::build;
use benches::{COMPARED, compared, interleave, print_table};
use std::path::Path;
use std::process::Command;

const ROUNDS: usize = 41;

/// dhat takes a hundred times as long.
const PARTS: u64 = 500;

struct Subject<'a> {
    name: &'static str,
    program: &'a Path,
    environment: &'static [(&'static str, &'static str)],
    /// The subject that this one is compared with.
    peer: usize,
    /// Whether it does a part of the work only, and so its time counts as often.
    is_slow: bool,
}

fn main() {
    let [bare, guarded, profiled, jemalloc, dhat, cap, stats] = build([
        "bench_pairs_bare",
        "bench_pairs_guarded",
        "bench_pairs_profiled",
        "bench_pairs_jemalloc",
        "bench_pairs_dhat",
        "bench_pairs_cap",
        "bench_pairs_stats_alloc",
    ]);
    let subject =
        |name, program, environment, peer| Subject { name, program, environment, peer, is_slow: false };
    let subjects = [
        subject("bare", bare.as_path(), &[][..], 0),
        subject("bare, once more", &bare, &[], 0),
        subject("`guard!()`", &guarded, &[("OOMGUARD_LIMIT", "off")], 0),
        subject("**`guard!(profile = on)`**", &profiled, &[("OOMGUARD_LIMIT", "off")], 0),
        subject(
            "the same, `OOMGUARD_PROFILE=off`",
            &profiled,
            &[("OOMGUARD_LIMIT", "off"), ("OOMGUARD_PROFILE", "off")],
            0,
        ),
        subject("jemalloc", &jemalloc, &[], 5),
        subject(
            "jemalloc with its profiler",
            &jemalloc,
            &[("_RJEM_MALLOC_CONF", "prof:true,lg_prof_sample:19")],
            5,
        ),
        subject("cap", &cap, &[], 0),
        subject("stats_alloc", &stats, &[], 0),
        Subject { is_slow: true, ..subject("dhat", &dhat, &[], 0) },
    ];
    let works = [
        ("box", 6_000_000, "64 B"),
        ("batch", 2_000, "16–1024 B, batches of 1024"),
        ("vec", 40_000, "realloc 64 B → 64 KiB"),
    ];
    for threads in ["1", "2"] {
        let mut rows: Vec<_> = subjects.iter().map(|subject| vec![subject.name.to_owned()]).collect();
        for (work, count, _) in works {
            let times = interleave(ROUNDS, subjects.len(), |index| {
                let subject = &subjects[index];
                let parts = if subject.is_slow { PARTS } else { 1 };
                let output = Command::new(subject.program)
                    .args([work, &(count / parts).to_string(), threads])
                    .envs(subject.environment.iter().copied())
                    .output()
                    .expect("the program starts");
                let ns: f64 =
                    String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints its time");
                ns * parts as f64
            });
            for (index, subject) in subjects.iter().enumerate() {
                rows[index].push(compared(&times[index], &times[subject.peer], 3));
            }
        }
        let rows: Vec<_> = rows
            .into_iter()
            .enumerate()
            .filter(|(index, _)| subjects[*index].peer != *index)
            .map(|(_, row)| row)
            .collect();
        print_table(
            &format!(
                "Time of a program against the same over the bare allocator, {threads} thread(s), {ROUNDS} rounds: {COMPARED}."
            ),
            &["program", works[0].2, works[1].2, works[2].2],
            &rows,
        );
    }
}
