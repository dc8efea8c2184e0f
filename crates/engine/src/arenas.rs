//! glibc's arenas under a limit on address space.
//!
//! Each arena but the main one reserves address space in heaps of 64 MiB, of which an unused tail counts towards the
//! limit and serves no other arena. With the default of eight arenas per processor, a few threads strand most of a
//! small limit; with one, they all wait for one lock. Two are nearly as fast as many for two threads, and strand next
//! to nothing, if a refusal is tried again: malloc may give up in one arena while the other has room, because its
//! lock was taken at that moment (`arena_get_retry`, `reused_arena` in glibc's arena.c). Each further try turns to the
//! next arena. docs/costs.md has the figures.

use super::armed::Armed;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use oomguard_core::backoff::Backoff;
use oomguard_core::sys;

/// What an arena reserves at once: glibc's HEAP_MAX_SIZE on 64-bit machines.
const HEAP_BYTES: u64 = 64 << 20;

/// Below four heaps, a second arena may find no room for its first one, and would then map every block by itself.
const LEAST_LIMIT_FOR_TWO: u64 = 4 * HEAP_BYTES;

/// One more arena for so many bytes of limit: the tails then stay below two per cent of it.
const LIMIT_PER_FURTHER_ARENA: u64 = 50 * HEAP_BYTES;

/// What an arena may keep free at its end. With so few arenas a thread shares the main one, which gives memory back
/// and takes it again by brk(2), under a lock of the whole process; at the usual 128 KiB that made two threads that
/// allocate in batches a quarter slower.
const KEPT_FREE_BYTES: usize = 2 << 20;

/// Beyond this no machine gains.
const MOST_ARENAS: u64 = 64;

/// How many arenas suit a limit.
pub(super) fn arenas_under(limit_bytes: u64) -> i32 {
    if limit_bytes < LEAST_LIMIT_FOR_TWO {
        return 1;
    }
    (1 + limit_bytes / LIMIT_PER_FURTHER_ARENA).clamp(2, MOST_ARENAS) as i32
}

/// Tries that cost next to nothing.
const QUICK_TRIES: u32 = 4;

/// Then at least so many, as the lock's holder may need a time slice,
const PATIENT_TRIES: u32 = 16;
/// and for at least so long, in milliseconds.
const PATIENCE_MS: u64 = 4;

static PATIENCE: Backoff = Backoff::new();

/// Repeats a refused allocation while another arena may have room for it.
pub(super) fn try_again(armed: &Armed, bytes: u64, again: &mut dyn FnMut() -> bool) -> bool {
    // Relaxed, here and below: as it says where it is written.
    if bytes >= HEAP_BYTES || !armed.address_space_is_limited.load(Ordering::Relaxed) {
        return false;
    }
    if (0..QUICK_TRIES).any(|_| again()) {
        return true;
    }
    let start_ms = sys::clock::monotonic_ms();
    if !PATIENCE.is_due(start_ms) || !has_room(bytes) {
        return false;
    }
    let mut tries = 0;
    loop {
        sys::process::yield_now();
        if again() {
            return true;
        }
        tries += 1;
        let now_ms = sys::clock::monotonic_ms();
        if tries >= PATIENT_TRIES && now_ms - start_ms >= PATIENCE_MS {
            PATIENCE.note_attempt(start_ms, now_ms);
            return false;
        }
    }
}

/// What the program's files take of address space without being writable, and so what is not the heaps'; zero where it
/// is not known. Relaxed: written before `main`.
static MAPPED_OF_FILES: AtomicU64 = AtomicU64::new(0);

/// What was loaded at the start takes so much that is not writable.
pub(super) fn note_files(not_writable: u64) {
    MAPPED_OF_FILES.store(not_writable, Ordering::Relaxed);
}

/// Relaxed: it only elects the thread that tunes malloc.
static HAS_THREADS: AtomicBool = AtomicBool::new(false);

/// The process is about to start a thread. Makes no system call that std does not make.
pub(super) fn note_thread(armed: &Armed) {
    if armed.address_space_is_limited.load(Ordering::Relaxed)
        && !HAS_THREADS.swap(true, Ordering::Relaxed)
        && !armed.arenas_are_set
    {
        sys::memory::raise_malloc_thresholds(KEPT_FREE_BYTES / 2);
    }
}

/// Whether heaps have unused tails: address space that is not writable and is no file's.
fn has_room(bytes: u64) -> bool {
    let before = MAPPED_OF_FILES.load(Ordering::Relaxed);
    // A filter of the program's own may let no file be opened any more.
    if before == 0 || sys::process::is_filtered() {
        return true;
    }
    let now = sys::memory::address_space_use();
    now.is_some_and(|now| now.not_writable.saturating_sub(before) > bytes)
}

#[cfg(test)]
mod tests {
    use super::arenas_under;

    #[test]
    fn arenas_grow_with_the_limit() {
        const GIB: u64 = 1 << 30;
        for (limit, arenas) in [
            (0, 1),
            (255 << 20, 1),
            (256 << 20, 2),
            (GIB, 2),
            (6 * GIB, 2),
            (7 * GIB, 3),
            (32 * GIB, 11),
            (u64::MAX, 64),
        ] {
            assert_eq!(arenas_under(limit), arenas, "{limit}");
        }
    }
}
