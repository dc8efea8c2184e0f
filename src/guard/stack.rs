//! The main stack, mapped as far as it may grow, so that a full address space can never refuse its growth.
//!
//! A refused growth of the main stack is a bare SIGSEGV. One write near the bottom of what `RLIMIT_STACK` allows makes
//! the kernel extend the mapping all the way, at the price of one page of memory (and of the address space, which
//! counts). Other threads' stacks are mapped whole when they start.

use crate::sys;
use crate::sys::memory::{Resource, rlimit};

/// How far a stack without a limit is reserved, in bytes; the usual `RLIMIT_STACK`.
const UNLIMITED_STACK_BYTES: u64 = 8 << 20;

/// The main stack takes at most this part of the limit, and at most half of what is free: a process with a small
/// limit has better uses for it.
const LARGEST_PART_OF_LIMIT: u64 = 4;

/// From here on a program that has not yet begun leaves room enough for its stack.
const SMALL_LIMIT_BYTES: u64 = 128 << 20;

/// More than the kernel maps of a new stack (128 KiB) and this program can have used before `main`.
const ALREADY_MAPPED_BYTES: usize = 512 << 10;

/// Maps the main stack. Called in the main thread, before the limit is set.
pub(super) fn reserve_main_stack(limit_bytes: u64) {
    // It takes a write below the stack for a mistake, and has a stack of its own for the program.
    if sys::valgrind::is_running() {
        return;
    }
    let page = sys::memory::page_bytes();
    let allowed = rlimit(Resource::Stack).soft.unwrap_or(UNLIMITED_STACK_BYTES);
    let wanted =
        allowed.min(limit_bytes / LARGEST_PART_OF_LIMIT).min(half_of_what_is_free(limit_bytes)) / page * page;
    let Some(top) = top_of_main_stack(page as usize) else { return };
    let here = 0u8;
    let known =
        (&raw const here as usize).saturating_sub(ALREADY_MAPPED_BYTES) / page as usize * page as usize;
    // One page above the last one that is allowed.
    let bottom = top.saturating_sub(wanted as usize).saturating_add(page as usize);
    if bottom >= known || !sys::memory::is_free_to_map(bottom, known - bottom) {
        return;
    }
    // A refusal leaves things as they were: the stack then grows, or does not, as without a guard.
    let _ = sys::memory::touch_from_the_kernel(bottom);
}

/// A small limit may be nearly used up already. For others this need not be read: it takes some 20 µs.
fn half_of_what_is_free(limit_bytes: u64) -> u64 {
    if limit_bytes >= SMALL_LIMIT_BYTES {
        return u64::MAX;
    }
    let in_use = sys::memory::address_space_use().map_or(0, |in_use| in_use.all);
    limit_bytes.saturating_sub(in_use) / 2
}

/// The end of the main stack's mapping. The kernel puts the program's file name at the very top, then one null word.
fn top_of_main_stack(page: usize) -> Option<usize> {
    let name = sys::process::executable_name_address()?;
    // SAFETY: AT_EXECFN is the address of a C string that lives as long as the process.
    let len = unsafe { core::ffi::CStr::from_ptr(name as *const _) }.count_bytes();
    (name + len + 1 + size_of::<usize>()).checked_next_multiple_of(page)
}
