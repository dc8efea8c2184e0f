//! What a tracer tells its supervisor: a file that both have mapped. Unsafe code is allowed here, for that mapping.

use super::sys;
use crate::record::{Page, RECORD_BYTES};
use oomguard_core::report::{HOLDERS, Holder};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the supervisor reads when the worker is dead.
#[repr(C)]
pub(super) struct Findings {
    /// The worker itself.
    pub(super) own: Page,
    /// The descendant that last died of what it was refused.
    pub(super) fallen: Page,
    /// Its status, plus one.
    pub(super) fallen_status: AtomicU64,
    pub(super) stops: AtomicU64,
    /// Who held most of the budget when it last had no room: for each its number, what it held, and its name.
    pub(super) holders: [[AtomicU64; HOLDER_WORDS]; HOLDERS],
    /// The limit on what is resident, plus one, where the supervisor has changed it since.
    pub(super) limit_now: AtomicU64,
    /// When that descendant was gone, by the clock that all processes share.
    pub(super) fallen_ms: AtomicU64,
    /// When it came to its end, which its parent does not learn before.
    pub(super) fell_ms: AtomicU64,
    /// Its parent, or that of the one that has passed its end on last: zero where there is none.
    pub(super) fallen_parent: AtomicU64,
    rest: [u64; RECORD_BYTES / 8 - 6 - HOLDERS * HOLDER_WORDS],
}

pub(super) const HOLDER_WORDS: usize = 4;
/// Which of the words after the pages `limit_now` is.
pub(super) const LIMIT_NOW: usize = 2 + HOLDERS * HOLDER_WORDS;
/// The same of `fallen_ms`.
pub(super) const FALLEN_MS: usize = LIMIT_NOW + 1;
/// The same of `fell_ms`.
pub(super) const FELL_MS: usize = FALLEN_MS + 1;
/// The same of `fallen_parent`.
pub(super) const FALLEN_PARENT: usize = FELL_MS + 1;

pub(super) const FINDINGS_BYTES: usize = size_of::<Findings>();
/// Where in the file each part lies.
pub(super) const OWN_AT: usize = 0;
pub(super) const FALLEN_AT: usize = RECORD_BYTES;
pub(super) const NOTES_AT: usize = 2 * RECORD_BYTES;

/// Who holds most of the budget, now that it has no room.
pub(super) fn note_holders(findings: &Findings, holders: [Option<Holder>; HOLDERS]) {
    for (words, holder) in findings.holders.iter().zip(&holders) {
        let word = |bytes: Option<&[u8]>| {
            u64::from_ne_bytes(bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default())
        };
        let mut name = [0; 16];
        let values = match holder {
            Some(holder) => {
                name.iter_mut().zip(holder.name.as_bytes()).for_each(|(to, from)| *to = *from);
                [holder.pid.into(), holder.bytes, word(name.get(..8)), word(name.get(8..))]
            }
            None => [0; HOLDER_WORDS],
        };
        // Relaxed, as all the page.
        words.iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    }
}

pub(super) fn map_findings(fd: RawFd) -> Option<&'static Findings> {
    let at = sys::memfd::map_for_ever(fd, FINDINGS_BYTES)?;
    // SAFETY: page-aligned, as large as the type, never unmapped, and made of words that any bytes are valid for; what
    // both processes touch at the same time is atomic.
    Some(unsafe { &*at.cast::<Findings>() })
}
