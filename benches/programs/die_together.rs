//! 64 threads eat memory until they are refused it, all at once. The moment of the first refusal is left on a page
//! that the parent shares through descriptor 3. `touched` as the first argument: what is eaten is written to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

const THREADS: usize = 64;
const BLOCK_BYTES: usize = 1 << 20;

static FIRST_REFUSAL: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

/// The system allocator, which notes when it first refuses.
struct Stamping;

fn note_refusal() {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    // SAFETY: null, or the shared page, which is never unmapped.
    if let Some(stamp) = unsafe { FIRST_REFUSAL.load(Ordering::Relaxed).as_ref() } {
        let _ = stamp.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system allocator as it is.
unsafe impl GlobalAlloc for Stamping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() {
            note_refusal();
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

oomguard::guard!(allocator = Stamping);

fn main() {
    let touched = std::env::args().nth(1).is_some_and(|argument| argument == "touched");
    // SAFETY: a new shared mapping of the parent's file, at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, 3, 0)
    };
    assert_ne!(page, libc::MAP_FAILED, "descriptor 3 is the parent's page");
    FIRST_REFUSAL.store(page.cast(), Ordering::Relaxed);
    let ready = &Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || {
                ready.wait();
                let mut eaten: Vec<Vec<u8>> = Vec::with_capacity(1 << 12);
                loop {
                    let mut block = Vec::with_capacity(BLOCK_BYTES);
                    if touched {
                        block.resize(BLOCK_BYTES, 1);
                    }
                    eaten.push(std::hint::black_box(block));
                }
            });
        }
    });
}
