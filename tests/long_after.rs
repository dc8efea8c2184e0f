//! A panic over memory that another thread waits for, in a process in which something else panicked long before.

mod common;

use common::child::{End, Start};
use common::report;
use libtest_mimic::{Arguments, Trial};
use std::panic::{catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

oomguard::guard!();

/// More than the time for which a panic may be why others panic.
const LONGER: Duration = Duration::from_secs(11);

fn main() {
    match std::env::var(common::ROLE) {
        Ok(role) => play(&role),
        Err(_) => {
            let trials = ["thrown on", "said"].map(|role| {
                Trial::test(format!("memory is why, after another panic that was {role}"), move || {
                    ends(role);
                    Ok(())
                })
            });
            let mut arguments = Arguments::from_args();
            // They wait, and need no processor for that.
            arguments.test_threads.get_or_insert(2);
            libtest_mimic::run(&arguments, trials.into()).exit();
        }
    }
}

fn ends(role: &str) {
    let remains = Start::role(role).env("OOMGUARD_LIMIT", "96Mi").run().expect("a child");
    assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
    let report = report::read(remains.report.as_deref().unwrap_or("(no file)")).expect("a report");
    assert_eq!(report["cause"], "heap", "{remains:#?}");
}

fn play(role: &str) {
    let other = || if role == "said" { panic!("no row 7") } else { resume_unwind(Box::new(7)) };
    assert!(Vec::<u8>::new().try_reserve(160 << 20).is_err());
    assert!(catch_unwind(other).is_err());
    thread::sleep(LONGER);
    let reader = || Vec::<u8>::new().try_reserve(160 << 20).unwrap();
    thread::spawn(reader).join().unwrap();
}
