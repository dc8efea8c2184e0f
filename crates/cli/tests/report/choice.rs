//! Which death of several, and what is no death.

use super::death::{DEBUG, Death, make_pipe, report};
use std::fs;
use std::path::Path;

fn refused(file: &Path, options: &[&str]) -> String {
    let output = report(file, options);
    assert_eq!(output.status.code(), Some(125), "{file:?} {options:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("oomguard: ") && text.matches('\n').count() == 1, "{text}");
    text
}

#[test]
fn of_several_deaths_the_last_is_shown_unless_another_is_chosen() {
    let death = Death::of(&DEBUG);
    let second = death.die();
    let list = death.text(&["--list"]);
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.lines().all(|line| line.contains("live, ")), "{list}");
    assert_eq!(death.json(&[])["pid"], second);
    assert_eq!(death.json(&[])["report"]["pid"], second);
    assert_eq!(death.json(&["--number", "1"])["pid"], death.pid);
    assert_eq!(death.json(&["--pid", &death.pid.to_string()])["report"]["pid"], death.pid);
    // The profile alone, and under another name.
    for name in ["report.json.profile", "elsewhere"] {
        fs::copy(death.profile(), death.path("elsewhere")).unwrap();
        let output = report(&death.path(name), &["--json"]);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&found["pid"], found["report"].is_null()),
            (&second.into(), name == "elsewhere"),
            "{name}"
        );
    }
    for (options, value) in
        [(["--number", "3"], "3"), (["--number", "0"], "0"), (["--pid", "1"], "process 1")]
    {
        assert!(refused(&death.report_file(), &options).contains(value));
    }
}

#[test]
fn a_death_without_a_profile_is_told_and_says_what_would_have_made_one() {
    let death = Death::of(&DEBUG);
    fs::remove_file(death.profile()).unwrap();
    let output = report(&death.report_file(), &[]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout.contains("Out of memory: indexer"), "{stdout}");
    for cure in ["guard!(profile = on)", "OOMGUARD_PROFILE=on", "OOMGUARD_REPORT"] {
        assert!(stderr.contains(cure), "{stderr}");
    }
    assert!(death.text(&["--list"]).contains("(no profile)"));
}

#[test]
fn a_death_without_a_profile_has_the_same_keys_in_json() {
    let death = Death::of(&DEBUG);
    let whole = death.json(&[]);
    fs::remove_file(death.profile()).unwrap();
    let output = report(&death.report_file(), &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    let bare: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, value) in whole.as_object().unwrap() {
        let expected = match key.as_str() {
            "pid" | "program" | "report" | "death" | "limit" => value,
            _ => &serde_json::Value::Null,
        };
        assert_eq!(bare.get(key), Some(expected), "{key}");
    }
    // What only a profile has cannot be written.
    for option in ["--flamegraph", "--pprof", "--folded"] {
        let file = death.path("file");
        let output = report(&death.report_file(), &[option, file.to_str().unwrap()]);
        assert_eq!((output.status.code(), file.exists()), (Some(125), false), "{option}");
        assert!(refused(&death.report_file(), &[option, "-"]).contains("no profile"), "{option}");
    }
}

#[test]
fn a_record_gets_no_other_process_profile() {
    let death = Death::of(&DEBUG);
    let first = fs::read(death.report_file()).unwrap();
    fs::remove_file(death.profile()).unwrap();
    let second = death.die();
    // The first death's report, and the second one's profile.
    fs::write(death.report_file(), first).unwrap();
    let list = death.text(&["--list"]);
    assert_eq!(list.lines().count(), 2, "{list}");
    let first = report(&death.report_file(), &["--pid", &death.pid.to_string(), "--json"]);
    let first: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&first["pid"], &first["sites"]), (&death.pid.into(), &serde_json::Value::Null));
    let shown = death.json(&[]);
    assert_eq!((&shown["pid"], shown["report"].is_null()), (&second.into(), true));
}

#[test]
fn what_holds_nothing_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("empty");
    fs::write(&file, "").unwrap();
    assert!(refused(&file, &[]).contains("OOMGUARD_PROFILE=on"));
    fs::write(&file, "\x1b[2J not JSON \n{\"oomguard\":1}\n[]\n").unwrap();
    refused(&file, &[]);
    assert!(refused(&directory.path().join("none"), &[]).contains("none"));
    assert!(refused(directory.path(), &[]).contains("--postmortem"));
    assert!(refused(Path::new("/dev/zero"), &[]).contains("no regular file"));
    let pipe = directory.path().join("pipe");
    make_pipe(&pipe);
    assert!(refused(&pipe, &[]).contains("no regular file"));
    for options in [["--top", "x"], ["--pid", "-1"], ["--nonsense", "1"]] {
        assert_eq!(report(&file, &options).status.code(), Some(125), "{options:?}");
    }
}
