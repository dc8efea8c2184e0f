//! What the benchmarks share: rounds in which the subjects take turns in a new order each time, medians, tables, and
//! the programs that are measured from outside.

pub mod programs;

/// Every subject once per round, in an order drawn anew for each round. One list of results per subject, where the
/// entries with the same index come from the same round.
pub fn interleave(rounds: usize, subjects: usize, mut measure: impl FnMut(usize) -> f64) -> Vec<Vec<f64>> {
    let mut random = fastrand::Rng::with_seed(198);
    let mut order: Vec<usize> = (0..subjects).collect();
    let mut results = vec![Vec::with_capacity(rounds); subjects];
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for &subject in &order {
            results[subject].push(measure(subject));
        }
    }
    results
}

/// Round by round, how many times `of` is `against`.
pub fn ratios(of: &[f64], against: &[f64]) -> Vec<f64> {
    of.iter().zip(against).map(|(of, against)| of / against).collect()
}

/// Round by round, how much more `of` is than `against`.
pub fn differences(of: &[f64], against: &[f64]) -> Vec<f64> {
    of.iter().zip(against).map(|(of, against)| of - against).collect()
}

/// The value that `share` of all values stay below.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    sorted[(last as f64 * share).round() as usize]
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value.
pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// What a cell of [`compared`] holds, for a table's title.
pub const COMPARED: &str = "median of the rounds' ratios [middle half] (least against least)";

/// Times of the same rounds, as the ratio of `of` to `against`.
pub fn compared(of: &[f64], against: &[f64], digits: usize) -> String {
    let ratios = ratios(of, against);
    let [middle, low, high] = [0.5, 0.25, 0.75].map(|share| quantile(&ratios, share));
    let least = least(of) / least(against);
    format!("{middle:.digits$} [{low:.digits$}–{high:.digits$}] ({least:.digits$})")
}

/// Prints a table in Markdown.
pub fn print_table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    println!("\n{title}\n");
    println!("| {} |", head.join(" | "));
    println!("|---{}|", "|---:".repeat(head.len() - 1));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}

/// Keeps the calling thread on one processor.
pub fn pin_to(processor: usize) {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call, and the number is below its 1024 bits on any machine we measure on.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // Fails where the processor is not ours to use: then the thread stays unpinned.
    // SAFETY: the set is readable during the call; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// Nanoseconds since some fixed moment, the same in all processes: CLOCK_MONOTONIC.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
