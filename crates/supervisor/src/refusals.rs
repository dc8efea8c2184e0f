//! What one followed process was refused, and whether it got over it. Pure bookkeeping in fixed room: it is kept in a
//! process that may not allocate.
//!
//! A C library tries again by other means when one call was refused (brk, then mmap, then another arena), so the
//! refusals of one thread that no success interrupts are one *want*, as large as the smallest of them. A want is
//! made good by a success of that thread that is as large, or half as large where it is much, or by the process mapping so much afterwards,
//! in whatever pieces, that it cannot have been the end of it.
//!
//! What is still wanted at the end is what the process died of, unless it got over it with the memory that it had. That
//! shows in what it said since, in whether it could have the memory now, in how much it has worked since, and in what it
//! did: who starts another process or waits for one, sleeps, or reads on, is not on the way out.

use crate::message::{Message, Story, claims_nothing, lines, says_to_try_again, tells_of_a_missing_block};
use crate::shortage::{LEAST_STEP_BYTES, is_of_another_thing};
use crate::text::{place_of, position, whole_number};

/// What a program works on its straight way from a refusal, or from giving its memory back, to its end: a message, a
/// flush, a handler. In nanoseconds of processor time; docs/verdicts.md has the measurements.
const STRAIGHT_NS: u64 = 300_000;

/// What each call that gives memory back adds to that: it is stopped at, which costs the program tens of microseconds of its
/// own, and more on a busy machine.
const RELEASE_NS: u64 = 25_000;

/// The same, after it has said that memory is gone: a backtrace, what other threads do.
const ANNOUNCED_NS: u64 = 100_000_000;

/// What an assertion that failed takes to be told, in nanoseconds of processor time.
const ASSERTED_NS: u64 = 10_000_000;

/// How long both may take: who waits longer in between serves somebody, and is ended for another reason.
const STRAIGHT_MS: u64 = 5_000;
const ANNOUNCED_MS: u64 = 10_000;

/// Who waits so often, for so long in all, is a server, whatever it has said.
const MOST_WAITS: u32 = 100;
const SERVING_MS: u64 = 400;

/// Who is still full after so much work, or so much time, has learned to live with it.
const MISSING_NS: u64 = 60_000_000_000;
const MISSING_MS: u64 = 600_000;

/// The same of one that has said something else since.
const SPOKEN_NS: u64 = 200_000_000;
const SPOKEN_MS: u64 = 2_000;

/// So long what a process says and gives back is looked at, which costs it at each call: then it has gone on.
const WATCHED_NS: u64 = 1_000_000_000;

/// Giving back less than this, or than a sixty-fourth of the limit, tells nothing.
const LEAST_RELEASE_BYTES: u64 = 1 << 20;

/// Another thread that starts a process, or ends this one, does not tell that the refused one has gone on, for so long.
const OTHERS_MS: u64 = 1_000;

/// So soon after its words a library sends the signal that is to end its program, in milliseconds.
const SIGNALLED_MS: u64 = 500;

/// So far from a null pointer, or from MAP_FAILED, a member or an element may lie.
const NEAR_BYTES: u64 = 64 << 10;

/// What the C library opens to say something: catalogues, character sets, the time, the system's log.
const FOR_WORDS: [&[u8]; 5] = [b"/locale", b"/gconv", b"/localtime", b"/zoneinfo", b"/dev/log"];

/// The first line of the backtrace after Go's fatal error.
const OF_A_THROW: &[u8] = b"runtime.throw";

/// What Go writes before a panic's or a fatal error's own words, which may be about memory.
const OF_A_PANIC: &[u8] = b"panic: ";
const OF_AN_ERROR: &[u8] = b"fatal error: ";

/// Words of Go's runtime, before or in a fatal error, for what it could not have: memory, or a thread.
const OF_GOS_MEMORY: [&[u8]; 5] = [b"alloc", b"memory", b"cannot map", b"newosproc", b"new OS thread"];

/// What it says before a fatal error that no memory is missing for.
const OF_GOS_STACKS: &[u8] = b"goroutine stack exceeds";

/// The code that Go's runtime ends with.
const CODE_OF_A_THROW: i32 = 2;

/// Who has given its memory back, and takes so much again, uses it.
const TAKEN_AGAIN_BYTES: u64 = 64 << 10;

/// Less room than this, and nothing is to be had. One large request that is refused leaves room to go on.
const LITTLE_BYTES: u64 = 1 << 20;

/// From this size on half of what was refused will do.
const HALVED_BYTES: u64 = 1 << 20;

/// How many wants are kept for a process; the oldest gives way.
const MOST_WANTS: usize = 8;

/// What a call asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    /// So much more.
    pub(super) bytes: u64,
    /// Than the block had that is to grow; zero for a new one.
    pub(super) grown_from: u64,
}

/// What a thread asked for and did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Want {
    tid: u32,
    /// The smallest of the refused requests, in bytes: what would do.
    least: u64,
    /// The largest of them: a block that a library tried to enlarge where it lies, and then to have anew.
    most: u64,
    /// The whole of a block that was to grow where it lies; zero for none. Who gives the block back for that has made no room.
    whole: u64,
    writable: bool,
    /// `Refusals::mapped` when it was refused last.
    mapped_before: u64,
    /// No success of this thread since, so another refusal is the same want.
    fresh: bool,
    /// When it was refused last.
    at_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    wants: [Option<Want>; MOST_WANTS],
    next: usize,
    /// How many requests were refused in all.
    pub(super) count: u64,
    /// Bytes mapped to be written since the first refusal.
    mapped: u64,
    /// Where the heap ended when brk(2) was last seen; zero for never.
    heap_end: u64,
    /// When something was last refused, given back, or said of memory.
    turned: Moment,
    /// Bytes given back since, in how many calls, and what those took of the processor's time.
    released: u64,
    releases: u64,
    releasing_ns: u64,
    /// It has given back much since something was refused or said of memory.
    has_given_back: bool,
    /// What it said since.
    story: Story,
    /// Of this, that something may be tried again, as of a thread whose stack was refused.
    says_to_try_again: bool,
    /// It has said that memory is gone, and ends of that, however long its words become: Go's runtime does after a throw, of which
    /// it tells with a backtrace of all that it runs. Who opens or reads a file has only told of it.
    is_thrown: bool,
    /// It has begun to say what its fatal error is, in Go.
    begins_error: bool,
    /// A refused thread has read something or waited since something was refused or said of memory. (What the C library reads
    /// before it tries another way comes before the last refusal.)
    goes_on: bool,
    /// How often one has waited since.
    waits: u32,
    /// What was refused last is a thread's stack; and who was refused it has waited for another thread since.
    pub(super) is_of_stack: bool,
    has_waited_for_thread: bool,
    /// What one has read since that says that memory is gone: the last such line.
    read: Line,
    /// A refused thread has ended since, and its process went on without it.
    is_thread_gone: bool,
    /// The error of the last call of a refused thread that failed since; zero for none.
    last_error: i32,
    fault: Option<Fault>,
    /// It has said that memory is gone, and sent itself the signal that ends it.
    gives_up: bool,
    /// A thread ends it that was refused nothing.
    is_others_end: bool,
    has_aborted: bool,
}

/// What a process crashed of last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It touched, straight after the refusal, what it did not get.
    OfMissing,
    /// No address was at fault, or one that has nothing to do with what was refused.
    Other,
}

/// What a thread has touched that it crashes of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) address: u64,
    /// Something is mapped there.
    pub(super) is_mapped: bool,
    /// It lies in what that thread asked for last, by its address.
    pub(super) is_sought: bool,
    pub(super) stack_pointer: Option<u64>,
}

impl Access {
    /// Whether it lies where the stack has no room to grow, as far as the kernel says.
    fn is_at_stack(self) -> bool {
        /// What a stack may be short of at once.
        const GROWTH_BYTES: u64 = 1 << 20;
        self.stack_pointer.is_none_or(|end| self.address.abs_diff(end) <= GROWTH_BYTES)
    }
}

/// The end of a line that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    bytes: [u8; Line::MOST],
    len: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line { bytes: [0; Line::MOST], len: 0 }
    }
}

impl Line {
    const MOST: usize = 128;

    fn of(line: &[u8]) -> Line {
        let mut kept = Line::default();
        let end = line.get(line.len().saturating_sub(Line::MOST)..).unwrap_or(line);
        kept.bytes.iter_mut().zip(end).for_each(|(slot, byte)| *slot = *byte);
        Line { len: end.len(), ..kept }
    }

    fn is_in(&self, text: &[u8]) -> bool {
        let line = self.bytes.get(..self.len).unwrap_or(&[]);
        !line.is_empty() && place_of(text, line).is_some()
    }
}

/// The signals of the processor that no missing block raises.
const OF_OTHER_FAULTS: [i32; 3] = [libc::SIGBUS, libc::SIGFPE, libc::SIGSYS];

/// A moment in a process's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Processor time that it has used.
    pub(super) used_ns: u64,
    pub(super) at_ms: u64,
}

impl Moment {
    /// Whether so little work and time lies between this moment and `later`.
    fn is_within(self, later: Moment, ns: u64, ms: u64) -> bool {
        later.used_ns.saturating_sub(self.used_ns) <= ns && later.at_ms.saturating_sub(self.at_ms) <= ms
    }

    /// How long nobody has worked by `later`, in milliseconds.
    fn idle_ms(self, later: Moment) -> u64 {
        let used_ms = later.used_ns.saturating_sub(self.used_ns) / 1_000_000;
        later.at_ms.saturating_sub(self.at_ms).saturating_sub(used_ms)
    }
}

/// A process at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) now: Moment,
    /// The limit that refused it, or what others leave of it now; and how much is in use of what that counts, which is unknown
    /// without `/proc`.
    pub(super) limit: u64,
    /// More than this it could never have had.
    pub(super) whole: u64,
    pub(super) in_use: Option<u64>,
    /// It has waited for a child since it was refused something.
    pub(super) has_waited_for_child: bool,
    /// The signal that ends it, or the code; zero for none.
    pub(super) signal: i32,
    pub(super) code: i32,
    /// It exits after an abort, and not in its handler for that.
    pub(super) has_left_handler: bool,
    /// It is a program in Rust that ends as one does which panics. What std dies of it says.
    pub(super) is_of_panic: bool,
}

impl End {
    fn is_full(self) -> bool {
        let wanted = LITTLE_BYTES + LEAST_STEP_BYTES;
        self.has_no_room_for(wanted)
    }

    fn has_no_room_for(self, bytes: u64) -> bool {
        self.in_use.is_none_or(|in_use| in_use.saturating_add(bytes) > self.limit)
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Refused { bytes: u64, writable: bool },
    Mapped { bytes: u64, writable: bool },
    Released { bytes: u64 },
}

impl Refusals {
    /// A brk(2) that asked for `asked` and was answered with `end`.
    pub(super) fn of_break(&mut self, asked: u64, end: u64) -> Outcome {
        let before = std::mem::replace(&mut self.heap_end, end);
        if asked > end {
            return Outcome::Refused { bytes: asked - end, writable: true };
        }
        if end < before {
            return Outcome::Released { bytes: before - end };
        }
        let bytes = if before == 0 { 0 } else { end.saturating_sub(before) };
        Outcome::Mapped { bytes, writable: true }
    }

    pub(super) fn heap_end(&self) -> u64 {
        self.heap_end
    }

    pub(super) fn note_refused(&mut self, tid: u32, asked: Sought, writable: bool, now: Moment) {
        let Sought { bytes, grown_from } = asked;
        let whole = if grown_from == 0 { 0 } else { bytes.saturating_add(grown_from) };
        self.count += 1;
        self.turn(now);
        self.go_back_to_it();
        self.says_to_try_again = false;
        (self.is_thread_gone, self.fault, self.gives_up) = (false, None, false);
        // What was said before has nothing to do with it.
        if self.story.last == Some(Message::Unrelated) {
            self.story = Story::default();
        }
        let mapped_before = self.mapped;
        let same = self.wants.iter_mut().flatten().find(|want| want.tid == tid && want.fresh);
        if let Some(want) = same {
            want.at_ms = now.at_ms;
            want.least = want.least.min(bytes);
            want.most = want.most.max(bytes);
            want.whole = want.whole.max(whole);
            want.writable |= writable;
            want.mapped_before = mapped_before;
            return;
        }
        let want = Want {
            tid,
            least: bytes,
            most: bytes,
            whole,
            writable,
            mapped_before,
            fresh: true,
            at_ms: now.at_ms,
        };
        let free = self.wants.iter().position(Option::is_none).unwrap_or(self.next);
        self.next = (free + 1) % MOST_WANTS;
        if let Some(slot) = self.wants.get_mut(free) {
            *slot = Some(want);
        }
    }

    /// A request was granted; `enough` is how much a process maps only if it goes on.
    pub(super) fn note_mapped(&mut self, tid: u32, bytes: u64, writable: bool, enough: u64) {
        if writable {
            self.mapped = self.mapped.saturating_add(bytes);
            self.goes_on |= self.has_given_back && bytes >= TAKEN_AGAIN_BYTES && self.has_wanted(tid);
        }
        for slot in &mut self.wants {
            let Some(want) = slot else { continue };
            // Who reserves a heap of its own halves what it asks for until it gets it.
            let would_do = if want.least > HALVED_BYTES { want.least / 2 } else { want.least };
            let granted = want.tid == tid && bytes >= would_do && (writable || !want.writable);
            if granted || self.mapped - want.mapped_before >= enough {
                *slot = None;
            } else if want.tid == tid {
                want.fresh = false;
            }
        }
    }

    /// So much was given back: as part of a death, or so as to go on. The little that exit handlers free is neither.
    /// `took_ns`: what the call itself took, which is the more, the more of it was used.
    pub(super) fn note_released(&mut self, bytes: u64, took_ns: u64, now: Moment, limit: u64) {
        self.released = self.released.saturating_add(bytes);
        self.releases = self.releases.saturating_add(1);
        self.releasing_ns = self.releasing_ns.saturating_add(took_ns);
        if self.released >= (limit / 64).max(LEAST_RELEASE_BYTES) {
            self.turn(now);
            self.has_given_back = true;
        }
    }

    fn turn(&mut self, now: Moment) {
        self.waits = 0;
        (self.turned, self.released, self.releases, self.releasing_ns) = (now, 0, 0, 0);
    }

    /// Whether what the process says and gives back may bear on its end.
    pub(super) fn are_worth_watching(&self, now: Moment) -> bool {
        self.is_wanting() && self.turned.is_within(now, WATCHED_NS, MISSING_MS)
    }

    /// What the refused thread did until now was about its refusal.
    fn go_back_to_it(&mut self) {
        (self.goes_on, self.has_given_back) = (false, false);
        (self.has_waited_for_thread, self.last_error) = (false, 0);
    }

    /// Whether it is a thread that was refused something.
    fn has_wanted(&self, tid: u32) -> bool {
        self.wants.iter().flatten().any(|want| want.tid == tid)
    }

    /// The program said something. `no_memory`: how ENOMEM is told in its user's language; empty in English.
    pub(super) fn note_said(&mut self, text: &[u8], no_memory: &[u8], on_stderr: bool, now: Moment) {
        self.is_thrown |= self.story.last == Some(Message::OutOfMemory)
            && self.turned.is_within(now, ANNOUNCED_NS, STRAIGHT_MS)
            && place_of(text, OF_A_THROW).is_some();
        let is_of_memory = is_said_in(text, no_memory);
        // What it has said itself stays said; and what it says of memory besides counts.
        let mut claiming = lines(text).filter(|line| claims(line, no_memory));
        if self.read.is_in(text) && claiming.all(|line| self.read.is_in(line)) {
            return;
        }
        if is_of_memory {
            self.turn(now);
            self.go_back_to_it();
            self.story = Story { last: Some(Message::OutOfMemory), ..Story::default() };
            return;
        }
        // An assertion that a block is there, straight after the refusal: which took work to say.
        if tells_of_a_missing_block(text) && self.turned.is_within(now, ASSERTED_NS, STRAIGHT_MS) {
            self.turn(now);
            self.story = Story { last: Some(Message::OutOfMemory), ..Story::default() };
            return;
        }
        let is_of_error = std::mem::replace(&mut self.begins_error, text == OF_AN_ERROR);
        let is_of_memory = || OF_GOS_MEMORY.iter().any(|part| place_of(text, part).is_some());
        if text == OF_A_PANIC || is_of_error && !is_of_memory() || place_of(text, OF_GOS_STACKS).is_some() {
            self.story = Story { last: Some(Message::OtherDeath), ..Story::default() };
            return;
        }
        let is_heard = match Message::of(text) {
            // A line may come to its end.
            None => text.ends_with(b"\n"),
            Some(Message::OutOfMemory) => {
                self.turn(now);
                self.go_back_to_it();
                true
            }
            Some(Message::OtherDeath) => true,
            // Results wait in stdout's buffer, from before the refusal until the end.
            Some(Message::Unrelated) => on_stderr,
        };
        if is_heard {
            self.story.hear(text);
            self.says_to_try_again |= says_to_try_again(text);
        }
    }

    /// A refused thread opens a file, by a name that may be cut.
    pub(super) fn note_opened(&mut self, name: &[u8]) {
        if !is_for_words(name) {
            self.note_goes_on();
        }
    }

    /// A refused thread has read this, or what begins with it.
    pub(super) fn note_read(&mut self, text: &[u8], no_memory: &[u8]) {
        if let Some(line) = lines(text).filter(|line| claims(line, no_memory)).last() {
            self.read = Line::of(line);
        }
        self.note_goes_on();
    }

    /// A call of a refused thread has failed, which was not for words.
    pub(super) fn note_failed(&mut self, errno: i32) {
        self.last_error = errno;
    }

    fn note_goes_on(&mut self) {
        (self.goes_on, self.is_thrown) = (true, false);
    }

    /// A refused thread waits.
    pub(super) fn note_wait(&mut self) {
        self.goes_on = true;
        self.waits = self.waits.saturating_add(1);
    }

    /// A refused thread waits for another one: one that could not have another thread goes on with those that there are.
    pub(super) fn note_wait_for_thread(&mut self) {
        self.has_waited_for_thread |= self.is_of_stack;
    }

    /// Thread `tid` has ended, and its process has not.
    pub(super) fn note_thread_ended(&mut self, tid: u32) {
        self.is_thread_gone |= self.has_wanted(tid);
    }

    /// Thread `tid` has touched what it must not; `None`: it has done what no address was at fault for.
    pub(super) fn note_fault(&mut self, tid: u32, access: Option<Access>, now: Moment) {
        let Some(access) = access else {
            self.fault = Some(Fault::Other);
            return;
        };
        let Access { address, is_mapped, is_sought, .. } = access;
        let near = |want: &Want| NEAR_BYTES.max(want.least);
        let is_near = |want: &Want| {
            let near = near(want);
            address < near || address.wrapping_add(1) < near || address > u64::MAX - NEAR_BYTES
        };
        let mut wants = self.wants.iter().flatten();
        let is_own = |want: &Want| want.tid == tid && (is_sought || !is_mapped && is_near(want));
        let is_anybodys = |want: &Want| is_sought || !is_mapped && (is_near(want) || address < want.most);
        let is_straight = self.turned.is_within(now, STRAIGHT_NS, STRAIGHT_MS);
        self.fault = if is_straight && wants.clone().any(is_own) {
            Some(Fault::OfMissing)
        } else if wants.any(is_anybodys) || access.is_at_stack() {
            None
        } else {
            Some(Fault::Other)
        };
    }

    /// It has sent itself a signal that ends a program which does not handle it.
    pub(super) fn note_signal_to_itself(&mut self, now: Moment) {
        self.gives_up = self.story.last == Some(Message::OutOfMemory)
            && !self.story.goes_on
            && self.turned.is_within(now, ANNOUNCED_NS, SIGNALLED_MS);
    }

    /// A thread aborts.
    pub(super) fn note_abort(&mut self) {
        self.has_aborted = true;
    }

    pub(super) fn has_aborted(&self) -> bool {
        self.has_aborted
    }

    /// Thread `tid` aborts, or exits. Where there are more wants than are kept, it may have had one.
    pub(super) fn note_end_by(&mut self, tid: u32) {
        let is_anybodys = self.wants.iter().any(Option::is_none);
        self.is_others_end = is_anybodys && !self.has_wanted(tid);
    }

    /// Thread `tid` has started another process: it has gone on, and so has who was refused long before.
    pub(super) fn note_forked(&mut self, tid: u32, now: Moment) {
        for slot in &mut self.wants {
            *slot = slot.filter(|want| want.tid != tid && now.at_ms.saturating_sub(want.at_ms) <= OTHERS_MS);
        }
    }

    /// Whether a process that ends now dies of what it was refused.
    pub(super) fn are_fatal(&self, end: End) -> bool {
        let is_within = |ns, ms| self.turned.is_within(end.now, ns, ms);
        let releasing_ns = self.releasing_ns.saturating_add(self.releases.saturating_mul(RELEASE_NS));
        let straight_ns = STRAIGHT_NS.saturating_add(releasing_ns);
        let is_crash = end.signal == libc::SIGSEGV;
        let serves = self.waits > MOST_WAITS && !is_within(u64::MAX, SERVING_MS);
        let is_other_fault =
            OF_OTHER_FAULTS.contains(&end.signal) || is_crash && self.fault == Some(Fault::Other);
        // Who aborts for want of a block has not given back what was in its way.
        let is_unrelated_abort =
            end.signal == libc::SIGABRT && (self.is_others_end || !self.would_be_refused(end));
        match self.story.last {
            _ if !self.is_wanting() || end.has_waited_for_child => false,
            _ if end.signal == libc::SIGINT => self.gives_up,
            _ if self.is_thrown => end.code == CODE_OF_A_THROW || end.signal == libc::SIGABRT,
            _ if is_crash && self.fault == Some(Fault::OfMissing) => true,
            Some(Message::OutOfMemory) if !serves && is_within(ANNOUNCED_NS, ANNOUNCED_MS) => true,
            Some(Message::OtherDeath) => false,
            // It has jumped out of its handler: what led to the abort has not ended it.
            _ if end.has_left_handler => false,
            // Who is told at once that another one has failed does not sleep meanwhile.
            _ if self.is_others_end && end.signal == 0 && self.turned.idle_ms(end.now) > OTHERS_MS => false,
            _ if self.goes_on || is_other_fault => false,
            // Nobody knows what a hook has kept silent about.
            _ if end.is_of_panic && !self.says_to_try_again => false,
            _ if end.code != 0 && is_of_another_thing(self.last_error) => false,
            None if self.has_waited_for_thread => false,
            None if !self.is_thread_gone && !is_unrelated_abort && is_within(straight_ns, STRAIGHT_MS) => {
                true
            }
            Some(Message::Unrelated) => {
                !self.story.fails_otherwise
                    && (end.is_full() || self.says_to_try_again)
                    && is_within(SPOKEN_NS, SPOKEN_MS)
                    && self.are_still_missing(end)
            }
            _ => is_within(MISSING_NS, MISSING_MS) && self.are_still_missing(end),
        }
    }

    /// Whether something possible that was refused would be refused again.
    fn are_still_missing(&self, end: End) -> bool {
        let is_possible = |bytes| bytes <= end.whole;
        end.in_use.is_none() || self.missing(end).any(is_possible)
    }

    /// The same of what was possible or not.
    fn would_be_refused(&self, end: End) -> bool {
        let is_missing = |want: &Want| end.has_no_room_for(want.least.max(want.whole).max(LEAST_STEP_BYTES));
        self.wants.iter().flatten().any(is_missing)
    }

    /// What was refused and would be again, in bytes.
    fn missing(&self, end: End) -> impl Iterator<Item = u64> {
        let wanted = self.wants.iter().flatten().map(|want| want.least.max(LEAST_STEP_BYTES));
        wanted.filter(move |bytes| end.has_no_room_for(*bytes))
    }

    /// Whether something was refused that nothing has made good.
    pub(super) fn is_wanting(&self) -> bool {
        self.wants.iter().any(Option::is_some)
    }
}

/// Whether a file of that name is opened and read for the sake of what is to be said.
pub(super) fn is_for_words(name: &[u8]) -> bool {
    FOR_WORDS.iter().any(|part| place_of(name, part).is_some())
}

/// Whether it is a message as syslog(3) sends it: a priority comes first.
pub(super) fn is_for_system_log(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"<") else { return false };
    position(rest, b'>').and_then(|len| rest.get(..len)).and_then(whole_number).is_some()
}

/// Whether a line says that memory is gone.
fn claims(line: &[u8], no_memory: &[u8]) -> bool {
    Message::of(line) == Some(Message::OutOfMemory) || is_said_in(line, no_memory)
}

/// Whether a line of it claims failure in these words.
fn is_said_in(text: &[u8], words: &[u8]) -> bool {
    let says = |line: &[u8]| !words.is_empty() && line.windows(words.len()).any(|part| part == words);
    text.split(|byte| *byte == b'\n').any(|line| says(line) && !claims_nothing(line))
}

/// How much a process with this limit maps only if it goes on.
pub(super) fn enough(limit: u64) -> u64 {
    (limit / 8).max(16 << 20)
}

#[cfg(test)]
mod tests;
