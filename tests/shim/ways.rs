//! Each way of `programs/ways.c` and `ways.cpp`, and how it has to end: preloaded, linked and linked statically, under
//! both measures.

use crate::common::child::{End, Start};
use crate::common::report;
use crate::{library, preloaded};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};

const SIGABRT: End = End::Signal(6);
const SIGSEGV: End = End::Signal(11);
const SIGILL: End = End::Signal(4);

/// Ways that end in 198, with the cause that the report gives.
const DYING: [(&str, &str); 74] = [
    ("exit", "heap"),
    ("exit at once", "heap"),
    ("exit with perror", "heap"),
    ("exit with a full heap", "heap"),
    ("exit with text in a buffer", "heap"),
    ("exit, after a few allocations", "heap"),
    ("exit, after one of some size", "heap"),
    ("exit, still short of the block after much work", "heap"),
    ("exit, a small block found in a full heap", "heap"),
    ("exit, after address space was reserved", "heap"),
    ("exit, other words before the refusal", "heap"),
    ("message, long after", "heap"),
    ("message of each of its threads", "heap"),
    ("message, among others who work", "heap"),
    ("null, among others who work", "heap"),
    ("message by write", "heap"),
    ("message by writev", "heap"),
    ("message by write to stdout", "heap"),
    ("message by writev to stdout", "heap"),
    ("message after a refused mapping", "mapping"),
    ("null", "heap"),
    ("null, far into the block", "heap"),
    ("null, a member of a small block", "heap"),
    ("null, after another thread was refused", "heap"),
    ("null, after a refused mapping", "mapping"),
    ("MAP_FAILED", "mapping"),
    ("MAP_FAILED, far into the block", "mapping"),
    ("MAP_FAILED, before the block", "mapping"),
    ("abort", "heap"),
    ("SIGABRT after an abort that was left", "heap"),
    ("abort, after a refused mapping", "mapping"),
    ("words of Rust's library after a refused mapping, then for ever", "mapping"),
    ("trap, after a refused mapping", "mapping"),
    ("assert that the mapping is there", "mapping"),
    ("abort, whose handler leaves by a code", "heap"),
    ("abort, whose handler leaves by a code, on a stack of its own", "heap"),
    ("abort, whose handler raises it again", "heap"),
    ("message in colours", "heap"),
    ("assert that the block is there", "heap"),
    ("trap with a full heap", "heap"),
    ("trap with a message", "heap"),
    ("handler that tells of it word by word, and raises again", "heap"),
    ("handler that raises again", "heap"),
    ("calloc", "heap"),
    ("realloc", "heap"),
    ("reallocarray", "heap"),
    ("aligned_alloc", "heap"),
    ("posix_memalign", "heap"),
    ("thread", "thread"),
    ("handler taken back", "heap"),
    ("quick_exit", "heap"),
    ("exit_group by its number", "heap"),
    ("a signal to itself, after a message", "heap"),
    ("a signal of a crash to itself, after a message", "heap"),
    ("message in another language", "heap"),
    ("message in another language, in a format", "heap"),
    ("message in another language, letter by letter", "heap"),
    ("a long message, letter by letter", "heap"),
    ("trap above the limit", "heap"),
    ("says what it wanted", "heap"),
    ("message, tidied up by another program", "heap"),
    ("what ENOMEM is called, asked by strerror_r", "heap"),
    ("message by error", "heap"),
    ("message by error, words among the arguments", "heap"),
    ("message by errx", "heap"),
    ("message put together", "heap"),
    ("message put together of more than there are registers", "heap"),
    ("message put together from a list", "heap"),
    ("message by printf", "heap"),
    ("message, then other words", "heap"),
    ("message, after a question about filters", "heap"),
    ("message, then a backtrace that takes memory to print", "heap"),
    ("mapping by its number, message", "mapping"),
    ("a full stack, of handling it", "heap"),
];

/// Ways that only a limit on data bears on.
const OF_DATA: [(&str, End); 4] = [
    ("survives by mapping a file", End::Exit(3)),
    ("over a reservation", End::Exit(0)),
    ("over mappings of its own, again and again", End::Exit(0)),
    ("too many mappings", End::Exit(3)),
];

/// Ways that end by what the C library finds, and says to nobody that can be listened to in a static program.
const OF_LIBRARY: [(&str, End); 3] = [
    ("survives with no page left, and frees what is no block", SIGABRT),
    ("survives with a full heap, and frees what is no block", SIGABRT),
    ("survives, ended by the C library over something else", SIGABRT),
];

/// Ways that end as they would without the shim.
const OTHERS: [(&str, End); 115] = [
    ("error ends a program that was refused nothing", End::Exit(5)),
    ("err ends a program that was refused nothing", End::Exit(6)),
    ("errx ends a program that was refused nothing", End::Exit(7)),
    ("survives, told to end, and says so by its code", End::Exit(143)),
    ("survives, told to end, with a full heap", End::Exit(143)),
    ("survives, another error by error", End::Exit(3)),
    ("survives, another error by perror", End::Exit(3)),
    ("survives, passes on how a child ended", End::Exit(4)),
    ("survives, passes on how a program ended, with a full heap", End::Exit(5)),
    ("survives a large request, other words", End::Exit(3)),
    ("survives a large request, works, fails in silence", End::Exit(3)),
    ("survives a large request, writes, fails in silence", End::Exit(3)),
    ("survives a large request, works, then null of its own", SIGSEGV),
    ("survives a large request, other words, aborts", SIGABRT),
    ("survives a large request in a thread, aborts", SIGABRT),
    ("survives a large request in a thread, fails in silence", End::Exit(3)),
    ("survives a large request, aborts in a thread", SIGABRT),
    ("survives with a word, passes on how system ended", End::Exit(6)),
    ("survives by a smaller buffer", End::Exit(3)),
    ("survives by half of a mapping", End::Exit(5)),
    ("survives with fewer threads", End::Exit(3)),
    ("survives, then has too many threads", End::Exit(3)),
    ("survives, looks up what it does not say", End::Exit(3)),
    ("survives, looks up what it does not say, and says what else went wrong", End::Exit(3)),
    ("survives, looks up another failure, in silence", End::Exit(3)),
    ("survives, tells the last error there was", End::Exit(3)),
    ("survives, tells the last error there was, in another language", End::Exit(3)),
    ("survives, reads what is left", End::Exit(3)),
    ("survives with a full heap, reads what is left", End::Exit(3)),
    ("survives with a word, works, and fails in silence", End::Exit(3)),
    ("survives, fails to create something else", End::Exit(3)),
    ("survives, fails to create something, and says why", End::Exit(3)),
    ("survives, says that an allocation is done", End::Exit(0)),
    ("survives an abort in each of its threads", End::Exit(0)),
    ("survives, and has others do its work", End::Exit(3)),
    ("survives, and may only read and write from then on", End::Exit(3)),
    ("survives with a word, then another thread's under a filter", End::Exit(3)),
    ("survives, other words, after a question about filters", End::Exit(3)),
    ("reads more than there is room for", End::Exit(0)),
    ("survives, and looks again and again whether threads that it had have done its work", End::Exit(3)),
    ("survives, and has others do its work before it can wait for it", End::Exit(3)),
    ("survives, other words of each of its threads", End::Exit(3)),
    ("survives", End::Exit(0)),
    ("survives, own code", End::Exit(3)),
    ("survives a thread", End::Exit(0)),
    ("survives a mapping, own code", End::Exit(3)),
    ("survives many mappings", End::Exit(3)),
    ("survives, aborts for a reason of its own", SIGABRT),
    ("survives a mapping, maps less, aborts", SIGABRT),
    ("survives with a full heap, aborted by another", SIGABRT),
    ("survives, leaves an abort, own code", End::Exit(3)),
    ("survives with a word, leaves an abort, own code", End::Exit(3)),
    ("survives, a file is not there, aborts", SIGABRT),
    ("survives, then SIGSEGV of its own", SIGSEGV),
    ("survives, then divides by zero", End::Signal(8)),
    ("survives, another assertion", SIGABRT),
    ("survives, asked for too much by mistake", End::Exit(3)),
    ("survives, gone on with as much as was refused", End::Exit(3)),
    ("survives, gone on with a mapping", End::Exit(3)),
    ("survives, gone on with a larger mapping", End::Exit(3)),
    ("survives, gone on with a mapping made writable", End::Exit(3)),
    ("survives, gone on with more heap", End::Exit(3)),
    ("survives by many allocations", End::Exit(3)),
    ("survives by one of some size", End::Exit(3)),
    ("survives by much in small pieces", End::Exit(3)),
    ("survives by posix_memalign", End::Exit(3)),
    ("survives, says why it ends", End::Exit(3)),
    ("survives, then another block is not there", SIGABRT),
    ("survives, then a trap", SIGILL),
    ("survives, then a trap after one block", SIGILL),
    ("survives, then a trap that says why", SIGILL),
    ("survives, then far from null", SIGSEGV),
    ("survives, then null of its own", SIGSEGV),
    ("survives, gets what was refused, then null of its own", SIGSEGV),
    ("survives a mapping, then far from it", SIGSEGV),
    ("survives, then null in another thread", SIGSEGV),
    ("survives, then killed by another", SIGSEGV),
    ("survives, exits with 256", End::Exit(0)),
    ("mapping refused for another reason, then null", SIGSEGV),
    ("errno", End::Exit(0)),
    ("errno of mmap", End::Exit(0)),
    ("errno of posix_memalign", End::Exit(0)),
    ("bad alignment", End::Exit(3)),
    ("posix_memalign asked for too much by mistake", End::Exit(3)),
    ("realloc to nothing", End::Exit(3)),
    ("reallocarray to nothing", End::Exit(3)),
    ("no huge pages", End::Exit(3)),
    ("a hole in a mapping", End::Exit(3)),
    ("a hole in a mapping, in a full heap", End::Exit(3)),
    ("a size that nobody can have", End::Exit(3)),
    ("a mapping that nobody can have", End::Exit(3)),
    ("survives, words that claim nothing", End::Exit(3)),
    ("survives with a word, then another exception", End::Exit(3)),
    ("survives with a word, ended by its administrator", End::Exit(1)),
    ("survives with a word, then a file is not there", End::Exit(3)),
    ("survives with a word, serves, ends", End::Exit(143)),
    ("survives, serves, ends with a block still missing", End::Exit(143)),
    ("survives under a filter", End::Exit(3)),
    ("a signal to itself", End::Signal(15)),
    // Nothing may be opened, so there is no report.
    ("exit under a filter", End::Exit(198)),
    ("child of fork that exits", End::Exit(4)),
    ("child of fork, after a message of its parent", End::Exit(0)),
    ("child of vfork that exits", End::Exit(4)),
    ("shell", End::Exit(6)),
    ("own code", End::Exit(5)),
    ("null of its own", SIGSEGV),
    ("kill", SIGSEGV),
    ("trap", SIGILL),
    ("abort of its own", SIGABRT),
    ("abort, ignored", SIGABRT),
    ("handler of its own", End::Exit(51)),
    ("brk", End::Exit(0)),
    ("looks untouched", End::Exit(0)),
    // The child's own end, handed on.
    ("child of fork", End::Exit(198)),
    ("no such way", End::Exit(99)),
];

const CPP_DYING: [&str; 5] =
    ["uncaught", "uncaught in noexcept", "of a task, among others who work", "caught, exit", "nothrow, null"];
const CPP_OTHERS: [(&str, End); 5] = [
    ("survives, another exception, among others who work", SIGABRT),
    ("survives, own code", End::Exit(3)),
    ("survives, another exception", SIGABRT),
    ("a pool of its own is used up", SIGABRT),
    ("survives, and aborts while it does", SIGABRT),
];

/// What the report says of how the end was known, and of the end that the program would have had.
const KNOWN_BY: [(&str, &str, End); 10] = [
    ("exit with a full heap", "missing", End::Exit(1)),
    ("message, long after", "said", End::Exit(1)),
    ("exit at once", "straight", End::Exit(1)),
    ("null", "fault", SIGSEGV),
    ("MAP_FAILED", "fault", SIGSEGV),
    ("abort", "straight", SIGABRT),
    ("trap with a full heap", "missing", SIGILL),
    ("trap with a message", "said", SIGILL),
    ("uncaught", "exact", SIGABRT),
    ("uncaught in noexcept", "exact", SIGABRT),
];

/// The alignment that was asked for.
const ALIGNED: [(&str, u64); 2] = [("aligned_alloc", 64), ("posix_memalign", 64)];

/// How a program comes to the library.
#[derive(Clone)]
enum Join {
    Preloaded(PathBuf),
    Linked(PathBuf),
}

impl Join {
    fn start(&self, program: &Path) -> Start {
        match self {
            Join::Preloaded(shim) => preloaded(shim, program),
            Join::Linked(directory) => Start::program(program.to_owned(), "")
                .env("LD_LIBRARY_PATH", directory)
                .env("OOMGUARD_LIMIT", "256Mi"),
        }
    }
}

pub fn add_to(trials: &mut Vec<Trial>, cc: &str, shim: &Path) {
    let directory = shim.parent().expect("the library lies in a directory").to_owned();
    // `malloc` pairs without effect must stay: -fno-builtin.
    let flags = ["-pthread", "-fno-builtin", "-fno-delete-null-pointer-checks"];
    let search = format!("-L{}", directory.display());
    let program = library::compile(cc, "ways.c", "ways", &flags);
    let linked = library::compile(
        cc,
        "ways.c",
        "ways-linked",
        &[&flags[..], &["-Wl,--no-as-needed", &search, "-loomguard"]].concat(),
    );
    let archive = directory.join("liboomguard.a").display().to_string();
    let alone = library::compile(
        cc,
        "ways.c",
        "ways-static",
        &[&flags[..], &["-static", &archive, "-Wl,-z,muldefs", "-Wl,-u,__pthread_create"]].concat(),
    );
    let joins = [
        ("static", Join::Linked(directory.clone()), alone),
        ("preloaded", Join::Preloaded(shim.to_owned()), program),
        ("linked", Join::Linked(directory), linked),
    ];
    for (how, join, program) in &joins {
        for measure in ["address-space", "data"] {
            for (way, cause) in DYING {
                add(trials, how, measure, join, program, way, End::Exit(198), Some(cause));
            }
            for (way, end) in OTHERS {
                add(trials, how, measure, join, program, way, end, None);
            }
            for (way, end) in OF_LIBRARY.into_iter().filter(|_| *how != "static") {
                add(trials, how, measure, join, program, way, end, None);
            }
            for (way, end) in OF_DATA.into_iter().filter(|_| measure == "data") {
                add(trials, how, measure, join, program, way, end, None);
            }
        }
    }
    let Some(cpp) = library::compiler("c++") else {
        crate::common::skip::skipped("C++: no compiler (c++) in PATH");
        return;
    };
    let program = library::compile(cpp, "ways.cpp", "ways-cpp", &["-pthread"]);
    let join = Join::Preloaded(shim.to_owned());
    for measure in ["address-space", "data"] {
        for way in CPP_DYING {
            add(trials, "c++", measure, &join, &program, way, End::Exit(198), Some("heap"));
        }
        for (way, end) in CPP_OTHERS {
            add(trials, "c++", measure, &join, &program, way, end, None);
        }
    }
}

#[allow(clippy::too_many_arguments)] // A row of a table.
fn add(
    trials: &mut Vec<Trial>,
    how: &str,
    measure: &'static str,
    join: &Join,
    program: &Path,
    way: &'static str,
    end: End,
    cause: Option<&'static str>,
) {
    let (join, program) = (join.clone(), program.to_owned());
    trials.push(Trial::test(format!("{how}, {measure}: {way}"), move || {
        let mut start = join.start(&program).env("OOMGUARD_MEASURE", measure);
        start.command.arg(way);
        let remains = start.run()?;
        if remains.end() != end {
            return Err(format!("wanted {end:?}: {remains:#?}").into());
        }
        // What stdio held goes out as it would have.
        if way == "exit with text in a buffer" && remains.stdout != "kept" {
            return Err(format!("lost output: {remains:#?}").into());
        }
        match (cause, &remains.report) {
            (Some(cause), Some(content)) => {
                let record = report::read(content)?;
                if record["cause"] != cause || record["pid"] != remains.pid {
                    return Err(format!("wanted cause {cause}: {content}").into());
                }
                let align = ALIGNED.into_iter().find(|(known, _)| *known == way).map(|(_, align)| align);
                if record["align"].as_u64() != align {
                    return Err(format!("wanted align {align:?}: {content}").into());
                }
                if let Some((_, evidence, own)) = KNOWN_BY.into_iter().find(|(known, ..)| *known == way) {
                    let (code, signal) = match own {
                        End::Exit(code) => (Some(code), None),
                        End::Signal(signal) => (None, Some(signal)),
                    };
                    if record["evidence"] != evidence
                        || record["own_exit_code"].as_i64() != code.map(i64::from)
                        || record["own_signal"].as_i64() != signal.map(i64::from)
                    {
                        return Err(format!("wanted {evidence}, own {own:?}: {content}").into());
                    }
                }
            }
            (Some(_), None) => return Err("no report".into()),
            (None, Some(content)) if way != "child of fork" => {
                return Err(format!("a report of no death: {content}").into());
            }
            (None, _) => {}
        }
        Ok(())
    }));
}
