//! What the guard asks of Rust's standard library. The library for other languages is built without it, on `core` alone, so
//! that it needs nothing of the process it is loaded into; there, each question has the answer of a program without Rust.

use core::ops::Range;

#[cfg(feature = "std")]
mod standard {
    use core::alloc::Layout;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Whether there may be code in Rust that has a guard.
    pub(crate) const IS_THERE: bool = true;

    /// Whether this thread is unwinding for a panic, or about to.
    pub(crate) fn is_panicking() -> bool {
        std::thread::panicking()
    }

    /// How an `io::Error` lies in memory that says that memory is missing, where it is one word: what std makes of it, and the
    /// system's own.
    pub(crate) fn errors_of_memory() -> [usize; 2] {
        use std::io::{Error, ErrorKind};
        let word = |error: Error| {
            const { assert!(size_of::<Error>() == size_of::<usize>()) };
            // SAFETY: of the same size; neither of the two below holds a pointer.
            unsafe { core::mem::transmute::<Error, usize>(error) }
        };
        [word(ErrorKind::OutOfMemory.into()), word(Error::from_raw_os_error(libc::ENOMEM))]
    }

    /// Calls a function of the program's; a panic in it ends here.
    pub(crate) fn call(function: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(function)) {
            // Its destructor is the program's code and could panic again, here where nothing may unwind.
            core::mem::forget(payload);
        }
    }

    /// How many threads of std's there are in this process that will need no memory while it dies.
    pub(crate) fn idle_threads() -> u64 {
        crate::pressure::idle_threads()
    }

    /// Where `handle_alloc_error` begins.
    pub(super) fn alloc_error_start() -> Option<usize> {
        Some(std::alloc::handle_alloc_error as fn(Layout) -> ! as *const () as usize)
    }

    /// By the program's allocator, as the program does. The facts are not known yet, so that a refusal is nothing but null.
    pub(crate) fn can_allocate() -> bool {
        const LAYOUT: Layout = Layout::new::<[u64; 8]>();
        // SAFETY: the size is not zero.
        let block = unsafe { std::alloc::alloc(LAYOUT) };
        // Without it the compiler may remove the pair.
        let block = core::hint::black_box(block);
        if !block.is_null() {
            // SAFETY: from the same allocator with the same layout.
            unsafe { std::alloc::dealloc(block, LAYOUT) };
        }
        !block.is_null()
    }
}

#[cfg(not(feature = "std"))]
mod standard {
    pub(crate) const IS_THERE: bool = false;

    pub(crate) fn is_panicking() -> bool {
        false
    }

    /// As std has had it since Rust 1.57, for 64 bits.
    pub(crate) const fn errors_of_memory() -> [usize; 2] {
        super::ERRORS_OF_MEMORY
    }

    pub(crate) fn call(function: impl FnOnce()) {
        function();
    }

    pub(crate) fn idle_threads() -> u64 {
        0
    }

    pub(super) fn alloc_error_start() -> Option<usize> {
        None
    }

    pub(crate) fn can_allocate() -> bool {
        true
    }
}

/// An `io::Error` of the kind `OutOfMemory`, and one of ENOMEM, where this library is not compiled with the program.
#[cfg(any(test, not(feature = "std")))]
const ERRORS_OF_MEMORY: [usize; 2] = [38 << 32 | 3, 12 << 32 | 2];

pub(super) use standard::{IS_THERE, call, can_allocate, errors_of_memory, idle_threads, is_panicking};

/// Where a function's code is not described, its first bytes.
const ASSUMED_CODE_BYTES: usize = 32;

/// Finds the code of `handle_alloc_error`. At start-up: this asks the dynamic linker.
pub(super) fn alloc_error_code() -> Range<usize> {
    standard::alloc_error_start().map_or(0..0, |start| {
        oomguard_core::sys::symbols::code_of_function(start).unwrap_or(start..start + ASSUMED_CODE_BYTES)
    })
}

#[cfg(all(test, feature = "std"))]
mod tests {
    #[test]
    fn an_error_of_memory_lies_in_memory_as_the_library_expects_it() {
        assert_eq!(super::errors_of_memory(), super::ERRORS_OF_MEMORY);
    }
}
