//! Who of those that want more goes first, who waits, and who of them is refused.

use super::{ANY, Ledger, ONE, Row};

/// Whoever has no more than this need not let others go first, however little there is.
const LITTLE_BYTES: u64 = 8 << 20;
/// How long a request waits where more is in use than there is: one after the other has its answer before somebody has to leave.
const PATIENCE_OVER_MS: u64 = 100;

impl Ledger {
    /// So much was given back. A little is no movement: in a tree there is always somebody who comes and goes, and whoever waits
    /// for more would wait for ever.
    pub fn note_given_back(&self, bytes: u64, now_ms: u64) {
        if bytes > 0 && bytes >= self.permitted() / 64 {
            self.note_movement(now_ms);
        }
    }

    /// Much was given back, or somebody was refused: everybody's patience begins anew.
    pub fn note_movement(&self, now_ms: u64) {
        self.head.moved_ms.fetch_max(now_ms, ONE);
    }

    /// When anything moved last. A moment that is yet to come is none.
    pub fn moved_ms(&self, now_ms: u64) -> u64 {
        self.head.moved_ms.load(ONE).min(now_ms)
    }

    /// Among those who wait, how many come before the process with this row when it has to be decided who is refused: who
    /// holds most comes first.
    pub fn waiting_before(&self, row: &Row) -> u64 {
        let rank = |row: &Row| (row.charge(), row.id.load(ANY));
        let own = rank(row);
        self.taken_rows().filter(|other| other.waiting_since_ms() != 0 && rank(other) > own).count() as u64
    }

    /// Whether a process that wants so much more has to let another one go first. Those that grow little by little would all take
    /// a part of what they need, and none could end: the one that has most is left room to double, and to come to half of what
    /// there is, as long as it grows. Whoever has little is let go on.
    pub fn has_to_yield(&self, row: &Row, more: u64, now_ms: u64) -> bool {
        let permitted = self.permitted();
        let own = row.lease();
        if own.saturating_add(more) <= (permitted / 32).max(LITTLE_BYTES) {
            return false;
        }
        let rank = |row: &Row| (row.lease(), core::cmp::Reverse(row.id.load(ANY)));
        let mut leases = 0u64;
        let mut first = rank(row);
        for other in self.taken_rows() {
            leases = leases.saturating_add(other.lease());
            if rank(other) > first && other.grows(now_ms) {
                first = rank(other);
            }
        }
        let (lease, _) = first;
        let kept = lease.max((permitted / 2).saturating_sub(lease));
        first != rank(row) && leases.saturating_add(more).saturating_add(kept) > permitted
    }

    /// Whether a process that asks has to be refused now: nothing has moved for as long as the patience lasts, and of all
    /// who wait it holds most. One that holds more, and does not go, is waited for once more as long.
    pub fn is_to_be_refused(&self, row: &Row, since_ms: u64, now_ms: u64) -> bool {
        /// So many times the patience is the longest that anybody waits, whatever moves.
        const LONGEST: u64 = 60;
        let patience_ms =
            if self.is_over(now_ms) { self.patience_ms().min(PATIENCE_OVER_MS) } else { self.patience_ms() };
        // Before it is looked what moved: see `end_to_wait`.
        let before = self.waiting_before(row);
        let quiet_ms = now_ms.saturating_sub(self.moved_ms(now_ms).max(since_ms));
        let waited_ms = now_ms.saturating_sub(since_ms);
        quiet_ms >= patience_ms.saturating_mul(1 + before) || waited_ms >= patience_ms.saturating_mul(LONGEST)
    }

    /// More is in use than there is: whoever waits is refused soon, so that it gives something back, before somebody has to leave.
    pub fn note_over(&self, now_ms: u64) {
        self.head.over_ms.store(now_ms, ANY);
    }

    fn is_over(&self, now_ms: u64) -> bool {
        /// Looks follow one another faster.
        const SINCE_MS: u64 = 250;
        let over_ms = self.head.over_ms.load(ANY);
        over_ms != 0 && now_ms.saturating_sub(over_ms) < SINCE_MS
    }

    /// A process waits no longer: it has what it wants, or was refused at that moment. Whoever sees that it has gone sees what
    /// that moved: else the next one would be refused with it.
    pub fn end_to_wait(&self, row: &Row, refused_ms: Option<u64>) {
        if let Some(now_ms) = refused_ms {
            self.note_movement(now_ms);
        }
        row.end_to_wait();
    }
}
