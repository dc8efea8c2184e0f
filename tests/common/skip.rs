//! What cannot be tested here is skipped by name, and never in silence: on stderr, and in the file that `SKIPPED_LIST`
//! names. `.ci/run` reads that file, since a test's output is kept back when it passes; in CI a skipped test is an error.

use std::fmt::Display;
use std::io::Write;

pub fn skipped(what: impl Display) {
    let program = std::env::args().next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    // Without the hash that cargo puts behind it.
    let program = program.rsplit_once('-').map_or(program, |(name, _)| name);
    let line = format!("{program}: {what}");
    eprintln!("skipped: {line}");
    if let Some(list) = std::env::var_os("SKIPPED_LIST") {
        let mut list =
            std::fs::File::options().append(true).create(true).open(list).expect("SKIPPED_LIST is a file");
        // In one piece, as others write to it.
        list.write_all(format!("{}\n", line.replace('\n', " ")).as_bytes()).expect("room for a line");
    }
}
