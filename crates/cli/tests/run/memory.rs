//! Running out of memory: the code, the lines, the report, and another try.

use crate::add;
use crate::started::{Seen, is_about, launcher, run_shell, seen};
use libtest_mimic::Trial;
use serde_json::Value;
use std::process::Command;

/// This program, which wants so many MiB, under the launcher.
fn hungry(options: &[&str], mib: u32) -> Command {
    let mut command = launcher();
    command.arg("run").args(options).arg("--").arg(std::env::current_exe().unwrap());
    command.args(["role", "need", &mib.to_string()]);
    command
}

/// The lines that are ours.
fn ours(seen: &Seen) -> Vec<&str> {
    seen.stderr.lines().filter(|line| line.starts_with("oomguard: ")).collect()
}

fn last_line(seen: &Seen) -> Value {
    serde_json::from_str(seen.stderr.lines().last().unwrap()).unwrap()
}

/// This program in another of its roles, under the launcher.
fn playing(options: &[&str], role: &[&str]) -> Command {
    let mut command = launcher();
    command.arg("run").args(options).arg("--").arg(std::env::current_exe().unwrap());
    command.arg("role").args(role);
    command
}

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "who_ends_by_a_call_of_its_own_is_taken_at_its_last_word", || {
        let said = seen(&mut playing(&["-m", "100Mi"], &["exit-by-itself", "out of memory"]));
        assert_eq!(said.code, Some(198), "{}", said.stderr);
        assert!(said.stderr.contains("oomguard: out of memory: "), "{}", said.stderr);
        let mupdf = "error: realloc (25857450 bytes) failed";
        let said = seen(&mut playing(&["-m", "100Mi"], &["exit-by-itself", mupdf]));
        assert_eq!(said.code, Some(198), "{}", said.stderr);
        // Twins: a word that claims nothing, and no word of a refusal.
        let unsaid = seen(&mut playing(&["-m", "100Mi"], &["exit-by-itself", "no memory leaks found"]));
        assert_eq!(unsaid.code, Some(2), "{}", unsaid.stderr);
        let other =
            seen(&mut playing(&["-m", "100Mi"], &["exit-by-itself", "out of memory\nKeyError: 'id'"]));
        assert_eq!(other.code, Some(2), "{}", other.stderr);
    });
    add(trials, "what_a_command_cannot_tell_any_more_the_launcher_tells", || {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report");
        let exe = std::env::current_exe().unwrap();
        let script = format!(
            "exec \"$0\" run -m 100Mi --report fd:5 -- {} role close 5>>{}",
            exe.display(),
            report.display()
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).arg(env!("CARGO_BIN_EXE_oomguard")).env_remove("LD_PRELOAD");
        let seen = seen(&mut command);
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        assert_eq!(seen.stderr.matches("oomguard: out of memory: ").count(), 1, "{}", seen.stderr);
        let report = std::fs::read_to_string(&report).unwrap();
        assert_eq!(report.lines().count(), 1, "{report}");
        assert!(report.contains("\"event\":\"out_of_memory\""), "{report}");
        // Twin: what the command told itself is told once.
        let told = crate::started::seen(&mut playing(&["-m", "100Mi"], &["give-back"]));
        assert_eq!(told.stderr.matches("oomguard: out of memory: ").count(), 1, "{}", told.stderr);
    });
    add(trials, "hinted_a_runtimes_words_count_near_its_heap_only", || {
        for words in [
            "malloc() failed",
            "java.lang.OutOfMemoryError: Java heap space",
            "JavaScript heap out of memory",
        ] {
            for options in [&["-m", "1Gi", "--hints"][..], &["-m", "1Gi"]] {
                let seen = seen(&mut playing(options, &["say", words]));
                assert_eq!(seen.code, Some(3), "{words} {options:?}: {}", seen.stderr);
            }
        }
    });
    add(trials, "sort_runs_out_of_memory_in_every_language", || {
        let directory = tempfile::tempdir().unwrap();
        let line = directory.path().join("line");
        std::fs::write(&line, vec![b'x'; 100 << 20]).unwrap();
        let locales =
            Command::new("locale").arg("-a").output().map(|output| output.stdout).unwrap_or_default();
        let locales = String::from_utf8_lossy(&locales).into_owned();
        for (locale, listed) in [("C", "C"), ("de_DE.UTF-8", "de_DE.utf8"), ("ja_JP.UTF-8", "ja_JP.utf8")] {
            if !locales.lines().any(|line| line == listed) {
                crate::skip::skipped(format!("sort: no locale {locale} here"));
                continue;
            }
            let mut command = launcher();
            command.env("LC_ALL", locale).args(["run", "-m", "64Mi", "--", "sort"]).arg(&line);
            let starved = seen(&mut command);
            assert_eq!(starved.code, Some(198), "{locale}: {}", starved.stderr);
            // sort closes its stderr before anybody could say so.
            assert!(starved.stderr.contains("oomguard: out of memory: sort"), "{}", starved.stderr);
            // Its buffer is refused and halved; what it ends for is the file.
            let mut command = launcher();
            command.env("LC_ALL", locale).args([
                "run",
                "-m",
                "64Mi",
                "--",
                "sort",
                "-S",
                "1G",
                "/dev/null",
                "missing",
            ]);
            let handled = seen(&mut command);
            assert_eq!(handled.code, Some(2), "{locale}: {}", handled.stderr);
        }
    });
    add(trials, "what_to_try_is_judged_by_the_peak", || {
        let mut command = launcher();
        command
            .args(["run", "-m", "100Mi", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["role", "give-back"]);
        let seen = seen(&mut command);
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        assert!(seen.stderr.contains("try: a larger --limit (-m)"), "{}", seen.stderr);
    });
    add(trials, "a_command_out_of_memory_ends_with_198_and_says_why", || {
        for measure in ["data", "address-space"] {
            let seen = seen(&mut hungry(&["-m", "64Mi", "--measure", measure], 100));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(198), ""), "{}", seen.stderr);
            let lines = ours(&seen);
            assert!(lines[0].starts_with("oomguard: out of memory: "), "{}", seen.stderr);
            assert!(
                lines[1].contains("64 MiB (67108864 bytes)") && lines[1].contains(measure),
                "{}",
                seen.stderr
            );
            assert!(lines.len() <= 6);
        }
        // Twin: enough.
        assert_eq!(seen(&mut hungry(&["-m", "300Mi"], 100)).stdout, "4950\n");
    });
    add(trials, "a_name_that_a_terminal_would_obey_is_shown_and_not_obeyed", || {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("a\u{9b}31mX");
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &program).unwrap();
        let mut command = launcher();
        command.args(["run", "-m", "64Mi", "--json", "--"]).arg(&program).args(["role", "need", "100"]);
        let seen = seen(&mut command);
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        let obeyed = seen.stderr.chars().find(|character| character.is_control() && *character != '\n');
        assert_eq!(obeyed, None, "{:?}", seen.stderr);
        assert!(ours(&seen)[0].contains("out of memory: a?31mX (pid "), "{}", seen.stderr);
        assert_eq!(last_line(&seen)["report"]["program"], "a\u{9b}31mX");
    });
    add(trials, "what_becomes_of_a_refusal_is_a_choice", || {
        let coping = |options: &[&str]| {
            let mut command = launcher();
            command.args(["run", "-m", "64Mi"]).args(options).arg("--").arg(std::env::current_exe().unwrap());
            command.args(["role", "cope"]);
            command
        };
        for options in [&[][..], &["--on-refusal", "deferred"]] {
            assert_eq!(seen(&mut coping(options)).stdout, "refused\n", "{options:?}");
        }
        let immediate = ["--on-refusal", "immediate"];
        assert_eq!(seen(&mut coping(&immediate)).code, Some(198));
        let environment = |command: &mut Command| seen(command.env("OOMGUARD_ON_REFUSAL", "immediate"));
        assert_eq!(environment(&mut coping(&[])).code, Some(198));
        assert_eq!(environment(&mut coping(&["--on-refusal", "deferred"])).code, Some(0));
    });
    add(trials, "another_try_reads_a_file_again_and_is_told_that_a_pipe_is_read", || {
        let directory = tempfile::tempdir().unwrap();
        let input = directory.path().join("input");
        std::fs::write(&input, "skipped\nline\n").unwrap();
        let hungry = std::env::current_exe().unwrap();
        let oomguard = env!("CARGO_BIN_EXE_oomguard");
        let run = format!(
            "exec {oomguard} run -m 40Mi --retries 1 --grow 10 -- sh -c 'cat; exec {} role need 100'",
            hungry.display()
        );
        let file = seen(&mut crate::started::shell(&format!("exec <{}; read line; {run}", input.display())));
        assert_eq!((file.code, file.stdout.as_str()), (Some(0), "line\nline\n4950\n"), "{}", file.stderr);
        assert!(!file.stderr.contains("stdin"), "{}", file.stderr);
        let pipe = seen(&mut crate::started::shell(&format!("echo line | ({run})")));
        assert_eq!((pipe.code, pipe.stdout.as_str()), (Some(0), "line\n4950\n"), "{}", pipe.stderr);
        assert_eq!(pipe.stderr.matches("read from stdin is gone").count(), 1, "{}", pipe.stderr);
    });
    add(trials, "a_hard_limit_is_one_that_nobody_below_goes_beyond", || {
        for (options, hard) in [(&["-m", "1Gi"][..], "unlimited"), (&["-m", "1Gi", "--hard"], "1048576")] {
            let seen = seen(&mut run_shell(options, "ulimit -S -d; ulimit -H -d"));
            let (soft, rest) = seen.stdout.split_once('\n').unwrap();
            assert!(is_about(soft, "1048576") && rest == format!("{hard}\n"), "{options:?}: {}", seen.stdout);
        }
        // The last words are still to be had.
        let hungry = seen(&mut hungry(&["-m", "64Mi", "--hard"], 100));
        assert_eq!(hungry.code, Some(198), "{}", hungry.stderr);
        assert!(ours(&hungry)[1].contains("64 MiB (67108864 bytes) of data"), "{}", hungry.stderr);
        // What is resident has none.
        let seen = seen(&mut run_shell(&["-m", "1Gi", "--hard", "--measure", "resident"], "echo started"));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(125), ""), "{}", seen.stderr);
        assert!(seen.stderr.contains("no hard limit counts what is resident"), "{}", seen.stderr);
    });
    add(trials, "the_exit_code_is_a_choice", || {
        assert_eq!(seen(&mut hungry(&["-m", "64Mi", "--exit-code", "77"], 100)).code, Some(77));
        let from_environment = seen(hungry(&["-m", "64Mi"], 100).env("OOMGUARD_EXIT_CODE", "78"));
        assert_eq!(from_environment.code, Some(78));
        let both = seen(hungry(&["-m", "64Mi", "--exit-code", "77"], 100).env("OOMGUARD_EXIT_CODE", "78"));
        assert_eq!(both.code, Some(77));
    });
    add(trials, "the_environment_says_what_the_options_do_not", || {
        let limited = seen(hungry(&[], 100).env("OOMGUARD_LIMIT", "64Mi"));
        assert_eq!(limited.code, Some(198));
        let wide = seen(hungry(&["-m", "300Mi"], 100).env("OOMGUARD_LIMIT", "64Mi"));
        assert_eq!(wide.code, Some(0), "{}", wide.stderr);
        let measured = seen(hungry(&["-m", "64Mi"], 100).env("OOMGUARD_MEASURE", "address-space"));
        assert!(measured.stderr.contains("of address-space"), "{}", measured.stderr);
        for quiet in [
            seen(hungry(&["-m", "64Mi"], 100).env("OOMGUARD_QUIET", "1")),
            seen(hungry(&["-m", "50Mi", "--retries", "1", "--grow", "1.1"], 100).env("OOMGUARD_QUIET", "1")),
            seen(&mut hungry(&["-m", "64Mi", "--quiet"], 100)),
        ] {
            assert_eq!((quiet.code, ours(&quiet).len()), (Some(198), 0), "{}", quiet.stderr);
        }
    });
    add(trials, "another_try_gets_more", || {
        let retried = seen(&mut hungry(
            &["-m", "50Mi", "--retries", "2", "--grow", "4", "--max-limit", "1Gi", "--json"],
            100,
        ));
        assert_eq!((retried.code, retried.stdout.as_str()), (Some(0), "4950\n"), "{}", retried.stderr);
        assert!(
            ours(&retried).contains(&"oomguard: starting again with 200 MiB, try 2 of 3"),
            "{}",
            retried.stderr
        );
        let end = last_line(&retried);
        assert_eq!(
            (&end["outcome"], &end["tries"], &end["limit"]),
            (&"success".into(), &2.into(), &(200u64 << 20).into())
        );
        let quiet = seen(&mut hungry(
            &["-m", "50Mi", "--retries", "2", "--grow", "4", "--max-limit", "1Gi", "--quiet"],
            100,
        ));
        assert_eq!((quiet.code, ours(&quiet).len()), (Some(0), 0), "{}", quiet.stderr);
    });
    add(trials, "retries_end_with_their_number_and_at_the_largest_limit", || {
        for (options, tries) in [
            (&["--retries", "1", "--grow", "1.1", "--max-limit", "1Gi"][..], 2),
            (&["--retries", "9", "--max-limit", "60Mi"], 2),
            (&["--retries", "9", "--max-limit", "50Mi"], 1),
            (&[], 1),
        ] {
            let options = [&["-m", "50Mi", "--json"], options].concat();
            let seen = seen(&mut hungry(&options, 100));
            assert_eq!(seen.code, Some(198), "{}", seen.stderr);
            assert_eq!(last_line(&seen)["tries"], tries, "{options:?} {}", seen.stderr);
        }
        // Another failure is no reason to try again.
        let failed = seen(&mut run_shell(&["-m", "50Mi", "--retries", "3", "--json"], "exit 3"));
        assert_eq!((failed.code, &last_line(&failed)["tries"]), (Some(3), &1.into()));
    });
    add(trials, "a_command_that_cannot_start_is_told_in_json", || {
        let ended = last_line(&seen(&mut run_shell(&["--json"], "exit 0")));
        for (options, command, code, what) in [
            (&["--json"][..], "no-such-command", 127, "no-such-command"),
            (&["--json", "--quiet"], "/etc/passwd", 126, "/etc/passwd"),
            (&["--json", "--retries", "3"], "true", 125, "OOMGUARD_MEASURE"),
        ] {
            let mut command_line = launcher();
            command_line.arg("run").args(options).args(["--", command]);
            if code == 125 {
                command_line.env("OOMGUARD_MEASURE", "rss");
            }
            let seen = seen(&mut command_line);
            let told = last_line(&seen);
            assert_eq!((seen.code, &told["exit_code"]), (Some(code), &code.into()), "{}", seen.stderr);
            assert_eq!(told["outcome"], "cannot_start");
            let error = told["error"].as_str().unwrap();
            assert!(error.contains(what), "{error}");
            assert_eq!(seen.stderr.lines().next().unwrap(), format!("oomguard: {error}"));
            let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&told), keys(&ended));
            let others = told
                .as_object()
                .unwrap()
                .iter()
                .filter(|(key, _)| !["outcome", "exit_code", "error"].contains(&key.as_str()));
            assert!(
                others.clone().count() == 13 && others.clone().all(|(_, value)| value.is_null()),
                "{told}"
            );
        }
        // The guard in the command says why it cannot guard.
        for (options, name, value, what) in [
            (&["-m", "4k"][..], "OOMGUARD_TOKEN", "", "4000 bytes"),
            (&["-m", "1Gi"], "OOMGUARD_RESERVE", "much", "OOMGUARD_RESERVE=\"much\""),
            (&["-m", "1Gi", "--measure", "data"], "OOMGUARD_QUIET", "loud", "OOMGUARD_QUIET=\"loud\""),
        ] {
            let options = [&["--json"], options].concat();
            let seen = seen(run_shell(&options, "exit 0").env(name, value));
            let told = last_line(&seen);
            assert_eq!((seen.code, &told["exit_code"]), (Some(125), &125.into()), "{}", seen.stderr);
            assert_eq!(told["outcome"], "cannot_start", "{told}");
            let error = told["error"].as_str().unwrap();
            assert!(error.contains(what), "{error}");
            assert_eq!(seen.stderr.lines().next().unwrap(), format!("oomguard: {error}"));
        }
        let own = seen(&mut run_shell(&["-m", "1Gi", "--json"], "exit 125"));
        assert_eq!((own.code, &last_line(&own)["outcome"]), (Some(125), &"exited".into()), "{}", own.stderr);
        // The dynamic linker itself has no room.
        let seen = seen(&mut run_shell(&["--json", "--measure", "data", "-m", "8Ki"], "exit 0"));
        let told = last_line(&seen);
        assert_eq!((seen.code, &told["outcome"]), (Some(125), &"cannot_start".into()), "{}", seen.stderr);
        assert!(told["error"].as_str().unwrap().contains("--limit"), "{told}");
    });
    add(trials, "the_end_is_told_in_json", || {
        let end = |options: &[&str], script: &str| {
            let seen = seen(&mut run_shell(&[&["--json", "-m", "1Gi"], options].concat(), script));
            assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
            last_line(&seen)
        };
        let success = end(&[], "exit 0");
        for key in [
            "outcome",
            "exit_code",
            "error",
            "signal",
            "pid",
            "tries",
            "limit",
            "measure",
            "resident_peak",
            "ran_for_ms",
            "inferred",
            "report",
            "doubtful",
            "refusals",
            "last_refused",
            "descendants",
        ] {
            assert!(success.get(key).is_some(), "{key}: {success}");
        }
        assert_eq!(success["error"], Value::Null);
        assert_eq!((&success["outcome"], &success["exit_code"]), (&"success".into(), &0.into()));
        assert_eq!((&success["limit"], &success["measure"]), (&(1u64 << 30).into(), &"resident".into()));
        assert!(success["resident_peak"].as_u64().unwrap() > 100_000);
        let exited = end(&[], "exit 198");
        assert_eq!(
            (&exited["outcome"], &exited["exit_code"], &exited["report"]),
            (&"exited".into(), &198.into(), &Value::Null)
        );
        let signaled = end(&["--measure", "address-space"], "kill -9 $$");
        assert_eq!(
            (&signaled["outcome"], &signaled["exit_code"], &signaled["signal"]),
            (&"signaled".into(), &137.into(), &9.into())
        );
        assert_eq!(signaled["measure"], "address_space");
        let hungry = last_line(&seen(hungry(&["--json", "-m", "64Mi"], 100).env("OOMGUARD_TOKEN", "job-17")));
        assert_eq!(
            (&hungry["outcome"], &hungry["report"]["token"]),
            (&"out_of_memory".into(), &"job-17".into()),
            "{hungry}"
        );
        assert_eq!((&hungry["report"]["limit"], &hungry["inferred"]), (&(64u64 << 20).into(), &false.into()));
    });
    add(trials, "the_report_goes_where_it_is_told", || {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report");
        let path = report.to_str().unwrap();
        let read = || serde_json::from_str::<Value>(&std::fs::read_to_string(&report).unwrap()).unwrap();
        seen(&mut hungry(&["-m", "64Mi", "--report", path], 100));
        assert_eq!(read()["event"], "out_of_memory");
        let program = std::env::current_exe().unwrap();
        let line = format!(
            "exec 9>{path}; exec {} run -m 64Mi --report fd:9 -- {} role need 100",
            env!("CARGO_BIN_EXE_oomguard"),
            program.display()
        );
        std::fs::remove_file(&report).unwrap();
        assert_eq!(seen(&mut crate::started::shell(&line)).code, Some(198));
        assert_eq!(read()["event"], "out_of_memory");
        seen(hungry(&["-m", "64Mi"], 100).env("OOMGUARD_REPORT", path));
        assert_eq!(std::fs::read_to_string(&report).unwrap().lines().count(), 2, "appended");
    });
    add(trials, "a_limit_that_nothing_can_start_with_is_no_code_of_the_commands", || {
        for measure in ["data", "address-space"] {
            let seen = seen(&mut hungry(&["-m", "16Ki", "--measure", measure], 1));
            assert_eq!((seen.code, ours(&seen).len()), (Some(125), 1), "{}", seen.stderr);
        }
    });
}
