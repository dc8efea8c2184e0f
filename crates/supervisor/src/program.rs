//! Whether a program arms a guard of its own: the note that guarded programs carry, read from the file (elf(5)).
//!
//! A program that sets its limit itself before `main` needs nothing done between fork and exec, and can be started
//! without a fork, whose price grows with the memory of the parent. Whatever is not surely such a program is not one.

use super::elf::{Elf, PT_NOTE, u32_at};
use crate::record::{NOTE_LAYOUT, NOTE_NAME};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// A file, as long as it is the same and unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// Files that were looked into. Forgotten now and then, as a deployed program is a new file each time.
static KNOWN: Mutex<Option<HashMap<Identity, bool>>> = Mutex::new(None);
const MOST_KNOWN: usize = 1000;

/// Whether the program at `path` arms a guard of its own, and does so in the environment that it is given.
pub(super) fn arms_itself(path: &Path) -> bool {
    let Ok(metadata) = path.metadata() else { return false };
    // With more rights than ours, it does not listen to the environment.
    if !metadata.is_file() || metadata.mode() & (libc::S_ISUID | libc::S_ISGID) != 0 {
        return false;
    }
    let identity = identity(&metadata);
    let mut known = KNOWN.lock();
    let known = known.get_or_insert_with(HashMap::new);
    if let Some(answer) = known.get(&identity) {
        return *answer;
    }
    let answer = File::open(path).ok().and_then(|file| has_note(&file)).unwrap_or(false);
    if known.len() >= MOST_KNOWN {
        known.clear();
    }
    known.insert(identity, answer);
    answer
}

fn identity(metadata: &Metadata) -> Identity {
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// `None`: not a 64-bit ELF file of this machine's byte order, or cut short.
pub(super) fn has_note(file: &File) -> Option<bool> {
    let elf = Elf::read(file)?;
    for notes in elf.segments(PT_NOTE) {
        let mut content = vec![0; usize::try_from(notes.bytes.min(64 << 10)).ok()?];
        file.read_exact_at(&mut content, notes.at).ok()?;
        if is_among(&content) {
            return Some(true);
        }
    }
    Some(false)
}

/// Notes: the sizes of name and content, a type, then both, each filled up to four bytes.
fn is_among(mut notes: &[u8]) -> bool {
    let padded = |bytes: u32| bytes.checked_next_multiple_of(4).and_then(|bytes| usize::try_from(bytes).ok());
    while let (Some(name_bytes), Some(content_bytes)) = (u32_at(notes, 0), u32_at(notes, 4)) {
        let (Some(name), Some(content)) = (padded(name_bytes), padded(content_bytes)) else { return false };
        let rest = notes.get(12..).unwrap_or(&[]);
        let ours = rest.get(..name).is_some_and(|name| name.starts_with(NOTE_NAME));
        if ours && u32_at(rest, name) == Some(NOTE_LAYOUT) {
            return true;
        }
        notes = rest.get(name.saturating_add(content)..).unwrap_or(&[]);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, content.len() as u32, 1] {
            note.extend(number.to_ne_bytes());
        }
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn our_note_is_found_among_others_and_garbage_is_not_it() {
        let ours = note(NOTE_NAME, &NOTE_LAYOUT.to_ne_bytes());
        let others = [note(b"GNU\0", &[7; 20]), note(b"odd", b"x")].concat();
        assert!(is_among(&ours));
        assert!(is_among(&[others.as_slice(), &ours].concat()));
        assert!(!is_among(&others));
        assert!(!is_among(&note(NOTE_NAME, &99u32.to_ne_bytes())), "another layout");
        assert!(!is_among(&ours[..ours.len() - 1]));
        assert!(!is_among(&[0xff; 100]));
        assert!(!is_among(&[]));
    }

    #[test]
    fn what_is_no_guarded_program_is_none() {
        for path in ["/bin/true", "/etc/passwd", "/", "/dev/null", "/no/such/file"] {
            assert!(!arms_itself(Path::new(path)), "{path}");
        }
    }
}
