//! The result for the host: lines `key=value`. Its reader is the harness's `Report`.

use crate::container::{Ended, cgroup_file};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

pub fn write(to: &mut File, ended: &Ended, timed_out: bool) -> Result<(), String> {
    let mut lines = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing into a String does not fail.
        let _ = writeln!(lines, "{key}={value}");
    };
    line("exit", &ended.exit.to_string());
    if let Some(signal) = ended.signal {
        line("signal", &signal.to_string());
    }
    line("timed_out", &timed_out.to_string());
    line("memory_peak", read(cgroup_file("memory.peak"))?.trim());
    for event in read(cgroup_file("memory.events"))?.lines() {
        if let Some((key, count)) = event.split_once(' ') {
            line(key, count);
        }
    }
    line("wall_ms", &ended.wall.as_millis().to_string());
    line("kernel", read("/proc/sys/kernel/osrelease")?.trim());
    to.write_all(lines.as_bytes()).map_err(|e| format!("cannot write the result: {e}"))
}

fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}
