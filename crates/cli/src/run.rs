//! `oomguard run`: one command, its limit, its exit code.

use crate::arguments::{JSON_ON_STDERR, Run};
use crate::environment::{asked, mistakes};
use crate::input::Input;
use crate::postmortem::Postmortem;
use crate::screen::{json_line, say};
use crate::stderr::write_patiently;
use crate::target::{Door, Target};
use crate::{arguments, hints, shim};
use oomguard::contract::{DEFAULT_PATIENCE_MS, EXIT_CANNOT_GUARD, variable};
use oomguard::supervisor::{
    Command, Ended, Entrance, Foreground, InferRefusals, OnSupervisorDeath, Outcome, Report, Retry,
    SharedBudget, Sufficient, Surroundings, Worker, inherits_limit, misspelt_variables, size,
};
use oomguard::{EXIT_OUT_OF_MEMORY, Limit, Measure};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// The outcome, in JSON, of a command that did not come to run.
const CANNOT_START: &str = "cannot_start";
/// Shells say so how a signal ended a command.
const EXIT_SIGNAL: i32 = 128;

/// Why nothing ran: one line, and the exit code.
struct Failure {
    line: String,
    code: u8,
}

/// Runs the command to its end; the exit code is the contract's.
pub fn run(mut options: Run, environment: Vec<OsString>) -> u8 {
    options.quiet |= std::env::var_os(variable::QUIET).is_some_and(|value| value == "1");
    match run_to_end(&options, environment) {
        Ok(code) => code,
        Err(failure) => {
            // Said even if it is to be quiet: nothing else would say it.
            say(&failure.line);
            if let Some(Ok(door)) = options.json.as_deref().map(|name| open(name, "--json")) {
                door.write_or_say_why(&json_line(&failure.json()));
            }
            failure.code
        }
    }
}

/// Says it in JSON, too, where `--json` among the options can be told from one of the command's.
pub fn tell_of_wrong_options(words: &[OsString], line: &str) {
    let Some(end) = words.iter().position(|word| word == "--") else { return };
    let target = words.iter().take(end).find_map(|word| match word.as_encoded_bytes() {
        b"--json" => Some(OsStr::new(JSON_ON_STDERR)),
        bytes => bytes.strip_prefix(b"--json=").map(OsStr::from_bytes),
    });
    if let Some(Ok(door)) = target.map(|name| open(name, "--json")) {
        let failure = Failure { line: line.to_owned(), code: EXIT_CANNOT_GUARD };
        door.write_or_say_why(&json_line(&failure.json()));
    }
}

fn run_to_end(options: &Run, environment: Vec<OsString>) -> Result<u8, Failure> {
    let mut wishes = Wishes::of(options)?;
    let json = options.json.as_deref().map(|name| open(name, "--json")).transpose()?;
    if !options.quiet {
        misspelt().iter().for_each(|line| say(line));
    }
    let command = command(options, environment);
    let entrance = Entrance::of(command.as_ref());
    if entrance == Entrance::Sanitized && wishes.limit != Limit::Off {
        wishes.limit = Limit::Off;
        if !options.quiet {
            say("the command has a sanitizer, which reserves terabytes: it runs without a limit");
        }
    }
    let program = command.as_ref().get_program().to_string_lossy().into_owned();
    let mut foreground = Foreground::enter().map_err(|error| Failure {
        line: format!("cannot watch for signals: {error}; are descriptors limited here (ulimit -n)?"),
        code: EXIT_CANNOT_GUARD,
    })?;
    if options.die_with_parent {
        foreground.die_with_parent();
    }
    let library = if options.no_preload { None } else { library_for(entrance)? };
    let keep = keeper(options, entrance, wishes)?;
    let share = if entrance == Entrance::Sanitized { None } else { share(options)? };
    if share.is_some() {
        wishes.measure = Measure::Resident;
    }
    let (mut worker, input) = worker(command, options, &wishes, share.is_some());
    if let Some(share) = share {
        worker = worker.share(share);
    }
    let between = keep.clone();
    let mut worker = worker.retry(retry(options).between(move |ended| {
        between(ended);
        input.rewind();
    }));
    let target = Target::of(options.report.as_deref());
    if let Some(target) = &target {
        worker = target.given_to(worker).map_err(|line| Failure { line, code: EXIT_CANNOT_GUARD })?;
    }
    if let Some(library) = library {
        worker = worker.preload(library);
    } else if entrance == Entrance::Preload && !options.no_preload {
        // Its C library is too old for ours.
        worker = worker.infer_refusals(infers(options, InferRefusals::Always));
    }
    let ended =
        worker.run_in_foreground(&mut foreground).map_err(|error| cannot_start(options, &program, &error))?;
    let verdict = Verdict::of(&ended, &wishes);
    let line = verdict.line(&program, &ended);
    if !options.quiet {
        line.as_ref().inspect(|line| say(line));
    }
    let unguarded = ended.could_not_guard.as_ref().map(|why| format!("cannot guard this process: {why}"));
    if let Outcome::OutOfMemory(report) = &ended.outcome {
        speak_for_the_command(report, target.as_ref(), options);
        // It was the outer launcher's limit, and more of it may help.
        if options.limit.is_none() && options.budget.is_none() && inherits_limit() {
            report.pass_on();
        }
    }
    keep(&ended);
    if let Some(json) = json {
        let error = line.filter(|_| verdict.died_while_loading).or(unguarded);
        json.write_or_say_why(&json_line(&verdict.json(&ended, error)));
    }
    Ok(verdict.code)
}

impl Failure {
    /// The same keys as [`Verdict::json`].
    fn json(&self) -> Value {
        json!({
            "outcome": CANNOT_START,
            "exit_code": self.code,
            "error": self.line,
            "signal": null,
            "pid": null,
            "tries": null,
            "limit": null,
            "measure": null,
            "resident_peak": null,
            "ran_for_ms": null,
            "inferred": null,
            "report": null,
            "doubtful": null,
            "refusals": null,
            "last_refused": null,
            "descendants": null,
        })
    }
}

/// What `run` limits unless it is told otherwise: most runtimes map more than they ever use.
pub const DEFAULT_MEASURE: Measure = Measure::Resident;

/// What is not said on the command line, the environment may say.
#[derive(Clone, Copy)]
struct Wishes {
    limit: Limit,
    /// Rather than what is so where nobody says anything.
    is_limit_said: bool,
    measure: Measure,
    exit_code: u8,
    sufficient: Sufficient,
}

impl Wishes {
    fn of(options: &Run) -> Result<Wishes, Failure> {
        let said = match options.limit {
            Some(limit) => Some(limit),
            None => from_environment(variable::LIMIT, arguments::limit)?,
        };
        check_what_the_guard_reads(options)?;
        // No rlimit counts what is resident, and only an rlimit can be a hard one.
        let default = if options.hard { Measure::Data } else { DEFAULT_MEASURE };
        let measure = match options.measure {
            Some(measure) => measure,
            None => match from_environment(variable::MEASURE, arguments::measure)? {
                // The default of the launcher above this one.
                Some(Measure::Resident) if options.hard && is_below_another() => default,
                said => said.unwrap_or(default),
            },
        };
        if options.hard && measure == Measure::Resident {
            let line = "no hard limit counts what is resident: leave --hard away, as whoever is over it ends in any case, or use \
                        --measure data"
                .into();
            return Err(Failure { line, code: EXIT_CANNOT_GUARD });
        }
        let exit_code = match options.exit_code {
            Some(code) => code,
            None => {
                from_environment(variable::EXIT_CODE, arguments::exit_code)?.unwrap_or(EXIT_OUT_OF_MEMORY)
            }
        };
        let sufficient = match options.verdict {
            Some(sufficient) => sufficient,
            None => from_environment(variable::VERDICT, arguments::sufficient)?.unwrap_or_default(),
        };
        let (limit, is_limit_said) = (said.unwrap_or(Limit::Auto), said.is_some());
        Ok(Wishes { limit, is_limit_said, measure, exit_code, sufficient })
    }
}

/// A launcher above this one has said it already.
fn misspelt() -> Vec<String> {
    if is_below_another() { Vec::new() } else { misspelt_variables() }
}

fn is_below_another() -> bool {
    std::env::var_os(variable::RECORD).is_some()
}

/// Nothing is to run on wrong text; what the command line says replaces it.
fn check_what_the_guard_reads(options: &Run) -> Result<(), Failure> {
    let counts = |name: &str| match name {
        variable::ON_REFUSAL => options.on_refusal.is_none(),
        variable::STALL => options.stall.is_none(),
        variable::QUIET => !options.quiet,
        variable::EXIT_ON_UNCAUGHT => !options.exit_on_uncaught,
        _ => true,
    };
    match mistakes(|name| std::env::var_os(name), counts).into_iter().next() {
        Some(line) => Err(Failure { line, code: EXIT_CANNOT_GUARD }),
        None => Ok(()),
    }
}

fn from_environment<T>(name: &str, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
    asked(|name| std::env::var_os(name), name, read).map_err(|line| Failure { line, code: EXIT_CANNOT_GUARD })
}

fn command(options: &Run, environment: Vec<OsString>) -> Command {
    let mut words = options.command.iter();
    let mut command = Command::new(words.next().map_or(OsStr::new(""), |word| word));
    command.args(words).env_entries(environment);
    if let Some(when) = &options.on_refusal {
        command.env(variable::ON_REFUSAL, when);
    }
    if options.no_inherit {
        command.env(variable::INHERIT, "0");
    }
    if let Some(stall) = &options.stall {
        command.env(variable::STALL, stall);
    }
    // In another launcher's budget what is said here holds for nobody.
    if std::env::var_os(variable::LEDGER).is_none() {
        let patience = |span: Duration| format!("{}ms", span.as_millis());
        command.envs(options.budget.map(|budget| (variable::BUDGET, budget.to_string())));
        command.envs(options.patience.map(|span| (variable::PATIENCE, patience(span))));
    }
    if options.exit_on_uncaught {
        command.env(variable::EXIT_ON_UNCAUGHT, "1");
        command.envs(java_option(options));
    }
    command
}

/// What `--exit-on-uncaught` says to a JVM.
fn java_option(options: &Run) -> Option<(&'static str, OsString)> {
    if options.exit_on_uncaught { hints::exit_on_uncaught(|name| std::env::var_os(name)) } else { None }
}

/// The library, where a dynamic linker will take it.
fn library_for(entrance: Entrance) -> Result<Option<PathBuf>, Failure> {
    if !can_preload(entrance) {
        return Ok(None);
    }
    shim::provide().map(Some).map_err(|error| Failure {
        line: format!(
            "cannot put liboomguard into a file: {error}; set TMPDIR to a directory that is writable and not mounted \
             noexec, or use --no-preload"
        ),
        code: EXIT_CANNOT_GUARD,
    })
}

/// A static program ignores the library, but what it starts may not.
fn can_preload(entrance: Entrance) -> bool {
    matches!(entrance, Entrance::Preload | Entrance::Guarded | Entrance::Static)
}

/// The worker, and its stdin, which another try is to find as the first one did.
fn worker(command: Command, options: &Run, wishes: &Wishes, shares: bool) -> (Worker, Input) {
    // In a budget there is no other limit than that, unless one is asked for, here or in the command's source.
    let limit = if shares && wishes.limit == Limit::Auto { Limit::Off } else { wishes.limit };
    let mut worker = Worker::new(command)
        .limit(limit)
        .measure(wishes.measure)
        .exit_code(wishes.exit_code)
        .keep_lower_limit()
        .inherit_token()
        .sufficient(wishes.sufficient)
        .on_supervisor_death(OnSupervisorDeath::Kill)
        .infer_refusals(infers(options, InferRefusals::WhereNothingPreloads));
    if options.hard {
        worker = worker.hard_limit();
    }
    if options.limit.is_some() {
        worker = worker.said_on_command_line();
    }
    if !wishes.is_limit_said {
        worker = worker.unsaid_limit();
    }
    if options.quiet {
        worker = worker.quiet();
    }
    if options.any_descendant {
        worker = worker.any_descendant();
    }
    if options.hints {
        let java = java_option(options);
        let said = move |name: &str| match &java {
            Some((variable, value)) if *variable == name => Some(value.clone()),
            _ => std::env::var_os(name),
        };
        worker = worker.env_by_limit(move |bytes| hints::apply(&said, bytes));
    }
    if options.postmortem.is_some() && std::env::var_os(variable::PROFILE).is_none() {
        worker = worker.profile();
    }
    let tries = tries(options);
    let (quiet, mut this_try) = (options.quiet, 0);
    let input = Input::now();
    let told = input.clone();
    let unawares = !shares && is_unlimited_unawares(wishes);
    let worker = worker.on_start(move |running| {
        this_try += 1;
        if this_try == 1 && unawares && !quiet {
            say(NOTHING_IS_LIMITED);
        }
        if this_try > 1 && !quiet {
            let limit = running.limit().map_or_else(String::new, |bytes| format!(" with {}", size(bytes)));
            let lost = if this_try == 2 && told.is_lost() {
                "; what the first try has read from stdin is gone"
            } else {
                ""
            };
            say(&format!("starting again{limit}, try {this_try} of {tries}{lost}"));
        }
    });
    (worker, input)
}

/// The budget that the command shares: that of a launcher above this one, or one that begins here.
fn share(options: &Run) -> Result<Option<SharedBudget>, Failure> {
    let asked = match options.budget {
        Some(budget) => Some(budget),
        None => from_environment(variable::BUDGET, arguments::limit)?,
    };
    let patience = match options.patience {
        Some(patience) => patience,
        None => from_environment(variable::PATIENCE, arguments::patience)?.unwrap_or(DEFAULT_PATIENCE),
    };
    let share = match (SharedBudget::inherited(), asked) {
        (Some(outer), _) => outer,
        (None, Some(budget)) if has_size(budget) => SharedBudget::new(budget, patience).map_err(|error| {
            Failure { line: format!("cannot make a budget of {budget}: {error}"), code: EXIT_CANNOT_GUARD }
        })?,
        (None, Some(Limit::Auto)) => {
            if !options.quiet {
                say(NOTHING_TO_SHARE);
            }
            return Ok(None);
        }
        _ => return Ok(None),
    };
    match options.measure {
        _ if options.hard => Err(Failure { line: NO_HARD_BUDGET.to_owned(), code: EXIT_CANNOT_GUARD }),
        Some(measure) if measure != Measure::Resident => Err(Failure {
            line: format!(
                "--measure {} cannot be held in a budget, which counts what is resident; leave it out",
                measure.as_str()
            ),
            code: EXIT_CANNOT_GUARD,
        }),
        _ if !Path::new("/proc/self/status").exists() => {
            Err(Failure { line: NOTHING_TO_SEE.to_owned(), code: EXIT_CANNOT_GUARD })
        }
        _ => Ok(Some(share)),
    }
}

/// Whether it stands for any limit here.
fn has_size(budget: Limit) -> bool {
    Surroundings::here().limit_for(Some(budget), None, Measure::Resident).is_some()
}

const DEFAULT_PATIENCE: Duration = Duration::from_millis(DEFAULT_PATIENCE_MS);

const NO_HARD_BUDGET: &str =
    "no hard limit can be held in a budget, which counts what is resident: leave --hard away";

const NOTHING_TO_SEE: &str = "--budget cannot be held here: it counts what is resident, which /proc tells, and there is none; mount one, or give each process a --limit";

const NOTHING_TO_SHARE: &str = "nothing is shared: --budget auto is 90% of the container's limit, and there is none here; say how much, as --budget 2Gi";

fn infers(options: &Run, when: InferRefusals) -> InferRefusals {
    if options.no_infer { InferRefusals::Never } else { when }
}

/// `auto` without a container is no limit, which nobody may have meant.
fn is_unlimited_unawares(wishes: &Wishes) -> bool {
    // An rlimit on data stays in force whatever is measured.
    let counted = if wishes.measure == Measure::Resident { Measure::Data } else { wishes.measure };
    let is_limited = || Surroundings::here().limit_for(Some(wishes.limit), None, counted).is_some();
    wishes.limit != Limit::Off && !is_limited()
}

const NOTHING_IS_LIMITED: &str = "nothing is limited: there is neither --limit (-m) nor a container with a limit; say -m off if that is meant";

fn tries(options: &Run) -> u32 {
    options.retries.saturating_add(1)
}

fn retry(options: &Run) -> Retry {
    let retry = Retry::grow(options.grow).at_most(tries(options));
    match options.max_limit {
        Some(most) => retry.up_to(most),
        None => retry,
    }
}

/// What is done about each end: a post-mortem, if one is wanted.
fn keeper(
    options: &Run,
    entrance: Entrance,
    wishes: Wishes,
) -> Result<impl Fn(&Ended) + Clone + Send + 'static, Failure> {
    let make = |directory| Postmortem::new(directory, &options.command, entrance, options.quiet);
    let made = options.postmortem.as_deref().map(make).transpose();
    let postmortem = made.map(|made| made.map(Arc::new)).map_err(|error| Failure {
        line: format!(
            "cannot make \"{}\" (--postmortem): {error}; name a directory",
            options.postmortem.as_deref().unwrap_or(Path::new("")).display()
        ),
        code: EXIT_CANNOT_GUARD,
    })?;
    Ok(move |ended: &Ended| {
        if let Some(postmortem) = &postmortem {
            let verdict = Verdict::of(ended, &wishes);
            postmortem.write(ended, verdict.json(ended, None));
        }
    })
}

/// execve(2) and fork(2): what kept the command from starting.
fn cannot_start(options: &Run, program: &str, error: &io::Error) -> Failure {
    let is_meant_for_json = options.json.as_deref() == Some(OsStr::new(JSON_ON_STDERR));
    let (code, hint) = match error.raw_os_error() {
        Some(libc::ENOENT) if is_meant_for_json => {
            (EXIT_NOT_FOUND, "if --json is to write there, say it with an equals sign: --json=fd:3")
        }
        Some(libc::ENOENT) => (EXIT_NOT_FOUND, "is it in PATH, and is its interpreter there?"),
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            (EXIT_CANNOT_GUARD, "no process could be had: see ulimit -a and the container's limits")
        }
        Some(libc::EACCES) => (EXIT_NOT_EXECUTABLE, "is it executable for this user, and no directory?"),
        Some(libc::ENOEXEC) => {
            (EXIT_NOT_EXECUTABLE, "it is no program for this machine, and names no interpreter")
        }
        Some(_) => (EXIT_NOT_EXECUTABLE, "try it without oomguard"),
        None => (EXIT_CANNOT_GUARD, "try another value"),
    };
    Failure { line: format!("cannot run {program:?}: {error}; {hint}"), code }
}

/// Says what the process has not said itself: one without a guard, or one that had closed its stderr by then.
fn speak_for_the_command(report: &Report, target: Option<&Target>, options: &Run) {
    if !options.quiet && !report.has_told_lines() {
        write_patiently(format!("{report}\n").as_bytes());
    }
    let outer = if report.has_told_record_above() { Vec::new() } else { Target::of_outer(target) };
    // The command's last words have it that its report could not be written.
    let is_said = options.quiet || report.has_told_lines();
    for target in target.filter(|_| !report.has_told_record()).into_iter().chain(&outer) {
        let written =
            target.open("the report").and_then(|door| door.write(&format!("{}\n", report.to_json())));
        written.err().filter(|_| !is_said).inspect(|why| say(why));
    }
}

fn open(name: &OsStr, what: &str) -> Result<Door, Failure> {
    Door::of(name, what).map_err(|line| Failure { line, code: EXIT_CANNOT_GUARD })
}

/// The end, as it is told.
struct Verdict {
    code: u8,
    word: &'static str,
    /// There was no room to load the program.
    died_while_loading: bool,
}

impl Verdict {
    fn of(ended: &Ended, wishes: &Wishes) -> Verdict {
        let died_while_loading = ended.could_not_load;
        let (code, word) = match &ended.outcome {
            _ if died_while_loading || ended.could_not_guard.is_some() => {
                (i32::from(EXIT_CANNOT_GUARD), CANNOT_START)
            }
            Outcome::Success => (0, "success"),
            Outcome::OutOfMemory(_) => (i32::from(wishes.exit_code), "out_of_memory"),
            Outcome::OomKilled(_) => (EXIT_SIGNAL + libc::SIGKILL, "oom_killed"),
            Outcome::Exited(code) => (*code, "exited"),
            Outcome::Signaled(signal) => (EXIT_SIGNAL + signal, "signaled"),
        };
        Verdict { code: u8::try_from(code).unwrap_or(u8::MAX), word, died_while_loading }
    }

    /// What nobody else has said yet: the guard in the command says by itself when memory runs out.
    fn line(&self, program: &str, ended: &Ended) -> Option<String> {
        if self.died_while_loading {
            let limit = ended.limit.map_or_else(String::new, |bytes| format!(" of {}", size(bytes)));
            return Some(format!(
                "cannot guard {program:?}: it ended while it was being loaded ({}): the limit{limit} is below what it needs \
                 to start; give it more with --limit",
                ended.outcome
            ));
        }
        match &ended.outcome {
            Outcome::OomKilled(_) => Some(format!(
                "{program:?} was {}; a limit below the container's makes it end by itself: see oomguard doctor",
                ended.outcome
            )),
            _ => None,
        }
    }

    fn json(&self, ended: &Ended, error: Option<String>) -> Value {
        let signal = match ended.outcome {
            Outcome::Signaled(signal) => Some(signal),
            Outcome::OomKilled(_) => Some(libc::SIGKILL),
            _ => None,
        };
        let report: Option<Value> = match &ended.outcome {
            Outcome::OutOfMemory(report) => Some(report_in_json(report)),
            _ => None,
        };
        json!({
            "outcome": self.word,
            "exit_code": self.code,
            "error": error,
            "signal": signal,
            "pid": ended.pid,
            "tries": ended.tries,
            "limit": ended.limit,
            "measure": ended.measure.report_word(),
            "resident_peak": ended.resident_peak,
            "ran_for_ms": u64::try_from(ended.ran_for.as_millis()).unwrap_or(u64::MAX),
            "inferred": matches!(&ended.outcome, Outcome::OutOfMemory(report) if report.is_inferred()),
            "report": report,
            "doubtful": ended.doubtful.as_ref().map(report_in_json),
            "refusals": ended.refusals,
            "last_refused": ended.last_refused,
            "descendants": ended.descendants.iter().map(report_in_json).collect::<Value>(),
        })
    }
}

fn report_in_json(report: &Report) -> Value {
    serde_json::from_str(&report.to_json()).unwrap_or_default()
}
