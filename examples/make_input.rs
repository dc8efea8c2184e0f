//! Writes a log of requests for the other examples to stdout, always the same for the same number of rows.
//!
//!     make_input ROWS > requests.csv
//!
//! 200000 rows are 33 MB, for which `worker` needs some 85 MiB of memory.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

const SERVICES: [&str; 4] = ["cart", "checkout", "search", "users"];
const AGENTS: [&str; 2] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0",
];

fn main() -> io::Result<ExitCode> {
    let Some(rows) = std::env::args().nth(1).and_then(|rows| rows.parse().ok()) else {
        eprintln!("usage: make_input ROWS > FILE");
        return Ok(ExitCode::from(2));
    };
    write_log(rows, BufWriter::new(io::stdout().lock()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_log(rows: u64, mut log: impl Write) -> io::Result<()> {
    writeln!(log, "id,service,url,agent,millis")?;
    let mut random = 0x9e37_79b9_7f4a_7c15;
    for row in 0..rows {
        random = xorshift(random);
        let service = SERVICES[(random % 4) as usize];
        let agent = AGENTS[(random >> 2) as usize % 2];
        // Most requests are quick, one in sixteen is not.
        let millis = (random >> 8) % if random & 0xf0 == 0 { 20_000 } else { 400 };
        writeln!(
            log,
            "r{row:09},{service},/{service}/items?session={random:032x}&page={row},{agent},{millis}"
        )?;
    }
    log.flush()
}

fn xorshift(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}
