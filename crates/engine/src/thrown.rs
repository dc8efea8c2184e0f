//! What std throws when it panics, seen at the moment when it is thrown: what is in the box is there then, whoever has
//! allocated it and however large it is.
//!
//! It is thrown by a function of the unwinder's library, which a program imports. One that is linked with all it needs has its
//! own, and nothing of this is seen there; nor where std is a library of its own.

use super::hook::Hook;
use super::{refused, rust};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use oomguard_core::sys;
use oomguard_core::sys::imports::Import;
use oomguard_core::sys::objects::Name;

const WORD: usize = size_of::<usize>();

/// So much of a text is read.
const MESSAGE_BYTES: usize = 1024;

/// A box that is thrown: `Box<dyn Any + Send>`.
#[derive(Clone, Copy)]
pub struct Thrown {
    /// Where that lies by which it is thrown.
    pub exception: usize,
    data: usize,
    /// What is known of its type: the destructor, the size, the alignment.
    table: usize,
}

/// The head of what the unwinder throws, and what std has behind it (`panic_unwind/src/gcc.rs`). The same since Rust 1.52.
#[repr(C)]
struct Exception {
    class: u64,
    cleanup: usize,
    private: [usize; 2],
    canary: usize,
    data: usize,
    table: usize,
}

const CLASS_OF_RUST: u64 = u64::from_ne_bytes(*b"MOZ\0RUST");

// Relaxed throughout: written before `main`, or by the thread that reads it.
static THROW: AtomicUsize = AtomicUsize::new(0);
static THEN: Hook<fn(Thrown)> = Hook::new();

/// Whether what the program throws is seen.
pub fn is_seen() -> bool {
    THROW.load(Relaxed) != 0
}

/// From now on `then` is called with what the object that `inside` lies in throws. At start-up.
pub fn watch(inside: usize, then: fn(Thrown)) {
    THEN.set(then);
    if let Some(import) = Import::of(Name::new(c"_Unwind_RaiseException"), inside) {
        THROW.store(import.address(), Relaxed);
        // SAFETY: it goes on to the imported one, with the same argument; this library stays, by `Home::keep`.
        if !unsafe { import.exchange_for(throw as *const () as usize) } {
            THROW.store(0, Relaxed);
        }
    }
}

/// `_Unwind_RaiseException`: has a look, and is not on the stack any more when the unwinder walks it.
#[unsafe(naked)]
unsafe extern "C" fn throw() {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!(
        "push rdi",
        "call {look}",
        "pop rdi",
        "jmp qword ptr [rip + {throw}]",
        look = sym look,
        throw = sym THROW
    );
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "str x0, [sp, #16]",
        "bl {look}",
        "ldr x0, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "adrp x16, {throw}",
        "ldr x16, [x16, :lo12:{throw}]",
        "br x16",
        look = sym look,
        throw = sym THROW
    );
}

/// # Safety
/// An exception is about to be thrown.
unsafe extern "C" fn look(exception: *const Exception) {
    // SAFETY: each exception begins with its class.
    let class = unsafe { exception.cast::<u64>().read() };
    if class != CLASS_OF_RUST {
        return;
    }
    // SAFETY: std's, which has made it, and throws it: nobody else has it now.
    let Exception { data, table, .. } = unsafe { exception.read() };
    let thrown = Thrown { exception: exception as usize, data, table };
    let errno = sys::errno::errno();
    if let Some(then) = THEN.get() {
        then(thrown);
    }
    sys::errno::set_errno(errno);
}

/// How long a panic that nobody catches may take to end the process, for its backtrace, destructors and other threads, in
/// milliseconds.
pub(super) const UNCAUGHT_LASTS_MS: u64 = 10_000;

/// When the last panic about something else was, in monotonic milliseconds; zero for never.
pub struct Other(AtomicU64);

impl Other {
    pub const fn new() -> Other {
        Other(AtomicU64::new(0))
    }

    pub fn note(&self, at_ms: u64) {
        self.0.store(at_ms, Relaxed);
    }

    /// Whether others may come of it still. What it has left is met at once, as a rule, and not after long work.
    pub fn is_recent(&self) -> bool {
        let at_ms = self.0.load(Relaxed);
        at_ms != 0 && sys::clock::monotonic_ms().saturating_sub(at_ms) < UNCAUGHT_LASTS_MS
    }
}

impl Thrown {
    fn size(self) -> Option<usize> {
        // SAFETY: a constant of the program's.
        let table = unsafe { sys::memory::readable(self.table, 3 * WORD, 3 * WORD) }?;
        let word = |index: usize| table.get(index * WORD..)?.first_chunk().copied().map(usize::from_ne_bytes);
        (word(2)? == WORD).then(|| word(1)).flatten()
    }

    /// What is in it, where that may be up to three words.
    #[inline(never)]
    pub fn words(self) -> Words {
        let bytes = self.size().filter(|bytes| *bytes <= Words::MOST_BYTES).unwrap_or(0);
        // SAFETY: it is thrown, and nobody has it before it is caught.
        let read = unsafe { sys::memory::readable(self.data, bytes, bytes) };
        Words::of(read.unwrap_or(&[]))
    }

    /// The same as what is thrown on has, and hardly anything else.
    fn mark(self) -> u64 {
        let mut mark = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |word: u64| mark = (mark ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        add(self.data as u64);
        add(self.table as u64);
        // What it says: another box may lie in the same place.
        for byte in self.words().text().unwrap_or(&[]) {
            add(u64::from(*byte));
        }
        mark.max(1)
    }
}

/// Up to three words of memory.
#[derive(Clone, Copy)]
pub struct Words {
    words: [usize; 3],
    len: usize,
}

impl Words {
    pub const MOST_BYTES: usize = 3 * WORD;

    /// None where it is no whole number of words, or more.
    pub fn of(bytes: &[u8]) -> Words {
        let mut words = [0; 3];
        let (whole, rest) = bytes.as_chunks::<WORD>();
        if !rest.is_empty() || whole.len() > words.len() {
            return Words { words, len: 0 };
        }
        words.iter_mut().zip(whole).for_each(|(word, bytes)| *word = usize::from_ne_bytes(*bytes));
        Words { words, len: whole.len() }
    }

    pub fn as_slice(&self) -> &[usize] {
        self.words.get(..self.len).unwrap_or(&[])
    }

    /// Whether they are an `io::Error` that says so, or the `TryReserveError` of what this thread was refused last.
    pub fn are_error_of_memory(&self) -> bool {
        match *self.as_slice() {
            [word] => rust::errors_of_memory().contains(&word),
            [one, other] => refused::last_here().is_some_and(|(_, request)| {
                let is_align =
                    |word: usize| request.align.map_or(word.is_power_of_two(), |align| word as u64 == align);
                let is = |bytes: usize, align: usize| bytes as u64 == request.bytes && is_align(align);
                is(one, other) || is(other, one)
            }),
            _ => false,
        }
    }

    /// The text that they are: a `String`, or a `&'static str`. Others that are as large are neither, as a rule: nothing is found
    /// there, or nothing that speaks of memory.
    #[inline(never)]
    pub fn text<'a>(&self) -> Option<&'a [u8]> {
        const MOST_CAPACITY: usize = 1 << 20;
        // Where the text is, its length, and its capacity, in whatever order.
        let words = match self.as_slice() {
            [one, other] => [*one, *other, MOST_CAPACITY],
            [one, other, third] => [*one, *other, *third],
            _ => return None,
        };
        let start = words.into_iter().max()?;
        let len = words.into_iter().min()?;
        if words.into_iter().filter(|word| *word <= MOST_CAPACITY).count() != 2 {
            return None;
        }
        // SAFETY: what is thrown is not given back before it is caught; or a text of the program's own, which is for ever.
        let text = unsafe { sys::memory::readable(start, len, MESSAGE_BYTES) }?;
        match core::str::from_utf8(text) {
            Ok(_) => Some(text),
            // It is cut within a character.
            Err(error) if error.error_len().is_none() => Some(text),
            Err(_) => None,
        }
    }
}

/// What was thrown last, by whichever thread: who catches it may throw it on.
pub struct Known {
    marks: [AtomicU64; Known::MOST],
    len: AtomicUsize,
}

impl Known {
    const MOST: usize = 64;

    pub const fn new() -> Known {
        Known { marks: [const { AtomicU64::new(0) }; Known::MOST], len: AtomicUsize::new(0) }
    }

    /// Adds it; whether it was known.
    pub fn meet(&self, thrown: Thrown) -> bool {
        let mark = thrown.mark();
        if self.marks.iter().any(|known| known.load(Relaxed) == mark) {
            return true;
        }
        let place = self.len.fetch_add(1, Relaxed) % Known::MOST;
        if let Some(slot) = self.marks.get(place) {
            slot.store(mark, Relaxed);
        }
        false
    }
}
