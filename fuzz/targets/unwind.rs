//! Unwind tables, read where they lie: nothing beside them is read, and what they say can be kept in a word.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomguard::__fuzz;

fuzz_target!(|data: &[u8]| {
    let Some((into, tables)) = data.split_first_chunk::<2>() else { return };
    // In memory of their own, so that what is read beside them is noticed.
    __fuzz::unwind(&tables.to_vec(), u16::from_ne_bytes(*into).into());
});
