//! Whether a program has gone on since a request of its C code was refused, in a way that takes no memory: it reads, writes or
//! waits, as the kernel counts. Asked only where the library for programs in any language is in charge.

use super::armed::armed;
use super::{filter, library};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use oomguard_core::sys;

// Relaxed throughout: each number stands by itself.

/// What had been read and written by the refusal, and how often the refused thread had waited.
static READ_BEFORE: AtomicU64 = AtomicU64::new(0);
static WRITTEN_BEFORE: AtomicU64 = AtomicU64::new(0);
static WAITS_BEFORE: AtomicU64 = AtomicU64::new(0);
/// How long it had run, in milliseconds.
static RUN_BEFORE_MS: AtomicU64 = AtomicU64::new(0);
static TID: AtomicU32 = AtomicU32::new(0);
static HAS_STARTED_THREAD: AtomicBool = AtomicBool::new(false);

/// What the kernel counts of this process, as it was in this millisecond: a loop of refusals asks no more often.
struct Lately {
    at_ms: AtomicU64,
    count: AtomicU64,
}

impl Lately {
    const fn new() -> Self {
        Lately { at_ms: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    fn get(&self, ask: fn() -> Option<u64>) -> u64 {
        let now_ms = sys::clock::monotonic_ms();
        if self.at_ms.swap(now_ms, Relaxed) != now_ms {
            let count = if filter::may_ask() { ask() } else { None };
            self.count.store(count.unwrap_or(u64::MAX), Relaxed);
        }
        self.count.load(Relaxed)
    }
}

static READ: Lately = Lately::new();
static WRITTEN: Lately = Lately::new();

/// C code was refused so many bytes.
pub(super) fn begin(bytes: u64) {
    if library::in_charge().is_none() {
        return;
    }
    READ_BEFORE.store(READ.get(sys::process::bytes_read), Relaxed);
    let is_possible = armed().is_none_or(|armed| armed.could_hold(bytes));
    let written = if is_possible { u64::MAX } else { WRITTEN.get(sys::process::bytes_written) };
    WRITTEN_BEFORE.store(written, Relaxed);
    let (waits, run_ms) = if filter::may_ask() { doings_here() } else { (0, 0) };
    WAITS_BEFORE.store(waits, Relaxed);
    RUN_BEFORE_MS.store(run_ms, Relaxed);
    HAS_STARTED_THREAD.store(false, Relaxed);
    TID.store(sys::process::tid(), Relaxed);
}

/// So many bytes that are written are no sign that the program goes on.
pub fn note_piece(bytes: usize) {
    // One that says that nothing is counted stays.
    if WRITTEN_BEFORE.load(Relaxed) != u64::MAX {
        WRITTEN_BEFORE.fetch_add(bytes as u64, Relaxed);
    }
}

/// Whether it reads its input, waits for the threads that it has where it was a thread that was refused, or writes on after a
/// request that can never be met.
pub(super) fn has_gone_on(is_of_thread: bool, can_be_met: bool) -> bool {
    library::in_charge().is_some()
        && (has_read_on() || !can_be_met && has_written_on() || is_of_thread && has_waited_here())
}

/// What the C library and the dynamic linker read for a message is less.
fn has_read_on() -> bool {
    const MESSAGE_BYTES: u64 = 4096;
    let before = READ_BEFORE.load(Relaxed);
    filter::may_ask()
        && sys::process::bytes_read().is_some_and(|bytes| bytes.saturating_sub(before) > MESSAGE_BYTES)
}

/// No message is so long, in however many calls.
fn has_written_on() -> bool {
    const MESSAGE_BYTES: u64 = 2048;
    let before = WRITTEN_BEFORE.load(Relaxed);
    before != u64::MAX
        && filter::may_ask()
        && sys::process::bytes_written().is_some_and(|bytes| bytes.saturating_sub(before) > MESSAGE_BYTES)
}

/// A thread was started: what it does is the work of the one that started it, which may wait for it and may be too late to.
pub(super) fn note_thread() {
    let refused = TID.load(Relaxed);
    if refused != 0 && refused == sys::process::tid() {
        HAS_STARTED_THREAD.store(true, Relaxed);
    }
}

/// Whether it was this thread that was refused, and it has waited since.
fn has_waited_here() -> bool {
    since_here().is_some_and(|(waits, _)| waits > 0)
}

/// The same, and it has neither waited, nor started a thread, nor looked again and again whether others are done.
pub(super) fn has_stayed_here() -> bool {
    let limit = armed().and_then(|armed| armed.limit.bytes()).unwrap_or(0);
    since_here().is_some_and(|(waits, run_ms)| waits == 0 && run_ms <= way_out_ms(limit))
        && !HAS_STARTED_THREAD.load(Relaxed)
}

/// What it takes to give `bytes` back and to leave, in milliseconds.
pub(super) fn way_out_ms(bytes: u64) -> u64 {
    /// What freeing a MiB takes, and the rest: some times what was measured.
    const NS_PER_MIB: u64 = 250_000;
    const OTHERWISE_MS: u64 = 30;
    (bytes >> 20).saturating_mul(NS_PER_MIB) / 1_000_000 + OTHERWISE_MS
}

/// How often the calling thread has waited, and how long it has run.
fn doings_here() -> (u64, u64) {
    (sys::process::thread_waits(), sys::clock::thread_processor_ns() / 1_000_000)
}

/// The same since the refusal, where it was this thread that was refused.
fn since_here() -> Option<(u64, u64)> {
    (TID.load(Relaxed) == sys::process::tid() && filter::may_ask()).then(|| {
        let (waits, run_ms) = doings_here();
        (waits.saturating_sub(WAITS_BEFORE.load(Relaxed)), run_ms.saturating_sub(RUN_BEFORE_MS.load(Relaxed)))
    })
}
