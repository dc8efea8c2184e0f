//! Workers under one budget.

use super::{add, limit, role, shell};
use libtest_mimic::Trial;
use oomguard::LimitSource;
use oomguard::supervisor::{Budget, Outcome, Pool, Retry, Running, SharedBudget, TooLarge, Worker};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "hungry_workers_get_more_within_the_budget_and_answer", hungry_workers_answer);
    add(trials, "the_limits_of_what_runs_never_sum_to_more_than_the_budget", the_sum_stays_within);
    add(trials, "a_worker_that_can_never_run_is_refused_at_once", one_too_large_is_refused);
    add(trials, "a_retry_asks_for_no_more_than_the_whole_budget", a_retry_asks_for_no_more);
    add(trials, "a_hook_that_panics_does_not_lock_up_the_pool", a_panicking_hook);
    add(trials, "workers_of_an_elastic_pool_take_turns_with_what_there_is", an_elastic_pool);
    add(
        trials,
        "an_elastic_pool_that_can_share_nothing_tells_each_worker_why",
        an_elastic_pool_without_a_size,
    );
    add(trials, "a_parent_is_told_that_its_budget_gets_short", told_of_a_shortage);
    add(trials, "threads_and_jobs_share_one_pool", threads_and_jobs_share_one_pool);
}

fn told_of_a_shortage() {
    let budget = SharedBudget::new(limit("48MiB"), Duration::from_secs(600)).unwrap();
    let (tell, told) = mpsc::channel();
    budget
        .on_shortage(move |short| {
            let _ = tell.send(short);
        })
        .unwrap();
    let started = |mut command: Command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Worker::new(command).share(budget.clone()).spawn().unwrap()
    };
    let line = |running: &mut Running| {
        let mut line = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line
    };
    let mut holder = started(role(&["look"]));
    assert_eq!(line(&mut holder), "ready\n");
    assert!(told.try_recv().is_err(), "there is room for as much again");
    let mut waiter = started(role(&["try"]));
    writeln!(waiter.stdin.as_mut().unwrap(), "30").unwrap();
    let short = told.recv_timeout(Duration::from_secs(60)).expect("somebody waits");
    assert!(short.permitted == 48 << 20 && short.leased >= 20 << 20 && short.waiting == 1, "{short:?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(line(&mut waiter), "got\n");
    assert!(waiter.wait().unwrap().is_success());
}

fn need(mib: u32, first_limit: &str, ceiling: &str) -> Worker {
    let mut command = role(&["need", &mib.to_string()]);
    command.stdout(Stdio::piped());
    Worker::new(command).limit(limit(first_limit)).retry(Retry::grow(2.0).up_to(limit(ceiling))).quiet()
}

fn answer(mib: u32) -> String {
    format!("{}\n", (0..mib).map(|n| n % 251).sum::<u32>())
}

fn hungry_workers_answer() {
    let pool = Pool::new(Budget::of(limit("400MiB")));
    let jobs: Vec<_> = [(20, 1), (150, 3), (70, 2), (120, 3)]
        .into_iter()
        .map(|(mib, tries)| (mib, tries, pool.submit(need(mib, "60MiB", "1GiB")).unwrap()))
        .collect();
    for (mib, tries, job) in jobs {
        let ended = job.wait_to_end().unwrap();
        assert!(ended.outcome.is_success(), "{mib}: {ended}");
        assert_eq!((ended.tries, String::from_utf8(ended.stdout).unwrap()), (tries, answer(mib)), "{mib}");
    }
    assert_eq!((pool.in_use(), pool.running(), pool.waiting()), (0, 0, 0));
}

/// Together they want more than there is, and each may have nearly all of it.
fn an_elastic_pool() {
    let pool = Pool::elastic(Budget::of(limit("200MiB")));
    let jobs: Vec<_> = (0..2)
        .map(|_| {
            let mut command = role(&["need", "150"]);
            command.stdout(Stdio::piped());
            // Who holds memory for longer than a waiter has patience makes it try again.
            pool.submit(Worker::new(command).retry(Retry::grow(2.0).at_most(100)).quiet()).unwrap()
        })
        .collect();
    for job in jobs {
        let ended = job.wait_to_end().unwrap();
        assert!(ended.outcome.is_success(), "{ended}");
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), answer(150));
    }
    assert_eq!(pool.running(), 0);
    let too_much = pool.run(Worker::new(role(&["need", "250"])).quiet()).unwrap();
    let Outcome::OutOfMemory(report) = too_much else { panic!("{too_much}") };
    assert_eq!(report.limit_source(), Some(LimitSource::Budget));
}

fn an_elastic_pool_without_a_size() {
    let pool = Pool::elastic(Budget::of(limit("off")));
    let run = || pool.run(Worker::new(role(&["need", "1"])));
    let refused = [
        run().unwrap_err(),
        run().unwrap_err(),
        pool.submit(Worker::new(role(&["need", "1"]))).err().unwrap(),
    ];
    for error in refused {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("a budget needs a size"), "{error}");
    }
    assert_eq!((pool.running(), pool.waiting()), (0, 0));
}

/// Each worker says when it began and ended, and under which limit; afterwards the sums are made.
fn the_sum_stays_within() {
    let mut random =
        0x2545_f491_4f6c_dd1du64 ^ SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {random:#x}");
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    const BUDGET_MIB: u64 = 1000;
    let pool = Pool::new(Budget::of(limit("1000MiB")));
    let most = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(pool.in_use(), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let jobs: Vec<_> = (0..150)
            .map(|_| {
                let mib = 50 + next() % 500;
                let milliseconds = next() % 20;
                let script = format!(
                    "ulimit -Sv; date +%s%N; sleep 0.0{milliseconds:02}; date +%s%N; [ {} -gt 0 ] || kill -9 $$",
                    next() % 8
                );
                let mut command = shell(&script);
                command.stdout(Stdio::piped());
                pool.submit(Worker::new(command).limit(limit(&format!("{mib}MiB")))).unwrap()
            })
            .collect();
        let mut events: Vec<(u64, i64)> = Vec::new();
        for job in jobs {
            let ended = job.wait_to_end().unwrap();
            let said = String::from_utf8(ended.stdout.clone()).unwrap();
            let [kib, from, to] = said.lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>()[..]
            else {
                panic!("{ended}: {said}")
            };
            assert_eq!(ended.limit, Some(kib << 10));
            events.extend([(from, kib as i64), (to, -(kib as i64))]);
        }
        done.store(true, Ordering::Relaxed);
        events.sort_unstable();
        let mut sum = 0;
        for (_, change) in events {
            sum += change;
            assert!(sum <= (BUDGET_MIB << 10) as i64, "{sum} KiB at once");
        }
    });
    let most = most.load(Ordering::Relaxed);
    assert!(most <= BUDGET_MIB << 20 && most > BUDGET_MIB << 19, "{most}");
}

fn one_too_large_is_refused() {
    let pool = Pool::new(Budget::of(limit("1GiB")).keep(limit("256MiB")));
    let refused = pool.submit(Worker::new(shell("exit 0")).limit(limit("800MiB"))).unwrap_err();
    let inner = refused.get_ref().and_then(|error| error.downcast_ref::<TooLarge>()).unwrap();
    assert_eq!((inner.asked, inner.budget), (800 << 20, 768 << 20));
    assert!(pool.run(Worker::new(shell("exit 0")).limit(limit("800MiB"))).is_err());
    assert!(pool.run(Worker::new(shell("exit 0"))).is_err(), "without a limit the share is unknown");
    assert!(pool.run(Worker::new(shell("exit 0")).limit(limit("768MiB"))).unwrap().is_success());
}

fn a_retry_asks_for_no_more() {
    let pool = Pool::new(Budget::of(limit("150MiB")));
    let ended = pool.run_to_end(need(400, "100MiB", "1GiB")).unwrap();
    assert!(matches!(ended.outcome, Outcome::OutOfMemory(_)), "{ended}");
    assert_eq!((ended.tries, ended.limit), (2, Some(150 << 20)));
}

fn a_panicking_hook() {
    let pool = Pool::new(Budget::of(limit("150MiB")));
    let retry = Retry::grow(2.0).between(|_| panic!("on purpose"));
    let job = pool.submit(Worker::new(role(&["eat"])).limit(limit("64MiB")).retry(retry).quiet()).unwrap();
    assert!(job.wait().is_err());
    assert!(pool.run(Worker::new(shell("exit 0")).limit(limit("150MiB"))).unwrap().is_success());
}

fn threads_and_jobs_share_one_pool() {
    let pool = Pool::new(Budget::of(limit("200MiB"))).at_most(2);
    std::thread::scope(|scope| {
        for code in 1..=8 {
            let pool = pool.clone();
            scope.spawn(move || {
                let worker = || Worker::new(shell(&format!("exit {code}"))).limit(limit("100MiB"));
                let job = pool.submit(worker()).unwrap();
                assert!(matches!(pool.run(worker()).unwrap(), Outcome::Exited(got) if got == code));
                assert!(matches!(job.wait().unwrap(), Outcome::Exited(got) if got == code));
            });
        }
    });
    assert_eq!((pool.running(), pool.waiting()), (0, 0));
}
