//! The environment that the program and its children see: what belongs to this process alone is taken out of it, in
//! place, before anybody has looked.

use core::ffi::{CStr, c_char};
use oomguard_core::contract::variable;
use oomguard_core::sys;
use oomguard_engine::startup::c_string;

/// The array that the loader made.
#[derive(Clone, Copy)]
pub(super) struct Variables {
    entries: *mut *mut c_char,
}

impl Variables {
    /// # Safety
    /// `entries` is an array of writable C strings that ends in a null pointer and lives as long as the process, and
    /// nobody else uses it before the constructor is done.
    pub(super) unsafe fn new(entries: *const *const c_char) -> Self {
        Variables { entries: entries.cast_mut().cast() }
    }

    fn entry(self, index: usize) -> Option<*mut c_char> {
        // SAFETY: not past the null pointer: each entry before this one was looked at and was none.
        let at = unsafe { self.entries.add(index) };
        // SAFETY: as above.
        let entry = unsafe { at.read() };
        (!entry.is_null()).then_some(entry)
    }

    fn text(entry: *mut c_char) -> &'static [u8] {
        // SAFETY: a C string that lives as long as the process.
        unsafe { c_string(entry) }
    }

    /// Takes out the variables that `condemned` names.
    fn remove(self, condemned: impl Fn(&[u8]) -> bool) {
        let mut kept = 0;
        let mut index = 0;
        while let Some(entry) = self.entry(index) {
            index += 1;
            if !condemned(Self::text(entry)) {
                self.set(kept, entry);
                kept += 1;
            }
        }
        if kept < index {
            self.set(kept, core::ptr::null_mut());
        }
    }

    fn set(self, index: usize, entry: *mut c_char) {
        // SAFETY: within the array: no further than what was read before.
        let at = unsafe { self.entries.add(index) };
        // SAFETY: as above; the array is writable by contract.
        unsafe { at.write(entry) };
    }

    /// The descriptor of the record is closed by now, and its number may become another file's. A record that stays the
    /// parent's descriptor is still there if this process becomes another program.
    pub(super) fn remove_closed_record(self) {
        self.remove(|entry| value_of(entry, variable::RECORD).is_some_and(|place| place.starts_with(b"fd:")));
    }

    /// What the program starts is left alone: neither our variables nor this library reach it.
    pub(super) fn remove_all_of_ours(self, library: &CStr) {
        self.remove(|entry| entry.starts_with(b"OOMGUARD_"));
        for entry in (0..).map_while(|index| self.entry(index)) {
            if let Some(list) = value_of(Self::text(entry), PRELOAD) {
                // SAFETY: the value lies within the entry, behind the name and the sign.
                let at = unsafe { entry.add(PRELOAD.len() + 1) };
                // SAFETY: writable by contract, and `list` is not used any more once it is written.
                unsafe { take_out_of_list(at.cast(), list.len(), library.to_bytes()) };
            }
        }
        self.remove(|entry| value_of(entry, PRELOAD).is_some_and(<[u8]>::is_empty));
    }
}

pub(super) const PRELOAD: &str = "LD_PRELOAD";

pub(super) fn value_of<'a>(entry: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Takes the library out of a list as ld.so(8) reads it: parted by colons or spaces.
///
/// # Safety
/// `len` bytes and a NUL are writable at `list`, and nobody else uses them.
pub(super) unsafe fn take_out_of_list(list: *mut u8, len: usize, library: &[u8]) {
    // SAFETY: by contract.
    let list = unsafe { core::slice::from_raw_parts_mut(list, len + 1) };
    let mut kept = 0;
    let mut start = 0;
    while start < len {
        let rest = list.get(start..len).unwrap_or(&[]);
        let end = start + rest.iter().position(|byte| b": ".contains(byte)).unwrap_or(rest.len());
        let name = list.get(start..end).unwrap_or(&[]);
        if !name.is_empty() && !is_library(name, library) {
            if kept > 0
                && let Some(slot) = list.get_mut(kept)
            {
                *slot = b':';
                kept += 1;
            }
            list.copy_within(start..end, kept);
            kept += end - start;
        }
        start = end + 1;
    }
    if let Some(slot) = list.get_mut(kept) {
        *slot = 0;
    }
}

/// A name without a slash is looked for in the usual directories.
pub(super) fn is_library(name: &[u8], library: &[u8]) -> bool {
    name == library || library.strip_suffix(name).is_some_and(|before| before.ends_with(b"/"))
}

/// The file that this code was loaded from.
pub(super) fn this_library() -> Option<&'static CStr> {
    sys::objects::object_of(this_library as *const () as usize).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(list: &str) -> String {
        let mut bytes = list.as_bytes().to_vec();
        bytes.push(0);
        // SAFETY: a vector of the test's own.
        unsafe { take_out_of_list(bytes.as_mut_ptr(), list.len(), b"/opt/lib/liboomguard.so") };
        CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn only_this_library_is_taken_out_of_the_list() {
        assert_eq!(without("/opt/lib/liboomguard.so"), "");
        assert_eq!(without("/opt/lib/liboomguard.so:/usr/lib/libother.so"), "/usr/lib/libother.so");
        assert_eq!(without("libfirst.so liboomguard.so libother.so"), "libfirst.so:libother.so");
        assert_eq!(without("/elsewhere/liboomguard.so"), "/elsewhere/liboomguard.so");
        assert_eq!(without(""), "");
    }
}
