//! The command line as a table: arguments, exit code, and what stdout and stderr have in them.

use crate::add;
use crate::started::{Seen, State, in_state, launcher, seen};
use libtest_mimic::Trial;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::Command;

/// Arguments; the exit code; what stdout has in it; what stderr has in it. Empty: nothing was written.
type Row = (&'static [&'static str], i32, &'static str, &'static str);

const TABLE: &[Row] = &[
    (&["--help"], 0, "Usage: oomguard", ""),
    (&["--version"], 0, "oomguard 0.", ""),
    (&["run", "--help"], 0, "198", ""),
    (HELP_HELPS, 125, "", "Usage: oomguard"),
    (&["fly"], 125, "", "fly"),
    (&["run"], 125, "", "COMMAND"),
    (&["run", "--"], 125, "", "COMMAND"),
    (&["run", "--nonsense", "true"], 125, "", "--nonsense"),
    (&["run", "--", "printf", "%s", "--help"], 0, "--help", ""),
    (&["run", "echo", "-m", "1"], 0, "-m 1\n", ""),
    (&["run", "-m", "1Gi", "echo", "x"], 0, "x\n", ""),
    (&["run", "--limit=50%", "--", "echo", "x"], 0, "x\n", ""),
    (&["run", "--limit", "12Q", "--", "echo", "x"], 125, "", "12Q"),
    (&["run", "--limit", "12Q", "--", "echo", "x"], 125, "", "512Mi"),
    (&["run", "-m", "4g", "--", "echo", "x"], 125, "", "did you mean 4G or 4Gi?"),
    (&["run", "-m", "Unlimited", "--", "echo", "x"], 125, "", "did you mean off?"),
    (&["run", "--max-limit", "512mb", "--", "echo", "x"], 125, "", "did you mean 512MB or 512MiB?"),
    (&["run", "-m", "1Gi", "--measure", "address_space", "--", "echo", "x"], 0, "x\n", ""),
    (&["run", "-m", "1Gi", "--hard", "--no-infer", "--die-with-parent", "--", "echo", "x"], 0, "x\n", ""),
    (&["run", "--postmortem", "/dev/null/x", "--", "echo", "x"], 125, "", "cannot make \"/dev/null/x\""),
    (&["run", "--limit", "0", "--", "echo", "x"], 125, "", "zero"),
    (&["run", "--max-limit", "x", "--", "echo", "x"], 125, "", "--max-limit \"x\": not a number"),
    (&["run", "-m"], 125, "", "--limit needs a value"),
    (&["run", "-m", "-1", "--", "echo", "x"], 125, "", "did you mean off?"),
    (&["run", "-m", "5\nUsage: 6", "--", "echo", "x"], 125, "", "--limit \"5\\nUsage: 6\""),
    (&["run", "-m", "1Gi", "-m", "2Gi", "--", "echo", "x"], 125, "", "--limit is given more than once"),
    (&["run", "--lim", "1Gi", "--", "echo", "x"], 125, "", "'--limit'"),
    (&["run", "--quiet=1", "--", "echo", "x"], 125, "", "--quiet"),
    (&["run", "--patience", "5", "--", "echo", "x"], 125, "", "500ms, 5s or 2min"),
    (&["run", "--measure", "rss", "--", "echo", "x"], 125, "", "address-space, data or resident"),
    (
        &["run", "--measure", "rss", "--json=-", "--", "echo", "x"],
        125,
        "not a measure",
        "address-space, data",
    ),
    (&["run", "--measure", "rss", "--", "echo", "--json=-"], 125, "", "address-space, data"),
    (&["run", "--exit-code", "0", "--", "echo", "x"], 125, "", "--exit-code \"0\""),
    (&["run", "--exit-code", "+7", "--", "echo", "x"], 125, "", "1 to 255"),
    (&["run", "--exit-code", "256", "--", "echo", "x"], 125, "", "255"),
    (&["run", "--grow", "1", "--", "echo", "x"], 125, "", "above 1"),
    (&["run", "--on-refusal", "never", "--", "echo", "x"], 125, "", "immediate"),
    (&["run", "--on-refusal", "deferred", "--", "echo", "x"], 0, "x\n", ""),
    (&["run", "--on-refusal", "--", "echo", "x"], 125, "", "--on-refusal needs a value; accepted: deferred"),
    (&["run", "--retries", "-1", "--", "echo", "x"], 125, "", "--retries \"-1\": not a number"),
    (&["report", "--pid", "x", "file"], 125, "", "--pid \"x\": not a number"),
    (&["report", "--pid", "1", "--number", "2", "file"], 125, "", "cannot be used with"),
    (&["run", "--report", "fd:77", "--", "echo", "x"], 125, "", "fd:77"),
    (&["run", "--report", "", "--", "echo", "x"], 125, "", "--report \"\": empty"),
    (
        &["run", "--report", "/no/such/directory/report", "--", "echo", "x"],
        125,
        "",
        "/no/such/directory/report",
    ),
    (&["run", "--", "no-such-command"], 127, "", "no-such-command"),
    (&["run", "--", "/no/such/command"], 127, "", "/no/such/command"),
    (&["run", "--json", "fd:3", "--", "true"], 127, "", "--json=fd:3"),
    (&["run", "--json=fd:77", "--", "true"], 125, "", "fd:77 (--json): no such descriptor is open"),
    (&["run", "-m", "1Gi", "--json=-", "--", "echo", "x"], 0, "x\n{\"outcome\":", ""),
    (&["run", "--report", "-", "--", "echo", "x"], 0, "x\n", ""),
    (&["run", "--", ""], 127, "", "cannot run"),
    (&["run", "--", "/etc/passwd"], 126, "", "/etc/passwd"),
    (&["run", "--", "/"], 126, "", "cannot run \"/\""),
    (&["run", "--", "/etc/passwd/x"], 126, "", "/etc/passwd/x"),
    (&["run", "--quiet", "--", "no-such-command"], 127, "", "no-such-command"),
    (&["completions", "bash"], 0, "oomguard", ""),
    (&["completions", "zsh"], 0, "oomguard", ""),
    (&["completions", "fish"], 0, "oomguard", ""),
    (&["completions", "none"], 125, "", "none"),
];

/// What nobody asked for is told in more than a line.
const HELP_HELPS: &[&str] = &[];

/// A variable, its bad value, and what stderr has in it.
const BAD_VARIABLES: &[(&str, &str, &str)] = &[
    ("OOMGUARD_LIMIT", "12Q", "512Mi"),
    ("OOMGUARD_MEASURE", "rss", "address-space, data or resident"),
    ("OOMGUARD_EXIT_CODE", "0", "1 to 255"),
    ("OOMGUARD_EXIT_CODE", "+7", "1 to 255"),
    ("OOMGUARD_QUIET", "loud", "1, 0 or nothing"),
    ("OOMGUARD_REPORT", "fd:x", "fd:N"),
    ("OOMGUARD_RESERVE", "much", "4Mi"),
    ("OOMGUARD_ON_REFUSAL", "never", "deferred or immediate"),
    ("OOMGUARD_TOKEN", LONG, "up to 64 bytes"),
    ("OOMGUARD_STALL", "soon", "10s or 2min"),
    ("OOMGUARD_EXIT_ON_UNCAUGHT", "yes", "1, 0 or nothing"),
    ("OOMGUARD_PROFILE", "some", "on, off"),
];

/// One byte more than a token may have.
const LONG: &str = "0123456789012345678901234567890123456789012345678901234567890123x";

const NOTHING_IS_LIMITED: &str = "oomguard: nothing is limited: there is neither --limit (-m) nor a container with a limit; say -m off if that is \
     meant\n";

/// Without what is said where there is no container.
fn seen_but_for_that(command: &mut Command) -> Seen {
    let mut seen = seen(command);
    seen.stderr = seen.stderr.replacen(NOTHING_IS_LIMITED, "", 1);
    seen
}

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "arguments_give_the_code_and_the_words_of_the_table", || {
        let mut wrong = Vec::new();
        for (arguments, code, stdout, stderr) in TABLE {
            let seen = seen_but_for_that(launcher().args(*arguments));
            let has =
                |text: &str, part: &str| if part.is_empty() { text.is_empty() } else { text.contains(part) };
            let lines = seen.stderr.lines().filter(|line| !line.starts_with('{')).count();
            let is_short = stderr.is_empty() || *arguments == HELP_HELPS || lines == 1;
            if seen.code != Some(*code)
                || !has(&seen.stdout, stdout)
                || !has(&seen.stderr, stderr)
                || !is_short
            {
                wrong.push(format!("{arguments:?}: {:?} {:?} {:?}", seen.code, seen.stdout, seen.stderr));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
    add(trials, "that_nothing_is_limited_is_said_once_unless_it_is_meant", || {
        let has_container = oomguard::supervisor::Surroundings::here().container_limit().is_some();
        for (options, is_said) in [
            (&[][..], !has_container),
            (&["--retries", "3"], !has_container),
            (&["-m", "off"], false),
            (&["-m", "1Gi"], false),
            (&["-m", "50%"], false),
            (&["--quiet"], false),
        ] {
            let seen = seen(launcher().arg("run").args(options).args(["--", "true"]));
            assert_eq!(seen.stderr, if is_said { NOTHING_IS_LIMITED } else { "" }, "{options:?}");
        }
        let mut command = launcher();
        let quiet = seen(command.env("OOMGUARD_QUIET", "1").args(["run", "--", "true"]));
        assert_eq!(quiet.stderr, "");
        let limited = "ulimit -S -d 1048576; exec \"$0\" run -- true";
        let seen = seen(crate::started::shell(limited).arg(env!("CARGO_BIN_EXE_oomguard")));
        assert_eq!(seen.stderr, "");
    });
    add(trials, "bad_values_in_the_environment_keep_everything_from_starting", || {
        // Also where there is no guard in the command to tell.
        let ways = [&["run", "--", "echo", "started"][..], &["run", "--no-preload", "echo", "started"]];
        for ((name, value, part), way) in BAD_VARIABLES.iter().flat_map(|bad| ways.map(|way| (bad, way))) {
            let seen = seen(launcher().args(way).env(name, value));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(125), ""), "{name}={value}: {}", seen.stderr);
            assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
            for part in [name, value, part] {
                assert!(seen.stderr.contains(part), "{part}: {}", seen.stderr);
            }
        }
    });
    add(trials, "what_the_command_line_says_replaces_a_bad_value", || {
        for (name, options) in [
            ("OOMGUARD_LIMIT", &["-m", "1Gi"][..]),
            ("OOMGUARD_ON_REFUSAL", &["-m", "1Gi", "--on-refusal", "deferred"]),
            ("OOMGUARD_STALL", &["-m", "1Gi", "--stall", "off"]),
            ("OOMGUARD_QUIET", &["-m", "1Gi", "--quiet"]),
            ("OOMGUARD_EXIT_ON_UNCAUGHT", &["-m", "1Gi", "--exit-on-uncaught"]),
        ] {
            let seen = seen(launcher().env(name, "?").arg("run").args(options).args(["--", "echo", "x"]));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "x\n"), "{name}: {}", seen.stderr);
        }
    });
    add(trials, "no_hard_limit_can_be_held_in_a_budget_whoever_asks_for_it", || {
        let option = seen(launcher().args(["run", "--hard", "--budget", "1Gi", "--", "echo", "started"]));
        let variable =
            seen(launcher().env("OOMGUARD_BUDGET", "1Gi").args(["run", "--hard", "--", "echo", "started"]));
        for seen in [option, variable] {
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(125), ""), "{}", seen.stderr);
            assert!(seen.stderr.contains("--hard"), "{}", seen.stderr);
        }
    });
    add(trials, "a_descriptor_of_the_launchers_own_is_no_target", || {
        // 1 is closed, 100 is where the launcher hears of signals.
        for target in ["fd:1", "fd:100"] {
            for option in [format!("--report={target}"), format!("--json={target}")] {
                let mut command = launcher();
                command.args(["run", "-m", "1Gi", &option, "--", "true"]);
                let closed = State { closed: &[1, 100], ..State::default() };
                let seen = seen(in_state(&mut command, closed));
                assert_eq!(seen.code, Some(125), "{option}: {}", seen.stderr);
                assert!(seen.stderr.contains(target), "{option}: {}", seen.stderr);
            }
        }
    });
    add(trials, "that_a_report_cannot_be_written_is_said_once_and_not_if_all_is_to_be_quiet", || {
        let this = std::env::current_exe().unwrap();
        for (options, said) in [(&[][..], 1), (&["--quiet"], 0)] {
            let mut command = launcher();
            command.args(["run", "-m", "40Mi", "--report", "/dev/full"]).args(options).arg("--");
            let seen = seen(command.arg(&this).args(["role", "need", "200"]));
            assert_eq!(seen.code, Some(198), "{}", seen.stderr);
            assert_eq!(seen.stderr.matches("/dev/full").count(), said, "{}", seen.stderr);
            let lines = seen.stderr.lines().filter(|line| line.starts_with("oomguard:")).count();
            assert!(lines <= 6, "{}", seen.stderr);
        }
    });
    add(trials, "a_value_that_is_not_utf8_is_told_like_any_other", || {
        let value = OsStr::from_bytes(b"5\xff");
        let option = seen(launcher().args(["run", "-m"]).arg(value).args(["--", "echo", "started"]));
        let variable = seen(launcher().env("OOMGUARD_LIMIT", value).args(["run", "--", "echo", "started"]));
        for (seen, name) in [(option, "--limit \"5"), (variable, "OOMGUARD_LIMIT=\"5\\xFF\"")] {
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(125), ""), "{}", seen.stderr);
            assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
            assert!([name, "512Mi"].iter().all(|part| seen.stderr.contains(part)), "{}", seen.stderr);
        }
    });
    add(trials, "who_reads_reports_from_a_named_pipe_sees_no_end_before_there_is_one", || {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut options = std::fs::File::options();
        let reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
        let mut command = launcher();
        command.args(["run", "-m", "1Gi", "--report"]).arg(&pipe).arg("true");
        assert_eq!(seen(&mut command).code, Some(0));
        let mut seen = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which is open.
        unsafe { libc::poll(&raw mut seen, 1, 0) };
        assert_eq!(seen.revents & libc::POLLHUP, 0);
    });
    add(trials, "what_cannot_be_executed_is_126_and_what_is_not_there_127", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        for (content, mode, code) in [
            ("#!/bin/sh\nexit 9\n", 0o755, 9),
            ("exit 9\n", 0o755, 9), // execvp(3) gives it to the shell.
            ("#!/bin/sh\nexit 9\n", 0o644, 126),
            ("#!/no/such/interpreter\n", 0o755, 127),
        ] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let seen = seen(launcher().arg("run").arg("--").arg(&path));
            assert_eq!(seen.code, Some(code), "{content:?} {mode:o}: {}", seen.stderr);
        }
    });
}
