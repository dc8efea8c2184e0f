//! The man pages and the completions that `examples/manual.rs` writes: all tasks, all options, and scripts that shells read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

#[test]
fn each_option_is_in_the_manual() {
    let directory = written();
    for task in ["run", "report", "doctor"] {
        let help = Command::new(env!("CARGO_BIN_EXE_oomguard")).args([task, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let page = fs::read_to_string(directory.path().join(format!("oomguard-{task}.1"))).unwrap();
        let missing: BTreeSet<_> =
            options(&help).difference(&options(&page.replace("\\-", "-"))).cloned().collect();
        assert!(missing.is_empty(), "oomguard-{task}(1) lacks {missing:?}");
        assert!(options(&help).contains("--help"), "{help}");
    }
    let page = fs::read_to_string(directory.path().join("oomguard.1")).unwrap();
    assert!(page.contains("oomguard\\-run(1)"), "{page}");
}

#[test]
fn the_manual_has_the_exit_codes() {
    let page = fs::read_to_string(written().path().join("oomguard-run.1")).unwrap();
    assert!(page.contains("198") && page.contains("out of memory"), "{page}");
}

#[test]
fn the_completions_are_scripts() {
    let directory = written();
    let read = Command::new("bash").arg("-n").arg(directory.path().join("oomguard.bash")).output().unwrap();
    assert!(read.status.success() && read.stderr.is_empty(), "{read:?}");
    for name in ["_oomguard", "oomguard.fish"] {
        let text = fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(text.contains("any-descendant"), "{name}");
    }
}

/// The long options that a text names.
fn options(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
        format!("--{}", rest[..end].trim_end_matches('-'))
    };
    text.match_indices("--").map(|(at, _)| word(&text[at + 2..])).filter(|option| option.len() > 2).collect()
}

fn written() -> TempDir {
    let directory = TempDir::new().unwrap();
    let status = Command::new(example()).arg(directory.path()).status().unwrap();
    assert!(status.success());
    directory
}

/// The example's program, which cargo builds along with the tests.
fn example() -> PathBuf {
    let this_test = std::env::current_exe().unwrap();
    let path = this_test.parent().and_then(Path::parent).unwrap().join("examples/manual");
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/arguments.rs");
    assert!(
        changed(&path) >= changed(&source),
        "{} is missing or older than its source: a test run that is filtered by target does not build it; run \
         `cargo build -p oomguard-cli --examples` first",
        path.display()
    );
    path
}
