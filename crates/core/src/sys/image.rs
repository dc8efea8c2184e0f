//! What kind of program a file holds, as far as it decides who can look into it: elf(5), execve(2). For the moment before
//! an exec, which may be in a child of vfork(2): nothing here allocates. Files are not trusted.

use super::fd::{self, Fd};
use super::raw;
use crate::text::{Text, behind_last, until};
use core::ffi::CStr;

/// A program, as the kernel and the dynamic linker see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// glibc's dynamic linker, or musl's, loads it, and what is to be preloaded.
    Preloads,
    /// As above; but it makes its system calls itself, past the C library: Go.
    CallsByItself,
    /// The same with a sanitizer, which wants to be the first to define malloc, cannot be traced, and reserves terabytes.
    Sanitized,
    /// It has no dynamic linker.
    Static,
    /// It has another dynamic linker.
    OtherLinker,
    /// It is for another processor, or no ELF file: the kernel may know it.
    Foreign,
    /// It runs with more rights than who starts it.
    Privileged,
}

/// A script's interpreter may be a script, as far as the kernel follows it.
const MOST_SCRIPTS: u32 = 5;
/// So much of a script does the kernel look at.
const SCRIPT_BYTES: usize = 256;
const MOST_SEGMENTS: u16 = 64;
const SEGMENT_BYTES: usize = 56;
const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;

/// `e_machine` of this program.
pub const MACHINE: u16 = if cfg!(target_arch = "aarch64") {
    183
} else if cfg!(target_arch = "riscv64") {
    243
} else {
    62
};

/// The program in the file at `path`, through scripts. `None`: there is none that could be executed, or looked into.
pub fn look(path: &CStr) -> Option<Image> {
    let mut file = open(path)?;
    for _ in 0..MOST_SCRIPTS {
        let mut start = [0; 1536];
        let len = file.read_at(&mut start, 0);
        let start = start.get(..len)?;
        match interpreter_of_script(start.get(..SCRIPT_BYTES).unwrap_or(start)) {
            Some(interpreter) => {
                let mut path = Text::<128>::from_bytes(interpreter);
                path.push_bytes(&[0]);
                file = open(CStr::from_bytes_with_nul(path.as_bytes()).ok()?)?;
            }
            None if is_privileged(&file) => return Some(Image::Privileged),
            None => return Some(of_file(&Opened { file: &file, start })),
        }
    }
    None
}

/// `O_NONBLOCK`: a FIFO is no program, and must not be waited for.
fn open(path: &CStr) -> Option<Fd> {
    fd::open(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY).filter(|file| mode_of(file).is_some())
}

/// `None`: it is no regular file, or nobody may execute it.
fn mode_of(file: &Fd) -> Option<u32> {
    let stat = fd::stat_of(file.number())?;
    let is_program = stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_mode & 0o111 != 0;
    is_program.then_some(stat.st_mode)
}

/// capabilities(7): a file that has some runs in secure-execution mode, as a set-user-ID one does.
fn is_privileged(file: &Fd) -> bool {
    let by_mode = mode_of(file).is_some_and(|mode| mode & (libc::S_ISUID | libc::S_ISGID) != 0);
    let name = c"security.capability".as_ptr();
    // SAFETY: a C string that outlives the call; with no buffer, only the length is told.
    by_mode || unsafe { raw::fgetxattr(file.number(), name, core::ptr::null_mut(), 0) } > 0
}

/// Whether the kernel gives the program at `path` another user or group than this process's own: then its dynamic linker heeds no
/// environment, whoever starts it (AT_SECURE: getauxval(3)).
pub fn changes_user(path: &CStr) -> bool {
    let Some(stat) = open(path).and_then(|file| fd::stat_of(file.number())) else { return false };
    // SAFETY: takes nothing and cannot fail.
    let user = unsafe { raw::getuid() };
    // SAFETY: as above.
    let group = unsafe { raw::getgid() };
    stat.st_mode & libc::S_ISUID != 0 && stat.st_uid != user
        || stat.st_mode & libc::S_ISGID != 0 && stat.st_gid != group
}

/// The program that the kernel starts for the script that begins so. What `env` would look for is found in PATH by `env`
/// itself, so `env` is looked at, which shares its C library with what it starts, as a rule.
pub fn interpreter_of_script(start: &[u8]) -> Option<&[u8]> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())
}

/// A file, and what it begins with: most of what is asked for lies there, and need not be read one by one.
struct Opened<'a> {
    file: &'a Fd,
    start: &'a [u8],
}

impl Opened<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let known = usize::try_from(offset).ok().and_then(|offset| self.start.get(offset..));
        match known.and_then(|known| known.get(..buffer.len())) {
            Some(known) => {
                buffer.copy_from_slice(known);
                known.len()
            }
            None => self.file.read_at(buffer, offset),
        }
    }
}

fn of_file(file: &Opened<'_>) -> Image {
    let header = file.start;
    let byte_order = if cfg!(target_endian = "little") { 1 } else { 2 };
    if !header.starts_with(&[0x7f, b'E', b'L', b'F', 2, byte_order])
        || number::<2>(header, 18) != u64::from(MACHINE)
    {
        return Image::Foreign;
    }
    let table_at = number::<8>(header, 32);
    let (entry_bytes, entries) = (number::<2>(header, 54), number::<2>(header, 56));
    let (mut linker, mut is_go, mut is_sanitized) = (None, false, false);
    let segment = |index: u64| {
        let mut entry = [0; SEGMENT_BYTES];
        file.read_at(&mut entry, table_at.saturating_add(index * entry_bytes));
        entry
    };
    // Where in the file lies what is loaded at an address.
    let place_of = |address: u64| {
        (0..entries.min(MOST_SEGMENTS.into())).map(segment).find_map(|entry| {
            let within = address.checked_sub(number::<8>(&entry, 16))?;
            let is_it = number::<4>(&entry, 0) == PT_LOAD && within < number::<8>(&entry, 32);
            is_it.then(|| number::<8>(&entry, 8).saturating_add(within))
        })
    };
    for index in 0..entries.min(MOST_SEGMENTS.into()) {
        let entry = segment(index);
        let (at, bytes) = (number::<8>(&entry, 8), number::<8>(&entry, 32));
        match number::<4>(&entry, 0) as u32 {
            PT_INTERP => {
                let mut path = [0; 128];
                let len = file.read_at(&mut path, at).min(usize::try_from(bytes).unwrap_or(0));
                linker = path.get(..len).map(|path| is_known(until(path, 0)));
            }
            PT_DYNAMIC => is_sanitized = needs_sanitizer(file, at, bytes, place_of),
            PT_NOTE => is_go |= has_gos_note(file, at, bytes),
            _ => {}
        }
    }
    match linker {
        None => Image::Static,
        Some(false) => Image::OtherLinker,
        Some(true) if is_sanitized => Image::Sanitized,
        Some(true) if is_go => Image::CallsByItself,
        Some(true) => Image::Preloads,
    }
}

/// Whether it is glibc's dynamic linker (`/lib64/ld-linux-x86-64.so.2` and the like) or musl's (`/lib/ld-musl-x86_64.so.1`).
pub fn is_known(linker: &[u8]) -> bool {
    let name = behind_last(linker, b'/');
    [&b"ld-linux"[..], b"ld64.so", b"ld-musl-"].iter().any(|known| name.starts_with(known))
}

/// Whether one of the libraries that the program names is a sanitizer's runtime.
fn needs_sanitizer(file: &Opened<'_>, at: u64, bytes: u64, place_of: impl Fn(u64) -> Option<u64>) -> bool {
    const NEEDED: u64 = 1;
    const STRINGS: u64 = 5;
    const SANITIZERS: [&[u8]; 5] =
        [b"libasan.so", b"libtsan.so", b"liblsan.so", b"libhwasan.so", b"libclang_rt."];
    let mut table = [0; 2048];
    let len = file.read_at(&mut table, at).min(usize::try_from(bytes).unwrap_or(usize::MAX));
    let pairs = || {
        let pairs = table.get(..len).unwrap_or(&[]).chunks_exact(16);
        pairs.map(|pair| (number::<8>(pair, 0), number::<8>(pair, 8)))
    };
    let strings = pairs().find(|(tag, _)| *tag == STRINGS).and_then(|(_, address)| place_of(address));
    let Some(strings) = strings else { return false };
    pairs().filter(|(tag, _)| *tag == NEEDED).any(|(_, name_at)| {
        let mut name = [0; 16];
        file.read_at(&mut name, strings.saturating_add(name_at));
        SANITIZERS.iter().any(|sanitizer| name.starts_with(sanitizer))
    })
}

/// The note in which Go keeps its build's name.
fn has_gos_note(file: &Opened<'_>, at: u64, bytes: u64) -> bool {
    let mut notes = [0; 512];
    let len = file.read_at(&mut notes, at).min(usize::try_from(bytes).unwrap_or(usize::MAX));
    let notes = notes.get(..len).unwrap_or(&[]);
    let padded = |bytes: u64| bytes.next_multiple_of(4);
    let mut place = 0u64;
    while let Some(note) =
        usize::try_from(place).ok().and_then(|place| notes.get(place..)).filter(|note| note.len() > 16)
    {
        if note.get(12..16) == Some(b"Go\0\0") && number::<4>(note, 0) == 4 {
            return true;
        }
        place += 12 + padded(number::<4>(note, 0)) + padded(number::<4>(note, 4));
    }
    false
}

/// The number of `N` bytes that lies there; zero where nothing does.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N]);
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if cfg!(target_endian = "little") { found.iter().rev().fold(0, fold) } else { found.iter().fold(0, fold) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    fn of(content: &[u8], mode: u32) -> Option<Image> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        look(&CString::new(path.as_os_str().as_bytes()).unwrap())
    }

    #[test]
    fn programs_are_told_from_each_other() {
        assert_eq!(look(c"/bin/true"), Some(Image::Preloads));
        let own = std::fs::read("/bin/true").unwrap();
        assert_eq!(of(&own, 0o755), Some(Image::Preloads));
        assert_eq!(of(&own, 0o4755), Some(Image::Privileged));
        assert_eq!(of(&own, 0o644), None, "nobody may execute it");
        assert_eq!(of(b"#! /bin/sh -e\n", 0o755), Some(Image::Preloads));
        assert_eq!(of(b"#!/no/such/interpreter\n", 0o755), None);
        assert_eq!(of(b"MZ", 0o755), Some(Image::Foreign));
        let mut foreign = own.clone();
        foreign[18] ^= 0x55;
        assert_eq!(of(&foreign, 0o755), Some(Image::Foreign));
        let place = own.windows(9).position(|part| part == b"/ld-linux").unwrap();
        let mut other = own;
        for (linker, image) in [(b"/ld-musl-", Image::Preloads), (b"/ld-uClib", Image::OtherLinker)] {
            other[place..][..9].copy_from_slice(linker);
            assert_eq!(of(&other, 0o755), Some(image));
        }
        for none in [c"/no/such/program", c"/", c"/dev/null", c""] {
            assert_eq!(look(none), None);
        }
    }

    #[test]
    fn what_is_cut_short_is_no_harm() {
        let own = std::fs::read("/bin/true").unwrap();
        for len in [0, 1, 17, 63, 64, 200, 1000, 1535, 1536, 1537, 3000] {
            assert!(of(&own[..len], 0o755).is_some());
        }
    }

    #[test]
    fn the_linkers_of_two_libraries_are_known() {
        for (linker, is_one) in [
            ("/lib64/ld-linux-x86-64.so.2", true),
            ("/lib/ld-linux-aarch64.so.1", true),
            ("/gnu/store/x/lib/ld-linux-x86-64.so.2", true),
            ("/lib/ld-musl-x86_64.so.1", true),
            ("/lib/ld-uClibc.so.0", false),
            ("/system/bin/linker64", false),
            ("", false),
        ] {
            assert_eq!(is_known(linker.as_bytes()), is_one, "{linker}");
        }
    }
}
