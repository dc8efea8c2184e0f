//! What the package `fuzz` calls. Built with `--cfg fuzzing` only.

use crate::elf_file::ElfFile;
use crate::guarded;
use std::path::Path;

/// What is asked of a file that a profile names.
pub fn named_file(path: &Path, address: u64) {
    let _ = guarded(|| {
        let Ok(mut file) = ElfFile::open(path) else { return };
        let _ = file.load_symbols();
        let _ = file.symbol_at(address);
        let _ = file.crc();
        if let Ok(lines) = file.lines(None) {
            let _ = lines.functions_at(address);
        }
    });
}
