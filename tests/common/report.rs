//! The report, read as a stranger would: one line of JSON with all keys in the order of the contract.

use oomguard::contract::{REPORT_KEYS, REPORT_MAX_BYTES};
use serde_json::{Map, Value};

/// Reads a report file's content; says what is wrong with it otherwise.
pub fn read(content: &str) -> Result<Map<String, Value>, String> {
    let wrong = |what: &str| Err(format!("the report {what}: {content:?}"));
    if content.len() > REPORT_MAX_BYTES {
        return wrong("is too long");
    }
    let Some(line) = content.strip_suffix('\n') else { return wrong("does not end in a newline") };
    if line.contains('\n') {
        return wrong("is not one line");
    }
    let report: Map<String, Value> = match serde_json::from_str(line) {
        Ok(report) => report,
        Err(error) => return wrong(&format!("is not a JSON object ({error})")),
    };
    if !report.keys().map(String::as_str).eq(REPORT_KEYS) {
        return wrong("has other keys, or another order");
    }
    if report["oomguard"] != 1 || report["event"] != "out_of_memory" {
        return wrong("has another version or event");
    }
    Ok(report)
}

/// The number of a key that must have one.
pub fn number(report: &Map<String, Value>, key: &str) -> Result<u64, String> {
    report[key].as_u64().ok_or_else(|| format!("{key} is {}, not a number", report[key]))
}
