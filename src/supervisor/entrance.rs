//! How the guard can get into a program: by its own line, by a preloaded library, or not at all. Read from the file that
//! will be executed, found as execvp(3) finds it, through the first lines of scripts (execve(2)).

use super::elf::Elf;
use super::program;
use super::sys;
use super::sys::image::Image;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the guard can get into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entrance {
    /// It carries the guard itself ([`guard!`](crate::guard!)).
    Guarded,
    /// It is linked dynamically against glibc: [`Worker::preload`](super::Worker::preload) works.
    Preload,
    /// The same with a sanitizer (AddressSanitizer and the like), which wants to be the first to define malloc,
    /// cannot be traced, and reserves terabytes: no rlimit suits it.
    Sanitized,
    /// It is linked statically: it runs no code of anybody else.
    Static,
    /// It has another dynamic linker than glibc's, such as musl's, or is for another processor.
    Foreign,
    /// It runs with more rights than whoever starts it, and so listens to no environment.
    Privileged,
    /// It was not found, or is no program that could be looked into.
    Unknown,
}

/// A script's interpreter may be a script, as far as the kernel follows it.
const MOST_SCRIPTS: u32 = 5;

impl Entrance {
    /// Looks at the program that a command would execute.
    pub fn of(command: &Command) -> Entrance {
        program_of(command).map_or(Entrance::Unknown, |file| look(&file))
    }

    /// Returns the version that `library` needs and the C library of the command's program does not have,
    /// `GLIBC_2.34` say: then the dynamic linker would end the program at once. For a static program, whose children
    /// may be dynamic, that of this machine. Where no such C library is found, the answer is `GLIBC`.
    pub fn missing_version(command: &Command, library: &Path) -> Option<String> {
        let linker = program_of(command).and_then(|file| {
            let file = File::open(file).ok()?;
            Elf::read(&file)?.interpreter(&file)
        });
        let linker =
            linker.map_or_else(|| PathBuf::from(USUAL_LINKER), |path| OsString::from_vec(path).into());
        missing_beside(&linker, library).unwrap_or_else(|| Some("GLIBC".into()))
    }
}

/// The C library lies beside its dynamic linker, once links are followed. The outer `None`: one of them cannot be read.
fn missing_beside(linker: &Path, library: &Path) -> Option<Option<String>> {
    const C_LIBRARY: &str = "libc.so.6";
    let own = File::open(library).ok()?;
    let needed = Elf::read(&own)?.versions_needed(&own, C_LIBRARY.as_bytes())?;
    let theirs = File::open(linker.canonicalize().ok()?.with_file_name(C_LIBRARY)).ok()?;
    let has = Elf::read(&theirs)?.versions_defined(&theirs)?;
    let missing = needed.iter().find(|version| !has.contains(version));
    Some(missing.map(|version| String::from_utf8_lossy(version).into_owned()))
}

/// The file that a command would execute, through scripts.
pub(super) fn program_of(command: &Command) -> Option<PathBuf> {
    let set = command.get_envs().find(|(name, _)| *name == "PATH");
    let path = match set {
        Some((_, path)) => path.map(OsStr::to_owned),
        None => std::env::var_os("PATH"),
    };
    let name = Path::new(command.get_program());
    let mut file = find(name, path.as_deref(), command.get_current_dir())?;
    for _ in 0..MOST_SCRIPTS {
        match interpreter_of_script(&file) {
            Some(interpreter) => file = interpreter,
            None => return Some(file),
        }
    }
    None
}

/// As execvp(3) does: a name with a slash as it is, any other in PATH.
fn find(name: &Path, path: Option<&OsStr>, directory: Option<&Path>) -> Option<PathBuf> {
    let executable = |file: PathBuf| {
        let file = directory.map_or(file.clone(), |directory| directory.join(&file));
        let is_one = file.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
        is_one.then_some(file)
    };
    if name.as_os_str().as_bytes().contains(&b'/') {
        return executable(name.to_owned());
    }
    let path = path.map_or_else(|| OsString::from("/bin:/usr/bin"), OsStr::to_owned);
    std::env::split_paths(&path).find_map(|place| executable(place.join(name)))
}

fn interpreter_of_script(file: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    Some(OsStr::from_bytes(sys::image::interpreter_of_script(&start)?).into())
}

fn look(path: &Path) -> Entrance {
    match image(path) {
        None => Entrance::Unknown,
        Some(Image::Privileged) => Entrance::Privileged,
        Some(_) if program::arms_itself(path) => Entrance::Guarded,
        Some(Image::Preloads | Image::CallsByItself) => Entrance::Preload,
        Some(Image::Sanitized) => Entrance::Sanitized,
        Some(Image::Static) => Entrance::Static,
        // Of what is no ELF file the kernel may well know what it is: 32-bit, or by binfmt_misc.
        Some(Image::OtherLinker | Image::Foreign) => Entrance::Foreign,
    }
}

fn image(path: &Path) -> Option<Image> {
    sys::image::look(&CString::new(path.as_os_str().as_bytes()).ok()?)
}

/// Whether what the program does is not all seen from within: nothing can be preloaded, or it goes past the C library.
pub(super) fn is_seen_from_outside_only(command: &Command) -> bool {
    let calls_by_itself = || program_of(command).and_then(|file| image(&file)) == Some(Image::CallsByItself);
    match Entrance::of(command) {
        Entrance::Static | Entrance::Foreign => true,
        Entrance::Preload => calls_by_itself(),
        _ => false,
    }
}

/// Where programs of this machine have glibc's dynamic linker.
const USUAL_LINKER: &str =
    if cfg!(target_arch = "aarch64") { "/lib/ld-linux-aarch64.so.1" } else { "/lib64/ld-linux-x86-64.so.2" };

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn of(program: &str) -> Entrance {
        Entrance::of(&Command::new(program))
    }

    #[test]
    fn programs_of_this_machine_can_be_preloaded_and_what_is_none_is_unknown() {
        assert_eq!(of("sh"), Entrance::Preload);
        assert_eq!(of("/bin/true"), Entrance::Preload);
        for none in ["no-such-program", "/no/such/program", "/etc/passwd", "/"] {
            assert_eq!(of(none), Entrance::Unknown, "{none}");
        }
    }

    #[test]
    fn a_script_is_what_its_first_line_says() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        let mut other = directory.path().join("other");
        std::fs::write(&script, "#! /bin/sh -e\nexit 0\n").unwrap();
        std::fs::write(&other, format!("#!{}\n", script.display())).unwrap();
        for file in [&script, &other] {
            std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
            assert_eq!(Entrance::of(&Command::new(file)), Entrance::Preload);
        }
        other.pop();
        assert_eq!(Entrance::of(Command::new("./script").current_dir(other)), Entrance::Preload);
    }

    #[test]
    fn more_rights_than_ours_close_the_door() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("true");
        std::fs::copy("/bin/true", &program).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
        assert_eq!(Entrance::of(&Command::new(program)), Entrance::Privileged);
    }

    #[test]
    fn what_the_c_library_lacks_is_named() {
        // Every library needs some version of the C library, and its own machine has it.
        let library = Path::new("/lib/x86_64-linux-gnu/libm.so.6");
        if library.exists() {
            assert_eq!(Entrance::missing_version(&Command::new("/bin/true"), library), None);
        }
        let missing = |linker: &Path| missing_beside(linker, library);
        // A C library that has no versions at all, or is none.
        let directory = tempfile::tempdir().unwrap();
        let linker = directory.path().join("ld-linux-x86-64.so.2");
        std::fs::write(&linker, "").unwrap();
        assert_eq!(missing(&linker), None);
        std::fs::write(directory.path().join("libc.so.6"), b"\x7fELF").unwrap();
        assert_eq!(missing(&linker), None);
        // One that has other versions than are needed.
        std::fs::copy(library, directory.path().join("libc.so.6")).unwrap();
        assert!(missing(&linker).unwrap().unwrap().starts_with("GLIBC_"));
    }
}
