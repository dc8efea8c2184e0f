//! The objects that the dynamic linker has loaded: which one our code lies in, whether it came with the program or by
//! dlopen(3), and how it stays.
//!
//! Rests on what the linker shows to debuggers (`link.h`: `r_debug`, `link_map`) and on the objects' own dynamic
//! sections. Not async-signal-safe: for constructors. There nobody can take an object out of the list: a process has
//! one thread before `main`, and dlopen(3) runs constructors under the linker's lock, or, with musl, never unloads.
//! `loaded_so_far` and `find_defining` may be asked later, too: dlsym(3) would not do, which allocates where it finds
//! nothing, and does not see what was loaded for one library alone (RTLD_LOCAL).

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ops::ControlFlow;

/// What our code lies in.
pub enum Home {
    Program,
    Library(Library),
}

/// A shared object.
pub struct Library {
    name: *const c_char,
    dynamic: Dynamic,
    /// The program of the linker's list that the library is in. A list of dlmopen(3) has none.
    program: Option<Dynamic>,
}

/// Where the code at `address` lies. Less than 1 µs for the program itself, which is the first in the list.
pub fn home_of(address: usize) -> Home {
    let mut first = true;
    let mut program = None;
    let mut found = None;
    for_each_object(|object| {
        let is_program = core::mem::take(&mut first) && is_program(object);
        if is_program {
            program = dynamic_of(object);
        }
        if !segments(object).any(|segment| segment.contains(&address)) {
            return ControlFlow::Continue(());
        }
        if !is_program {
            found = dynamic_of(object).map(|dynamic| (object.dlpi_name, dynamic));
        }
        ControlFlow::Break(())
    });
    match found {
        Some((name, dynamic)) => Home::Library(Library { name, dynamic, program }),
        None => Home::Program,
    }
}

impl Home {
    /// Whether dlopen(3) brought it into a process that exists already.
    pub fn came_by_dlopen(&self) -> bool {
        match self {
            Home::Program => false,
            Home::Library(library) => !library.came_with_program(),
        }
    }

    /// Keeps dlclose(3) from unloading it: handlers that have been registered cannot be taken back. False where that
    /// does not work. The linker may allocate.
    pub fn keep(&self) -> bool {
        match self {
            Home::Program => true,
            Home::Library(library) => library.dynamic.is_never_unloaded() || keep_by_name(library.name),
        }
    }
}

impl Library {
    /// The list is in the order of loading, so all that came with the program is before all that came later. The last
    /// of the former is what the program needs, or what something before that needs, and so on (preloaded libraries
    /// come before what the program needs).
    fn came_with_program(&self) -> bool {
        let Some(program) = self.program else { return false };
        let maps = || Maps::of(program);
        let Some(here) = maps().position(|map| map.dynamic == self.dynamic.entries) else { return false };
        let mut last = 0;
        for (index, map) in maps().enumerate() {
            if here <= last {
                return true;
            }
            if index > last {
                return false;
            }
            for needed in map.dynamic().into_iter().flat_map(Dynamic::needed) {
                last = maps().position(|other| other.is_called(needed)).unwrap_or(0).max(last);
            }
        }
        here <= last
    }
}

/// Only glibc unloads.
#[cfg(not(target_env = "gnu"))]
fn keep_by_name(_name: *const c_char) -> bool {
    true
}

#[cfg(target_env = "gnu")]
fn keep_by_name(name: *const c_char) -> bool {
    type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    // Not by its name: a static program that is linked with `dlopen` is warned of it.
    let Some(dlopen) = super::symbols::next_definition(c"dlopen") else { return false };
    // SAFETY: the C library's function of this name has this signature.
    let dlopen: Dlopen = unsafe { core::mem::transmute(dlopen) };
    // SAFETY: the linker's own name of a loaded object: it is found in the list, and no file is looked for.
    let handle = unsafe { dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    !handle.is_null()
}

/// Calls `look` with each loaded object, in the order of the linker's list: dl_iterate_phdr(3).
fn for_each_object<F: FnMut(&libc::dl_phdr_info) -> ControlFlow<()>>(mut look: F) {
    unsafe extern "C" fn call<F: FnMut(&libc::dl_phdr_info) -> ControlFlow<()>>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        look: *mut c_void,
    ) -> c_int {
        // SAFETY: dl_iterate_phdr hands over a valid description for the length of this call.
        let info = unsafe { &*info };
        // SAFETY: the pointer to `look` below, which outlives the call and is used by nobody else.
        let look = unsafe { &mut *look.cast::<F>() };
        c_int::from(look(info).is_break())
    }
    // SAFETY: the callback gets the pointer to `look`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(call::<F>), (&raw mut look).cast()) };
}

/// How many objects have been loaded since the process began, those that are gone included.
pub fn loaded_so_far() -> u64 {
    let mut loaded = 0;
    for_each_object(|object| {
        loaded = object.dlpi_adds;
        ControlFlow::Break(())
    });
    loaded
}

/// Calls `look` with the first object that defines `name`, and what finds a definition in there.
pub fn find_defining(name: &CStr, mut look: impl FnMut(&dyn Fn(&CStr) -> Option<usize>)) {
    for_each_object(|object| {
        let symbols = dynamic_of(object).and_then(Symbols::of);
        match symbols {
            Some(symbols) if symbols.find(name).is_some() => {
                look(&|name| symbols.find(name));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    });
}

/// The names that an object defines for others: DT_SYMTAB by way of DT_GNU_HASH, whose layout is binutils' (`bfd/elflink.c`).
#[derive(Clone, Copy)]
struct Symbols {
    dynamic: Dynamic,
    table: usize,
    hash: usize,
}

impl Symbols {
    fn of(dynamic: Dynamic) -> Option<Symbols> {
        const DT_SYMTAB: isize = 6;
        const DT_GNU_HASH: isize = 0x6fff_fef5;
        Some(Symbols { dynamic, table: dynamic.address(DT_SYMTAB)?, hash: dynamic.address(DT_GNU_HASH)? })
    }

    /// A 32-bit word of the hash table.
    fn word(self, index: usize) -> u32 {
        // SAFETY: inside the table, as its own header describes it, which is mapped as long as the object.
        unsafe { (self.hash as *const u32).wrapping_add(index).read() }
    }

    fn find(self, name: &CStr) -> Option<usize> {
        let name = name.to_bytes();
        let wanted =
            name.iter().fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
        let (buckets, first, blooms) = (self.word(0), self.word(1), self.word(2) as usize);
        if buckets == 0 || blooms == 0 {
            return None;
        }
        let bits = (4 + 2 * (wanted as usize / 64 % blooms), self.word(3));
        let bloom = u64::from(self.word(bits.0)) | u64::from(self.word(bits.0 + 1)) << 32;
        let mask = 1 << (wanted % 64) | 1 << (wanted.wrapping_shr(bits.1) % 64);
        if bloom & mask != mask {
            return None;
        }
        let start = 4 + 2 * blooms;
        let chain = start + buckets as usize;
        let mut index = self.word(start + (wanted % buckets) as usize);
        if index < first {
            return None;
        }
        loop {
            let hash = self.word(chain + (index - first) as usize);
            if hash | 1 == wanted | 1
                && let Some(address) = self.defined_as(index as usize, name)
            {
                return Some(address);
            }
            if hash & 1 != 0 {
                return None;
            }
            index += 1;
        }
    }

    fn defined_as(self, index: usize, name: &[u8]) -> Option<usize> {
        let symbol = (self.table as *const libc::Elf64_Sym).wrapping_add(index);
        // SAFETY: an entry that the hash table names, of a table that is mapped as long as the object.
        let symbol = unsafe { symbol.read() };
        let is_defined = symbol.st_shndx != 0 && symbol.st_value != 0;
        (is_defined && self.dynamic.text(symbol.st_name as usize)? == name)
            .then(|| self.dynamic.base.wrapping_add(symbol.st_value as usize))
    }
}

fn is_program(object: &libc::dl_phdr_info) -> bool {
    // SAFETY: getauxval takes no pointer.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    // Where the linker was started by its name, with a program to run, only glibc's puts this right; but only glibc has
    // lists that do not begin with the program.
    object.dlpi_phdr as usize == headers as usize || cfg!(not(target_env = "gnu"))
}

fn headers(object: &libc::dl_phdr_info) -> &[libc::Elf64_Phdr] {
    // SAFETY: the program headers of a loaded object, dlpi_phnum of them.
    unsafe { core::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) }
}

fn segments(object: &libc::dl_phdr_info) -> impl Iterator<Item = core::ops::Range<usize>> {
    headers(object).iter().filter(|header| header.p_type == libc::PT_LOAD).map(|header| {
        let start = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        start..start.wrapping_add(header.p_memsz as usize)
    })
}

fn dynamic_of(object: &libc::dl_phdr_info) -> Option<Dynamic> {
    let base = object.dlpi_addr as usize;
    let header = headers(object).iter().find(|header| header.p_type == libc::PT_DYNAMIC)?;
    Some(Dynamic { base, entries: base.wrapping_add(header.p_vaddr as usize) as *const Entry })
}

/// `Elf64_Dyn` in elf(5).
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    tag: isize,
    value: usize,
}

const DT_NULL: isize = 0;
const DT_NEEDED: isize = 1;
const DT_STRTAB: isize = 5;
const DT_SONAME: isize = 14;
const DT_DEBUG: isize = 21;
const DT_FLAGS_1: isize = 0x6fff_fffb;
const DF_1_NODELETE: usize = 8;

/// The dynamic section of a loaded object: entries up to DT_NULL.
#[derive(Clone, Copy)]
struct Dynamic {
    base: usize,
    entries: *const Entry,
}

impl Dynamic {
    fn entries(self) -> impl Iterator<Item = Entry> {
        let mut next = self.entries;
        core::iter::from_fn(move || {
            // SAFETY: not past DT_NULL, where this ends; the section stays mapped and is not written once it is loaded.
            let entry = unsafe { *next };
            next = next.wrapping_add(1);
            (entry.tag != DT_NULL).then_some(entry)
        })
        .fuse()
    }

    fn value(self, tag: isize) -> Option<usize> {
        self.entries().find(|entry| entry.tag == tag).map(|entry| entry.value)
    }

    fn is_never_unloaded(self) -> bool {
        self.value(DT_FLAGS_1).is_some_and(|flags| flags & DF_1_NODELETE != 0)
    }

    /// An address in the object. glibc has made one of it, in all but the kernel's own object, which may have been linked
    /// for any address; musl leaves it as it is in the file. It lies in the object, as the dynamic section does.
    fn address(self, tag: isize) -> Option<usize> {
        let value = self.value(tag)?;
        let from_here = |address: &usize| address.abs_diff(self.entries as usize);
        [value, self.base.wrapping_add(value)].into_iter().min_by_key(from_here)
    }

    /// The text at this place of the string table.
    fn text(self, at: usize) -> Option<&'static [u8]> {
        let table = self.address(DT_STRTAB)?;
        // SAFETY: an entry's value of a kind that is a place in the string table, which is mapped as long as the object.
        Some(unsafe { CStr::from_ptr(table.wrapping_add(at) as *const c_char) }.to_bytes())
    }

    fn needed(self) -> impl Iterator<Item = &'static [u8]> {
        self.entries().filter(|entry| entry.tag == DT_NEEDED).filter_map(move |entry| self.text(entry.value))
    }

    fn name(self) -> Option<&'static [u8]> {
        self.text(self.value(DT_SONAME)?)
    }
}

/// The beginning of `struct r_debug` in `link.h`.
#[repr(C)]
struct Debug {
    version: c_int,
    first: *const Map,
}

/// The beginning of `struct link_map` in `link.h`.
#[repr(C)]
struct Map {
    base: usize,
    name: *const c_char,
    dynamic: *const Entry,
    next: *const Map,
}

impl Map {
    fn dynamic(&self) -> Option<Dynamic> {
        (!self.dynamic.is_null()).then_some(Dynamic { base: self.base, entries: self.dynamic })
    }

    /// Whether the linker takes it for what an object needs by this name.
    fn is_called(&self, needed: &[u8]) -> bool {
        let file = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        // SAFETY: the linker's name of an object is a C string that lives as long as the object.
        let path = if self.name.is_null() { &[] } else { unsafe { CStr::from_ptr(self.name) }.to_bytes() };
        self.dynamic().and_then(Dynamic::name) == Some(needed)
            || path.get(file(path)..) == needed.get(file(needed)..) && !path.is_empty()
    }
}

/// The linker's list.
struct Maps {
    next: *const Map,
}

impl Maps {
    fn of(program: Dynamic) -> Maps {
        let debug = program.value(DT_DEBUG).map_or(core::ptr::null(), |address| address as *const Debug);
        // SAFETY: null, or what the linker put there when it started the program, and keeps.
        let debug = unsafe { debug.as_ref() };
        Maps { next: debug.map_or(core::ptr::null(), |debug| debug.first) }
    }
}

impl Iterator for Maps {
    type Item = &'static Map;

    fn next(&mut self) -> Option<&'static Map> {
        // SAFETY: null, or an object in the list, out of which nobody takes it meanwhile: see above.
        let map = unsafe { self.next.as_ref() }?;
        self.next = map.next;
        Some(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library_with(function: *const ()) -> Library {
        match home_of(function as usize) {
            Home::Library(library) => library,
            Home::Program => panic!("a function of the C library's"),
        }
    }

    #[test]
    fn code_of_the_program_is_at_home_in_it() {
        let home = home_of(code_of_the_program_is_at_home_in_it as *const () as usize);
        assert!(matches!(home, Home::Program));
        assert!(!home.came_by_dlopen());
        assert!(home.keep());
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn a_name_is_found_in_the_object_that_defines_it() {
        let mut found = None;
        find_defining(c"qsort", |find| {
            found = Some((find(c"qsort"), find(c"memcpy").is_some(), find(c"no_such")))
        });
        assert_eq!(found, Some((Some(libc::qsort as *const () as usize), true, None)));
        find_defining(c"oomguard_no_such_name", |_| found = None);
        assert!(found.is_some() && loaded_so_far() > 1);
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn the_c_library_came_with_the_program() {
        let library = library_with(libc::qsort as *const ());
        assert_eq!(library.dynamic.name(), Some(b"libc.so.6".as_slice()));
        assert!(library.came_with_program());
        assert!(Home::Library(library).keep());
    }

    #[test]
    fn a_name_is_found_whatever_address_an_object_was_linked_for() {
        const NAMES: &[u8] = b"\0linux-vdso.so.1\0";
        let names = NAMES.as_ptr() as usize;
        // Where the loader has moved it: not at all, up, and down from an address of the kernel's.
        for base in [0, 0x7f00_0000_0000, 0x7fff_0000_0000usize.wrapping_sub(0xffff_ffff_ff70_0000)] {
            for table in [names, names.wrapping_sub(base)] {
                let entries = [
                    Entry { tag: DT_SONAME, value: 1 },
                    Entry { tag: DT_STRTAB, value: table },
                    Entry { tag: DT_NULL, value: 0 },
                ];
                // Near the names, as in an object.
                let entries = entries.to_vec().leak().as_ptr();
                assert_eq!(
                    Dynamic { base, entries }.name(),
                    Some(&b"linux-vdso.so.1"[..]),
                    "{base:x} {table:x}"
                );
            }
        }
    }
}
