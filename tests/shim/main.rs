//! The shim, judged from outside: C and C++ programs, started with liboomguard.so preloaded or linked, that die of a
//! refusal, survive it, or die of something else.

#[path = "../common/mod.rs"]
mod common;
mod library;
mod ways;

use common::child::{End, Start};
use libtest_mimic::{Arguments, Trial};
use std::path::{Path, PathBuf};
use std::process::Command;

// Only what is tested is to have a limit; the parent's own would come from whatever container this runs in.
oomguard::guard!(limit = "off");

fn main() {
    if std::env::var_os(common::ROLE).is_some() {
        // Guarded by itself, with the shim preloaded: dies by its own guard, which looks for the stack's evidence.
        let mut block: Vec<u8> = Vec::new();
        assert!(block.try_reserve(1 << 30).is_err(), "there is a limit");
        std::process::exit(3);
    }
    common::dispositions::reset();
    let mut trials = Vec::new();
    match library::compiler("cc") {
        Some(cc) => {
            let shim = library::build();
            ways::add_to(&mut trials, cc, &shim);
            add_special(&mut trials, cc, &shim);
        }
        None => common::skip::skipped("all of it: no C compiler (cc) in PATH"),
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A program with the shim preloaded.
pub fn preloaded(shim: &Path, program: &Path) -> Start {
    Start::program(program.to_owned(), "").env("LD_PRELOAD", shim).env("OOMGUARD_LIMIT", "256Mi")
}

fn add_special(trials: &mut Vec<Trial>, cc: &str, shim: &Path) {
    let mut add = |name: &str, test: Box<dyn Fn() -> Result<(), String> + Send>| {
        trials.push(Trial::test(name.to_owned(), move || Ok(test()?)));
    };
    let shim = shim.to_owned();

    // The compiler may leave out a malloc whose block is not used.
    let room = library::compile(cc, "room.c", "room", &["-fno-builtin"]);
    let library = shim.clone();
    add(
        "a refused large block leaves small ones the room that they had",
        Box::new(move || {
            let remains = preloaded(&library, &room).env("OOMGUARD_MEASURE", "data").run()?;
            is(&remains, End::Exit(0), "")
        }),
    );

    let early = library::compile(cc, "early.c", "early", &["-pthread", "-ldl"]);
    let modules: Vec<PathBuf> = (0..40).map(|number| thread_local_library(cc, number)).collect();
    let (library, all) = (shim.clone(), modules);
    add(
        "memory before main, in signal handlers, in forked children, beside new thread-local storage",
        Box::new(move || {
            let mut start = preloaded(&library, &early);
            start.command.args(&all);
            let remains = start.run()?;
            is(&remains, End::Exit(0), "done\n")
        }),
    );

    let (library, race) =
        (shim.clone(), library::compile(cc, "race.c", "race", &["-pthread", "-fno-builtin"]));
    add(
        "counting that begins and ends at once goes on",
        Box::new(move || {
            // One in fifteen was not counted any more, on two processors.
            for _ in 0..60 {
                let remains = preloaded(&library, &race).env("OOMGUARD_MEASURE", "data").run()?;
                is(&remains, End::Exit(3), "")?;
            }
            Ok(())
        }),
    );

    let counter = library::compile(cc, "counter.c", "counter.so", &["-shared", "-fPIC", "-ldl"]);
    let ways = library::directory().join("ways");
    for way in ["exit at once", "null", "abort", "exit"] {
        let (library, counter, ways) = (shim.clone(), counter.clone(), ways.clone());
        add(
            &format!("no allocation between refusal and end: {way}"),
            Box::new(move || {
                let mut start = preloaded(&library, &ways)
                    .env("LD_PRELOAD", format!("{}:{}", library.display(), counter.display()));
                let count = library::directory().join(format!("count-{}", way.replace(' ', "-")));
                start.command.arg(way).env("COUNTER", &count);
                let remains = start.run()?;
                is(&remains, End::Exit(198), "")?;
                let bytes = std::fs::read(&count).map_err(|error| error.to_string())?;
                let counted = u64::from_ne_bytes(*bytes.first_chunk().ok_or("no count")?);
                if counted == 1000 { Ok(()) } else { Err(format!("{} allocations", counted as i64 - 1000)) }
            }),
        );
    }

    let hooks = library::compile(cc, "hooks.c", "hooks.so", &["-shared", "-fPIC"]);
    let ways = library::directory().join("ways");
    for (way, code) in [("message after a refused mapping", 198), ("survives a mapping, own code", 3)] {
        let (library, hooks, ways) = (shim.clone(), hooks.clone(), ways.clone());
        add(
            &format!("beside a library that maps by system calls: {way}"),
            Box::new(move || {
                let mut start = preloaded(&library, &ways)
                    .env("LD_PRELOAD", format!("{}:{}", library.display(), hooks.display()));
                start.command.arg(way);
                is(&start.run()?, End::Exit(code), "")
            }),
        );
    }

    let library = shim.clone();
    add(
        "a guarded Rust program is left to its own guard",
        Box::new(move || {
            let remains =
                Start::role("guarded").env("LD_PRELOAD", &library).env("OOMGUARD_LIMIT", "256Mi").run()?;
            is(&remains, End::Exit(3), "")
        }),
    );

    let (library, ways) = (shim.clone(), library::directory().join("ways"));
    add(
        "preloaded twice it is there once",
        Box::new(move || {
            let copy = library::directory().join("second.so");
            std::fs::copy(&library, &copy).map_err(|error| error.to_string())?;
            let mut start = preloaded(&library, &ways)
                .env("LD_PRELOAD", format!("{}:{}", copy.display(), library.display()));
            start.command.arg("exit");
            let remains = start.run()?;
            is(&remains, End::Exit(198), "")?;
            common::report::read(remains.report.as_deref().unwrap_or_default()).map(|_| ())
        }),
    );

    for (inherit, expected) in [("1", "198 262144 listed 256Mi\n"), ("0", "5 unlimited alone\n")] {
        let (library, ways) = (shim.clone(), library::directory().join("ways"));
        // Without a limit it would eat all that the machine has.
        let way = if inherit == "1" { "exit" } else { "own code" };
        add(
            &format!("what the program starts, with OOMGUARD_INHERIT={inherit}"),
            Box::new(move || {
                let script = format!(
                    "{} '{way}'; code=$?; limit=$(/bin/sh -c 'ulimit -S -v'); case $LD_PRELOAD in *oomguard*) there=listed;; *) there=alone;; esac; \
                     echo $code $limit $there $OOMGUARD_LIMIT; env | grep -c OOMGUARD_RECORD >/dev/null && exit 9; exit 0",
                    ways.display()
                );
                let mut start = preloaded(&library, Path::new("/bin/sh"))
                    .env("OOMGUARD_INHERIT", inherit)
                    .env("OOMGUARD_RECORD", "fd:77:1");
                start.command.arg("-c").arg(script);
                is(&start.run()?, End::Exit(0), expected)
            }),
        );
    }

    let (library, ways) = (shim.clone(), library::directory().join("ways"));
    add(
        "bad text ends the program before it starts",
        Box::new(move || {
            let mut start = preloaded(&library, &ways).env("OOMGUARD_LIMIT", "12Q");
            start.command.arg("own code");
            let remains = start.run()?;
            is(&remains, End::Exit(125), "")?;
            if remains.stderr.contains("OOMGUARD_LIMIT=\"12Q\"") { Ok(()) } else { Err(remains.stderr) }
        }),
    );

    let (library, ways) = (shim, library::directory().join("ways"));
    add(
        "immediate ends at the refused malloc, and never at a refused mapping",
        Box::new(move || {
            for (way, end) in [("survives", 198), ("survives many mappings", 3)] {
                let mut start = preloaded(&library, &ways).env("OOMGUARD_ON_REFUSAL", "immediate");
                start.command.arg(way);
                is(&start.run()?, End::Exit(end), "")?;
            }
            Ok(())
        }),
    );
}

/// A library whose only content is thread-local.
fn thread_local_library(cc: &str, number: usize) -> PathBuf {
    let output = library::directory().join(format!("local{number}.so"));
    let source = library::directory().join("local.c");
    std::fs::write(&source, "_Thread_local char there[5000] = {1};\n").expect("a source file");
    let status = Command::new(cc).args(["-shared", "-fPIC", "-o"]).arg(&output).arg(&source).status();
    assert!(status.is_ok_and(|status| status.success()));
    output
}

/// Whether a program ended as it should, and said what it should on stdout.
pub fn is(remains: &common::child::Remains, end: End, stdout: &str) -> Result<(), String> {
    if remains.end() == end && remains.stdout == stdout {
        Ok(())
    } else {
        Err(format!("wanted {end:?} and {stdout:?}: {remains:#?}"))
    }
}
