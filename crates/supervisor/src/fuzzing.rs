//! What the package `fuzz` calls: the readers of what others write, as far as the interface does not have them by
//! themselves. Built with `--cfg fuzzing` only.

use crate::elf::Elf;
use crate::program::has_note;
use crate::{Profile, Report};
use oomguard_core::record::Claims;
use std::fs::File;

/// What a worker and its descendants say of themselves in a copy of their pages.
pub fn pages(head: &[u8]) -> Vec<Report> {
    let own = head.first_chunk().and_then(Claims::read);
    own.into_iter().chain(Claims::read_descendants(head)).map(Report::new).collect()
}

/// A profile in a copy of its tables.
pub fn samples(tables: &[u8]) -> Option<Profile> {
    Profile::parse(tables)
}

/// What is asked of a program's file before it is started.
pub fn program(file: &File) {
    let _ = has_note(file);
    let Some(elf) = Elf::read(file) else { return };
    let _ = elf.interpreter(file);
}
