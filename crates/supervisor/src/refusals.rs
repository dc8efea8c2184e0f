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
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const START: Moment = Moment { used_ns: 0, at_ms: 0 };

    fn anew(bytes: u64) -> Sought {
        Sought { bytes, grown_from: 0 }
    }

    fn used(used_ns: u64) -> Moment {
        Moment { used_ns, at_ms: 0 }
    }

    fn end_at(now: Moment, in_use: Option<u64>) -> End {
        End {
            now,
            limit: 64 * MIB,
            whole: 64 * MIB,
            in_use,
            has_waited_for_child: false,
            signal: 0,
            code: 0,
            has_left_handler: false,
            is_of_panic: false,
        }
    }

    fn say(refusals: &mut Refusals, message: Message, now: Moment) {
        let text: &[u8] = match message {
            Message::OutOfMemory => b"worker: out of memory\n",
            Message::OtherDeath => b"thread 'main' panicked at src/main.rs\n",
            Message::Unrelated => b"usage: worker FILE\n",
        };
        assert_eq!(Message::of(text), Some(message));
        refusals.note_said(text, b"", true, now);
    }

    fn refused(requests: &[u64]) -> Refusals {
        let mut refusals = Refusals::default();
        for bytes in requests {
            refusals.note_refused(1, anew(*bytes), true, START);
        }
        refusals
    }

    fn after(mut refusals: Refusals, granted: &[(u32, u64)]) -> bool {
        for (tid, bytes) in granted {
            refusals.note_mapped(*tid, *bytes, true, enough(64 * MIB));
        }
        refusals.is_wanting()
    }

    #[test]
    fn what_was_made_good_is_no_longer_wanted() {
        for (requests, granted, wanting) in [
            (&[][..], &[][..], false),
            (&[MIB], &[], true),
            (&[MIB], &[(1, MIB)], false),
            (&[MIB], &[(1, MIB - 1)], true),
            // brk refused, then mmap: the C library's second way.
            (&[132 << 10], &[(1, MIB)], false),
            // brk and mmap refused, then another arena: what was asked for is the smaller.
            (&[132 << 10, MIB], &[(1, 132 << 10)], false),
            // A large one, and afterwards the little that saying so takes.
            (&[64 * MIB, 64 * MIB], &[(1, 132 << 10), (1, 4096)], true),
            // Half of a reservation, but no less than that.
            (&[64 * MIB], &[(1, 32 * MIB)], false),
            (&[64 * MIB], &[(1, 15 * MIB)], true),
            // Another thread's success says nothing of this one's want …
            (&[MIB], &[(2, 2 * MIB)], true),
            // … unless the whole process goes on.
            (&[MIB], &[(2, 8 * MIB), (3, 8 * MIB)], false),
            (&[1 << 40], &[(1, 10 * MIB), (1, 10 * MIB)], false),
        ] {
            assert_eq!(after(refused(requests), granted), wanting, "{requests:?} {granted:?}");
        }
    }

    #[test]
    fn a_refusal_after_a_success_is_another_want() {
        let mut refusals = refused(&[64 * MIB]);
        refusals.note_mapped(1, 4096, true, enough(0));
        refusals.note_refused(1, anew(4096), true, START);
        refusals.note_mapped(1, 4096, true, enough(0));
        assert!(refusals.is_wanting(), "the large one is still wanted");
    }

    #[test]
    fn a_reservation_does_not_make_good_what_was_to_be_written() {
        let mut refusals = refused(&[MIB]);
        refusals.note_mapped(1, 64 * MIB, false, enough(0));
        assert!(refusals.is_wanting());
    }

    #[test]
    fn the_heaps_end_tells_what_was_asked_for() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.of_break(500, 100), Outcome::Refused { bytes: 400, writable: true });
        assert_eq!(refusals.of_break(300, 300), Outcome::Mapped { bytes: 200, writable: true });
        assert_eq!(refusals.of_break(300, 300), Outcome::Mapped { bytes: 0, writable: true });
        assert_eq!(refusals.of_break(200, 200), Outcome::Released { bytes: 100 });
    }

    #[test]
    fn what_a_process_does_after_a_refusal_tells_whether_it_dies_of_it() {
        use Message::{OtherDeath, OutOfMemory, Unrelated};
        const FULL: Option<u64> = Some(63 * MIB);
        const FREE: Option<u64> = Some(8 * MIB);
        for (bytes, said, worked_ns, in_use, fatal) in [
            // Full to the end; whatever it did meanwhile.
            (2 * MIB, None, 0, FULL, true),
            (2 * MIB, None, 20_000_000, FULL, true),
            (2 * MIB, None, 20_000_000, None, true),
            (2 * MIB, Some(OtherDeath), 0, FULL, false),
            // It gave its memory back …
            (2 * MIB, None, 0, FREE, true),
            (2 * MIB, None, STRAIGHT_NS, FREE, true),
            (2 * MIB, Some(Unrelated), 0, FREE, false),
            (2 * MIB, Some(Unrelated), 0, FULL, true),
            (2 * MIB, None, STRAIGHT_NS + 1, FREE, false),
            (2 * MIB, Some(OutOfMemory), ANNOUNCED_NS, FREE, true),
            (2 * MIB, Some(OutOfMemory), ANNOUNCED_NS + 1, FREE, false),
            // Small ones are taken in steps.
            (4096, None, 20_000_000, Some(64 * MIB - (64 << 10)), true),
            (4096, None, 20_000_000, Some(63 * MIB), false),
            // What cannot be is missing for ever.
            (1 << 40, None, 0, FREE, true),
            (1 << 40, None, 20_000_000, FULL, false),
        ] {
            let mut refusals = Refusals::default();
            refusals.note_refused(1, anew(bytes), true, used(500));
            if let Some(message) = said {
                say(&mut refusals, message, used(500));
            }
            let end = end_at(used(500 + worked_ns), in_use);
            assert_eq!(refusals.are_fatal(end), fatal, "{bytes} {said:?} {end:?}");
        }
        let end = end_at(START, FULL);
        assert!(!Refusals::default().are_fatal(end), "nothing was refused");
    }

    #[test]
    fn a_refusal_ages_by_work_and_by_time() {
        use Message::{OutOfMemory, Unrelated};
        let full = Some(63 * MIB);
        for (said, in_use, ns, ms) in [
            (None, Some(0), STRAIGHT_NS, STRAIGHT_MS),
            (Some(OutOfMemory), Some(0), ANNOUNCED_NS, ANNOUNCED_MS),
            (None, full, MISSING_NS, MISSING_MS),
            (Some(OutOfMemory), full, MISSING_NS, MISSING_MS),
            (Some(Unrelated), full, SPOKEN_NS, SPOKEN_MS),
        ] {
            let is_fatal = |used_ns, at_ms| {
                let mut refusals = refused(&[2 * MIB]);
                if let Some(message) = said {
                    say(&mut refusals, message, START);
                }
                let end = end_at(Moment { used_ns, at_ms }, in_use);
                refusals.are_fatal(end)
            };
            assert!(is_fatal(ns, ms), "{said:?} {in_use:?}");
            assert!(!is_fatal(ns + 1, ms), "{said:?} {in_use:?}: it has worked");
            assert!(!is_fatal(ns, ms + 1), "{said:?} {in_use:?}: it has waited");
        }
        let refusals = refused(&[MIB]);
        assert!(
            refusals.are_worth_watching(used(WATCHED_NS))
                && !refusals.are_worth_watching(used(WATCHED_NS + 1))
        );
        assert!(!Refusals::default().are_worth_watching(START));
    }

    #[test]
    fn who_goes_on_with_other_things_has_got_over_it() {
        let full = Some(64 * MIB);
        let is_fatal_after = |goes_on: fn(&mut Refusals)| {
            let mut refusals = refused(&[2 * MIB]);
            goes_on(&mut refusals);
            refusals.are_fatal(end_at(START, full))
        };
        let late = Moment { used_ns: 0, at_ms: OTHERS_MS + 1 };
        assert!(is_fatal_after(|_| ()));
        assert!(is_fatal_after(|refusals| refusals.note_forked(2, START)), "another thread's child");
        for (nr, goes_on) in [
            (|refusals| refusals.note_forked(1, START)) as fn(&mut Refusals),
            |refusals| refusals.note_forked(2, Moment { used_ns: 0, at_ms: OTHERS_MS + 1 }),
            |refusals| refusals.note_read(b"rows", b""),
            |refusals| refusals.note_said(b"input.csv: No such file or directory\n", b"", true, START),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(!is_fatal_after(goes_on), "{nr}");
        }
        let waited = End { has_waited_for_child: true, ..end_at(START, full) };
        assert!(!refused(&[2 * MIB]).are_fatal(waited));
        // And then it is refused again, or says that it was.
        for (is_of_stack, fatal) in [(true, false), (false, true)] {
            let mut refusals = refused(&[2 * MIB]);
            refusals.is_of_stack = is_of_stack;
            refusals.note_wait_for_thread();
            assert_eq!(refusals.are_fatal(end_at(START, full)), fatal, "{is_of_stack}");
            say(&mut refusals, Message::OutOfMemory, START);
            assert!(refusals.are_fatal(end_at(START, full)));
        }
        let mut refusals = refused(&[2 * MIB]);
        refusals.note_goes_on();
        refusals.note_refused(1, anew(2 * MIB), true, late);
        assert!(refusals.are_fatal(end_at(late, full)));
        refusals.note_goes_on();
        say(&mut refusals, Message::OutOfMemory, late);
        assert!(refusals.are_fatal(end_at(late, full)));
    }

    #[test]
    fn who_says_what_it_has_read_passes_it_on() {
        let full = Some(64 * MIB);
        let later = Moment { used_ns: 0, at_ms: 2_000 };
        for (read, fatal) in [
            (&b"rows\r\nworker: out of memory\r\nrows"[..], false),
            (b"out of memory\n", false),
            (b"worker 7: out of memory\n", true),
            (b"worker: \n", true),
            (b"", true),
        ] {
            let mut refusals = refused(&[2 * MIB]);
            refusals.note_read(read, b"");
            say(&mut refusals, Message::OutOfMemory, later);
            assert_eq!(refusals.are_fatal(end_at(later, full)), fatal, "{read:?}");
        }
        // That it fails at something else is its own.
        let mut refusals = refused(&[2 * MIB]);
        say(&mut refusals, Message::OutOfMemory, START);
        refusals.note_read(b"worker 7: out of memory\n", b"");
        say(&mut refusals, Message::OtherDeath, later);
        assert!(!refusals.are_fatal(end_at(later, full)));
    }

    #[test]
    fn who_misses_a_file_in_silence_has_its_own_reason() {
        for (errno, code, fatal) in [
            (libc::ENOENT, 3, false),
            (libc::ECONNREFUSED, 3, false),
            (libc::ENOENT, 0, true),
            (libc::ENOTTY, 3, true),
            (libc::EBADF, 3, true),
        ] {
            let mut refusals = refused(&[2 * MIB]);
            refusals.note_failed(errno);
            let end = End { code, ..end_at(START, Some(64 * MIB)) };
            assert_eq!(refusals.are_fatal(end), fatal, "{errno} {code}");
            refusals.note_failed(libc::ENOENT);
            refusals.note_refused(1, anew(MIB), true, START);
            assert!(refusals.are_fatal(end));
        }
    }

    #[test]
    fn words_about_something_else_count_only_where_there_is_room() {
        for (in_use, fatal) in [(63 * MIB, true), (40 * MIB, false)] {
            let mut refusals = refused(&[32 * MIB]);
            say(&mut refusals, Message::Unrelated, START);
            assert_eq!(refusals.are_fatal(end_at(START, Some(in_use))), fatal, "{in_use}");
        }
        // A thread's stack is one large request.
        let mut refusals = refused(&[32 * MIB]);
        refusals.note_said(b"pthread_create: Resource temporarily unavailable\n", b"", true, START);
        assert!(refusals.are_fatal(end_at(START, Some(40 * MIB))));
    }

    #[test]
    fn memory_is_spoken_of_in_the_users_language() {
        let words = "Nicht genügend Hauptspeicher verfügbar";
        let line = format!("eat: {words}\n");
        let dropped = format!("warning: {words}\n");
        for (said, no_memory, fatal) in [(&line, words, true), (&line, "", false), (&dropped, words, false)] {
            let mut refusals = refused(&[MIB]);
            refusals.note_said(said.as_bytes(), no_memory.as_bytes(), true, START);
            assert_eq!(refusals.are_fatal(end_at(used(STRAIGHT_NS + 1), Some(0))), fatal, "{said}");
        }
    }

    #[test]
    fn who_takes_again_what_it_gave_back_goes_on() {
        for (released, taken, tid, fatal) in [
            (32 * MIB, TAKEN_AGAIN_BYTES, 1, false),
            (32 * MIB, TAKEN_AGAIN_BYTES - 1, 1, true),
            (32 * MIB, TAKEN_AGAIN_BYTES, 2, true),
            (4096, TAKEN_AGAIN_BYTES, 1, true),
        ] {
            let mut refusals = refused(&[MIB]);
            refusals.note_released(released, 0, START, 64 * MIB);
            refusals.note_mapped(tid, taken, true, enough(0));
            assert_eq!(refusals.are_fatal(end_at(START, Some(0))), fatal, "{released} {taken} {tid}");
        }
    }

    #[test]
    fn who_throws_as_go_does_ends_of_that_however_long_it_speaks() {
        let late = Moment { used_ns: 60_000_000_000, at_ms: 60_000 };
        const OF_MEMORY: &[&str] = &["runtime: out of memory", "runtime.throw"];
        for (said, code, signal, fatal) in [
            (OF_MEMORY, 2, 0, true),
            (OF_MEMORY, 0, libc::SIGABRT, true),
            (OF_MEMORY, 0, libc::SIGTERM, false),
            // It has only told of another's.
            (OF_MEMORY, 3, 0, false),
            (&["runtime: out of memory", "main.main"], 2, 0, false),
            (&["fatal error: ", "all goroutines are asleep", "runtime.throw"], 2, 0, false),
        ] {
            let mut refusals = refused(&[MIB]);
            for text in said {
                refusals.note_said(text.as_bytes(), b"", true, START);
            }
            let end = End { signal, code, ..end_at(late, Some(0)) };
            assert_eq!(refusals.are_fatal(end), fatal, "{said:?} {code} {signal}");
            refusals.note_opened(b"/var/log/workers");
            assert!(!refusals.are_fatal(end), "{said:?}: it has gone on");
        }
    }

    #[test]
    fn who_panics_as_go_does_ends_of_what_the_panic_says() {
        const MAP: &str = "cache off: cannot allocate memory\n";
        for (said, fatal) in [
            (&[MAP, "panic: ", "index corrupted", "\n"][..], false),
            (&["panic: ", "index corrupted", "\n"], false),
            (&["fatal error: ", "concurrent map writes", "\n"], false),
            (&["fatal error: ", "runtime: out of memory", "\n"], true),
            (&["runtime: failed to create new OS thread", "fatal error: ", "runtime.newosproc"], true),
            (&[MAP, "fatal error: ", "sync: unlock of unlocked mutex", "\n"], false),
            (&[MAP, "panic: ", "cannot allocate memory", "\n"], true),
            (&[MAP, "fatal error: ", "all goroutines are asleep - deadlock!", "\n"], false),
            (&[MAP, "fatal error: ", "concurrent map writes", "\n"], false),
            (
                &[
                    MAP,
                    "runtime: goroutine stack exceeds ",
                    "fatal error: ",
                    "stack overflow",
                    "runtime.throw",
                ],
                false,
            ),
        ] {
            let mut refusals = refused(&[MIB]);
            for text in said {
                refusals.note_said(text.as_bytes(), b"", true, START);
            }
            assert_eq!(refusals.are_fatal(end_at(START, Some(64 * MIB))), fatal, "{said:?}");
        }
    }

    #[test]
    fn who_opens_a_file_goes_on_unless_it_is_for_words() {
        for (name, fatal) in [
            (&b"/etc/eat.conf"[..], false),
            (b"", false),
            (b"/usr/share/locale/de/LC_MESSAGES/libc.mo", true),
            (b"/etc/localtime", true),
        ] {
            let mut refusals = refused(&[MIB]);
            refusals.note_opened(name);
            assert_eq!(refusals.are_fatal(end_at(START, Some(0))), fatal, "{name:?}");
        }
    }

    #[test]
    fn a_message_for_the_systems_log_begins_with_its_priority() {
        for (text, is_one) in [
            (&b"<11>Nov 26 21:00:00 eat: out of memory"[..], true),
            (b"<b>out of memory</b>", false),
            (b"<11 out of memory", false),
            (b"<>", false),
            (b"ERROR out of memory", false),
        ] {
            assert_eq!(is_for_system_log(text), is_one);
        }
    }

    #[test]
    fn giving_back_is_no_work() {
        for (released, fatal) in [(64 * MIB, true), (4096, false)] {
            let mut refusals = refused(&[MIB]);
            refusals.note_released(released, 0, used(20 * STRAIGHT_NS), 64 * MIB);
            let end = end_at(used(20 * STRAIGHT_NS), Some(0));
            assert_eq!(refusals.are_fatal(end), fatal, "{released}");
        }
        // What the calls themselves take is none either.
        for (took_ns, fatal) in [(19 * STRAIGHT_NS, true), (18 * STRAIGHT_NS, false)] {
            let mut refusals = refused(&[MIB]);
            refusals.note_released(4096, took_ns, used(20 * STRAIGHT_NS), 64 * MIB);
            let end = end_at(used(20 * STRAIGHT_NS), Some(0));
            assert_eq!(refusals.are_fatal(end), fatal, "{took_ns}");
        }
    }

    #[test]
    fn a_crash_counts_if_it_is_of_what_was_refused_and_comes_at_once() {
        let crash = |now, in_use| End { signal: libc::SIGSEGV, ..end_at(now, Some(in_use)) };
        let late = used(STRAIGHT_NS + 1);
        const STACK: u64 = 1 << 46;
        let at = |address| Access { address, is_mapped: false, is_sought: false, stack_pointer: Some(STACK) };
        let denied = |address| Access { is_mapped: true, ..at(address) };
        for (access, now, fatal) in [
            (Some(at(8)), START, true),
            (Some(at(u64::MAX)), START, true),
            (Some(at(8)), late, false),
            (Some(at(1 << 40)), START, false),
            (Some(Access { is_sought: true, ..denied(1 << 40) }), START, true),
            (Some(denied(1 << 40)), START, false),
            (None, START, false),
        ] {
            let mut refusals = refused(&[MIB]);
            refusals.note_fault(1, access, now);
            // Its own handler speaks of something else.
            say(&mut refusals, Message::Unrelated, now);
            assert_eq!(refusals.are_fatal(crash(now, 0)), fatal, "{access:?}");
        }
        // Without a word the address alone tells: not of a block, nor of a stack.
        for (access, in_use, fatal) in [
            (Some(at(8)), 0, true),
            (Some(at(STACK - 4096)), 64 * MIB, true),
            (Some(at(1 << 40)), 0, false),
            (Some(at(1 << 40)), 64 * MIB, false),
            (Some(denied(1 << 40)), 64 * MIB, false),
            (None, 64 * MIB, false),
        ] {
            let mut refusals = refused(&[MIB]);
            refusals.note_fault(1, access, START);
            assert_eq!(refusals.are_fatal(crash(START, in_use)), fatal, "{access:?} {in_use}");
        }
    }

    #[test]
    fn a_fault_that_no_missing_block_raises_is_another_end() {
        for (signal, empty, full) in [
            // Not one that comes when there is room again.
            (libc::SIGABRT, false, true),
            (libc::SIGILL, true, true),
            (libc::SIGBUS, false, false),
            (libc::SIGFPE, false, false),
            (libc::SIGSYS, false, false),
        ] {
            for (in_use, fatal) in [(0, empty), (64 * MIB, full)] {
                let end = End { signal, ..end_at(START, Some(in_use)) };
                assert_eq!(refused(&[MIB]).are_fatal(end), fatal, "{signal} {in_use}");
            }
        }
        let end = End { signal: libc::SIGABRT, ..end_at(START, Some(0)) };
        assert!(refused(&[1 << 40]).are_fatal(end), "it can never be had");
    }

    #[test]
    fn a_signal_that_it_sends_itself_counts_after_its_words() {
        for (said, is_own, fatal) in [(true, true, true), (true, false, false), (false, true, false)] {
            let mut refusals = refused(&[MIB]);
            if said {
                say(&mut refusals, Message::OutOfMemory, START);
            }
            if is_own {
                refusals.note_signal_to_itself(START);
            }
            let end = End { signal: libc::SIGINT, ..end_at(START, Some(0)) };
            assert_eq!(refusals.are_fatal(end), fatal, "{said} {is_own}");
        }
    }

    #[test]
    fn who_waits_again_and_again_after_its_words_is_a_server() {
        for (waits, ms, fatal) in [
            (MOST_WAITS, 9_000, true),
            (MOST_WAITS + 1, SERVING_MS, true),
            (MOST_WAITS + 1, SERVING_MS + 1, false),
        ] {
            let mut refusals = refused(&[MIB]);
            say(&mut refusals, Message::OutOfMemory, START);
            (0..waits).for_each(|_| refusals.note_wait());
            let end = Moment { used_ns: 0, at_ms: ms };
            assert_eq!(refusals.are_fatal(end_at(end, Some(0))), fatal, "{waits} {ms}");
        }
    }

    #[test]
    fn a_thread_that_ends_after_its_refusal_leaves_it_to_others() {
        for (tid, in_use, fatal) in [(1, 0, false), (1, 64 * MIB, true), (2, 0, true)] {
            let mut refusals = refused(&[MIB]);
            refusals.note_thread_ended(tid);
            assert_eq!(refusals.are_fatal(end_at(START, Some(in_use))), fatal, "{tid} {in_use}");
        }
    }

    #[test]
    fn a_thread_that_aborts_and_was_refused_nothing_has_its_own_reason() {
        let abort = |in_use| End { signal: libc::SIGABRT, ..end_at(START, Some(in_use)) };
        for (tid, bytes, in_use, fatal) in
            [(1, 1 << 40, 0, true), (2, 1 << 40, 0, false), (2, MIB, 64 * MIB, true)]
        {
            let mut refusals = refused(&[bytes]);
            refusals.note_end_by(tid);
            assert_eq!(refusals.are_fatal(abort(in_use)), fatal, "{tid} {in_use}");
        }
        // Not all of those are known that were refused something.
        let mut refusals = refused(&[1 << 40]);
        (2..=8).for_each(|tid| refusals.note_refused(tid, anew(1 << 40), true, START));
        refusals.note_end_by(9);
        assert!(refusals.are_fatal(abort(0)));
    }

    #[test]
    fn a_thread_that_has_slept_and_was_refused_nothing_ends_it_for_its_own_reasons() {
        for (tid, used_ns, idle_ms, fatal) in [
            (2, 0, OTHERS_MS, true),
            (2, 0, OTHERS_MS + 1, false),
            (2, 5_000_000_000, OTHERS_MS, true),
            (1, 0, OTHERS_MS + 1, true),
        ] {
            let mut refusals = refused(&[2 * MIB]);
            refusals.note_end_by(tid);
            let now = Moment { used_ns, at_ms: idle_ms + used_ns / 1_000_000 };
            let end = End { code: 3, ..end_at(now, Some(64 * MIB)) };
            assert_eq!(refusals.are_fatal(end), fatal, "{tid} {used_ns} {idle_ms}");
        }
    }

    #[test]
    fn who_gives_back_the_block_that_was_to_grow_has_made_no_room() {
        let abort = |in_use| End { signal: libc::SIGABRT, ..end_at(START, Some(in_use)) };
        for (grown_from, in_use, fatal) in
            [(32 * MIB, 33 * MIB, true), (32 * MIB, MIB, true), (0, 33 * MIB, true), (0, MIB, false)]
        {
            let mut refusals = Refusals::default();
            refusals.note_refused(1, Sought { bytes: 32 * MIB, grown_from }, true, START);
            assert_eq!(refusals.are_fatal(abort(in_use)), fatal, "{grown_from} {in_use}");
        }
    }

    #[test]
    fn a_refusal_comes_after_what_was_said_before() {
        let mut refusals = refused(&[MIB]);
        say(&mut refusals, Message::Unrelated, START);
        refusals.note_refused(1, anew(MIB), true, START);
        assert!(refusals.are_fatal(end_at(START, Some(0))));
    }

    #[test]
    fn sixty_four_threads_fail_at_once_in_eight_places() {
        let mut refusals = Refusals::default();
        for tid in 0..64 {
            refusals.note_refused(tid, anew(MIB), true, START);
        }
        assert_eq!(refusals.count, 64);
        for tid in 0..63 {
            refusals.note_mapped(tid, MIB, true, u64::MAX);
        }
        assert!(refusals.is_wanting());
    }
}
