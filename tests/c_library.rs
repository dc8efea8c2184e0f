//! The C library as its users meet it: installed into a prefix, found by pkg-config, and linked into the C and the C++
//! example in the three ways that there are, without a warning. They survive by their reclaim callback, or die with 198.

mod common;

use common::c;
use common::child::{End, Remains, Start};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

const ROWS: u64 = 200_000;

/// Some 20 to 40 MiB of rows, and 100 MiB of cache.
const ENOUGH: &str = "512Mi";
const ENOUGH_WITHOUT_CACHE: &str = "64Mi";
const TOO_LITTLE: &str = "24Mi";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Language {
    C,
    Cpp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Linked {
    Dynamically,
    /// With liboomguard.a, and the C library as usual.
    Archive,
    /// All of it with `-static`: both libraries define malloc and its kin, and ours comes first.
    Statically,
}

const LINKED: [Linked; 3] = [Linked::Dynamically, Linked::Archive, Linked::Statically];

#[test]
fn the_library_is_installed_with_a_versioned_name() {
    if !tools() {
        return;
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        names_in(&PREFIX.path().join("lib")),
        [
            "cmake",
            "liboomguard.a",
            "liboomguard.so",
            "liboomguard.so.0",
            &format!("liboomguard.so.{version}"),
            "pkgconfig"
        ]
    );
    assert_eq!(pkg_config(&["--modversion"]), [version]);
    // What a program remembers is the name with the major version.
    let program = &EXAMPLES[&(Language::C, Linked::Dynamically)];
    assert!(needed_by(&program.path().join("summarise")).contains(&"liboomguard.so.0".to_owned()));
}

#[test]
fn the_library_needs_nothing_that_a_small_image_may_lack() {
    if !tools() {
        return;
    }
    for library in needed_by(&PREFIX.path().join("lib/liboomguard.so")) {
        assert!(library.starts_with("libc.so.") || library.starts_with("ld-linux"), "it needs {library}");
    }
}

#[test]
fn the_examples_with_enough_memory_keep_their_cache() {
    for_every_example(|language, program| {
        let remains = summarise(program, ENOUGH);
        assert_eq!(remains.end(), End::Exit(0), "{remains:?}");
        assert_eq!(remains.stdout, summary(language));
        assert!(remains.stderr.ends_with(" of 512 MiB left, cache dropped no\n"), "{remains:?}");
        assert_eq!(remains.report, None);
    });
}

#[test]
fn the_examples_survive_by_giving_up_their_cache() {
    for_every_example(|language, program| {
        let remains = summarise(program, ENOUGH_WITHOUT_CACHE);
        assert_eq!(remains.end(), End::Exit(0), "{remains:?}");
        assert_eq!(remains.stdout, summary(language));
        assert!(remains.stderr.ends_with(" of 64 MiB left, cache dropped yes\n"), "{remains:?}");
        assert_eq!(remains.report, None);
    });
}

#[test]
fn the_examples_with_too_little_memory_say_so_and_exit_with_the_reserved_code() {
    for_every_example(|_, program| {
        let remains = summarise(program, TOO_LITTLE);
        assert_eq!(remains.end(), End::Exit(198), "{remains:?}");
        assert_eq!(remains.stdout, "");
        assert!(remains.stderr.contains("oomguard: out of memory: summarise (pid "), "{remains:?}");
        assert!(remains.stderr.contains(" of address-space, from the program's source\n"), "{remains:?}");
        assert!(remains.stderr.contains("\nsummarise: memory ran out"), "last words: {remains:?}");
        let report: serde_json::Value = serde_json::from_str(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["limit"], 24 << 20);
        assert_eq!(report["limit_source"], "source");
        assert_eq!(report["measure"], "address_space");
        assert_eq!(report["exit_code"], 198);
    });
}

#[test]
fn the_examples_below_another_copy_are_heard_by_that() {
    for_every_example(|_, program| {
        let library = PREFIX.path().join("lib/liboomguard.so").display().to_string();
        let remains = run(program, &[ENOUGH_WITHOUT_CACHE, "requests.csv"], &[("LD_PRELOAD", &library)]);
        assert_eq!(remains.end(), End::Exit(0), "{remains:?}");
        assert!(remains.stderr.ends_with(" of 64 MiB left, cache dropped yes\n"), "{remains:?}");
        let remains = run(program, &[TOO_LITTLE, "requests.csv"], &[("LD_PRELOAD", &library)]);
        assert_eq!(remains.end(), End::Exit(198), "{remains:?}");
        assert!(remains.stderr.contains("\nsummarise: memory ran out"), "last words: {remains:?}");
    });
}

#[test]
fn the_environment_has_the_last_word() {
    for_every_example(|_, program| {
        let remains = run(program, &[ENOUGH, "requests.csv"], &[("OOMGUARD_LIMIT", TOO_LITTLE)]);
        assert_eq!(remains.end(), End::Exit(198), "{remains:?}");
        assert!(remains.stderr.contains("from OOMGUARD_LIMIT"), "{remains:?}");

        let remains = run(program, &[ENOUGH, "requests.csv"], &[("OOMGUARD_LIMIT", "plenty")]);
        assert_eq!(remains.end(), End::Exit(125), "{remains:?}");
        assert!(remains.stderr.contains("OOMGUARD_LIMIT=\"plenty\""), "{remains:?}");
    });
}

#[test]
fn the_examples_keep_their_own_failures() {
    for_every_example(|_, program| {
        let remains = run(program, &["plenty", "requests.csv"], &[]);
        assert_eq!(remains.end(), End::Exit(1), "{remains:?}");
        assert_eq!(remains.stderr, "summarise: plenty: Invalid argument\n");
        let remains = run(program, &[ENOUGH, "no/such.csv"], &[]);
        assert_eq!(remains.end(), End::Exit(1), "{remains:?}");
        let remains = run(program, &[], &[]);
        assert_eq!(remains.end(), End::Exit(2), "{remains:?}");
    });
}

#[test]
fn every_function_returns_and_sets_errno_as_the_header_says() {
    if !tools() {
        return;
    }
    for linked in LINKED {
        let program = build(Language::C, linked, Path::new("tests/c/functions.c"));
        for (environment, measure, source) in [
            (&[][..], "address-space", "source"),
            (&[("OOMGUARD_MEASURE", "data")], "data", "source"),
            (&[("OOMGUARD_LIMIT", "1Gi")], "address-space", "environment"),
        ] {
            let remains = run(&program, &[measure, source], environment);
            assert_eq!(
                (remains.end(), remains.stderr.as_str()),
                (End::Exit(0), ""),
                "{linked:?} {environment:?}"
            );
            assert_eq!(remains.stdout, format!("{} done\n", env!("CARGO_PKG_VERSION")));
        }
    }
}

// How they are built and run.

/// Where the library was installed.
static PREFIX: LazyLock<TempDir> = LazyLock::new(|| {
    let prefix = TempDir::with_prefix("oomguard-prefix-").unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp lies in the target directory");
    let status = Command::new(in_source("crates/shim/install"))
        .env("PREFIX", prefix.path())
        .env("CARGO_TARGET_DIR", target)
        .env_remove("DESTDIR")
        .env_remove("LIBDIR")
        .status()
        .expect("crates/shim/install starts");
    assert!(status.success(), "crates/shim/install: {status}");
    prefix
});

/// The examples, compiled once.
static EXAMPLES: LazyLock<BTreeMap<(Language, Linked), TempDir>> = LazyLock::new(|| {
    let mut examples = BTreeMap::new();
    for (language, source) in
        [(Language::C, "examples/c/summarise.c"), (Language::Cpp, "examples/cpp/summarise.cpp")]
    {
        for linked in LINKED {
            examples.insert((language, linked), build(language, linked, Path::new(source)));
        }
    }
    examples
});

static REQUESTS: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::from("id,service,url,agent,millis\n");
    for row in 0..ROWS {
        writeln!(text, "r{row},{},/item/{row},a-user-agent-of-some-length,{}", service(row), row % 97)
            .unwrap();
    }
    text
});

fn service(row: u64) -> &'static str {
    ["cart", "login", "search"][(row % 3) as usize]
}

fn summary(language: Language) -> String {
    match language {
        Language::C => format!("{ROWS} requests, {} ms\n", (0..ROWS).map(|row| row % 97).sum::<u64>()),
        Language::Cpp => {
            let mut services = BTreeMap::<&str, (u64, u64)>::new();
            for row in 0..ROWS {
                let (requests, millis) = services.entry(service(row)).or_default();
                *requests += 1;
                *millis += row % 97;
            }
            services
                .iter()
                .map(|(name, (requests, millis))| format!("{name} {requests} {millis}\n"))
                .collect()
        }
    }
}

fn for_every_example(test: impl Fn(Language, &TempDir)) {
    if !tools() {
        return;
    }
    for ((language, linked), program) in &*EXAMPLES {
        eprintln!("{language:?}, {linked:?}");
        test(*language, program);
    }
}

/// The shared libraries that a file names.
fn needed_by(file: &Path) -> Vec<String> {
    let output = Command::new("readelf").arg("-d").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.contains("(NEEDED)"));
    lines.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())).collect()
}

fn tools() -> bool {
    let found = |program| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let all = c::c().is_some() && c::cpp().is_some() && found("pkg-config") && found("readelf");
    if !all {
        common::skip::skipped("this needs cc, c++, pkg-config and readelf");
    }
    all
}

/// A directory with the program `summarise` in it.
fn build(language: Language, linked: Linked, source: &Path) -> TempDir {
    let directory = TempDir::with_prefix("oomguard-c-").unwrap();
    let (compiler, standard) = match language {
        Language::C => (c::c(), "-std=c99"),
        Language::Cpp => (c::cpp(), "-std=c++11"),
    };
    let mut compile = Command::new(compiler.expect("asked for before"));
    compile
        .args([standard, "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"])
        .arg(directory.path().join("summarise"))
        .arg(in_source(source));
    match linked {
        Linked::Dynamically => compile.args(pkg_config(&["--cflags", "--libs"])),
        Linked::Archive | Linked::Statically => {
            compile.args(pkg_config(&["--cflags"])).arg(PREFIX.path().join("lib/liboomguard.a"))
        }
    };
    if linked == Linked::Statically {
        compile.args(["-static", "-Wl,-z,muldefs"]);
    }
    c::compile(&mut compile);
    directory
}

fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("pkg-config")
        .args(arguments)
        .arg("oomguard")
        .env("PKG_CONFIG_PATH", PREFIX.path().join("lib/pkgconfig"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

fn summarise(directory: &TempDir, limit: &str) -> Remains {
    run(directory, &[limit, "requests.csv"], &[])
}

fn run(directory: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Remains {
    let mut start = Start::program(directory.path().join("summarise"), "none")
        .env("LD_LIBRARY_PATH", PREFIX.path().join("lib"));
    for (name, value) in environment {
        start = start.env(name, value);
    }
    fs::write(start.directory.path().join("requests.csv"), &*REQUESTS).unwrap();
    start.command.args(arguments);
    start.run().expect("it ends in time")
}

fn in_source(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn names_in(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(name).collect();
    names.sort();
    names
}
