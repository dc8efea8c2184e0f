//! Where in a page each word lies, and how numbers are kept there.

use crate::profile::PROFILE_BYTES;

/// The name of the note in a guarded program's file, and its content: the layout of the record that the program fills.
pub const NOTE_NAME: &[u8] = b"oomguard\0";
pub const NOTE_LAYOUT: u32 = LAYOUT as u32;

/// The bytes of a process's page.
pub const RECORD_BYTES: usize = 1024;
/// How many descendants can have a page at once; those that have got over their refusals give way, then the oldest.
pub(super) const MOST_DESCENDANTS: usize = 31;
/// The bytes of all pages; the profile's tables lie behind them.
pub const HEAD_BYTES: usize = RECORD_BYTES * (1 + MOST_DESCENDANTS);
/// The bytes of the file that holds it all. What nobody writes takes no memory.
pub const FILE_BYTES: usize = HEAD_BYTES + PROFILE_BYTES;
pub(super) const WORDS: usize = RECORD_BYTES / 8;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"oomguard");
pub(super) const LAYOUT: u64 = 2;

/// A longer path is none.
pub const PATH_MAX_BYTES: usize = (at::PARENT - at::PATH - 1) * 8;
/// Where a supervisor says that the limit is another one now.
pub const LIMIT_NOW_AT: usize = at::LIMIT_NOW * 8;
pub(super) const PROGRAM_MAX_BYTES: usize = 64;
pub(super) const THREAD_MAX_BYTES: usize = 16;
/// A longer reason is cut.
pub(super) const TROUBLE_MAX_BYTES: usize = (at::PARENT - at::TROUBLE - 1) * 8;

/// How many failed children are kept, each with another status, and the words of each.
pub(super) const MOST_FAILED: usize = 4;
pub(super) const FAILED_WORDS: usize = 3;

/// Where each value lies.
// One layout, whichever side uses which of it.
pub(super) mod at {
    pub const MAGIC: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const STATE: usize = 2;
    /// The process that fills the record.
    pub const OWNER: usize = 3;
    pub const CAUSE: usize = 4;
    pub const TID: usize = 5;
    pub const REQUESTED: usize = 6;
    pub const ALIGN: usize = 7;
    pub const LIMIT: usize = 8;
    pub const LIMIT_SOURCE: usize = 9;
    pub const MEASURE: usize = 10;
    pub const LIMIT_REFUSED: usize = 11;
    pub const ADDRESS_SPACE: usize = 12;
    pub const DATA: usize = 13;
    pub const RESIDENT: usize = 14;
    pub const RESIDENT_PEAK: usize = 15;
    pub const REFUSALS: usize = 16;
    pub const EXIT_CODE: usize = 17;
    pub const UPTIME_MS: usize = 18;
    pub const HEAP_LIVE: usize = 19;
    pub const HEAP_PEAK: usize = 20;
    pub const PROFILE: usize = 21;
    pub const EVIDENCE: usize = 22;
    pub const OWN_EXIT_CODE: usize = 23;
    pub const OWN_SIGNAL: usize = 24;
    pub const BUDGET: usize = 25;
    pub const BUDGET_USED: usize = 26;
    pub const WAITED_MS: usize = 27;
    /// What has been told by the process itself: bits.
    pub const TOLD: usize = 28;
    /// Which of the descendants' ends this was; in the child's own page, how many there were.
    pub const ENDS: usize = 29;
    /// It came to an end that the guard looked at, and not of a refusal; or of one that the user wants better evidence of.
    pub const INNOCENT: usize = 30;
    /// The descendant's page was left behind: its number is another process's now.
    pub const PAST: usize = 31;
    /// Texts: the length plus one, then the bytes.
    pub const PROGRAM: usize = 32;
    /// In the place of all texts: why there is no guard.
    pub const TROUBLE: usize = PROGRAM;
    pub const THREAD: usize = 48;
    pub const TOKEN: usize = 56;
    /// The refusal that is open, of which the words below tell; zero where there is none.
    pub const OPEN: usize = 72;
    pub const OPEN_CAUSE: usize = 73;
    pub const OPEN_SINCE_MS: usize = 74;
    /// What was allocated before it, and by now: blocks and bytes.
    pub const ALLOCATIONS_BEFORE: usize = 75;
    pub const BYTES_BEFORE: usize = 76;
    pub const ALLOCATIONS: usize = 77;
    pub const BYTES: usize = 78;
    /// What was said since, when, and what had been allocated then.
    pub const SAID: usize = 79;
    pub const SAID_MS: usize = 80;
    pub const SAID_AT_BYTES: usize = 81;
    /// What the process is about to become, since when, and the program's path: a text as above.
    pub const BECOMING: usize = 82;
    pub const BECOMING_MS: usize = 83;
    pub const PATH: usize = 84;
    /// The process that started a descendant, as that calls it.
    pub const PARENT: usize = FAILED - 1;
    /// The failed children that were heard of last, of the worker or of a descendant: for each three words, see `Failed`. In
    /// the worker's own page; whoever hears of one writes.
    pub const FAILED: usize = LIMIT_NOW - super::FAILED_WORDS * super::MOST_FAILED;
    /// The limit on what is resident, where the supervisor has changed it since: in the worker's own page, for all that descend
    /// from it as well.
    pub const LIMIT_NOW: usize = super::WORDS - 1;
}

/// What `INNOCENT` can hold.
pub(super) const ACQUITTED: u64 = 1;
pub(super) const DOUBTFUL: u64 = 2;

/// What `STATE` can hold.
pub(super) const ARMED: u64 = 1;
pub(super) const EXHAUSTED: u64 = 2;
/// The guard could not be set up, and the process ends: nothing is known but the reason.
pub(super) const UNGUARDED: u64 = 3;

/// What `BECOMING` holds where the program that the process becomes has a guard, which says so once it is loaded.
pub(super) const LOADING: u64 = 1;

/// A number is stored plus one: zero is "not known".
pub(super) fn encode(number: Option<u64>) -> u64 {
    number.map_or(0, |number| number.saturating_add(1))
}
