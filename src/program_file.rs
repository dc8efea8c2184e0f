//! What kind of program a file is, as far as it matters for what is preloaded into it: elf(5), execve(2). Allocates nothing,
//! as it is also asked between fork and exec. What cannot be read is let pass: the kernel and the loader decide.

use crate::sys::fd::{Fd, open_to_read};
use core::ffi::CStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For this machine, and glibc's dynamic linker.
    Native,
    /// The same with a sanitizer, which wants to be the first to define malloc, and reserves terabytes.
    Sanitized,
    /// For this machine, without a dynamic linker.
    Static,
    /// For another machine (32-bit, say), or another C library's dynamic linker.
    Foreign,
    Unknown,
}

/// `e_machine` of this program.
pub(crate) const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// How many scripts may be each other's interpreters, as in the kernel.
const MOST_SCRIPTS: u32 = 4;

/// The kind of the program that the kernel would start for this file.
pub(crate) fn kind_of(path: &CStr) -> Kind {
    kind_within(path, MOST_SCRIPTS)
}

fn kind_within(path: &CStr, scripts: u32) -> Kind {
    let Some(file) = open_to_read(path) else { return Kind::Unknown };
    let mut head = [0u8; 2048];
    let Some(head) = read_at(&file, 0, &mut head) else { return Kind::Unknown };
    if head.starts_with(b"#!") {
        let mut interpreter = [0u8; 256];
        return match interpreter_of_script(head, &mut interpreter) {
            Some(interpreter) if scripts > 0 => kind_within(interpreter, scripts - 1),
            _ => Kind::Unknown,
        };
    }
    of_elf(&file, head).unwrap_or(Kind::Unknown)
}

fn interpreter_of_script<'a>(head: &[u8], room: &'a mut [u8; 256]) -> Option<&'a CStr> {
    let line = head.get(2..)?.split(|byte| *byte == b'\n').next()?;
    let name = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    room.get_mut(..name.len())?.copy_from_slice(name);
    CStr::from_bytes_until_nul(room).ok()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    number(bytes, at).map(u64::from_le_bytes)
}

fn read_at<'a>(file: &Fd, at: u64, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let len = file.read_at(buffer, at)?;
    buffer.get(..len)
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

fn of_elf(file: &Fd, head: &[u8]) -> Option<Kind> {
    const IS_64_BIT: u8 = 2;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    if *head.get(4)? != IS_64_BIT || u16::from_le_bytes(number(head, 18)?) != MACHINE {
        return Some(Kind::Foreign);
    }
    let segments = usize::try_from(word(head, 32)?).ok()?;
    let (size, count) = (u16::from_le_bytes(number(head, 54)?), u16::from_le_bytes(number(head, 56)?));
    let segment = |wanted: u32| {
        (0..usize::from(count))
            .filter_map(|index| head.get(segments.checked_add(index * usize::from(size))?..))
            .find(|segment| number(segment, 0).map(u32::from_le_bytes) == Some(wanted))
    };
    let Some(interpreter) = segment(INTERPRETER) else { return Some(Kind::Static) };
    let mut name = [0u8; 256];
    let name = read_at(file, word(interpreter, 8)?, &mut name)?;
    let name = name.split(|byte| *byte == 0).next()?;
    if !is_glibcs_linker(name) {
        return Some(Kind::Foreign);
    }
    let offset_of = |address: u64| {
        (0..usize::from(count))
            .filter_map(|index| head.get(segments.checked_add(index * usize::from(size))?..))
            .filter(|segment| number(segment, 0).map(u32::from_le_bytes) == Some(LOAD))
            .find_map(|segment| {
                let within = address
                    .checked_sub(word(segment, 16)?)
                    .filter(|within| word(segment, 32).is_some_and(|bytes| *within < bytes))?;
                word(segment, 8)?.checked_add(within)
            })
    };
    let needs_sanitizer = segment(DYNAMIC).and_then(|dynamic| needs_sanitizer(file, dynamic, offset_of));
    Some(if needs_sanitizer == Some(true) { Kind::Sanitized } else { Kind::Native })
}

/// `/lib64/ld-linux-x86-64.so.2` and the like; musl's is `/lib/ld-musl-x86_64.so.1`.
pub(crate) fn is_glibcs_linker(linker: &[u8]) -> bool {
    let name = linker.rsplit(|byte| *byte == b'/').next().unwrap_or(linker);
    name.starts_with(b"ld-linux") || name.starts_with(b"ld64.so")
}

/// Whether one of the libraries that the program names is a sanitizer's runtime.
fn needs_sanitizer(file: &Fd, dynamic: &[u8], offset_of: impl Fn(u64) -> Option<u64>) -> Option<bool> {
    const NEEDED: u64 = 1;
    const STRINGS: u64 = 5;
    const SANITIZERS: [&[u8]; 5] =
        [b"libasan.so", b"libtsan.so", b"liblsan.so", b"libhwasan.so", b"libclang_rt."];
    let mut entries = [0u8; 2048];
    let bytes = usize::try_from(word(dynamic, 32)?).ok()?.min(entries.len());
    let entries = read_at(file, word(dynamic, 8)?, entries.get_mut(..bytes)?)?;
    let pairs = || entries.chunks_exact(16).filter_map(|pair| Some((word(pair, 0)?, word(pair, 8)?)));
    let strings = pairs().find(|(tag, _)| *tag == STRINGS).and_then(|(_, address)| offset_of(address))?;
    Some(pairs().filter(|(tag, _)| *tag == NEEDED).any(|(_, at)| {
        let mut name = [0u8; 16];
        strings
            .checked_add(at)
            .and_then(|at| read_at(file, at, &mut name))
            .is_some_and(|name| SANITIZERS.iter().any(|sanitizer| name.starts_with(sanitizer)))
    }))
}

#[cfg(all(test, feature = "supervisor"))]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn of(path: &str) -> Kind {
        kind_of(&CString::new(path).unwrap())
    }

    #[test]
    fn programs_of_this_machine_are_native_and_what_is_none_is_unknown() {
        assert_eq!(of("/bin/sh"), Kind::Native);
        for none in ["/no/such/program", "/etc/passwd", "/", "/dev/null"] {
            assert_eq!(of(none), Kind::Unknown, "{none}");
        }
    }

    #[test]
    fn a_script_is_what_its_first_line_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        let path = path.to_str().unwrap();
        std::fs::write(path, "#! /bin/sh -e\n").unwrap();
        assert_eq!(of(path), Kind::Native);
        std::fs::write(path, format!("#!{path}\n")).unwrap();
        assert_eq!(of(path), Kind::Unknown);
        std::fs::write(path, "#!").unwrap();
        assert_eq!(of(path), Kind::Unknown);
    }

    #[test]
    fn a_program_that_is_cut_or_for_another_machine_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let whole = std::fs::read("/bin/true").unwrap();
        for len in (0..200).chain([1000, 4096]) {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_ne!(of(path.to_str().unwrap()), Kind::Sanitized, "{len}");
        }
        for (at, value) in [(4, 1), (18, 3)] {
            let mut other = whole.clone();
            other[at] = value;
            std::fs::write(&path, &other).unwrap();
            assert_eq!(of(path.to_str().unwrap()), Kind::Foreign, "{at}");
        }
    }

    #[test]
    fn the_linkers_of_other_libraries_are_not_glibcs() {
        for (linker, glibcs) in [
            ("/lib64/ld-linux-x86-64.so.2", true),
            ("/lib/ld-linux-aarch64.so.1", true),
            ("/gnu/store/x/lib/ld-linux-x86-64.so.2", true),
            ("/lib/ld-musl-x86_64.so.1", false),
            ("/system/bin/linker64", false),
            ("", false),
        ] {
            assert_eq!(is_glibcs_linker(linker.as_bytes()), glibcs, "{linker}");
        }
    }
}
