//! Every value that two processes must agree on: exit codes, variable names, the words of the report.
//!
//! Nothing here acts. A change in this file is a breaking change and belongs in the changelog.

use core::fmt;
use core::str::FromStr;

/// The exit code of a process that reached its own memory limit and could not go on.
///
/// It lies in the range that the Linux Standard Base leaves to applications (150–199), above 128 + 64 (death by
/// signal, as shells count it) and below 200–245 (systemd). `OOMGUARD_EXIT_CODE` and `guard!(exit_code = …)`
/// replace it.
pub const EXIT_OUT_OF_MEMORY: u8 = 198;

/// The exit code of a process whose guard could not be set up: bad configuration, a limit that cannot be set, or a
/// limit below what the process uses before it starts. The same as `timeout(1)` and `env(1)` use for "I failed".
pub const EXIT_CANNOT_GUARD: u8 = 125;

/// The exit code with which Rust's runtime reports a panic that ended the main thread.
#[doc(hidden)]
pub const EXIT_RUST_PANIC: i32 = 101;

/// What a program exits with that handles SIGHUP, SIGINT, SIGQUIT or SIGTERM, and a shell whose child they ended: somebody
/// else has ended it.
#[doc(hidden)]
pub const CODES_OF_SIGNALS: [u8; 4] = [128 + 1, 128 + 2, 128 + 3, 128 + 15];

/// The schema version of the report, the value of its first key.
pub const REPORT_VERSION: u64 = 1;

/// The most bytes a report takes on its line, newline included.
pub const REPORT_MAX_BYTES: usize = 2048;

/// The longest `OOMGUARD_TOKEN`, in bytes.
pub const TOKEN_MAX_BYTES: usize = 64;

/// What is kept back for the last words where nobody said otherwise, in bytes.
pub const DEFAULT_RESERVE_BYTES: u64 = 4 << 20;

/// `auto` is this share of the container's limit, in percent.
pub const AUTO_PERCENT: u64 = 90;

/// How long `on_exhausted` hooks may take, all together, in milliseconds.
pub const LAST_WORDS_DEADLINE_MS: u64 = 2000;

/// How long a request waits for others who share a budget where nobody said otherwise, in milliseconds.
pub const DEFAULT_PATIENCE_MS: u64 = 1000;

/// How long a program may be refused again and again and get nowhere where nobody said otherwise, in milliseconds.
pub const DEFAULT_STALL_MS: u64 = 10_000;

/// The names of the environment variables.
pub mod variable {
    /// The limit: bytes, `512Mi`, `80%`, `auto` or `off`.
    pub const LIMIT: &str = "OOMGUARD_LIMIT";
    /// What the limit counts: `address-space`, `data` or `resident`.
    pub const MEASURE: &str = "OOMGUARD_MEASURE";
    /// The exit code on exhaustion: 1–255.
    pub const EXIT_CODE: &str = "OOMGUARD_EXIT_CODE";
    /// `deferred`, `immediate`, or `immediate-threads`: the latter also where a thread cannot be started.
    pub const ON_REFUSAL: &str = "OOMGUARD_ON_REFUSAL";
    /// Bytes kept back for the last words.
    pub const RESERVE: &str = "OOMGUARD_RESERVE";
    /// Where the report goes: a file's path, or `fd:N`.
    pub const REPORT: &str = "OOMGUARD_REPORT";
    /// Text that the report repeats, so that a parent knows it as its own.
    pub const TOKEN: &str = "OOMGUARD_TOKEN";
    /// `1`: no lines on stderr when memory runs out.
    pub const QUIET: &str = "OOMGUARD_QUIET";
    /// Set by a supervisor for its child, and by nobody else: `fd:N:INODE`, the page that the guard fills in for
    /// the parent.
    pub const RECORD: &str = "OOMGUARD_RECORD";
    /// What the process and all that it starts may have together: a limit as in `LIMIT`; only for the launcher and
    /// `supervisor::Budget::from_env`.
    pub const BUDGET: &str = "OOMGUARD_BUDGET";
    /// How long a request waits for others to give memory back before it is refused: `0`, `500ms`, `5s`, `2min`.
    pub const PATIENCE: &str = "OOMGUARD_PATIENCE";
    /// Set by a launcher or supervisor for those who share a budget: `proc:PID:N:INODE`, where its ledger is.
    pub const LEDGER: &str = "OOMGUARD_LEDGER";
    /// Set by a launcher or supervisor: what of the environment and the limits is its own, and not the user's word.
    pub const OUTER: &str = "OOMGUARD_OUTER";
    /// `0`: what the program starts is left alone (shim only). Set by the launcher.
    pub const INHERIT: &str = "OOMGUARD_INHERIT";
    /// `1`: the launcher has given the program's runtime a heap limit of its own (shim only).
    pub const HINTED: &str = "OOMGUARD_HINTED";
    /// Whether live allocations are sampled, in a program that has the profiler compiled in: `on`, `off`, or the mean
    /// distance between two samples in bytes.
    pub const PROFILE: &str = "OOMGUARD_PROFILE";
    /// Which evidence suffices for an end of memory: `likely` (any), or `exact`. On less, a program ends as it would without a
    /// guard. Set by the launcher.
    pub const VERDICT: &str = "OOMGUARD_VERDICT";
    /// How long a program may be refused again and again and get nowhere, before it ends: `10s`, `2min`, or `off` (shim
    /// only).
    pub const STALL: &str = "OOMGUARD_STALL";
    /// `1`: an exhaustion that ends a thread, or that only a framework catches, ends the process (shim only).
    pub const EXIT_ON_UNCAUGHT: &str = "OOMGUARD_EXIT_ON_UNCAUGHT";
    /// Which allocations to refuse (feature `inject` only): `N` or `N+`.
    pub const INJECT: &str = "OOMGUARD_INJECT";

    /// All of them.
    #[doc(hidden)]
    pub const ALL: [&str; 20] = [
        LIMIT,
        MEASURE,
        EXIT_CODE,
        ON_REFUSAL,
        RESERVE,
        REPORT,
        TOKEN,
        QUIET,
        RECORD,
        BUDGET,
        PATIENCE,
        LEDGER,
        OUTER,
        INHERIT,
        HINTED,
        PROFILE,
        VERDICT,
        STALL,
        EXIT_ON_UNCAUGHT,
        INJECT,
    ];
}

/// Behind the path of the report: the file to which a profiled process without a supervisor appends its profile.
pub const PROFILE_FILE_SUFFIX: &str = ".profile";

/// The keys of the report, in the order in which they are written.
pub const REPORT_KEYS: [&str; 28] = [
    "oomguard",
    "event",
    "cause",
    "pid",
    "tid",
    "program",
    "thread",
    "requested",
    "align",
    "limit",
    "limit_source",
    "measure",
    "address_space",
    "data",
    "resident",
    "resident_peak",
    "heap_live",
    "heap_peak",
    "refusals",
    "exit_code",
    "uptime_ms",
    "token",
    "evidence",
    "own_exit_code",
    "own_signal",
    "budget",
    "budget_used",
    "waited_ms",
];

/// One key more, the last, with the value `true`: only in a report that a parent put together from outside, about a
/// program that has no guard and that no shim could enter.
pub const KEY_INFERRED: &str = "inferred";

/// The value of the report's `event`.
pub const EVENT_OUT_OF_MEMORY: &str = "out_of_memory";

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Measure {
    /// Every mapping of the process: `RLIMIT_AS` in setrlimit(2).
    #[default]
    AddressSpace,
    /// Private writable memory, which is what a cgroup mostly charges: `RLIMIT_DATA` in setrlimit(2), since Linux 4.7.
    Data,
    /// Memory in use: what is resident and private, or shared and this process's own, and what is swapped out. What is mapped and
    /// never touched does not count. Held by `RLIMIT_DATA`, which the guard moves, and by a look now and then.
    Resident,
}

impl Measure {
    /// The word for people and for `OOMGUARD_MEASURE`: `address-space`, `data` or `resident`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Measure::AddressSpace => "address-space",
            Measure::Data => "data",
            Measure::Resident => "resident",
        }
    }

    /// The word in the report: `address_space`, `data` or `resident`.
    pub const fn report_word(self) -> &'static str {
        match self {
            Measure::AddressSpace => "address_space",
            Measure::Data => "data",
            Measure::Resident => "resident",
        }
    }

    /// The number that C has for it, and the page: `oomguard.h`.
    #[doc(hidden)]
    pub const fn number(self) -> u8 {
        match self {
            Measure::AddressSpace => 1,
            Measure::Data => 2,
            Measure::Resident => 3,
        }
    }

    #[doc(hidden)]
    pub const fn parse(word: &[u8]) -> Result<Measure, ParseMeasureError> {
        match word {
            // The second is the report's word, which people copy.
            b"address-space" | b"address_space" => Ok(Measure::AddressSpace),
            b"data" => Ok(Measure::Data),
            b"resident" => Ok(Measure::Resident),
            _ => Err(ParseMeasureError(())),
        }
    }

    /// The measure of the other rlimit.
    #[doc(hidden)]
    pub const fn other(self) -> Measure {
        match self {
            Measure::AddressSpace => Measure::Data,
            Measure::Data | Measure::Resident => Measure::AddressSpace,
        }
    }
}

impl FromStr for Measure {
    type Err = ParseMeasureError;

    /// Reads what `OOMGUARD_MEASURE` may hold.
    fn from_str(text: &str) -> Result<Measure, ParseMeasureError> {
        Measure::parse(text.as_bytes())
    }
}

/// A text that names no [`Measure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMeasureError(());

impl ParseMeasureError {
    #[doc(hidden)]
    pub const REASON: &str = "not a measure";
    #[doc(hidden)]
    pub const FORMS: &str = "address-space, data or resident";
}

impl fmt::Display for ParseMeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; accepted: {}", Self::REASON, Self::FORMS)
    }
}

impl core::error::Error for ParseMeasureError {}

/// Who set the limit that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitSource {
    /// `OOMGUARD_LIMIT`.
    Environment,
    /// The option `--limit` of a launcher, which hands it over in `OOMGUARD_LIMIT`: the report's word is `environment`.
    CommandLine,
    /// The argument of `guard!`.
    Source,
    /// The container: `auto`.
    Cgroup,
    /// An rlimit that was there before, and is lower.
    Rlimit,
    /// The budget that the process shares with others.
    Budget,
    /// Somebody moved the rlimit since the start: the program itself, or another process.
    Changed,
}

impl LimitSource {
    /// The number that the page has for it, and C, which has none for the command line: `oomguard.h`.
    #[doc(hidden)]
    pub const fn number(self) -> u8 {
        match self {
            LimitSource::Environment => 1,
            LimitSource::Source => 2,
            LimitSource::Cgroup => 3,
            LimitSource::Rlimit => 4,
            LimitSource::Budget => 5,
            LimitSource::Changed => 6,
            LimitSource::CommandLine => 7,
        }
    }

    /// The word in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            LimitSource::Environment | LimitSource::CommandLine => "environment",
            LimitSource::Source => "source",
            LimitSource::Cgroup => "cgroup",
            LimitSource::Rlimit => "rlimit",
            LimitSource::Budget => "budget",
            LimitSource::Changed => "changed",
        }
    }
}

/// What was refused when the process could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// An allocation on the heap.
    Heap,
    /// The growth of a stack.
    Stack,
    /// The start of a thread.
    Thread,
    /// A mapping that the program asked for itself.
    Mapping,
    /// Nothing: the refusal was injected by a test.
    Injected,
    /// Nothing: the process was found over its limit, with memory that it had mapped before and used later.
    Resident,
    /// Nothing: its container was about to overflow, and it held most.
    AskedToLeave,
}

impl Cause {
    /// The word in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Heap => "heap",
            Cause::Stack => "stack",
            Cause::Thread => "thread",
            Cause::Mapping => "mapping",
            Cause::Injected => "injected",
            Cause::Resident => "resident",
            Cause::AskedToLeave => "asked_to_leave",
        }
    }
}

/// Why an end counts as running out of memory, and not as an end of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Evidence {
    /// The program did what only a death can do: `handle_alloc_error`, an uncaught `bad_alloc`; or it asked for its end
    /// at the first refusal.
    Exact,
    /// It touched the block that it did not get.
    Fault,
    /// It said so, in its own words.
    Said,
    /// What was refused would be refused again.
    Missing,
    /// It did hardly anything between the refusal and its end.
    Straight,
    /// Its refused calls and its end were seen by the launcher.
    Outside,
}

impl Evidence {
    /// The word in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Evidence::Exact => "exact",
            Evidence::Fault => "fault",
            Evidence::Said => "said",
            Evidence::Missing => "missing",
            Evidence::Straight => "straight",
            Evidence::Outside => "outside",
        }
    }
}

/// Which evidence suffices for an end by contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sufficient {
    /// Any that a report tells.
    #[default]
    Likely,
    /// Only what nothing but such a death does: [`Evidence::Exact`], [`Evidence::Fault`]. On other evidence a process ends as it
    /// would without a guard.
    Exact,
}

impl Sufficient {
    /// The word for `OOMGUARD_VERDICT`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Sufficient::Likely => "likely",
            Sufficient::Exact => "exact",
        }
    }

    #[doc(hidden)]
    pub const FORMS: &str = "likely or exact";

    #[doc(hidden)]
    pub const fn parse(word: &[u8]) -> Option<Sufficient> {
        match word {
            b"likely" => Some(Sufficient::Likely),
            b"exact" => Some(Sufficient::Exact),
            _ => None,
        }
    }

    #[doc(hidden)]
    pub const fn allows(self, evidence: Option<Evidence>) -> bool {
        matches!(self, Sufficient::Likely) || matches!(evidence, Some(Evidence::Exact | Evidence::Fault))
    }
}

#[cfg(any(feature = "alloc", not(feature = "shim")))]
impl FromStr for Sufficient {
    type Err = alloc::string::String;

    /// Reads what `OOMGUARD_VERDICT` may hold.
    fn from_str(text: &str) -> Result<Sufficient, Self::Err> {
        Sufficient::parse(text.as_bytes())
            .ok_or_else(|| alloc::format!("not a kind of evidence; accepted: {}", Sufficient::FORMS))
    }
}

/// The launcher's first argument where it is to become another program at once: the path and the arguments follow. A guarded
/// program starts it so in place of one that has to be followed and that it cannot speak for (posix_spawn(3)).
#[doc(hidden)]
pub const BECOME: &core::ffi::CStr = c"--become";

/// What the allocator does with a refusal that nothing could cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnRefusal {
    /// Return null, as any allocator does, and end the process only if the program does not cope.
    #[default]
    Deferred,
    /// End the process inside the allocator.
    Immediate,
}

impl OnRefusal {
    /// The word for `OOMGUARD_ON_REFUSAL`.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnRefusal::Deferred => "deferred",
            OnRefusal::Immediate => "immediate",
        }
    }
}
