//! `include/oomguard.h` says what the Rust side says: every constant, and that it compiles without a warning in every C and
//! C++ that it claims. (The layout of its one structure, and the numbers of `source` and `measure`, are private to the crate;
//! the tests that hold them equal are next to them, in `crates/shim/src/api.rs` and `crates/core/src/record/codes.rs`.)

mod common;

use common::c;
use oomguard::contract::{self, variable};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What each macro of the header has to be.
fn expected() -> BTreeMap<&'static str, String> {
    let text = |text: &str| format!("{text:?}");
    BTreeMap::from([
        ("OOMGUARD_VERSION", text(env!("CARGO_PKG_VERSION"))),
        ("OOMGUARD_EXIT_OUT_OF_MEMORY", contract::EXIT_OUT_OF_MEMORY.to_string()),
        ("OOMGUARD_EXIT_CANNOT_GUARD", contract::EXIT_CANNOT_GUARD.to_string()),
        ("OOMGUARD_VARIABLE_LIMIT", text(variable::LIMIT)),
        ("OOMGUARD_VARIABLE_MEASURE", text(variable::MEASURE)),
        ("OOMGUARD_VARIABLE_EXIT_CODE", text(variable::EXIT_CODE)),
        ("OOMGUARD_VARIABLE_ON_REFUSAL", text(variable::ON_REFUSAL)),
        ("OOMGUARD_VARIABLE_STALL", text(variable::STALL)),
        ("OOMGUARD_VARIABLE_VERDICT", text(variable::VERDICT)),
        ("OOMGUARD_VARIABLE_EXIT_ON_UNCAUGHT", text(variable::EXIT_ON_UNCAUGHT)),
        ("OOMGUARD_VARIABLE_RESERVE", text(variable::RESERVE)),
        ("OOMGUARD_VARIABLE_REPORT", text(variable::REPORT)),
        ("OOMGUARD_VARIABLE_TOKEN", text(variable::TOKEN)),
        ("OOMGUARD_VARIABLE_QUIET", text(variable::QUIET)),
        ("OOMGUARD_REPORT_VERSION", contract::REPORT_VERSION.to_string()),
        ("OOMGUARD_REPORT_MAX_BYTES", contract::REPORT_MAX_BYTES.to_string()),
        ("OOMGUARD_TOKEN_MAX_BYTES", contract::TOKEN_MAX_BYTES.to_string()),
        ("OOMGUARD_AUTO_PERCENT", contract::AUTO_PERCENT.to_string()),
        ("OOMGUARD_DEFAULT_RESERVE_BYTES", contract::DEFAULT_RESERVE_BYTES.to_string()),
        ("OOMGUARD_DEFAULT_STALL_MS", contract::DEFAULT_STALL_MS.to_string()),
        ("OOMGUARD_LAST_WORDS_DEADLINE_MS", contract::LAST_WORDS_DEADLINE_MS.to_string()),
        ("OOMGUARD_CALLBACKS_MAX", "16".to_owned()),
        ("OOMGUARD_UNKNOWN", u64::MAX.to_string()),
        ("OOMGUARD_ADDRESS_SPACE", "1".to_owned()),
        ("OOMGUARD_DATA", "2".to_owned()),
        ("OOMGUARD_RESIDENT", "3".to_owned()),
        ("OOMGUARD_SOURCE_NONE", "0".to_owned()),
        ("OOMGUARD_SOURCE_ENVIRONMENT", "1".to_owned()),
        ("OOMGUARD_SOURCE_SOURCE", "2".to_owned()),
        ("OOMGUARD_SOURCE_CGROUP", "3".to_owned()),
        ("OOMGUARD_SOURCE_RLIMIT", "4".to_owned()),
        ("OOMGUARD_SOURCE_BUDGET", "5".to_owned()),
        ("OOMGUARD_SOURCE_CHANGED", "6".to_owned()),
    ])
}

#[test]
fn every_constant_of_the_header_is_the_one_of_the_contract() {
    let Some(compiler) = c::c() else { return };
    let expected = expected();
    let header = fs::read_to_string(c::include().join("oomguard.h")).unwrap();
    assert_eq!(
        macros_of(&header),
        expected.keys().copied().collect::<Vec<_>>(),
        "a macro was added or removed"
    );

    let mut program = String::from("#include <oomguard.h>\n#include <stdio.h>\nint main(void) {\n");
    for (name, value) in &expected {
        program += &match value.starts_with('"') {
            true => format!("puts(\"{name} \\\"\" {name} \"\\\"\");\n"),
            false => format!("printf(\"{name} %llu\\n\", (unsigned long long){name});\n"),
        };
    }
    program += "return 0; }\n";
    let printed = run(&compiler, "c", "-std=c99", &program);
    let wanted: String = expected.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    assert_eq!(printed, wanted);
}

#[test]
fn it_compiles_without_a_warning_in_c99_and_later() {
    let Some(compiler) = c::c() else { return };
    for standard in ["-std=c99", "-std=c11", "-std=c17", "-std=gnu17"] {
        assert_eq!(run(&compiler, "c", standard, USES_EVERYTHING), "done\n");
    }
}

#[test]
fn it_compiles_without_a_warning_in_cpp11_and_later() {
    let Some(compiler) = c::cpp() else { return };
    for standard in ["-std=c++11", "-std=c++17", "-std=c++20"] {
        assert_eq!(run(&compiler, "cc", standard, USES_EVERYTHING), "done\n");
    }
}

/// Included twice, every function with the types that the manual gives; the functions are stubs of C linkage.
const USES_EVERYTHING: &str = r#"
#include <oomguard.h>
#include <oomguard.h>
#include <stdio.h>
#ifdef __cplusplus
extern "C" {
#endif
const char *oomguard_version(void) { return OOMGUARD_VERSION; }
int oomguard_arm(const char *limit) { return limit != NULL ? 0 : -1; }
int oomguard_set_limit(const char *limit) { return limit != NULL ? 0 : -1; }
void oomguard_task(const char *name) { (void)name; }
int oomguard_status(struct oomguard_status *status, size_t size) { status->size = size; return 0; }
int oomguard_on_reclaim(void (*callback)(void *), void *argument) { callback(argument); return 0; }
int oomguard_on_exhausted(void (*callback)(void *), void *argument) { callback(argument); return 0; }
static void say(void *what) { puts((const char *)what); }
#ifdef __cplusplus
}
#endif
int main(void) {
    struct oomguard_status status;
    static char done[] = "done";
    static char nothing[] = "";
    if (oomguard_arm("512Mi") != 0 || oomguard_status(&status, sizeof status) != 0) return 1;
    if (oomguard_set_limit("1Gi") != 0) return 1;
    oomguard_task("job 17");
    if (oomguard_version()[0] == 0 || status.size != sizeof status) return 2;
    if (oomguard_on_reclaim(say, done) != 0) return 3;
    return nothing[0] == 0 ? 0 : oomguard_on_exhausted(say, nothing);
}
"#;

/// The names that the header defines with a value, in alphabetical order.
fn macros_of(header: &str) -> Vec<&str> {
    let mut names: Vec<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|rest| rest.split_once(' ').map(|(name, _)| name))
        .collect();
    names.sort_unstable();
    names
}

/// What a program prints, compiled with every warning an error.
fn run(compiler: &Path, extension: &str, standard: &str, program: &str) -> String {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join(format!("program.{extension}"));
    let binary = directory.path().join("program");
    fs::write(&source, program).unwrap();
    c::compile(
        Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
            .arg(c::include())
            .arg(&source)
            .arg("-o")
            .arg(&binary),
    );
    let output = Command::new(&binary).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
