use super::row::MOST_BYTES;
use super::*;
use proptest::prelude::*;

#[allow(unsafe_code)]
fn ledger(budget: u64) -> Box<Ledger> {
    // SAFETY: a ledger is made of integers.
    let ledger: Box<Ledger> = unsafe { Box::<Ledger>::new_zeroed().assume_init() };
    ledger.open(budget, 100, 0, 0);
    ledger
}

fn row(ledger: &Ledger, pid: u32) -> &Row {
    let place = ledger.take_row(Id::new(pid, 7)).unwrap();
    ledger.row(place).unwrap()
}

fn grant(ledger: &Ledger, row: &Row, bytes: u64) -> Decision {
    assert!(row.claim(bytes));
    ledger.decide(row)
}

#[test]
fn what_fits_is_granted_and_what_does_not_is_told() {
    let ledger = ledger(100);
    let (one, other) = (row(&ledger, 1), row(&ledger, 2));
    assert_eq!(grant(&ledger, one, 60), Decision::Granted);
    assert_eq!(grant(&ledger, other, 50), Decision::Short(10));
    assert_eq!((one.lease(), other.lease(), ledger.leased()), (60, 0, 60));
    one.take_unused(1, || Some(20));
    one.take_unused(1, || Some(30));
    assert_eq!(one.lease(), 20);
    assert_eq!(grant(&ledger, other, 80), Decision::Granted);
    ledger.set_ceiling(90);
    assert_eq!(grant(&ledger, one, 1), Decision::Short(11));
    ledger.set_budget(u64::MAX);
    ledger.set_ceiling(u64::MAX);
    assert_eq!(grant(&ledger, one, u64::MAX), Decision::Granted);
    assert_eq!(one.lease(), MOST_BYTES);
}

#[test]
fn a_row_is_of_one_process_and_of_one_life_of_its_number() {
    let ledger = ledger(100);
    let (first, second) = (Id::new(5, 1), Id::new(5, 2));
    let place = ledger.take_row(first).unwrap();
    assert_eq!(ledger.take_row(first), Some(place));
    assert_ne!(ledger.take_row(second), Some(place));
    let row = ledger.row(place).unwrap();
    assert_eq!(grant(&ledger, row, 40), Decision::Granted);
    assert_eq!((ledger.take_back(row, second), ledger.take_back(row, first)), (None, Some(40)));
    assert_eq!((ledger.leased(), ledger.find(first)), (0, None));
    assert_eq!((Id::new(4_194_304 - 1, u64::MAX).pid(), first.pid()), (4_194_303, 5));
}

#[test]
fn no_more_processes_than_rows() {
    let ledger = ledger(100);
    for pid in 1..=ROWS as u32 {
        assert!(ledger.take_row(Id::new(pid, 1)).is_some());
    }
    assert_eq!(ledger.take_row(Id::new(1 << 20, 1)), None);
    let row = ledger.row(ledger.find(Id::new(9, 1)).unwrap()).unwrap();
    assert_eq!(ledger.take_back(row, Id::new(9, 1)), Some(0));
    assert!(ledger.take_row(Id::new(1 << 20, 1)).is_some());
}

#[test]
fn a_row_whose_maker_died_is_free_again() {
    let (ledger, maker, other) = (ledger(100), Id::new(6, 1), Id::new(7, 1));
    assert!(ledger.row(0).unwrap().take(maker.0 | IS_MAKER) && ledger.row(0).unwrap().id().is_none());
    ledger.take_from_the_dead(0, |_| true);
    assert!(!ledger.row(0).unwrap().take(other.0));
    ledger.take_from_the_dead(0, |id| id != maker);
    assert!(ledger.row(0).unwrap().take(other.0));
}

#[test]
fn who_holds_most_is_refused_first_and_one_that_does_not_go_is_not_waited_for_twice() {
    let ledger = ledger(100);
    let rows = [row(&ledger, 1), row(&ledger, 2), row(&ledger, 3)];
    for (row, held) in rows.iter().zip([10, 30, 20]) {
        row.note_held(held);
        row.begin_to_wait(5, 1000);
    }
    let is_refused = |now_ms| rows.map(|row| ledger.is_to_be_refused(row, 1000, now_ms));
    assert_eq!(is_refused(1099), [false; 3]);
    assert_eq!(is_refused(1100), [false, true, false]);
    assert_eq!(is_refused(1200), [false, true, true]);
    assert_eq!(is_refused(1300), [true; 3]);
    ledger.note_movement(1090);
    assert_eq!(is_refused(1189), [false; 3]);
    assert_eq!(is_refused(1190), [false, true, false]);
    rows.get(1).unwrap().end_to_wait();
    assert_eq!(is_refused(1190), [false, true, true]);
    // Whatever moves, it ends: a moment that has not come is none.
    ledger.note_movement(u64::MAX);
    assert_eq!(is_refused(1000 + 60 * 100), [true; 3]);
}

#[test]
fn who_has_written_to_what_it_was_forked_with_is_told_with_all_that_it_holds() {
    let ledger = ledger(1000);
    row(&ledger, 1).note_held(300);
    let child = row(&ledger, 2);
    child.set_base(300, row(&ledger, 1).id());
    child.note_held(310);
    child.note_share(290);
    let told = || ledger.greatest::<2>().map(|holder| holder.map(|holder| (holder.pid, holder.bytes)));
    assert_eq!(told(), [Some((1, 300)), Some((2, 290))]);
    child.note_held(20);
    assert_eq!(told(), [Some((1, 300)), Some((2, 20))], "it has given back the rest");
}

#[test]
fn what_nobody_holds_is_told_where_less_is_permitted_for_it() {
    let ledger = ledger(1000);
    row(&ledger, 1).note_held(300);
    ledger.note_container(Some(1100), 600);
    let told = || ledger.greatest::<2>().map(|holder| holder.map(|holder| (holder.pid, holder.bytes)));
    assert_eq!(told(), [Some((1, 300)), None]);
    ledger.set_ceiling(400);
    assert_eq!(told(), [Some((0, 600)), Some((1, 300))]);
    ledger.note_container(Some(1100), 60);
    assert_eq!(told(), [Some((1, 300)), None], "a little is always there");
}

#[test]
fn where_more_is_in_use_than_there_is_nobody_waits_for_long() {
    let ledger = ledger(100);
    ledger.open(100, 60_000, 0, 0);
    let rows = [row(&ledger, 1), row(&ledger, 2)];
    for (row, held) in rows.iter().zip([10, 30]) {
        row.note_held(held);
        row.begin_to_wait(5, 1000);
    }
    let is_refused = |now_ms| rows.map(|row| ledger.is_to_be_refused(row, 1000, now_ms));
    assert_eq!(is_refused(1200), [false; 2]);
    ledger.note_over(1190);
    assert_eq!([is_refused(1099), is_refused(1190)], [[false; 2], [false, true]]);
    // One after the other; and it is over no more.
    ledger.note_movement(1190);
    assert_eq!([is_refused(1289), is_refused(1290)], [[false; 2], [false, true]]);
    assert_eq!(is_refused(1190 + 250), [false; 2]);
}

#[test]
fn who_comes_and_goes_with_a_little_moves_nothing() {
    let ledger = ledger(6400);
    let (waiter, small, large) = (row(&ledger, 1), row(&ledger, 2), row(&ledger, 3));
    waiter.begin_to_wait(5, 1000);
    assert_eq!(grant(&ledger, small, 99), Decision::Granted);
    assert_eq!(grant(&ledger, large, 100), Decision::Granted);
    ledger.note_given_back(0, 1050);
    let small_bytes = ledger.take_from_the_dead(0, |id| id.pid() != 2);
    assert_eq!(small_bytes, Some(99));
    ledger.note_given_back(99, 1050);
    assert!(ledger.is_to_be_refused(waiter, 1000, 1100));
    assert_eq!(ledger.take_from_the_dead(0, |id| id.pid() != 3), Some(100));
    ledger.note_given_back(100, 1050);
    assert!(!ledger.is_to_be_refused(waiter, 1000, 1100));
    assert_eq!(ledger.take_from_the_dead(0, |_| true), None);
}

#[test]
fn of_those_that_grow_the_largest_goes_first() {
    const MIB: u64 = 1 << 20;
    let ledger = ledger(1000 * MIB);
    let [large, small, still] = [1, 2, 3].map(|pid| row(&ledger, pid));
    for (row, mib) in [(large, 300), (small, 290), (still, 310)] {
        assert_eq!(grant(&ledger, row, mib * MIB), Decision::Granted);
    }
    let yields = |row: &Row, now_ms| ledger.has_to_yield(row, 10 * MIB, now_ms);
    // Nobody has grown a second time: there is nobody to wait for.
    [large, small].iter().for_each(|row| row.note_grown(1000));
    assert_eq!([large, small, still].map(|row| yields(row, 1001)), [false; 3]);
    [large, small].iter().for_each(|row| row.note_grown(1100));
    assert_eq!([large, small].map(|row| yields(row, 1101)), [false, true]);
    // It grows no more, for as long as it took four times.
    assert_eq!([1500, 1501].map(|now_ms| yields(small, now_ms)), [true, false]);
    // Who is held back would grow as well, and is still ahead of who is smaller.
    large.begin_to_yield(10 * MIB, 1600);
    assert_eq!([large, small].map(|row| yields(row, 9000)), [false, true]);
    large.end_to_yield(9000);
    assert_eq!([9100, 9101].map(|now_ms| yields(small, now_ms)), [true, false]);
    // Whoever has little is let go on; and so is everybody while there is room for the largest to double.
    large.begin_to_yield(10 * MIB, 1600);
    small.take_unused(1, || Some(20 * MIB));
    assert!(!yields(small, 9200));
    assert!(small.claim(80 * MIB) && ledger.decide(small) == Decision::Granted && yields(small, 9200));
    still.take_unused(1, || Some(200 * MIB));
    assert!(!yields(small, 9200));
}

#[test]
fn what_is_mapped_lately_is_not_taken_for_unused() {
    let ledger = ledger(100);
    let row = row(&ledger, 1);
    let look =
        |mapped_mib: u64, held_mib: u64, now_ms| row.note_use(seen(mapped_mib, held_mib, 0), now_ms).0 >> 20;
    assert_eq!(look(10, 10, 1000), 0);
    assert_eq!([look(90, 10, 1100), look(90, 10, 1999)], [80, 80]);
    // So much has stayed so, seen from the next look on.
    assert_eq!([look(90, 10, 2000), look(90, 10, 2999), look(90, 10, 3000)], [80, 80, 0]);
    assert_eq!(look(95, 10, 3100), 5);
    // It goes on touching what it mapped long ago.
    assert_eq!([look(95, 20, 3200), look(95, 30, 3300), look(95, 94, 4400)], [75, 65, 1]);
    // Given back, and taken again.
    assert_eq!([look(12, 10, 4500), look(95, 10, 4600)], [2, 85]);
}

fn seen(data_mib: u64, held_mib: u64, in_shared_mib: u64) -> Seen {
    Seen { data: data_mib << 20, held: held_mib << 20, in_shared: in_shared_mib << 20 }
}

#[test]
fn shared_memory_that_was_asked_for_lately_is_about_to_be_used() {
    let ledger = ledger(100);
    let row = row(&ledger, 1);
    let look = |in_shared_mib: u64, now_ms| {
        row.note_use(seen(10, 10 + in_shared_mib, in_shared_mib), now_ms).0 >> 20
    };
    assert_eq!(look(20, 1000), 0);
    row.note_new_shared(30 << 20, 1100);
    row.note_new_shared(10 << 20, 1200);
    // As long as it goes on using it, and not for long afterwards.
    assert_eq!([look(20, 1300), look(35, 2100), look(50, 3000), look(50, 3999)], [40, 25, 10, 10]);
    assert_eq!(look(50, 4000), 0);
    // What is in use of it hides nothing of what was mapped of the private kind.
    assert_eq!(row.note_use(seen(90, 60, 50), 4100).0 >> 20, 80);
}

#[test]
fn what_children_use_of_shared_memory_is_what_their_parent_asked_for() {
    let ledger = ledger(100);
    let [parent, child, grandchild] = [1, 2, 3].map(|pid| row(&ledger, pid));
    child.set_base(0, parent.id());
    grandchild.set_base(0, child.id());
    parent.note_new_shared(60 << 20, 1000);
    let look = |row: &Row, in_shared_mib: u64, now_ms| {
        ledger.note_use(row, seen(10, 10 + in_shared_mib, in_shared_mib), now_ms) >> 20
    };
    assert_eq!([look(parent, 0, 1900), look(child, 20, 1950), look(parent, 0, 2900)], [60, 0, 40]);
    // However seldom it is looked.
    assert_eq!([look(grandchild, 10, 5000), look(parent, 0, 5900), look(parent, 0, 6000)], [0, 30, 0]);
    assert_eq!([look(child, 50, 7000), look(parent, 0, 7100), look(child, 60, 7200)], [0, 0, 0]);
    // What the parent has used is used once.
    parent.note_new_shared(60 << 20, 9000);
    assert_eq!([look(parent, 30, 9100), look(child, 90, 9200), look(parent, 30, 9300)], [30, 0, 30]);
    assert_eq!(ledger.heirs_of(parent).count() + ledger.heirs_of(grandchild).count(), 1);
}

#[test]
fn shared_memory_that_a_dead_process_had_is_not_there_until_a_look_says_so() {
    let ledger = ledger(100 << 20);
    let (dead, other) = (row(&ledger, 1), row(&ledger, 2));
    dead.note_use(seen(10, 40, 30), 1000);
    ledger.charge(dead, 50 << 20);
    let is_alive = |id: Id| id.pid() != 1;
    assert_eq!(ledger.take_from_the_dead(1000, is_alive), Some(50 << 20));
    assert_eq!((ledger.permitted() >> 20, grant(&ledger, other, 71 << 20)), (70, Decision::Short(1 << 20)));
    // It begins, somebody else ends, and it tells what it has found.
    let seen_by_then = ledger.left_behind();
    let dead = row(&ledger, 1);
    ledger.charge(dead, 20 << 20);
    dead.note_use(seen(0, 20, 20), 2000);
    assert_eq!(ledger.take_from_the_dead(2000, is_alive), Some(20 << 20));
    ledger.forget_left_behind(seen_by_then);
    assert_eq!(ledger.permitted() >> 20, 80);
    // Nobody looks any more.
    assert_eq!((ledger.take_from_the_dead(7000, is_alive), ledger.permitted() >> 20), (None, 80));
    assert_eq!((ledger.take_from_the_dead(7001, is_alive), ledger.permitted() >> 20), (None, 100));
}

#[test]
fn what_is_pledged_is_not_taken_back() {
    let ledger = ledger(100);
    let (owner, taker) = (row(&ledger, 1), row(&ledger, 2));
    assert_eq!(grant(&ledger, owner, 80), Decision::Granted);
    let take = |uses: u64| owner.take_unused(5, || Some(uses));
    owner.pledge(30);
    owner.pledge(20);
    assert_eq!([take(28), take(20), take(20)], [0, 10, 0]);
    owner.end_pledge(20);
    assert_eq!([take(20), take(20)], [20, 0]);
    owner.end_pledge(30);
    // It comes in between; or somebody goes by the lease in between, or takes it back.
    for between in [&(|| owner.pledge(10)) as &dyn Fn(), &|| _ = owner.hold_lease(), &|| _ = take(45)] {
        let uses = || {
            between();
            Some(20)
        };
        assert_eq!(owner.take_unused(5, uses), 0);
        owner.end_pledge(u64::MAX);
    }
    assert_eq!(owner.take_unused(5, || None), 0);
    assert_eq!((owner.lease(), owner.pledged(), take(20)), (45, 0, 25));
    assert_eq!(grant(&ledger, taker, 80), Decision::Granted);
}

#[test]
fn what_was_taken_without_asking_is_charged_as_far_as_there_is_room() {
    let ledger = ledger(100);
    let (one, other) = (row(&ledger, 1), row(&ledger, 2));
    assert_eq!(grant(&ledger, one, 60), Decision::Granted);
    ledger.charge(other, 30);
    assert!(one.claim(5));
    ledger.charge(other, 50);
    assert_eq!((other.lease(), ledger.decide(one)), (35, Decision::Granted));
    ledger.charge(other, 20);
    assert_eq!((one.lease(), other.lease(), ledger.leased()), (65, 35, 100));
}

#[test]
fn deaths_and_names_are_read_back() {
    let ledger = ledger(100);
    for pid in 1..=DEATHS as u32 + 2 {
        ledger.note_death(pid, 5, Some(0), 77, b"a name that is too long");
    }
    let row = row(&ledger, 1);
    row.set_name(b"python3");
    assert_eq!(row.name().as_bytes(), b"python3");
    {
        let deaths: Vec<Died> = ledger.last_deaths().collect();
        assert_eq!(deaths.iter().map(|death| death.pid).collect::<Vec<_>>(), (3..=10).collect::<Vec<_>>());
        let last = deaths.last().unwrap();
        assert_eq!((last.name.as_bytes(), last.wanted, last.held), (&b"a name that is t"[..], Some(0), 5));
    }
}

/// A participant in the middle of growing its lease, one step at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Rest,
    Claimed,
}

#[derive(Clone, Debug)]
enum Step {
    Claim(u64),
    Decide,
    Lower(u64),
    Die,
    /// Somebody goes through the rows.
    Bury,
    Exec,
    Fork(usize),
    Resize(u64),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        4 => (1u64..60).prop_map(Step::Claim),
        4 => Just(Step::Decide),
        2 => (0u64..60).prop_map(Step::Lower),
        1 => Just(Step::Die),
        1 => Just(Step::Bury),
        1 => Just(Step::Exec),
        1 => (0usize..6).prop_map(Step::Fork),
        1 => (40u64..160).prop_map(Step::Resize),
    ];
    (0usize..6, step)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever they do, and wherever they die: what is granted never makes the leases more than what is permitted at that
    /// moment, and once the dead are buried and all rest, all that nobody has can be had.
    #[test]
    fn no_schedule_breaks_the_budget_or_loses_a_lease(steps in prop::collection::vec(step(), 1..200)) {
        let ledger = ledger(100);
        let mut lives: Vec<Option<(Id, usize, At)>> = vec![None; 6];
        let mut dead: Vec<(Id, usize)> = Vec::new();
        let mut next_start = 1u64;
        let mut join = |place: usize| {
            next_start += 1;
            let id = Id::new(place as u32 + 1, next_start);
            ledger.take_row(id).map(|row| (id, row, At::Rest))
        };
        for (who, step) in steps {
            if lives[who].is_none() {
                lives[who] = join(who);
            }
            let (id, place, at) = lives[who].unwrap();
            let row = ledger.row(place).unwrap();
            match step {
                Step::Claim(bytes) if at == At::Rest => {
                    prop_assert!(row.claim(bytes));
                    lives[who] = Some((id, place, At::Claimed));
                }
                Step::Decide if at == At::Claimed => {
                    let before = ledger.leased();
                    let decision = ledger.decide(row);
                    if decision == Decision::Granted {
                        prop_assert!(ledger.leased() <= ledger.permitted());
                    } else {
                        prop_assert_eq!(ledger.leased(), before);
                    }
                    lives[who] = Some((id, place, At::Rest));
                }
                Step::Lower(to) => {
                    let lease = row.lease();
                    let taken = row.take_unused(1, || Some(to));
                    prop_assert_eq!((taken, row.lease()), (lease.saturating_sub(to), lease.min(to)));
                }
                Step::Die => {
                    lives[who] = None;
                    dead.push((id, place));
                }
                Step::Bury => {
                    for (id, place) in dead.drain(..) {
                        prop_assert!(ledger.take_back(ledger.row(place).unwrap(), id).is_some());
                    }
                }
                Step::Exec => {
                    row.begin();
                    lives[who] = Some((id, place, At::Rest));
                }
                Step::Fork(child) if lives[child].is_none() => lives[child] = join(child),
                Step::Resize(budget) => ledger.set_budget(budget),
                _ => {}
            }
        }
        for (id, place) in dead {
            prop_assert!(ledger.take_back(ledger.row(place).unwrap(), id).is_some());
        }
        for (id, place, at) in lives.into_iter().flatten() {
            let row = ledger.row(place).unwrap();
            prop_assert_eq!(row.id(), Some(id));
            if at == At::Claimed {
                ledger.decide(row);
            }
        }
        if let Some(left) = ledger.permitted().checked_sub(ledger.leased()).filter(|left| *left > 0) {
            prop_assert_eq!(grant(&ledger, row(&ledger, 99), left), Decision::Granted);
            prop_assert_eq!(ledger.leased(), ledger.permitted());
        }
    }

    /// Nobody's row makes the arithmetic wrap.
    #[test]
    fn rows_with_any_content_do_no_harm(words in prop::collection::vec(any::<u64>(), 19 * 8)) {
        let ledger = ledger(1000);
        for (row, words) in ledger.rows.iter().zip(words.chunks_exact(19)) {
            let [
                id, lease, claim, base, held, untouched, lately, since, waits, wanted, refusals, asked, outside,
                pledged, in_shared, to_come, shared_at, by_heirs, parent,
            ] = words.try_into().unwrap();
            for (to, from) in [
                (&row.id, id), (&row.lease, lease), (&row.claim, claim), (&row.base, base), (&row.held, held),
                (&row.untouched, untouched), (&row.lately_untouched, lately), (&row.lately_since_ms, since),
                (&row.waiting_since_ms, waits), (&row.wanted, wanted), (&row.refusals, refusals),
                (&row.asked_ms, asked), (&row.is_outside, outside),
                (&row.pledged, pledged), (&row.in_shared, in_shared), (&row.in_shared_to_come, to_come),
                (&row.in_shared_at_ms, shared_at), (&row.in_shared_by_heirs, by_heirs), (&row.parent, parent),
            ] {
                to.store(from, ANY);
            }
        }
        let own = row(&ledger, 3);
        let _ = (ledger.leased(), grant(&ledger, own, 5), ledger.is_to_be_refused(own, 1, 2));
        let _ = (own.name(), own.charge(), ledger.note_use(own, seen(1, 2, 3), 3), ledger.has_to_yield(own, 5, 6));
        own.note_new_shared(5, 6);
        own.set_base(1, ledger.taken_rows().next().and_then(Row::id));
        let _ = (ledger.note_use(own, seen(1, 9, 8), 7), ledger.heirs_of(own).count());
        own.end_pledge(7);
        let _ = (own.take_unused(1, || Some(u64::MAX)), ledger.charge(own, u64::MAX));
    }
}

/// Many threads at once, as many processes would: all there is can be had, and no byte more.
#[test]
fn many_at_once_have_all_that_there_is_and_no_more() {
    for round in 0..20u64 {
        let ledger: &Ledger = &ledger(200);
        let ask = |pid: u32| {
            let row = row(ledger, pid);
            let mut bytes = 1 + (round * 7 + u64::from(pid)) % 50;
            loop {
                match grant(ledger, row, bytes) {
                    Decision::Short(_) if bytes == 1 => return,
                    Decision::Short(_) => bytes = 1,
                    Decision::Granted => {}
                    Decision::Contended => std::thread::yield_now(),
                }
            }
        };
        std::thread::scope(|scope| (1..=4).for_each(|pid| drop(scope.spawn(move || ask(pid)))));
        assert_eq!(ledger.leased(), 200);
    }
}
