//! The `GlobalAlloc` wrapper: forward, compare with null, and hand refusals over. Knows neither limits nor reports.

use super::anchor;
use super::c_heap;
use super::interface::{Guard, Source};
use super::notes;
use super::panics;
use super::profile;
use super::real;
use super::refusal;
use core::alloc::{GlobalAlloc, Layout};
use core::any::TypeId;
use core::ptr::null_mut;
use oomguard_core::report::Request;
use std::alloc::System;

/// How the C library aligns all blocks: `max_align_t` on 64-bit machines, and what `System` relies on.
const C_ALIGN: usize = 16;

impl<A: GlobalAlloc + 'static, S: Source> Guard<A, S> {
    #[cold]
    #[inline(never)]
    fn refused(&self, bytes: usize, align: usize, again: &mut dyn FnMut() -> *mut u8) -> *mut u8 {
        anchor::link_into_program::<A, S>();
        refusal::handle_allocation(Request { bytes: bytes as u64, align: Some(align as u64) }, again)
    }

    /// Whether this guard samples allocations: known when it is compiled, so that one that does not has no instruction
    /// more.
    const PROFILES: bool = S::SETTINGS.profiles();

    /// An allocation that came about in the end, or did not.
    fn note_late(block: *mut u8, bytes: usize) -> *mut u8 {
        if Self::PROFILES && !block.is_null() {
            profile::note_allocation(block, bytes);
        }
        block
    }

    #[inline(always)]
    fn note(block: *mut u8, bytes: usize) -> *mut u8 {
        if Self::PROFILES {
            profile::note_allocation(block, bytes);
        }
        block
    }

    /// What Rust's `System` asks of the C library is asked of it here directly: our own names for it, which C code goes
    /// through, would look at the same answer once more. `None`: another allocator's.
    #[inline(always)]
    fn ask(&self, layout: Layout, zeroed: bool) -> Option<*mut u8> {
        if !Self::ASKS_C_LIBRARY || TypeId::of::<A>() != TypeId::of::<System>() {
            return None;
        }
        let (bytes, align) = (layout.size(), layout.align());
        let is_plain = align <= C_ALIGN && align <= bytes;
        let block = match (is_plain, zeroed) {
            // SAFETY: the size is not zero, by `GlobalAlloc`'s contract.
            (true, false) => unsafe { c_heap::malloc::call(bytes) },
            // SAFETY: as above.
            (true, true) => unsafe { c_heap::calloc::call(bytes, 1) },
            // SAFETY: as above; the alignment is a power of two.
            (false, _) => unsafe { c_heap::memalign::call(align.max(size_of::<usize>()), bytes) },
        };
        if zeroed && !is_plain && !block.is_null() {
            // SAFETY: a new block of so many bytes.
            unsafe { block.cast::<u8>().write_bytes(0, bytes) };
        }
        Some(block.cast())
    }

    /// While it matters what is allocated after a refusal: the C library's heap counts by itself, another allocator
    /// not.
    #[inline(always)]
    fn count(&self, block: *mut u8, bytes: usize, old: *mut u8) {
        if !(Self::ASKS_C_LIBRARY && TypeId::of::<A>() == TypeId::of::<System>())
            && notes::is_watching()
            && !block.is_null()
        {
            notes::count(bytes);
            // SAFETY: on its way to the program.
            unsafe { panics::note_block(block, bytes, old) };
        }
    }

    const ASKS_C_LIBRARY: bool = real::WATCHES_C_HEAP;

    /// # Safety
    /// That of `GlobalAlloc::alloc`.
    #[inline(always)]
    unsafe fn inner_alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        let block = self.ask(layout, false).unwrap_or_else(|| unsafe { self.inner.alloc(layout) });
        self.count(block, layout.size(), null_mut());
        block
    }

    /// # Safety
    /// That of `GlobalAlloc::alloc_zeroed`.
    #[inline(always)]
    unsafe fn inner_alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`, which is the same.
        let block = self.ask(layout, true).unwrap_or_else(|| unsafe { self.inner.alloc_zeroed(layout) });
        self.count(block, layout.size(), null_mut());
        block
    }

    /// # Safety
    /// That of `GlobalAlloc::realloc`.
    #[inline(always)]
    unsafe fn inner_realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let is_plain = layout.align() <= C_ALIGN && layout.align() <= new_size;
        if Self::ASKS_C_LIBRARY && TypeId::of::<A>() == TypeId::of::<System>() && is_plain {
            // SAFETY: a block of the C library's, as `System` has them all there; the new size is not zero.
            return unsafe { c_heap::realloc::call(block.cast(), new_size) }.cast();
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`, which is the same.
        let moved = unsafe { self.inner.realloc(block, layout, new_size) };
        self.count(moved, new_size, block);
        moved
    }

    // One cold function per method, so that the hot path keeps nothing but what the inner call needs.

    #[cold]
    #[inline(never)]
    fn alloc_refused(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same call with the same layout as the one that was refused.
        let block = self.refused(layout.size(), layout.align(), &mut || unsafe { self.inner_alloc(layout) });
        Self::note_late(block, layout.size())
    }

    #[cold]
    #[inline(never)]
    fn alloc_zeroed_refused(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same call with the same layout as the one that was refused.
        let block =
            self.refused(layout.size(), layout.align(), &mut || unsafe { self.inner_alloc_zeroed(layout) });
        Self::note_late(block, layout.size())
    }

    #[cold]
    #[inline(never)]
    fn realloc_refused(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: a refused realloc has left the block as it was, so the same call may be made again.
        self.refused(new_size, layout.align(), &mut || unsafe { self.inner_realloc(block, layout, new_size) })
    }
}

// SAFETY: every block comes from `inner` and goes back to it with the same layout; null is passed on as null. The
// cold path calls user callbacks under `catch_unwind`, so nothing unwinds through here.
unsafe impl<A: GlobalAlloc + 'static, S: Source> GlobalAlloc for Guard<A, S> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        #[cfg(feature = "inject")]
        if super::inject::refuses_next() {
            return self.alloc_refused(layout);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        let block = unsafe { self.inner_alloc(layout) };
        if block.is_null() { self.alloc_refused(layout) } else { Self::note(block, layout.size()) }
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        #[cfg(feature = "inject")]
        if super::inject::refuses_next() {
            return self.alloc_zeroed_refused(layout);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`, which is the same.
        let block = unsafe { self.inner_alloc_zeroed(layout) };
        if block.is_null() { self.alloc_zeroed_refused(layout) } else { Self::note(block, layout.size()) }
    }

    #[inline(always)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        #[cfg(feature = "inject")]
        if super::inject::refuses_next() {
            return self.realloc_refused(block, layout, new_size);
        }
        // Before the block can be another thread's.
        let taken = if Self::PROFILES { profile::note_release_before_realloc(block) } else { None };
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`, which is the same.
        let mut moved = unsafe { self.inner_realloc(block, layout, new_size) };
        if moved.is_null() {
            moved = self.realloc_refused(block, layout, new_size);
        }
        if Self::PROFILES {
            if moved.is_null() {
                if let Some(taken) = taken {
                    profile::take_back(block, taken);
                }
            } else {
                profile::count_release(layout.size());
                profile::note_allocation(moved, new_size);
            }
        }
        moved
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if Self::PROFILES {
            profile::note_release(block, layout.size());
        }
        if Self::ASKS_C_LIBRARY && TypeId::of::<A>() == TypeId::of::<System>() {
            // SAFETY: a block of the C library's, as `System` has them all there.
            return unsafe { c_heap::free::call(block.cast()) };
        }
        if notes::is_watching() {
            panics::note_release(block as usize);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`, which is the same.
        unsafe { self.inner.dealloc(block, layout) }
    }
}
