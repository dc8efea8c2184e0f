//! What is known of an address, and where that comes from.

use std::fmt::{self, Write};
use std::path::PathBuf;

/// What lies at an address of a profile.
///
/// `Display` is one line: the innermost function with its file and line, or the address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The address that was asked about.
    pub address: u64,
    /// Which of [`Profile::modules`](oomguard_supervisor::Profile::modules) it is in; `None` for code that no file holds.
    pub module: Option<usize>,
    /// The address as the file itself counts: what `addr2line -e FILE` wants, less one as it is a return address.
    pub offset: Option<u64>,
    /// The functions whose code is there, innermost first: all but the last were inlined into the next one. Empty where
    /// nothing is known.
    pub functions: Vec<Function>,
}

/// A function at a [`Place`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// Its name, demangled, without control characters and of at most 1024 bytes. `None` where only its file is known.
    pub name: Option<String>,
    /// The source file, as the compiler wrote it down; without control characters.
    pub file: Option<String>,
    /// The line of the call in it, counted from one.
    pub line: Option<u32>,
    /// Whether it was inlined into the next one.
    pub is_inlined: bool,
}

/// How much is known of the functions in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Detail {
    /// Nothing.
    Nothing,
    /// The functions that it exports.
    Exported,
    /// Its functions, from the symbol table.
    Symbols,
    /// Functions, files and lines, inlined ones as well, from debug information (DWARF).
    Lines,
}

/// Where the names of a loaded file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Names {
    /// How much they tell.
    pub detail: Detail,
    /// The file that was read: the loaded one, or one with its debug information.
    pub from: Option<PathBuf>,
    /// Why there are no more; `None` where [`detail`](Names::detail) is [`Lines`](Detail::Lines).
    pub problem: Option<Problem>,
    /// Whether a build-id says that the file is the one that was loaded. Where neither has one, only their sizes in memory
    /// were compared.
    pub is_verified: bool,
}

/// Why the names of a file are not all known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Nobody asked for names: [`Symbolizer::without_files`](super::Symbolizer::without_files).
    NotAsked,
    /// The profile does not name its file: the path was too long.
    NoPath,
    /// It is not there, or not to be seen from here.
    Gone,
    /// Another file has its place: its build-id or its size is another one.
    Replaced,
    /// What is there is no regular file, and was not opened.
    NotRegular,
    /// It has no debug information, and none was found elsewhere.
    Stripped,
    /// It has more debug information than is read, 1 GiB.
    TooLarge,
    /// It cannot be read, or makes no sense.
    Unreadable(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::NotAsked => "not asked for",
            Problem::NoPath => "its path was too long for the profile",
            Problem::Gone => "not there",
            Problem::Replaced => "replaced since",
            Problem::NotRegular => "no regular file",
            Problem::Stripped => "without debug information",
            Problem::TooLarge => "more than 1 GiB of debug information, which is not read",
            Problem::Unreadable(why) => return write!(f, "not readable: {why}"),
        })
    }
}

/// The longest name that is kept, in bytes.
const NAME_MAX_BYTES: usize = 1024;

impl Function {
    pub(super) fn named(name: String, is_inlined: bool) -> Function {
        Function { name: Some(name), file: None, line: None, is_inlined }
    }
}

/// Text that takes no more than so many bytes, and that a terminal can be given.
#[derive(Default)]
pub(super) struct Bounded(pub(super) String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars().map(oomguard_core::text::harmless) {
            if self.0.len() + c.len_utf8() + '…'.len_utf8() > NAME_MAX_BYTES {
                self.0.push('…');
                // Whoever writes need not go on.
                return Err(fmt::Error);
            }
            self.0.push(c);
        }
        Ok(())
    }
}

/// Text from a file, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut bounded = Bounded::default();
    // What does not fit is left out.
    let _ = bounded.write_str(text);
    bounded.0
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.functions.first() {
            Some(function) => function.fmt(f),
            None => write!(f, "{:#x}", self.address),
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("?"))?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "  {file}:{line}"),
            (Some(file), None) => write!(f, "  {file}"),
            (None, _) => Ok(()),
        }
    }
}
