//! One cell of the matrix: starts the program under the launcher and compares what it left behind with what it should.

use crate::common::{mebibytes, report};
use crate::languages::{Fate, Language, Row};
use crate::runtime;
use oomguard::{EXIT_OUT_OF_MEMORY, Measure};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// No way takes longer than this, unless it hangs. coreutils' timeout(1) then ends the whole group with 124.
const TIME_LIMIT_SECONDS: &str = "180";

#[derive(Clone, Copy)]
pub struct Cell {
    pub language: &'static Language,
    pub row: &'static Row,
    pub measure: Measure,
    pub limit: &'static str,
    /// The exit code that the program is asked to end with, where it comes that far.
    pub code: i32,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Remains {
    pub output: Output,
    pub report: Option<String>,
}

impl Cell {
    /// Every cell of this language under one measure.
    pub fn all(language: &'static Language, measure: Measure) -> Vec<Cell> {
        let limit = match measure {
            Measure::Data | Measure::Resident => language.data,
            _ => language.address_space,
        };
        let Some(limit) = limit else { return Vec::new() };
        let rows = language.rows.iter().filter(|row| row.only.is_none_or(|only| only == measure));
        rows.flat_map(|row| {
            let codes: &[i32] = match &row.fate {
                Fate::Chosen => &[0, 3],
                Fate::Own(code) => std::slice::from_ref(code),
                Fate::OutOfMemory(_) => &[3],
            };
            codes.iter().map(move |&code| Cell { language, row, measure, limit, code })
        })
        .collect()
    }

    pub fn name(&self) -> String {
        let Row { way, flags, .. } = self.row;
        let flags: String = flags.iter().map(|flag| format!(" {flag}")).collect();
        let code =
            if matches!(self.row.fate, Fate::Chosen) { format!(" {}", self.code) } else { String::new() };
        format!("{}: {way}{code}{flags} ({})", self.language.name, self.measure.as_str())
    }

    pub fn run(&self) -> Result<(), String> {
        let remains = self.start()?;
        self.judge(&remains).map_err(|wrong| format!("{wrong}\n{}", remains.tell()))
    }

    pub fn start(&self) -> Result<Remains, String> {
        let directory = TempDir::with_prefix("oomguard-test-").map_err(|error| error.to_string())?;
        let report = directory.path().join("report");
        let mut command = Command::new("timeout");
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"OOMGUARD_") {
                command.env_remove(name);
            }
        }
        command
            .args(["--kill-after=5", TIME_LIMIT_SECONDS])
            .arg(env!("CARGO_BIN_EXE_oomguard"))
            .args(["run", "--limit", self.limit, "--measure", self.measure.as_str(), "--report"])
            .arg(&report)
            .arg("--")
            .args(runtime::command(self.language, self.row, self.code)?)
            .envs(runtime::environment(self.language)?)
            .current_dir(directory.path())
            .stdin(Stdio::null());
        // A core file of a process that filled its memory is of no use to anybody.
        let output = command.output().map_err(|error| format!("timeout: {error}"))?;
        let report = std::fs::read(&report).ok().filter(|content| !content.is_empty());
        Ok(Remains { output, report: report.map(|content| String::from_utf8_lossy(&content).into_owned()) })
    }

    fn judge(&self, remains: &Remains) -> Result<(), String> {
        let expected = self.expected();
        if remains.code() != expected {
            return Err(format!("{} instead of {expected}", remains.code()));
        }
        match self.row.fate {
            Fate::OutOfMemory(causes) => self.judge_exhausted(causes, remains),
            Fate::Chosen | Fate::Own(_) => judge_own(remains),
        }
    }

    /// The exit code that the launcher has to end with.
    pub fn expected(&self) -> i32 {
        match self.row.fate {
            Fate::OutOfMemory(_) => i32::from(EXIT_OUT_OF_MEMORY),
            Fate::Chosen => self.code,
            Fate::Own(code) => code,
        }
    }

    fn judge_exhausted(&self, causes: &[&str], remains: &Remains) -> Result<(), String> {
        let mut content = remains.report.clone().ok_or("no report")?;
        if self.language.inferred {
            let without = content
                .strip_suffix(",\"inferred\":true}\n")
                .ok_or("the report is not marked as inferred")?;
            content = format!("{without}}}\n");
        }
        let record = report::read(&content)?;
        let facts = [
            // A runtime that is refused its heap does not come as far as printing its pid.
            ("pid", pid(remains).map_or_else(|| record["pid"].clone(), Into::into)),
            ("limit", mebibytes_or_gibibytes(self.limit).into()),
            ("measure", self.measure.report_word().into()),
            ("exit_code", serde_json::Value::from(EXIT_OUT_OF_MEMORY)),
        ];
        for (key, expected) in facts {
            if record[key] != expected {
                return Err(format!("{key} is {} instead of {expected}", record[key]));
            }
        }
        if !causes.iter().any(|cause| record["cause"] == *cause) {
            return Err(format!("cause is {} instead of one of {causes:?}", record["cause"]));
        }
        let program = record["program"].as_str().unwrap_or_default();
        if !program.starts_with(self.language.program) {
            return Err(format!("program is {program:?}"));
        }
        let stderr = remains.stderr();
        match stderr.matches("oomguard: out of memory: ").count() {
            1 => {}
            count => return Err(format!("{count} times our first line on stderr")),
        }
        match stderr.lines().filter(|line| line.starts_with("oomguard: ")).count() {
            ..=6 => Ok(()),
            count => Err(format!("{count} lines of ours")),
        }
    }
}

fn judge_own(remains: &Remains) -> Result<(), String> {
    if remains.report.is_some() {
        return Err("a report of what was no exhaustion".into());
    }
    if remains.stderr().contains("oomguard:") {
        return Err("our lines on stderr".into());
    }
    Ok(())
}

/// The pid that the program printed.
fn pid(remains: &Remains) -> Option<u64> {
    let stdout = String::from_utf8_lossy(&remains.output.stdout);
    stdout.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok())
}

fn mebibytes_or_gibibytes(limit: &str) -> u64 {
    match limit.strip_suffix("Gi") {
        Some(number) => number.parse::<u64>().expect("written as 1Gi") << 30,
        None => mebibytes(limit),
    }
}

impl Remains {
    /// As a shell tells it.
    pub fn code(&self) -> i32 {
        let status = self.output.status;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("a process that ended")
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn tell(&self) -> String {
        let head = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(2000)]).into_owned();
        let Output { status, stdout, stderr } = &self.output;
        format!("{status}\nstdout: {}\nstderr: {}\nreport: {:?}", head(stdout), head(stderr), self.report)
    }
}
