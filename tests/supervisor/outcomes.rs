//! From a death to its name.

use super::{add, limit, role, shell};
use libtest_mimic::Trial;
use oomguard::contract::{Cause, Evidence, REPORT_KEYS};
use oomguard::supervisor::{Outcome, Retry, Sufficient, Worker};
use oomguard::{LimitSource, Measure};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "every_exit_code_is_its_own", every_exit_code_is_its_own);
    add(trials, "every_fatal_signal_is_named", every_fatal_signal_is_named);
    add(trials, "a_guarded_worker_that_runs_out_leaves_a_report", a_guarded_worker_leaves_a_report);
    add(trials, "names_that_a_terminal_would_obey_are_shown_and_not_obeyed", names_are_not_obeyed);
    add(trials, "an_exit_code_of_the_users_own_means_the_same", an_exit_code_of_the_users_own);
    add(trials, "198_without_a_record_is_only_a_number", a_bare_198_is_only_a_number);
    add(trials, "a_refusal_that_was_handled_is_no_exhaustion", a_handled_refusal_is_no_exhaustion);
    add(trials, "a_record_full_of_garbage_misleads_nobody", garbage_misleads_nobody);
    add(trials, "a_worker_that_was_killed_can_still_be_looked_at", a_killed_worker_can_be_looked_at);
    add(trials, "a_wrapper_that_passes_the_code_on_is_believed", a_wrapper_is_believed);
    add(trials, "a_forked_child_speaks_for_itself", a_forked_child_speaks_for_itself);
    add(trials, "a_program_that_is_not_there_is_an_error", a_missing_program_is_an_error);
    add(trials, "on_evidence_that_does_not_suffice_a_guard_lets_its_program_go", on_less_its_own_way);
    add(trials, "a_retry_grows_until_it_is_enough", a_retry_grows_until_it_is_enough);
    add(trials, "a_retry_stops_at_its_ceiling", a_retry_stops_at_its_ceiling);
    add(trials, "other_failures_are_not_tried_again", other_failures_are_not_tried_again);
}

fn on_less_its_own_way() {
    let ended = |arguments: &[&str], sufficient| {
        let mut command = role(arguments);
        command.stderr(Stdio::piped());
        Worker::new(command).limit(limit("256MiB")).sufficient(sufficient).run_to_end().unwrap()
    };
    let (said, exact) = (ended(&["unwrap"], Sufficient::Likely), ended(&["unwrap"], Sufficient::Exact));
    let Outcome::OutOfMemory(report) = &said.outcome else { panic!("{said}") };
    assert_eq!(report.evidence(), Some(Evidence::Said), "{report}");
    assert!(matches!(exact.outcome, Outcome::Exited(101)), "{exact}");
    let stderr = String::from_utf8(exact.stderr).unwrap();
    assert!(stderr.contains("panicked at") && !stderr.contains("oomguard: out of memory"), "{stderr}");
    let doubtful = exact.doubtful.unwrap();
    assert_eq!((doubtful.evidence(), doubtful.own_exit_code()), (Some(Evidence::Said), Some(101)));
    assert!(ended(&["eat"], Sufficient::Exact).outcome.is_memory());
    let handled = ended(&["cope"], Sufficient::Exact);
    assert!(matches!(handled.outcome, Outcome::Exited(3)) && handled.doubtful.is_none(), "{handled}");
}

fn every_exit_code_is_its_own() {
    for code in 0..=255 {
        let outcome = Worker::new(shell(&format!("exit {code}"))).limit(limit("1GiB")).run().unwrap();
        match (code, outcome) {
            (0, Outcome::Success) => {}
            (code, Outcome::Exited(got)) if got == code => {}
            (code, other) => panic!("{code}: {other}"),
        }
    }
}

fn every_fatal_signal_is_named() {
    for (signal, name) in [(6, "SIGABRT"), (9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM")] {
        let outcome = Worker::new(shell(&format!("kill -{signal} $$"))).run().unwrap();
        assert!(matches!(outcome, Outcome::Signaled(got) if got == signal), "{outcome}");
        assert!(outcome.to_string().contains(name), "{outcome}");
    }
}

fn out_of_memory(worker: &mut Worker) -> oomguard::supervisor::Report {
    match worker.run().unwrap() {
        Outcome::OutOfMemory(report) => report,
        other => panic!("{other}"),
    }
}

fn a_guarded_worker_leaves_a_report() {
    for measure in [Measure::AddressSpace, Measure::Data] {
        let mut command = role(&["eat"]);
        command.stderr(Stdio::piped());
        let mut worker = Worker::new(command).limit(limit("64MiB")).measure(measure).token("tock");
        let report = out_of_memory(&mut worker);
        assert_eq!((report.cause(), report.exit_code()), (Cause::Heap, 198));
        assert_eq!((report.limit(), report.measure()), (Some(64 << 20), measure));
        assert_eq!(report.limit_source(), Some(LimitSource::Environment));
        assert_eq!(report.token().as_deref(), Some("tock"));
        assert!(report.requested().is_some_and(|bytes| bytes >= 1 << 20), "{report:?}");
        assert!(report.refusals() >= 1);
        assert_eq!(report.evidence(), Some(Evidence::Exact));
        assert_eq!((report.own_exit_code(), report.own_signal()), (None, Some(6)));

        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        let object = json.as_object().unwrap();
        assert_eq!(object.len(), REPORT_KEYS.len());
        assert_eq!(json["pid"], report.pid());
        assert_eq!(json["measure"], measure.report_word());

        // The lines are the very ones that the worker wrote.
        let ended = worker.run_to_end().unwrap();
        let Outcome::OutOfMemory(report) = &ended.outcome else { panic!("{ended}") };
        let said = String::from_utf8(ended.stderr.clone()).unwrap();
        assert_eq!(said.trim_end(), report.to_string());
        assert!(ended.resident_peak > 10 << 20);
    }
}

/// U+009B begins a control sequence in one character, as ESC and `[` do in two.
fn names_are_not_obeyed() {
    let obeyed = |text: &str| text.chars().find(|character| character.is_control() && *character != '\n');
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    let mut command = role(&["eat-as", "\u{9b}31mX\u{7f}"]);
    command.arg0("/tmp/\u{9b}2Jprogram\x1b[1m").env("OOMGUARD_REPORT", &file).stderr(Stdio::piped());
    let ended = Worker::new(command).limit(limit("64MiB")).token("\u{9b}7").run_to_end().unwrap();
    let Outcome::OutOfMemory(report) = &ended.outcome else { panic!("{ended}") };
    assert_eq!((&*report.thread(), &*report.program()), ("\u{9b}31mX\u{7f}", "\u{9b}2Jprogram\x1b[1m"));
    let told = [
        ("stderr", String::from_utf8(ended.stderr.clone()).unwrap()),
        ("the report's file", std::fs::read_to_string(&file).unwrap()),
        ("the report", report.to_string()),
        ("the report's record", report.to_json()),
        ("the outcome", ended.outcome.to_string()),
        ("the end", ended.to_string()),
        ("the end for programmers", format!("{ended:?}")),
    ];
    for (what, text) in &told {
        assert_eq!(obeyed(text), None, "{what}: {text:?}");
    }
    assert!(told[0].1.contains("?2Jprogram?[1m (pid ") && told[0].1.contains("in thread ?31mX? ("));
    let json: serde_json::Value = serde_json::from_str(&told[1].1).unwrap();
    assert_eq!(json["thread"], "\u{9b}31mX\u{7f}");
    assert_eq!(json["token"], "\u{9b}7");
}

fn an_exit_code_of_the_users_own() {
    let report = out_of_memory(&mut Worker::new(role(&["eat"])).limit(limit("64MiB")).exit_code(77).quiet());
    assert_eq!(report.exit_code(), 77);
}

fn a_bare_198_is_only_a_number() {
    for command in [role(&["exit", "198"]), shell("exit 198")] {
        let outcome = Worker::new(command).limit(limit("1GiB")).run().unwrap();
        assert!(matches!(outcome, Outcome::Exited(198)), "{outcome}");
        assert!(outcome.to_string().contains("no record"), "{outcome}");
    }
}

fn a_handled_refusal_is_no_exhaustion() {
    let ended = Worker::new(role(&["cope"])).limit(limit("64MiB")).run_to_end().unwrap();
    assert!(matches!(ended.outcome, Outcome::Exited(3)), "{ended}");
    let look = ended.last_look.unwrap();
    assert_eq!((look.refusals(), look.last_refused()), (1, Some(1 << 40)));
}

fn garbage_misleads_nobody() {
    // An unguarded child finds the page under the number in its environment.
    let scribble = "fd=${OOMGUARD_RECORD#fd:}; dd if=/dev/urandom of=/proc/$$/fd/${fd%:*} bs=4096 count=1 conv=notrunc 2>&1; \
                    exit 198";
    let mut command = shell(scribble);
    command.stdout(Stdio::piped());
    let ended = Worker::new(command).run_to_end().unwrap();
    assert!(String::from_utf8_lossy(&ended.stdout).contains("4096 bytes"), "{ended:?}");
    assert!(matches!(ended.outcome, Outcome::Exited(198)), "{ended}");

    // Nor can it take the page away, or make it larger.
    let resize = "fd=${OOMGUARD_RECORD#fd:}; fd=${fd%:*}; truncate -s 0 /proc/$$/fd/$fd 2>/dev/null && exit 1; \
                  truncate -s 1M /proc/$$/fd/$fd 2>/dev/null && exit 2; exit 0";
    let outcome = Worker::new(shell(resize)).run().unwrap();
    assert!(outcome.is_success(), "{outcome}");
}

fn a_killed_worker_can_be_looked_at() {
    let mut command = role(&["look"]);
    command.stdout(Stdio::piped());
    let mut running = Worker::new(command).limit(limit("256MiB")).measure(Measure::Data).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(running.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line.trim(), "ready");
    assert!(running.look().is_some_and(|look| look.in_use() > Some(20 << 20)), "{running:?}");
    let killed = Command::new("/bin/kill").args(["-9", &running.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = running.wait_to_end().unwrap();
    assert!(matches!(ended.outcome, Outcome::Signaled(9)), "{ended}");
    let look = ended.last_look.unwrap();
    assert_eq!((look.limit(), look.measure(), look.pid()), (Some(256 << 20), Measure::Data, ended.pid));
    assert!(look.in_use().is_some_and(|bytes| bytes > 20 << 20), "{look:?}");
    assert!(look.resident_peak().is_some_and(|bytes| bytes > 20 << 20), "{look:?}");
}

fn a_wrapper_is_believed() {
    let mut command = shell("\"$0\" role eat; exit $?");
    command.arg(std::env::current_exe().unwrap());
    let ended = Worker::new(command).limit(limit("64MiB")).quiet().run_to_end().unwrap();
    let Outcome::OutOfMemory(report) = &ended.outcome else { panic!("{ended}") };
    assert_ne!(report.pid(), ended.pid);
}

fn a_forked_child_speaks_for_itself() {
    let ended = Worker::new(role(&["fork"])).limit(limit("64MiB")).quiet().run_to_end().unwrap();
    let Outcome::OutOfMemory(report) = &ended.outcome else { panic!("{ended}") };
    assert_ne!(report.pid(), ended.pid);
    let look = ended.last_look.unwrap();
    assert_eq!((look.pid(), look.had_run_out(), look.refusals()), (ended.pid, false, 0), "{look:?}");
}

fn a_missing_program_is_an_error() {
    let error = Worker::new(Command::new("/no/such/program")).run().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

fn a_retry_grows_until_it_is_enough() {
    let mut command = role(&["need", "100"]);
    command.stdout(Stdio::piped());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&seen);
    let retry = Retry::grow(2.0)
        .up_to(limit("1GiB"))
        .between(move |ended| hook.lock().unwrap().push((ended.tries, ended.limit)));
    let ended = Worker::new(command).limit(limit("40MiB")).retry(retry).quiet().run_to_end().unwrap();
    assert!(ended.outcome.is_success(), "{ended}");
    assert_eq!((ended.tries, ended.limit), (3, Some(160 << 20)));
    assert_eq!(*seen.lock().unwrap(), [(1, Some(40 << 20)), (2, Some(80 << 20))]);
    assert_eq!(String::from_utf8(ended.stdout).unwrap().trim(), (0..100).sum::<u32>().to_string());
}

fn a_retry_stops_at_its_ceiling() {
    let retry = Retry::grow(2.0).up_to(limit("100MiB"));
    let ended = Worker::new(role(&["eat"])).limit(limit("40MiB")).retry(retry).quiet().run_to_end().unwrap();
    assert!(matches!(ended.outcome, Outcome::OutOfMemory(_)), "{ended}");
    assert_eq!((ended.tries, ended.limit), (3, Some(100 << 20)));
    let retry = Retry::grow(2.0).up_to(limit("1GiB")).at_most(2);
    let ended = Worker::new(role(&["eat"])).limit(limit("40MiB")).retry(retry).quiet().run_to_end().unwrap();
    assert_eq!((ended.tries, ended.limit), (2, Some(80 << 20)));
}

fn other_failures_are_not_tried_again() {
    for command in [role(&["cope"]), shell("exit 198"), shell("kill -9 $$"), shell("exit 137")] {
        let retry = Retry::grow(2.0).up_to(limit("1GiB")).between(|ended| panic!("tried again: {ended}"));
        let ended = Worker::new(command).limit(limit("64MiB")).retry(retry).run_to_end().unwrap();
        assert_eq!(ended.tries, 1, "{ended}");
    }
}
