//! The failed children that were waited for, in the worker's own page: so that who only passes on how its child failed is not
//! taken for the one that did.

use super::claims::Copied;
use super::layout::{FAILED_WORDS, MOST_FAILED, RECORD_BYTES, at};
use super::page::Page;

/// Which child it was that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    Number(u32),
    /// Nobody knows its number, but that it ended later than at this moment of the clock that all processes share.
    DeadAfter(u64),
}

/// How soon a wrapper passes on how its child failed. Who takes longer has done something else.
pub const PASSED_ON_MS: u64 = 1000;

/// A failed child that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    pub child: Child,
    /// Whose child it was.
    pub of: u32,
    /// Who has waited for it last, or for one that passed its end on; and who has started that one: zero where nobody knows.
    pub parent: u32,
    pub above: u32,
    /// As wait(2) encodes it.
    pub status: i32,
    /// Of the clock that all processes share.
    pub at_ms: u64,
}

/// No process has such a number: in its place stands for how many milliseconds, at most, a child has been dead.
const UNKNOWN: u32 = 1 << 31;

/// Whether it may be this process. Zero: nobody knows who it is, as it is in another PID namespace.
pub fn may_be(known: u32, pid: u32) -> bool {
    known == 0 || known == pid
}

impl Failed {
    /// It was told of by the first process of a PID namespace, which its own parent knows by another number.
    pub fn is_of_init(&self) -> bool {
        self.parent == 1 && self.above == 0
    }

    /// What stands in a copy of the worker's page. Of two that were written at once the words may be mixed: no process has all
    /// of that.
    pub fn read_all(copy: &[u8; RECORD_BYTES]) -> impl Iterator<Item = Failed> {
        let copy = Copied(copy);
        (0..MOST_FAILED).filter_map(move |place| Failed::at(place, |word| copy.word(word)))
    }

    fn at(place: usize, word: impl Fn(usize) -> u64) -> Option<Failed> {
        let first = at::FAILED + FAILED_WORDS * place;
        let (who, how, whose) = (word(first), word(first + 1), word(first + 2));
        let at_ms = how >> 16;
        let child = (who >> 32) as u32;
        let failed = Failed {
            child: match child & !UNKNOWN {
                before_ms if child != before_ms => Child::DeadAfter(at_ms.saturating_sub(before_ms.into())),
                _ => Child::Number(child),
            },
            of: whose as u32,
            parent: who as u32,
            above: (whose >> 32) as u32,
            status: i32::from(how as u16),
            at_ms,
        };
        (how != 0).then_some(failed)
    }

    fn words(self) -> [u64; FAILED_WORDS] {
        let Failed { child, of, parent, above, status, at_ms } = self;
        let child = match child {
            Child::Number(child) => child,
            Child::DeadAfter(ms) => UNKNOWN | at_ms.saturating_sub(ms).min((UNKNOWN - 1).into()) as u32,
        };
        [
            u64::from(child) << 32 | u64::from(parent),
            at_ms << 16 | u64::from(status as u16),
            u64::from(above) << 32 | u64::from(of),
        ]
    }
}

/// Whether a process that ended with `status` passed on the end of a child, as shells and wrappers do: the same status, or 128
/// and the signal. As wait(2) encodes them.
pub fn passes_on(status: i32, childs: i32) -> bool {
    let is_of_signal = || {
        libc::WIFSIGNALED(childs)
            && libc::WIFEXITED(status)
            && libc::WEXITSTATUS(status) == 128 + libc::WTERMSIG(childs)
    };
    let without_core = |status: i32| status & !0x80;
    status == childs
        || libc::WIFSIGNALED(childs) && without_core(status) == without_core(childs)
        || is_of_signal()
}

/// Process `parent`, a child of `above`, has waited for its child, which failed with this status (wait(2)). Who passes on
/// what its own child failed with is not the one that is told of.
pub(super) fn note(own: &Page, parent: u32, above: u32, child: Child, status: i32, now_ms: u64) {
    let (mut passed_on, mut like_it, mut oldest, mut oldest_ms, mut told_ms) = (None, None, 0, u64::MAX, 0);
    for place in 0..MOST_FAILED {
        let Some(before) = Failed::at(place, |word| own.load(word)) else {
            (oldest, oldest_ms) = (place, 0);
            continue;
        };
        let is_of_child = match child {
            Child::Number(child) => before.parent == child,
            // It may be: another child of this process, which has failed since, and had a child that failed so.
            Child::DeadAfter(ms) => {
                before.parent != parent && may_be(before.above, parent) && before.at_ms > ms
            }
        };
        let is_at_once = now_ms.saturating_sub(before.at_ms) <= PASSED_ON_MS;
        if is_of_child && is_at_once && passes_on(status, before.status) {
            passed_on = Some((place, before.child, before.of));
        }
        // What a namespace's first process has told of, its parent knows by another number.
        if before.status == status && (!before.is_of_init() || before.parent == parent) {
            like_it = Some(place);
        }
        if before.at_ms < oldest_ms {
            (oldest, oldest_ms) = (place, before.at_ms);
        }
        if before.parent == parent {
            told_ms = told_ms.max(before.at_ms);
        }
    }
    let (child, of) = match (passed_on, child) {
        (Some((_, child, of)), _) => (child, of),
        // One that nobody knows is none of those that were told of before.
        (None, Child::DeadAfter(ms)) => (Child::DeadAfter(ms.max(told_ms)), parent),
        (None, child) => (child, parent),
    };
    let place = passed_on.map(|(place, ..)| place).or(like_it).unwrap_or(oldest);
    let failed = Failed { child, of, parent, above, status, at_ms: now_ms };
    for (word, value) in failed.words().into_iter().enumerate() {
        own.store(at::FAILED + FAILED_WORDS * place + word, value);
    }
}

/// Process `parent` is another one now, or becomes another program, which does not pass on how the children failed that were
/// waited for before.
pub(super) fn forget(own: &Page, parent: u32) {
    for place in 0..MOST_FAILED {
        if Failed::at(place, |word| own.load(word)).is_some_and(|failed| failed.parent == parent) {
            own.store(at::FAILED + FAILED_WORDS * place + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_passed_on_as_it_was_or_as_shells_say_it() {
        let exit = |code: i32| code << 8;
        const CORE: i32 = 0x80;
        for (status, childs, is_passed_on) in [
            (exit(2), exit(2), true),
            (exit(1), exit(2), false),
            (exit(139), libc::SIGSEGV, true),
            (exit(139), libc::SIGSEGV | CORE, true),
            (libc::SIGSEGV, libc::SIGSEGV | CORE, true),
            (libc::SIGABRT, libc::SIGSEGV, false),
            (exit(11), libc::SIGSEGV, false),
        ] {
            assert_eq!(passes_on(status, childs), is_passed_on, "{status:#x} {childs:#x}");
        }
    }
}
