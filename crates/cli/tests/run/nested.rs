//! A launcher below a launcher, and what is the outer one's: its soft limit is nobody's word for the inner one.

use crate::add;
use crate::started::{is_about, launcher, run_shell, seen, shell};
use libtest_mimic::Trial;
use std::process::Command;

const OOMGUARD: &str = env!("CARGO_BIN_EXE_oomguard");

/// Prints the soft limit of data in KiB.
const ULIMIT: &str = "sh -c 'ulimit -S -d'";

/// Eats 100 MiB, and ends with 5 where it does not get them.
const EAT: &str = "#include <stdlib.h>\n#include <string.h>\nint main(void) {\n\
    for (int i = 0; i < 100; i++) {\n        char *block = malloc(1 << 20);\n        if (!block) return 5;\n\
        memset(block, 1, 1 << 20);\n    }\n    return 0;\n}\n";

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "an_inner_launcher_may_give_more_than_the_outer_one_has", || {
        for (inner, kib) in [
            ("-m 200Mi", "204800"),
            ("-m 100Mi", "102400"),
            ("-m 200Mi --no-preload", "204800"),
            ("-m off", "unlimited"),
            // What nobody says is as it was.
            ("", "153600"),
            ("--measure data", "153600"),
            ("--hard -m 100Mi", "102400"),
        ] {
            let script = format!("{OOMGUARD} run {inner} -- {ULIMIT}");
            let seen = seen(&mut run_shell(&["-m", "150Mi"], &script));
            assert!(is_about(&seen.stdout, kib), "{inner}: {} {}", seen.stdout, seen.stderr);
        }
    });
    add(trials, "an_inner_launcher_may_give_more_to_a_program_that_no_library_gets_into", || {
        let directory = tempfile::tempdir().unwrap();
        let [source, program] = ["eat.c", "eat"].map(|name| directory.path().join(name));
        std::fs::write(&source, EAT).unwrap();
        let Some(compiler) = crate::c::c() else { return };
        crate::c::compile(Command::new(compiler).arg("-static").arg("-o").arg(&program).arg(&source));
        let program = program.display();
        for (outer, inner, code) in [
            ("", "-m 300Mi", 0),
            ("", "-m 300Mi --no-infer", 0),
            ("", "-m 300Mi --measure data", 0),
            ("", "-m 300Mi --measure address-space", 0),
            ("", "-m off", 0),
            ("--measure data", "-m 300Mi", 0),
            ("--measure data", "-m off", 0),
            // Twins: less than it needs.
            ("", "-m 70Mi", 198),
            ("--measure data", "-m 70Mi", 198),
        ] {
            let mut options = vec!["-m", "50Mi"];
            options.extend(outer.split_ascii_whitespace());
            let seen = seen(&mut run_shell(&options, &format!("{OOMGUARD} run {inner} -- {program}")));
            assert_eq!(seen.code, Some(code), "{outer} / {inner}: {}", seen.stderr);
            let limit = "limit: 70 MiB (73400320 bytes)";
            assert!(code == 0 || seen.stderr.contains(limit), "{outer} / {inner}: {}", seen.stderr);
        }
    });
    add(trials, "of_three_launchers_the_innermost_is_as_free", || {
        let script = format!("{OOMGUARD} run -m 100Mi -- {OOMGUARD} run -m 200Mi -- {ULIMIT}");
        let told = seen(&mut run_shell(&["-m", "150Mi"], &script)).stdout;
        assert!(is_about(&told, "204800"), "{told}");
    });
    add(trials, "a_limit_of_the_other_measure_is_not_inherited_by_an_inner_launchers_command", || {
        let script =
            format!("{OOMGUARD} run -m 4Gi --measure address-space -- sh -c 'ulimit -S -d; ulimit -S -v'");
        assert_eq!(seen(&mut run_shell(&["-m", "150Mi"], &script)).stdout, "unlimited\n4194304\n");
    });
    add(trials, "an_inner_retry_gets_what_it_asks_for", || {
        let hungry = std::env::current_exe().unwrap();
        let script = format!(
            "{OOMGUARD} run -m 40Mi --retries 2 --grow 3 --max-limit 1Gi -- {} role need 200",
            hungry.display()
        );
        let seen = seen(&mut run_shell(&["-m", "60Mi"], &script));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "19900\n"), "{}", seen.stderr);
        assert!(seen.stderr.contains("starting again with 360 MiB"), "{}", seen.stderr);
    });
    add(trials, "an_outer_launcher_tries_again_what_ends_of_its_limit_below_an_inner_one", || {
        let hungry = format!("{} role need 100", std::env::current_exe().unwrap().display());
        for (inner, code, tries) in [
            ("", 0, 3),
            ("--no-preload", 0, 3),
            // More of the outer one's would not help.
            ("-m 30Mi", 198, 1),
            ("-m 1Gi", 0, 1),
        ] {
            for script in [
                format!("exec {OOMGUARD} run {inner} -- {hungry}"),
                format!("{OOMGUARD} run {inner} -- {hungry}; exit $?"),
            ] {
                let seen = seen(&mut run_shell(&["-m", "40Mi", "--retries", "3", "--json"], &script));
                let told: serde_json::Value =
                    serde_json::from_str(seen.stderr.lines().last().unwrap()).unwrap();
                assert_eq!(
                    (seen.code, &told["tries"]),
                    (Some(code), &tries.into()),
                    "{script}: {}",
                    seen.stderr
                );
                let lines = seen.stderr.lines().filter(|line| line.starts_with("oomguard: out of memory: "));
                assert_eq!(
                    lines.count(),
                    if inner == "-m 30Mi" { 1 } else { tries - 1 },
                    "{script}: {}",
                    seen.stderr
                );
            }
        }
    });
    add(trials, "what_the_user_lowers_in_between_stays", || {
        for (measure, between, inner, kib) in [
            ("data", "ulimit -S -d 102400;", "-m 200Mi", "102400"),
            ("data", "ulimit -d 102400;", "-m 200Mi", "102400"),
            ("resident", "ulimit -S -d 102400;", "-m 200Mi", "102400"),
            ("resident", "ulimit -d 102400;", "-m 200Mi", "102400"),
            // Twin: nothing lowered; and a limit that happens to be the same is the outer one's, where that counts data.
            ("data", "", "-m 200Mi", "204800"),
            ("resident", "", "-m 200Mi", "204800"),
            ("data", "ulimit -S -d 153600;", "-m 200Mi", "204800"),
            ("resident", "ulimit -S -d 153600;", "-m 200Mi", "153600"),
        ] {
            let script = format!("{between} {OOMGUARD} run {inner} -- {ULIMIT}");
            let seen = seen(&mut run_shell(&["-m", "150Mi", "--measure", measure], &script));
            assert!(
                is_about(&seen.stdout, kib),
                "{measure} {between} {inner}: {} {}",
                seen.stdout,
                seen.stderr
            );
        }
    });
    add(trials, "a_variable_that_is_out_of_date_frees_nobody", || {
        for stale in ["soft=data:157286400:unlimited", "soft=data", "soft=address-space:204800:unlimited", ""]
        {
            let script = format!("ulimit -S -d 204800; {OOMGUARD} run -m 1Gi -- {ULIMIT}");
            let mut command = shell(&script);
            assert_eq!(seen(command.env("OOMGUARD_OUTER", stale)).stdout, "204800\n", "{stale}");
        }
    });
    add(trials, "the_users_own_soft_limit_is_the_bound_below_an_outer_launcher", || {
        let inner = format!("{OOMGUARD} run -m 400Mi -- {ULIMIT}");
        let script = format!(
            "ulimit -S -d 204800; exec {OOMGUARD} run -m 100Mi -- sh -c '{}'",
            inner.replace('\'', "'\\''")
        );
        assert_eq!(seen(&mut shell(&script)).stdout, "204800\n");
    });
    add(trials, "a_program_below_that_sets_its_variable_gets_what_it_says", || {
        let script = format!("OOMGUARD_LIMIT=300Mi {ULIMIT}");
        let told = seen(&mut run_shell(&["-m", "150Mi"], &script)).stdout;
        assert!(is_about(&told, "307200"), "{told}");
    });
    add(trials, "a_report_is_the_launchers_and_no_error_of_a_descendant", || {
        let python = "import subprocess, sys; sys.exit(subprocess.run(['true']).returncode)";
        let script =
            format!("exec {OOMGUARD} run -m 1Gi --report fd:3 -- python3 -c \"{python}\" 3>/dev/null");
        let seen_it = seen(&mut shell(&script));
        assert_eq!((seen_it.code, seen_it.stderr.as_str()), (Some(0), ""));
        // Another file under that number is not written to.
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let hungry = std::env::current_exe().unwrap();
        let script = format!(
            "exec {OOMGUARD} run -m 60Mi --report fd:3 -- sh -c '{} role need 200 3>{}; exit 0' 3>{}",
            hungry.display(),
            path("theirs"),
            path("ours"),
        );
        let seen_it = seen(&mut shell(&script));
        assert_eq!(seen_it.code, Some(0), "{}", seen_it.stderr);
        assert_eq!(std::fs::read_to_string(path("theirs")).unwrap(), "");
        // Nor by a launcher below.
        let inner = format!("{OOMGUARD} run -m 60Mi -- {} role need 200", hungry.display());
        let script = format!(
            "exec {OOMGUARD} run --report fd:3 -- sh -c 'exec 3>{}; {inner}; exit $?' 3>{}",
            path("theirs"),
            path("ours"),
        );
        let seen_it = seen(&mut shell(&script));
        assert_eq!(seen_it.code, Some(198), "{}", seen_it.stderr);
        assert_eq!(std::fs::read_to_string(path("theirs")).unwrap(), "");
        // Twin: the descriptor that was meant.
        let script = format!(
            "exec {OOMGUARD} run -m 60Mi --report fd:3 -- sh -c '{} role need 200; exit 0' 3>{}",
            hungry.display(),
            path("ours"),
        );
        assert_eq!(seen(&mut shell(&script)).code, Some(0));
        assert!(std::fs::read_to_string(path("ours")).unwrap().contains("out_of_memory"));
    });
    add(trials, "whoever_asked_for_a_report_has_one_whatever_others_below_ask_for", || {
        let hungry = format!("{} role need 200", std::env::current_exe().unwrap().display());
        let run = |options: &str| format!("{OOMGUARD} run {options} --");
        let theirs = run("--report theirs");
        for (script, in_theirs) in [
            (format!("{theirs} {hungry}; exit $?"), 1),
            (format!("{OOMGUARD} run -m 50Mi --report theirs -- {hungry}; exit $?"), 1),
            (format!("OOMGUARD_REPORT=$PWD/theirs {OOMGUARD} run -- {hungry}; exit $?"), 1),
            (format!("OOMGUARD_REPORT=$PWD/theirs {hungry}; exit $?"), 1),
            // However many there are in a row.
            (format!("{theirs} {} {hungry}; exit $?", run("--report third")), 1),
            (format!("{theirs} {} {hungry}; exit $?", run("-m 50Mi")), 1),
            (format!("{theirs} {} {} {hungry}; exit $?", run("-m 50Mi --report third"), run("-m 45Mi")), 1),
            (format!("{theirs} {} {hungry}; exit $?", run("-m 50Mi --no-preload --report third")), 1),
            (format!("env -u OOMGUARD_REPORT {hungry}; exit $?"), 0),
            (format!("{hungry} 3>&-; exit $?"), 0),
            // Twins: it is the same one, by another name or not.
            (format!("{OOMGUARD} run -- {hungry}; exit $?"), 0),
            (format!("{OOMGUARD} run --report ./ours -- {hungry}; exit $?"), 0),
        ] {
            for target in ["--report ours", "--report fd:3"] {
                let directory = tempfile::tempdir().unwrap();
                let command = format!("exec {OOMGUARD} run -m 60Mi {target} -- sh -c '{script}' 3>>ours");
                let seen = seen(shell(&command).current_dir(directory.path()));
                assert_eq!(seen.code, Some(198), "{command}: {}", seen.stderr);
                let count = |name: &str| {
                    let text = std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
                    text.lines().filter(|line| line.contains("out_of_memory")).count()
                };
                assert_eq!((count("ours"), count("theirs")), (1, in_theirs), "{command}: {}", seen.stderr);
            }
        }
    });
    add(trials, "a_report_lies_where_the_launcher_was_started", || {
        let directory = tempfile::tempdir().unwrap();
        let hungry = std::env::current_exe().unwrap();
        let script = format!("cd /; {} role need 200; exit 0", hungry.display());
        let mut command = run_shell(&["-m", "60Mi", "--report", "report"], &script);
        assert_eq!(seen(command.current_dir(directory.path())).code, Some(0));
        let report = std::fs::read_to_string(directory.path().join("report")).unwrap();
        assert!(report.contains("out_of_memory"), "{report}");
    });
    add(trials, "a_report_that_cannot_be_written_is_an_error_of_the_launcher_for_any_command", || {
        for options in [&["--no-preload"][..], &[]] {
            let mut command = launcher();
            command.arg("run").args(options).args(["--report", "/no/such/report", "--", "echo", "started"]);
            let seen = seen(&mut command);
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(125), ""), "{}", seen.stderr);
            assert!(seen.stderr.contains("--report \"/no/such/report\""), "{}", seen.stderr);
        }
    });
}
