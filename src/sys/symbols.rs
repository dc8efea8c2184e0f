//! Questions to the dynamic linker: the next definition of a symbol, and where a function begins and ends.
//!
//! Not async-signal-safe: the linker takes its own lock. Ask at start-up and keep the answer.

use core::ffi::CStr;
use core::ops::Range;

/// The address of `name` in the objects after the one that asks: what our own definition hides.
pub(crate) fn next_definition(name: &CStr) -> Option<usize> {
    // SAFETY: the name is a C string that outlives the call. A symbol that is found costs no allocation.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
    if address == 0 { None } else { Some(address) }
}

/// The addresses of the code of the function that starts at `start`, read from the unwind tables of its object:
/// `.eh_frame_hdr` is a table of (start, description) pairs in rising order (LSB core, 10.6.2).
/// `None` where there is no table in the form that every linker writes.
pub(crate) fn code_of_function(start: usize) -> Option<Range<usize>> {
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
        let real = next_definition(c"__cxa_thread_atexit_impl").unwrap();
        assert!(code_of_function(real).unwrap().len() > 16);
        assert_eq!(next_definition(c"oomguard_no_such_symbol"), None);
    }
}
