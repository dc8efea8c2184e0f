//! With the feature `log`, each outcome is one line in the log of whoever listens.

use log::{Level, Log, Metadata, Record};
use oomguard::supervisor::Worker;
use std::process::Command;
use std::sync::Mutex;

struct Lines(Mutex<Vec<(Level, String)>>);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "oomguard"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

#[test]
fn each_outcome_is_one_line() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    for script in ["exit 0", "exit 3"] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Worker::new(command).run().unwrap();
    }
    let lines = LINES.0.lock().unwrap();
    let [(Level::Info, success), (Level::Warn, failure)] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(success.contains("succeeded") && !success.contains('\n'), "{success}");
    assert!(failure.contains("exit code 3") && failure.contains("worker pid "), "{failure}");
}
