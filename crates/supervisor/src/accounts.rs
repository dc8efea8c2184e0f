//! Who runs and who waits under a budget: pure bookkeeping, without processes, threads or locks.
//!
//! ```text
//!   ask() ──▶ waiting ── admit() ──▶ running ── end() ──▶ gone
//!                ▲                      │
//!                └───── ask_again() ────┘   with a larger share, before everybody younger
//! ```
//!
//! Invariant: nobody is admitted unless the sum of the shares of all who run stays within the whole. Turns are by
//! age, and nobody overtakes: a share that does not fit yet holds up all younger ones, so it is not starved by a
//! stream of small ones. A retry keeps its age, so it comes before all who have not run yet.

use std::collections::BTreeMap;

/// Someone's place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
pub(super) struct Accounts {
    /// What may be given out, in bytes.
    whole: u64,
    /// How many may run at once.
    places: usize,
    /// Shares, in bytes.
    running: BTreeMap<Ticket, u64>,
    waiting: BTreeMap<Ticket, u64>,
    given_out: u64,
    next: u64,
}

impl Accounts {
    pub(super) fn new(whole: u64, places: usize) -> Accounts {
        Accounts { whole, places, running: BTreeMap::new(), waiting: BTreeMap::new(), given_out: 0, next: 0 }
    }

    pub(super) fn set_places(&mut self, places: usize) {
        self.places = places;
    }

    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    pub(super) fn given_out(&self) -> u64 {
        self.given_out
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_running(&self, ticket: Ticket) -> bool {
        self.running.contains_key(&ticket)
    }

    pub(super) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// Queues up for a share. `None`: it is more than the whole, and would never come.
    pub(super) fn ask(&mut self, share: u64) -> Option<Ticket> {
        if share > self.whole {
            return None;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.insert(ticket, share);
        Some(ticket)
    }

    /// Gives back a running share and queues up for another one, at the same age. False: it is more than the whole;
    /// the old share is given back all the same.
    pub(super) fn ask_again(&mut self, ticket: Ticket, share: u64) -> bool {
        self.end(ticket);
        let possible = share <= self.whole;
        if possible {
            self.waiting.insert(ticket, share);
        }
        possible
    }

    /// Lets the oldest who waits run, if its share fits.
    pub(super) fn admit(&mut self) -> Option<Ticket> {
        let (&ticket, &share) = self.waiting.first_key_value()?;
        let fits = self.given_out.checked_add(share).is_some_and(|sum| sum <= self.whole);
        if self.running.len() >= self.places || !fits {
            return None;
        }
        self.waiting.remove(&ticket);
        self.running.insert(ticket, share);
        self.given_out += share;
        Some(ticket)
    }

    /// Takes out one of those who wait for more than the whole has become; with its share.
    pub(super) fn refuse(&mut self) -> Option<(Ticket, u64)> {
        let whole = self.whole;
        let (&ticket, &share) = self.waiting.iter().find(|(_, share)| **share > whole)?;
        self.waiting.remove(&ticket);
        Some((ticket, share))
    }

    /// Gives a share back, or a place in the queue.
    pub(super) fn end(&mut self, ticket: Ticket) {
        if let Some(share) = self.running.remove(&ticket) {
            self.given_out -= share;
        }
        self.waiting.remove(&ticket);
    }

    /// The whole has become larger or smaller. Who runs is left to run: nobody is admitted until the rest fits.
    pub(super) fn resize(&mut self, whole: u64) {
        self.whole = whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Ask(u64),
        Admit,
        /// The nth of those who run ends.
        Die(usize),
        /// The nth of those who run tries again with so much more.
        Retry(usize, u64),
        /// The nth of those who wait goes away.
        GiveUp(usize),
        Resize(u64),
        Refuse,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..400u64).prop_map(Step::Ask),
            8 => Just(Step::Admit),
            3 => (0..8usize).prop_map(Step::Die),
            2 => (0..8usize, 1..300u64).prop_map(|(who, more)| Step::Retry(who, more)),
            1 => (0..8usize).prop_map(Step::GiveUp),
            1 => (0..1500u64).prop_map(Step::Resize),
            2 => Just(Step::Refuse),
        ]
    }

    fn nth(map: &BTreeMap<Ticket, u64>, n: usize) -> Option<(Ticket, u64)> {
        map.iter().nth(n % map.len().max(1)).map(|(ticket, share)| (*ticket, *share))
    }

    fn sum(map: &BTreeMap<Ticket, u64>) -> u64 {
        map.values().sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        /// The sum of what runs never exceeds the budget: it grows only by admission, and no admission takes it above
        /// the whole. (A budget that shrinks below what runs already admits nobody.)
        #[test]
        fn what_runs_never_exceeds_the_budget(
            whole in 1..1000u64,
            places in 1..6usize,
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let mut accounts = Accounts::new(whole, places);
            for step in steps {
                let before = sum(&accounts.running);
                match step {
                    Step::Ask(share) => prop_assert_eq!(accounts.ask(share).is_some(), share <= accounts.whole),
                    Step::Admit => {
                        let oldest = accounts.waiting.first_key_value().map(|(ticket, share)| (*ticket, *share));
                        match (accounts.admit(), oldest) {
                            (Some(ticket), Some((oldest, share))) => {
                                prop_assert_eq!(ticket, oldest, "somebody overtook");
                                prop_assert!(before + share <= accounts.whole);
                                prop_assert!(accounts.running.len() <= places);
                            }
                            (None, Some((_, share))) => prop_assert!(
                                before + share > accounts.whole || accounts.running.len() >= places,
                                "held up for nothing"
                            ),
                            (admitted, None) => prop_assert_eq!(admitted, None),
                        }
                    }
                    Step::Die(who) => {
                        if let Some((ticket, _)) = nth(&accounts.running, who) {
                            accounts.end(ticket);
                        }
                    }
                    Step::Retry(who, more) => {
                        if let Some((ticket, share)) = nth(&accounts.running, who) {
                            let waits = accounts.ask_again(ticket, share + more);
                            prop_assert_eq!(waits, share + more <= accounts.whole);
                            prop_assert_eq!(accounts.is_waiting(ticket), waits);
                            prop_assert!(!accounts.is_running(ticket));
                        }
                    }
                    Step::GiveUp(who) => {
                        if let Some((ticket, _)) = nth(&accounts.waiting, who) {
                            accounts.end(ticket);
                        }
                    }
                    Step::Resize(whole) => accounts.resize(whole),
                    Step::Refuse => {
                        if let Some((ticket, share)) = accounts.refuse() {
                            prop_assert!(share > accounts.whole && !accounts.is_waiting(ticket));
                        }
                    }
                }
                let after = sum(&accounts.running);
                prop_assert_eq!(after, accounts.given_out());
                prop_assert!(after <= before || after <= accounts.whole, "{} of {}", after, accounts.whole);
            }
        }

        /// Whoever waits gets its turn, however many others there are: as workers end, all who ask run, in order.
        #[test]
        fn everybody_runs_in_the_order_of_asking(
            whole in 1..1000u64,
            shares in prop::collection::vec(0..1000u64, 1..60),
            retries in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut accounts = Accounts::new(whole, 4);
            let asked: Vec<Ticket> = shares.iter().filter_map(|share| accounts.ask(*share)).collect();
            let mut first_runs = Vec::new();
            let mut retried = std::collections::HashSet::new();
            while accounts.running() + accounts.waiting() > 0 {
                while let Some(ticket) = accounts.admit() {
                    if !retried.contains(&ticket) {
                        first_runs.push(ticket);
                    }
                }
                let (ticket, share) = nth(&accounts.running, 0).expect("somebody must fit once the others are gone");
                let again = retries.get(ticket.0 as usize % 60).copied().unwrap_or(false);
                if again && retried.insert(ticket) {
                    accounts.ask_again(ticket, (share + 100).min(whole));
                } else {
                    accounts.end(ticket);
                }
            }
            prop_assert_eq!(first_runs, asked);
            prop_assert_eq!(accounts.given_out(), 0);
        }
    }
}
