//! What the unwind tables say, read by `frame_rules` and by gimli, which knows all of the format: the same for each row
//! of each function of the C library, of this program (which has the standard library and this crate in it), and of the
//! launcher and the preloaded library where they are built.

use super::files::File;
use super::frame_rules::{Frame, Rule, register, rule_for};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, NativeEndian, Register, RegisterRule,
    UnwindContext, UnwindSection, UnwindTableRow,
};
use object::{Object, ObjectSection, ObjectSegment};
use std::path::{Path, PathBuf};

/// A file as it lies in memory when it is loaded, without what is not in the file.
struct Loaded {
    memory: Vec<u8>,
    /// The lowest address that it wants.
    low: u64,
    /// `.eh_frame` and `.eh_frame_hdr`: where they want to be, and their lengths.
    frames: (u64, u64),
    table: (u64, u64),
}

impl Loaded {
    /// `None` where it has no unwind tables.
    fn read(path: &Path) -> Option<Loaded> {
        let content = std::fs::read(path).unwrap();
        let elf = object::File::parse(&*content).unwrap();
        let section = |name| elf.section_by_name(name).map(|section| (section.address(), section.size()));
        let (frames, table) = (section(".eh_frame")?, section(".eh_frame_hdr")?);
        let low = elf.segments().map(|segment| segment.address()).min()?;
        let high = elf.segments().map(|segment| segment.address() + segment.size()).max()?;
        // Eight bytes more: whether memory can be read is asked of eight at once.
        let mut memory = vec![0; (high - low) as usize + 8];
        for segment in elf.segments() {
            let (at, data) = ((segment.address() - low) as usize, segment.data().unwrap());
            memory[at..at + data.len()].copy_from_slice(data);
        }
        Some(Loaded { memory, low, frames, table })
    }

    fn address(&self, wanted: u64) -> usize {
        self.memory.as_ptr() as usize + (wanted - self.low) as usize
    }

    fn file(&self) -> File {
        let start = self.memory.as_ptr() as usize;
        File::at(start..start + self.memory.len() - 8, self.address(self.table.0), self.table.1 as usize)
    }

    fn frames(&self) -> &[u8] {
        let at = (self.frames.0 - self.low) as usize;
        &self.memory[at..at + self.frames.1 as usize]
    }
}

/// What a row says, in our words; `None` where it says what we do not follow: an expression, or another register.
fn in_our_words(row: &UnwindTableRow<usize>) -> Option<Rule> {
    let place = |number: u64| match row.register(Register(number as u16)) {
        None | Some(RegisterRule::SameValue) => Some(None),
        Some(RegisterRule::Offset(offset)) => Some(Some(offset as isize)),
        _ => None,
    };
    if row.register(Register(register::RETURN as u16)) == Some(RegisterRule::Undefined) {
        return Some(Rule::End);
    }
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else { return None };
    let cfa_from_fp = match u64::from(register.0) {
        register::FP => true,
        register::SP => false,
        _ => return None,
    };
    let fp_offset = match row.register(Register(register::FP as u16)) {
        Some(RegisterRule::Undefined) => None,
        _ => place(register::FP)?,
    };
    let return_offset = place(register::RETURN)?;
    Some(Rule::Frame(Frame { cfa_from_fp, cfa_offset: *offset as isize, return_offset, fp_offset }))
}

#[derive(Default, Debug)]
struct Compared {
    functions: usize,
    rows: usize,
    /// Rows that say what we do not follow.
    not_followed: usize,
    different: Vec<String>,
}

fn compare(path: &Path) -> Option<Compared> {
    let loaded = Loaded::read(path)?;
    let file = loaded.file();
    let frames = EhFrame::from(EndianSlice::new(loaded.frames(), NativeEndian));
    let bases = BaseAddresses::default().set_eh_frame(loaded.address(loaded.frames.0) as u64);
    let (mut context, mut compared) = (UnwindContext::new(), Compared::default());
    let mut entries = frames.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let function = partial.parse(EhFrame::cie_from_offset).unwrap();
        compared.functions += 1;
        let mut rows = function.rows(&frames, &bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            let theirs = in_our_words(row);
            compared.rows += 1;
            compared.not_followed += usize::from(theirs.is_none());
            // The first and the last address at which it holds. What we are asked for is what a call returns to.
            for pc in [row.start_address(), row.end_address() - 1] {
                let ours = rule_for(pc as usize + 1, &file);
                // What is kept of it is a word.
                let kept = ours.map(|rule| Rule::decode(rule.encode()));
                if ours != theirs || kept != ours.map(Some) {
                    let at = pc as usize - file.start() + loaded.low as usize;
                    compared
                        .different
                        .push(format!("{at:#x}: {ours:?}, kept as {kept:?}; gimli: {theirs:?}"));
                }
            }
        }
    }
    Some(compared)
}

/// The files that are loaded here, and what is built beside this program.
fn files() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<PathBuf> =
        maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..]))).collect();
    let own = std::env::current_exe().unwrap();
    let built = own.ancestors().nth(2).unwrap();
    files.extend(["oomguard", "liboomguard.so", "libguarded.so"].map(|name| built.join(name)));
    files.retain(|file| file.is_file());
    files.sort();
    files.dedup();
    assert!(files.contains(&own), "{files:?}");
    files
}

#[test]
fn each_row_of_the_unwind_tables_is_read_as_gimli_reads_it() {
    let mut all = 0;
    for path in files() {
        let Some(compared) = compare(&path) else { continue };
        println!(
            "{}: {} functions, {} rows, {} of them not followed",
            path.display(),
            compared.functions,
            compared.rows,
            compared.not_followed
        );
        let shown = &compared.different[..compared.different.len().min(10)];
        assert!(
            shown.is_empty(),
            "{}: {} rows are read otherwise: {shown:#?}",
            path.display(),
            compared.different.len()
        );
        // Expressions are for what assembler does with the stack, and for the tables of the linker.
        assert!(compared.not_followed * 20 <= compared.rows, "{}: {compared:?}", path.display());
        all += compared.rows;
    }
    assert!(all > 20_000, "only {all} rows");
}
