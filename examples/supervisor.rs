//! Runs a guarded worker with a small memory limit and, whenever that proves too small, again with twice as much.
//!
//!     supervisor FIRST_MIB CEILING_MIB OUTPUT WORKER [ARGUMENT]...
//!
//! The worker's stdout becomes OUTPUT, all of it or nothing. Every failure but a lack of memory is passed on at once.
//! The agreement with the worker is an exit code and a few environment variables: std is enough.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{SystemTime, UNIX_EPOCH};

const OUT_OF_MEMORY: i32 = oomguard::EXIT_OUT_OF_MEMORY as i32; // 198

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [first, ceiling, output, worker @ ..] = &arguments[..] else { return usage() };
    let (Ok(first_mib), Ok(ceiling_mib), false) = (first.parse(), ceiling.parse(), worker.is_empty()) else {
        return usage();
    };
    match run_with_enough(first_mib, ceiling_mib, output, worker) {
        Ok(status) => ExitCode::from(shell_code(status)),
        Err(error) => {
            eprintln!("supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: supervisor FIRST_MIB CEILING_MIB OUTPUT WORKER [ARGUMENT]...");
    ExitCode::from(2)
}

/// The status of the last attempt. The output is there if that is a success, and untouched if not.
fn run_with_enough(
    first_mib: u64,
    ceiling_mib: u64,
    output: &str,
    worker: &[String],
) -> io::Result<ExitStatus> {
    let partial = format!("{output}.partial");
    let mut limit_mib = first_mib;
    loop {
        let attempt =
            attempt(worker, limit_mib, &partial).inspect_err(|_| drop(fs::remove_file(&partial)))?;
        if attempt.status.success() {
            fs::rename(&partial, output)?;
            io::copy(&mut File::open(output)?, &mut io::stdout())?;
            return Ok(attempt.status);
        }
        fs::remove_file(&partial)?;
        if !attempt.ran_out_of_memory || limit_mib >= ceiling_mib {
            eprintln!("supervisor: giving up with a limit of {limit_mib} MiB: {}", attempt.status);
            return Ok(attempt.status);
        }
        let larger_mib = (limit_mib * 2).min(ceiling_mib);
        eprintln!("supervisor: {limit_mib} MiB were not enough, trying {larger_mib} MiB");
        limit_mib = larger_mib;
    }
}

struct Attempt {
    status: ExitStatus,
    ran_out_of_memory: bool,
}

fn attempt(worker: &[String], limit_mib: u64, partial: &str) -> io::Result<Attempt> {
    let report = format!("{partial}.report");
    let token = new_token();
    let status = Command::new(&worker[0])
        .args(&worker[1..])
        .env("OOMGUARD_LIMIT", format!("{limit_mib}Mi"))
        .env("OOMGUARD_REPORT", &report)
        .env("OOMGUARD_TOKEN", &token)
        .stdout(File::create(partial)?)
        .status()?;
    // Any program may exit with 198; only this worker's guard knows the token.
    let ran_out_of_memory = status.code() == Some(OUT_OF_MEMORY)
        && fs::read_to_string(&report).is_ok_and(|r| has_token(&r, &token));
    let _ = fs::remove_file(&report);
    Ok(Attempt { status, ran_out_of_memory })
}

fn new_token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), now.as_nanos())
}

/// No JSON parser needed: a quote inside any other value of the report would have a backslash before it.
fn has_token(report: &str, token: &str) -> bool {
    report.contains(&format!(r#""token":"{token}""#))
}

/// As a shell tells it: the exit code, or 128 and the signal's number.
fn shell_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
