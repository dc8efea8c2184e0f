//! Names for the addresses of a profile, from the files that the profile names: users find it as `supervisor::symbols` in the
//! package `oomguard`, with its feature `symbolize`.
//!
//! A profile may come from anywhere and name any path, so that looking for names must do no harm: only regular files are
//! opened, nothing is mapped, what is read has a bound, and a file that is not the one that was loaded (its build-id
//! says so) gives no names at all.
//!
//! | file | what it holds |
//! |---|---|
//! | `place` | what is known of an address, and of a file's names |
//! | `elf_file` | one file on disk: what it is, its symbols, its debug information |
//! | `demangle` | names as their authors wrote them |
//! | `debug_file` | where else the debug information may lie |
//! | `fuzzing` | what the package `fuzz` calls |
#![cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![forbid(unsafe_code)]

#[cfg(fuzzing)]
#[doc(hidden)]
#[path = "fuzzing.rs"]
pub mod __fuzz;
mod debug_file;
mod demangle;
mod elf_file;
mod place;

pub use place::{Detail, Function, Names, Place, Problem};

use self::debug_file::DebugFiles;
use self::elf_file::{ElfFile, Lines};
use oomguard_supervisor::{Module, Profile};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

/// Finds the functions, files and lines behind the addresses of a [`Profile`].
///
/// Nothing is read before a name is asked for, and every file once: keep it for all addresses and profiles of a
/// program. It may run for long in a parent that must not fail: whatever a file holds costs the names, never the
/// process, but its memory, which is that of the debug information (at most 1 GiB per file).
///
/// ```no_run
/// use oomguard::supervisor::{Profile, symbols::Symbolizer};
///
/// let profiles = Profile::read_file("report.json.profile")?;
/// let mut symbolizer = Symbolizer::new();
/// for profile in &profiles {
///     for site in profile.sites.iter().take(10) {
///         println!("{} bytes", site.live_bytes);
///         for frame in &site.frames {
///             let place = symbolizer.resolve(profile, *frame);
///             println!("  {place}");
///         }
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Symbolizer {
    reads_files: bool,
    debug_files: DebugFiles,
    known: HashMap<Module, Known>,
}

/// What was found for a loaded file.
#[derive(Debug)]
struct Known {
    names: Names,
    /// Of the file itself, and of the one with its debug information.
    symbols: Vec<ElfFile>,
    lines: Option<Lines>,
}

impl Default for Symbolizer {
    fn default() -> Symbolizer {
        Symbolizer::new()
    }
}

impl Symbolizer {
    /// Looks for files where the profile says that they are, and for their debug information in them, beside them and in
    /// `/usr/lib/debug`.
    pub fn new() -> Symbolizer {
        Symbolizer { reads_files: true, debug_files: DebugFiles::new(), known: HashMap::new() }
    }

    /// Opens no file: a place is a module and an offset in it.
    #[must_use]
    pub fn without_files(mut self) -> Symbolizer {
        self.reads_files = false;
        self
    }

    /// Looks for all files below this directory instead of `/`: for a profile from a container, its root or an unpacked
    /// image. Symbolic links are followed as this process sees them.
    #[must_use]
    pub fn root(mut self, directory: impl Into<PathBuf>) -> Symbolizer {
        self.debug_files.root = directory.into();
        self
    }

    /// Looks for debug information in this directory, too, and before others: for `.build-id/ab/cdef….debug` in it, and
    /// for what `.gnu_debuglink` names. It is not below [`root`](Symbolizer::root).
    #[must_use]
    pub fn debug_directory(mut self, directory: impl Into<PathBuf>) -> Symbolizer {
        self.debug_files.directories.push(directory.into());
        self
    }

    /// What lies at a return address of the profile's, such as one of [`Site::frames`](oomguard_supervisor::Site::frames).
    pub fn resolve(&mut self, profile: &Profile, address: u64) -> Place {
        // What it returns to is behind the call: in the next line, or in the next function.
        let call = address.saturating_sub(1);
        let Some(index) = profile.module_index_of(call) else {
            return Place { address, module: None, offset: None, functions: Vec::new() };
        };
        let Some(module) = profile.modules.get(index) else {
            return Place { address, module: None, offset: None, functions: Vec::new() };
        };
        let offset = address.wrapping_sub(module.bias);
        let known = self.known(module);
        let functions = guarded(|| known.functions(offset.wrapping_sub(1))).unwrap_or_else(|| {
            known.names.problem =
                Some(Problem::Unreadable("its debug information cannot be followed".into()));
            Vec::new()
        });
        Place { address, module: Some(index), offset: Some(offset), functions }
    }

    /// Where the names of a loaded file come from, and why there are no more.
    pub fn names_of(&mut self, module: &Module) -> &Names {
        &self.known(module).names
    }

    fn known(&mut self, module: &Module) -> &mut Known {
        let (debug_files, reads_files) = (&self.debug_files, self.reads_files);
        self.known.entry(module.clone()).or_insert_with(|| {
            if !reads_files {
                return Known::nothing(Problem::NotAsked);
            }
            guarded(|| Known::of(module, debug_files)).unwrap_or_else(|| {
                Known::nothing(Problem::Unreadable("reading it came to no end that was foreseen".into()))
            })
        })
    }
}

/// A library's panic over a file costs that file's names only. `None`: it panicked.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What a panic interrupts is a cache that is read only, or is dropped.
    panic::catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Known {
    fn nothing(problem: Problem) -> Known {
        let names = Names { detail: Detail::Nothing, from: None, problem: Some(problem), is_verified: false };
        Known { names, symbols: Vec::new(), lines: None }
    }

    fn of(module: &Module, debug_files: &DebugFiles) -> Known {
        let (itself, problem) = match itself(module, &debug_files.root) {
            Ok(itself) => (Some(itself), None),
            Err(problem) => (None, Some(problem)),
        };
        let mut known = match problem {
            Some(problem) => Known::nothing(problem),
            None => Known::nothing(Problem::Stripped),
        };
        known.names.is_verified = itself.is_some() && !module.build_id.is_empty();
        if let Some(file) = itself.as_ref().filter(|file| file.has_lines()) {
            known.take_lines(file, debug_files);
        }
        let path = module.path.as_deref().map(without_deleted);
        let mut symbols: Vec<ElfFile> = itself.into_iter().collect();
        if known.lines.is_none()
            && let Some(file) = debug_files.find(&module.build_id, symbols.first(), path)
        {
            known.names.is_verified |= !module.build_id.is_empty();
            known.take_lines(&file, debug_files);
            symbols.push(file);
        }
        for file in &mut symbols {
            let (detail, problem) = file.load_symbols();
            if detail > known.names.detail {
                known.names.detail = detail;
                known.names.from = Some(file.path.clone());
            }
            if let Some(problem) = problem {
                known.names.problem = Some(problem);
            }
        }
        if known.names.detail == Detail::Lines {
            known.names.problem = None;
        }
        // The whole table of a debug file knows more than the exported names of the file itself.
        symbols.sort_by_key(|file| std::cmp::Reverse(file.symbols_detail()));
        known.symbols = symbols;
        known
    }

    fn take_lines(&mut self, file: &ElfFile, debug_files: &DebugFiles) {
        let supplement = debug_files.supplement_of(file);
        match file.lines(supplement.as_ref()) {
            Ok(lines) => {
                self.lines = Some(lines);
                self.names.detail = Detail::Lines;
                self.names.from = Some(file.path.clone());
            }
            Err(problem) => self.names.problem = Some(problem),
        }
    }

    /// What the code at an address of the file's own belongs to, innermost first.
    fn functions(&self, address: u64) -> Vec<Function> {
        let symbol = || self.symbols.iter().find_map(|file| file.symbol_at(address));
        let mut functions = self.lines.as_ref().map_or_else(Vec::new, |lines| lines.functions_at(address));
        match functions.last_mut() {
            // Where debug information is kept small, it has names without their modules, or for assembler none; the symbol
            // has all of it.
            Some(outermost) if !outermost.name.as_deref().is_some_and(|name| name.contains("::")) => {
                outermost.name = symbol().or(outermost.name.take());
            }
            Some(_) => {}
            None => functions.extend(symbol().map(|name| Function::named(name, false))),
        }
        functions
    }
}

/// The file that was loaded, if it is still there.
fn itself(module: &Module, root: &Path) -> Result<ElfFile, Problem> {
    let path = module.path.as_deref().ok_or(Problem::NoPath)?;
    let (plain, was_deleted) = (without_deleted(path), without_deleted(path) != path);
    // Without a build-id, nothing tells it from what took its place.
    if was_deleted && module.build_id.is_empty() {
        return Err(Problem::Gone);
    }
    let file = ElfFile::open(&below(root, plain))?;
    let is_same = file.build_id == module.build_id
        && file.span == Some((module.start.wrapping_sub(module.bias), module.end.wrapping_sub(module.bias)));
    if is_same { Ok(file) } else { Err(Problem::Replaced) }
}

/// proc_pid_maps(5): what the kernel puts behind the path of a file that was removed since.
fn without_deleted(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_suffix(b" (deleted)").map_or(path, |plain| Path::new(OsStr::from_bytes(plain)))
}

/// An absolute path below another root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
