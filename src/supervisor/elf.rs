//! The few things that a program's file is asked for: elf(5). Files are not trusted: what is cut short is none.

use std::fs::File;
use std::os::unix::fs::FileExt;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
pub(super) const PT_INTERP: u32 = 3;
pub(super) const PT_NOTE: u32 = 4;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// Far more than any program has.
const MOST_SEGMENTS: u16 = 128;

const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;
const DT_VERNEED: u64 = 0x6fff_fffe;
const DT_VERNEEDNUM: u64 = 0x6fff_ffff;

/// The names of a large library fit several times; versions take a few KiB.
const MOST_BYTES: u64 = 1 << 20;

/// Far more versions than any library has: the file's own numbers are not trusted, nor that its entries lead on.
const MOST_VERSIONS: u64 = 4096;

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
    /// Where it is loaded.
    address: u64,
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
                address: u64_at(&entry, 16)?,
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

    /// The versions of `library` that this file needs, such as `GLIBC_2.34`.
    pub(super) fn versions_needed(&self, file: &File, library: &[u8]) -> Option<Vec<Vec<u8>>> {
        let dynamic = self.dynamic(file)?;
        let names = self.loaded(file, dynamic.get(DT_STRTAB)?, dynamic.get(DT_STRSZ)?)?;
        let table = self.loaded(file, dynamic.get(DT_VERNEED)?, MOST_BYTES)?;
        let mut needed = Vec::new();
        let mut at = 0;
        for _ in 0..dynamic.get(DT_VERNEEDNUM)?.min(MOST_VERSIONS) {
            // A version, a count, the file's name, where its first one is, where the next file is.
            let mut each = offset_at(&table, at, 8)?;
            if name_at(&names, &table, at, 4)? == library {
                for _ in 0..u16_at(&table, at.checked_add(2)?)? {
                    if needed.len() as u64 == MOST_VERSIONS {
                        return None;
                    }
                    // A hash, flags, a number, the name, where the next one is.
                    needed.push(name_at(&names, &table, each, 8)?.to_vec());
                    each = offset_at(&table, each, 12)?;
                }
            }
            at = offset_at(&table, at, 12)?;
        }
        Some(needed)
    }

    /// The versions that this library has.
    pub(super) fn versions_defined(&self, file: &File) -> Option<Vec<Vec<u8>>> {
        let dynamic = self.dynamic(file)?;
        let names = self.loaded(file, dynamic.get(DT_STRTAB)?, dynamic.get(DT_STRSZ)?)?;
        let table = self.loaded(file, dynamic.get(DT_VERDEF)?, MOST_BYTES)?;
        let mut defined = Vec::new();
        let mut at = 0;
        for _ in 0..dynamic.get(DT_VERDEFNUM)?.min(MOST_VERSIONS) {
            // A version, flags, a number, a count, a hash, where its names are, where the next one is.
            defined.push(name_at(&names, &table, offset_at(&table, at, 12)?, 0)?.to_vec());
            at = offset_at(&table, at, 16)?;
        }
        Some(defined)
    }

    fn dynamic(&self, file: &File) -> Option<Dynamic> {
        let segment = self.segments(PT_DYNAMIC).next()?;
        let table = read(file, segment.at, segment.bytes)?;
        let entries = table.chunks_exact(16).map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)));
        Some(Dynamic(entries.collect::<Option<_>>()?))
    }

    /// What is loaded at `address`: `bytes`, or up to the end of its segment.
    fn loaded(&self, file: &File, address: u64, bytes: u64) -> Option<Vec<u8>> {
        self.segments(PT_LOAD).find_map(|segment| {
            let into = address.checked_sub(segment.address).filter(|into| *into < segment.bytes)?;
            read(file, segment.at.checked_add(into)?, bytes.min(segment.bytes - into))
        })
    }
}

/// The dynamic section: tags and values.
struct Dynamic(Vec<(u64, u64)>);

impl Dynamic {
    fn get(&self, tag: u64) -> Option<u64> {
        self.0.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value)
    }
}

fn read(file: &File, at: u64, bytes: u64) -> Option<Vec<u8>> {
    let mut content = vec![0; usize::try_from(bytes.min(MOST_BYTES)).ok()?];
    file.read_exact_at(&mut content, at).ok()?;
    Some(content)
}

/// The name that the entry at `entry` refers to by its field `field`.
fn name_at<'a>(names: &'a [u8], table: &[u8], entry: usize, field: usize) -> Option<&'a [u8]> {
    let at = usize::try_from(u32_at(table, entry.checked_add(field)?)?).ok()?;
    names.get(at..)?.split(|byte| *byte == 0).next()
}

/// Where the field `field` of the entry at `entry` points to, which counts from that entry.
fn offset_at(table: &[u8], entry: usize, field: usize) -> Option<usize> {
    entry.checked_add(usize::try_from(u32_at(table, entry.checked_add(field)?)?).ok()?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file whose dynamic section says so of its versions; they, and the names, are `table`, loaded where it lies.
    fn file(table: &[u8], tags: &[(u64, u64)]) -> File {
        const TABLE_AT: u64 = 4096;
        let dynamic: Vec<u8> =
            tags.iter().flat_map(|(tag, value)| [tag.to_ne_bytes(), value.to_ne_bytes()].concat()).collect();
        let mut content = vec![0; TABLE_AT as usize];
        content[..6].copy_from_slice(&[
            0x7f,
            b'E',
            b'L',
            b'F',
            2,
            if cfg!(target_endian = "little") { 1 } else { 2 },
        ]);
        content[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_ne_bytes());
        content[54..56].copy_from_slice(&(SEGMENT_BYTES as u16).to_ne_bytes());
        content[56..58].copy_from_slice(&2u16.to_ne_bytes());
        let dynamic_at = 1024;
        content[dynamic_at..dynamic_at + dynamic.len()].copy_from_slice(&dynamic);
        let segments = [(PT_LOAD, TABLE_AT, table.len()), (PT_DYNAMIC, dynamic_at as u64, dynamic.len())];
        for (index, (kind, at, bytes)) in segments.into_iter().enumerate() {
            let entry = HEADER_BYTES + index * SEGMENT_BYTES;
            content[entry..entry + 4].copy_from_slice(&kind.to_ne_bytes());
            for (field, value) in [(8, at), (16, at), (32, bytes as u64)] {
                content[entry + field..entry + field + 8].copy_from_slice(&value.to_ne_bytes());
            }
        }
        content.extend(table);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        file
    }

    #[test]
    fn versions_that_lead_nowhere_come_to_an_end() {
        let table = [0; 64];
        let tags = [
            (DT_STRTAB, 4096),
            (DT_STRSZ, 8),
            (DT_VERDEF, 4096),
            (DT_VERDEFNUM, u64::MAX),
            (DT_VERNEED, 4096),
            (DT_VERNEEDNUM, u64::MAX),
        ];
        let file = file(&table, &tags);
        let elf = Elf::read(&file).unwrap();
        assert_eq!(elf.versions_defined(&file).unwrap().len() as u64, MOST_VERSIONS);
        assert_eq!(elf.versions_needed(&file, b"libc.so.6"), Some(Vec::new()));
        // Each of the files that it needs asks for as many as can be said.
        let mut asking = table;
        asking[2..4].copy_from_slice(&u16::MAX.to_ne_bytes());
        let file = self::file(&asking, &tags);
        assert_eq!(elf.versions_needed(&file, b""), None);
    }
}
