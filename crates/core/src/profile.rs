//! The profile: what a profiled process knows of its heap, in tables that a supervisor reads after any death. This is
//! the layout that both sides read; neither acts here.
//!
//! The tables lie behind the record's page in the same shared file, or in memory of the process's own. They are 64-bit
//! words, all zero at first; only the profiled process writes. Every update is a few independent stores or additions,
//! so that a process that is killed between two of them leaves sums that are off by one sample at most. What is
//! published by a word (a stack, a module, a moment) is written before that word.

use core::sync::atomic::{AtomicU64, Ordering};

/// The mean distance between two samples where nobody said otherwise, in allocated bytes.
pub const DEFAULT_DISTANCE: u64 = 512 << 10;

/// The deepest stack that is kept, in frames from the allocation outwards.
pub const MAX_FRAMES: usize = 48;

/// The bytes of a profile.
pub const PROFILE_BYTES: usize = WORDS * 8;

/// Of the fine time line, one moment per so many milliseconds; and of the coarse one.
pub const FINE_MS: u64 = 10;
pub const COARSE_MS: u64 = 500;

pub const MAGIC: u64 = u64::from_le_bytes(*b"oomgprof");
pub const LAYOUT: u64 = 1;

/// Where each value lies, in words.
pub mod at {
    pub const MAGIC: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const PID: usize = 2;
    pub const DISTANCE: usize = 3;
    pub const START_MS: usize = 4;
    pub const END_MS: usize = 5;
    // The two that every thread adds to now and then have a cache line of their own.
    pub const LIVE: usize = 8;
    pub const PEAK: usize = 9;
    // Two words each: when the next moment is due, and how many there have been.
    pub const FINE_DUE: usize = 16;
    pub const COARSE_DUE: usize = 18;
    pub const STACK_WORDS: usize = 20;
    pub const MODULES: usize = 21;
    pub const SAMPLES: usize = 24;
    pub const FRAMES_BY_TABLE: usize = 25;
    pub const FRAMES_BY_POINTER: usize = 26;
    pub const STACKS_CUT: usize = 27;
    pub const LOST: usize = 32;
    /// The stack of the last refusal: its length, what was asked for, the frames.
    pub const REFUSED_FRAMES: usize = 64;
    pub const REFUSED_BYTES: usize = 65;
    pub const REFUSED: usize = 66;

    pub const FINE: usize = 512;
    pub const COARSE: usize = FINE + super::FINE_MOMENTS * super::MOMENT_WORDS;
    pub const MODULE: usize = COARSE + super::COARSE_MOMENTS * super::MOMENT_WORDS;
    pub const SITE: usize = MODULE + super::MAX_MODULES * super::MODULE_WORDS;
    pub const STACK: usize = SITE + (super::SITES + 1) * super::SITE_WORDS;
}

pub const FINE_MOMENTS: usize = 512;
pub const COARSE_MOMENTS: usize = 1024;
pub const MOMENT_WORDS: usize = 2;

/// The most modules (the program and its libraries) that are kept.
pub const MAX_MODULES: usize = 128;
/// Start, end, bias, length of the build-id plus one, four words of build-id, length of the path, 31 words of path.
pub const MODULE_WORDS: usize = 40;
pub const BUILD_ID_MAX_BYTES: usize = 32;
pub const PATH_MAX_BYTES: usize = 31 * 8;

/// How many different stacks are kept apart. What comes after shares the last site, which has no stack.
pub const SITES: usize = 4096;
pub const SITE_WORDS: usize = 8;
pub const STACK_WORDS: usize = 64 << 10;
pub const WORDS: usize = at::STACK + STACK_WORDS;

/// How far a site may lie from where its hash points.
pub const MAX_DISTANCE: usize = 64;

/// Where the values of a site lie within it.
pub mod site {
    pub const HASH: usize = 0;
    /// Where the stack begins, and its length in the low byte; plus one.
    pub const STACK: usize = 1;
    pub const LIVE_BYTES: usize = 2;
    pub const LIVE_SAMPLES: usize = 3;
    pub const TOTAL_BYTES: usize = 4;
    pub const TOTAL_SAMPLES: usize = 5;
}

/// Why something is missing from a profile.
#[derive(Clone, Copy)]
pub enum Loss {
    /// Samples for which the table of live samples had no room, and what they stood for.
    LiveSamples = 0,
    LiveBytes = 1,
    /// Stacks for which there was no site, or no room for the frames.
    Sites = 2,
    Frames = 3,
    /// Allocations inside the profiler's own work.
    Nested = 4,
    Modules = 5,
}

/// The tables as the profiled process sees them.
#[repr(C)]
pub struct Tables {
    pub words: [AtomicU64; WORDS],
}

/// A stack's place among the sites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteIndex(pub u16);

/// A loaded file, as the profiled process found it.
pub struct ModuleFacts<'a> {
    pub start: u64,
    pub end: u64,
    /// What the file's own addresses were moved by.
    pub bias: u64,
    pub build_id: &'a [u8],
    pub path: &'a [u8],
}

// Relaxed throughout, but for what publishes something: these are counters and claims, read by a parent after the
// death of this process, through a copy that the kernel makes.
impl Tables {
    pub fn begin(&self, pid: u32, distance: u64, now_ms: u64) {
        self.store(at::PID, pid.into());
        self.store(at::DISTANCE, distance);
        self.store(at::START_MS, now_ms);
        self.store(at::LAYOUT, LAYOUT);
        if let Some(word) = self.word(at::MAGIC) {
            // Release: whoever sees the magic sees the rest.
            word.store(MAGIC, Ordering::Release);
        }
    }

    /// The last moment that the profile speaks of.
    pub fn end(&self, now_ms: u64) {
        self.store(at::END_MS, now_ms);
    }

    /// Adds to what is live; what that makes.
    #[inline]
    pub fn add_live(&self, bytes: i64) -> u64 {
        let (Some(live), Some(peak)) = (self.word(at::LIVE), self.word(at::PEAK)) else { return 0 };
        // Negative for moments, while one thread has counted a block's release and another not yet its allocation.
        let now = live.fetch_add(bytes as u64, Ordering::Relaxed).wrapping_add(bytes as u64);
        let now = u64::try_from(now as i64).unwrap_or(0);
        if now > peak.load(Ordering::Relaxed) {
            peak.fetch_max(now, Ordering::Relaxed);
        }
        now
    }

    /// Bytes live now, and at most.
    pub fn live_and_peak(&self) -> (u64, u64) {
        (u64::try_from(self.load(at::LIVE) as i64).unwrap_or(0), self.load(at::PEAK))
    }

    /// Enters a moment into the time lines, if one is due.
    #[inline]
    pub fn note_moment(&self, now_ms: u64, live: u64) {
        if now_ms >= self.load(at::FINE_DUE) {
            self.note_due_moment(now_ms, live);
        }
    }

    #[cold]
    fn note_due_moment(&self, now_ms: u64, live: u64) {
        self.note_in_ring(at::FINE_DUE, at::FINE, FINE_MOMENTS, FINE_MS, now_ms, live);
        self.note_in_ring(at::COARSE_DUE, at::COARSE, COARSE_MOMENTS, COARSE_MS, now_ms, live);
    }

    /// `due` holds when the next moment is due; the word behind it, how many there have been.
    fn note_in_ring(&self, due: usize, ring: usize, moments: usize, every_ms: u64, now_ms: u64, live: u64) {
        let (Some(due_ms), Some(next)) = (self.word(due), self.word(due + 1)) else { return };
        let was = due_ms.load(Ordering::Relaxed);
        if now_ms < was
            || due_ms.compare_exchange(was, now_ms + every_ms, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let index = next.fetch_add(1, Ordering::Relaxed) as usize % moments;
        let at = ring + index * MOMENT_WORDS;
        // No time: no moment, until the value is there.
        self.store(at, 0);
        if let (Some(time), Some(value)) = (self.word(at), self.word(at + 1)) {
            // Release, both: the time is taken away before the value changes, and is there again behind it.
            value.store(live, Ordering::Release);
            time.store(now_ms + 1, Ordering::Release);
        }
    }

    /// The site of a stack: the one that is there already, or a new one.
    pub fn site_of(&self, frames: &[u64]) -> SiteIndex {
        let hash = hash_of(frames);
        for step in 0..MAX_DISTANCE {
            let index = (hash as usize).wrapping_add(step) % SITES;
            let Some(word) = self.word(at::SITE + index * SITE_WORDS + site::HASH) else { break };
            match word.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.publish_stack(index, frames);
                    return SiteIndex(index as u16);
                }
                Err(taken) if taken == hash => return SiteIndex(index as u16),
                Err(_) => {}
            }
        }
        self.note_loss(Loss::Sites, 1);
        SiteIndex(SITES as u16)
    }

    fn publish_stack(&self, index: usize, frames: &[u64]) {
        let Some(used) = self.word(at::STACK_WORDS) else { return };
        let start = used.fetch_add(frames.len() as u64, Ordering::Relaxed) as usize;
        if start + frames.len() > STACK_WORDS {
            self.note_loss(Loss::Frames, 1);
            return;
        }
        for (offset, frame) in frames.iter().enumerate() {
            self.store(at::STACK + start + offset, *frame);
        }
        if let Some(word) = self.word(at::SITE + index * SITE_WORDS + site::STACK) {
            // Release: the frames come first.
            word.store(((start as u64) << 8 | frames.len() as u64) + 1, Ordering::Release);
        }
    }

    /// A sample of a site that stands for so many bytes.
    pub fn note_sampled(&self, index: SiteIndex, bytes: u64) {
        self.add(at::SAMPLES, 1);
        self.add_to_site(index, site::TOTAL_BYTES, bytes);
        self.add_to_site(index, site::TOTAL_SAMPLES, 1);
    }

    /// It is live, and its release will be noticed.
    pub fn note_live(&self, index: SiteIndex, bytes: u64) {
        self.add_to_site(index, site::LIVE_BYTES, bytes);
        self.add_to_site(index, site::LIVE_SAMPLES, 1);
    }

    /// It was released.
    pub fn note_freed(&self, index: SiteIndex, bytes: u64) {
        self.add_to_site(index, site::LIVE_BYTES, bytes.wrapping_neg());
        self.add_to_site(index, site::LIVE_SAMPLES, 1u64.wrapping_neg());
    }

    fn add_to_site(&self, index: SiteIndex, field: usize, value: u64) {
        self.add(at::SITE + usize::from(index.0) * SITE_WORDS + field, value);
    }

    pub fn note_loss(&self, loss: Loss, amount: u64) {
        self.add(at::LOST + loss as usize, amount);
    }

    /// How a stack was walked.
    pub fn note_walk(&self, by_table: u64, by_pointer: u64, is_cut: bool) {
        self.add(at::FRAMES_BY_TABLE, by_table);
        self.add(at::FRAMES_BY_POINTER, by_pointer);
        self.add(at::STACKS_CUT, is_cut.into());
    }

    /// Where the program was refused last. One thread at a time, by the caller's care.
    pub fn note_refused(&self, bytes: u64, frames: &[u64]) {
        self.store(at::REFUSED_FRAMES, 0);
        self.store(at::REFUSED_BYTES, bytes);
        for (offset, frame) in frames.iter().take(MAX_FRAMES).enumerate() {
            self.store(at::REFUSED + offset, *frame);
        }
        if let Some(word) = self.word(at::REFUSED_FRAMES) {
            // Release: the frames come first.
            word.store(frames.len() as u64 + 1, Ordering::Release);
        }
    }

    /// Adds a module. One thread at a time, by the caller's care.
    pub fn add_module(&self, facts: &ModuleFacts<'_>) {
        let count = self.load(at::MODULES) as usize;
        if count >= MAX_MODULES {
            self.note_loss(Loss::Modules, 1);
            return;
        }
        let at = at::MODULE + count * MODULE_WORDS;
        self.store(at, facts.start);
        self.store(at + 1, facts.end);
        self.store(at + 2, facts.bias);
        self.store_bytes(at + 3, facts.build_id, BUILD_ID_MAX_BYTES);
        self.store_bytes(at + 8, facts.path, PATH_MAX_BYTES);
        if let Some(word) = self.word(at::MODULES) {
            // Release: the module comes first.
            word.store(count as u64 + 1, Ordering::Release);
        }
    }

    /// The length plus one, then as many of the bytes as fit; a longer text keeps its whole length.
    fn store_bytes(&self, at: usize, bytes: &[u8], most: usize) {
        for (index, chunk) in bytes.get(..most).unwrap_or(bytes).chunks(8).enumerate() {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.store(at + 1 + index, u64::from_ne_bytes(word));
        }
        self.store(at, bytes.len() as u64 + 1);
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.words.get(index)
    }

    fn load(&self, index: usize) -> u64 {
        self.word(index).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn store(&self, index: usize, value: u64) {
        if let Some(word) = self.word(index) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn add(&self, index: usize, value: u64) {
        if let Some(word) = self.word(index) {
            word.fetch_add(value, Ordering::Relaxed);
        }
    }
}

/// Never zero, which is a free site.
fn hash_of(frames: &[u64]) -> u64 {
    // The multiplier of FxHash; the last shift brings the well-mixed high bits down to where sites are counted.
    let mixed = frames.iter().fold(frames.len() as u64, |hash, frame| {
        (hash.rotate_left(5) ^ frame).wrapping_mul(0x517c_c1b7_2722_0a95)
    });
    (mixed ^ mixed >> 32).max(1)
}
