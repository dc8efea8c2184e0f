//! What the source says, against the environment that overrides it and the defaults that it replaces.

mod common;
mod setup;

use common::child::End;
use common::report;
use libtest_mimic::{Arguments, Trial};
use setup::{Told, rlimit, run, start, told};
use std::process::ExitCode;

oomguard::guard!(limit = "300MiB", measure = data, exit_code = 66, reserve = "2MiB", on_refusal = immediate);

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    if let Some(role) = setup::role() {
        return setup::play(&role);
    }
    let tests: &[(&str, fn())] = &[
        ("the source's settings hold", source_holds),
        ("the environment wins over the source", environment_wins),
        ("a lower rlimit wins over the source", rlimit_wins),
    ];
    let trials = tests
        .iter()
        .map(|(name, test)| {
            Trial::test(*name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn source_holds() {
    let limit = Told { limit: Some(300 * MIB), source: "source".into(), measure: "data".into() };
    assert_eq!(told(&run(start("tell"))), limit);
    // Immediate: coping is not waited for.
    for role in ["cope", "eat"] {
        let remains = run(start(role));
        assert_eq!(remains.end(), End::Exit(66), "{remains:#?}");
        let report = report::read(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["limit_source"], "source");
        assert_eq!(report["exit_code"], 66);
        assert!(remains.stderr.contains("from the program's source"), "{remains:#?}");
    }
}

fn environment_wins() {
    let started = || {
        start("tell")
            .env("OOMGUARD_LIMIT", "200Mi")
            .env("OOMGUARD_MEASURE", "address-space")
            .env("OOMGUARD_EXIT_CODE", "67")
            .env("OOMGUARD_ON_REFUSAL", "deferred")
    };
    let limit =
        Told { limit: Some(200 * MIB), source: "environment".into(), measure: "address-space".into() };
    assert_eq!(told(&run(started())), limit);
    let coped = run(started().env(common::ROLE, "cope"));
    assert_eq!((coped.end(), coped.stdout.as_str()), (End::Exit(0), "coped\n"), "{coped:#?}");
    assert_eq!(run(started().env(common::ROLE, "eat")).end(), End::Exit(67));
    assert_eq!(told(&run(started().env("OOMGUARD_LIMIT", "off"))).limit, None);
}

fn rlimit_wins() {
    let told = told(&run(rlimit(start("tell"), libc::RLIMIT_DATA, 100 * MIB, libc::RLIM_INFINITY)));
    assert_eq!(told, Told { limit: Some(100 * MIB), source: "rlimit".into(), measure: "data".into() });
}
