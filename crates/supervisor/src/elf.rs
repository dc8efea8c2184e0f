//! The few things that a program's file is asked for: elf(5). Files are not trusted: what is cut short is none.

use std::fs::File;
use std::os::unix::fs::FileExt;

pub(super) const PT_INTERP: u32 = 3;
pub(super) const PT_NOTE: u32 = 4;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// Far more than any program has.
const MOST_SEGMENTS: u16 = 128;

/// A 64-bit file of this machine's byte order.
pub(super) struct Elf {
    segments: Vec<Segment>,
}

/// Where a segment lies in the file, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    kind: u32,
    pub(super) at: u64,
    pub(super) bytes: u64,
}

impl Elf {
    pub(super) fn read(file: &File) -> Option<Elf> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).ok()?;
        let byte_order = if cfg!(target_endian = "little") { 1 } else { 2 };
        if !header.starts_with(&[0x7f, b'E', b'L', b'F', 2, byte_order]) {
            return None;
        }
        let table_at = u64_at(&header, 32)?;
        let (entry_bytes, entries) = (u16_at(&header, 54)?, u16_at(&header, 56)?);
        let mut segments = Vec::new();
        for index in 0..u64::from(entries.min(MOST_SEGMENTS)) {
            let mut entry = [0; SEGMENT_BYTES];
            let at = table_at.checked_add(index * u64::from(entry_bytes))?;
            file.read_exact_at(&mut entry, at).ok()?;
            segments.push(Segment {
                kind: u32_at(&entry, 0)?,
                at: u64_at(&entry, 8)?,
                bytes: u64_at(&entry, 32)?,
            });
        }
        Some(Elf { segments })
    }

    pub(super) fn segments(&self, kind: u32) -> impl Iterator<Item = Segment> {
        self.segments.iter().copied().filter(move |segment| segment.kind == kind)
    }

    /// The dynamic linker that the program asks for; `None` for a static one.
    pub(super) fn interpreter(&self, file: &File) -> Option<Vec<u8>> {
        let segment = self.segments(PT_INTERP).next()?;
        let mut path = vec![0; usize::try_from(segment.bytes.min(4096)).ok()?];
        file.read_exact_at(&mut path, segment.at).ok()?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        Some(path)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}
