//! What does a guard cost a whole program, through `#[global_allocator]` and with a limit set?
//!
//! Two programs that differ in the guard only, started in turns; each reports how long its work took. Beside the
//! wrapper's own price this holds what start-up does to malloc: under a limit of address space the number of arenas
//! is capped, which threads that allocate at once can feel.

use benches::programs::build;
use benches::{COMPARED, compared, interleave, print_table};
use std::process::Command;

const ROUNDS: usize = 21;

fn main() {
    let [bare, guarded] = build(["bench_pairs_bare", "bench_pairs_guarded"]);
    let subjects: [(&str, _, &[(&str, &str)]); 5] = [
        ("not guarded", &bare, &[]),
        ("not guarded, once more", &bare, &[]),
        ("`OOMGUARD_LIMIT=off`", &guarded, &[("OOMGUARD_LIMIT", "off")]),
        ("1Gi of address space", &guarded, &[("OOMGUARD_LIMIT", "1Gi")]),
        ("1Gi of data", &guarded, &[("OOMGUARD_LIMIT", "1Gi"), ("OOMGUARD_MEASURE", "data")]),
    ];
    let works = [
        ("box", "300000", "64 B"),
        ("std", "150000", "64 B, by symbol"),
        ("batch", "200", "16–1024 B, batches of 1024"),
        ("vec", "10000", "realloc 64 B → 64 KiB"),
    ];
    for threads in ["1", "2"] {
        let mut rows: Vec<_> = subjects.iter().skip(1).map(|(name, ..)| vec![(*name).to_owned()]).collect();
        for (work, count, _) in works {
            let times = interleave(ROUNDS, subjects.len(), |subject| {
                let (_, program, environment) = subjects[subject];
                let output = Command::new(program)
                    .args([work, count, threads])
                    .envs(environment.iter().copied())
                    .output()
                    .expect("the program starts");
                String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints its time")
            });
            for (row, own) in rows.iter_mut().zip(times.iter().skip(1)) {
                row.push(compared(own, &times[0], 2));
            }
        }
        print_table(
            &format!(
                "Time of a guarded program against the same not guarded, {threads} thread(s), {ROUNDS} rounds: {COMPARED}."
            ),
            &["program", works[0].2, works[1].2, works[2].2, works[3].2],
            &rows,
        );
    }
}
