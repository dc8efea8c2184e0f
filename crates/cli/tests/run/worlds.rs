//! Programs that the library cannot enter, below ones that it does enter: they see nothing of it, and neither does whoever
//! reads their stderr.

use crate::add;
use crate::started::{is_about, run_shell, seen, shell};
use libtest_mimic::Trial;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Prints its environment, and ends with 3.
const SOURCE: &str = "#include <stdio.h>\nextern char **environ;\nint main(void) {\n\
    for (char **e = environ; *e; e++) puts(*e);\n    return 3;\n}\n";

/// Holds 100 MiB for so many microseconds, or for ever, and ends with 3.
const HOLDS: &str = "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\nint main(int count, char **words) {\n\
    memset(malloc(100 << 20), 1, 100 << 20);\n    if (count > 1) usleep(atoi(words[1])); else for (;;) pause();\n\
    return 3;\n}\n";

/// Eats what there is, says so and ends with 5; or gets over a refusal, and ends with 7 for another reason.
const HUNGRY: &str = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <sys/wait.h>\n#include <unistd.h>\n\
    int main(int count, char **words) {\n    int status;\n\
    if (count > 1 && !strcmp(words[1], \"child\") && fork()) return wait(&status), WEXITSTATUS(status);\n\
    if (count > 1 && strcmp(words[1], \"live\")) {\n\
        char *block;\n        while ((block = malloc(1 << 20))) memset(block, 1, 1 << 20);\n\
        fputs(\"out of memory\\n\", stderr);\n        return 5;\n    }\n\
    if (malloc((size_t)1 << 40)) return 9;\n\
    for (int i = 0; i < 100; i++) free(malloc(1 << 16));\n\
    fputs(\"no such file\\n\", stderr);\n    return 7;\n}\n";

/// `SOURCE` in 32 bits, with nothing of a C library, as there may be none of that kind here.
const SOURCE_32: &str = "static int call(int n, int a, const char *b, int c) {\n\
    int r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(n), \"b\"(a), \"c\"(b), \"d\"(c) : \"memory\"); return r; }\n\
    void start(int *stack) {\n    char **e = (char **)(stack + 1 + *stack + 1);\n\
    for (; *e; e++) { int n = 0; while ((*e)[n]) n++; call(4, 1, *e, n); call(4, 1, \"\\n\", 1); }\n\
    call(1, 3, 0, 0);\n}\n\
    __asm__(\".globl _start\\n_start: movl %esp, %eax\\n pushl %eax\\n call start\\n\");\n";

/// The dynamic linker is glibc's under another one's name: to us it is that one, and what it is told it would tell.
const OTHER: &str = "ld-uClibc.so.0";

/// What executes a program: by execve, execv, execvp, posix_spawn; in a child of fork or vfork, or in its own place.
const WAYS: [&str; 9] = [
    "PROGRAM; exit $?",
    "exec PROGRAM",
    "env PROGRAM",
    "bash -c 'PROGRAM; exit $?'",
    "nice timeout 60 PROGRAM",
    "python3 -c 'import os; os.execv(\"PROGRAM\", [\"x\"])'",
    "python3 -c 'import os; os.execvp(\"PROGRAM\", [\"x\"])'",
    "python3 -c 'import subprocess, sys; sys.exit(subprocess.run([\"PROGRAM\"]).returncode)'",
    "python3 -c 'import os, sys; sys.exit(os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(\"PROGRAM\", [\"x\"], \
     os.environ), 0)[1]))'",
];

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_32_bit_program_below_the_command_sees_nothing_of_us", || {
        if cfg!(target_arch = "x86_64") {
            check(
                SOURCE_32,
                &["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie"],
                false,
            );
        }
    });
    add(trials, "a_program_of_another_c_library_below_the_command_sees_nothing_of_us", || {
        let directory = tempfile::tempdir().unwrap();
        check(SOURCE, &[&with_other_linker(directory.path())], false);
    });
    add(trials, "a_program_with_a_sanitizer_below_the_command_runs_and_sees_nothing_of_us", || {
        check(SOURCE, &["-fsanitize=address"], false);
    });
    add(trials, "a_set_user_id_program_below_the_command_sees_nothing_of_us", || {
        let directory = tempfile::tempdir().unwrap();
        let program = build(directory.path(), SOURCE, &[]);
        if std::os::unix::fs::chown(&program, Some(65534), None).is_err() {
            return crate::skip::skipped("a program of another user's: not root");
        }
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
        check_built(&program, false);
    });
    add(trials, "a_program_with_a_sanitizer_runs_without_a_limit", || {
        let directory = tempfile::tempdir().unwrap();
        let program = build(directory.path(), SOURCE, &["-fsanitize=address"]);
        for options in [&[][..], &["--quiet"]] {
            let mut command = crate::started::launcher();
            let seen = seen(command.args(["run", "-m", "1Gi"]).args(options).arg("--").arg(&program));
            assert_eq!(seen.code, Some(3), "{}", seen.stderr);
            assert_eq!(seen.stderr.contains("runs without a limit"), options.is_empty(), "{}", seen.stderr);
        }
    });
    // Twin: what the library does enter.
    add(trials, "an_ordinary_program_below_the_command_is_guarded", || check(SOURCE, &[], true));
    add(trials, "a_program_of_musls_below_the_command_is_guarded", || {
        if !has_musl() {
            return crate::skip::skipped("musl-gcc is not there");
        }
        check_built_by("musl-gcc", SOURCE, &[], true);
    });
    add(trials, "a_program_of_musls_that_runs_out_of_memory_is_told_of_from_within", || {
        if !has_musl() {
            return crate::skip::skipped("musl-gcc is not there");
        }
        let directory = tempfile::tempdir().unwrap();
        let program = build_by("musl-gcc", directory.path(), HUNGRY, &["-fno-builtin"]);
        for (words, expected) in [("die", 198), ("child", 198), ("live", 7)] {
            let mut command = crate::started::launcher();
            let seen = seen(command.args(["run", "-m", "64Mi", "--json", "--", &program, words]));
            assert_eq!(seen.code, Some(expected), "{words}: {}", seen.stderr);
            if words != "live" {
                let told = seen.stderr.lines().find(|line| line.contains("\"own_exit_code\":5")).unwrap();
                assert!(told.contains("\"evidence\":\"said\"") && told.contains("\"refusals\":1"), "{told}");
            }
        }
    });
    add(trials, "what_the_user_preloads_stays_where_the_library_goes", || {
        let directory = tempfile::tempdir().unwrap();
        let program = build(directory.path(), SOURCE, &[&with_other_linker(directory.path())]);
        let mut command = run_shell(&[], &format!("{program}; exit $?"));
        let seen = seen(command.env("LD_PRELOAD", "libm.so.6"));
        assert_eq!((seen.code, seen.stderr.as_str()), (Some(3), ""));
        assert!(seen.stdout.contains("LD_PRELOAD=libm.so.6\n"), "{}", seen.stdout);
    });
    add(trials, "a_program_in_another_root_directory_sees_nothing_of_us", || {
        let directory = tempfile::tempdir().unwrap();
        if !fill_root(directory.path()) {
            return;
        }
        let root = directory.path().display();
        for (options, way) in [(&[][..], "exec chroot"), (&["--hints"], "chroot")] {
            let script = format!("{way} {root} /bin/sh -c 'export -p; exit 3'");
            let seen = seen(&mut run_shell(&[&["-m", "1Gi"], options].concat(), &script));
            assert_eq!((seen.code, seen.stderr.as_str()), (Some(3), ""), "{way}");
            assert!(
                !seen.stdout.contains("OOMGUARD") && !seen.stdout.contains("LD_PRELOAD"),
                "{}",
                seen.stdout
            );
        }
    });
    add(trials, "without_inheritance_nobody_looks_at_what_the_command_executes", || {
        let directory = tempfile::tempdir().unwrap();
        for options in [&[][..], &["-static"]] {
            let program = build(directory.path(), HOLDS, options);
            // Twin: without the option it does not come to its end, and shows how soon somebody looks.
            let start = Instant::now();
            let twin = seen(&mut run_shell(&["-m", "50Mi"], &format!("{program}; exit $?")));
            assert_eq!(twin.code, Some(198), "{options:?}: {}", twin.stderr);
            let much_longer = start.elapsed().as_micros() * 3;
            let script = format!("{program} {much_longer}; exit $?");
            let seen = seen(&mut run_shell(&["-m", "50Mi", "--no-inherit"], &script));
            assert_eq!(seen.code, Some(3), "{options:?}: {}", seen.stderr);
        }
    });
    add(trials, "a_library_of_an_outer_launcher_is_in_nobodys_way", || {
        let directory = tempfile::tempdir().unwrap();
        let program = build(directory.path(), SOURCE, &["-fsanitize=address"]);
        let oomguard = env!("CARGO_BIN_EXE_oomguard");
        let script = format!("{oomguard} run --quiet -- {program}");
        let seen = seen(&mut run_shell(&["-m", "1Gi"], &script));
        assert_eq!((seen.code, seen.stderr.as_str()), (Some(3), ""));
        assert!(!seen.stdout.contains("LD_PRELOAD"), "{}", seen.stdout);
    });
    add(trials, "without_inheritance_what_the_command_executes_has_no_limit_of_ours", || {
        let ulimit = "sh -c 'ulimit -S -d'";
        for way in [
            "PROGRAM",
            "exec PROGRAM",
            "env PROGRAM",
            "python3 -c 'import subprocess; subprocess.run([\"sh\", \"-c\", \"ulimit -S -d\"])'",
            "python3 -c 'import os; os.waitpid(os.posix_spawn(\"/bin/sh\", [\"sh\", \"-c\", \"ulimit -S -d\"], {}), 0)'",
        ] {
            let script = format!("ulimit -S -d; {}", way.replace("PROGRAM", ulimit));
            let seen = seen(&mut run_shell(&["-m", "1Gi", "--no-inherit"], &script));
            let (own, executed) = seen.stdout.split_once('\n').unwrap();
            assert!(is_about(own, "1048576"), "{way}: {} {}", seen.stdout, seen.stderr);
            assert_eq!(executed, "unlimited\n", "{way}: {}", seen.stderr);
        }
        // What cannot be executed leaves the command limited.
        let seen = seen(&mut run_shell(&["-m", "1Gi", "--no-inherit"], "/no/such/program; ulimit -S -d"));
        assert!(is_about(&seen.stdout, "1048576"), "{}", seen.stdout);
        // A lower limit of the user's is what comes back.
        let oomguard = env!("CARGO_BIN_EXE_oomguard");
        let script =
            format!("ulimit -S -d 2097152; exec {oomguard} run -m 1Gi --no-inherit -- sh -c \"{ulimit}\"");
        assert_eq!(crate::started::seen(&mut shell(&script)).stdout, "2097152\n");
    });
}

/// Whether a program that the command executes, in each way, sees something of us.
fn check(source: &str, options: &[&str], sees: bool) {
    check_built_by("gcc", source, options, sees);
}

fn check_built_by(compiler: &str, source: &str, options: &[&str], sees: bool) {
    let directory = tempfile::tempdir().unwrap();
    check_built(&build_by(compiler, directory.path(), source, options), sees);
}

fn check_built(program: &str, sees: bool) {
    for way in WAYS {
        let script = way.replace("PROGRAM", program);
        let seen = seen(&mut run_shell(&["-m", "1Gi"], &script));
        assert_eq!((seen.code, seen.stderr.as_str()), (Some(3), ""), "{way}");
        let sees_us = seen.stdout.contains("OOMGUARD_") || seen.stdout.contains("liboomguard");
        assert_eq!(sees_us, sees, "{way}: {}", seen.stdout);
        // What is not ours is as it was.
        let others = |text: &str| {
            let is_others = |line: &&str| !line.contains("OOMGUARD_") && !line.starts_with("LD_PRELOAD=");
            let mut lines: Vec<String> = text.lines().filter(is_others).map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(others(&seen.stdout), others(&crate::started::seen(&mut shell(&script)).stdout), "{way}");
    }
}

/// The option for a program whose dynamic linker is glibc's under the other name.
fn with_other_linker(directory: &Path) -> String {
    let linker = directory.join(OTHER);
    let glibcs = if cfg!(target_arch = "aarch64") {
        "/lib/ld-linux-aarch64.so.1"
    } else {
        "/lib64/ld-linux-x86-64.so.2"
    };
    std::os::unix::fs::symlink(glibcs, &linker).unwrap();
    format!("-Wl,--dynamic-linker={}", linker.display())
}

fn has_musl() -> bool {
    Command::new("musl-gcc").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn build(directory: &Path, source: &str, options: &[&str]) -> String {
    build_by("gcc", directory, source, options)
}

fn build_by(compiler: &str, directory: &Path, source: &str, options: &[&str]) -> String {
    let file = directory.join("program.c");
    std::fs::write(&file, source).unwrap();
    let program = directory.join("program");
    let built = Command::new(compiler).args(options).arg("-o").arg(&program).arg(&file).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program.display().to_string()
}

/// A shell and what it needs; whether this process may make it a root directory.
fn fill_root(root: &Path) -> bool {
    let needs = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let needs = String::from_utf8_lossy(&needs.stdout).into_owned();
    let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sh"]) {
        let copy = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
    let tried = Command::new("chroot").arg(root).args(["/bin/sh", "-c", ":"]).output();
    tried.is_ok_and(|output| output.status.success())
}
