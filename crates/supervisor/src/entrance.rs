//! How the guard can get into a program: by its own line, by a preloaded library, or not at all. Read from the file that
//! will be executed, found as execvp(3) finds it, through the first lines of scripts (execve(2)).

use super::program;
use super::sys;
use super::sys::image::Image;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the guard can get into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entrance {
    /// It carries the guard itself (`oomguard::guard!`).
    Guarded,
    /// It is linked dynamically against glibc or musl: [`Worker::preload`](super::Worker::preload) works.
    Preload,
    /// The same with a sanitizer (AddressSanitizer and the like), which wants to be the first to define malloc,
    /// cannot be traced, and reserves terabytes: no rlimit suits it.
    Sanitized,
    /// It is linked statically: it runs no code of anybody else.
    Static,
    /// It has another dynamic linker than glibc's or musl's, or is for another processor.
    Foreign,
    /// It runs with more rights than whoever starts it, and so listens to no environment.
    Privileged,
    /// It was not found, or is no program that could be looked into.
    Unknown,
}

/// Libraries that the dynamic linker loads first: ld.so(8).
pub(super) const LD_PRELOAD: &str = "LD_PRELOAD";

/// Such a list without our library, as it is installed, or as a launcher provides it.
pub(super) fn without_ours(list: &OsStr) -> OsString {
    let is_ours = |path: &[u8]| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let rest = name.strip_prefix(b"liboomguard").and_then(|rest| rest.strip_suffix(b".so"));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
    };
    let entries = list.as_bytes().split(|byte| matches!(byte, b':' | b' '));
    let others: Vec<&[u8]> = entries.filter(|entry| !entry.is_empty() && !is_ours(entry)).collect();
    OsStr::from_bytes(&others.join(&b':')).to_owned()
}

/// A script's interpreter may be a script, as far as the kernel follows it.
const MOST_SCRIPTS: u32 = 5;

impl Entrance {
    /// Looks at the program that a command would execute.
    pub fn of(command: &Command) -> Entrance {
        program_of(command).map_or(Entrance::Unknown, |file| look(&file))
    }
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
    fn only_our_library_is_taken_out_of_a_list() {
        for (list, rest) in [
            ("/var/tmp/oomguard-0/liboomguard-0a1b.so", ""),
            ("/a/liboomguard.so:/usr/lib/libother.so", "/usr/lib/libother.so"),
            ("libfirst.so /tmp/liboomguard-1.so libother.so", "libfirst.so:libother.so"),
            ("/oomguard/libliboomguard.so:liboomguards.so", "/oomguard/libliboomguard.so:liboomguards.so"),
            ("", ""),
        ] {
            assert_eq!(without_ours(OsStr::new(list)), rest);
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
}
