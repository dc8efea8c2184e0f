//! A report's line: what is read is written so that it is read as the same, and its lines obey no terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomguard::supervisor::Report;

fuzz_target!(|line: &str| {
    let Ok(report) = line.parse::<Report>() else { return };
    let written = report.to_json();
    assert!(written.len() <= oomguard::contract::REPORT_MAX_BYTES);
    let again: Report = written.parse().expect("what was written just now");
    assert_eq!(again.to_json(), written);
    assert!(report.to_string().chars().all(|character| character == '\n' || !character.is_control()));
});
