//! Questions to the dynamic linker: the next definition of a symbol, and where a function begins and ends.
//!
//! Not async-signal-safe: the linker takes its own lock. Ask at start-up and keep the answer.

use super::objects::{self, Home, Name};
use crate::text::place_of;
use core::ffi::CStr;
use core::ops::Range;
use once_cell::race::OnceBool;

/// The address of `name` in the objects after the one that asks: what our own definition hides.
pub fn next_definition(name: Name<'_>) -> Option<usize> {
    objects::definition(name, Some(next_definition as *const () as usize))
}

/// The address of what our own definition hides. In a program that is the next one. A library that was opened later
/// keeps its names to itself: what it hides is the definition that everybody else gets, whose blocks it may have to free.
pub fn hidden_definition(name: Name<'_>) -> Option<usize> {
    if is_in_program() {
        return next_definition(name);
    }
    match first_definition(name) {
        Some(first) if !is_in_same_object(first, hidden_definition as *const () as usize) => Some(first),
        _ => next_definition(name),
    }
}

/// Whether this code lies in the program itself, not in one of its libraries.
fn is_in_program() -> bool {
    static ANSWER: OnceBool = OnceBool::new();
    ANSWER.get_or_init(|| matches!(objects::home_of(is_in_program as *const () as usize), Home::Program))
}

fn is_in_same_object(one: usize, other: usize) -> bool {
    let base = |address| objects::object_of(address).map(|(base, _)| base);
    base(one).is_some() && base(one) == base(other)
}

/// The address of the first definition of `name`: the one that everybody gets.
pub fn first_definition(name: Name<'_>) -> Option<usize> {
    objects::definition(name, None)
}

/// Whether a library is loaded whose file's path contains `part`. Unlike a lookup in vain it allocates nothing.
pub fn is_loaded(part: &[u8]) -> bool {
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, part: *mut libc::c_void) -> i32 {
        // SAFETY: dl_iterate_phdr hands over a valid description for the length of this call.
        let name = unsafe { (*info).dlpi_name };
        // SAFETY: the pointer to `part` below, which outlives the call.
        let part = unsafe { *part.cast::<&[u8]>() };
        // SAFETY: the object's name is a C string.
        let name = if name.is_null() { &[] } else { unsafe { CStr::from_ptr(name) }.to_bytes() };
        i32::from(place_of(name, part).is_some())
    }
    let mut part = part;
    // SAFETY: the callback gets the pointer to `part`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut part).cast()) != 0 }
}

/// Whether the program itself, not one of its libraries, carries a note of this name (elf(5)).
pub fn program_has_note(name: &[u8]) -> bool {
    struct Notes<'a> {
        name: &'a [u8],
        found: bool,
    }
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, notes: *mut libc::c_void) -> i32 {
        // SAFETY: dl_iterate_phdr hands over a valid description for the length of this call.
        let info = unsafe { &*info };
        // SAFETY: the pointer to `notes` below, which outlives the call.
        let notes = unsafe { &mut *notes.cast::<Notes<'_>>() };
        // SAFETY: the program headers of a loaded object, dlpi_phnum of them.
        let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_NOTE) {
            let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            // SAFETY: a note segment is loaded, read-only, for as long as the object is.
            let segment = unsafe { core::slice::from_raw_parts(start as *const u8, header.p_memsz as usize) };
            notes.found |= has_note(segment, notes.name);
        }
        // The first object is the program.
        1
    }
    let mut notes = Notes { name, found: false };
    // SAFETY: the callback gets the pointer to `notes`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut notes).cast()) };
    notes.found
}

/// A note is: length of its name, length of its content, type: 4 bytes each; both texts filled up to 4 bytes.
fn has_note(segment: &[u8], name: &[u8]) -> bool {
    let mut rest = segment;
    let number = |at: &[u8]| at.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize);
    while let (Some(name_bytes), Some(content_bytes)) = (number(rest), rest.get(4..).and_then(number)) {
        let Some(names) = rest.get(12..) else { return false };
        if names.get(..name_bytes) == Some(name) {
            return true;
        }
        let skip = name_bytes.next_multiple_of(4).saturating_add(content_bytes.next_multiple_of(4));
        rest = names.get(skip..).unwrap_or(&[]);
    }
    false
}

/// The addresses of the code of the function that starts at `start`, read from the unwind tables of its object:
/// `.eh_frame_hdr` is a table of (start, description) pairs in rising order (LSB core, 10.6.2).
/// `None` where there is no table in the form that every linker writes.
pub fn code_of_function(start: usize) -> Option<Range<usize>> {
    let table = unwind_table_for(start)?;
    // Version 1; pointer to .eh_frame: relative, 4 bytes; count: 4 bytes; pairs: relative to the table, 4 bytes.
    if table.bytes(0)? != [1, 0x1b, 0x03, 0x3b] {
        return None;
    }
    let count = u32::from_ne_bytes(table.bytes(8)?) as usize;
    let pair = |index: usize| -> Option<(usize, usize)> {
        Some((table.relative(12 + index * 8)?, table.relative(12 + index * 8 + 4)?))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        let (address, description) = pair(middle)?;
        if address == start {
            // length, pointer to the common part, start (relative), length of the code: 4 bytes each.
            // SAFETY: the table is in loaded, read-only memory, and its pairs point at descriptions beside it.
            let code_bytes = unsafe { ((description + 12) as *const u32).read_unaligned() } as usize;
            return (code_bytes > 0).then(|| start..start + code_bytes);
        }
        if address < start {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    None
}

/// A loaded `.eh_frame_hdr`.
#[derive(Clone, Copy)]
struct UnwindTable {
    address: usize,
    len: usize,
}

impl UnwindTable {
    fn bytes(self, offset: usize) -> Option<[u8; 4]> {
        if offset.checked_add(4)? > self.len {
            return None;
        }
        // SAFETY: inside the segment that the program headers describe, which stays mapped and is never written.
        Some(unsafe { ((self.address + offset) as *const [u8; 4]).read() })
    }

    fn relative(self, offset: usize) -> Option<usize> {
        let distance = i32::from_ne_bytes(self.bytes(offset)?);
        Some(self.address.wrapping_add_signed(distance as isize))
    }
}

struct Search {
    address: usize,
    found: Option<UnwindTable>,
}

fn unwind_table_for(address: usize) -> Option<UnwindTable> {
    let mut search = Search { address, found: None };
    // SAFETY: the callback gets the pointer to `search`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look_into), (&raw mut search).cast()) };
    search.found
}

unsafe extern "C" fn look_into(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    search: *mut libc::c_void,
) -> i32 {
    // SAFETY: dl_iterate_phdr hands over a valid description for the length of this call.
    let info = unsafe { &*info };
    // SAFETY: the pointer that `unwind_table_for` gave, to a local of its own.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the program headers of a loaded object, dlpi_phnum of them.
    let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let base = info.dlpi_addr as usize;
    let range = |header: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        start..start.wrapping_add(header.p_memsz as usize)
    };
    if !headers.iter().any(|header| header.p_type == libc::PT_LOAD && range(header).contains(&search.address))
    {
        return 0;
    }
    if let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME) {
        search.found = Some(UnwindTable { address: range(header).start, len: header.p_memsz as usize });
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_a_beginning_and_an_end() {
        let start = std::alloc::handle_alloc_error as fn(std::alloc::Layout) -> ! as *const () as usize;
        let code = code_of_function(start).unwrap();
        assert_eq!(code.start, start);
        assert!((8..256).contains(&code.len()), "{} bytes", code.len());
        assert_eq!(code_of_function(start + 1), None);
    }

    #[test]
    fn the_c_library_is_found_behind_us() {
        let real = next_definition(Name::new(c"__cxa_thread_atexit_impl")).unwrap();
        assert!(code_of_function(real).unwrap().len() > 16);
        assert_eq!(next_definition(Name::new(c"oomguard_no_such_symbol")), None);
    }
}
