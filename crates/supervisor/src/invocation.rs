//! A command that is known in all its parts, so that it can be started without a fork: [`sys::spawn`].
//!
//! What std's `Command` does not tell of itself is noted beside it. Where there is more than is noted here (a hook, another
//! user), only std can start it.

use super::sys;
use super::sys::spawn::{Plan, Strings};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, ChildStderr, ChildStdin, ChildStdout};

/// A program to be run, and how: as [`std::process::Command`], by the same names.
///
/// [`Worker::new`](super::Worker::new) takes either. The difference is what a start costs where something has to be done
/// between fork and exec, as setting a limit is: std's `Command` does not tell what it was told, so only std can start it, by
/// fork(2), which copies the page tables of this process. This one is started without.
///
/// What it has no method for (another user, hooks) is std's alone: [`From`].
pub struct Command {
    std: process::Command,
    /// `None`: only std knows all of it.
    parts: Option<Parts>,
}

/// What std's does not tell.
struct Parts {
    stdio: [Stream; 3],
    /// Without the null at its end.
    first_argument: Option<OsString>,
    is_environment_cleared: bool,
    /// In place of this process's environment.
    entries: Option<Vec<OsString>>,
    process_group: Option<i32>,
    /// Nothing that is said to the kernel can have one within.
    has_null: bool,
}

/// What a child has as its stdin, stdout or stderr: as [`std::process::Stdio`], by the same names.
///
/// It is made of an open file, socket or end of a pipe, too: of all that becomes an [`OwnedFd`].
#[derive(Debug)]
pub struct Stdio(Stream);

#[derive(Debug)]
enum Stream {
    Inherited,
    Null,
    Pipe,
    Descriptor(OwnedFd),
}

impl Stdio {
    /// The same as this process has.
    pub fn inherit() -> Stdio {
        Stdio(Stream::Inherited)
    }

    /// `/dev/null`.
    pub fn null() -> Stdio {
        Stdio(Stream::Null)
    }

    /// A pipe, whose other end [`Running`](super::Running) has.
    pub fn piped() -> Stdio {
        Stdio(Stream::Pipe)
    }
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(descriptor: T) -> Stdio {
        Stdio(Stream::Descriptor(descriptor.into()))
    }
}

/// A child, and the ends of its pipes.
pub(super) struct Started {
    pub(super) pid: u32,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl From<Child> for Started {
    fn from(mut child: Child) -> Started {
        Started {
            pid: child.id(),
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        }
    }
}

/// To be started by std, as it is.
impl From<process::Command> for Command {
    fn from(std: process::Command) -> Command {
        Command { std, parts: None }
    }
}

impl Command {
    /// As [`std::process::Command::new`].
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        let parts = Parts {
            stdio: [const { Stream::Inherited }; 3],
            first_argument: None,
            is_environment_cleared: false,
            entries: None,
            process_group: None,
            has_null: false,
        };
        let mut command = Command { std: process::Command::new(&program), parts: Some(parts) };
        command.heed_null(program.as_ref());
        command
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Command {
        self.heed_null(argument.as_ref());
        self.std.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Command {
        for argument in arguments {
            self.arg(argument);
        }
        self
    }

    /// Sets the argument that comes before the others, which is the program's name where nothing else is said.
    pub fn arg0(&mut self, argument: impl AsRef<OsStr>) -> &mut Command {
        self.heed_null(argument.as_ref());
        if let Some(parts) = &mut self.parts {
            parts.first_argument = Some(argument.as_ref().to_owned());
        }
        self.std.arg0(argument);
        self
    }

    /// Sets a variable of the child's environment, which is this process's otherwise.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.std.env(name, value);
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Command {
        self.std.envs(variables);
        self
    }

    /// Leaves a variable out of the child's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Command {
        self.std.env_remove(name);
        self
    }

    /// Leaves out all variables, those that were set here included.
    pub fn env_clear(&mut self) -> &mut Command {
        if let Some(parts) = &mut self.parts {
            parts.is_environment_cleared = true;
        }
        self.std.env_clear();
        self
    }

    /// Takes these for this process's environment, in their order: `NAME=value` as a rule, but execve(2) passes on any text,
    /// and the same name twice. For a command of std's, only what is a variable.
    pub fn env_entries(&mut self, entries: impl IntoIterator<Item = OsString>) -> &mut Command {
        let entries: Vec<OsString> = entries.into_iter().collect();
        match &mut self.parts {
            Some(parts) => parts.entries = Some(entries),
            None => {
                self.std.env_clear().envs(entries.iter().filter_map(|entry| variable(entry)));
            }
        }
        self
    }

    /// Sets the directory that the child works in.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Command {
        self.heed_null(directory.as_ref().as_os_str());
        self.std.current_dir(directory);
        self
    }

    /// Sets the child's standard input; this process's where nothing is said.
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Command {
        self.set_stdio(0, stdin.into())
    }

    /// Sets the child's standard output; this process's where nothing is said.
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Command {
        self.set_stdio(1, stdout.into())
    }

    /// Sets the child's standard error; this process's where nothing is said.
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Command {
        self.set_stdio(2, stderr.into())
    }

    /// Puts the child into this process group, or with zero into one of its own: setpgid(2).
    pub fn process_group(&mut self, group: i32) -> &mut Command {
        if let Some(parts) = &mut self.parts {
            parts.process_group = Some(group);
        }
        self.std.process_group(group);
        self
    }

    fn set_stdio(&mut self, place: usize, Stdio(stream): Stdio) -> &mut Command {
        match &mut self.parts {
            Some(parts) => parts.stdio[place] = stream,
            None => set_stds(&mut self.std, place, stream),
        }
        self
    }

    fn heed_null(&mut self, text: &OsStr) {
        if let Some(parts) = &mut self.parts {
            parts.has_null |= text.as_bytes().contains(&0);
        }
    }

    pub(super) fn std_mut(&mut self) -> &mut process::Command {
        &mut self.std
    }

    /// With its streams, to be started by std.
    pub(super) fn std_in_full(&mut self) -> io::Result<&mut process::Command> {
        if let Some(parts) = &self.parts {
            for (place, stream) in parts.stdio.iter().enumerate() {
                set_stds(&mut self.std, place, stream.try_clone()?);
            }
        }
        Ok(&mut self.std)
    }

    /// All of it, where that is known.
    pub(super) fn invocation(&self) -> io::Result<Option<Invocation<'_>>> {
        self.parts.as_ref().map(|parts| Invocation::new(&self.std, parts)).transpose()
    }
}

/// What std's tells of itself.
impl AsRef<process::Command> for Command {
    fn as_ref(&self) -> &process::Command {
        &self.std
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}

fn set_stds(command: &mut process::Command, place: usize, stream: Stream) {
    let stdio = match stream {
        Stream::Inherited => process::Stdio::inherit(),
        Stream::Null => process::Stdio::null(),
        Stream::Pipe => process::Stdio::piped(),
        Stream::Descriptor(descriptor) => descriptor.into(),
    };
    match place {
        0 => command.stdin(stdio),
        1 => command.stdout(stdio),
        _ => command.stderr(stdio),
    };
}

impl Stream {
    fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Inherited => Stream::Inherited,
            Stream::Null => Stream::Null,
            Stream::Pipe => Stream::Pipe,
            Stream::Descriptor(descriptor) => Stream::Descriptor(descriptor.try_clone()?),
        })
    }
}

/// One start of a command: all that the child needs, made before there is one.
pub(super) struct Invocation<'a> {
    files: Vec<CString>,
    arguments: Strings,
    of_script: Strings,
    environment: Strings,
    directory: Option<CString>,
    parts: &'a Parts,
}

impl<'a> Invocation<'a> {
    fn new(command: &process::Command, parts: &'a Parts) -> io::Result<Invocation<'a>> {
        if parts.has_null {
            return Err(has_null());
        }
        let environment = environment(command, parts);
        // getenv(3) finds the first.
        let path = environment.iter().filter_map(|entry| variable(entry)).find(|(name, _)| *name == "PATH");
        let program = command.get_program();
        let first = parts.first_argument.as_deref().unwrap_or(program);
        let rest = || command.get_args().map(c_string);
        let of_script = [Ok(c"/bin/sh".into()), Ok(c"".into())].into_iter().chain(rest());
        Ok(Invocation {
            files: files(program, path.map(|(_, path)| path))?,
            arguments: Strings::new([c_string(first)].into_iter().chain(rest()).collect::<io::Result<_>>()?),
            of_script: Strings::new(of_script.collect::<io::Result<_>>()?),
            environment: Strings::new(
                environment.iter().map(|entry| c_string(entry)).collect::<io::Result<_>>()?,
            ),
            directory: command.get_current_dir().map(|at| c_string(at.as_os_str())).transpose()?,
            parts,
        })
    }

    /// Starts it. `before_exec` is to keep what [`Plan`] says; `waits`: for others.
    pub(super) fn start(&self, before_exec: &dyn Fn() -> io::Result<()>, waits: bool) -> io::Result<Started> {
        let [stdin, stdout, stderr] = &self.parts.stdio;
        let [stdin, stdout, stderr] =
            [Ends::of(stdin, true)?, Ends::of(stdout, false)?, Ends::of(stderr, false)?];
        let pid = sys::spawn::start(&Plan {
            stdio: [&stdin, &stdout, &stderr].map(|ends| ends.childs),
            directory: self.directory.as_deref(),
            process_group: self.parts.process_group,
            before_exec,
            files: &self.files,
            arguments: &self.arguments,
            environment: &self.environment,
            of_script: &self.of_script,
            waits,
        })?;
        Ok(Started {
            pid,
            stdin: stdin.ours.map(ChildStdin::from),
            stdout: stdout.ours.map(ChildStdout::from),
            stderr: stderr.ours.map(ChildStderr::from),
        })
    }
}

/// The ends of one stream.
struct Ends {
    /// Above those that it is to become. `None`: what is there stays.
    childs: Option<RawFd>,
    /// For `childs` to last until the child has it.
    _held: Option<OwnedFd>,
    ours: Option<OwnedFd>,
}

impl Ends {
    fn of(stream: &Stream, child_reads: bool) -> io::Result<Ends> {
        match stream {
            Stream::Inherited => Ok(Ends { childs: None, _held: None, ours: None }),
            Stream::Null => {
                let null = File::options().read(child_reads).write(!child_reads).open("/dev/null")?;
                Ends::holding(null.into(), None)
            }
            Stream::Pipe => {
                let (reader, writer): (PipeReader, PipeWriter) = io::pipe()?;
                let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
                let (childs, ours) = if child_reads { (reader, writer) } else { (writer, reader) };
                Ends::holding(childs, Some(ours))
            }
            Stream::Descriptor(fd) if fd.as_raw_fd() < FIRST_ABOVE_STDIO => {
                Ends::holding(fd.try_clone()?, None)
            }
            Stream::Descriptor(fd) => Ok(Ends { childs: Some(fd.as_raw_fd()), _held: None, ours: None }),
        }
    }

    fn holding(childs: OwnedFd, ours: Option<OwnedFd>) -> io::Result<Ends> {
        // A copy gets a higher number.
        let childs = if childs.as_raw_fd() < FIRST_ABOVE_STDIO { childs.try_clone()? } else { childs };
        Ok(Ends { childs: Some(childs.as_raw_fd()), _held: Some(childs), ours })
    }
}

const FIRST_ABOVE_STDIO: RawFd = 3;

/// Entry by entry, in the order of what is inherited; what is set comes in the place of what it replaces, or last.
fn environment(command: &process::Command, parts: &Parts) -> Vec<OsString> {
    let mut entries = match &parts.entries {
        _ if parts.is_environment_cleared => Vec::new(),
        Some(entries) => entries.clone(),
        None => std::env::vars_os().map(|(name, value)| entry(&name, &value)).collect(),
    };
    for (name, value) in command.get_envs() {
        let is_it = |entry: &OsString| variable(entry).is_some_and(|(its, _)| its == name);
        let place = entries.iter().position(is_it);
        entries.retain(|entry| !is_it(entry));
        if let Some(value) = value {
            entries.insert(place.unwrap_or(entries.len()), entry(name, value));
        }
    }
    entries
}

fn entry(name: &OsStr, value: &OsStr) -> OsString {
    OsString::from_vec([name.as_bytes(), b"=", value.as_bytes()].concat())
}

/// `NAME=value` in its parts; a name may begin with the sign, as std has it.
fn variable(entry: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = entry.as_bytes();
    let sign = bytes.iter().skip(1).position(|byte| *byte == b'=')? + 1;
    let (name, value) = bytes.split_at_checked(sign)?;
    Some((OsStr::from_bytes(name), OsStr::from_bytes(value.get(1..)?)))
}

/// As execvp(3) has it: a name with a slash as it is, any other in each directory of PATH, of which an empty one is the
/// child's own.
fn files(program: &OsStr, path: Option<&OsStr>) -> io::Result<Vec<CString>> {
    const WITHOUT_PATH: &[u8] = b"/bin:/usr/bin";
    let program = program.as_bytes();
    if program.is_empty() {
        return Ok(Vec::new());
    }
    if program.contains(&b'/') {
        return Ok(vec![c_string(OsStr::from_bytes(program))?]);
    }
    let in_place = |place: &[u8]| {
        let separator: &[u8] = if place.is_empty() { b"" } else { b"/" };
        c_string(OsStr::from_bytes(&[place, separator, program].concat()))
    };
    path.map_or(WITHOUT_PATH, OsStr::as_bytes).split(|byte| *byte == b':').map(in_place).collect()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| has_null())
}

fn has_null() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "nul byte found in provided data")
}
