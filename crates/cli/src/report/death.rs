//! What is known of deaths: the reports and the profiles that lie beside each other in files.

use crate::screen::printable;
use oomguard::contract::PROFILE_FILE_SUFFIX;
use oomguard::supervisor::{Profile, size};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The names of what `run --postmortem` writes into a directory.
pub const REPORT_FILE: &str = "report.json";
pub const ENDING_FILE: &str = "death.json";

/// The most that is read of a file of reports: as many as fit, from its end. A report has at most a KiB.
const MOST_BYTES: u64 = 16 << 20;

/// A process that died.
#[derive(Default)]
pub struct Death {
    /// What it said itself when memory ran out.
    pub report: Option<Map<String, Value>>,
    /// How the launcher saw it end.
    pub ending: Option<Map<String, Value>>,
    pub profile: Option<Profile>,
}

/// All deaths in `file`, in the order in which they were written.
pub fn read(file: &Path) -> Result<Vec<Death>, String> {
    let found = fs::metadata(file).map_err(|error| {
        format!("cannot read {file:?}: {error}; give the file that OOMGUARD_REPORT named, or its .profile")
    })?;
    if found.is_dir() {
        return read_directory(file);
    }
    if !found.is_file() {
        return Err(format!("cannot read {file:?}: it is no regular file; copy it into one first"));
    }
    let read = |path: &Path| {
        Profile::read_file(path).map_err(|error| format!("cannot read the profiles in {path:?}: {error}"))
    };
    let bytes = file.as_os_str().as_encoded_bytes();
    let (report_file, profile_file) = match bytes.strip_suffix(PROFILE_FILE_SUFFIX.as_bytes()) {
        Some(_) => (file.with_extension(""), file.to_owned()),
        None => (file.to_owned(), with_suffix(file)),
    };
    let mut profiles = if profile_file.is_file() { read(&profile_file)? } else { Vec::new() };
    if profiles.is_empty() {
        // Under another name.
        profiles = read(file)?;
    }
    let reports = if report_file.is_file() { reports(&report_file)? } else { Vec::new() };
    Ok(joined(reports, profiles))
}

fn read_directory(directory: &Path) -> Result<Vec<Death>, String> {
    let is_death = |path: &Path| path.join(ENDING_FILE).is_file() || path.join(REPORT_FILE).is_file();
    let mut places: Vec<PathBuf> = if is_death(directory) {
        vec![directory.to_owned()]
    } else {
        let entries =
            fs::read_dir(directory).map_err(|error| format!("cannot read {directory:?}: {error}"))?;
        entries.flatten().map(|entry| entry.path()).filter(|path| is_death(path)).collect()
    };
    // Their names begin with the time.
    places.sort();
    let mut deaths = Vec::new();
    for place in places {
        let report_file = place.join(REPORT_FILE);
        let has_file = report_file.is_file() || with_suffix(&report_file).is_file();
        let mut here = match (report_file.is_file(), has_file) {
            (true, _) => read(&report_file)?,
            (false, true) => read(&with_suffix(&report_file))?,
            (false, false) => vec![Death::default()],
        };
        if let Some(last) = here.last_mut() {
            let ending = start_of(&place.join(ENDING_FILE)).ok();
            last.ending = ending.and_then(|text| serde_json::from_str(&text).ok());
        }
        deaths.append(&mut here);
    }
    match deaths.is_empty() {
        true => Err(format!("{directory:?} holds no death: give a directory that run --postmortem wrote")),
        false => Ok(deaths),
    }
}

fn with_suffix(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(PROFILE_FILE_SUFFIX);
    name.into()
}

fn start_of(file: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines of a file that are reports; others may be anything.
fn reports(file: &Path) -> Result<Vec<Map<String, Value>>, String> {
    let text = start_of(file).map_err(|error| format!("cannot read {file:?}: {error}"))?;
    let objects = text.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
    Ok(objects.filter(|object| object.contains_key("oomguard") && object.contains_key("pid")).collect())
}

/// Which report speaks of which profile: both name the process, and both were appended.
fn joined(reports: Vec<Map<String, Value>>, mut profiles: Vec<Profile>) -> Vec<Death> {
    let mut deaths: Vec<Death> =
        reports.into_iter().map(|report| Death { report: Some(report), ..Death::default() }).collect();
    for death in deaths.iter_mut().rev() {
        let pid = death.pid();
        if let Some(index) = profiles.iter().rposition(|profile| Some(profile.pid) == pid) {
            death.profile = Some(profiles.remove(index));
        }
    }
    deaths.extend(profiles.into_iter().map(|profile| Death { profile: Some(profile), ..Death::default() }));
    deaths
}

impl Death {
    /// As the process knew itself.
    pub fn pid(&self) -> Option<u32> {
        let said = self.report.as_ref().and_then(|report| report.get("pid")?.as_u64());
        let said = said.and_then(|pid| u32::try_from(pid).ok());
        said.or_else(|| self.profile.as_ref().map(|profile| profile.pid))
            .or_else(|| u32::try_from(self.ending.as_ref()?.get("pid")?.as_u64()?).ok())
    }

    /// The program's name, or that of the command.
    pub fn program(&self) -> String {
        let said = self.text("program").or_else(|| {
            let command = self.ending.as_ref()?.get("command")?;
            let path = Path::new(command.get(0)?.as_str()?);
            Some(printable(&path.file_name()?.to_string_lossy()))
        });
        said.or_else(|| {
            let path = self.profile.as_ref()?.modules.first()?.path.as_ref()?;
            Some(printable(&path.file_name()?.to_string_lossy()))
        })
        .unwrap_or_else(|| "process".into())
    }

    /// In bytes.
    pub fn limit(&self) -> Option<u64> {
        self.number("limit").or_else(|| self.ending.as_ref()?.get("limit")?.as_u64())
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.report.as_ref()?.get(key)?.as_u64()
    }

    pub fn text(&self, key: &str) -> Option<String> {
        Some(printable(self.report.as_ref()?.get(key)?.as_str()?))
    }

    /// What happened, on one line.
    pub fn headline(&self) -> String {
        let who = match self.pid() {
            Some(pid) => format!("{} (pid {pid})", self.program()),
            None => self.program(),
        };
        if self.report.is_some() {
            let thread =
                self.text("thread").map_or_else(String::new, |thread| format!(" in thread {thread}"));
            let wanted = match self.number("requested") {
                Some(bytes) => format!("{} more", size(bytes)),
                None => "more memory".into(),
            };
            return format!("Out of memory: {who}{thread} could not go on without {wanted}");
        }
        let ending = |key: &str| self.ending.as_ref().and_then(|ending| ending.get(key));
        match ending("signal").and_then(Value::as_u64) {
            Some(_) if ending("outcome").is_some_and(|outcome| outcome == "oom_killed") => {
                format!("Killed by the kernel, out of memory: {who}")
            }
            Some(signal) => format!("Ended by signal {signal}: {who}"),
            None => format!("Profile of {who}"),
        }
    }
}
