//! After a panic for want of a thread: a program that stands still is ended, and one that copes is not.

mod common;

use common::child::{End, Remains, Start};
use common::report;
use libtest_mimic::{Arguments, Trial};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

oomguard::guard!();

/// More than the time after which a program that stands still is ended.
const LONGER: Duration = Duration::from_secs(8);

/// What the roles print when all is as it should be.
const RIGHT: &str = "right\n";

fn main() {
    if let Ok(role) = std::env::var(common::ROLE) {
        return play(&role);
    }
    let tests: [(&str, fn()); 6] = [
        ("lives while another thread writes", || lives("writes")),
        ("lives while another thread computes", || lives("computes")),
        ("lives while another thread sleeps", || lives("sleeps")),
        ("ends where all wait for one another", || ends("barrier")),
        ("ends where SIGABRT was ignored when it started", || ends("ignores")),
        ("ends where others look for work that never comes", || ends("polls")),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(format!("a program that was refused a thread {name}"), move || {
            test();
            Ok(())
        })
    });
    let mut arguments = Arguments::from_args();
    // They wait, and need no processor for that.
    arguments.test_threads.get_or_insert(6);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn run(role: &str) -> Remains {
    Start::role(role).env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", "data").run().expect("a child")
}

fn lives(role: &str) {
    let remains = run(role);
    assert_eq!((remains.end(), remains.stdout.as_str()), (End::Exit(0), RIGHT), "{remains:#?}");
    assert!(remains.report.is_none(), "{remains:#?}");
}

fn ends(role: &str) {
    let remains = run(role);
    assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
    let report = report::read(remains.report.as_deref().unwrap_or("(no file)")).expect("a report");
    assert_eq!(report["cause"], "thread", "{remains:#?}");
}

fn play(role: &str) {
    let barrier = Barrier::new(3);
    match role {
        "ignores" => {
            // SAFETY: no handler is set.
            unsafe { libc::signal(libc::SIGABRT, libc::SIG_IGN) };
            let program = std::env::current_exe().expect("this program");
            let failed = Command::new(program).env(common::ROLE, "barrier").exec();
            panic!("{failed}");
        }
        "writes" => beside_a_refused_thread(|| {
            let mut file = std::fs::File::create("rows").expect("a file");
            let start = Instant::now();
            while start.elapsed() < LONGER {
                writeln!(file, "a row").expect("room for a row");
                thread::sleep(Duration::from_millis(50));
            }
        }),
        "computes" => beside_a_refused_thread(|| {
            let start = Instant::now();
            let mut number = 1u64;
            while start.elapsed() < LONGER {
                (0..1 << 20).for_each(|_| number = std::hint::black_box(number.wrapping_mul(3)));
            }
        }),
        "sleeps" => beside_a_refused_thread(|| thread::sleep(LONGER)),
        "barrier" => waits_for_a_refused_thread(|| {
            barrier.wait();
        }),
        // As ripgrep's threads do while others may have work for them.
        "polls" => waits_for_a_refused_thread(|| {
            loop {
                thread::sleep(Duration::from_millis(1));
            }
        }),
        _ => unreachable!("no such role"),
    }
}

/// Its panic is caught, and the thread waits for one that works.
fn beside_a_refused_thread(work: impl Fn() + Sync) {
    thread::scope(|scope| {
        scope.spawn(&work);
        let refused = catch_unwind(AssertUnwindSafe(|| thread::scope(start_too_large)));
        assert!(refused.is_err());
    });
    print!("{RIGHT}");
}

/// The scope waits for those that were started, and they for one that was not.
fn waits_for_a_refused_thread(wait: impl Fn() + Sync) {
    thread::scope(|scope| {
        scope.spawn(&wait);
        start_too_large(scope);
    });
}

fn start_too_large<'scope>(scope: &'scope thread::Scope<'scope, '_>) {
    let larger_than_the_limit = thread::Builder::new().stack_size(128 << 20);
    larger_than_the_limit.spawn_scoped(scope, || {}).expect("failed to spawn thread");
}
