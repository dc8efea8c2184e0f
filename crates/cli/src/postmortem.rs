//! `oomguard run --postmortem DIR`: what is left of a death, in a directory of its own, to be looked into here or
//! elsewhere.
//!
//! What cannot be had again is written first: the report and the profile. Names are looked up by another process, this
//! program as `oomguard report`, with a memory limit and a deadline: debug information can be large, and this process
//! may be all that keeps its container alive.

use crate::report::death::{ENDING_FILE, REPORT_FILE};
use crate::screen::{json_line, say};
use oomguard::contract::PROFILE_FILE_SUFFIX;
use oomguard::supervisor::{Ended, Entrance, Outcome, Profiling, Surroundings, Worker};
use oomguard::{Limit, Measure};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const TEXT_FILE: &str = "report.txt";
const FLAME_GRAPH_FILE: &str = "flamegraph.svg";
const PPROF_FILE: &str = "heap.pb.gz";

/// How long the report may take: a pod that is to end has 30 seconds in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// What it may take of the memory that is left to the container: three quarters, and within these bounds.
const LEAST_BYTES: u64 = 64 << 20;
const MOST_BYTES: u64 = 1 << 30;

/// Where deaths go, and what they are deaths of.
pub struct Postmortem {
    directory: PathBuf,
    command: Vec<OsString>,
    entrance: Entrance,
    quiet: bool,
}

impl Postmortem {
    pub fn new(
        directory: &Path,
        command: &[OsString],
        entrance: Entrance,
        quiet: bool,
    ) -> io::Result<Postmortem> {
        fs::create_dir_all(directory)?;
        Ok(Postmortem { directory: directory.to_owned(), command: command.to_vec(), entrance, quiet })
    }

    /// Writes what is known of an end, if memory was its cause, or a signal where a profile tells what was live.
    /// `ending` is how the launcher tells it.
    pub fn write(&self, ended: &Ended, ending: Value) {
        let has_profile = ended.last_look.as_ref().is_some_and(|look| look.profile().is_some());
        let is_signal = matches!(ended.outcome, Outcome::Signaled(_));
        if ended.outcome.is_memory() || is_signal && has_profile {
            self.write_and_say(ended, ending, has_profile);
        }
    }

    fn write_and_say(&self, ended: &Ended, ending: Value, has_profile: bool) {
        let place = match self.write_evidence(ended, ending, has_profile) {
            Ok(place) => place,
            Err(error) => {
                say(&format!("cannot write the post-mortem to {:?}: {error}", self.directory));
                return;
            }
        };
        let report = if has_profile { make_report(&place) } else { Err(self.why_no_profile(ended).into()) };
        if !self.quiet {
            let where_it_lies = format!("post-mortem in {}", place.display());
            match report {
                Ok(()) if place.join(FLAME_GRAPH_FILE).exists() => {
                    say(&format!("{where_it_lies}: see {TEXT_FILE}, {FLAME_GRAPH_FILE} and {PPROF_FILE}"))
                }
                Ok(()) => say(&format!(
                    "{where_it_lies}: see {TEXT_FILE} and {PPROF_FILE}; nothing live was sampled"
                )),
                Err(why) => say(&format!("{where_it_lies}, {why}")),
            }
        }
    }

    fn write_evidence(&self, ended: &Ended, ending: Value, has_profile: bool) -> io::Result<PathBuf> {
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let place = self.new_place(&time, ended.pid)?;
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        let mut whole = json!({ "time": time, "command": words });
        if let (Some(whole), Value::Object(ending)) = (whole.as_object_mut(), ending) {
            whole.extend(ending);
        }
        new_file(&place.join(ENDING_FILE))?.write_all(json_line(&whole).as_bytes())?;
        if let Outcome::OutOfMemory(report) = &ended.outcome {
            let line = format!("{}\n", report.to_json());
            new_file(&place.join(REPORT_FILE))?.write_all(line.as_bytes())?;
        }
        if let Some(look) = ended.last_look.as_ref().filter(|_| has_profile) {
            look.write_profile(&mut new_file(&place.join(format!("{REPORT_FILE}{PROFILE_FILE_SUFFIX}")))?)?;
        }
        Ok(place)
    }

    /// A new directory: the time, the program, the process.
    fn new_place(&self, time: &str, pid: u32) -> io::Result<PathBuf> {
        let program = self.command.first().map(PathBuf::from).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let program: String = program.chars().map(plain).take(64).collect();
        let name = format!("{}-{program}-{pid}", time.replace(':', "-"));
        let mut place = self.directory.join(&name);
        for number in 2..100 {
            match DirBuilder::new().mode(0o700).create(&place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|()| place),
            }
            place = self.directory.join(format!("{name}-{number}"));
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn why_no_profile(&self, ended: &Ended) -> &'static str {
        let profiling = ended.last_look.as_ref().and_then(|look| look.profiling());
        match (profiling, self.entrance) {
            (Some(Profiling::Off), _) => "without a profile: OOMGUARD_PROFILE says off",
            (Some(Profiling::Failed), _) => "without a profile: there was no memory for it",
            (_, Entrance::Guarded) => {
                "without a profile: the program has no profiler; build it with guard!(profile = on)"
            }
            _ => "without a profile: only Rust programs with guard!(profile = …) have a profiler",
        }
    }
}

/// A file for its owner's eyes only: a command line may hold a password.
fn new_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// `Err` says what is missing.
fn make_report(place: &Path) -> Result<(), String> {
    let with_names = run_report(place, &[]);
    match with_names {
        Ok(()) => Ok(()),
        Err(why) => match run_report(place, &["--no-symbols"]) {
            Ok(()) => Err(format!("without names: {why}; try oomguard report again elsewhere")),
            Err(_) => Err(format!("without a report: {why}; try oomguard report elsewhere")),
        },
    }
}

fn run_report(place: &Path, options: &[&str]) -> Result<(), String> {
    let text =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(place.join(TEXT_FILE));
    let text = text.map_err(|error| error.to_string())?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("report").arg(place).args(options);
    command.arg("--flamegraph").arg(place.join(FLAME_GRAPH_FILE));
    command.arg("--pprof").arg(place.join(PPROF_FILE));
    command.stdin(Stdio::null()).stdout(text).stderr(Stdio::null()).env_remove("LD_PRELOAD");
    let outcome = Worker::new(command)
        .limit(Limit::Bytes(spare_bytes()))
        .measure(Measure::Data)
        .keep_lower_limit()
        .time_limit(PATIENCE)
        .run();
    match outcome {
        Ok(Outcome::Success) => Ok(()),
        Ok(outcome) => Err(format!("the search ended so: {outcome}")),
        Err(error) => Err(format!("the search could not be started: {error}")),
    }
}

/// What the report may take.
fn spare_bytes() -> u64 {
    let here = Surroundings::here();
    let in_use = here.groups.first().and_then(|group| group.in_use).unwrap_or(0);
    let spare = here.container_limit().map(|(limit, _)| limit.saturating_sub(in_use) / 4 * 3);
    spare.unwrap_or(MOST_BYTES).clamp(LEAST_BYTES, MOST_BYTES)
}
