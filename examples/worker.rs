//! Summarises a log of requests (CSV) by service. It keeps all rows in memory, so a large enough file is too much for
//! it; thanks to one line, `oomguard::guard!()`, that ends in a report and exit 198.
//!
//!     worker INPUT
//!
//! Exit codes: 0 with the table on stdout, 1 for bad data, 2 for bad usage, 198 when memory ran out.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

oomguard::guard!();

struct Row {
    id: String,
    service: String,
    #[expect(dead_code, reason = "kept like every column, as a program does that loads the whole table")]
    url: String,
    #[expect(dead_code, reason = "as above")]
    agent: String,
    millis: u32,
}

static ROWS_READ: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [input] = &arguments[..] else {
        eprintln!("usage: worker INPUT");
        return ExitCode::from(2);
    };
    oomguard::on_exhausted(|| {
        eprintln!("worker: memory ran out after {} rows", ROWS_READ.load(Ordering::Relaxed));
    });
    match summarise(input) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker: {}: {error}", input.display());
            ExitCode::FAILURE
        }
    }
}

fn summarise(input: &OsStr) -> Result<(), Box<dyn Error>> {
    println!("{:<10} {:>8} {:>12} {:>6} {:>6}  slowest", "service", "requests", "total_ms", "p50", "p99");
    let rows = read_rows(input)?;

    let mut services: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        services.entry(&row.service).or_default().push(row);
    }
    for (service, mut requests) in services {
        requests.sort_unstable_by_key(|row| (row.millis, &row.id));
        let total_ms: u64 = requests.iter().map(|row| u64::from(row.millis)).sum();
        println!(
            "{service:<10} {:>8} {total_ms:>12} {:>6} {:>6}  {}",
            requests.len(),
            percentile(&requests, 50).millis,
            percentile(&requests, 99).millis,
            percentile(&requests, 100).id,
        );
    }
    Ok(())
}

fn read_rows(input: &OsStr) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(File::open(input)?).lines().enumerate().skip(1) {
        rows.push(parse(&line?).ok_or_else(|| format!("line {}: this is no request", index + 1))?);
        ROWS_READ.store(rows.len(), Ordering::Relaxed);
    }
    Ok(rows)
}

fn parse(line: &str) -> Option<Row> {
    let mut columns = line.split(',');
    let mut text = || columns.next().map(str::to_owned);
    let row =
        Row { id: text()?, service: text()?, url: text()?, agent: text()?, millis: text()?.parse().ok()? };
    columns.next().is_none().then_some(row)
}

/// The nearest rank: the least request that is not faster than `percent` of them all.
fn percentile<'a>(sorted: &[&'a Row], percent: usize) -> &'a Row {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted[rank - 1]
}
