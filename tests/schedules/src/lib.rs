//! Each test is one story of two or three processes that share a budget, each a thread here. A scheduler has them go through it
//! in many orders, one access to the ledger at a time; whoever is to die does so between any two.
//! Whenever a lease has changed, what all have is looked at: it is never more than is permitted.

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
            (rows.map(|row| bytes_in(row.lease.peek())).sum(), permitted)
        }

        /// Takes back what a dead process had, if nobody has: how much of it.
        pub(crate) fn take_back_of(&self, id: Id) -> u64 {
            let row = self.find(id).and_then(|place| self.row(place));
            row.and_then(|row| self.take_back(row, id)).unwrap_or(0)
        }

        pub(crate) fn all_are_free(&self) -> bool {
            self.rows.iter().all(|row| row.id.peek() == 0)
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
use ledger::{Decision, Id, Ledger, Row, Seen};
use shuttle::rand::Rng;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

std::thread_local! {
    /// The ledger of the story that is told.
    static LEDGER: RefCell<Option<Arc<Ledger>>> = const { RefCell::new(None) };
}

/// After something has changed.
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

/// In as many orders as are told by `SCHEDULES` or some ten thousand, drawn at random.
fn in_many_orders(story: impl Fn() + Send + Sync + 'static) {
    let orders = std::env::var("SCHEDULES").map_or(40_000, |orders| orders.parse().expect("a number"));
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
            row.take_unused(1, || Some(10)) == 40
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
        let taken = [one.join().unwrap(), other.join().unwrap()];
        assert!(taken.contains(&0), "it was taken back twice: {taken:?}");
        let granted = [lives.join().unwrap(), comes.join().unwrap()];
        let granted = granted.iter().filter(|decision| **decision == Decision::Granted).count() as u64;
        ledger.take_back_of(id(1));
        assert_eq!((ledger.peek().0, ledger.peek_claims()), (30 * granted, 0));
        assert_eq!(ask(&ledger, row(&ledger, 2), 100 - 30 * granted), Decision::Granted);
    });
}

/// Of what a dead process was charged for, others may have the shared memory still: nobody gets that before it was looked, whoever
/// takes the lease back, and whoever is killed meanwhile.
#[test]
fn shared_memory_that_the_dead_had_is_given_to_nobody_before_a_look() {
    const HAD: u64 = 60 << 20;
    const SHARED: u64 = 40 << 20;
    in_many_orders(|| {
        let ledger = ledger(100 << 20);
        let dead = row(&ledger, 1);
        assert_eq!(ask(&ledger, dead, HAD), Decision::Granted);
        ledger.note_use(dead, Seen { data: HAD - SHARED, held: HAD, in_shared: SHARED }, 1);
        let is_alive = |other: Id| other != id(1);
        let accesses = shuttle::rand::thread_rng().gen_range(0..60);
        let killed = killed_after(accesses, &ledger, move |ledger| {
            ledger.take_from_the_dead(2, is_alive);
        });
        let asks = process(&ledger, move |ledger| {
            let row = row(ledger, 2);
            ledger.take_from_the_dead(2, is_alive);
            ask_often(ledger, row, 61 << 20)
        });
        killed.join().unwrap();
        assert_ne!(asks.join().unwrap(), Decision::Granted);
        ledger.take_from_the_dead(2, is_alive);
        assert_eq!(ledger.peek(), (0, 100 << 20));
        // Who is killed in between has noted it, and somebody else again.
        let left_behind = ledger.left_behind();
        assert!(left_behind == SHARED || left_behind == 2 * SHARED, "{left_behind}");
        ledger.forget_left_behind(left_behind);
        assert_eq!(ask(&ledger, row(&ledger, 2), 100 << 20), Decision::Granted);
    });
}

/// The same as for one who takes nothing back itself, but counts while somebody else does.
#[test]
fn shared_memory_that_the_dead_had_is_given_to_nobody_who_counts_meanwhile() {
    in_many_orders(|| {
        let ledger = ledger(100 << 20);
        let (dead, asks) = (row(&ledger, 1), ledger.take_row(id(2)).unwrap());
        assert_eq!(ask(&ledger, dead, 60 << 20), Decision::Granted);
        ledger.note_use(dead, Seen { data: 20 << 20, held: 60 << 20, in_shared: 40 << 20 }, 1);
        let buries = process(&ledger, |ledger| ledger.take_from_the_dead(2, |other| other != id(1)));
        let asks = process(&ledger, move |ledger| ask(ledger, ledger.row(asks).unwrap(), 61 << 20));
        buries.join().unwrap();
        assert_ne!(asks.join().unwrap(), Decision::Granted);
    });
}

/// What a look has found of it is taken off the budget before it is forgotten.
#[test]
fn a_look_gives_nothing_away_while_it_says_what_it_has_found() {
    in_many_orders(|| {
        let ledger = ledger(100 << 20);
        let dead = row(&ledger, 1);
        assert_eq!(ask(&ledger, dead, 40 << 20), Decision::Granted);
        ledger.note_use(dead, Seen { data: 0, held: 40 << 20, in_shared: 40 << 20 }, 1);
        ledger.take_from_the_dead(2, |other| other != id(1));
        let asks = ledger.take_row(id(2)).unwrap();
        let looks = process(&ledger, |ledger| {
            ledger.set_ceiling(60 << 20);
            ledger.forget_left_behind(40 << 20);
        });
        let asks = process(&ledger, move |ledger| ask(ledger, ledger.row(asks).unwrap(), 61 << 20));
        looks.join().unwrap();
        assert_ne!(asks.join().unwrap(), Decision::Granted);
    });
}

/// Where nobody has looked for long, only what was left behind by then is forgotten.
#[test]
fn what_is_left_behind_just_now_is_not_forgotten_as_old() {
    in_many_orders(|| {
        let ledger = ledger(100 << 20);
        let dead = row(&ledger, 1);
        assert_eq!(ask(&ledger, dead, 40 << 20), Decision::Granted);
        ledger.note_use(dead, Seen { data: 0, held: 40 << 20, in_shared: 40 << 20 }, 1);
        let two = [9000, 9001].map(|now_ms| {
            process(&ledger, move |ledger| ledger.take_from_the_dead(now_ms, |other| other != id(1)))
        });
        two.into_iter().for_each(|buries| drop(buries.join().unwrap()));
        assert!(ledger.left_behind() >= 40 << 20, "{}", ledger.left_behind());
    });
}

/// A process has its first question while a look finds that it has no row.
#[test]
fn a_row_is_its_process_s_own_whoever_looks_at_that_moment() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let looks = process(&ledger, |ledger| ledger.take_row_outside(id(1), b"name", id(9)));
        let asks = process(&ledger, |ledger| {
            // As the guard settles.
            let place = ledger.take_row(id(1)).unwrap();
            let row = ledger.row(place).unwrap();
            if row.is_outside() {
                row.begin();
            }
            row.set_base(20, None);
            assert_eq!(ask(ledger, row, 30), Decision::Granted);
            place
        });
        looks.join().unwrap();
        let place = asks.join().unwrap();
        let row = ledger.row(place).unwrap();
        assert_eq!((row.id(), row.is_outside(), row.base(), row.lease()), (Some(id(1)), false, 20, 30));
        assert_eq!((ledger.taken_rows().count(), ledger.find(id(1))), (1, Some(place)));
    });
}

/// A look dies while it makes up a row for a process that it has found.
#[test]
fn no_row_is_lost_with_whoever_makes_it_up() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let accesses = shuttle::rand::thread_rng().gen_range(0..60);
        let looks = killed_after(accesses, &ledger, |ledger| ledger.take_row_outside(id(1), b"name", id(9)));
        let buries = process(&ledger, |ledger| ledger.take_from_the_dead(2, |other| other != id(1)));
        looks.join().unwrap();
        buries.join().unwrap();
        ledger.take_from_the_dead(2, |_| false);
        assert!(ledger.all_are_free());
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
            row.set_base(40, None);
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

/// What a process uses, which others see when they look.
struct Uses {
    bytes: AtomicU64,
}

impl Uses {
    fn so_far(&self) -> u64 {
        // The kernel's files are not the ledger's, and still somebody else may come first.
        shuttle::thread::yield_now();
        self.bytes.load(SeqCst)
    }

    fn set(&self, bytes: u64) {
        shuttle::thread::yield_now();
        self.bytes.store(bytes, SeqCst);
    }

    fn more(&self, bytes: u64) {
        shuttle::thread::yield_now();
        self.bytes.fetch_add(bytes, SeqCst);
    }
}

/// As `Growth::take_what_is_unused` does it, where no limit is in the way of what is taken.
fn take_unused(row: &Row, uses: &Uses) -> u64 {
    row.take_unused(1, || Some(uses.so_far()))
}

/// A process with a lease of 60 that uses 10 takes more by calls that no limit refuses, each of its threads so much.
fn takes_without_a_limit(
    ledger: &Arc<Ledger>,
    uses: &Arc<Uses>,
    threads: &'static [u64],
) -> Vec<shuttle::thread::JoinHandle<()>> {
    let place = ledger.take_row(id(1)).unwrap();
    assert_eq!(ask(ledger, ledger.row(place).unwrap(), 60), Decision::Granted);
    let start = |bytes: &u64| {
        let (bytes, uses) = (*bytes, Arc::clone(uses));
        process(ledger, move |ledger| {
            let row = ledger.row(place).unwrap();
            row.pledge(bytes);
            // As `Growth::make_room` does: what the other threads have pledged is not for this one, and is looked at first, as what
            // is pledged no more is in use by then.
            let mut is_granted = false;
            for _ in 0..8 {
                let pledged = row.pledged();
                let need = uses.so_far() + pledged;
                let missing = need.saturating_sub(row.lease());
                if missing == 0 {
                    is_granted = true;
                    break;
                }
                if row.claim(missing) {
                    ledger.decide(row);
                }
                shuttle::thread::yield_now();
            }
            if is_granted {
                uses.more(bytes);
            }
            row.end_pledge(bytes);
        })
    };
    threads.iter().map(start).collect()
}

fn uses_ten() -> Arc<Uses> {
    Arc::new(Uses { bytes: AtomicU64::new(10) })
}

/// Between the grant and the call nobody takes back what was granted.
#[test]
fn what_was_granted_for_a_call_that_no_limit_refuses_is_there_when_it_is_made() {
    for threads in [&[40][..], &[30, 20]] {
        in_many_orders(move || {
            let ledger = ledger(100);
            let uses = uses_ten();
            // So that all come to the point at about the same time.
            let others = [2, 3].map(|pid| ledger.take_row(id(pid)).unwrap());
            let takes = takes_without_a_limit(&ledger, &uses, threads);
            let first = ledger.take_row(id(1)).unwrap();
            let others = others.map(|place| {
                let uses = Arc::clone(&uses);
                process(&ledger, move |ledger| {
                    let row = ledger.row(place).unwrap();
                    take_unused(ledger.row(first).unwrap(), &uses);
                    ask_often(ledger, row, 35);
                })
            });
            takes.into_iter().chain(others).for_each(|thread| thread.join().unwrap());
            let first = ledger.row(first).unwrap();
            let (uses, lease) = (uses.bytes.load(SeqCst), first.lease());
            assert!(uses <= lease, "it uses {uses} and has a lease of {lease}");
            assert_eq!((ledger.peek_claims(), first.pledged()), (0, 0));
        });
    }
}

/// Whoever takes back may die at it, and so may whoever has pledged: all that nobody uses can be had.
#[test]
fn nothing_is_stuck_of_those_who_die_while_they_take_back_or_have_pledged() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let uses = uses_ten();
        let place = ledger.take_row(id(1)).unwrap();
        assert_eq!(ask(&ledger, ledger.row(place).unwrap(), 60), Decision::Granted);
        let [first, second] = [(); 2].map(|()| shuttle::rand::thread_rng().gen_range(0..30));
        let owner = killed_after(first, &ledger, move |ledger| {
            let row = ledger.row(place).unwrap();
            row.pledge(40);
            ask_often(ledger, row, 10);
            row.end_pledge(40);
        });
        let taker = killed_after(second, &ledger, move |ledger| {
            let by = row(ledger, 2);
            take_unused(ledger.row(place).unwrap(), &uses);
            ask_often(ledger, by, 20);
        });
        owner.join().unwrap();
        taker.join().unwrap();
        for pid in [1, 2] {
            ledger.take_back_of(id(pid));
        }
        assert_eq!((ledger.peek().0, ledger.peek_claims()), (0, 0));
        let next = row(&ledger, 3);
        assert_eq!((next.pledged(), ask(&ledger, next, 100)), (0, Decision::Granted));
    });
}

/// The same where a limit refuses what is not granted: its owner moves it by the lease, and whoever takes back lowers it first.
#[test]
fn what_was_granted_below_a_limit_is_not_used_once_it_is_taken_back() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let place = ledger.take_row(id(1)).unwrap();
        assert_eq!(ask(&ledger, ledger.row(place).unwrap(), 60), Decision::Granted);
        let others = [2, 3].map(|pid| ledger.take_row(id(pid)).unwrap());
        let uses = uses_ten();
        let limit = uses_ten();
        let takes = {
            let (uses, limit) = (Arc::clone(&uses), Arc::clone(&limit));
            process(&ledger, move |ledger| {
                let row = ledger.row(place).unwrap();
                for _ in 0..8 {
                    let lease = row.lease();
                    if lease < 50 {
                        ask_often(ledger, row, 50 - lease);
                        continue;
                    }
                    limit.set(50);
                    if row.hold_lease() < lease {
                        limit.set(10);
                        continue;
                    }
                    shuttle::thread::yield_now();
                    // The kernel looks and maps in one.
                    if limit.bytes.load(SeqCst) >= 50 {
                        return uses.bytes.store(50, SeqCst);
                    }
                }
            })
        };
        let others = others.map(|other| {
            let (uses, limit) = (Arc::clone(&uses), Arc::clone(&limit));
            process(&ledger, move |ledger| {
                let first = ledger.row(place).unwrap();
                first.take_unused(1, || {
                    let most = uses.so_far();
                    limit.set(most);
                    Some(uses.so_far()).filter(|uses| *uses <= most)
                });
                ask_often(ledger, ledger.row(other).unwrap(), 35);
            })
        });
        takes.join().unwrap();
        others.into_iter().for_each(|thread| thread.join().unwrap());
        let (uses, lease) = (uses.bytes.load(SeqCst), ledger.row(place).unwrap().lease());
        assert!(uses <= lease, "it uses {uses} and has a lease of {lease}");
    });
}

/// Whoever keeps the ledger charges what somebody has taken without asking, while others ask, give back and die.
#[test]
fn what_is_charged_without_a_question_leaves_the_rest_as_it_is() {
    in_many_orders(|| {
        let ledger = ledger(100);
        let [place, second] = [1, 2].map(|pid| ledger.take_row(id(pid)).unwrap());
        let charges = process(&ledger, move |ledger| {
            ledger.charge(ledger.row(place).unwrap(), 40);
            ledger.charge(ledger.row(place).unwrap(), 50);
        });
        let accesses = shuttle::rand::thread_rng().gen_range(0..40);
        let dies = killed_after(accesses, &ledger, move |ledger| {
            ask_often(ledger, ledger.row(place).unwrap(), 45);
        });
        let asks = process(&ledger, move |ledger| {
            let row = ledger.row(second).unwrap();
            ask_often(ledger, row, 35);
            row.take_unused(1, || Some(5));
            ask_often(ledger, row, 60);
        });
        for thread in [dies, charges, asks] {
            thread.join().unwrap();
        }
        ledger.take_back_of(id(1));
        assert_eq!((ledger.peek().0, ledger.peek_claims()), (row(&ledger, 2).lease(), 0));
        assert_eq!(ask(&ledger, row(&ledger, 3), 100 - row(&ledger, 2).lease()), Decision::Granted);
    });
}
