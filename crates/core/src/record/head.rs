//! All pages, as the processes that fill them see them.

use super::failed::{self, Child};
use super::layout::{EXHAUSTED, MOST_DESCENDANTS, at, encode};
use super::page::Page;
use core::sync::atomic::Ordering;

/// All pages, as the processes that fill them see them.
#[repr(C)]
pub struct Head {
    pub own: Page,
    descendants: [Page; MOST_DESCENDANTS],
}

impl Head {
    /// In a loop, and not as many times over as there are pages: that was a hundredth of a guarded program.
    fn descendants(&self) -> &[Page] {
        core::hint::black_box(self.descendants.as_slice())
    }

    /// The page of descendant `pid`, if it has one.
    #[inline(never)]
    pub fn page_of(&self, pid: u32) -> Option<&Page> {
        let me = encode(Some(pid.into()));
        self.descendants().iter().find(|page| page.load(at::OWNER) == me && page.load(at::PAST) == 0)
    }

    /// A page for descendant `pid`: a free one, that of a process which has got over its refusals, or the oldest.
    pub fn claim_for(&self, pid: u32) -> Option<&Page> {
        if let Some(page) = self.page_of(pid) {
            return Some(page);
        }
        if let Some(page) = self.descendants().iter().find(|page| page.claim(pid)) {
            return Some(page);
        }
        let rank = |page: &&Page| {
            let is_dead = page.load(at::STATE) == EXHAUSTED;
            (is_dead, page.load(at::OPEN) != 0, page.load(at::ENDS), page.load(at::OPEN_SINCE_MS))
        };
        self.descendants().iter().min_by_key(rank).filter(|page| page.take_over(pid))
    }

    /// Process `pid` begins to run a program: what was noted under its number is another program's, or another
    /// process's that is dead.
    pub fn begin(&self, pid: u32) {
        failed::forget(&self.own, pid);
        while let Some(page) = self.page_of(pid) {
            if page.load(at::STATE) == EXHAUSTED {
                page.store(at::PAST, 1);
            } else {
                page.store_state(0);
                page.store(at::OPEN, 0);
                page.store(at::OWNER, 0);
            }
        }
    }

    /// Process `parent`, a child of `above`, has waited for its child, which failed with this status (wait(2)).
    pub fn note_failed(&self, parent: u32, above: u32, child: Child, status: i32, now_ms: u64) {
        failed::note(&self.own, parent, above, child, status, now_ms);
    }

    /// Process `parent` is another one now, or becomes another program.
    pub fn forget_failed(&self, parent: u32) {
        failed::forget(&self.own, parent);
    }

    /// The process that fills `page` ends of what it was refused: gives its end a number.
    pub fn count_end(&self, page: &Page) {
        if core::ptr::eq(page, &raw const self.own) {
            return;
        }
        let Some(ends) = self.own.words.get(at::ENDS) else { return };
        // Relaxed: each gets a number of its own, and the order of two at once is of no matter.
        page.store(at::ENDS, ends.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::failed::{Failed, PASSED_ON_MS};
    use super::*;

    #[test]
    fn a_failed_child_is_told_of_beyond_those_who_pass_its_end_on() {
        let head = Head { own: Page::blank(), descendants: std::array::from_fn(|_| Page::blank()) };
        let found = |status| Failed::read_all(&head.own.copy()).find(|failed| failed.status == status);
        let exit = |code: i32| code << 8;
        let failed = |child, of, parent, status, at_ms| Failed { child, of, parent, above: 0, status, at_ms };
        assert_eq!(found(exit(2)), None);
        head.note_failed(10, 0, Child::Number(11), exit(2), 1);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(11), 10, 10, exit(2), 1)));
        // Its parent ends likewise: the child is the one.
        head.note_failed(9, 0, Child::Number(10), exit(2), 2);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(11), 10, 9, exit(2), 2)));
        // Another child that fails otherwise; another that fails likewise; and a parent that ends otherwise.
        head.note_failed(9, 0, Child::Number(13), libc::SIGKILL, 3);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(11), 10, 9, exit(2), 2)));
        head.note_failed(9, 0, Child::Number(12), exit(2), 4);
        assert_eq!(found(exit(2)), Some(failed(Child::Number(12), 9, 9, exit(2), 4)));
        head.note_failed(8, 0, Child::Number(9), exit(1), 5);
        assert_eq!(found(exit(1)), Some(failed(Child::Number(9), 8, 8, exit(1), 5)));
        // By a shell.
        head.note_failed(8, 0, Child::Number(9), exit(128 + libc::SIGKILL), 6);
        let killed = exit(128 + libc::SIGKILL);
        assert_eq!(found(killed), Some(failed(Child::Number(13), 9, 8, killed, 6)));
        // The oldest gives way.
        (20..24).for_each(|code| head.note_failed(8, 0, Child::Number(9), exit(code), 7));
        assert_eq!(found(exit(1)), None);
        // Whose parent took longer has an end of its own.
        head.note_failed(7, 0, Child::Number(8), exit(23), 8 + PASSED_ON_MS);
        assert_eq!(found(exit(23)).map(|failed| failed.child), Some(Child::Number(8)));
        // A parent that has become another program has not failed of what came before.
        head.begin(7);
        assert_eq!(found(exit(23)), None);
        head.note_failed(7, 0, Child::Number(8), exit(23), 8 + PASSED_ON_MS);
        // One that nobody knows is none that was told of before; but of another's it may be.
        head.note_failed(7, 0, Child::DeadAfter(5), exit(24), 2000);
        assert_eq!(found(exit(24)).map(|failed| failed.child), Some(Child::DeadAfter(8 + PASSED_ON_MS)));
        head.note_failed(6, 0, Child::DeadAfter(5), exit(25), 2000);
        assert_eq!(found(exit(25)).map(|failed| failed.child), Some(Child::DeadAfter(5)));
        // It may pass on how a child of its own failed since it was started; but not if another process has started it.
        let passed_on = (Child::Number(31), 30);
        for (started_ms, above, child) in [
            (2000, 0, passed_on),
            (2000, 5, passed_on),
            (2000, 4, (Child::DeadAfter(2000), 5)),
            (2001, 5, (Child::DeadAfter(2001), 5)),
        ] {
            head.note_failed(30, above, Child::Number(31), exit(26), 2001);
            head.note_failed(5, 4, Child::DeadAfter(started_ms), exit(26), 2002);
            let found = found(exit(26)).map(|failed| (failed.child, failed.of));
            assert_eq!(found, Some(child), "{started_ms} {above}");
        }
    }
}
