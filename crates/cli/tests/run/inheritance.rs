//! What the command finds is what it would have found without the launcher.

use crate::add;
use crate::started::{State, in_state, is_about, launcher, run_shell, seen, shell};
use libtest_mimic::Trial;
use std::ffi::{CStr, CString, c_char};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "signal_mask_and_dispositions_are_as_they_were", || {
        use libc::{
            SIGCHLD, SIGHUP, SIGILL, SIGINT, SIGPIPE, SIGQUIT, SIGRTMAX, SIGSEGV, SIGTERM, SIGTSTP, SIGTTIN,
            SIGTTOU, SIGUSR1, SIGWINCH,
        };
        let states = [
            State::default(),
            State { ignored: &[SIGPIPE], ..State::default() },
            State { ignored: &[SIGCHLD], ..State::default() },
            State { ignored: &[SIGHUP, SIGINT, SIGQUIT, SIGTERM], ..State::default() },
            State { ignored: &[SIGTSTP, SIGWINCH], ..State::default() },
            State { blocked: &[SIGUSR1, SIGTERM, SIGPIPE, SIGCHLD, SIGRTMAX()], ..State::default() },
            // As tini's test has it.
            State {
                ignored: &[SIGTTOU, SIGSEGV, SIGINT],
                blocked: &[SIGTTIN, SIGILL, SIGTERM],
                ..State::default()
            },
        ];
        for (index, state) in states.into_iter().enumerate() {
            // The shell would change dispositions of its own.
            let mut direct = shell("");
            direct = direct_program(direct, "/bin/grep");
            let expected = seen(in_state(direct.args(GREP), state));
            assert!(expected.stdout.contains("SigIgn"), "{}", expected.stderr);
            let mut with = launcher();
            with.args(["run", "--no-preload", "--", "/bin/grep"]).args(GREP);
            assert_eq!(seen(in_state(&mut with, state)).stdout, expected.stdout, "{index}");
            let mut with = launcher();
            with.args(["run", "--", "/bin/grep"]).args(GREP);
            let found = seen(in_state(&mut with, state));
            // What is caught is the shim's affair.
            let [expected, found] = [&expected, &found].map(|seen| {
                seen.stdout
                    .lines()
                    .filter(|line| !line.starts_with("SigCgt"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            });
            assert_eq!(found, expected, "{index}");
        }
    });
    add(trials, "descriptors_are_as_they_were", || {
        let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done";
        for closed in [&[][..], &[0], &[2], &[0, 2]] {
            for before in ["", "exec 7</dev/null 120</dev/null;"] {
                let state = State { closed, ..State::default() };
                let inner = shell_line(&["/bin/sh", "-c", script]);
                let direct = seen(in_state(&mut shell(&format!("{before} exec {inner}")), state));
                for options in ["", "--no-preload"] {
                    let launcher = env!("CARGO_BIN_EXE_oomguard");
                    let line = format!("{before} exec {launcher} run {options} -- {inner}");
                    let with = seen(in_state(&mut shell(&line), state));
                    if options.is_empty() {
                        assert_eq!(with.stdout, direct.stdout, "{closed:?} {before}");
                    } else {
                        // One more, as the contract between supervisor and guard has it, which nobody is there to close.
                        let mut lines: Vec<&str> = with.stdout.lines().collect();
                        lines.retain(|line| !is_record(line, &direct.stdout));
                        assert_eq!(lines, direct.stdout.lines().collect::<Vec<_>>(), "{closed:?} {before}");
                    }
                }
            }
        }
    });
    add(trials, "the_environment_has_our_variables_more_and_no_others", || {
        let direct = seen(&mut shell("env"));
        let with = seen(&mut run_shell(&["-m", "1Gi"], "env"));
        let mut more = Vec::new();
        for line in with.stdout.lines().filter(|line| !direct.stdout.lines().any(|other| other == *line)) {
            more.push(line.split_once('=').unwrap().0);
        }
        more.sort_unstable();
        let ours = [
            "LD_PRELOAD",
            "OOMGUARD_EXIT_CODE",
            "OOMGUARD_LIMIT",
            "OOMGUARD_MEASURE",
            "OOMGUARD_OUTER",
            "OOMGUARD_RECORD",
        ];
        assert_eq!(more, ours, "{}", with.stdout);
        assert_eq!(with.stdout.lines().count(), direct.stdout.lines().count() + ours.len());
    });
    add(trials, "the_environment_keeps_its_order_and_what_is_no_variable", || {
        let itself = std::env::current_exe().unwrap();
        let entries = |command: &[&str]| -> Vec<String> {
            let mut from = crate::started::bare(&itself);
            let told = seen(from.args(["role", "with-odd-entries"]).args(command));
            assert_eq!(told.code, Some(0), "{}", told.stderr);
            told.stdout.split_terminator('\0').map(str::to_owned).collect()
        };
        let cat = ["/bin/cat", "/proc/self/environ"];
        let direct = entries(&cat);
        assert_eq!(direct, ODD_ENTRIES.map(|entry| entry.to_str().unwrap()));
        let mut readers = vec![(cat, &[][..]), (cat, &["--no-preload"]), (cat, &["--no-inherit"])];
        let (directory, source) = (tempfile::tempdir().unwrap(), "show.c");
        let [source, program] = [source, "show"].map(|name| directory.path().join(name));
        std::fs::write(&source, SHOW).unwrap();
        if let Some(compiler) = crate::c::c() {
            crate::c::compile(
                std::process::Command::new(compiler).arg("-static").arg("-o").arg(&program).arg(&source),
            );
            readers.push(([program.to_str().unwrap(), "x"], &[]));
        }
        for (reader, options) in readers {
            let run =
                [&[env!("CARGO_BIN_EXE_oomguard"), "run", "-m", "1Gi"], options, &["--"], &reader].concat();
            let mut with = entries(&run);
            // Ours come last.
            with.truncate(direct.len());
            assert_eq!(with, direct, "{reader:?} {options:?}");
        }
    });
    add(trials, "a_limit_that_nobody_said_does_not_overrule_a_source", || {
        let script = "echo ${OOMGUARD_LIMIT-unsaid}";
        let told = |options: &[&str]| seen(&mut run_shell(options, script)).stdout;
        let unsaid = seen(launcher().args(["run", "--quiet", "--", "/bin/sh", "-c", script]));
        assert_eq!(unsaid.stdout, "unsaid\n");
        assert_eq!(told(&["-m", "1Gi"]), "1073741824\n");
        assert_eq!(told(&["-m", "auto"]), "auto\n");
    });
    add(trials, "without_inheritance_the_commands_children_see_nothing_of_it", || {
        let direct = seen(&mut shell("env"));
        let with = seen(&mut run_shell(&["-m", "1Gi", "--no-inherit"], "env"));
        // The order of an environment says nothing.
        let sorted = |seen: &crate::started::Seen| {
            let mut lines: Vec<String> = seen.stdout.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&with), sorted(&direct));
    });
    add(trials, "the_library_is_in_no_directory_that_others_may_change", || {
        let directory = tempfile::tempdir().unwrap();
        let where_it_is = |mode, owner| {
            std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(directory.path(), Some(owner), None).ok()?;
            let mut command = run_shell(&["-m", "1Gi"], "echo $LD_PRELOAD");
            let library = seen(command.env("TMPDIR", directory.path())).stdout;
            assert!(library.contains("liboomguard"), "{library}");
            Some(library.starts_with(directory.path().to_str().unwrap()))
        };
        // SAFETY: takes nothing.
        let user = unsafe { libc::geteuid() };
        assert_eq!(where_it_is(0o755, user), Some(true));
        for mode in [0o777, 0o775] {
            assert_eq!(where_it_is(mode, user), Some(false), "{mode:o}");
        }
        assert_eq!(where_it_is(0o1777, user), Some(true));
        // Whose it is may put something else in its place.
        match where_it_is(0o755, user + 1) {
            Some(is_there) => assert!(!is_there),
            None => crate::skip::skipped("a directory of another user's: not root"),
        }
    });
    add(trials, "what_the_user_preloads_is_kept", || {
        let library = "/lib/x86_64-linux-gnu/libm.so.6";
        let library = if std::path::Path::new(library).exists() { library } else { "libm.so.6" };
        let mut command = run_shell(&[], "echo $LD_PRELOAD; grep -c libm.so /proc/self/maps");
        let seen = seen(command.env("LD_PRELOAD", library));
        let (list, loaded) = seen.stdout.split_once('\n').unwrap();
        assert!(list.contains("liboomguard") && list.ends_with(&format!(":{library}")), "{list}");
        assert_ne!(loaded.trim(), "0");
        assert_eq!(seen.stderr, "");
    });
    add(trials, "streams_directory_and_arguments_are_the_commands", || {
        let mut command = launcher();
        command.args([
            "run",
            "-m",
            "off",
            "--",
            "/bin/sh",
            "-c",
            "cat; pwd; echo \"$0|$1|$2\" >&2",
            "a b",
            "--json",
            "",
        ]);
        let output = {
            use std::io::Write;
            command.current_dir("/usr").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"in\n").unwrap();
            child.wait_with_output().unwrap()
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "in\n/usr\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "a b|--json|\n");
    });
    add(trials, "a_lower_rlimit_of_the_caller_stays_in_force", || {
        let launcher = env!("CARGO_BIN_EXE_oomguard");
        for (options, kib) in [
            ("-m 1Gi", "204800"),
            ("-m off", "204800"),
            ("-m auto", "204800"),
            ("-m 100Mi", "102400"),
            ("-m 1Gi --measure address-space", "204800"),
        ] {
            let script =
                format!("ulimit -S -d 204800; exec {launcher} run {options} -- sh -c 'ulimit -S -d'");
            let told = seen(&mut shell(&script)).stdout;
            assert!(is_about(&told, kib), "{options}: {told}");
        }
    });
}

/// What execve(2) passes on as it is.
const ODD_ENTRIES: [&CStr; 8] =
    [c"Z=1", c"no variable", c"A=1", c"A=2", c"=x", c"", c"C=", c"PATH=/bin:/usr/bin"];

pub fn execute_with_odd_entries(command: &[String]) -> ! {
    let words: Vec<CString> = command.iter().map(|word| CString::new(word.as_str()).unwrap()).collect();
    let pointers = |texts: Vec<&CStr>| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let arguments = pointers(words.iter().map(CString::as_c_str).collect());
    let entries = pointers(ODD_ENTRIES.to_vec());
    // SAFETY: C strings in lists that end with null, all of which outlive the call.
    unsafe { libc::execve(arguments[0], arguments.as_ptr(), entries.as_ptr()) };
    panic!("{}: {}", command[0], std::io::Error::last_os_error());
}

/// A static program has nothing of ours in it.
const SHOW: &str = "\
#include <stdio.h>
extern char **environ;
int main(void) {
    for (char **entry = environ; *entry; entry++)
        printf(\"%s%c\", *entry, 0);
    return 0;
}
";

const GREP: [&str; 3] = ["-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"];

fn direct_program(shell: std::process::Command, program: &str) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    for (name, value) in shell.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null());
    command
}

fn is_record(line: &str, direct: &str) -> bool {
    line.parse().is_ok_and(|fd: u32| fd >= 100) && !direct.lines().any(|other| other == line)
}

fn shell_line(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
}
