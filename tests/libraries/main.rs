//! The guard in a library that a C program loads: closed again, it leaves nothing behind that would crash the program,
//! and where it cannot guard a process that has begun already, it stands aside instead of ending it.

#[path = "../common/mod.rs"]
mod common;
#[path = "../shim/library.rs"]
#[allow(dead_code)] // Of the shim's tests, only what builds it.
mod shim;

use common::c;
use common::child::{End, Remains, Start};
use libtest_mimic::{Arguments, Trial};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    common::dispositions::reset();
    let mut trials = Vec::new();
    if let Some(cc) = c::c() {
        let programs = Programs { host: host(&cc, "host", &[]), cc };
        for library in libraries(&programs.cc) {
            programs.add_closed(&mut trials, &library);
            programs.add_stands_aside(&mut trials, &library);
            programs.add_from_the_start(&mut trials, &library);
        }
        programs.add_refused_after_close(&mut trials);
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A library with a guard.
struct Library {
    name: &'static str,
    file: PathBuf,
}

fn libraries(cc: &Path) -> [Library; 3] {
    let shim = shim::build();
    // Not told to the linker as liboomguard.so was: it has to see by itself that it stays.
    let plugin = directory().join("plugin.so");
    c::compile(
        Command::new(cc)
            .args(["-shared", "-o"])
            .arg(&plugin)
            .arg("-Wl,--whole-archive")
            .arg(shim.with_extension("a"))
            .args(["-Wl,--no-whole-archive", "-lgcc_s", "-lpthread", "-ldl", "-lm"]),
    );
    [
        Library { name: "liboomguard.so", file: shim },
        Library { name: "a library with liboomguard.a in it", file: plugin },
        Library { name: "a Rust library", file: guarded() },
    ]
}

/// Where what is built for these tests lies.
fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libraries");
    std::fs::create_dir_all(&directory).expect("a directory for what is built");
    directory
}

/// Builds the Rust library, as this test is built.
fn guarded() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp lies in the target directory");
    let (profile, folder) = if cfg!(debug_assertions) { ("dev", "debug") } else { ("release", "release") };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "guarded-library", "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the library does not build");
    target.join(folder).join("libguarded_library.so")
}

fn host(cc: &Path, output: &str, linked: &[&Path]) -> PathBuf {
    let program = directory().join(output);
    let mut compiler = Command::new(cc);
    compiler
        .args(["-O1", "-fno-builtin", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg("-I")
        .arg(c::include())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libraries/host.c"))
        .args(["-lpthread", "-ldl", "-Wl,--no-as-needed"]);
    link(&mut compiler, linked);
    c::compile(&mut compiler);
    program
}

/// A library that does nothing but need another one, or `source`.
fn middle(cc: &Path, output: &str, source: &str, linked: &[&Path]) -> PathBuf {
    let library = directory().join(output);
    let file = library.with_extension("c");
    std::fs::write(&file, source).expect("a source file");
    let mut compiler = Command::new(cc);
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(file).args(["-ldl", "-Wl,--no-as-needed"]);
    link(&mut compiler, linked);
    c::compile(&mut compiler);
    library
}

fn link(compiler: &mut Command, libraries: &[&Path]) {
    for library in libraries {
        let directory = library.parent().expect("an absolute path");
        compiler.arg(library).arg(format!("-Wl,-rpath,{}", directory.display()));
    }
}

struct Programs {
    cc: PathBuf,
    host: PathBuf,
}

type Check = Box<dyn Fn() -> Result<(), String> + Send>;

fn add(trials: &mut Vec<Trial>, name: String, check: Check) {
    trials.push(Trial::test(name, move || Ok(check()?)));
}

/// `host`, to do `actions` with `library`.
fn start(host: &Path, library: &Path, limit: &str, actions: &str) -> Start {
    let mut start = Start::program(host.to_owned(), "").env("OOMGUARD_LIMIT", limit);
    start.command.arg(library).args(actions.split_whitespace()).stdin(Stdio::null());
    start
}

fn ended(remains: Remains, end: End, stdout: &str) -> Result<Remains, String> {
    if remains.end() == end && remains.stdout == stdout {
        Ok(remains)
    } else {
        Err(format!("wanted {end:?} and {stdout:?}: {remains:#?}"))
    }
}

/// One line of stderr, with these words.
fn said(remains: &Remains, words: &[&str]) -> Result<(), String> {
    let line = remains.stderr.strip_suffix('\n').filter(|line| !line.contains('\n'));
    if line.is_some_and(|line| words.iter().all(|words| line.contains(words))) {
        Ok(())
    } else {
        Err(format!("wanted one line with {words:?}: {remains:#?}"))
    }
}

/// Enough for the arenas that malloc gives to threads.
const LIMIT: &str = "512Mi";
const ABOVE: &str = "fill 600";
const CANNOT: &str = "oomguard: cannot guard this process: ";
const ASIDE: &str = "loaded by dlopen, the process goes on without";

impl Programs {
    fn add_closed(&self, trials: &mut Vec<Trial>, library: &Library) {
        for way in [
            "open limit close",
            "open-global limit close",
            "open close open limit close",
            "open-in-thread limit close",
            "threads open limit close",
            "threads open-in-thread limit close",
        ] {
            let (host, file) = (self.host.clone(), library.file.clone());
            let check = move || {
                let limit = common::mebibytes(LIMIT);
                for (actions, end, more) in [
                    ("", End::Exit(0), ""),
                    ("exit-3", End::Exit(3), ""),
                    ("_exit-4", End::Exit(4), ""),
                    ("abort", End::Signal(libc::SIGABRT), ""),
                    ("segv", End::Signal(libc::SIGSEGV), ""),
                    (
                        "fork exit-3 fork _exit-4 fork abort fork segv exit-3",
                        End::Exit(3),
                        "3\n4\n134\n139\n",
                    ),
                ] {
                    let remains = start(&host, &file, LIMIT, &format!("{way} {actions}")).run()?;
                    let remains = ended(remains, end, &format!("{limit}\n{more}"))?;
                    if !remains.stderr.is_empty() || !remains.report.is_none_or(|report| report.is_empty()) {
                        return Err(format!("{actions}: {}", remains.stderr));
                    }
                }
                Ok(())
            };
            add(
                trials,
                format!("{}: {way}, and any end is the program's own", library.name),
                Box::new(check),
            );
        }
    }

    fn add_stands_aside(&self, trials: &mut Vec<Trial>, library: &Library) {
        let needs_it = middle(&self.cc, &format!("{}-needs.so", letters(library)), "", &[&library.file]);
        for (how, file) in [("", library.file.clone()), (" that an opened library needs", needs_it)] {
            let host = self.host.clone();
            let check = move || {
                for (limit, before, why) in
                    [(LIMIT, ABOVE, "(OOMGUARD_LIMIT) is below the "), ("12Q", "", "OOMGUARD_LIMIT=\"12Q\"")]
                {
                    for open in ["open", "threads open-in-thread"] {
                        let actions = format!("{before} {open} rlimit close open fill 100 close exit-3");
                        let remains =
                            ended(start(&host, &file, limit, &actions).run()?, End::Exit(3), "0\n")?;
                        said(&remains, &[CANNOT, why, ASIDE])?;
                    }
                }
                Ok(())
            };
            add(trials, format!("{}{how}, opened too late, stands aside", library.name), Box::new(check));
        }

        let (host, file) = (self.host.clone(), library.file.clone());
        let check = move || {
            let actions = format!("{ABOVE} open limit close exit-3");
            ended(start(&host, &file, LIMIT, &actions).run()?, End::Exit(3), "0\n").map(|_| ())
        };
        add(trials, format!("{}, standing aside, has no limit to tell of", library.name), Box::new(check));

        let source = "#include <dlfcn.h>\n#include <stdlib.h>\n\
                      __attribute__((constructor)) static void begin(void)\n\
                      { void *library = dlopen(getenv(\"LIBRARY\"), RTLD_NOW); if (!library) abort(); }\n";
        let opens = middle(&self.cc, &format!("{}-opens.so", letters(library)), source, &[]);
        let (host, file) = (self.host.clone(), library.file.clone());
        let check = move || {
            let start = start(&host, &file, "12Q", "exit-3").env("LIBRARY", &file).env("LD_PRELOAD", &opens);
            said(&ended(start.run()?, End::Exit(3), "")?, &[CANNOT, ASIDE])
        };
        add(
            trials,
            format!("{}, opened by another's constructor, stands aside", library.name),
            Box::new(check),
        );
    }

    fn add_from_the_start(&self, trials: &mut Vec<Trial>, library: &Library) {
        let letters = letters(library);
        let needs_it = middle(&self.cc, &format!("{letters}-first.so"), "", &[&library.file]);
        let linked = host(&self.cc, &format!("{letters}-linked"), &[&library.file]);
        let through = host(&self.cc, &format!("{letters}-through"), &[&needs_it]);
        let behind = format!("libc.so.6:libpthread.so.0:{}", library.file.display());
        let starts = [
            ("linked", linked, String::new()),
            ("linked through another library", through, String::new()),
            ("preloaded", self.host.clone(), library.file.display().to_string()),
            ("preloaded behind the C library", self.host.clone(), behind),
            ("preloaded through another library", self.host.clone(), needs_it.display().to_string()),
        ];
        for (how, host, preload) in starts {
            let check = move || {
                for (limit, why) in
                    [("10Ki", "(OOMGUARD_LIMIT) is below the "), ("12Q", "OOMGUARD_LIMIT=\"12Q\"")]
                {
                    let remains =
                        start(&host, Path::new(""), limit, "exit-3").env("LD_PRELOAD", &preload).run()?;
                    let remains = ended(remains, End::Exit(125), "")?;
                    said(&remains, &[CANNOT, why])?;
                    if remains.stderr.contains(ASIDE) {
                        return Err(remains.stderr);
                    }
                }
                let start = start(&host, Path::new(""), LIMIT, "rlimit exit-3").env("LD_PRELOAD", &preload);
                ended(start.run()?, End::Exit(3), &format!("{}\n", common::mebibytes(LIMIT))).map(|_| ())
            };
            add(trials, format!("{}, {how}, refuses to start", library.name), Box::new(check));
        }
    }

    fn add_refused_after_close(&self, trials: &mut Vec<Trial>) {
        let (host, file) = (self.host.clone(), guarded());
        let check = move || {
            let remains = start(&host, &file, "128Mi", "open close recover hoard 50 hoard 200").run()?;
            let remains = ended(remains, End::Exit(198), "")?;
            common::report::read(remains.report.as_deref().unwrap_or_default()).map(|_| ())
        };
        add(
            trials,
            "a Rust library, refused memory after it was closed, reports it".to_owned(),
            Box::new(check),
        );
        let (host, file) = (self.host.clone(), guarded());
        let check = move || {
            let actions = format!("{ABOVE} open recover hoard 50 close exit-3");
            ended(start(&host, &file, LIMIT, &actions).run()?, End::Exit(3), "").map(|_| ())
        };
        add(trials, "a Rust library, standing aside, allocates".to_owned(), Box::new(check));
    }
}

/// For names of files.
fn letters(library: &Library) -> String {
    library.name.chars().filter(char::is_ascii_alphabetic).collect()
}
