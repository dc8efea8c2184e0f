//! Where the report goes: what the option or the environment says, made absolute once and tried once. It is the launcher's,
//! so that it is an error only here: a descendant may have closed the descriptor, or see other files.

use crate::screen::say;
use crate::stderr::{self, PATIENCE};
use oomguard::contract::variable;
use oomguard::supervisor::{Worker, inherits_report, reports_of_outer};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// As many programs call it.
const STDOUT: &[u8] = b"-";
const STDOUT_BY_NUMBER: &str = "fd:1";

pub struct Target {
    /// As `OOMGUARD_REPORT` says it.
    value: OsString,
    /// Whose word it is, for messages.
    said: String,
    /// An outer launcher has tried it, and here it may be out of reach.
    is_inherited: bool,
}

impl Target {
    /// `None`: nobody wants one.
    pub fn of(option: Option<&OsStr>) -> Option<Target> {
        let (value, said) = match option {
            Some(value) => (value.to_owned(), format!("--report {}", quoted(value))),
            None => {
                let value = std::env::var_os(variable::REPORT)?;
                let said = format!("{}={} in the environment", variable::REPORT, quoted(&value));
                (value, said)
            }
        };
        let is_inherited = option.is_none() && inherits_report();
        Some(Target { value: absolute(&value), said, is_inherited })
    }

    /// The worker is to write there; or what is wrong with that.
    pub fn given_to(&self, worker: Worker) -> Result<Worker, String> {
        if self.is_inherited {
            return Ok(worker);
        }
        let given = if number_in(&self.value).is_some_and(is_the_launchers) {
            Err("no descriptor that is open for writing".to_owned())
        } else if self.value.is_empty() {
            Err("empty".to_owned())
        } else {
            worker.report_to(self.value.clone()).map_err(|error| error.to_string())
        };
        given.map_err(|why| {
            format!("{}: {why}; accepted: the path of a file that can be appended to, or fd:N for an open descriptor", self.said)
        })
    }

    /// Those of the launchers above, where the command has not written to them, as it was told this one.
    pub fn of_outer(inner: Option<&Target>) -> Vec<Target> {
        let mut all: Vec<OsString> = inner.map(|inner| inner.value.clone()).into_iter().collect();
        let told = all.len();
        for value in reports_of_outer(!inner.is_some_and(|inner| inner.is_inherited)) {
            if !all.iter().any(|known| *known == value || is_one_file(known, &value)) {
                all.push(value);
            }
        }
        let target = |value| Target { value, said: String::new(), is_inherited: true };
        all.into_iter().skip(told).map(target).collect()
    }

    /// To write there in the command's place.
    pub fn open(&self, what: &str) -> Result<Door, String> {
        // Whoever has closed the descriptor may have put a file of its own there.
        let is_number = self.value.as_encoded_bytes().starts_with(b"fd:");
        if self.is_inherited && is_number && !reports_of_outer(true).contains(&self.value) {
            let value = self.value.display();
            return Err(format!(
                "cannot write to {value} ({what}): it is not what the outer launcher was told"
            ));
        }
        Door::of(&self.value, what)
    }
}

/// Where a line is to go, opened.
pub struct Door {
    name: OsString,
    /// `None`: stderr, which may be what cannot be opened again.
    file: Option<File>,
}

impl Door {
    /// Opens a path, or another door to an open descriptor, `fd:N`; `what` is to go there.
    pub fn of(name: &OsStr, what: &str) -> Result<Door, String> {
        let name = if name.as_encoded_bytes() == STDOUT { OsStr::new(STDOUT_BY_NUMBER) } else { name };
        let opened = match number_in(name) {
            Some("2") => return Ok(Door { name: name.to_owned(), file: None }),
            Some(number) if is_the_launchers(number) => Err(io::ErrorKind::NotFound.into()),
            Some(number) => open(&Path::new("/proc/self/fd").join(number)),
            None => open(Path::new(name)),
        };
        let is_number = matches!(name.as_encoded_bytes(), [b'f', b'd', b':', ..]);
        let file = opened.map_err(|error| {
            let name = if name.is_empty() { "\"\"".to_owned() } else { name.display().to_string() };
            let why = match error.kind() {
                io::ErrorKind::NotFound if is_number => "no such descriptor is open".to_owned(),
                _ => error.to_string(),
            };
            format!("cannot write to {name} ({what}): {why}; name a file, or fd:N for an open descriptor")
        })?;
        Ok(Door { name: name.to_owned(), file: Some(file) })
    }

    pub fn write(self, line: &str) -> Result<(), String> {
        let Some(file) = self.file else {
            stderr::write_patiently(line.as_bytes());
            return Ok(());
        };
        write_patiently(file, line.as_bytes())
            .map_err(|error| format!("cannot write to {}: {error}", self.name.display()))
    }

    pub fn write_or_say_why(self, line: &str) {
        if let Err(why) = self.write(line) {
            say(&why);
        }
    }
}

/// The N of `fd:N`.
fn number_in(target: &OsStr) -> Option<&str> {
    target.to_str()?.strip_prefix("fd:")
}

/// Whether the launcher opened this descriptor itself: what it was started with stays open across execve(2).
fn is_the_launchers(number: &str) -> bool {
    let info = std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.is_some_and(|flags| {
        i32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & libc::O_CLOEXEC != 0)
    })
}

/// To append to; a pipe by its name without waiting for who reads it: fifo(7), "open for reading and writing".
fn open(path: &Path) -> io::Result<File> {
    let is_pipe = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    let mut how = File::options();
    how.append(true).custom_flags(libc::O_NONBLOCK);
    if is_pipe { how.read(true) } else { how.create(true) }.open(path)
}

fn write_patiently(mut file: File, mut rest: &[u8]) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or(&[]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_one_file(one: &OsStr, other: &OsStr) -> bool {
    let id = |name: &OsStr| {
        let path = number_in(name)
            .map_or_else(|| PathBuf::from(name), |number| Path::new("/proc/self/fd").join(number));
        path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
    };
    id(one).is_some_and(|one| id(other) == Some(one))
}

fn quoted(value: &OsStr) -> String {
    format!("\"{}\"", value.to_string_lossy())
}

fn absolute(value: &OsStr) -> OsString {
    let bytes = value.as_encoded_bytes();
    if bytes == STDOUT {
        return OsString::from(STDOUT_BY_NUMBER);
    }
    if bytes.is_empty() || bytes.starts_with(b"/") || bytes.starts_with(b"fd:") {
        return value.to_owned();
    }
    match std::env::current_dir() {
        Ok(directory) => directory.join(value).into_os_string(),
        Err(_) => value.to_owned(),
    }
}
