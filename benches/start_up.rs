//! How much longer does a program take that does nothing, because it is guarded? (Aim: at most 100 µs.)
//!
//! From just before `posix_spawn` to just after `waitpid`, 800 times each, taking turns in a random order. The
//! guarded program also is the larger file, so loading it is part of the price. The processor time is the child's
//! own, and the number to look at where others use the machine as well.

use benches::programs::{self, Prepared};
use benches::{differences, interleave, median, monotonic_ns, print_table, quantile};

const ROUNDS: usize = 800;

fn main() {
    let [bare, guarded] = programs::build(["bench_nothing_bare", "bench_nothing_guarded"]);
    // The same program again shows how far two equal things differ here.
    let subjects = [
        ("not guarded", Prepared::new(&bare, &[], &[])),
        ("not guarded, once more", Prepared::new(&bare, &[], &[])),
        ("guarded, `OOMGUARD_LIMIT=off`", Prepared::new(&guarded, &[], &[("OOMGUARD_LIMIT", "off")])),
        ("guarded, `OOMGUARD_LIMIT=1Gi`", Prepared::new(&guarded, &[], &[("OOMGUARD_LIMIT", "1Gi")])),
        (
            "guarded, `OOMGUARD_LIMIT=1Gi`, measure `data`",
            Prepared::new(&guarded, &[], &[("OOMGUARD_LIMIT", "1Gi"), ("OOMGUARD_MEASURE", "data")]),
        ),
        ("guarded, `auto` (looks up the cgroup)", Prepared::new(&guarded, &[], &[])),
    ];
    benches::pin_to(0);
    let mut processor_times = vec![Vec::new(); subjects.len()];
    let times = interleave(ROUNDS, subjects.len(), |subject| {
        let begin = monotonic_ns();
        processor_times[subject].push(subjects[subject].1.run(0) as f64 / 1000.0);
        (monotonic_ns() - begin) as f64 / 1000.0
    });
    let rows: Vec<_> = subjects
        .iter()
        .zip(times.iter().zip(&processor_times))
        .map(|((name, _), (own, processor))| {
            let more = differences(own, &times[0]);
            vec![
                (*name).to_owned(),
                format!("{:.3}", median(own) / median(&times[0])),
                format!("{:+.0}", median(own) - median(&times[0])),
                format!("{:+.0}", median(&more)),
                format!("{:+.0}", median(&differences(processor, &processor_times[0]))),
                format!("{:+.0} to {:+.0}", quantile(&more, 0.25), quantile(&more, 0.75)),
            ]
        })
        .collect();
    print_table(
        &format!(
            "A program that does nothing, started and waited for, {ROUNDS} times each; the bare one takes {:.0} µs.",
            median(&times[0])
        ),
        &[
            "program",
            "ratio of medians",
            "difference of medians, µs",
            "median difference, µs",
            "of processor time, µs",
            "middle half, µs",
        ],
        &rows,
    );
}
