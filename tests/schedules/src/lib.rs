//! Each test is one story of two or three processes that share a budget, each a thread here. A scheduler has them go through it
//! in many orders, one access to the ledger at a time; whoever is to die does so between any two.
//! Whenever a lease has grown by a question, what all have is looked at: it is never more than is permitted.

#![cfg(test)]
// What the stories do not need of the ledger.
#![allow(dead_code)]

mod atomic;
mod ledger {
    include!(concat!(env!("OUT_DIR"), "/ledger.rs"));

    impl Ledger {
        /// What all that are alive have, seen by nobody; and what they may have.
        pub(crate) fn peek(&self) -> (u64, u64) {
            let rows = self.rows.iter().filter(|row| row.id.peek() != 0);
            let permitted = self.head.budget.peek().min(self.head.ceiling.peek());
            (rows.map(|row| row.lease.peek()).sum(), permitted)
        }

        /// Takes back what a dead process had, if nobody has.
        pub(crate) fn take_back_of(&self, id: Id) -> bool {
            let row = self.find(id).and_then(|place| self.row(place));
            row.is_some_and(|row| self.take_back(row, id))
        }

        /// What all together have claimed, seen by nobody.
        pub(crate) fn peek_claims(&self) -> u64 {
            self.rows.iter().filter(|row| row.id.peek() != 0).map(|row| row.claim.peek()).sum()
        }
    }
}
#[path = "../../../crates/core/src/text.rs"]
mod text;
/// What the ledger uses of the rest of the crate.
mod report {
    #[derive(Clone, Copy)]
    pub struct Holder {
        pub pid: u32,
        pub name: crate::text::Text<16>,
        pub bytes: u64,
    }
}

use atomic::{Killed, die_after, live};
use ledger::{Decision, Id, Ledger, Row};
use shuttle::rand::Rng;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

std::thread_local! {
    /// The ledger of the story that is told.
    static LEDGER: RefCell<Option<Arc<Ledger>>> = const { RefCell::new(None) };
}

/// After a lease has grown.
fn check() {
    LEDGER.with_borrow(|ledger| {
        if let Some((has, may)) = ledger.as_ref().map(|ledger| ledger.peek()) {
            assert!(has <= may, "{has} leased of {may}");
        }
    });
}

fn ledger(budget: u64) -> Arc<Ledger> {
    LEDGER.set(None);
    let ledger = Arc::new(Ledger::default());
    ledger.open(budget, 100, 0, 0);
    LEDGER.set(Some(Arc::clone(&ledger)));
    ledger
}

fn id(pid: u32) -> Id {
    Id::new(pid, 7)
}

fn row(ledger: &Ledger, pid: u32) -> &Row {
    let place = ledger.take_row(id(pid)).expect("there is a row left");
    ledger.row(place).expect("it is there")
}

fn ask(ledger: &Ledger, row: &Row, bytes: u64) -> Decision {
    assert!(row.claim(bytes), "somebody else has claimed in its name");
    ledger.decide(row)
}

/// As the guard does: whoever finds that others want it as well asks again.
fn ask_often(ledger: &Ledger, row: &Row, bytes: u64) -> Decision {
    for _ in 0..4 {
        match ask(ledger, row, bytes) {
            Decision::Contended => shuttle::thread::yield_now(),
            decision => return decision,
        }
    }
    Decision::Contended
}

/// Does it in a process of its own.
fn process<T: Send + 'static>(
    ledger: &Arc<Ledger>,
    story: impl FnOnce(&Ledger) -> T + Send + 'static,
) -> shuttle::thread::JoinHandle<T> {
    let ledger = Arc::clone(ledger);
    shuttle::thread::spawn(move || story(&ledger))
}

/// The same in one that is killed after so many accesses, or at the story's end.
fn killed_after(
    accesses: u32,
    ledger: &Arc<Ledger>,
    story: impl FnOnce(&Ledger) + Send + 'static,
) -> shuttle::thread::JoinHandle<()> {
    process(ledger, move |ledger| {
        die_after(accesses);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| story(ledger)))
            && !payload.is::<Killed>()
        {
            std::panic::resume_unwind(payload);
        }
        live();
    })
}

/// In as many orders as are told by `SCHEDULES` or a few thousand, drawn at random.
fn in_many_orders(story: impl Fn() + Send + Sync + 'static) {
    let orders = std::env::var("SCHEDULES").map_or(4000, |orders| orders.parse().expect("a number"));
    shuttle::check_random(story, orders);
}

#[test]
fn of_two_that_want_what_is_there_once_one_has_it_at_most() {
    let most = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&most);
    in_many_orders(move || {
        let ledger = ledger(100);
        let places = [1, 2].map(|pid| ledger.take_row(id(pid)).unwrap());
        let asks =
            places.map(|place| process(&ledger, move |ledger| ask(ledger, ledger.row(place).unwrap(), 60)));
        let granted = asks.map(|asks| asks.join().unwrap()).into_iter();
        let granted = granted.filter(|decision| *decision == Decision::Granted).count();
        assert_eq!((ledger.peek().0, ledger.peek_claims()), (60 * granted as u64, 0));
        let mut most = seen.lock().unwrap();
        *most = granted.max(*most);
    });
    assert_eq!(*most.lock().unwrap(), 1);
}

#[test]
fn what_one_gives_back_another_can_have_and_nobody_has_it_twice() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let holder = ledger.take_row(id(3)).unwrap();
        assert_eq!(ask(&ledger, ledger.row(holder).unwrap(), 50), Decision::Granted);
        let threads = [1, 2].map(|pid| {
            process(&ledger, move |ledger| {
                let row = row(ledger, pid);
                ask_often(ledger, row, 45)
            })
        });
        let gives_back = process(&ledger, move |ledger| {
            let row = ledger.row(holder).unwrap();
            let lease = row.lease();
            row.lower(lease, 10)
        });
        let granted = threads.into_iter().map(|thread| thread.join().unwrap());
        let granted = granted.filter(|decision| *decision == Decision::Granted).count() as u64;
        assert!(gives_back.join().unwrap());
        assert_eq!((ledger.peek().0, ledger.peek_claims()), (10 + 45 * granted, 0));
        // Whoever went away without it finds it now.
        let rest = row(&ledger, 1);
        let left = 90 - 45 * granted;
        if left > 0 {
            assert_eq!(ask(&ledger, rest, left), Decision::Granted);
        }
    });
}

#[test]
fn what_the_dead_had_comes_back_wherever_they_die_and_only_once() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let accesses = shuttle::rand::thread_rng().gen_range(0..60);
        let victim = killed_after(accesses, &ledger, |ledger| {
            let row = row(ledger, 1);
            ask_often(ledger, row, 40);
            ask_often(ledger, row, 20);
            row.begin_to_wait(5, 1);
        });
        let lives = process(&ledger, |ledger| {
            let row = row(ledger, 2);
            ask_often(ledger, row, 30)
        });
        victim.join().unwrap();
        // Two find it at once, while somebody new comes.
        let bury = || process(&ledger, |ledger| ledger.take_back_of(id(1)));
        let (one, other) = (bury(), bury());
        let comes = process(&ledger, |ledger| {
            let row = row(ledger, 3);
            ask_often(ledger, row, 30)
        });
        assert!(!(one.join().unwrap() && other.join().unwrap()), "it was taken back twice");
        let granted = [lives.join().unwrap(), comes.join().unwrap()];
        let granted = granted.iter().filter(|decision| **decision == Decision::Granted).count() as u64;
        ledger.take_back_of(id(1));
        assert_eq!((ledger.peek().0, ledger.peek_claims()), (30 * granted, 0));
        assert_eq!(ask(&ledger, row(&ledger, 2), 100 - 30 * granted), Decision::Granted);
    });
}

#[test]
fn a_budget_that_shrinks_is_not_given_out_as_it_was() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let asks = [1, 2].map(|pid| {
            process(&ledger, move |ledger| {
                let row = row(ledger, pid);
                (ask_often(ledger, row, 30), ask_often(ledger, row, 15))
            })
        });
        // What is decided at this moment was permitted a moment ago.
        LEDGER.set(None);
        let shrinks = process(&ledger, |ledger| ledger.set_budget(60));
        shrinks.join().unwrap();
        for asks in asks {
            asks.join().unwrap();
        }
        let (has, _) = ledger.peek();
        assert!(has <= 100 && ledger.peek_claims() == 0);
        if has >= 60 {
            assert_ne!(ask(&ledger, row(&ledger, 1), 1), Decision::Granted);
        }
    });
}

/// As `wait` of the guard does it: of those who wait one is refused, and that begins everybody's patience anew.
#[test]
fn of_those_who_wait_one_is_refused_in_one_patience() {
    in_many_orders(|| {
        let ledger = ledger(100);
        for (pid, held) in [(1, 30), (2, 20), (3, 20)] {
            let row = row(&ledger, pid);
            row.note_held(held);
            row.begin_to_wait(5, 1000);
        }
        let waiters = [1, 2, 3].map(|pid| {
            process(&ledger, move |ledger| {
                let row = row(ledger, pid);
                let is_refused = ledger.is_to_be_refused(row, 1000, 1150);
                ledger.end_to_wait(row, is_refused.then_some(1150));
                is_refused
            })
        });
        let refused = waiters.into_iter().map(|waiter| waiter.join().unwrap()).filter(|is| *is).count();
        assert!(refused <= 1, "{refused} of those who waited were refused at once");
    });
}

/// A fork: the child has a row of its own, and nothing of its parent's.
#[test]
fn a_child_begins_with_nothing_while_its_parent_asks() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let place = ledger.take_row(id(1)).unwrap();
        assert_eq!(ask(&ledger, ledger.row(place).unwrap(), 40), Decision::Granted);
        let child = process(&ledger, |ledger| {
            let row = row(ledger, 2);
            row.begin();
            row.set_base(40);
            row.note_held(40);
            assert_eq!(row.charge(), 0);
            ask_often(ledger, row, 35)
        });
        let parent = ask_often(&ledger, ledger.row(place).unwrap(), 35);
        let both = [parent, child.join().unwrap()];
        assert!(both.iter().filter(|decision| **decision == Decision::Granted).count() <= 1);
        let granted = both.contains(&Decision::Granted);
        assert_eq!((ledger.peek().0, ledger.peek_claims()), (40 + if granted { 35 } else { 0 }, 0));
    });
}
