//! The measure `resident` in a Rust program without a parent that looks: what is refused, and what a look from within finds.

mod common;
mod setup;

use common::child::{End, Remains};
use libtest_mimic::{Arguments, Trial};
use oomguard::LimitSource;
use oomguard::supervisor::{Outcome, SharedBudget, Worker};
use setup::{rlimit, run, start};
use std::ffi::CString;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Duration;

oomguard::guard!(limit = "64MiB", measure = resident);

const MIB: usize = 1 << 20;

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(common::ROLE) {
        return play(&role);
    }
    let tests: &[(&str, fn())] = &[
        ("what is mapped and not used is granted", untouched),
        ("what is used is refused at the limit", refused),
        ("many threads that ask at once get what there is", threads),
        ("C code that does not check what it got, on a signal's small stack", unchecked),
        ("what was mapped and is used later ends by contract", later),
        ("shared memory counts", shared),
        ("a hook has its reserve, and no more", hook),
        ("libraries are loaded whose data is larger than the limit and untouched", libraries),
        ("an rlimit on data that was there before stays in force", lower_rlimit),
        ("in a budget the limit of the source holds, and what is taken is leased", in_a_budget),
    ];
    let trial = |(name, test): &(&str, fn())| {
        let test = *test;
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), tests.iter().map(trial).collect()).exit_code()
}

fn block(mib: usize) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    block.try_reserve_exact(mib * MIB).ok()?;
    Some(black_box(block))
}

/// A mapping that is shared with nobody, and that RLIMIT_DATA does not count.
fn use_shared(bytes: usize) {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    for offset in (0..bytes).step_by(4096) {
        let byte = at.cast::<u8>().wrapping_add(offset);
        // SAFETY: within the mapping, which is writable.
        unsafe { byte.write_volatile(1) };
    }
}

fn play(role: &str) -> ExitCode {
    match role {
        "untouched" => {
            let blocks: Vec<Vec<u8>> = (0..64).map(|_| block(32).expect("granted")).collect();
            let status = oomguard::status();
            assert_eq!((status.limit, status.measure), (Some(64 << 20), oomguard::Measure::Resident));
            assert!(status.in_use.unwrap() < 16 << 20, "{status:?}");
            println!("{}", black_box(blocks).len());
        }
        "refused" => {
            let blocks: Vec<Vec<u8>> = (0..1000).map(|n| black_box(vec![n as u8 | 1; MIB])).collect();
            println!("{}", blocks.len());
        }
        "unchecked" => {
            // SAFETY: more than the limit: it is refused.
            let block = unsafe { libc::malloc(1 << 30) }.cast::<u8>();
            // SAFETY: no page is mapped there, as with any program that does not check.
            unsafe { black_box(block).write_volatile(1) };
        }
        "libraries" => {
            let library = CString::new(std::env::var("LIBRARY").expect("the test names it")).unwrap();
            // SAFETY: a string; the library's code does nothing by itself.
            let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW) };
            assert!(!handle.is_null());
            assert!(block(1024).is_none(), "what is asked for now is no library's");
            let blocks = (0..1000).map_while(|_| {
                let mut block = block(1)?;
                block.resize(MIB, 1);
                Some(black_box(block))
            });
            println!("{}", blocks.collect::<Vec<_>>().len());
        }
        // All of them are granted: they use nothing.
        "threads" => {
            let granted = |_| {
                std::thread::spawn(|| {
                    (0..50).all(|_| block(16).is_some_and(|block| black_box(block).is_empty()))
                })
            };
            let threads: Vec<_> = (0..8).map(granted).collect();
            println!("{}", threads.into_iter().all(|thread| thread.join().unwrap()));
        }
        "later" => {
            let mut blocks: Vec<Vec<u8>> = (0..16).map(|_| block(16).expect("granted")).collect();
            for block in &mut blocks {
                block.resize(16 * MIB, 1);
            }
            wait(black_box(blocks).len());
        }
        "hook" => {
            oomguard::on_exhausted(|| {
                let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(1 << 10);
                while let Some(mut block) = block(1).filter(|_| blocks.len() < 256) {
                    block.resize(MIB, 1);
                    blocks.push(black_box(block));
                }
                println!("{}", black_box(blocks).len());
            });
            play("refused");
        }
        "shared" => {
            use_shared(256 * MIB);
            wait(0);
        }
        _ => return ExitCode::from(common::BROKEN_ROLE as u8),
    }
    ExitCode::SUCCESS
}

/// For the end that has to come.
fn wait(number: usize) {
    std::thread::sleep(Duration::from_secs(20));
    println!("{number}");
}

fn ended_by(role: &str) -> Remains {
    let remains = run(start(role));
    assert_eq!(remains.end(), End::Exit(198), "{}", remains.stderr);
    remains
}

fn unchecked() {
    ended_by("unchecked");
}

fn untouched() {
    let remains = run(start("untouched"));
    assert_eq!((remains.end(), remains.stdout.as_str()), (End::Exit(0), "64\n"), "{}", remains.stderr);
}

fn refused() {
    let remains = ended_by("refused");
    assert!(remains.stderr.contains("could not go on without 1048576 bytes more"), "{}", remains.stderr);
    assert!(remains.stderr.contains("of resident, from the program's source"), "{}", remains.stderr);
}

/// Two that a third one needs; what each has is one byte of the file.
fn libraries() {
    let Some(compiler) = common::c::c() else { return };
    let place = tempfile::tempdir().unwrap();
    let build = |name: &str, source: &str, needs: &[&str]| {
        let (file, library) =
            (place.path().join(format!("{name}.c")), place.path().join(format!("lib{name}.so")));
        std::fs::write(&file, source).unwrap();
        let mut command = Command::new(&compiler);
        command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file).arg("-L").arg(place.path());
        command.args(needs).arg(format!("-Wl,-rpath,{}", place.path().display()));
        common::c::compile(&mut command);
        library
    };
    for name in ["one", "two"] {
        build(
            name,
            &format!("char {name}_block[200 << 20]; char *{name}(void) {{ return {name}_block; }}"),
            &[],
        );
    }
    let both = "char *one(void), *two(void); char *both(void) { return one() + (two() != 0); }";
    let library = build("both", both, &["-lone", "-ltwo"]);
    let remains = run(start("libraries").env("LIBRARY", library));
    assert_eq!(remains.end(), End::Exit(0), "{}", remains.stderr);
    let blocks: usize = remains.stdout.trim().parse().unwrap();
    assert!((48..=66).contains(&blocks), "{blocks} MiB");
}

fn threads() {
    let remains = run(start("threads"));
    assert_eq!((remains.end(), remains.stdout.as_str()), (End::Exit(0), "true\n"), "{}", remains.stderr);
}

fn later() {
    let remains = ended_by("later");
    assert!(remains.stderr.contains("went over its limit"), "{}", remains.stderr);
}

fn hook() {
    const RESERVE_MIB: usize = 4;
    let remains = ended_by("hook");
    let got: usize = remains.stdout.trim().parse().expect("the hook comes to its end");
    assert!(got > 0 && got <= 2 * RESERVE_MIB, "{got} MiB");
}

fn shared() {
    let remains = ended_by("shared");
    assert!(remains.stderr.contains("went over its limit"), "{}", remains.stderr);
}

fn lower_rlimit() {
    let remains = run(rlimit(start("untouched"), libc::RLIMIT_DATA, 256 << 20, libc::RLIM_INFINITY));
    assert_ne!(remains.end(), End::Exit(0), "{}", remains.stdout);
    let text = remains.stderr;
    assert!(
        text.contains("of data, from an rlimit that was there before") || text.contains("granted"),
        "{text}"
    );
}

fn in_a_budget() {
    let budget = SharedBudget::new("256MiB".parse().unwrap(), Duration::from_secs(1)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(common::ROLE, "refused");
    let outcome = Worker::new(command).share(budget).quiet().run().unwrap();
    let Outcome::OutOfMemory(report) = outcome else { panic!("{outcome}") };
    assert_eq!((report.limit(), report.limit_source()), (Some(64 << 20), Some(LimitSource::Source)));
    let report: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert!(report["budget_used"].as_u64().unwrap() >= 48 << 20, "{report}");
}
