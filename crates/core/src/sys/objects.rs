//! The objects that the dynamic linker has loaded: which one our code lies in, whether it came with the program or by
//! dlopen(3), and how it stays.
//!
//! Rests on what the linker shows to debuggers (`link.h`: `r_debug`, `link_map`) and on the objects' own dynamic
//! sections. Not async-signal-safe: for constructors. There nobody can take an object out of the list: a process has
//! one thread before `main`, and dlopen(3) runs constructors under the linker's lock, or, with musl, never unloads.
//! `loaded_so_far`, `definition` and `find_defining` may be asked later, too: dlsym(3) would not do, which is not in every
//! process, allocates where it finds nothing, and does not see what was loaded for one library alone (RTLD_LOCAL).

use crate::text::last_position;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicPtr, Ordering};

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

fn keep_by_name(name: *const c_char) -> bool {
    type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    if !super::c_library::is_glibc() {
        // Only glibc unloads.
        return true;
    }
    // Not by its name: a static program that is linked with `dlopen` is warned of it.
    let Some(dlopen) = definition(Name::new(c"dlopen"), None) else { return false };
    // SAFETY: the C library's function of this name has this signature.
    let dlopen: Dlopen = unsafe { core::mem::transmute(dlopen) };
    // SAFETY: the linker's own name of a loaded object: it is found in the list, and no file is looked for.
    let handle = unsafe { dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    !handle.is_null()
}

/// Calls `look` with each loaded object, in the order of the linker's list: dl_iterate_phdr(3).
pub(super) fn for_each_object<F: FnMut(&libc::dl_phdr_info) -> ControlFlow<()>>(mut look: F) {
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

/// How many objects have been loaded since the process began, those that are gone included. musl counts only those that
/// were loaded by dlopen(3).
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
    let name = Name::new(name);
    for_each_object(|object| {
        let symbols = dynamic_of(object).and_then(Symbols::of);
        match symbols {
            Some(symbols) if symbols.find(name).is_some() => {
                look(&|name| symbols.find(Name::new(name)));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    });
}

/// The object that `address` lies in: where it was loaded, and the name it was loaded by, which is empty for the program.
pub fn object_of(address: usize) -> Option<(usize, &'static CStr)> {
    let mut found = None;
    for_each_object(|object| {
        if !segments(object).any(|segment| segment.contains(&address)) {
            return ControlFlow::Continue(());
        }
        let name: &'static CStr = if object.dlpi_name.is_null() {
            c""
        } else {
            // SAFETY: a C string of the linker's, which lives as long as the object: for ever, as it is never closed.
            unsafe { CStr::from_ptr(object.dlpi_name) }
        };
        found = Some((object.dlpi_addr as usize, name));
        ControlFlow::Break(())
    });
    found
}

/// The first definition of `name` in the order in which the linker has loaded the objects, which is that in which it looks;
/// or the first behind the object that `behind` lies in. As dlsym(3) has it (RTLD_DEFAULT, RTLD_NEXT), which is not in
/// every process: glibc has had it in a library of its own.
pub fn definition(name: Name<'_>, behind: Option<usize>) -> Option<usize> {
    // Relaxed: written and read by one thread, see `with_known`.
    let known = KNOWN.load(Ordering::Relaxed);
    // SAFETY: null, or what `with_known` keeps for as long as it can be read there.
    if let Some(known) = unsafe { known.as_ref() } {
        return known.definition(name, behind.is_some());
    }
    let mut found = None;
    each_behind(behind, |symbols| {
        found = symbols.find(name);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    // An object that was opened later, or needs nothing and so came behind all others, hides nothing: what everybody gets.
    found.or_else(|| {
        let here = behind?;
        for_each_object(|object| {
            if !segments(object).any(|segment| segment.contains(&here)) {
                found = dynamic_of(object).and_then(Symbols::of).and_then(|symbols| symbols.find(name));
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found
    })
}

fn each_behind(behind: Option<usize>, mut look: impl FnMut(Symbols) -> ControlFlow<()>) {
    let mut is_behind = behind.is_none();
    for_each_object(|object| {
        if is_behind {
            return dynamic_of(object).and_then(Symbols::of).map_or(ControlFlow::Continue(()), &mut look);
        }
        is_behind = behind.is_some_and(|address| segments(object).any(|segment| segment.contains(&address)));
        ControlFlow::Continue(())
    });
}

/// The loaded objects that define names, while those are looked up one after the other.
struct Known {
    symbols: [Option<Symbols>; Known::MOST],
    len: usize,
    /// Where ours is among them.
    ours: usize,
}

impl Known {
    const MOST: usize = 32;

    fn definition(&self, name: Name<'_>, behind_ours: bool) -> Option<usize> {
        let find = |objects: core::ops::Range<usize>| {
            self.symbols.get(objects)?.iter().flatten().find_map(|symbols| symbols.find(name))
        };
        if behind_ours {
            find(self.ours + 1..self.len).or_else(|| find(0..self.ours))
        } else {
            find(0..self.len)
        }
    }
}

static KNOWN: AtomicPtr<Known> = AtomicPtr::new(core::ptr::null_mut());

/// Has `call` look up many names, and not look for the objects each time. `behind` is always this code's own object then.
/// From a constructor, when there is one thread, and no object comes or goes.
pub fn with_known<T>(call: impl FnOnce() -> T) -> T {
    let mut known = Known { symbols: [None; Known::MOST], len: 0, ours: 0 };
    let mut is_whole = true;
    for_each_object(|object| {
        let Some(slot) = known.symbols.get_mut(known.len) else {
            is_whole = false;
            return ControlFlow::Break(());
        };
        if segments(object).any(|segment| segment.contains(&(is_program as *const () as usize))) {
            known.ours = known.len;
        }
        *slot = dynamic_of(object).and_then(Symbols::of);
        known.len += 1;
        ControlFlow::Continue(())
    });
    if is_whole {
        KNOWN.store(&raw mut known, Ordering::Relaxed);
    }
    let result = call();
    KNOWN.store(core::ptr::null_mut(), Ordering::Relaxed);
    result
}

/// A name to look up, and its hash as DT_GNU_HASH has it.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// Up to a NUL, or whole.
    bytes: &'a [u8],
    hash: u32,
}

impl<'a> Name<'a> {
    pub fn new(name: &'a CStr) -> Name<'a> {
        Name { bytes: name.to_bytes(), hash: hash_of(name) }
    }

    /// One whose hash was made when it was compiled.
    pub const fn with_hash(bytes: &'a [u8], hash: u32) -> Name<'a> {
        Name { bytes, hash }
    }

    /// # Safety
    /// `text` is a C string.
    pub(super) unsafe fn is(self, text: *const u8) -> bool {
        let mut wanted = self.bytes.iter();
        let mut next = text;
        loop {
            let byte = wanted.next().copied().unwrap_or(0);
            // SAFETY: not past the string's NUL, as all bytes before were the same as ours, and none of those was NUL.
            if unsafe { next.read() } != byte {
                return false;
            }
            if byte == 0 {
                return true;
            }
            next = next.wrapping_add(1);
        }
    }
}

/// A name's hash as DT_GNU_HASH has it.
pub const fn hash_of(name: &CStr) -> u32 {
    let bytes = name.to_bytes();
    let mut hash = 5381_u32;
    let mut at = 0;
    while at < bytes.len() {
        hash = hash.wrapping_mul(33).wrapping_add(bytes[at] as u32);
        at += 1;
    }
    hash
}

/// The names that an object defines for others: DT_SYMTAB by way of DT_GNU_HASH, whose layout is binutils' (`bfd/elflink.c`),
/// or, in an object without, by DT_HASH, which tells how many there are.
#[derive(Clone, Copy)]
struct Symbols {
    base: usize,
    table: usize,
    texts: usize,
    hash: Hash,
    /// DT_VERSYM; zero where there is none.
    versions: usize,
}

#[derive(Clone, Copy)]
enum Hash {
    Gnu(usize),
    SystemV(usize),
}

impl Symbols {
    fn of(dynamic: Dynamic) -> Option<Symbols> {
        let [mut table, mut texts, mut gnu, mut system_v, mut versions] = [None; 5];
        for entry in dynamic.entries() {
            let slot = match entry.tag {
                DT_SYMTAB => &mut table,
                DT_STRTAB => &mut texts,
                DT_GNU_HASH => &mut gnu,
                DT_HASH => &mut system_v,
                DT_VERSYM => &mut versions,
                _ => continue,
            };
            *slot = Some(dynamic.address_of(entry.value));
        }
        let hash = gnu.map(Hash::Gnu).or_else(|| system_v.map(Hash::SystemV))?;
        Some(Symbols {
            base: dynamic.base,
            table: table?,
            texts: texts?,
            hash,
            versions: versions.unwrap_or(0),
        })
    }

    fn find(self, name: Name<'_>) -> Option<usize> {
        match self.hash {
            Hash::Gnu(hash) => self.find_by_gnu(hash as *const u32, name),
            Hash::SystemV(hash) => {
                // SAFETY: how many entries the table of symbols has is the second word of this one.
                let count = unsafe { (hash as *const u32).wrapping_add(1).read() } as usize;
                (1..count).find_map(|index| self.defined_as(index, name))
            }
        }
    }

    fn find_by_gnu(self, hash: *const u32, name: Name<'_>) -> Option<usize> {
        // SAFETY: inside the table, as its own header describes it, which is mapped as long as the object.
        let word = |index: usize| unsafe { hash.wrapping_add(index).read() };
        let (buckets, first, blooms) = (word(0), word(1), word(2) as usize);
        if buckets == 0 || blooms == 0 {
            return None;
        }
        let wanted = name.hash;
        let bits = (4 + 2 * (wanted as usize / 64 % blooms), word(3));
        let bloom = u64::from(word(bits.0)) | u64::from(word(bits.0 + 1)) << 32;
        let mask = 1 << (wanted % 64) | 1 << (wanted.wrapping_shr(bits.1) % 64);
        if bloom & mask != mask {
            return None;
        }
        let start = 4 + 2 * blooms;
        let chain = start + buckets as usize;
        let mut index = word(start + (wanted % buckets) as usize);
        if index < first {
            return None;
        }
        loop {
            let hash = word(chain + (index - first) as usize);
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

    fn defined_as(self, index: usize, name: Name<'_>) -> Option<usize> {
        const STT_TLS: u8 = 6;
        const STT_GNU_IFUNC: u8 = 10;
        let symbol = (self.table as *const libc::Elf64_Sym).wrapping_add(index);
        // SAFETY: an entry that the hash table names, of a table that is mapped as long as the object.
        let symbol = unsafe { symbol.read() };
        let kind = symbol.st_info & 0xf;
        if symbol.st_shndx == 0 || symbol.st_value == 0 || kind == STT_TLS || self.is_of_the_past(index) {
            return None;
        }
        let text = self.texts.wrapping_add(symbol.st_name as usize) as *const u8;
        // SAFETY: a name is a place in the string table, which is mapped as long as the object.
        if !unsafe { name.is(text) } {
            return None;
        }
        let address = self.base.wrapping_add(symbol.st_value as usize);
        if kind != STT_GNU_IFUNC {
            return Some(address);
        }
        // SAFETY: a function that gives the address of the one to be called; ld.so has called it before, as we do.
        let resolve: unsafe extern "C" fn(u64, *const u64) -> usize =
            unsafe { core::mem::transmute(address) };
        // SAFETY: getauxval takes no pointer.
        let features = unsafe { libc::getauxval(libc::AT_HWCAP) };
        // SAFETY: as above.
        let more = unsafe { libc::getauxval(libc::AT_HWCAP2) };
        // aarch64's gets them (`sys/ifunc.h`), x86-64's asks the processor.
        const HAS_MORE: u64 = 1 << 62;
        let all = [size_of::<[u64; 3]>() as u64, features, more];
        // SAFETY: as above; the structure outlives the call.
        Some(unsafe { resolve(features | HAS_MORE, all.as_ptr()) })
    }

    /// A version of a function that is there only for programs which were linked with it: `@` and not `@@` to the linker.
    fn is_of_the_past(self, index: usize) -> bool {
        const HIDDEN: u16 = 0x8000;
        if self.versions == 0 {
            return false;
        }
        // SAFETY: one entry for each of the table of symbols, mapped as long as the object.
        let version = unsafe { (self.versions as *const u16).wrapping_add(index).read() };
        version & HIDDEN != 0
    }
}

fn is_program(object: &libc::dl_phdr_info) -> bool {
    // SAFETY: getauxval takes no pointer.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    // Where the linker was started by its name, with a program to run, only glibc's puts this right; but only glibc has
    // lists that do not begin with the program.
    object.dlpi_phdr as usize == headers as usize || !super::c_library::is_glibc()
}

/// What of it cannot be written to any more, though it was while the object was loaded: in whole pages.
pub(super) fn sealed(object: &libc::dl_phdr_info) -> core::ops::Range<usize> {
    let Some(header) = headers(object).iter().find(|header| header.p_type == libc::PT_GNU_RELRO) else {
        return 0..0;
    };
    let page = super::memory::page_bytes() as usize;
    let start = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
    let end = start.wrapping_add(header.p_memsz as usize);
    start & !(page - 1)..end & !(page - 1)
}

fn headers(object: &libc::dl_phdr_info) -> &[libc::Elf64_Phdr] {
    // SAFETY: the program headers of a loaded object, dlpi_phnum of them.
    unsafe { core::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) }
}

pub(super) fn segments(object: &libc::dl_phdr_info) -> impl Iterator<Item = core::ops::Range<usize>> {
    headers(object).iter().filter(|header| header.p_type == libc::PT_LOAD).map(|header| {
        let start = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        start..start.wrapping_add(header.p_memsz as usize)
    })
}

pub(super) fn dynamic_of(object: &libc::dl_phdr_info) -> Option<Dynamic> {
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
const DT_HASH: isize = 4;
const DT_STRTAB: isize = 5;
const DT_SYMTAB: isize = 6;
const DT_SONAME: isize = 14;
const DT_DEBUG: isize = 21;
const DT_GNU_HASH: isize = 0x6fff_fef5;
const DT_VERSYM: isize = 0x6fff_fff0;
const DT_FLAGS_1: isize = 0x6fff_fffb;
const DF_1_NODELETE: usize = 8;

/// The dynamic section of a loaded object: entries up to DT_NULL.
#[derive(Clone, Copy)]
pub(super) struct Dynamic {
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

    pub(super) fn value(self, tag: isize) -> Option<usize> {
        self.entries().find(|entry| entry.tag == tag).map(|entry| entry.value)
    }

    fn is_never_unloaded(self) -> bool {
        self.value(DT_FLAGS_1).is_some_and(|flags| flags & DF_1_NODELETE != 0)
    }

    /// An address in the object. glibc has made one of it, in all but the kernel's own object, which may have been linked
    /// for any address; musl leaves it as it is in the file. It lies in the object, as the dynamic section does.
    fn address_of(self, value: usize) -> usize {
        let moved = self.base.wrapping_add(value);
        let from_here = |address: usize| address.abs_diff(self.entries as usize);
        if from_here(moved) < from_here(value) { moved } else { value }
    }

    /// The text at this place of the string table.
    fn text(self, at: usize) -> Option<&'static [u8]> {
        let table = self.address_of(self.value(DT_STRTAB)?);
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
        let file = |path: &[u8]| last_position(path, b'/').map_or(0, |slash| slash + 1);
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
