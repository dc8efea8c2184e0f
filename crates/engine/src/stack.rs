//! The main stack, mapped as far as it may grow, so that a full address space can never refuse its growth.
//!
//! A refused growth of the main stack is a bare SIGSEGV. One write near the bottom of what `RLIMIT_STACK` allows makes
//! the kernel extend the mapping all the way, at the price of one page of memory (and of the address space, which
//! counts). Other threads' stacks are mapped whole when they start.

use super::real::{Real, call_real};
use core::sync::atomic::{AtomicUsize, Ordering};
use oomguard_core::sys;
use oomguard_core::sys::memory::{Resource, rlimit};

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
    if sys::memory::touch_from_the_kernel(bottom) {
        RESERVED_FROM.store(whole_pages(bottom, page as usize), Ordering::Relaxed);
    }
}

static MLOCKALL: Real = Real::new(c"mlockall");

/// Asks the dynamic linker now, so that nobody has to later.
pub(super) fn resolve() {
    let _ = MLOCKALL.address();
}

/// mlockall(2), as the program and its libraries call it: what is mapped is what RLIMIT_MEMLOCK counts, and what would
/// have to be there in memory. So the main stack gets back to what it uses, and grows as without a guard from then on.
///
/// # Safety
/// That of mlockall(2).
#[cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]
pub(super) unsafe extern "C" fn mlockall(flags: i32) -> i32 {
    give_back();
    match call_real!(MLOCKALL, unsafe extern "C" fn(i32) -> i32) {
        // SAFETY: the argument is the caller's, whose contract is the same.
        Some(real) => unsafe { real(flags) },
        // SAFETY: the system call behind it, with the same argument.
        None => unsafe { libc::syscall(libc::SYS_mlockall, flags) as i32 },
    }
}

/// The lowest page that was mapped; zero for none. Relaxed: written before `main`.
static RESERVED_FROM: AtomicUsize = AtomicUsize::new(0);

/// Unmaps what lies below the main stack's use. Only the main thread knows how far that goes.
#[cfg_attr(any(not(target_env = "gnu"), target_feature = "crt-static"), allow(dead_code))]
fn give_back() {
    /// Signal handlers may come while this runs.
    const LEFT_BELOW: usize = 64 << 10;
    if sys::process::tid() != sys::process::pid() {
        return;
    }
    let bottom = RESERVED_FROM.swap(0, Ordering::Relaxed);
    let here = 0u8;
    let page = sys::memory::page_bytes() as usize;
    let end = whole_pages((&raw const here as usize).saturating_sub(LEFT_BELOW), page);
    if bottom != 0 && bottom < end {
        sys::memory::unmap_unused_stack(bottom, end - bottom);
    }
}

/// Rounded down. A page is a power of two.
fn whole_pages(bytes: usize, page: usize) -> usize {
    bytes & !page.wrapping_sub(1)
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
