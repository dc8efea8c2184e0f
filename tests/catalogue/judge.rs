//! One cell of the matrix: starts the role and compares what it left behind with what it should have.

use super::{Fate, Role, Setting};
use crate::common::child::{End, Remains, Start};
use crate::common::{mebibytes, report};
use oomguard::{EXIT_OUT_OF_MEMORY, Measure, OnRefusal};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

/// The descriptor's number for `Setting::ReportToDescriptor`.
const REPORT_FD: i32 = 250;

/// The stacks that threads want under `Setting::LargeStacks`.
pub const LARGE_STACK_BYTES: usize = 256 << 20;

#[derive(Clone, Copy)]
pub struct Cell {
    pub role: &'static Role,
    pub on_refusal: OnRefusal,
    pub measure: Measure,
    pub backtrace: bool,
}

impl Cell {
    pub fn name(&self) -> String {
        let (refusal, measure) = (self.on_refusal.as_str(), self.measure.as_str());
        let backtrace = if self.backtrace { ", backtrace" } else { "" };
        format!("{} ({refusal}, {measure}{backtrace})", self.role.name)
    }

    /// Another one for each cell.
    fn token(&self) -> String {
        let mut token = format!("t\"{:x}\"", std::process::id());
        token.push_str(&self.name());
        token.truncate(64);
        token
    }
}

pub fn run(cell: &Cell) -> Result<(), String> {
    let remains = start(cell)?;
    let is_immediate = cell.on_refusal == OnRefusal::Immediate;
    let fate = if is_immediate { cell.role.immediate } else { cell.role.deferred };
    judge(cell, fate, &remains).map_err(|wrong| format!("{wrong}\n{remains:#?}"))
}

fn start(cell: &Cell) -> Result<Remains, String> {
    let mut start = Start::role(cell.role.name)
        .env("OOMGUARD_LIMIT", cell.role.limit)
        .env("OOMGUARD_ON_REFUSAL", cell.on_refusal.as_str())
        .env("OOMGUARD_MEASURE", cell.measure.as_str())
        .env("OOMGUARD_TOKEN", cell.token())
        .env("RUST_BACKTRACE", if cell.backtrace { "1" } else { "0" });
    match cell.role.setting {
        Setting::Usual => {}
        Setting::LargeStacks => start = start.env("RUST_MIN_STACK", LARGE_STACK_BYTES.to_string()),
        Setting::Quiet => start = start.env("OOMGUARD_QUIET", "1"),
        Setting::ReportRelative => start = start.env("OOMGUARD_REPORT", "report"),
        Setting::ReportToDescriptor => {
            start = start.env("OOMGUARD_REPORT", format!("fd:{REPORT_FD}"));
            let file = File::create(start.directory.path().join("report")).map_err(|e| e.to_string())?;
            let give = move || {
                // SAFETY: dup2 takes no pointer; the number is free in the child, or not needed.
                match unsafe { libc::dup2(file.as_raw_fd(), REPORT_FD) } {
                    REPORT_FD => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            };
            // SAFETY: the closure makes one system call, and does not allocate.
            unsafe { start.command.pre_exec(give) };
        }
        Setting::StderrClosed => {
            let close = || {
                // SAFETY: the child has not begun yet; nothing of it owns descriptor 2.
                unsafe { libc::close(libc::STDERR_FILENO) };
                Ok(())
            };
            // SAFETY: the closure makes one system call, and does not allocate.
            unsafe { start.command.pre_exec(close) };
            return start.run_with_stderr_as_it_is();
        }
        Setting::StderrNull => {
            let null = File::create("/dev/null").map_err(|error| error.to_string())?;
            start.command.stderr(Stdio::from(null));
            return start.run_with_stderr_as_it_is();
        }
        Setting::StderrFull => {
            let (unread, full) = full_pipe().map_err(|error| error.to_string())?;
            start.command.stderr(Stdio::from(full));
            let remains = start.run_with_stderr_as_it_is();
            drop(unread);
            return remains;
        }
    }
    start.run()
}

/// A pipe whose next write waits for ever.
fn full_pipe() -> std::io::Result<(std::io::PipeReader, OwnedFd)> {
    let (reader, mut writer) = std::io::pipe()?;
    set_flags(&writer, libc::O_NONBLOCK);
    for size in [4096, 1] {
        while writer.write(&vec![b'x'; size]).is_ok() {}
    }
    set_flags(&writer, 0);
    Ok((reader, OwnedFd::from(writer)))
}

fn set_flags(file: &impl AsRawFd, flags: i32) {
    // SAFETY: F_SETFL takes no pointer.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
}

fn judge(cell: &Cell, fate: Fate, remains: &Remains) -> Result<(), String> {
    let role = cell.role;
    let expected = match fate {
        Fate::OutOfMemory(_) => End::Exit(i32::from(EXIT_OUT_OF_MEMORY)),
        Fate::Own(end) => end,
    };
    if remains.end() != expected {
        return Err(format!("{:?} instead of {expected:?}", remains.end()));
    }
    if remains.took < role.takes_at_least {
        return Err(format!("took {:?}, which is less than {:?}", remains.took, role.takes_at_least));
    }
    // A role that `immediate` ends early does not come to its word.
    let cut_short = cell.on_refusal == OnRefusal::Immediate && role.immediate != role.deferred;
    match fate {
        Fate::OutOfMemory(causes) => {
            judge_report(cell, causes, remains)?;
            judge_lines(role, cut_short, remains)
        }
        Fate::Own(_) => judge_own(role, remains),
    }?;
    if !cut_short && !remains.stdout.contains(role.prints) {
        return Err(format!("stdout lacks {:?}", role.prints));
    }
    Ok(())
}

fn judge_report(cell: &Cell, causes: &[&str], remains: &Remains) -> Result<(), String> {
    let report = report::read(remains.report.as_deref().unwrap_or("(no file)"))?;
    let pid = if cell.role.in_child {
        let printed = remains.stdout.lines().find_map(|line| line.strip_prefix("child "));
        printed.and_then(|pid| pid.parse().ok()).ok_or("no pid of a child on stdout")?
    } else {
        u64::from(remains.pid)
    };
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = exe.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let facts: [(&str, Value); 7] = [
        ("pid", pid.into()),
        ("program", program.into()),
        ("limit", mebibytes(cell.role.limit).into()),
        ("limit_source", "environment".into()),
        ("measure", cell.measure.report_word().into()),
        ("exit_code", EXIT_OUT_OF_MEMORY.into()),
        ("token", cell.token().into()),
    ];
    for (key, expected) in facts {
        if report[key] != expected {
            return Err(format!("{key} is {} instead of {expected}", report[key]));
        }
    }
    if !causes.iter().any(|cause| report["cause"] == *cause) {
        return Err(format!("cause is {} instead of {causes:?}", report["cause"]));
    }
    let (code, signal) = (&report["own_exit_code"], &report["own_signal"]);
    // `immediate` ends before anybody knows what the program would have done.
    if !report["evidence"].is_string() || !code.is_null() && !signal.is_null() {
        return Err(format!("evidence {}, own code {code}, own signal {signal}", report["evidence"]));
    }
    let has_own_end = cell.on_refusal == OnRefusal::Deferred && !cell.role.would_hang;
    if has_own_end && code.is_null() && signal.is_null() {
        return Err("nothing said of its own end".into());
    }
    let is_main = report::number(&report, "tid")? == pid;
    if is_main != (report["thread"] == "main") {
        return Err(format!("thread {} has number {}", report["thread"], report["tid"]));
    }
    // The difference of two whole milliseconds, so that it may be one too large.
    if u128::from(report::number(&report, "uptime_ms")?) > remains.took.as_millis() + 1 {
        return Err(format!("uptime_ms is {}", report["uptime_ms"]));
    }
    Ok(())
}

/// What is ours of a line: all of it, or the end of one that another thread began.
fn ours_of(line: &str, is_crowd: bool) -> Option<&str> {
    let at = if is_crowd { line.find("oomguard: ") } else { Some(0) };
    at.and_then(|at| line.get(at..)).filter(|line| line.starts_with("oomguard:"))
}

/// The lines for people: at most six, the first of them known, and nothing of std's beside them.
fn judge_lines(role: &Role, cut_short: bool, remains: &Remains) -> Result<(), String> {
    let silent = matches!(
        role.setting,
        Setting::StderrFull | Setting::StderrClosed | Setting::StderrNull | Setting::Quiet
    );
    // std writes some of its lines in pieces, and another thread may be in the midst of one.
    let is_crowd = role.says == Some("");
    let ours: Vec<&str> = remains.stderr.lines().filter_map(|line| ours_of(line, is_crowd)).collect();
    if silent {
        return if ours.is_empty() { Ok(()) } else { Err("lines where there should be none".into()) };
    }
    if !ours.first().is_some_and(|line| line.starts_with("oomguard: out of memory: ")) {
        return Err("stderr does not begin with the known line".into());
    }
    if ours.len() > 6 {
        return Err(format!("{} lines", ours.len()));
    }
    if remains.stderr.matches("oomguard: out of memory: ").count() != 1 {
        return Err("said more than once".into());
    }
    if remains.stderr.contains("memory allocation of") {
        return Err("std's line is there as well".into());
    }
    match role.says.filter(|_| !cut_short) {
        None if ours.len() != remains.stderr.lines().count() => Err("other lines on stderr".into()),
        Some(text) if !remains.stderr.contains(text) => Err(format!("stderr lacks {text:?}")),
        _ => Ok(()),
    }
}

fn judge_own(role: &Role, remains: &Remains) -> Result<(), String> {
    if remains.report.is_some() {
        return Err("a report of what was no exhaustion".into());
    }
    // At the start of a line: a backtrace may name our functions.
    if remains.stderr.lines().any(|line| line.starts_with("oomguard:")) {
        return Err("our lines on stderr".into());
    }
    match role.says {
        None if !remains.stderr.is_empty() => Err("something on stderr".into()),
        Some(text) if !remains.stderr.contains(text) => Err(format!("stderr lacks {text:?}")),
        _ => Ok(()),
    }
}
