//! Where an object keeps the address of another's function, by which its code calls it: what the dynamic linker has written
//! there when it loaded the object can be exchanged for one of ours. Unlike a definition of that name it changes nothing for
//! others, and nothing for objects that come later.
//!
//! For constructors, as `objects` is.

use super::objects::{self, Name};
use super::{memory, raw};
use core::ops::{ControlFlow, Range};

/// `Elf64_Rela` in elf(5).
#[repr(C)]
#[derive(Clone, Copy)]
struct Relocation {
    offset: usize,
    info: u64,
    addend: i64,
}

impl Relocation {
    /// R_*_GLOB_DAT and R_*_JUMP_SLOT: an address, and nothing is added to it.
    #[cfg(target_arch = "x86_64")]
    const OF_IMPORTS: [u32; 2] = [6, 7];
    #[cfg(target_arch = "aarch64")]
    const OF_IMPORTS: [u32; 2] = [1025, 1026];

    fn symbol_of_import(self) -> Option<usize> {
        Self::OF_IMPORTS.contains(&(self.info as u32)).then_some((self.info >> 32) as usize)
    }
}

/// The function of another object's.
pub struct Import {
    slot: usize,
    /// What cannot be written to once the object is loaded.
    sealed: Range<usize>,
    address: usize,
}

impl Import {
    /// What the object that `inside` lies in imports by this name. `None` also where it has not been looked up yet, as it is
    /// then at its first call, and written there anew.
    pub fn of(name: Name<'_>, inside: usize) -> Option<Import> {
        let mut found = None;
        objects::for_each_object(|object| {
            if !objects::segments(object).any(|segment| segment.contains(&inside)) {
                return ControlFlow::Continue(());
            }
            let base = object.dlpi_addr as usize;
            // glibc has made an address of it, which lies in the object; musl leaves it as it is in the file.
            let is_address = |value: usize| objects::segments(object).any(|segment| segment.contains(&value));
            let address_of = |value| if is_address(value) { value } else { base.wrapping_add(value) };
            let slot =
                objects::dynamic_of(object).and_then(|dynamic| slot_of(name, dynamic, base, &address_of));
            found = slot.and_then(|slot| {
                // SAFETY: a slot of the object's, which is loaded and stays, as it has code that calls us.
                let address = unsafe { (slot as *const usize).read() };
                let is_looked_up = !objects::segments(object).any(|segment| segment.contains(&address));
                let sealed = objects::sealed(object);
                (is_looked_up && address != 0).then_some(Import { slot, sealed, address })
            });
            ControlFlow::Break(())
        });
        found
    }

    /// The function's address.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Has the object call `function` from now on.
    ///
    /// # Safety
    /// That is a function which does what the imported one does, for as long as the object is there.
    pub unsafe fn exchange_for(&self, function: usize) -> bool {
        let page = memory::page_bytes() as usize;
        let start = self.slot & !(page - 1);
        let is_sealed = self.sealed.contains(&self.slot);
        let protect = |protection: i32| {
            // SAFETY: one page of the object's own data, which stays readable; nobody else runs yet.
            unsafe { raw::call(libc::SYS_mprotect, [start, page, protection as usize, 0, 0, 0]) == 0 }
        };
        if is_sealed && !protect(libc::PROT_READ | libc::PROT_WRITE) {
            return false;
        }
        // SAFETY: the slot holds an address, and can be written to now; by contract what calls by it may call this one.
        unsafe { (self.slot as *mut usize).write(function) };
        if is_sealed {
            protect(libc::PROT_READ);
        }
        true
    }
}

const DT_PLTRELSZ: isize = 2;
const DT_RELA: isize = 7;
const DT_RELASZ: isize = 8;
const DT_JMPREL: isize = 23;
const DT_RELACOUNT: isize = 0x6fff_fff9;
const DT_SYMTAB: isize = 6;
const DT_STRTAB: isize = 5;

fn slot_of(
    name: Name<'_>,
    dynamic: objects::Dynamic,
    base: usize,
    address_of: &dyn Fn(usize) -> usize,
) -> Option<usize> {
    let symbols = address_of(dynamic.value(DT_SYMTAB)?);
    let texts = address_of(dynamic.value(DT_STRTAB)?);
    let is_named = |index: usize| {
        let symbol = (symbols as *const libc::Elf64_Sym).wrapping_add(index);
        // SAFETY: an entry that a relocation names, of a table that is mapped as long as the object.
        let symbol = unsafe { symbol.read() };
        // SAFETY: a name is a place in the string table, which is mapped as long as the object.
        unsafe { name.is(texts.wrapping_add(symbol.st_name as usize) as *const u8) }
    };
    // The linker puts first what is relative to the object itself, and tells how many.
    let first = dynamic.value(DT_RELACOUNT).unwrap_or(0);
    [(DT_RELA, DT_RELASZ, first), (DT_JMPREL, DT_PLTRELSZ, 0)].into_iter().find_map(|(at, bytes, first)| {
        let start = address_of(dynamic.value(at)?) as *const Relocation;
        let count = dynamic.value(bytes)? / size_of::<Relocation>();
        (first..count).find_map(|index| {
            // SAFETY: within the table, as the dynamic section describes it, which is mapped as long as the object.
            let relocation = unsafe { start.wrapping_add(index).read() };
            let symbol = relocation.symbol_of_import()?;
            is_named(symbol).then(|| base.wrapping_add(relocation.offset))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[cfg(all(target_env = "gnu", not(miri)))]
    #[test]
    fn a_program_calls_another_function_in_the_place_of_an_import() {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        extern "C" fn other() -> libc::gid_t {
            CALLS.fetch_add(1, Ordering::Relaxed);
            7
        }
        let here = slot_of as *const () as usize;
        // SAFETY: getegid takes nothing.
        let own = unsafe { libc::getegid() };
        let import = Import::of(Name::new(c"getegid"), here).expect("it is called here");
        // SAFETY: of the same signature, and nothing else in here calls it.
        assert!(unsafe { import.exchange_for(other as *const () as usize) });
        // SAFETY: as above.
        assert_eq!((unsafe { libc::getegid() }, CALLS.load(Ordering::Relaxed)), (7, 1));
        // SAFETY: the function that it was.
        assert!(unsafe { import.exchange_for(import.address()) });
        // SAFETY: as above.
        assert_eq!((unsafe { libc::getegid() }, CALLS.load(Ordering::Relaxed)), (own, 1));
        assert!(Import::of(Name::new(c"oomguard_no_such_name"), here).is_none());
    }
}
