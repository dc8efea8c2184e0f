//! Threads: those that cannot be started, and those that fail at once.

use super::judge::LARGE_STACK_BYTES;
use super::{ABORTED, OUT_OF_EITHER, OUT_OF_THREADS, Role, Setting, fill};
use crate::common::BROKEN_ROLE;
use std::hint::black_box;
use std::process::exit;
use std::sync::{Arc, Barrier};
use std::thread;

/// Less than a thread's stack under `LargeStacks`, and plenty for a panic with a backtrace: std reads this binary's
/// debug information for that, which took 50 MiB of address space.
const NO_ROOM_FOR_A_STACK: usize = LARGE_STACK_BYTES / 2;

const LARGE_STACKS: Setting = Setting::LargeStacks;
/// Several such stacks.
const ROOMY: &str = "1024Mi";

pub const ROLES: &[Role] = &[
    Role::new("thread::spawn is refused in main", OUT_OF_THREADS, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        thread::spawn(|| {});
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread"),
    Role::new("thread::spawn is refused in a worker that main joins", OUT_OF_THREADS, || {
        let worker = || {
            fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
            thread::spawn(|| {});
        };
        thread::spawn(worker).join().unwrap();
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread"),
    Role::new("a scoped thread is refused", OUT_OF_THREADS, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        thread::scope(|scope| {
            scope.spawn(|| {});
        });
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread"),
    Role::new("scoped threads wait at a barrier for one that was refused", OUT_OF_EITHER, || {
        let barrier = Barrier::new(64);
        thread::scope(|scope| {
            for _ in 0..63 {
                scope.spawn(|| barrier.wait());
            }
            barrier.wait();
        });
    })
    .limit("64Mi")
    .says("")
    .would_hang()
    .first_allocation_when_full(),
    Role::new(
        "a thread is refused while others write, and what gives up for it says so later",
        OUT_OF_THREADS,
        || {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let writer = thread::spawn(move || {
                let _ = wait.recv();
                (0..200).for_each(|row| println!("row {row}"));
            });
            fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
            if let Err(error) = thread::Builder::new().spawn(|| {}) {
                drop(go);
                let _ = writer.join();
                panic!("failed to spawn thread: {error:?}");
            }
        },
    )
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread")
    .first_allocation_when_full(),
    Role::new("a pool that cannot start all its threads says so in its own words", OUT_OF_THREADS, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        if let Err(error) = thread::Builder::new().spawn(|| {}) {
            panic!("OS can't spawn worker thread: {error}");
        }
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("OS can't spawn worker thread"),
    Role::new("a refused thread comes back as an error, which main says and exits 1", OUT_OF_THREADS, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        if let Err(error) = thread::Builder::new().spawn(|| {}) {
            eprintln!("cannot start: {error}");
            exit(1);
        }
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("cannot start"),
    Role::exits("a refused thread is handled, and later something else would block", 101, || {
        let mapped = fill::mappings_but(NO_ROOM_FOR_A_STACK);
        assert!(thread::Builder::new().spawn(|| {}).is_err());
        drop(mapped);
        super::own_fate::work();
        would_block().unwrap();
    })
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("WouldBlock"),
    Role::exits("a refused thread is handled", 0, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        if thread::Builder::new().spawn(|| {}).is_ok() {
            exit(BROKEN_ROLE);
        }
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY),
    Role::exits("a refused thread is handled, and main panics for another reason", 101, || {
        let mapped = fill::mappings_but(NO_ROOM_FOR_A_STACK);
        if thread::Builder::new().spawn(|| {}).is_ok() {
            exit(BROKEN_ROLE);
        }
        drop(mapped);
        panic!("for another reason");
    })
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("for another reason"),
    Role::exits("a refused thread's panic is caught, and the program goes on", 0, || {
        let mapped = fill::mappings_but(NO_ROOM_FOR_A_STACK);
        if std::panic::catch_unwind(|| thread::spawn(|| {})).is_ok() {
            exit(BROKEN_ROLE);
        }
        drop(mapped);
    })
    // Not caught there, it is the end.
    .where_panics_abort(OUT_OF_THREADS)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread"),
    Role::new("threads are started until one is refused", OUT_OF_EITHER, || {
        loop {
            thread::spawn(thread::park);
        }
    })
    .limit("192Mi")
    .says("")
    .first_allocation_when_full(),
    Role::new("48 threads fail at once", OUT_OF_EITHER, || crowd(48, 1 << 20)).limit("256Mi").says(""),
    Role::new("48 threads ask for too much at once", OUT_OF_EITHER, || crowd(48, fill::HUGE))
        .limit("256Mi")
        .says(""),
    Role::new("32 threads eat small pieces", OUT_OF_EITHER, || crowd(32, 4000)).limit("192Mi").says(""),
    Role::new("32 threads panic and eat", OUT_OF_EITHER, || {
        eaters(16, 64 << 10);
        loop {
            let _ = thread::spawn(|| panic!("one of many")).join();
        }
    })
    .limit("192Mi")
    .says("")
    .first_allocation_when_full()
    .needs_unwinding(),
];

fn would_block() -> std::io::Result<()> {
    Err(std::io::Error::from_raw_os_error(libc::EAGAIN))
}

/// Threads that eat all at once, and nothing else.
fn crowd(threads: usize, bytes: usize) -> ! {
    eaters(threads, bytes);
    loop {
        thread::park();
    }
}

/// Threads that eat from now on. Each has allocated before the first one begins.
pub fn eaters(threads: usize, bytes: usize) {
    let begin = Arc::new(Barrier::new(threads + 1));
    for _ in 0..threads {
        let begin = Arc::clone(&begin);
        let eat = move || {
            drop(black_box(Vec::<u8>::with_capacity(black_box(bytes.min(4096)))));
            begin.wait();
            fill::eat(bytes)
        };
        small_thread().spawn(eat).expect("room for a small thread");
    }
    begin.wait();
}

/// Smaller than usual, so that many find room; a callback may run in it, within an allocator that is built to be debugged.
fn small_thread() -> thread::Builder {
    thread::Builder::new().stack_size(128 << 10)
}
