//! `oomguard doctor` from outside: exit codes, and what it says here.

use serde_json::Value;
use std::process::{Command, Output};

/// Through a shell, for ulimit.
fn doctor(before: &str, arguments: &str, environment: &[(&str, &str)]) -> Output {
    let script = format!("{before} exec '{}' doctor {arguments}", env!("CARGO_BIN_EXE_oomguard"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OOMGUARD_") {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().copied()).output().unwrap()
}

fn json(before: &str, environment: &[(&str, &str)]) -> Value {
    let output = doctor(before, "--json", environment);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn it_ends_with_0_and_says_on_plain_lines_what_holds() {
    let output = doctor("", "", &[("OOMGUARD_LIMIT", "512Mi")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{text}");
    for part in [
        "RLIMIT_DATA",
        "512 MiB",
        "of resident",
        "of address-space",
        "OOMGUARD_LIMIT",
        "GOMEMLIMIT=409MiB",
        "--budget auto",
        "--exit-on-uncaught",
        "--on-refusal immediate",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn a_budget_that_run_would_set_is_told() {
    let output = doctor("", "", &[("OOMGUARD_BUDGET", "300Mi")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("300 MiB"), "{text}");
    assert!(text.contains("from OOMGUARD_BUDGET"), "{text}");
    assert!(!text.contains("nothing limits memory"), "{text}");
}

#[test]
fn a_guard_can_be_preloaded_and_recorded_where_these_tests_run() {
    // Whatever the user's own settings are.
    let found = json("", &[("OOMGUARD_LIMIT", "1Ki"), ("OOMGUARD_RESERVE", "nonsense")]);
    for probe in ["record", "preload"] {
        assert_eq!(found["works"][probe]["works"], true, "{found}");
    }
    // Refused in some containers; then it says why.
    let tracing = &found["works"]["tracing"];
    assert_eq!(tracing["works"].as_bool(), Some(tracing["error"].is_null()), "{found}");
}

#[test]
fn the_rlimits_of_the_caller_are_told_and_win() {
    let limited =
        |more: &[(&str, &str)]| json("ulimit -S -d 262144;", &[&[("OOMGUARD_LIMIT", "1Gi")], more].concat());
    // No rlimit counts what is resident.
    let found = limited(&[]);
    assert_eq!(found["rlimits"]["data"]["soft"], 256 << 20, "{found}");
    assert_eq!(
        (&found["run"]["limit"], &found["run"]["measure"]),
        (&(1 << 30).into(), &"resident".into()),
        "{found}"
    );
    assert_eq!(found["guard"]["limit"], 1 << 30, "{found}");
    let found = limited(&[("OOMGUARD_MEASURE", "data")]);
    assert_eq!(found["rlimits"]["data"]["soft"], 256 << 20, "{found}");
    assert_eq!(found["run"]["limit"], 256 << 20, "{found}");
    assert_eq!(found["run"]["limit_source"], "rlimit", "{found}");
    assert_eq!(found["hints"]["GOMEMLIMIT"], "204MiB", "{found}");
}

#[test]
fn what_would_keep_run_from_its_job_ends_with_125() {
    let output = doctor("", "", &[("OOMGUARD_LIMIT", "lots")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("OOMGUARD_LIMIT=\"lots\""), "{text}");
}

#[test]
fn the_budget_that_it_is_in_is_told() {
    let doctor = env!("CARGO_BIN_EXE_oomguard");
    let mut command = Command::new(doctor);
    command.args(["run", "--budget", "200Mi", "--", doctor, "doctor", "--json"]);
    let output = command.env_remove("OOMGUARD_LEDGER").output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["budget"]["joined"]["bytes"], 200 << 20, "{found}");
    assert!(json("", &[])["budget"]["joined"].is_null());
}

#[test]
fn unknown_options_end_with_125() {
    assert_eq!(doctor("", "--nonsense", &[]).status.code(), Some(125));
}

#[test]
fn variables_that_nobody_heeds_are_noticed() {
    let text = |environment: &[(&str, &str)]| String::from_utf8(doctor("", "", environment).stdout).unwrap();
    assert!(text(&[("OOMGUARD_LIMIT", "1Gi")]).contains("that alone limits nothing"));
    assert!(text(&[("OOMGUARD_MEASURE", "data")]).contains("set here: OOMGUARD_MEASURE"));
    let preloaded = [("OOMGUARD_LIMIT", "1Gi"), ("LD_PRELOAD", "/no/such/liboomguard.so")];
    for environment in [&[][..], &preloaded] {
        assert!(!text(environment).contains("limits nothing"));
    }
}

#[test]
fn what_keeps_run_from_starting_is_told() {
    for (name, value) in [
        ("OOMGUARD_LIMIT", "4g"),
        ("OOMGUARD_MEASURE", "rss"),
        ("OOMGUARD_EXIT_CODE", "0"),
        ("OOMGUARD_VERDICT", "sure"),
        ("OOMGUARD_ON_REFUSAL", "never"),
        ("OOMGUARD_STALL", "5"),
    ] {
        let output = doctor("", "", &[(name, value)]);
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.join(" ").contains(&format!("! {name}=\"{value}\" in the environment: ")), "{text}");
    }
}

#[test]
fn a_misspelt_variable_is_told() {
    let output = doctor("", "", &[("OOMGUARD_LIMITS", "512Mi")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = "there is no variable OOMGUARD_LIMITS; did you mean OOMGUARD_LIMIT?";
    assert!(words.join(" ").contains(line), "{text}");
}
