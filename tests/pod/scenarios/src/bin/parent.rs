//! A parent as people write it: `parent WORKER MIB LIMIT…` starts the worker with one limit after the other (`-` for
//! none of its own) until it has the answer. Only exit code 198 is a reason to go on to the next.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [worker, mib, limits @ ..] = &arguments[..] else { panic!("usage: parent WORKER MIB LIMIT…") };
    for limit in limits {
        let mut command = Command::new(worker);
        command.arg(mib);
        if limit != "-" {
            command.env("OOMGUARD_LIMIT", limit);
        }
        let output = command.output().unwrap_or_else(|error| panic!("cannot start {worker}: {error}"));
        print!("limit {limit}: {}: {}", output.status, String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        match output.status.code() {
            Some(0) => return ExitCode::SUCCESS,
            Some(198) => println!("out of memory, for certain"),
            _ => return ExitCode::FAILURE,
        }
    }
    ExitCode::FAILURE
}
