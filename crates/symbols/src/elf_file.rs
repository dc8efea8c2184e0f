//! One file on disk (elf(5)): opened so that it can do no harm, read with a bound, and closed again.

use super::demangle::demangled;
use super::place::{Detail, Function, Problem, printable};
use addr2line::Context;
use gimli::{EndianArcSlice, RunTimeEndian};
use object::read::ReadCache;
use object::{CompressionFormat, Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};
use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most that is read of a file: its symbols, its debug information.
const MOST_BYTES: u64 = 1 << 30;

/// What zlib makes of a byte at most (zlib technical details, "Maximum compression factor").
const MOST_UNPACKED: u64 = 1032;

type Bytes = EndianArcSlice<RunTimeEndian>;

/// A file that can be asked for names.
pub(super) struct ElfFile {
    pub(super) path: PathBuf,
    file: File,
    pub(super) build_id: Vec<u8>,
    /// Where it wants to be loaded: its first page, and one behind its last byte.
    pub(super) span: Option<(u64, u64)>,
    /// `.gnu_debuglink`: a file's name, and its CRC-32.
    pub(super) debug_link: Option<(Vec<u8>, u32)>,
    /// `.gnu_debugaltlink`: a file's path, and its build-id.
    pub(super) supplement: Option<(Vec<u8>, Vec<u8>)>,
    endian: RunTimeEndian,
    sections: Vec<Section>,
    symbols: Symbols,
}

/// A section with debug information.
struct Section {
    name: Cow<'static, str>,
    at: u64,
    bytes: u64,
    /// Zlib, and how much it is unpacked.
    unpacked_bytes: Option<u64>,
}

/// Functions in the order of their addresses.
#[derive(Default)]
struct Symbols {
    detail: Option<Detail>,
    functions: Vec<Symbol>,
}

struct Symbol {
    start: u64,
    end: u64,
    name: Box<[u8]>,
}

/// The debug information of a file.
pub(super) struct Lines(Context<Bytes>);

/// What names are looked for in: all that `addr2line` reads.
const SECTIONS: [&str; 10] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];

impl ElfFile {
    pub(super) fn open(path: &Path) -> Result<ElfFile, Problem> {
        let file = open_regular(path)?;
        let cache = ReadCache::new(&file);
        let elf = object::File::parse(&cache).map_err(unreadable)?;
        let loaded = || elf.segments().map(|segment| (segment.address(), segment.size()));
        let start = loaded().map(|(start, _)| start & !4095).min();
        let end = loaded().filter_map(|(start, size)| start.checked_add(size)).max();
        let sections = elf.sections().filter_map(|section| {
            let name = section.name().ok()?;
            let name = SECTIONS.iter().find(|wanted| **wanted == name)?;
            let range = section.compressed_file_range().ok()?;
            let unpacked_bytes = match range.format {
                CompressionFormat::None => None,
                CompressionFormat::Zlib => Some(range.uncompressed_size),
                _ => return None,
            };
            let (at, bytes) = (range.offset, range.compressed_size);
            Some(Section { name: Cow::Borrowed(name), at, bytes, unpacked_bytes })
        });
        let link = elf.gnu_debuglink().ok().flatten();
        let supplement = elf.gnu_debugaltlink().ok().flatten();
        Ok(ElfFile {
            path: path.to_owned(),
            build_id: elf.build_id().ok().flatten().unwrap_or_default().to_vec(),
            span: start.zip(end),
            debug_link: link.map(|(name, crc)| (name.to_vec(), crc)),
            supplement: supplement.map(|(path, build_id)| (path.to_vec(), build_id.to_vec())),
            endian: if elf.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big },
            sections: sections.collect(),
            symbols: Symbols::default(),
            file: file.try_clone().map_err(unreadable)?,
        })
    }

    pub(super) fn has_lines(&self) -> bool {
        self.sections.iter().any(|section| section.name == ".debug_info" && section.bytes > 0)
    }

    /// The whole file's checksum, as `.gnu_debuglink` has it.
    pub(super) fn crc(&self) -> io::Result<u32> {
        let (mut crc, mut buffer, mut at) = (flate2::Crc::new(), vec![0; 256 << 10], 0);
        loop {
            match self.file.read_at(&mut buffer, at)? {
                0 => return Ok(crc.sum()),
                got => {
                    crc.update(buffer.get(..got).unwrap_or(&[]));
                    at += got as u64;
                }
            }
        }
    }

    /// The debug information; that of `supplement` is what several files share (dwz(1)).
    pub(super) fn lines(&self, supplement: Option<&ElfFile>) -> Result<Lines, Problem> {
        let mut dwarf = self.dwarf()?;
        if let Some(supplement) = supplement {
            dwarf.set_sup(supplement.dwarf()?);
        }
        Context::from_dwarf(dwarf).map(Lines).map_err(unreadable)
    }

    fn dwarf(&self) -> Result<gimli::Dwarf<Bytes>, Problem> {
        let size = |section: &Section| section.bytes.saturating_add(section.unpacked_bytes.unwrap_or(0));
        let all = self.sections.iter().map(size).fold(0, u64::saturating_add);
        if all > MOST_BYTES {
            return Err(Problem::TooLarge);
        }
        gimli::Dwarf::load(|id| {
            let section = self.sections.iter().find(|section| section.name == id.name());
            let bytes = section.map_or_else(|| Ok(Arc::default()), |section| self.read(section))?;
            Ok(EndianArcSlice::new(bytes, self.endian))
        })
        .map_err(|error: io::Error| unreadable(error))
    }

    fn read(&self, section: &Section) -> io::Result<Arc<[u8]>> {
        // Before so much is set aside.
        let is_there = section.at.checked_add(section.bytes) <= Some(self.file.metadata()?.len());
        let unpacks = section.unpacked_bytes <= Some(section.bytes.saturating_mul(MOST_UNPACKED));
        if !is_there || !unpacks {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = zeroes(section.bytes);
        if let Some(bytes) = Arc::get_mut(&mut bytes) {
            self.file.read_exact_at(bytes, section.at)?;
        }
        let Some(unpacked_bytes) = section.unpacked_bytes else { return Ok(bytes) };
        let mut unpacked = zeroes(unpacked_bytes);
        if let Some(unpacked) = Arc::get_mut(&mut unpacked) {
            let mut decoder = flate2::Decompress::new(true);
            decoder
                .decompress(&bytes, unpacked, flate2::FlushDecompress::Finish)
                .map_err(io::Error::other)?;
        }
        Ok(unpacked)
    }

    /// Reads the symbols; how much they tell.
    pub(super) fn load_symbols(&mut self) -> (Detail, Option<Problem>) {
        match self.read_symbols() {
            Ok(symbols) => self.symbols = symbols,
            Err(problem) => return (Detail::Nothing, Some(problem)),
        }
        (self.symbols_detail(), None)
    }

    pub(super) fn symbols_detail(&self) -> Detail {
        self.symbols.detail.unwrap_or(Detail::Nothing)
    }

    fn read_symbols(&self) -> Result<Symbols, Problem> {
        let cache = ReadCache::new(&self.file);
        let elf = object::File::parse(&cache).map_err(unreadable)?;
        let tables = [elf.symbol_table().map(|_| Detail::Symbols), Some(Detail::Exported)];
        for detail in tables.into_iter().flatten() {
            let symbols = if detail == Detail::Symbols { elf.symbols() } else { elf.dynamic_symbols() };
            let mut bytes = 0;
            let mut functions: Vec<Symbol> = symbols
                .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
                .filter_map(|symbol| {
                    let name = symbol.name_bytes().ok()?;
                    let end = symbol.address().checked_add(symbol.size())?;
                    Some(Symbol { start: symbol.address(), end, name: name.into() })
                })
                .filter(|symbol| symbol.start < symbol.end && !symbol.name.is_empty())
                .take_while(|symbol| {
                    bytes += symbol.name.len() as u64;
                    bytes < MOST_BYTES
                })
                .collect();
            if !functions.is_empty() {
                functions.sort_by_key(|symbol| (symbol.start, symbol.end));
                return Ok(Symbols { detail: Some(detail), functions });
            }
        }
        Ok(Symbols::default())
    }

    /// The function that an address of the file's own lies in, demangled.
    pub(super) fn symbol_at(&self, address: u64) -> Option<String> {
        /// How many functions may begin between an address and the one that it lies in: aliases, and nested ones.
        const NEAR: usize = 8;
        let functions = &self.symbols.functions;
        let behind = functions.partition_point(|symbol| symbol.start <= address);
        let before = functions.get(..behind)?.iter().rev().take(NEAR);
        let symbol = before.into_iter().find(|symbol| address < symbol.end)?;
        Some(demangled(&String::from_utf8_lossy(&symbol.name)))
    }
}

impl Lines {
    /// What is known of an address, innermost first.
    pub(super) fn functions_at(&self, address: u64) -> Vec<Function> {
        let mut functions = Vec::new();
        // Debug information in further files (split DWARF) is not read.
        let Ok(mut frames) = self.0.find_frames(address).skip_all_loads() else { return functions };
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.and_then(|function| Some(demangled(&function.raw_name().ok()?)));
            let location = frame.location;
            functions.push(Function {
                name,
                file: location.as_ref().and_then(|location| location.file).map(printable),
                line: location.and_then(|location| location.line),
                is_inlined: true,
            });
        }
        if let Some(outermost) = functions.last_mut() {
            outermost.is_inlined = false;
        }
        functions
    }
}

/// A file that opening and reading does nothing to: neither a device nor a pipe, whose other end may never come, nor
/// what the kernel makes up.
fn open_regular(path: &Path) -> Result<File, Problem> {
    let found = fs::metadata(path).map_err(|error| absent_or_unreadable(&error))?;
    let is_of_the_kernel =
        fs::canonicalize(path).is_ok_and(|path| path.starts_with("/proc") || path.starts_with("/sys"));
    if !found.is_file() || is_of_the_kernel {
        return Err(Problem::NotRegular);
    }
    // Another file may have come there in between; it must not hold us up.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| absent_or_unreadable(&error))?;
    if file.metadata().is_ok_and(|found| found.is_file()) { Ok(file) } else { Err(Problem::NotRegular) }
}

fn absent_or_unreadable(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Problem::Gone,
        _ => unreadable(error),
    }
}

fn unreadable(error: impl fmt::Display) -> Problem {
    Problem::Unreadable(error.to_string())
}

/// Shared from the start, so that it need not be copied.
fn zeroes(bytes: u64) -> Arc<[u8]> {
    std::iter::repeat_n(0, usize::try_from(bytes).unwrap_or(0)).collect()
}

impl fmt::Debug for ElfFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ElfFile").field(&self.path).finish()
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}
