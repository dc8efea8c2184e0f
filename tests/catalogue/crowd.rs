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
    Role::new("a thread gets no stack for its signals, and others give memory back", OUT_OF_THREADS, || {
        extern "C" fn body(nothing: *mut libc::c_void) -> *mut libc::c_void {
            // SAFETY: a mapping of its own, which nobody gets.
            let stack =
                unsafe { libc::mmap(nothing, 1 << 40, libc::PROT_READ | libc::PROT_WRITE, PRIVATE, -1, 0) };
            assert_eq!(stack, libc::MAP_FAILED);
            // As std says it, outside of all that catches.
            panic!("failed to allocate an alternative stack: {}", std::io::Error::last_os_error());
        }
        const PRIVATE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let full = fill::mappings_but(NO_ROOM_FOR_A_STACK);
        assert!(std::panic::catch_unwind(|| thread::spawn(|| {})).is_err());
        drop(full);
        let mut thread = 0;
        // SAFETY: the body takes nothing, and the thread's number is written here.
        unsafe { libc::pthread_create(&raw mut thread, std::ptr::null(), body, std::ptr::null_mut()) };
        // SAFETY: started above.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    })
    .needs_unwinding()
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("alternative stack"),
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
            let writer = running(move || {
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
    Role::new(
        "a thread is refused, and before main ends for it another one copes with a refusal and with a panic",
        OUT_OF_EITHER,
        || {
            before_main_ends(|| {
                fill::handled_refusal();
                let _ = std::panic::catch_unwind(|| panic!("for another reason"));
            });
            fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
            thread::spawn(|| {});
        },
    )
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread")
    .needs_unwinding(),
    Role::new(
        "a thread is refused, and before main ends for it another one starts a smaller one",
        OUT_OF_THREADS,
        || {
            before_main_ends(|| {
                let _ = small_thread().spawn(|| {}).expect("room for a small thread").join();
            });
            fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
            thread::spawn(|| {});
        },
    )
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread")
    .needs_unwinding(),
    Role::new("a pool that cannot start all its threads says so in its own words", OUT_OF_THREADS, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        if let Err(error) = thread::Builder::new().spawn(|| {}) {
            panic!("OS can't spawn worker thread: {error}");
        }
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("OS can't spawn worker thread"),
    #[cfg(target_env = "gnu")]
    Role::new("there is room for a thread's stack, and not for what comes with it", OUT_OF_EITHER, || {
        let result = c_thread_whose_stack_alone_fits();
        panic!("failed to spawn thread: {:?}", std::io::Error::from_raw_os_error(result));
    })
    .says("failed to spawn thread")
    .handling()
    .needs_no_arena()
    .once(),
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
    Role::new("a thread is refused, others give back what was missing, unwrap", OUT_OF_THREADS, || {
        let mapped = fill::mappings_but(NO_ROOM_FOR_A_STACK);
        let refused = thread::Builder::new().spawn(|| {});
        // As a pool does, which ends the threads that it has.
        drop(mapped);
        refused.map(drop).unwrap();
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("WouldBlock"),
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
    Role::exits("a refused thread is handled, and straight after a socket has nothing to read", 101, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        assert!(thread::Builder::new().spawn(|| {}).is_err());
        read_from_an_idle_socket().unwrap();
    })
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("WouldBlock"),
    Role::exits(
        "a refused thread is handled, and the last words are of a socket that has nothing to read",
        1,
        || {
            fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
            assert!(thread::Builder::new().spawn(|| {}).is_err());
            if let Err(error) = read_from_an_idle_socket() {
                eprintln!("cannot read: {error}");
                exit(1);
            }
        },
    )
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("cannot read: Resource temporarily unavailable"),
    Role::exits(
        "a refused thread is handled, and straight after the program itself would block",
        101,
        || {
            fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
            assert!(thread::Builder::new().spawn(|| {}).is_err());
            would_block_by_itself().unwrap();
        },
    )
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("WouldBlock"),
    Role::exits(
        "a refused thread is handled, a socket has nothing to read, and a file is not there either",
        101,
        || {
            fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
            assert!(thread::Builder::new().spawn(|| {}).is_err());
            let read = read_from_an_idle_socket();
            assert!(std::fs::metadata("/not there").is_err());
            read.unwrap();
        },
    )
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("WouldBlock"),
    Role::exits("the same, and it is said and not a panic", 1, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        assert!(thread::Builder::new().spawn(|| {}).is_err());
        let read = read_from_an_idle_socket();
        assert!(std::fs::metadata("/not there").is_err());
        if let Err(error) = read {
            eprintln!("cannot read: {error}");
            exit(1);
        }
    })
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("cannot read: Resource temporarily unavailable"),
    Role::exits("a refused thread is handled, and straight after a lock is held", 101, || {
        fill::mappings_but(NO_ROOM_FOR_A_STACK).keep();
        assert!(thread::Builder::new().spawn(|| {}).is_err());
        let lock = std::sync::Mutex::new(());
        let _held = lock.try_lock().unwrap();
        let _again = lock.try_lock().unwrap();
    })
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("WouldBlock"),
    Role::exits("a thread too many is refused while there is memory for one more", 101, || {
        /// As much as the C library keeps for the next thread.
        const KEPT_STACK_BYTES: usize = 32 << 20;
        allow_no_more_threads();
        let mapped = fill::mappings_but(KEPT_STACK_BYTES * 3 / 2);
        let refused = thread::Builder::new().stack_size(KEPT_STACK_BYTES).spawn(|| {});
        drop(mapped);
        refused.expect("failed to spawn thread");
    })
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread"),
    Role::exits(
        "a thread is refused for its stack and handled, and straight after one too many",
        101,
        || {
            allow_no_more_threads();
            let mapped = fill::mappings_but(NO_ROOM_FOR_A_STACK);
            assert!(thread::Builder::new().spawn(|| {}).is_err());
            drop(mapped);
            thread::spawn(|| {});
        },
    )
    .where_panics_abort(ABORTED)
    .setting(LARGE_STACKS)
    .limit(ROOMY)
    .says("failed to spawn thread"),
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

/// As a program says of its own queue.
fn would_block_by_itself() -> std::io::Result<()> {
    Err(std::io::ErrorKind::WouldBlock.into())
}

fn read_from_an_idle_socket() -> std::io::Result<usize> {
    let (idle, _other) = std::os::unix::net::UnixDatagram::pair()?;
    idle.set_nonblocking(true)?;
    idle.recv(&mut [0; 8])
}

/// From now on pthread_create(3) is refused for the number of threads, which does not hold for root.
fn allow_no_more_threads() {
    const NOBODY: libc::uid_t = 65534;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is readable during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const none) }, 0);
    // SAFETY: takes no pointer.
    unsafe { libc::setuid(NOBODY) };
}

/// Starts a thread in C where the C library's heap is used up, and cannot grow once the stack is there. What
/// pthread_create(3) gives.
#[cfg(target_env = "gnu")]
fn c_thread_whose_stack_alone_fits() -> i32 {
    const STACK_BYTES: usize = 2 << 20;
    /// Less than the heap grows by at once.
    const TOO_LITTLE: usize = 64 << 10;
    extern "C" fn body(nothing: *mut libc::c_void) -> *mut libc::c_void {
        nothing
    }
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: attributes of ours, initialised here.
    unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    // SAFETY: initialised above.
    unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK_BYTES) };
    // The guard page below it is no data.
    let counts_guard_page = std::env::var("OOMGUARD_MEASURE").is_ok_and(|measure| measure != "data");
    let stack_bytes = STACK_BYTES + if counts_guard_page { 4096 } else { 0 };
    fill::mappings_but(stack_bytes + TOO_LITTLE).keep();
    let room = fill::map(stack_bytes).expect("room for the stack");
    // SAFETY: takes no pointer.
    while !black_box(unsafe { libc::calloc(1, 256) }).is_null() {}
    // SAFETY: a mapping of our own, which nobody uses.
    unsafe { libc::munmap(room as *mut _, stack_bytes) };
    let mut thread = std::mem::MaybeUninit::uninit();
    // SAFETY: the thread's number is writable, the attributes are initialised, and the function lives as long as the process.
    unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), body, std::ptr::null_mut()) }
}

/// When main has said that it panics, another thread does this, and main waits for it.
fn before_main_ends(act: impl FnOnce() + Send + 'static) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let is_done = std::sync::Mutex::new(is_done);
    running(move || {
        let _ = wait.recv();
        act();
        let _ = done.send(());
    });
    let say = std::panic::take_hook();
    let main = thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        if thread::current().id() == main {
            let _ = go.send(());
            let _ = is_done.lock().map(|is_done| is_done.recv());
        }
    }));
}

/// A thread that has begun: what the two libraries allocate for its start is not refused when all is filled meanwhile.
fn running(act: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    let begun = Arc::new(Barrier::new(2));
    let here = begun.clone();
    let thread = thread::spawn(move || {
        here.wait();
        act();
    });
    begun.wait();
    thread
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
