//! `podrun`: one pod from the command line. See `arguments::USAGE`.

mod arguments;

use arguments::Wanted;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

const TIMED_OUT: u8 = 124;
const HARNESS_FAILED: u8 = 125;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("podrun: {error}");
            ExitCode::from(HARNESS_FAILED)
        }
    }
}

fn run() -> Result<u8, Box<dyn std::error::Error>> {
    let (pod, show_log) = match arguments::parse(env::args_os().skip(1))? {
        Wanted::Help => {
            print!("{}", arguments::USAGE);
            return Ok(0);
        }
        Wanted::Run { pod, show_log } => (pod, show_log),
    };
    let outcome = pod.run()?;
    io::stderr().write_all(&outcome.stderr)?;
    if show_log {
        io::stderr().write_all(outcome.kernel_log.as_bytes())?;
    }
    let mut stdout = io::stdout();
    stdout.write_all(&outcome.stdout)?;
    if outcome.stdout.last().is_some_and(|&byte| byte != b'\n') {
        // The report is a line of its own.
        stdout.write_all(b"\n")?;
    }
    writeln!(stdout, "{}", outcome.report.json())?;
    if outcome.report.timed_out {
        return Ok(TIMED_OUT);
    }
    Ok(u8::try_from(outcome.report.exit)?)
}
