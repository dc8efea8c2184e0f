//! Whether a certain function is among the callers of the current one: told by unwinding, as an exception would find
//! its way, and never from words that happen to lie on the stack.

use super::unwind::{self, Files, Registers};
use core::num::NonZeroUsize;
use core::ops::Range;
use once_cell::race::OnceNonZeroUsize;
use oomguard_core::sys;
use oomguard_core::sys::objects::Name;

/// How far outwards a function is looked for, in frames. What lies between `handle_alloc_error` and the first output of
/// its hook, or `abort`, has been seen to take up to 20.
const MOST_FRAMES: usize = 256;

/// So long another thread is waited for that reads what is loaded.
const LONGEST_REFRESH_MS: u64 = 500;

/// The program and its libraries, as they were when a stack was last walked that did not end in one of them.
static FILES: Files = Files::new();

/// Whether a function that called the current one, directly or not, was called from `code`. Takes some 50 µs when the
/// files are not known yet. Async-signal-safe.
fn is_called_from(code: &Range<usize>, registers: Registers) -> bool {
    // A function that was not found.
    if code.is_empty() {
        return false;
    }
    let look = || {
        let (mut is_found, mut frames) = (false, 0);
        let steps = unwind::visit(registers, None, &FILES, |return_address| {
            // A call that does not come back may be a function's last instruction: what follows is another one's.
            is_found = code.contains(&return_address.wrapping_sub(1));
            frames += 1;
            !is_found && frames < MOST_FRAMES
        });
        (is_found, steps.met_unknown)
    };
    match look() {
        (false, true) => {
            FILES.refresh_within(LONGEST_REFRESH_MS);
            look().0
        }
        (is_found, _) => is_found,
    }
}

/// Takes note of the program and the libraries that it is linked with. At start-up. How many bytes of them cannot be
/// written to.
pub(super) fn note_files() -> u64 {
    FILES.add_loaded()
}

/// Whether the calling thread is inside `handle_alloc_error`, whose code this is.
#[inline(never)]
pub(super) fn is_in_alloc_error(code: &Range<usize>) -> bool {
    is_called_from(code, unwind::here())
}

/// Whether it is there twice, once within the other.
#[inline(never)]
pub(super) fn is_twice_in_alloc_error(code: &Range<usize>) -> bool {
    let mut found = 0u32;
    let mut frames = 0;
    unwind::visit(unwind::here(), None, &FILES, |return_address| {
        found += u32::from(code.contains(&return_address.wrapping_sub(1)));
        frames += 1;
        found < 2 && frames < MOST_FRAMES
    });
    found >= 2
}

/// The same of the thread that was interrupted with these registers.
pub(super) fn was_in_alloc_error(code: &Range<usize>, registers: Registers) -> bool {
    is_called_from(code, registers)
}

/// The code of the C library's function that registers a thread-local's destructor: it allocates, and aborts where
/// that is refused. Empty where it was not found.
static THREAD_EXIT_CODE: OnceNonZeroUsize = OnceNonZeroUsize::new();
static THREAD_EXIT_CODE_END: OnceNonZeroUsize = OnceNonZeroUsize::new();

/// The process is about to have a second thread: the last moment to ask the dynamic linker without meeting its lock.
pub(super) fn note_thread() {
    if super::rust::IS_THERE && super::real::FINDS_HIDDEN && THREAD_EXIT_CODE.get().is_none() {
        let code = sys::symbols::next_definition(Name::new(c"__cxa_thread_atexit_impl"))
            .and_then(sys::symbols::code_of_function);
        let (start, end) = code.map_or((1, 1), |code| (code.start, code.end));
        let _ = THREAD_EXIT_CODE_END.set(NonZeroUsize::new(end).unwrap_or(NonZeroUsize::MIN));
        let _ = THREAD_EXIT_CODE.set(NonZeroUsize::new(start).unwrap_or(NonZeroUsize::MIN));
    }
}

/// Whether the abort at these registers is the C library's, for want of a thread-local's destructor. In a signal
/// handler.
pub(super) fn was_in_thread_exit(registers: Registers) -> bool {
    // Without a second thread nobody else can hold the linker's lock.
    note_thread();
    let (Some(start), Some(end)) = (THREAD_EXIT_CODE.get(), THREAD_EXIT_CODE_END.get()) else { return false };
    is_called_from(&(start.get()..end.get()), registers)
}

/// Whether the unwinder's tables describe this code: without, it is found in no stack.
pub(super) fn describes(code: &Range<usize>) -> bool {
    let Some(start) = code.start.checked_add(1) else { return false };
    let is_described = || unwind::is_described(start, &FILES);
    is_described() || {
        FILES.refresh_within(LONGEST_REFRESH_MS);
        is_described()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hint::black_box;

    #[inline(never)]
    fn outer(code: &Range<usize>) -> bool {
        black_box(middle(code))
    }

    #[inline(never)]
    fn middle(code: &Range<usize>) -> bool {
        black_box(is_called_from(code, unwind::here()))
    }

    #[inline(never)]
    fn bystander() -> u8 {
        black_box(7)
    }

    fn code_of(function: *const ()) -> Range<usize> {
        sys::symbols::code_of_function(function as usize).expect("functions are described")
    }

    #[test]
    fn callers_are_found_and_others_are_not() {
        let (caller, other) = (code_of(outer as *const ()), code_of(bystander as *const ()));
        black_box(bystander());
        assert!(outer(&caller));
        assert!(!outer(&other));
        assert!(!outer(&(1..1)), "a function that was not found");
        assert!(!middle(&caller), "the function is not a caller here");
    }

    #[test]
    fn words_on_the_stack_are_no_callers() {
        #[inline(never)]
        fn full_of(words: &[usize; 64], code: &Range<usize>) -> bool {
            let kept = black_box(*words);
            let found = middle(code);
            black_box(kept);
            found
        }
        let code = code_of(bystander as *const ());
        assert!(!full_of(&[code.start + 1; 64], &code));
    }
}
