//! An allocator that cannot live under the limit is told at the start, and not by a death in the first allocation.

mod common;

use common::child::{End, Remains, Start};
use libtest_mimic::{Arguments, Trial};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_int};
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::OnceLock;

// No limit of the runner's own.
oomguard::guard!(limit = "off", allocator = Reserving);

/// Reserves memory at its first allocation, as snmalloc, mimalloc and others do, and takes its blocks elsewhere.
struct Reserving;

#[derive(Clone, Copy, PartialEq)]
enum Begun {
    Works,
    Fails,
}

/// How it is to start, by the role's name.
fn role_is(name: &CStr) -> bool {
    // SAFETY: two C strings; the environment is there before any constructor runs.
    let value = unsafe { libc::getenv(c"OOMGUARD_TEST_ROLE".as_ptr()) };
    if value.is_null() {
        return false;
    }
    // SAFETY: a C string of the environment's.
    unsafe { CStr::from_ptr(value) }.to_bytes().starts_with(name.to_bytes())
}

fn reserve(bytes: usize, protection: c_int) -> Begun {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping at no address in particular takes the place of nothing.
    let start = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { Begun::Fails } else { Begun::Works }
}

fn start() -> Begun {
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    if role_is(c"modest") {
        reserve(16 << 20, writable)
    } else if role_is(c"reserving") {
        reserve(256 << 30, libc::PROT_NONE)
    } else if role_is(c"greedy") {
        reserve(256 << 30, writable)
    } else if role_is(c"aborting") {
        let started = reserve(256 << 30, writable);
        if started == Begun::Fails {
            // SAFETY: takes nothing.
            unsafe { libc::abort() }
        }
        started
    } else {
        Begun::Works
    }
}

// SAFETY: the system's blocks, or null.
unsafe impl GlobalAlloc for Reserving {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        static STARTED: OnceLock<Begun> = OnceLock::new();
        match *STARTED.get_or_init(start) {
            // SAFETY: the caller's contract is the same.
            Begun::Works => unsafe { System.alloc(layout) },
            Begun::Fails => null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: from `System` with the same layout.
        unsafe { System.dealloc(block, layout) }
    }
}

fn main() -> ExitCode {
    if std::env::var_os(common::ROLE).is_some() {
        println!("ran");
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 3] = [
        ("an allocator that gets nothing is told, with the limit", told),
        ("one that only reserves lives under a limit on data", lives),
        ("without a limit nothing is tried, and nothing is told", unlimited),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn run(role: &str, limit: &str, measure: &str, on_refusal: &str) -> Remains {
    Start::role(role)
        .env("OOMGUARD_LIMIT", limit)
        .env("OOMGUARD_MEASURE", measure)
        .env("OOMGUARD_ON_REFUSAL", on_refusal)
        .run()
        .expect("a child")
}

fn told() {
    for on_refusal in ["deferred", "immediate"] {
        for (role, measure, cure) in [
            ("greedy", "address-space", "OOMGUARD_MEASURE=data"),
            ("greedy", "data", "use a larger OOMGUARD_LIMIT"),
            ("aborting", "address-space", "OOMGUARD_MEASURE=data"),
            ("aborting", "data", "use a larger OOMGUARD_LIMIT"),
            ("reserving", "address-space", "OOMGUARD_MEASURE=data"),
        ] {
            let remains = run(role, "512Mi", measure, on_refusal);
            assert_eq!((remains.end(), remains.stdout.as_str()), (End::Exit(125), ""), "{remains:#?}");
            assert!(remains.stderr.starts_with("oomguard: cannot guard this process: "), "{remains:#?}");
            assert_eq!(remains.stderr.lines().count(), 1, "{remains:#?}");
            for part in [&format!("536870912 bytes (512 MiB) of {measure}"), "allocator", cure] {
                assert!(remains.stderr.contains(part), "{part} is missing: {remains:#?}");
            }
            assert!(remains.report.is_none(), "{remains:#?}");
        }
    }
}

fn runs(remains: &Remains) {
    assert_eq!((remains.end(), remains.stdout.as_str()), (End::Exit(0), "ran\n"), "{remains:#?}");
    assert_eq!(remains.stderr, "", "{remains:#?}");
}

fn lives() {
    for (role, measure) in [("reserving", "data"), ("modest", "data"), ("modest", "address-space")] {
        runs(&run(role, "96Mi", measure, "immediate"));
    }
}

fn unlimited() {
    for role in ["greedy", "aborting", "reserving"] {
        runs(&run(role, "off", "address-space", "deferred"));
    }
}
