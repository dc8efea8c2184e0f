//! The command line.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use oomguard::__private::forms;
use oomguard::supervisor::Sufficient;
use oomguard::{Limit, Measure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Gives a program a memory limit of its own. When it runs out, it says so and exits with 198, before the kernel kills
/// the whole container.
#[derive(Parser)]
#[command(name = "oomguard", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand)]
pub enum Task {
    /// Run a command with a memory limit
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Say which code held the memory of a program that died
    Report(Report),
    /// Say who holds what of which budget here, and who waits
    Top(Top),
    /// Say what limits hold here, what the guard would do, and what will hurt
    Doctor(Doctor),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const EXIT_CODES: &str = "\
Exit codes:
  198      out of memory: the command reached its own limit and could not go on
  125      oomguard could not do its job: a bad option, a limit too small to start with
  126,127  the command cannot be executed; was not found
  128+N    the command was ended by signal N
  other    the command's own

Limits:
  536870912, 512M (powers of 1000), 512Mi (powers of 1024), 80% of the container's limit,
  auto (90% of it), off";

/// Where `--json` writes unless it is told.
pub const JSON_ON_STDERR: &str = "fd:2";

/// What `run` can be told.
#[derive(Args)]
pub struct Run {
    /// The memory limit of the command, and of each process that it starts [default: $OOMGUARD_LIMIT, else auto]
    #[arg(short = 'm', long, value_name = "LIMIT", value_parser = text(limit), allow_negative_numbers = true)]
    pub limit: Option<Limit>,

    /// What the command and all that it starts may have together: each takes what it needs, waits where others have it, and is
    /// refused once nothing moves; --limit is then the most that one process may have [default: $OOMGUARD_BUDGET; below another
    /// launcher with a budget, that one]
    #[arg(long, value_name = "LIMIT", value_parser = text(limit), allow_negative_numbers = true)]
    pub budget: Option<Limit>,

    /// In a budget, how long a request waits for others to give memory back before it is refused: 0, 500ms, 5s, 2min [default:
    /// $OOMGUARD_PATIENCE, else 1s]
    #[arg(long, value_name = "TIME", value_parser = text(patience), allow_negative_numbers = true)]
    pub patience: Option<Duration>,

    /// What the limit counts: resident (memory in use), data (private writable memory) or address-space [default: $OOMGUARD_MEASURE, else resident]
    #[arg(long, value_name = "MEASURE", value_parser = text(measure))]
    pub measure: Option<Measure>,

    /// The exit code that means out of memory, 1-255 [default: $OOMGUARD_EXIT_CODE, else 198]
    #[arg(long, value_name = "CODE", value_parser = text(exit_code), allow_negative_numbers = true)]
    pub exit_code: Option<u8>,

    /// What becomes of a request that is refused: deferred (the command gets null, and is ended if it does not cope) or
    /// immediate (it is ended at once: for batch jobs that go on after a MemoryError and come to nothing)
    /// [default: $OOMGUARD_ON_REFUSAL, else deferred]
    #[arg(long, value_name = "WHEN", value_parser = ["deferred", "immediate"])]
    pub on_refusal: Option<String>,

    /// For services: end the command also where an exhaustion ends only a thread of it, or a request whose handler logs it
    #[arg(long)]
    pub exit_on_uncaught: bool,

    /// End a command that is refused memory again and again and gets nowhere for so long: 10s, 2min, or off [default:
    /// $OOMGUARD_STALL, else 10s]
    #[arg(long, value_name = "TIME|off", value_parser = text(stall), allow_negative_numbers = true)]
    pub stall: Option<String>,

    /// Append the report, a line of JSON, to a file, or write it to stdout (-) or an open descriptor (fd:N)
    #[arg(long, value_name = "PATH|fd:N")]
    pub report: Option<OsString>,

    /// Say how the command ended, as a line of JSON: on stderr, appended to a file, or on stdout (-) or an open descriptor (fd:N)
    #[arg(long, value_name = "PATH|fd:N", num_args = 0..=1, require_equals = true, default_missing_value = JSON_ON_STDERR)]
    pub json: Option<OsString>,

    /// Which evidence suffices for 198: likely (any), or exact (only what nothing but such a death does); on any other the
    /// command ends as it would without a guard, and --json alone tells what was found [default: $OOMGUARD_VERDICT, else likely]
    #[arg(long, value_name = "EVIDENCE", value_parser = text(sufficient))]
    pub verdict: Option<Sufficient>,

    /// Leave with 198, and try again, when any descendant ran out of memory, even if the command did not pass that on
    #[arg(long)]
    pub any_descendant: bool,

    /// Start the command again with more memory when it ran out, up to so many times
    #[arg(long, value_name = "TIMES", default_value_t = 0, value_parser = text(number::<u32>), allow_negative_numbers = true)]
    pub retries: u32,

    /// Multiply the limit by this for each retry; above 1
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0, value_parser = text(factor), allow_negative_numbers = true)]
    pub grow: f64,

    /// The largest limit to retry with [default: 90% of the container's limit, or the machine's memory]
    #[arg(long, value_name = "LIMIT", value_parser = text(limit), allow_negative_numbers = true)]
    pub max_limit: Option<Limit>,

    /// Write what is left of each death into a directory of its own in DIR: report (JSON and text), profile, flame graph; turns
    /// OOMGUARD_PROFILE on for programs that have a profiler
    #[arg(long, value_name = "DIR")]
    pub postmortem: Option<PathBuf>,

    /// Print nothing on stderr but why nothing could be run [default: $OOMGUARD_QUIET]
    #[arg(long)]
    pub quiet: bool,

    /// Tell the collectors of Go, Node, Java and others to stay under the limit, where you have not told them otherwise
    #[arg(long)]
    pub hints: bool,

    /// Leave what the command starts alone: it gets neither guard nor limit; what the command only forks keeps both
    #[arg(long)]
    pub no_inherit: bool,

    /// End, with the command, when whoever started oomguard ends
    #[arg(long)]
    pub die_with_parent: bool,

    /// Set the hard limit, too: nobody below can go beyond it, neither ulimit nor su and sudo, nor a launcher in the command;
    /// what is counted is data then, unless --measure says address-space
    #[arg(long)]
    pub hard: bool,

    /// Do not trace the command, as is done where nothing can be preloaded into it (a static program, another C library): the
    /// verdict is not known then. What is traced can have no other tracer (gdb, strace), and unless oomguard is privileged
    /// it gains no privileges (no_new_privs: sudo below it fails)
    #[arg(long)]
    pub no_infer: bool,

    /// Do not preload liboomguard: the limit holds, and the command dies of it in its own way
    #[arg(long)]
    pub no_preload: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `report` can be told.
#[derive(Args)]
pub struct Report {
    /// What OOMGUARD_REPORT named (the profile lies beside it, in FILE.profile), a profile itself, or what run --postmortem
    /// wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Show so many of the places that allocated
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = text(number::<usize>))]
    pub top: usize,

    /// Show stacks whole: with the allocator at one end, what runs before main at the other, and all steps of a recursion
    #[arg(long)]
    pub full: bool,

    /// List the deaths in FILE; the last one with a profile is shown otherwise
    #[arg(long)]
    pub list: bool,

    /// Show the last death of this process
    #[arg(long, value_name = "PID", conflicts_with = "number", value_parser = text(number::<u32>))]
    pub pid: Option<u32>,

    /// Show the death with this number in the list
    #[arg(long, value_name = "N", value_parser = text(number::<usize>))]
    pub number: Option<usize>,

    /// Write a flame graph, whose widths are live bytes
    #[arg(long, value_name = "FILE.svg|-")]
    pub flamegraph: Option<PathBuf>,

    /// Write a profile for pprof
    #[arg(long, value_name = "FILE.pb.gz|-")]
    pub pprof: Option<PathBuf>,

    /// Write stacks as flame graph tools read them: a line per stack, outermost function first, with its live bytes
    #[arg(long, value_name = "FILE.txt|-")]
    pub folded: Option<PathBuf>,

    /// Print it as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Look for the program and its libraries below this directory instead of /
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Look for debug information in this directory, too (.build-id/ab/cdef.debug); may be given again
    #[arg(long, value_name = "DIR")]
    pub debug_dir: Vec<PathBuf>,

    /// Look for no names: say where the code lies only
    #[arg(long)]
    pub no_symbols: bool,
}

impl Report {
    /// Where what other tools read is to go.
    pub fn files(&self) -> Vec<&Path> {
        [&self.flamegraph, &self.pprof, &self.folded].into_iter().flatten().map(PathBuf::as_path).collect()
    }
}

/// What `top` can be told.
#[derive(Args)]
pub struct Top {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,

    /// Say it once, and end, as is done where stdout is no terminal
    #[arg(long)]
    pub once: bool,
}

/// What `doctor` can be told.
#[derive(Args)]
pub struct Doctor {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What is not UTF-8 is read as what it is not: the message has the option, then, and what would be accepted.
fn text<T: Clone + Send + Sync + 'static>(
    read: fn(&str) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |value| read(&value.to_string_lossy()))
}

/// `--limit` and `OOMGUARD_LIMIT`.
pub fn limit(text: &str) -> Result<Limit, String> {
    text.parse().map_err(|error: oomguard::ParseLimitError| error.for_text(text))
}

/// `--measure` and `OOMGUARD_MEASURE`.
pub fn measure(text: &str) -> Result<Measure, String> {
    text.parse().map_err(|error: oomguard::ParseMeasureError| error.to_string())
}

/// `--patience` and `OOMGUARD_PATIENCE`.
pub fn patience(text: &str) -> Result<Duration, String> {
    read(text, forms::patience).map(Duration::from_millis)
}

/// `--verdict` and `OOMGUARD_VERDICT`.
pub fn sufficient(text: &str) -> Result<Sufficient, String> {
    text.parse()
}

/// `--exit-code` and `OOMGUARD_EXIT_CODE`.
pub fn exit_code(text: &str) -> Result<u8, String> {
    read(text, forms::exit_code)
}

/// `--stall`.
pub fn stall(text: &str) -> Result<String, String> {
    read(text, forms::stall).map(|_| text.to_owned())
}

fn read<T>(text: &str, read: fn(&[u8]) -> Result<T, forms::BadForm>) -> Result<T, String> {
    read(text.as_bytes()).map_err(|error| error.to_string())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "not a number, or too large a one; accepted: a whole number, such as 3".into())
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 1.0 && factor.is_finite() => Ok(factor),
        _ => Err("not a factor; accepted: a number above 1, such as 2 or 1.5".into()),
    }
}
