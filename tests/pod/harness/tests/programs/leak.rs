//! A service that leaks, in the roles that the harness's tests need.
//!
//! `leak worker`: touches memory until something ends it.
//! `leak parent`: runs a worker, tells its fate, and exits 0.
//! `leak hold MIB`: holds so much and waits to be killed.

use std::env;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker"] => touch_mib(usize::MAX),
        ["parent"] => return run_worker(),
        ["hold", mib] => {
            touch_mib(mib.parse().expect("hold takes a number of MiB"));
            thread::sleep(Duration::from_secs(600));
        }
        _ => return ExitCode::from(64),
    }
    ExitCode::SUCCESS
}

fn touch_mib(count: usize) {
    for _ in 0..count {
        // Filled with ones, leaked, and looked at, so that no optimizer removes it.
        black_box(vec![1_u8; 1 << 20].leak());
    }
}

fn run_worker() -> ExitCode {
    let program = env::current_exe().expect("/proc names this program");
    match Command::new(program).arg("worker").status() {
        Ok(status) => println!("worker: signal {:?}, code {:?}", status.signal(), status.code()),
        Err(error) => println!("worker: not started: {error}"),
    }
    ExitCode::SUCCESS
}
