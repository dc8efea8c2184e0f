//! What the environment and the limits that exist already make of a program whose source says nothing.
//!
//! `configuration_source` is the twin whose source says something.

mod common;
mod setup;

use common::child::{End, Remains, Start};
use common::report;
use libtest_mimic::{Arguments, Failed, Trial};
use setup::{Told, limit_of, rlimit, run, start, told};
use std::ffi::OsStr;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};

oomguard::guard!();

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(common::ROLE) {
        return setup::play(&role);
    }
    let tests: &[(&str, fn())] = &[
        ("a limit below what the process uses is told with both numbers", limit_below_use),
        ("a lower rlimit wins, soft or hard", lower_rlimit_wins),
        ("a higher rlimit loses", higher_rlimit_loses),
        ("a death by an rlimit names it", death_by_rlimit),
        ("an rlimit of the other measure is named where it is what refused", other_measure),
        ("a limit that was moved is what is told, whoever moved it", moved_limit),
        ("a limit of the other measure that was moved is told", moved_other_limit),
        ("a hook has a reserve above a limit that was raised", reserve_above_raised_limit),
        ("a hook has a reserve where the hard limit leaves none above", reserve_below_hard_limit),
        ("a hook has its time where the process is stopped meanwhile", stopped),
        ("off is no limit", off),
        ("a share is of the whole that 100% is", share),
        ("auto is what holds with nothing said", auto),
        ("the environment's exit code is left with and reported", exit_code),
        ("a token comes back as it was", token),
        ("quiet says nothing on stderr", quiet),
        ("a misspelt variable is told, and the program runs", misspelt),
        ("quiet does not hide that a process cannot be guarded", quiet_but_wrong),
        ("a report is appended", appended),
        ("no report is written where none is asked for", no_report),
        ("a descriptor that was reused gets no report", reused_descriptor),
        ("a report that cannot be written any more is told", unwritten),
        ("lines are written where no descriptor may be had, and none may be asked about", no_descriptors),
        ("a pipe that nobody reads holds nothing up where no descriptor may be asked about", unread),
        ("lines are written to a slow reader whatever signals come", interrupted),
        ("a report that a dropped privilege or another root is in the way of is told", out_of_reach),
        ("the soft limit is set and the hard one left", hard_limit_left),
        ("a program with raised privileges ignores the environment", raised_privileges),
    ];
    let mut trials: Vec<Trial> = tests
        .iter()
        .map(|(name, test)| {
            Trial::test(*name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    for (name, values) in wrong_texts() {
        for value in values {
            let shown: String = String::from_utf8_lossy(&value).chars().take(40).collect();
            trials.push(Trial::test(format!("{name}={shown:?} is refused"), move || wrong(name, &value)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Every variable, with every kind of text that is wrong for it.
fn wrong_texts() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let long = "9".repeat(5000);
    let long_path = format!("/tmp/{}", "d/".repeat(3000));
    let mut limits = texts(&[
        "",
        " ",
        "12Q",
        "-1",
        "+1",
        "0",
        "0Mi",
        "1.5",
        "1 Mi",
        "Mi",
        "120%",
        "0%",
        "AUTO",
        "auto ",
        "none",
        "1e9",
        "99999999T",
        "1Mi\n",
        "\u{1b}[31m5Mi",
        "٣Mi",
        &long,
    ]);
    limits.push(b"\xff\xfe".to_vec());
    let mut tokens = texts(&[&"x".repeat(65)]);
    tokens.push(b"\xff".to_vec());
    let plans: &[&str] =
        if cfg!(feature = "inject") { &["", "0", "x", "+", "-1", "1++"] } else { &["1", ""] };
    vec![
        ("OOMGUARD_LIMIT", limits),
        ("OOMGUARD_BUDGET", texts(&["", "x", "4g", "120%"])),
        ("OOMGUARD_PATIENCE", texts(&["", "x", "5", "-1s", "1.5s", "5 s", "forever"])),
        ("OOMGUARD_VERDICT", texts(&["", "sure", "Exact"])),
        ("OOMGUARD_MEASURE", texts(&["", "as", "Data", "address space", "data "])),
        ("OOMGUARD_EXIT_CODE", texts(&["", "0", "256", "-1", "1.0", "abc", " 5", &long])),
        ("OOMGUARD_ON_REFUSAL", texts(&["", "later", "Deferred", "immediate,"])),
        ("OOMGUARD_RESERVE", texts(&["", "5%", "auto", "off", "x", "-1", "1.5", &long])),
        (
            "OOMGUARD_REPORT",
            texts(&[
                "",
                "fd:",
                "fd:x",
                "fd:-1",
                "fd:99999999999",
                "fd:777",
                "fd:0",
                "/",
                "/tmp/",
                "no/such/directory/report",
                &long_path,
            ]),
        ),
        ("OOMGUARD_TOKEN", tokens),
        ("OOMGUARD_QUIET", texts(&["yes", "2", "true", "11"])),
        ("OOMGUARD_INJECT", texts(plans)),
    ]
}

fn wrong(name: &str, value: &[u8]) -> Result<(), Failed> {
    let remains = start("speak").env(name, OsStr::from_bytes(value)).run()?;
    let check = |holds: bool, what: &str| -> Result<(), String> {
        if holds { Ok(()) } else { Err(format!("{what}\n{remains:#?}")) }
    };
    check(remains.end() == End::Exit(125), "not 125")?;
    check(remains.stdout.is_empty(), "the program ran")?;
    check(remains.report.is_none(), "a report was begun")?;
    let line = remains.stderr.strip_suffix('\n').unwrap_or_default();
    check(line.starts_with("oomguard: cannot guard this process: "), "not our line")?;
    check(!line.chars().any(char::is_control), "not one line of plain text")?;
    check(line.contains(name), "the variable is not named")?;
    let recognisable: String = String::from_utf8_lossy(value)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(60)
        .collect();
    check(line.contains(&format!("=\"{recognisable}")), "the value is not shown")?;
    check(line.contains("; accepted: "), "the cure is not named")?;
    Ok(())
}

fn limit_below_use() {
    for (measure, limit, bytes) in [("address-space", "1Mi", "1048576 bytes"), ("data", "4Ki", "4096 bytes")]
    {
        let remains = run(start("speak").env("OOMGUARD_LIMIT", limit).env("OOMGUARD_MEASURE", measure));
        assert_eq!(remains.end(), End::Exit(125), "{remains:#?}");
        assert!(remains.stdout.is_empty(), "{remains:#?}");
        assert_eq!(remains.stderr.lines().count(), 1, "{remains:#?}");
        assert!(remains.stderr.contains(bytes), "{remains:#?}");
        let uses = remains.stderr.split("is below the ").nth(1).and_then(|rest| rest.split(' ').next());
        let uses: u64 = uses.and_then(|number| number.parse().ok()).expect("the second number");
        assert!(uses > 4096, "{remains:#?}");
        assert!(remains.stderr.contains("OOMGUARD_LIMIT"), "{remains:#?}");
    }
}

/// The measure's word and its resource.
const MEASURES: [(&str, libc::__rlimit_resource_t); 2] =
    [("address-space", libc::RLIMIT_AS), ("data", libc::RLIMIT_DATA)];

fn lower_rlimit_wins() {
    let infinite = libc::RLIM_INFINITY;
    for (measure, resource) in MEASURES {
        for (soft, hard) in [(64, infinite / MIB), (64, 64), (64, 80)] {
            let start = start("tell").env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", measure);
            let hard = if hard == infinite / MIB { infinite } else { hard * MIB };
            let told = told(&run(rlimit(start, resource, soft * MIB, hard)));
            assert_eq!(
                told,
                Told { limit: Some(64 * MIB), source: "rlimit".into(), measure: measure.into() }
            );
        }
    }
}

fn higher_rlimit_loses() {
    for (measure, resource) in MEASURES {
        let start = start("tell").env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", measure);
        let told = told(&run(rlimit(start, resource, 512 * MIB, 512 * MIB)));
        assert_eq!(
            told,
            Told { limit: Some(96 * MIB), source: "environment".into(), measure: measure.into() }
        );
    }
}

fn death_by_rlimit() {
    for (measure, resource) in MEASURES {
        let start = start("eat").env("OOMGUARD_LIMIT", "off").env("OOMGUARD_MEASURE", measure);
        let remains = run(rlimit(start, resource, 64 * MIB, 64 * MIB));
        assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
        let report = report::read(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["limit"], 64 * MIB, "{remains:#?}");
        assert_eq!(report["limit_source"], "rlimit", "{remains:#?}");
        assert_eq!(report["measure"], measure.replace('-', "_"), "{remains:#?}");
    }
}

fn other_measure() {
    for ((measure, _), (other, resource)) in [(MEASURES[0], MEASURES[1]), (MEASURES[1], MEASURES[0])] {
        let start = start("eat").env("OOMGUARD_LIMIT", "2Gi").env("OOMGUARD_MEASURE", measure);
        let remains = run(rlimit(start, resource, 64 * MIB, libc::RLIM_INFINITY));
        assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
        let report = report::read(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["limit"], 64 * MIB, "{remains:#?}");
        assert_eq!(report["limit_source"], "rlimit", "{remains:#?}");
        assert_eq!(report["measure"], other.replace('-', "_"), "{remains:#?}");
        assert!(remains.stderr.contains(&format!("of {other}, from an rlimit")), "{remains:#?}");
    }
}

fn moved_limit() {
    let lowered = Told { limit: Some(48 * MIB), source: "changed".into(), measure: String::new() };
    for (measure, _) in MEASURES {
        let start = |role: &str| start(role).env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", measure);
        let measure = measure.to_owned();
        assert_eq!(
            told(&run(start("tell a lower limit"))),
            Told { measure: measure.clone(), ..lowered.clone() }
        );
        let none = Told { limit: None, source: "-".into(), measure: measure.clone() };
        assert_eq!(told(&run(start("tell no limit"))), none);
        for (role, limit) in
            [("lower, eat", 48), ("lower for good, eat", 48), ("be lowered, eat", 48), ("raise, eat", 160)]
        {
            let remains = run(start(role));
            assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
            let report = report::read(remains.report.as_deref().unwrap()).unwrap();
            assert_eq!(report["limit"], limit * MIB, "{remains:#?}");
            assert_eq!(report["limit_source"], "changed", "{remains:#?}");
            let named =
                format!("limit: {limit} MiB ({} bytes) of {measure}, moved since the start", limit * MIB);
            assert!(remains.stderr.contains(&named), "{remains:#?}");
            let in_use = report[&measure.replace('-', "_")].as_u64().unwrap();
            assert!(in_use > (limit - 8) * MIB && in_use <= limit * MIB, "{remains:#?}");
        }
    }
    // One that came only after the start.
    let remains = run(start("lower, eat").env("OOMGUARD_LIMIT", "off"));
    let report = report::read(remains.report.as_deref().unwrap()).unwrap();
    assert_eq!((&report["limit"], &report["limit_source"]), (&(48 * MIB).into(), &"changed".into()));
}

fn moved_other_limit() {
    for ((measure, _), (other, _)) in [(MEASURES[0], MEASURES[1]), (MEASURES[1], MEASURES[0])] {
        let start =
            start("lower the other, eat").env("OOMGUARD_LIMIT", "2Gi").env("OOMGUARD_MEASURE", measure);
        let remains = run(start);
        assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
        let report = report::read(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["limit"], 64 * MIB, "{remains:#?}");
        assert_eq!(report["limit_source"], "changed", "{remains:#?}");
        assert_eq!(report["measure"], other.replace('-', "_"), "{remains:#?}");
    }
}

fn reserve_above_raised_limit() {
    for (measure, _) in MEASURES {
        let start = start("raise, speak last").env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", measure);
        let remains = run(start);
        assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
        assert_eq!(remains.stdout, "last words", "{remains:#?}");
        let report = report::read(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["limit"], 160 * MIB, "{remains:#?}");
    }
}

fn reserve_below_hard_limit() {
    for (measure, resource) in MEASURES {
        let start = start("speak last").env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", measure);
        let remains = run(rlimit(start, resource, 96 * MIB, 96 * MIB));
        assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
        assert_eq!(remains.stdout, "last words", "{remains:#?}");
    }
}

fn stopped() {
    let remains = run(start("be stopped, speak last").env("OOMGUARD_LIMIT", "64Mi"));
    assert_eq!((remains.end(), &*remains.stdout), (End::Exit(198), "last words"), "{remains:#?}");
}

fn off() {
    let told = told(&run(start("tell").env("OOMGUARD_LIMIT", "off")));
    assert_eq!(told, Told { limit: None, source: "-".into(), measure: "address-space".into() });
    // What the machine itself refuses is still an end in order.
    let remains = run(start("ask for too much").env("OOMGUARD_LIMIT", "off"));
    assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
    let report = report::read(remains.report.as_deref().unwrap()).unwrap();
    assert!(report["limit"].is_null() && report["limit_source"].is_null(), "{remains:#?}");
}

fn share() {
    let of = |share: &str| limit_of(&run(start("tell").env("OOMGUARD_LIMIT", share)));
    let whole = of("100%").expect("a machine has memory");
    assert_eq!(of("50%"), Some(whole / 2));
    assert_eq!(of("12.5%"), Some(whole / 8));
    let told = told(&run(start("tell").env("OOMGUARD_LIMIT", "50%")));
    assert_eq!(told.source, "environment");
}

fn auto() {
    let said = told(&run(start("tell").env("OOMGUARD_LIMIT", "auto")));
    let unsaid = told(&run(start("tell")));
    assert_eq!(said, unsaid);
    assert!(["cgroup", "rlimit", "-"].contains(&said.source.as_str()), "{said:?}");
}

fn exit_code() {
    for code in [1, 77, 125, 255] {
        let remains = run(dies().env("OOMGUARD_EXIT_CODE", code.to_string()));
        assert_eq!(remains.end(), End::Exit(code), "{remains:#?}");
        let report = report::read(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["exit_code"], code, "{remains:#?}");
        assert!(remains.stderr.contains(&format!("exit code {code}\n")), "{remains:#?}");
    }
}

fn dies() -> Start {
    start("ask for too much").env("OOMGUARD_LIMIT", "64Mi")
}

fn token() {
    for token in ["", "a", "quote \" back \\ slash", "größer\t", &"x".repeat(64), &"\u{1}".repeat(64)] {
        let remains = run(dies().env("OOMGUARD_TOKEN", token));
        let report = report::read(remains.report.as_deref().unwrap()).unwrap();
        assert_eq!(report["token"], token, "{remains:#?}");
    }
    let remains = run(dies());
    let report = report::read(remains.report.as_deref().unwrap()).unwrap();
    assert!(report["token"].is_null(), "{remains:#?}");
}

fn quiet() {
    for (value, lines) in [("1", 0), ("0", 5), ("", 5)] {
        let remains = run(dies().env("OOMGUARD_QUIET", value));
        assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
        assert_eq!(remains.stderr.lines().count(), lines, "{remains:#?}");
        report::read(remains.report.as_deref().unwrap()).unwrap();
    }
}

fn misspelt() {
    let line = "oomguard: there is no variable OOMGUARD_LIMITS; did you mean OOMGUARD_LIMIT?\n";
    for (quiet, stderr) in [("0", line), ("1", "")] {
        let start = start("speak").env("OOMGUARD_LIMITS", "1Gi").env("OOMGUARD_QUIET", quiet);
        let remains = run(start.env("OOMGUARD_SOMETHING_ELSE", "1"));
        assert_eq!((remains.end(), &*remains.stdout), (End::Exit(0), "spoken\n"), "{remains:#?}");
        assert_eq!(remains.stderr, stderr);
    }
}

fn quiet_but_wrong() {
    let remains = run(start("speak").env("OOMGUARD_QUIET", "1").env("OOMGUARD_LIMIT", "nonsense"));
    assert_eq!(remains.end(), End::Exit(125), "{remains:#?}");
    assert_eq!(remains.stderr.lines().count(), 1, "{remains:#?}");
}

fn appended() {
    let start = dies();
    std::fs::write(start.directory.path().join("report"), "before\n").unwrap();
    let remains = run(start);
    let content = remains.report.as_deref().unwrap();
    report::read(content.strip_prefix("before\n").expect("what was there is kept")).unwrap();
}

fn no_report() {
    let mut start = dies();
    start.command.env_remove("OOMGUARD_REPORT");
    let remains = run(start);
    assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
    assert_eq!(remains.report, None);
}

fn reused_descriptor() {
    // Standard output, which the role closes and opens again as another file.
    let remains = run(start("reuse stdout").env("OOMGUARD_LIMIT", "64Mi").env("OOMGUARD_REPORT", "fd:1"));
    assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
    assert_eq!((remains.stdout.as_str(), remains.report.as_deref()), ("", Some("")), "{remains:#?}");
    assert_unwritten(&remains, "fd:1: not the file any more");
}

/// A death whose report was not written, and that says where and why in one of its lines.
fn assert_unwritten(remains: &Remains, what: &str) {
    assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
    assert!(remains.stderr.starts_with("oomguard: out of memory: "), "{remains:#?}");
    let told = format!("oomguard:   report: not written to {what}");
    assert_eq!(remains.stderr.matches(&told).count(), 1, "{remains:#?}");
    assert!(remains.stderr.lines().count() <= 6 && remains.stderr.ends_with('\n'), "{remains:#?}");
}

fn unwritten() {
    let remains = run(dies().env("OOMGUARD_REPORT", "/dev/full"));
    assert_unwritten(&remains, "/dev/full: no space left (errno 28)");
    // As long as a path can be: it is cut, and the lines are not.
    let start = start("lose directory").env("OOMGUARD_LIMIT", "64Mi");
    let directory = start.directory.path().join("reports");
    let deep = directory.join(format!("{}/x", "d".repeat(250)).repeat(9));
    std::fs::create_dir_all(&deep).unwrap();
    let remains = run(start.env("OOMGUARD_REPORT", deep.join("report")));
    assert_unwritten(&remains, "…");
    assert!(remains.stderr.contains("dd/x/report: no such directory any more (errno 2)\n"), "{remains:#?}");
    // What is written is not told of.
    let remains = run(dies());
    assert!(!remains.stderr.contains("report:"), "{remains:#?}");
}

fn no_descriptors() {
    let start = start("lose descriptors").env("OOMGUARD_LIMIT", "64Mi");
    let path = start.directory.path().join("report");
    assert_unwritten(&run(start), &format!("{}: too many open files (errno 24)", path.display()));
}

fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: takes no pointer.
    let bytes = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) } as usize;
    writer.write_all(&vec![b' '; bytes]).unwrap();
    (reader, writer)
}

fn unread() {
    let (_unread, full) = full_pipe();
    let Start { mut command, directory: _there } =
        start("lose descriptors, speak last").env("OOMGUARD_LIMIT", "64Mi");
    let ended = command.stdout(Stdio::piped()).stderr(full).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(198), &b"last words"[..]));
}

fn interrupted() {
    let (mut reader, writer) = full_pipe();
    let (mut signals, told) = std::io::pipe().unwrap();
    let Start { mut command, directory: _there } = start("be interrupted").env("OOMGUARD_LIMIT", "64Mi");
    let mut child = command.stdout(told).stderr(writer).spawn().unwrap();
    // Its ends of the pipes are closed here, so that both end with it.
    drop(command);
    signals.read_exact(&mut [0]).unwrap();
    for _ in 0..10 {
        while is_awake(child.id()) {
            std::thread::yield_now();
        }
        // SAFETY: takes no pointer; nobody has waited for the child yet.
        unsafe { libc::kill(child.id().cast_signed(), libc::SIGUSR1) };
        signals.read_exact(&mut [0]).expect("it goes on waiting for the reader");
    }
    let mut lines = String::new();
    reader.read_to_string(&mut lines).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(198));
    assert!(lines.ends_with("exit code 198\n"), "{:?}", lines.trim());
}

/// Whether it runs, by proc_pid_stat(5); what has ended sleeps.
fn is_awake(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
}

fn out_of_reach() {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        common::skip::skipped("only root can give up its privileges, or its root");
        return;
    }
    for (role, why) in [("lose privileges", "permission denied (errno 13)"), ("lose root", "no such")] {
        let start = start(role).env("OOMGUARD_LIMIT", "64Mi");
        let path = start.directory.path().join("report");
        std::fs::set_permissions(start.directory.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert_unwritten(&run(start), &format!("{}: {why}", path.display()));
    }
}

fn hard_limit_left() {
    for (measure, resource) in MEASURES {
        let start = start("tell rlimits").env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", measure);
        let remains = run(rlimit(start, resource, 128 * MIB, 256 * MIB));
        let expected = format!("{measure} {} {}", 96 * MIB, 256 * MIB);
        assert!(remains.stdout.lines().any(|line| line == expected), "{remains:#?}");
    }
}

fn raised_privileges() {
    const NOBODY: u32 = 65534;
    const OWNER: u32 = 12345;
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        common::skip::skipped("only root can make a set-user-ID program of another user's");
        return;
    }
    let run_with_mode = |mode: u32| -> Option<Remains> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = directory.path().join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::os::unix::fs::chown(&program, Some(OWNER), None).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
        if is_nosuid(directory.path()) {
            let below = directory.path().parent().unwrap();
            common::skip::skipped(format!("{} is mounted nosuid", below.display()));
            return None;
        }
        let mut start = Start::program(program, "speak").env("OOMGUARD_LIMIT", "nonsense");
        std::fs::set_permissions(start.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        start.command.uid(NOBODY).gid(NOBODY);
        Some(run(start))
    };
    let Some(raised) = run_with_mode(0o4755) else { return };
    assert_eq!((raised.end(), raised.stdout.as_str()), (End::Exit(0), "spoken\n"), "{raised:#?}");
    // The twin that has no more rights than its caller.
    let plain = run_with_mode(0o755).unwrap();
    assert_eq!(plain.end(), End::Exit(125), "{plain:#?}");
}

fn is_nosuid(path: &std::path::Path) -> bool {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: all-zero is a valid `statvfs`, a struct of integers.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string, and `found` is writable during the call.
    unsafe { libc::statvfs(path.as_ptr(), &raw mut found) };
    found.f_flag & libc::ST_NOSUID != 0
}
