//! Each test is one story of two or three threads, which loom has them go through in every order, but for more changes of
//! thread than it is told to look at. It does not look at loads that see what another thread stores only later, which the
//! memory model allows of relaxed ones.

#![cfg(test)]
// What the stories do not need of the files; and what a static's comment becomes.
#![allow(dead_code, unused_doc_comments)]

/// What the files use of the rest of the crate: as little as their part in the stories needs.
mod contract {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Cause {
        Heap,
        Thread,
        Mapping,
    }
}

mod record {
    #[derive(Clone, Copy)]
    pub struct Counted {
        pub allocations: u64,
        pub bytes: u64,
    }
}

mod report {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Request {
        pub bytes: u64,
        pub align: Option<u64>,
    }
}

mod profile {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SiteIndex(pub u16);
}

mod sys {
    pub mod process {
        use std::cell::Cell;

        loom::thread_local! {
            static SELF: Cell<(u32, u32)> = Cell::new((1, 1));
        }

        /// The calling thread is this one of that process.
        pub fn become_thread(pid: u32, tid: u32) {
            SELF.with(|own| own.set((pid, tid)));
        }

        pub fn pid() -> u32 {
            SELF.with(Cell::get).0
        }

        pub fn tid() -> u32 {
            SELF.with(Cell::get).1
        }

        pub fn pid_and_tid() -> u64 {
            u64::from(pid()) << 32 | u64::from(tid())
        }

        #[derive(Clone, Copy, Default)]
        pub struct Doings {
            pub processor_ms: u64,
            pub waits: u64,
            pub childrens_pages: u64,
        }

        pub fn doings() -> Doings {
            Doings::default()
        }
    }

    pub mod clock {
        /// All of it happens at once.
        pub fn monotonic_ms() -> u64 {
            1
        }
    }

    pub mod local {
        /// As in the crate.
        ///
        /// # Safety
        /// All bytes zero is a valid value, and it needs no dropping.
        pub unsafe trait Zeroed {}

        /// Each thread of the stories is one of the machine's.
        macro_rules! thread_own {
            (fn $name:ident() -> $type:ty, $symbol:literal) => {
                fn $name() -> &'static $type {
                    thread_local! {
                        // SAFETY: `Zeroed`.
                        static OWN: &'static $type = Box::leak(Box::new(unsafe { core::mem::zeroed() }));
                    }
                    OWN.with(|own| *own)
                }
            };
        }
        pub(crate) use thread_own;
    }
}

mod guard {
    mod armed {
        pub struct Armed {
            pub limit: Limit,
        }

        pub struct Limit;

        impl Limit {
            pub fn bytes(&self) -> Option<u64> {
                Some(64 << 20)
            }
        }

        pub fn armed() -> Option<&'static Armed> {
            static ARMED: Armed = Armed { limit: Limit };
            Some(&ARMED)
        }
    }

    mod c_heap {
        use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};

        loom::lazy_static! {
            static ref COUNTS: AtomicBool = AtomicBool::new(false);
        }

        pub fn count(on: bool) {
            COUNTS.store(on, Relaxed);
        }

        pub fn counts() -> bool {
            COUNTS.load(Relaxed)
        }
    }

    mod onlooker {
        pub fn begin() {}
    }

    mod refused {
        pub fn forget_full() {}
    }

    mod filter {
        pub fn may_ask() -> bool {
            false
        }
    }

    mod owner {
        include!(concat!(env!("OUT_DIR"), "/owner.rs"));
    }

    /// The C library's heap is counted, or is not; and nobody loads a library.
    mod hook {
        pub struct Hook<F>(std::marker::PhantomData<F>);

        pub trait Function: Sized {
            fn known() -> Option<Self>;
        }

        impl Function for fn(bool) {
            fn known() -> Option<Self> {
                Some(super::c_heap::count)
            }
        }

        impl Function for fn(usize) -> bool {
            fn known() -> Option<Self> {
                None
            }
        }

        impl<F: Function> Hook<F> {
            pub fn new() -> Self {
                Hook(std::marker::PhantomData)
            }

            pub fn set(&self, _: F) {}

            pub fn get(&self) -> Option<F> {
                F::known()
            }
        }
    }

    /// What only the library for programs in any language asks.
    mod gone_on {
        pub fn begin(_: u64) {}
        pub fn has_stayed_here() -> bool {
            false
        }
        pub fn way_out_ms(_: u64) -> u64 {
            0
        }
    }

    mod std_line {
        pub fn is_held() -> bool {
            false
        }

        pub fn release_if_left() {}
    }

    mod record {
        use crate::contract::Cause;
        use crate::record::Counted;

        pub fn begin() {}
        pub fn note_open(_: Cause, _: u64, _: Counted) {}
        pub fn note_count(_: Counted) {}
        pub fn note_closed() {}
    }

    mod notes {
        include!(concat!(env!("OUT_DIR"), "/notes.rs"));

        pub fn watches() -> bool {
            WATCHING.load(Relaxed)
        }

        /// What had been counted when something was refused last.
        pub fn counted_before() -> u64 {
            REQUESTED.bytes_before.load(Relaxed)
        }
    }

    mod busy {
        include!(concat!(env!("OUT_DIR"), "/busy.rs"));
    }

    mod who_speaks {
        use crate::sys;
        include!(concat!(env!("OUT_DIR"), "/who_speaks.rs"));

        /// `say_last_words`, up to where it is decided who does.
        pub fn speaks() -> bool {
            win()
        }
    }

    mod live {
        include!(concat!(env!("OUT_DIR"), "/live.rs"));

        impl Live {
            pub fn empty() -> Live {
                let words = || std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
                Live { keys: words(), values: words() }
            }
        }
    }

    mod rules {
        /// A rule, as it is kept: a word that is not zero.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Rule(pub u64);

        impl Rule {
            fn encode(self) -> u64 {
                self.0
            }

            fn decode(word: u64) -> Option<Rule> {
                (word != 0).then_some(Rule(word))
            }
        }

        include!(concat!(env!("OUT_DIR"), "/rules.rs"));

        impl Rules {
            pub fn empty() -> Rules {
                let set = || std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
                Rules { sets: std::array::from_fn(|_| set()) }
            }
        }
    }

    mod stories {
        use super::live::{Live, Sample, may_hold};
        use super::notes::Asker;
        use super::rules::{Rule, Rules};
        use super::who_speaks::{self, Standing, here};
        use super::{busy::Busy, c_heap, notes};
        use crate::contract::Cause;
        use crate::profile::SiteIndex;
        use crate::report::Request;
        use crate::sys::process::become_thread;
        use loom::sync::Arc;
        use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
        use loom::thread;

        /// Tries every order with at most so many changes of thread where none has to be.
        fn in_every_order(changes: usize, story: impl Fn() + Send + Sync + 'static) {
            let mut model = loom::model::Builder::new();
            model.preemption_bound = Some(changes);
            model.check(story);
        }

        fn thread_of(pid: u32, tid: u32, does: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
            thread::spawn(move || {
                become_thread(pid, tid);
                does();
            })
        }

        fn refuse(bytes: u64) {
            notes::note(Cause::Heap, Asker::Rust, Request { bytes, align: None });
        }

        #[test]
        fn of_those_that_die_at_once_one_speaks() {
            in_every_order(3, || {
                let speakers = Arc::new(AtomicU32::new(0));
                let dies = |speakers: Arc<AtomicU32>| {
                    move || {
                        if who_speaks::speaks() {
                            speakers.fetch_add(1, Relaxed);
                            assert_eq!(here(), Standing::Dying);
                        } else {
                            assert_eq!(here(), Standing::Outlived);
                        }
                        assert!(who_speaks::is_under_way() && who_speaks::is_anybody_dying(7));
                        assert!(!who_speaks::speaks(), "nobody speaks twice");
                    }
                };
                let threads = [8, 9].map(|tid| thread_of(7, tid, dies(speakers.clone())));
                become_thread(7, 7);
                dies(speakers.clone())();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                assert_eq!(speakers.load(Relaxed), 1);
            });
        }

        #[test]
        fn a_child_forked_while_its_parent_dies_is_alive_and_can_die_itself() {
            in_every_order(3, || {
                become_thread(7, 8);
                assert!(who_speaks::speaks());
                // The child has the parent's words, another number, and one thread.
                become_thread(9, 9);
                assert!(here() == Standing::Alive && !who_speaks::is_anybody_dying(9));
                assert!(who_speaks::speaks());
                assert_eq!(here(), Standing::Dying);
            });
        }

        #[test]
        fn one_is_inside_at_a_time_and_sees_what_the_last_one_did() {
            in_every_order(3, || {
                let (busy, done) = (Arc::new(Busy::new()), Arc::new(AtomicU32::new(0)));
                let works = |(busy, done): (Arc<Busy>, Arc<AtomicU32>)| {
                    move || {
                        if let Some(_inside) = busy.try_enter() {
                            // Not one step: two inside would lose one.
                            done.store(done.load(Relaxed) + 1, Relaxed);
                            return true;
                        }
                        false
                    }
                };
                let other = works((busy.clone(), done.clone()));
                let other = thread::spawn(move || u32::from(other()));
                let entered = u32::from(works((busy.clone(), done.clone()))());
                let entered = entered + other.join().unwrap();
                assert!(entered >= 1);
                assert_eq!(done.load(Relaxed), entered);
            });
        }

        #[test]
        fn the_heap_counts_in_the_end_if_and_only_if_it_is_watched() {
            in_every_order(2, || {
                become_thread(1, 1);
                notes::begin();
                refuse(4096);
                assert!(notes::is_watching() && c_heap::counts());
                // One allocates until that is got over, while another is refused something.
                let other = thread_of(1, 2, || refuse(100));
                notes::count(65 << 20);
                other.join().unwrap();
                assert_eq!(notes::watches(), c_heap::counts());
            });
        }

        #[test]
        fn a_refusal_stands_while_another_ones_is_got_over() {
            in_every_order(2, || {
                become_thread(1, 1);
                notes::begin();
                refuse(4096);
                let other = thread_of(1, 2, || refuse(100));
                notes::count(17 << 20);
                other.join().unwrap();
                // What was allocated before a refusal does not tell that it was got over.
                let stands = notes::requested().is_some_and(|noted| noted.bytes == 100);
                assert!(stands || notes::counted_before() == 0, "the refusal is lost");
            });
        }

        #[test]
        fn a_sample_is_found_by_whoever_has_the_block_and_no_release_is_missed() {
            in_every_order(3, || {
                let live = Arc::new(Live::empty());
                let (one, other) = (Sample::new(SiteIndex(1), 100), Sample::new(SiteIndex(2), 200));
                assert!(live.insert(0x1000, one));
                let elsewhere = live.clone();
                let thread = thread::spawn(move || {
                    // A block that may get the slot which the first one leaves.
                    for at in [0x2000, 0x3000] {
                        assert!(elsewhere.insert(at, other) && may_hold(at));
                        assert_eq!(elsewhere.remove(at), Some(other));
                    }
                });
                assert!(may_hold(0x1000));
                assert_eq!(live.remove(0x1000), Some(one));
                assert_eq!(live.remove(0x1000), None);
                thread.join().unwrap();
                assert!(!may_hold(0x1000), "nothing is live");
            });
        }

        #[test]
        fn a_full_table_refuses_and_forgets_nothing() {
            in_every_order(3, || {
                let live = Arc::new(Live::empty());
                let sample = |at: usize| Sample::new(SiteIndex(1), at as u64);
                assert!(live.insert(0x1000, sample(0x1000)));
                let elsewhere = live.clone();
                let thread = thread::spawn(move || elsewhere.insert(0x2000, sample(0x2000)));
                let second = live.insert(0x3000, sample(0x3000));
                let first = thread.join().unwrap();
                assert!(first ^ second, "there is room for one more");
                for (at, is_in) in [(0x1000, true), (0x2000, first), (0x3000, second)] {
                    assert_eq!(live.remove(at), is_in.then(|| sample(at)));
                }
                assert!(!may_hold(0x1000));
            });
        }

        #[test]
        fn a_rule_that_is_found_is_the_one_that_was_kept_for_that_address() {
            in_every_order(4, || {
                let rules = Arc::new(Rules::empty());
                let kept =
                    [(0x5555_1234_0010, Rule(0x11 << 8 | 1)), (0x7fff_0000_4321, Rule(0x22 << 40 | 5))];
                let writers = kept.map(|(pc, rule)| {
                    let rules = rules.clone();
                    thread::spawn(move || rules.keep(pc, rule))
                });
                for (pc, rule) in kept {
                    assert!(rules.find(pc).is_none_or(|found| found == rule));
                }
                writers.into_iter().for_each(|writer| writer.join().unwrap());
                for (pc, rule) in kept {
                    assert!(rules.find(pc).is_none_or(|found| found == rule));
                }
            });
        }
    }
}
