//! The matrix. A row is a way of a program in one language to end; each runs under both measures where the runtime can
//! start under them at all.

use oomguard::Measure;

pub const MEASURES: [Measure; 2] = [Measure::Resident, Measure::AddressSpace];

pub struct Language {
    pub name: &'static str,
    /// What has to be there: the first program of this list that can be run.
    pub runtimes: &'static [&'static str],
    /// What the runtime has to end well when it is given these arguments: whether a library is there.
    pub probe: &'static [&'static str],
    /// How the command begins: `{runtime}`, `{source}` (this folder), `{program}` (what was built).
    pub command: &'static [&'static str],
    /// How the program is built, if it has to be.
    pub build: &'static [&'static str],
    /// Variables of the runtime.
    pub environment: &'static [(&'static str, &'static str)],
    /// How the report's program name begins.
    pub program: &'static str,
    /// Limits per measure; none where the runtime cannot start under one that a test can exhaust.
    pub data: Option<&'static str>,
    pub address_space: Option<&'static str>,
    /// The shim cannot enter: the launcher infers what happened.
    pub inferred: bool,
    pub rows: &'static [Row],
}

pub struct Row {
    pub way: &'static str,
    pub fate: Fate,
    /// More arguments of the runtime, before the program.
    pub flags: &'static [&'static str],
    /// Only under this measure.
    pub only: Option<Measure>,
}

#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Exit 198 and a report with one of these causes.
    OutOfMemory(&'static [&'static str]),
    /// The program's own code, which the test chooses: it goes on, and ends with 0 and with 3.
    Chosen,
    /// The program's own code.
    Own(i32),
}

const fn dies(way: &'static str) -> Row {
    Row { way, fate: Fate::OutOfMemory(&["heap"]), flags: &[], only: None }
}

const fn recovers(way: &'static str) -> Row {
    Row { fate: Fate::Chosen, ..dies(way) }
}

impl Row {
    const fn causes(self, causes: &'static [&'static str]) -> Row {
        Row { fate: Fate::OutOfMemory(causes), ..self }
    }

    const fn own(self, code: i32) -> Row {
        Row { fate: Fate::Own(code), ..self }
    }

    const fn flags(self, flags: &'static [&'static str]) -> Row {
        Row { flags, ..self }
    }

    const fn only(self, measure: Measure) -> Row {
        Row { only: Some(measure), ..self }
    }
}

/// Runtimes that map memory themselves: which of their calls is refused is a matter of luck, as is whether it is refused before they are
/// found to use more than the limit of what they had mapped.
const ANY: &[&str] = &["heap", "mapping", "thread", "resident"];
const THREAD: &[&str] = &["thread"];
const MAPPING: &[&str] = &["mapping"];

const COMPILED: Language = Language {
    name: "",
    runtimes: &[],
    probe: &[],
    command: &["{program}"],
    build: &[],
    environment: &[],
    program: "eat",
    data: Some("64Mi"),
    address_space: Some("96Mi"),
    inferred: false,
    rows: &[],
};

const C_ROWS: &[Row] = &[
    dies("silent"),
    dies("perror"),
    dies("_exit"),
    dies("small"),
    dies("huge"),
    dies("abort"),
    dies("abort-silent"),
    dies("unchecked"),
    dies("unchecked-late"),
    dies("unchecked-thread"),
    dies("unchecked-copy"),
    dies("realloc"),
    dies("aligned"),
    dies("calloc"),
    dies("mmap").causes(MAPPING),
    dies("threads").causes(THREAD),
    recovers("recover"),
    recovers("recover-grow"),
    recovers("recover-huge"),
    recovers("recover-cache"),
    recovers("own"),
    dies("impossible").own(1),
];

/// What a static program's death tells from outside is a refused mapping, whatever it was for.
const STATIC_C_ROWS: &[Row] = &[
    dies("silent").causes(MAPPING),
    dies("perror").causes(MAPPING),
    dies("_exit").causes(MAPPING),
    dies("small").causes(MAPPING),
    dies("abort").causes(MAPPING),
    dies("abort-silent").causes(MAPPING),
    dies("unchecked").causes(MAPPING),
    dies("unchecked-thread").causes(MAPPING),
    dies("unchecked-copy").causes(MAPPING),
    dies("realloc").causes(MAPPING),
    dies("aligned").causes(MAPPING),
    dies("calloc").causes(MAPPING),
    dies("mmap").causes(MAPPING),
    dies("threads").causes(MAPPING),
    recovers("recover-grow"),
    recovers("recover"),
    recovers("recover-huge"),
    recovers("recover-cache"),
    recovers("own"),
];

const GO_ROWS: &[Row] = &[
    dies("slices").causes(MAPPING),
    dies("goroutine").causes(MAPPING),
    dies("huge").causes(MAPPING),
    recovers("recover-mmap"),
    recovers("own"),
];

pub const ALL: &[&Language] = &[
    &Language {
        name: "c",
        runtimes: &["cc"],
        build: &["cc", "-O1", "-fno-builtin", "-pthread", "-w", "-o", "{program}", "{source}/c/eat.c"],
        rows: C_ROWS,
        ..COMPILED
    },
    &Language {
        name: "c++",
        runtimes: &["c++"],
        build: &["c++", "-std=c++17", "-O1", "-pthread", "-o", "{program}", "{source}/cpp/eat.cpp"],
        rows: &[
            dies("uncaught"),
            dies("uncaught-vector"),
            dies("uncaught-array"),
            dies("uncaught-thread"),
            dies("noexcept"),
            dies("threads").causes(THREAD),
            dies("nothrow"),
            dies("caught"),
            dies("caught-silent"),
            recovers("recover"),
            recovers("recover-handler"),
            recovers("own"),
        ],
        ..COMPILED
    },
    &Language {
        name: "rust",
        runtimes: &["rustc"],
        build: &["rustc", "--edition=2021", "-O", "-o", "{program}", "{source}/rust/eat.rs"],
        // A backtrace is what allocates between the refusal and the end.
        environment: &[("RUST_BACKTRACE", "1")],
        rows: &[
            dies("vec"),
            dies("small"),
            dies("grow"),
            dies("thread"),
            dies("threads").causes(&["thread", "heap", "mapping"]),
            dies("peers").causes(&["thread", "heap"]),
            dies("no-thread").causes(THREAD),
            recovers("no-socket").own(101),
            dies("error"),
            recovers("hung-up").own(101),
            recovers("warned").own(2),
            dies("panic"),
            dies("called"),
            recovers("called-other").own(134),
            dies("thrown-on"),
            dies("thrown-on-by-another"),
            dies("traced"),
            dies("silent"),
            dies("thrown-error"),
            dies("thrown-io-error"),
            recovers("thrown-other").own(101),
            recovers("silent-other").own(101),
            recovers("caught").own(101),
            recovers("caught-by-another").own(101),
            recovers("caught-silent").own(101),
            recovers("recover"),
            recovers("own"),
        ],
        ..COMPILED
    },
    &Language {
        name: "static-rust",
        runtimes: &["rustc"],
        build: &[
            "rustc",
            "--edition=2021",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-o",
            "{program}",
            "{source}/rust/eat.rs",
        ],
        inferred: true,
        rows: &[
            dies("vec").causes(ANY),
            dies("error").causes(ANY),
            dies("panic").causes(ANY),
            recovers("thrown-other").own(101),
            recovers("silent-other").own(101),
            recovers("warned").own(2),
            recovers("own"),
        ],
        ..COMPILED
    },
    &Language {
        name: "static-c",
        runtimes: &["cc"],
        build: &[
            "cc",
            "-static",
            "-O1",
            "-fno-builtin",
            "-pthread",
            "-w",
            "-o",
            "{program}",
            "{source}/c/eat.c",
        ],
        inferred: true,
        rows: STATIC_C_ROWS,
        ..COMPILED
    },
    &Language {
        name: "musl",
        runtimes: &["musl-gcc"],
        build: &["musl-gcc", "-static", "-O1", "-fno-builtin", "-w", "-o", "{program}", "{source}/c/eat.c"],
        inferred: true,
        rows: STATIC_C_ROWS,
        ..COMPILED
    },
    &Language {
        name: "go",
        runtimes: &["go"],
        build: &["go", "build", "-o", "{program}", "{source}/go/eat.go"],
        environment: &[("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=mod"), ("GO111MODULE", "off")],
        data: Some("128Mi"),
        address_space: Some("1Gi"),
        inferred: true,
        rows: GO_ROWS,
        ..COMPILED
    },
    &Language {
        name: "python",
        runtimes: &["/usr/bin/python3", "python3"],
        command: &["{runtime}", "{source}/python/eat.py"],
        environment: &[("OPENBLAS_NUM_THREADS", "1")],
        program: "python3",
        data: Some("96Mi"),
        address_space: Some("256Mi"),
        rows: &[
            dies("bytearray"),
            dies("small").causes(ANY),
            dies("text"),
            dies("thread"),
            dies("threads").causes(ANY),
            dies("caught"),
            dies("caught-silent"),
            recovers("recover"),
            recovers("recover-often"),
            recovers("recover-huge"),
            // The parent was refused nothing: the error came from a worker that had coped with it.
            dies("pool").own(1),
            recovers("own"),
        ],
        ..COMPILED
    },
    &Language {
        name: "numpy",
        runtimes: &["/usr/bin/python3", "python3"],
        probe: &["-c", "from numpy import ones"],
        command: &["{runtime}", "{source}/python/eat.py"],
        environment: &[("OPENBLAS_NUM_THREADS", "1")],
        program: "python3",
        data: Some("96Mi"),
        address_space: Some("256Mi"),
        rows: &[dies("numpy").causes(ANY)],
        ..COMPILED
    },
    &Language {
        name: "node",
        runtimes: &["node"],
        command: &["{runtime}", "--max-old-space-size=8192", "{source}/node/eat.js"],
        program: "node",
        data: Some("256Mi"),
        address_space: Some("1200Mi"),
        rows: &[
            dies("buffers").causes(ANY),
            dies("large-buffers").causes(ANY),
            dies("heap").causes(ANY),
            dies("worker").causes(ANY),
            dies("rejected").causes(ANY),
            dies("caught").causes(ANY),
            recovers("recover"),
            recovers("own"),
        ],
        ..COMPILED
    },
    &Language {
        name: "ruby",
        runtimes: &["ruby"],
        command: &["{runtime}", "{source}/ruby/eat.rb"],
        program: "ruby",
        data: Some("96Mi"),
        address_space: Some("256Mi"),
        rows: &[
            dies("strings").causes(ANY),
            dies("small").causes(ANY),
            dies("thread").causes(ANY),
            dies("caught").causes(ANY),
            dies("caught-silent").causes(ANY),
            recovers("recover"),
            recovers("recover-silent"),
            recovers("own"),
        ],
        ..COMPILED
    },
    &Language {
        name: "perl",
        runtimes: &["perl"],
        command: &["{runtime}", "{source}/perl/eat.pl"],
        program: "perl",
        rows: &[dies("strings"), dies("small"), dies("double"), dies("eval"), recovers("own")],
        ..COMPILED
    },
    &Language {
        name: "php",
        runtimes: &["php"],
        command: &["{runtime}", "-d", "memory_limit=-1", "{source}/php/eat.php"],
        program: "php",
        data: Some("96Mi"),
        address_space: Some("512Mi"),
        rows: &[
            dies("strings").causes(ANY),
            dies("small").causes(ANY),
            dies("double").causes(ANY),
            dies("shutdown").causes(ANY),
            dies("own-limit").own(255),
            recovers("own"),
        ],
        ..COMPILED
    },
    &Language {
        name: "java",
        runtimes: &["javac"],
        build: &["javac", "-d", "{program}", "{source}/java/Eat.java"],
        command: &["java", "-Xms16m", "-XX:ReservedCodeCacheSize=32m", "{flags}", "-cp", "{program}", "Eat"],
        program: "java",
        data: Some("640Mi"),
        address_space: Some("4Gi"),
        rows: &[
            dies("heap").causes(ANY).flags(&["-Xmx2g"]).only(Measure::Resident),
            // The whole heap is reserved at the start.
            dies("heap-reserved").causes(ANY).flags(&["-Xmx8g"]).only(Measure::AddressSpace),
            dies("direct").causes(ANY).flags(&["-Xmx256m", "-XX:MaxDirectMemorySize=8g"]),
            dies("threads").causes(ANY).flags(&["-Xmx256m"]),
            dies("caught").causes(ANY).flags(&["-Xmx2g"]).only(Measure::Resident),
            recovers("recover-direct").flags(&["-Xmx256m", "-XX:MaxDirectMemorySize=8g"]),
            // The heap's own limit, set by the user, lies below ours: its end is the program's own.
            dies("heap").own(1).flags(&["-Xmx64m"]),
            recovers("recover").flags(&["-Xmx64m"]),
            recovers("own").flags(&["-Xmx64m"]),
        ],
        ..COMPILED
    },
    &Language {
        name: "bash",
        runtimes: &["bash"],
        build: &["cc", "-O1", "-fno-builtin", "-pthread", "-w", "-o", "{program}", "{source}/c/eat.c"],
        command: &["{runtime}", "{source}/bash/eat.sh"],
        environment: &[("EATER", "{program}")],
        program: "",
        rows: &[dies("pipeline"), dies("errexit"), dies("exec"), dies("itself"), recovers("own")],
        ..COMPILED
    },
];

/// Programs that are hard to judge. What they are listed with is the truth, not what every run of them gives: they are
/// counted, by `verdicts`, and no test.
#[allow(dead_code)] // The tests leave it to the table of verdicts.
pub const ADVERSARIES: &[&Language] = &[
    &Language {
        name: "adversary",
        runtimes: &["c++"],
        build: &[
            "c++",
            "-std=c++17",
            "-O1",
            "-fno-builtin",
            "-w",
            "-o",
            "{program}",
            "{source}/adversary/adversary.cpp",
        ],
        address_space: None,
        rows: &[
            dies("r-huge-exit").own(3),
            dies("r-exit").own(3),
            dies("r-work-exit").own(3),
            dies("r-full-exit").own(3),
            dies("r-full-work-exit").own(3),
            dies("r-part-work-exit").own(3),
            dies("r-logged-work-exit").own(3),
            dies("r-logged-exit").own(3),
            dies("r-abort").own(128 + 6),
            dies("r-work-abort").own(128 + 6),
            dies("r-assert").own(128 + 6),
            dies("r-full-assert").own(128 + 6),
            dies("r-throw").own(128 + 6),
            dies("r-full-throw").own(128 + 6),
            dies("r-null").own(128 + 11),
            dies("r-work-null").own(128 + 11),
            dies("r-full-null").own(128 + 11),
            dies("r-full-term").own(128 + 15),
            dies("r-quota").own(3),
            dies("e-release-perror"),
            dies("e-release-fprintf"),
            dies("e-release-write"),
            dies("e-release-silent"),
            dies("e-cleanup"),
            dies("e-retries"),
            dies("e-smaller"),
            dies("e-rethrown"),
            dies("e-large-silent"),
            dies("e-large-unchecked"),
            dies("e-full-exit"),
            dies("e-assert"),
        ],
        ..COMPILED
    },
    &Language {
        name: "adversary-static",
        runtimes: &["c++"],
        build: &[
            "c++",
            "-std=c++17",
            "-static",
            "-O1",
            "-fno-builtin",
            "-pthread",
            "-w",
            "-o",
            "{program}",
            "{source}/adversary/adversary.cpp",
        ],
        address_space: None,
        inferred: true,
        rows: &[
            dies("r-huge-exit").own(3),
            dies("r-exit").own(3),
            dies("r-work-exit").own(3),
            dies("r-full-work-exit").own(3),
            dies("r-part-work-exit").own(3),
            dies("r-logged-work-exit").own(3),
            dies("r-logged-exit").own(3),
            dies("r-work-abort").own(128 + 6),
            dies("r-full-assert").own(128 + 6),
            dies("r-full-throw").own(128 + 6),
            dies("r-work-null").own(128 + 11),
            dies("r-full-null").own(128 + 11),
            dies("r-full-term").own(128 + 15),
            dies("e-release-perror"),
            dies("e-release-silent"),
            dies("e-cleanup"),
            dies("e-retries"),
            dies("e-smaller"),
            dies("e-rethrown"),
            dies("e-large-silent"),
            dies("e-large-unchecked"),
            dies("e-full-exit"),
            dies("e-assert"),
        ],
        ..COMPILED
    },
    &Language {
        name: "adversary.py",
        runtimes: &["/usr/bin/python3", "python3"],
        command: &["{runtime}", "{source}/adversary/adversary.py"],
        program: "python3",
        data: Some("96Mi"),
        address_space: None,
        rows: &[
            dies("r-exit").own(3),
            dies("r-raise").own(1),
            dies("r-full-raise").own(1),
            dies("r-work-raise").own(1),
            dies("r-work-exit").own(3),
            dies("r-printed-exit").own(3),
            dies("e-wrapped"),
            dies("e-wrapped-hidden"),
            dies("e-logged"),
        ],
        ..COMPILED
    },
];
