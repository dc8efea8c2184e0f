//! The program and its libraries: where they are loaded, what they are, and where their unwind tables lie.
//!
//! Read from `/proc/self/maps` (proc_pid_maps(5)) and the loaded files' own headers (elf(5)), not from the dynamic
//! linker, which would take a lock that a dying thread may hold. Entries are only added; where two cover an address,
//! the later one holds, as the earlier one was unloaded.

use core::sync::atomic::{AtomicUsize, Ordering};
use oomguard_core::backoff::Backoff;
use oomguard_core::busy::Busy;
use oomguard_core::profile::{MAX_MODULES, ModuleFacts, Tables};
use oomguard_core::sys;
use oomguard_core::sys::fd::Lines;
use oomguard_core::text::{parts, position, until};

/// The files that are known.
#[repr(C)]
pub(crate) struct Files {
    /// Whether a thread adds to them.
    refreshing: Busy,
    count: AtomicUsize,
    /// Start, end, unwind table, its length.
    entries: [[AtomicUsize; 4]; MAX_MODULES],
}

/// A loaded file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct File {
    start: usize,
    pub(super) end: usize,
    /// `.eh_frame_hdr`; zero where there is none.
    pub(super) unwind_table: usize,
    pub(super) unwind_table_bytes: usize,
}

impl File {
    pub(super) fn contains(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// One that lies anywhere in memory.
    #[cfg(any(test, fuzzing))]
    pub(super) fn at(place: core::ops::Range<usize>, unwind_table: usize, unwind_table_bytes: usize) -> File {
        File { start: place.start, end: place.end, unwind_table, unwind_table_bytes }
    }

    #[cfg(test)]
    pub(super) fn start(&self) -> usize {
        self.start
    }
}

impl Files {
    /// None known yet.
    pub(crate) const fn new() -> Files {
        Files {
            refreshing: Busy::new(),
            count: AtomicUsize::new(0),
            entries: [const { [const { AtomicUsize::new(0) }; 4] }; MAX_MODULES],
        }
    }

    /// The file that an address is in. Async-signal-safe.
    pub(super) fn find(&self, address: usize) -> Option<File> {
        // Acquire: pairs with the Release in `add`, so that the entries are seen whole.
        let count = self.count.load(Ordering::Acquire);
        self.entries
            .get(..count)?
            .iter()
            .rev()
            .map(|entry| {
                // Relaxed: written before the count, and never again.
                let [start, end, unwind_table, unwind_table_bytes] =
                    entry.each_ref().map(|word| word.load(Ordering::Relaxed));
                File { start, end, unwind_table, unwind_table_bytes }
            })
            .find(|file| file.contains(address))
    }

    /// By one thread at a time.
    fn add(&self, file: File) -> bool {
        // Relaxed: this thread is the only one that writes.
        let count = self.count.load(Ordering::Relaxed);
        let Some(entry) = self.entries.get(count) else { return false };
        let words = [file.start, file.end, file.unwind_table, file.unwind_table_bytes];
        for (slot, word) in entry.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        self.count.store(count + 1, Ordering::Release);
        true
    }

    /// Adds what is loaded already, as the dynamic linker tells it: at start-up, when nobody else can hold its lock. Takes
    /// a microsecond, where reading the kernel's list takes fifty.
    /// How many bytes of them cannot be written to.
    pub(crate) fn add_loaded(&self) -> u64 {
        struct Adding<'a> {
            files: &'a Files,
            not_writable: u64,
        }
        unsafe extern "C" fn add(info: *mut libc::dl_phdr_info, _: usize, adding: *mut libc::c_void) -> i32 {
            // SAFETY: dl_iterate_phdr hands over a valid description for the length of this call.
            let info = unsafe { &*info };
            // SAFETY: the pointer to `adding` below, which outlives the call.
            let adding = unsafe { &mut *adding.cast::<Adding<'_>>() };
            if !info.dlpi_phdr.is_null() {
                // SAFETY: the program headers of a loaded object, dlpi_phnum of them, loaded as long as it is.
                let headers =
                    unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
                if let Some(file) = (Image { bias: info.dlpi_addr as usize, headers }).file() {
                    adding.files.add(file);
                    let writable = headers
                        .iter()
                        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0);
                    let writable: u64 = writable.map(|header| header.p_memsz).sum();
                    adding.not_writable += ((file.end - file.start) as u64).saturating_sub(writable);
                }
            }
            0
        }
        let mut adding = Adding { files: self, not_writable: 0 };
        // SAFETY: the callback gets the pointer to `adding`, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut adding).cast()) };
        adding.not_writable
    }

    /// Looks for files that are not known yet, unless another thread is doing so, and adds them to the profile's tables
    /// as well, where there are such. Makes system calls only; no lock, no allocation. Whether it looked.
    pub(crate) fn refresh(&self, tables: Option<&Tables>) -> bool {
        // Each refresh sees what the one before it added.
        let Some(_inside) = self.refreshing.try_enter() else { return false };
        self.read_maps(tables);
        true
    }

    /// The same for whoever has to know: where another thread is doing so, it is waited for, and not for long, as this one
    /// may have interrupted it.
    pub(crate) fn refresh_within(&self, longest_ms: u64) {
        let until_ms = sys::clock::monotonic_ms() + longest_ms;
        while !self.refresh(None) && sys::clock::monotonic_ms() < until_ms {
            sys::bare::sleep_ms(1);
        }
    }

    /// The same, but not often: an unknown address may be of code that no file holds.
    pub(crate) fn refresh_now_and_then(&self, tables: &Tables) {
        static BACKOFF: Backoff = Backoff::new();
        let before_ms = sys::clock::monotonic_ms();
        if BACKOFF.is_due(before_ms) {
            self.refresh(Some(tables));
            // As if it had taken that long: at most ten times in a second.
            BACKOFF.note_attempt(before_ms, sys::clock::monotonic_ms() + 6);
        }
    }

    fn read_maps(&self, tables: Option<&Tables>) {
        let mut buffer = [0; 512];
        let Some(mut lines) = Lines::open(c"/proc/self/maps", &mut buffer) else { return };
        // The mapping of a file's beginning that was seen last, and the file.
        let mut beginning = (0, 0);
        while let Some(mapping) = lines.next().map(Mapping::read) {
            let Some(mapping) = mapping else { continue };
            if mapping.offset == 0 && mapping.is_readable {
                beginning = (mapping.start, mapping.inode);
            }
            // A file that is mapped to be read, as debuggers and symbolisers do, has no code that can be executed.
            if mapping.is_executable && mapping.inode == beginning.1 && mapping.inode != 0 {
                self.add_if_new(beginning.0, mapping.path, tables);
                beginning = (0, 0);
            }
        }
    }

    fn add_if_new(&self, start: usize, path: &[u8], tables: Option<&Tables>) {
        let Some(image) = Image::at(start) else { return };
        let Some(file) = image.file() else { return };
        if self.find(start).is_some_and(|known| known == file) {
            return;
        }
        let is_known = self.add(file);
        let Some(tables) = tables else { return };
        if is_known {
            tables.add_module(&ModuleFacts {
                start: file.start as u64,
                end: file.end as u64,
                bias: image.bias as u64,
                build_id: image.build_id(),
                path,
            });
        } else {
            tables.note_loss(oomguard_core::profile::Loss::Modules, 1);
        }
    }
}

/// A line of the kernel's list.
struct Mapping<'a> {
    start: usize,
    is_readable: bool,
    is_executable: bool,
    offset: usize,
    inode: usize,
    path: &'a [u8],
}

impl Mapping<'_> {
    /// `None` for one without a file.
    fn read(line: &[u8]) -> Option<Mapping<'_>> {
        let path = position(line, b'/')?;
        let (facts, path) = line.split_at_checked(path)?;
        let mut fields = parts(facts, b' ').filter(|field| !field.is_empty());
        let start = until(fields.next()?, b'-');
        let permissions = fields.next()?;
        let offset = fields.next()?;
        let inode = fields.nth(1)?;
        Some(Mapping {
            start: hexadecimal(start)?,
            is_readable: permissions.first() == Some(&b'r'),
            is_executable: permissions.get(2) == Some(&b'x'),
            offset: hexadecimal(offset)?,
            inode: usize::try_from(oomguard_core::text::whole_number(inode)?).ok()?,
            path,
        })
    }
}

fn hexadecimal(text: &[u8]) -> Option<usize> {
    text.iter().try_fold(0usize, |number, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(number.checked_mul(16)? + digit as usize)
    })
}

/// A loaded file's first page: its headers.
struct Image {
    bias: usize,
    headers: &'static [libc::Elf64_Phdr],
}

const PAGE: usize = 4096;

impl Image {
    fn at(start: usize) -> Option<Image> {
        if !sys::memory::is_readable(start) {
            return None;
        }
        // SAFETY: a file's beginning, page-aligned and readable, that the kernel says is mapped.
        let header = unsafe { &*(start as *const libc::Elf64_Ehdr) };
        let headers_at = header.e_phoff as usize;
        let count = usize::from(header.e_phnum);
        let is_elf = header.e_ident.starts_with(b"\x7fELF")
            && header.e_phentsize as usize == size_of::<libc::Elf64_Phdr>();
        let fits = headers_at.checked_add(count * size_of::<libc::Elf64_Phdr>())? <= PAGE;
        if !is_elf || !fits || !headers_at.is_multiple_of(8) {
            return None;
        }
        // SAFETY: within the page that was found readable, and aligned.
        let headers =
            unsafe { core::slice::from_raw_parts((start + headers_at) as *const libc::Elf64_Phdr, count) };
        let first = headers.iter().find(|header| header.p_type == libc::PT_LOAD && header.p_offset == 0)?;
        Some(Image { bias: start.wrapping_sub(first.p_vaddr as usize & !(PAGE - 1)), headers })
    }

    // Once in a program: two ask for it.
    #[inline(never)]
    fn file(&self) -> Option<File> {
        let loaded = || self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let start = loaded().map(|header| header.p_vaddr).min()? as usize & !(PAGE - 1);
        let end = loaded().filter_map(|header| header.p_vaddr.checked_add(header.p_memsz)).max()?;
        let table = self.headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME);
        Some(File {
            start: self.bias.wrapping_add(start),
            end: self.bias.wrapping_add(end as usize),
            unwind_table: table.map_or(0, |table| self.bias.wrapping_add(table.p_vaddr as usize)),
            unwind_table_bytes: table.map_or(0, |table| table.p_memsz as usize),
        })
    }

    /// The note that the linker left to tell this build from others; empty where there is none.
    fn build_id(&self) -> &'static [u8] {
        const NT_GNU_BUILD_ID: u32 = 3;
        for header in self.headers.iter().filter(|header| header.p_type == libc::PT_NOTE) {
            let at = self.bias.wrapping_add(header.p_vaddr as usize);
            let len = header.p_memsz as usize;
            let is_whole = len > 0 && sys::memory::is_readable(at) && sys::memory::is_readable(at + len - 1);
            if !is_whole || len > PAGE {
                continue;
            }
            // SAFETY: a note segment of the file, in memory that was found readable and is not written.
            let mut notes = unsafe { core::slice::from_raw_parts(at as *const u8, len) };
            // Length of the name, length of the content, kind; then both, each padded to four bytes.
            while let Some((head, rest)) = notes.split_first_chunk::<12>() {
                let word = |index: usize| {
                    let bytes = head.get(index * 4..).and_then(|rest| rest.first_chunk::<4>());
                    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
                };
                let name_len = (word(0) as usize).next_multiple_of(4);
                let content_len = word(1) as usize;
                let Some((name, rest)) = rest.split_at_checked(name_len) else { break };
                if name.starts_with(b"GNU\0") && word(2) == NT_GNU_BUILD_ID {
                    return rest.get(..content_len).unwrap_or(&[]);
                }
                notes = rest.get(content_len.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_threads_that_look_at_once_both_have_found() {
        let here = Files::new as *const () as usize;
        for _ in 0..100 {
            let (files, begin) = (Files::new(), std::sync::Barrier::new(2));
            let find = || {
                begin.wait();
                files.refresh_within(60_000);
                files.find(here).is_some()
            };
            let found = std::thread::scope(|scope| {
                [scope.spawn(find), scope.spawn(find)].map(|one| one.join().unwrap())
            });
            assert_eq!(found, [true; 2]);
        }
    }

    #[test]
    fn a_line_of_the_kernels_is_read() {
        let line = b"7f00a000-7f00b000 r-xp 00022000 fe:01 1234        /usr/lib/x y.so (deleted)";
        let mapping = Mapping::read(line).unwrap();
        assert_eq!((mapping.start, mapping.offset, mapping.inode), (0x7f00_a000, 0x22000, 1234));
        assert!(mapping.is_readable && mapping.is_executable);
        assert_eq!(mapping.path, b"/usr/lib/x y.so (deleted)");
        for without_file in ["7ffd000-7ffe000 rw-p 00000000 00:00 0      [stack]", "", "zz"] {
            assert!(Mapping::read(without_file.as_bytes()).is_none());
        }
        assert!(Mapping::read(b"xyz-1 r-xp 0 0 0 /a").is_none());
    }
}
