//! Who may speak: a wrapper that passes an end on, a descendant whose end was swallowed, a program that could not speak.

use crate::add;
use crate::started::{Seen, State, in_state, launcher, run_shell, seen, shell};
use libtest_mimic::Trial;
use serde_json::Value;
use std::process::Command;

/// This program in a role, as a shell's child.
fn child(role: &str) -> String {
    format!("{} role {role}", std::env::current_exe().unwrap().display())
}

fn direct(options: &[&str], role: &[&str]) -> Command {
    let mut command = launcher();
    command.arg("run").args(options).arg("--").arg(std::env::current_exe().unwrap()).arg("role").args(role);
    command
}

fn told(seen: &Seen) -> Value {
    serde_json::from_str(seen.stderr.lines().last().unwrap()).unwrap()
}

fn reports(seen: &Seen) -> usize {
    seen.stderr.lines().filter(|line| line.starts_with("oomguard: out of memory: ")).count()
}

/// As rsync: its child tells it that memory is gone, and takes longer to end than it does.
const HASTY: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
int main(void)
{
    struct timespec time = {.tv_nsec = 30000000};
    int ends[2];
    char byte;
    if (pipe(ends))
        return 77;
    if (fork()) {
        close(ends[1]);
        return read(ends[0], &byte, 1) == 0 ? 22 : 77;
    }
    for (void *block = ends; block;)
        if ((block = malloc(1 << 20)))
            memset(block, 1, 1 << 20);
    if (write(2, "out of memory\n", 14) != 14)
        return 77;
    close(ends[0]);
    close(ends[1]);
    nanosleep(&time, 0);
    exit(22);
}
"#;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_child_that_says_what_it_ends_of_is_told_of_though_its_parent_ends_first", || {
        let directory = tempfile::tempdir().unwrap();
        let [source, program] = ["hasty.c", "hasty"].map(|name| directory.path().join(name));
        std::fs::write(&source, HASTY).unwrap();
        let Some(compiler) = crate::c::c() else { return };
        crate::c::compile(Command::new(compiler).arg("-o").arg(&program).arg(&source));
        for (options, code) in [(&[][..], 22), (&["--any-descendant"], 198)] {
            let mut command = launcher();
            command.args(["run", "-m", "64Mi", "--json"]).args(options).arg("--").arg(&program);
            let seen = seen(&mut command);
            assert_eq!((seen.code, reports(&seen)), (Some(code), 1), "{options:?}: {}", seen.stderr);
            assert_eq!(told(&seen)["descendants"][0]["own_exit_code"], 22, "{}", seen.stderr);
        }
    });
    add(trials, "a_code_that_a_shell_passes_on_is_proved_by_its_child", || {
        let script = format!("{}; exit $?", child("need 100"));
        let seen = seen(&mut run_shell(&["-m", "64Mi", "--json"], &script));
        assert_eq!((seen.code, reports(&seen)), (Some(198), 1), "{}", seen.stderr);
        let told = told(&seen);
        assert_eq!(told["outcome"], "out_of_memory");
        assert_ne!(told["report"]["pid"], told["pid"]);
        assert_eq!((&told["report"], told["inferred"].as_bool()), (&told["descendants"][0], Some(false)));
    });
    add(trials, "what_a_shells_child_ran_out_of_is_given_to_the_next_try", || {
        let script = format!("{}; exit $?", child("need 100"));
        let options = ["-m", "64Mi", "--retries", "1", "--grow", "4", "--max-limit", "1Gi"];
        let seen = seen(&mut run_shell(&options, &script));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "4950\n"), "{}", seen.stderr);
    });
    add(trials, "what_make_swallows_is_told_and_counts_and_is_tried_again_if_that_is_wanted", || {
        if seen(&mut shell("make --version")).code != Some(0) {
            return crate::skip::skipped("no make");
        }
        let script = format!("printf 'all:\\n\\t@{}\\n' | make -s -f -", child("need 100"));
        let plain = seen(&mut run_shell(&["-m", "64Mi", "--json"], &script));
        assert_eq!(plain.code, Some(2), "{}", plain.stderr);
        assert_eq!(told(&plain)["descendants"][0]["exit_code"], 198);
        let any = ["-m", "64Mi", "--any-descendant"];
        let fallen = seen(&mut run_shell(&any, &script));
        assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{}", fallen.stderr);
        let again = [&any[..], &["--retries", "1", "--grow", "4"]].concat();
        let done = seen(&mut run_shell(&again, &script));
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), "4950\n"), "{}", done.stderr);
    });
    add(trials, "a_code_that_nothing_proves_is_the_commands_own", || {
        let seen = seen(&mut run_shell(&["-m", "64Mi", "--json", "--retries", "3"], "exit 198"));
        assert_eq!(seen.code, Some(198));
        assert_eq!((&told(&seen)["outcome"], &told(&seen)["tries"]), (&"exited".into(), &1.into()));
    });
    add(trials, "an_end_that_was_swallowed_is_told_and_counts_if_that_is_wanted", || {
        for (end, code) in [("exit 2", 2), ("true", 0)] {
            let script = format!("{}; {end}", child("need 100"));
            let plain = seen(&mut run_shell(&["-m", "64Mi", "--json"], &script));
            assert_eq!(plain.code, Some(code), "{}", plain.stderr);
            let told_plain = told(&plain);
            assert_eq!(told_plain["report"], Value::Null);
            assert_eq!(told_plain["descendants"][0]["exit_code"], 198);
            let any = seen(&mut run_shell(&["-m", "64Mi", "--json", "--any-descendant"], &script));
            assert_eq!((any.code, reports(&any)), (Some(198), 1), "{}", any.stderr);
            assert_eq!(told(&any)["report"]["requested"], 1 << 20);
        }
        let none = seen(&mut run_shell(&["-m", "64Mi", "--any-descendant"], "exit 2"));
        assert_eq!(none.code, Some(2));
    });
    add(trials, "a_wrapper_that_ends_as_its_child_was_ended_passes_that_on", || {
        // Nothing of ours is in it, and nothing is refused: somebody has to look.
        let held = format!("env -i {}", child("hold anonymous 400"));
        let run = |end: &str| seen(&mut run_shell(&["-m", "100Mi", "--json"], &format!("{held}; {end}")));
        for end in ["exit $?", "kill -KILL $$"] {
            let passed_on = run(end);
            assert_eq!((passed_on.code, reports(&passed_on)), (Some(198), 1), "{end}: {}", passed_on.stderr);
            assert_eq!(told(&passed_on)["report"]["cause"], "resident", "{end}");
        }
        let swallowed = run("exit 1");
        assert_eq!((swallowed.code, reports(&swallowed)), (Some(1), 0), "{}", swallowed.stderr);
        assert_eq!(told(&swallowed)["descendants"][0]["cause"], "resident");
    });
    add(trials, "a_child_that_was_ended_after_its_words_is_not_what_its_parent_ends_of", || {
        // As Jest ends its workers, and then tells of its tests.
        let script =
            format!("{} | {{ read pid; kill $pid; sleep 0.3; exit 1; }}", child("announce 'out of memory'"));
        let seen = seen(&mut run_shell(&["-m", "100Mi"], &script));
        assert_eq!((seen.code, reports(&seen)), (Some(1), 0), "{}", seen.stderr);
    });
    add(trials, "a_wrapper_that_fails_by_itself_does_not_end_of_what_its_child_said", || {
        let fallen = child("leave 'out of memory\n'");
        let run = |script: String| seen(&mut run_shell(&["-m", "64Mi", "--json"], &script));
        for (end, code) in [("exit 3", 3), ("sh -c 'exit 2'; exit $?", 2), ("sh -c 'exit 2' || exit 1", 1)] {
            let own = run(format!("{fallen}; {end}"));
            assert_eq!((own.code, reports(&own)), (Some(code), 0), "{end}: {}", own.stderr);
        }
        // Whoever is in between.
        for script in [
            format!("{fallen}; exit $?"),
            format!("timeout 50 {fallen}; exit $?"),
            format!("(trap : TERM; {fallen}; exit $?); exit $?"),
        ] {
            let passed_on = run(script);
            assert_eq!((passed_on.code, reports(&passed_on)), (Some(198), 1), "{}", passed_on.stderr);
            assert_eq!(told(&passed_on)["report"]["own_exit_code"], 2);
        }
    });
    add(trials, "who_may_not_open_the_record_or_finds_it_not_is_given_it", || {
        let program = child("need 100");
        for wrapper in ["unshare -U -r", "unshare -U -r -p -f --mount-proc", "runuser -u nobody --"] {
            let can = seen(&mut shell(&format!("{wrapper} true")));
            let reach =
                seen(&mut shell(&format!("{wrapper} test -x {}", program.split(' ').next().unwrap())));
            if can.code != Some(0) || reach.code != Some(0) {
                crate::skip::skipped(format!("{wrapper}: not allowed here"));
                continue;
            }
            for script in [format!("exec {wrapper} {program}"), format!("{wrapper} {program}; exit $?")] {
                let seen = seen(&mut run_shell(&["-m", "64Mi", "--json"], &script));
                assert_eq!((seen.code, reports(&seen)), (Some(198), 1), "{script}: {}", seen.stderr);
                assert_eq!(told(&seen)["outcome"], "out_of_memory", "{script}");
            }
            // The numbers in a ledger are no processes there.
            if !wrapper.contains("-p") {
                let script = format!("{wrapper} {program}; exit $?");
                let seen = seen(&mut run_shell(&["--budget", "64Mi", "--json"], &script));
                assert_eq!(seen.code, Some(198), "{script}: {}", seen.stderr);
                assert_eq!(told(&seen)["report"]["limit_source"], "budget", "{script}");
            }
        }
    });
    add(trials, "who_has_a_tmp_of_its_own_is_guarded_as_others_are", || {
        let in_sandbox =
            |words: &str| format!("unshare -m /bin/sh -c 'mount -t tmpfs none /tmp && exec {words}'");
        if seen(shell(&in_sandbox("true")).env_remove("TMPDIR")).code != Some(0) {
            return crate::skip::skipped("unshare -m, and a mount there: not allowed here");
        }
        let mut command = run_shell(&["-m", "64Mi", "--json"], &in_sandbox(&child("need 100")));
        let fallen = seen(command.env_remove("TMPDIR"));
        assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{}", fallen.stderr);
        assert_ne!(told(&fallen)["report"]["evidence"], "outside", "{}", fallen.stderr);
    });
    add(trials, "descendants_are_told_in_the_order_of_their_ends", || {
        let names: String = (0..40)
            .map(|n| format!("ln -s {0} d/p{n}; ", std::env::current_exe().unwrap().display()))
            .collect();
        let runs: String = (0..40).map(|n| format!("d/p{n} role need 100; ")).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut command =
            run_shell(&["-m", "64Mi", "--json", "--quiet"], &format!("mkdir d; {names}{runs}exit 7"));
        let seen = seen(command.current_dir(directory.path()));
        assert_eq!(seen.code, Some(7), "{}", seen.stderr);
        let told = told(&seen);
        let programs: Vec<&str> = told["descendants"]
            .as_array()
            .unwrap()
            .iter()
            .map(|report| report["program"].as_str().unwrap())
            .collect();
        assert_eq!(programs, (9..40).map(|n| format!("p{n}")).collect::<Vec<_>>(), "the last ones");
    });
    add(trials, "who_leaves_by_a_system_call_of_its_own_is_spoken_for", || {
        for words in ["", "out of memory\n"] {
            let directly = seen(&mut direct(&["-m", "64Mi", "--json"], &["leave", words]));
            assert_eq!((directly.code, reports(&directly)), (Some(198), 1), "{}", directly.stderr);
            let told = told(&directly);
            let report = &told["report"];
            assert_eq!((&report["evidence"], &report["own_exit_code"]), (&"outside".into(), &2.into()));
            assert!(report["data"].as_u64().unwrap() > 60 << 20, "{report}");
        }
        for (role, code) in [(&["leave", "configuration file is broken\n"][..], 2), (&["go-on-and-leave"], 3)]
        {
            let own = seen(&mut direct(&["-m", "64Mi", "--json"], role));
            assert_eq!((own.code, reports(&own)), (Some(code), 0), "{}", own.stderr);
            assert_eq!(told(&own)["last_refused"], 1 << 20);
            assert!(told(&own)["refusals"].as_u64() >= Some(1));
        }
    });
    add(trials, "a_stream_that_is_closed_from_the_start_costs_the_verdict_nothing", || {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("told.json");
        let json = format!("--json={}", file.display());
        for closed in [&[0][..], &[1], &[2], &[0, 1, 2]] {
            let options = ["-m", "64Mi", "--retries", "1", "--max-limit", "80Mi", &json];
            let state = State { closed, ..State::default() };
            let fallen = seen(in_state(&mut direct(&options, &["need", "200"]), state));
            assert_eq!(fallen.code, Some(198), "{closed:?}: {}", fallen.stderr);
            let told = std::fs::read_to_string(&file).unwrap();
            let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
            assert_eq!(
                (&told["outcome"], &told["tries"]),
                (&"out_of_memory".into(), &2.into()),
                "{closed:?}"
            );
        }
    });
    add(trials, "who_has_closed_its_descriptors_is_spoken_for", || {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report.json");
        let mut command = direct(&["-m", "64Mi", "--report", report.to_str().unwrap()], &["fail-unheard"]);
        let heard = seen(&mut command);
        assert_eq!((heard.code, reports(&heard)), (Some(198), 1), "{}", heard.stderr);
        assert_eq!(std::fs::read_to_string(&report).unwrap().lines().count(), 1);
        let quiet = seen(&mut direct(&["-m", "64Mi", "--quiet"], &["fail-unheard"]));
        assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(198), ""));
    });
    add(trials, "evidence_that_does_not_suffice_is_told_and_the_code_is_the_commands_own", || {
        let likely = seen(&mut direct(&["-m", "64Mi", "--verdict", "likely"], &["give-back"]));
        assert_eq!(likely.code, Some(198), "{}", likely.stderr);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report.json");
        let exact = ["-m", "64Mi", "--verdict", "exact", "--json", "--retries", "2", "--report"];
        let exact = [&exact[..], &[file.to_str().unwrap()]].concat();
        let script = format!("{}; exit $?", child("give-back"));
        let mut shell = launcher();
        shell.arg("run").args(&exact).args(["--any-descendant", "--", "sh", "-c", &script]);
        for (mut command, code, signal, evidence) in [
            (direct(&exact, &["give-back"]), 1, None, "said"),
            (direct(&exact, &["leave", ""]), 2, None, "outside"),
            (direct(&exact, &["give-back-and-abort"]), 134, Some(libc::SIGABRT), "said"),
            (shell, 1, None, "said"),
        ] {
            let seen = seen(&mut command);
            let told = told(&seen);
            assert_eq!((seen.code, reports(&seen)), (Some(code), 0), "{}", seen.stderr);
            let outcome = if signal.is_some() { "signaled" } else { "exited" };
            assert_eq!((&told["outcome"], &told["tries"]), (&outcome.into(), &1.into()));
            assert_eq!((&told["exit_code"], &told["signal"]), (&code.into(), &signal.into()));
            assert_eq!((&told["report"], &told["doubtful"]["evidence"]), (&Value::Null, &evidence.into()));
            assert_eq!(told["descendants"], Value::Array(Vec::new()));
            assert!(!file.exists(), "nothing is claimed");
        }
        // What suffices is told as ever.
        let seen = seen(&mut direct(&exact, &["refused-at-once"]));
        assert_eq!((seen.code, reports(&seen)), (Some(198), 3), "{}", seen.stderr);
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
    });
    add(trials, "the_environment_may_say_which_evidence_suffices", || {
        let exact = |options: &[&str]| {
            let mut command = direct(&[&["-m", "64Mi"], options].concat(), &["give-back"]);
            command.env("OOMGUARD_VERDICT", "exact");
            seen(&mut command)
        };
        let own = exact(&[]);
        assert_eq!((own.code, reports(&own)), (Some(1), 0), "{}", own.stderr);
        let likely = exact(&["--verdict", "likely"]);
        assert_eq!((likely.code, reports(&likely)), (Some(198), 1), "{}", likely.stderr);
        let mut command = direct(&["-m", "64Mi"], &["give-back"]);
        let wrong = seen(command.env("OOMGUARD_VERDICT", "exactly"));
        assert_eq!(wrong.code, Some(125), "{}", wrong.stderr);
        let line = "OOMGUARD_VERDICT=\"exactly\" in the environment: not a kind of evidence; accepted: likely or exact";
        assert!(wrong.stderr.contains(line), "{}", wrong.stderr);
    });
    add(trials, "a_misspelt_variable_is_told_once_and_the_command_runs", || {
        let line = "oomguard: there is no variable OOMGUARD_LIMITS; did you mean OOMGUARD_LIMIT?\n";
        let script = format!("{}; exit 3", child("need 1"));
        let ended = |options: &[&str], quiet: Option<&str>| {
            let mut command = run_shell(options, &script);
            command.env("OOMGUARD_LIMITS", "1Gi");
            command.envs(quiet.map(|value| ("OOMGUARD_QUIET", value)));
            seen(&mut command)
        };
        for (options, quiet, stderr) in [
            (&["-m", "1Gi"][..], None, line),
            (&["-m", "1Gi", "--quiet"], None, ""),
            (&["-m", "1Gi"], Some("1"), ""),
        ] {
            let seen = ended(options, quiet);
            assert_eq!((seen.code, seen.stderr.as_str()), (Some(3), stderr), "{options:?} {quiet:?}");
        }
    });
    add(trials, "wrong_text_for_a_budget_or_a_patience_is_an_error", || {
        for (name, value) in
            [("OOMGUARD_PATIENCE", "x"), ("OOMGUARD_PATIENCE", "5"), ("OOMGUARD_BUDGET", "x")]
        {
            let seen = seen(run_shell(&["-m", "1Gi"], "echo ran").env(name, value));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(125), ""), "{}", seen.stderr);
            assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
            assert!(seen.stderr.contains(&format!("{name}=\"{value}\"")), "{}", seen.stderr);
            let cure = if name == "OOMGUARD_BUDGET" { "; write bytes" } else { "; accepted: 0, or" };
            assert!(seen.stderr.contains(cure), "{}", seen.stderr);
        }
    });
    add(trials, "json_goes_where_it_is_wanted", || {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("end.json");
        let to_file = format!("--json={}", file.display());
        for _ in 0..2 {
            let seen = seen(&mut run_shell(&[&to_file, "-m", "64Mi"], "exit 3"));
            assert_eq!((seen.code, seen.stderr.as_str()), (Some(3), ""));
        }
        let lines = std::fs::read_to_string(&file).unwrap();
        assert_eq!(lines.lines().count(), 2, "appended");
        assert_eq!(serde_json::from_str::<Value>(lines.lines().next().unwrap()).unwrap()["exit_code"], 3);
        let to_descriptor = seen(&mut run_shell(&["--json=fd:1", "-m", "64Mi"], "exit 3"));
        assert!(to_descriptor.stdout.contains("\"exit_code\":3"), "{}", to_descriptor.stdout);
        for nowhere in ["--json=/no/such/directory/end.json", "--json=fd:77"] {
            let seen = seen(&mut run_shell(&[nowhere, "-m", "64Mi"], "echo ran"));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(125), ""), "{}", seen.stderr);
            assert!(seen.stderr.contains("--json"), "{}", seen.stderr);
        }
    });
}
