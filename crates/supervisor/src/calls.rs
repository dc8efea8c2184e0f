//! The calls that followed threads make, one for each thread. Like the tracer, this neither allocates, locks nor panics. Unsafe
//! code is allowed here, for the table.

use super::refusals::Refusals;
use super::room::{Room, Wait};
use super::sys;
use super::sys::trace::{MappingCall, Unlimited};

/// A thread, and the call that it is making. All zero: nothing is known.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Call {
    /// Bytes asked for; or the end of the heap that was.
    pub(super) value: u64,
    /// How large the block is that is to grow; zero for none.
    pub(super) grown_from: u64,
    /// The call's first argument.
    pub(super) first: u64,
    /// The process that the thread belongs to.
    pub(super) process: u32,
    pub(super) is_break: bool,
    pub(super) is_writable: bool,
    /// A thread's stack, as glibc maps it, or its protection.
    pub(super) is_stack: bool,
    /// What it takes no limit refuses.
    pub(super) unlimited: Unlimited,
    /// So much of that has been granted.
    pub(super) pledged: u64,
    /// It was refused before it was made.
    pub(super) is_refused: bool,
    /// The last call for memory was refused.
    pub(super) was_refused: bool,
    /// The call that it makes maps memory, and its result is waited for.
    pub(super) is_noted: bool,
    /// How often it was made again since it was refused.
    pub(super) tries: u32,
    /// The call that it makes gives so much memory back, and began when its process had used so much processor time.
    pub(super) released: u64,
    pub(super) began_ns: u64,
    /// The call that it makes reads something, and not for the sake of what is to be said: to this place, or to the first parts of
    /// the table there.
    pub(super) reads: bool,
    pub(super) read_to: u64,
    pub(super) read_parts: u64,
    /// The call that it makes is for the sake of what is to be said.
    pub(super) is_for_words: bool,
    /// It is stopped at every call.
    pub(super) is_watched: bool,
    pub(super) wait: Wait,
}

impl Call {
    /// Notes what thread `tid` is about to ask for; whether that matters.
    pub(super) fn note(&mut self, tid: u32) -> bool {
        match sys::trace::call_of(tid) {
            Some(MappingCall::Map { bytes, grown_from, writable, is_stack, first, unlimited }) => {
                (self.value, self.first, self.is_writable, self.is_break) = (bytes, first, writable, false);
                self.grown_from = grown_from;
                // What is protected anew is what was mapped before.
                self.is_stack = is_stack.unwrap_or(self.is_stack);
                self.unlimited = unlimited;
                bytes > 0
            }
            Some(MappingCall::Break { end }) => {
                (self.value, self.first, self.is_writable, self.is_break) = (end, end, true, true);
                (self.grown_from, self.is_stack) = (0, false);
                self.unlimited = Unlimited::Nothing;
                true
            }
            None => {
                self.unlimited = Unlimited::Nothing;
                false
            }
        }
    }

    /// Whether the last call was for memory at this address, and was refused.
    pub(super) fn has_sought(&self, address: u64, refusals: &Refusals) -> bool {
        let sought = if self.is_break {
            refusals.heap_end()..self.value
        } else {
            self.first..self.first.saturating_add(self.value)
        };
        self.was_refused && self.first != 0 && sought.contains(&address)
    }

    /// It is about to take so much that no limit refuses.
    pub(super) fn pledge(&mut self, room: &Room, bytes: u64) {
        room.pledge(self.process, bytes);
        self.pledged = bytes;
    }

    /// Lets the thread go on, to its next call if it is watched.
    pub(super) fn go_on(&self, tid: u32, signal: i32) {
        if self.is_watched {
            sys::trace::go_on_to_call(tid, signal);
        } else {
            sys::trace::go_on(tid, signal);
        }
    }
}

/// One slot for each process number there can be. Only the pages of those that are met take memory.
pub(super) fn map_calls(numbers: usize) -> Option<&'static mut [Call]> {
    let at = sys::memory::map_zeros_for_ever(numbers.checked_mul(size_of::<Call>())?)?;
    // SAFETY: page-aligned zeros, which are a valid `Call`, never unmapped, and known to nobody else.
    Some(unsafe { std::slice::from_raw_parts_mut(at.cast::<Call>(), numbers) })
}
