//! Filling the process up to its limit: by the allocator, to the brim, or by mappings that it does not see.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::mem;

/// Blocks on the heap, chained through their first words.
pub struct Filled {
    last: *mut Block,
}

struct Block {
    before: *mut Block,
    bytes: usize,
}

const LEAST: usize = size_of::<Block>();

/// Takes all that the allocator gives: large blocks first, then the crumbs. Refusals are handled.
pub fn heap() -> Filled {
    let mut filled = Filled { last: std::ptr::null_mut() };
    let mut bytes = 16 << 20;
    while bytes >= LEAST {
        while filled.take(bytes) {}
        bytes /= 2;
    }
    filled
}

impl Filled {
    fn take(&mut self, bytes: usize) -> bool {
        let layout = Layout::from_size_align(bytes, align_of::<Block>()).expect("small enough");
        // SAFETY: the size is not zero.
        let block = unsafe { alloc(layout) }.cast::<Block>();
        let block = black_box(block);
        if block.is_null() {
            return false;
        }
        // SAFETY: a new block with room and alignment for it.
        unsafe { block.write(Block { before: self.last, bytes }) };
        self.last = block;
        true
    }

    pub fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        while !self.last.is_null() {
            // SAFETY: written by `take`, and not freed yet.
            let block = unsafe { self.last.read() };
            let layout = Layout::from_size_align(block.bytes, align_of::<Block>()).expect("as before");
            // SAFETY: from `alloc` with the same layout.
            unsafe { dealloc(self.last.cast(), layout) };
            self.last = block.before;
        }
    }
}

/// Mappings of our own, which the allocator knows nothing of.
pub struct Mapped {
    pieces: [(usize, usize); 64],
    used: usize,
}

/// Maps all but `rest` bytes, give or take a page or two. Nothing is touched, nothing is allocated.
pub fn mappings_but(rest: usize) -> Mapped {
    let kept_free = map(rest).expect("room for the rest");
    let mut mapped = Mapped { pieces: [(0, 0); 64], used: 0 };
    let mut bytes = 1 << 30;
    while bytes >= 4096 {
        match map(bytes) {
            Some(address) => {
                mapped.pieces[mapped.used] = (address, bytes);
                mapped.used += 1;
            }
            None => bytes /= 2,
        }
    }
    // SAFETY: a mapping of our own, which nobody uses.
    unsafe { libc::munmap(kept_free as *mut _, rest) };
    mapped
}

impl Mapped {
    pub fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        for (address, bytes) in &self.pieces[..self.used] {
            // SAFETY: a mapping of our own, which nobody uses.
            unsafe { libc::munmap(*address as *mut _, *bytes) };
        }
    }
}

/// A private writable mapping; what it costs counts under either measure.
pub fn map(bytes: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED { None } else { Some(at as usize) }
}

/// Allocates without end, a block at a time, and copes with nothing.
pub fn eat(bytes: usize) -> ! {
    loop {
        mem::forget(black_box(Vec::<u8>::with_capacity(black_box(bytes))));
    }
}

/// More than any limit.
pub const HUGE: usize = 1 << 40;

/// One request that cannot be met.
pub fn one_huge_request() {
    mem::forget(black_box(Vec::<u8>::with_capacity(black_box(HUGE))));
}

/// One request that cannot be met, and is coped with.
pub fn handled_refusal() {
    let mut block = Vec::<u8>::new();
    assert!(block.try_reserve(black_box(HUGE)).is_err());
}
