//! Ends that are the program's own: not one of them may become 198, or come with a report.

use super::early::{ABORT_HANDLER_BEFORE, OWN_HANDLER_EXIT, handle};
use super::{ABORTED, Role, Setting, fill};
use crate::common::BROKEN_ROLE;
use std::hint::black_box;
use std::io::{Read, Write};
use std::process::exit;
use std::thread;

/// Room for std to read this binary's debug information while it prints a backtrace.
const ROOMY: &str = "1024Mi";

pub const ROLES: &[Role] = &[
    Role::exits("nothing special", 0, || {}).once(),
    Role::exits("the program says 7", 7, || exit(7)).once(),
    Role::exits("the program says 198 by itself", 198, || exit(198)).once(),
    Role::is_killed("a plain abort", libc::SIGABRT, || std::process::abort()),
    Role::is_killed("a plain abort of the C library's", libc::SIGABRT, || {
        // SAFETY: abort takes no pointer and does not come back.
        unsafe { libc::abort() }
    }),
    Role::is_killed("a plain abort in a thread", libc::SIGABRT, || {
        let _ = thread::spawn(|| std::process::abort()).join();
    }),
    Role::exits("a panic", 101, || panic!("as planned"))
        .where_panics_abort(ABORTED)
        .limit(ROOMY)
        .says("as planned"),
    Role::exits("a panic in a thread, handled", 0, || {
        let _ = thread::spawn(|| panic!("as planned")).join();
    })
    .where_panics_abort(ABORTED)
    .limit(ROOMY)
    .says("as planned"),
    Role::is_killed("a panic while a panic unwinds", libc::SIGABRT, || {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("a second one");
            }
        }
        let _panics = Panics;
        panic!("a first one");
    })
    .limit(ROOMY)
    .says("a second one")
    .needs_unwinding(),
    Role::is_killed("a stack overflow in main", libc::SIGABRT, || {
        black_box(without_end(1));
    })
    .says("has overflowed its stack"),
    Role::is_killed("a stack overflow in a thread", libc::SIGABRT, || {
        let _ = thread::spawn(|| black_box(without_end(1))).join();
    })
    .says("has overflowed its stack"),
    Role::is_killed("a stack overflow after a handled refusal", libc::SIGABRT, || {
        fill::handled_refusal();
        black_box(without_end(1));
    })
    .handling()
    .says("has overflowed its stack"),
    Role::is_killed("a write to null", libc::SIGSEGV, write_to_null),
    Role::is_killed("a write to null in a thread", libc::SIGSEGV, || {
        let _ = thread::spawn(write_to_null).join();
    }),
    Role::exits("a handled refusal", 0, fill::handled_refusal).handling(),
    Role::exits("a handled refusal, then the program says 3", 3, || {
        fill::handled_refusal();
        exit(3)
    })
    .handling(),
    Role::is_killed("a handled refusal, then an unrelated abort", libc::SIGABRT, || {
        fill::handled_refusal();
        std::process::abort()
    })
    .handling(),
    Role::is_killed("the heap full to the brim, then an unrelated abort", libc::SIGABRT, || {
        fill::heap().keep();
        std::process::abort()
    })
    .handling(),
    Role::is_killed("the heap full to the brim, then an unrelated abort in a thread", libc::SIGABRT, || {
        // Pipes, as waiting on a channel may allocate.
        let (mut is_ready, mut ready) = std::io::pipe().expect("a pipe");
        let (mut is_full, full) = std::io::pipe().expect("a pipe");
        let aborter = thread::spawn(move || {
            let _ = ready.write(b"!");
            let _ = is_full.read(&mut [0]);
            std::process::abort()
        });
        let _ = is_ready.read(&mut [0]);
        fill::heap().keep();
        drop(full);
        let _ = aborter.join();
    })
    .handling(),
    Role::exits("the heap filled and freed again, then a panic", 101, || {
        drop(fill::heap());
        panic!("as planned");
    })
    .where_panics_abort(ABORTED)
    .limit("256Mi")
    .handling()
    .says("as planned")
    .needs_memory_back(),
    Role::exits("a handled refusal, then a panic", 101, || {
        fill::handled_refusal();
        panic!("as planned");
    })
    .where_panics_abort(ABORTED)
    .limit(ROOMY)
    .handling()
    .says("as planned"),
    Role::exits("the heap full to the brim, then the program says 3", 3, || {
        fill::heap().keep();
        // exit may need a few bytes that are not there.
        // SAFETY: takes no pointer and does not come back.
        unsafe { libc::_exit(3) }
    })
    .handling(),
    Role::exits("the heap filled by blocks that are freed, then used again", 0, || {
        drop(fill::heap());
        drop(black_box(vec![1u8; black_box(1 << 20)]));
    })
    .handling(),
    Role::exits("the main stack grows with the address space full", 0, || {
        fill::mappings_but(64 << 10).keep();
        grow_stack(6 << 20);
    }),
    Role::exits("the main stack grows with the heap full to the brim", 0, || {
        let filled = fill::heap();
        grow_stack(6 << 20);
        // std may need a few bytes to leave.
        drop(filled);
    })
    .handling(),
    Role::exits("a refused mapping of the program's own is handled", 0, || {
        if fill::map(fill::HUGE).is_some() {
            exit(BROKEN_ROLE);
        }
    }),
    Role::is_killed("a refused mapping of the program's own, then an unrelated abort", libc::SIGABRT, || {
        if fill::map(fill::HUGE).is_some() {
            exit(BROKEN_ROLE);
        }
        std::process::abort()
    }),
    Role::exits(ABORT_HANDLER_BEFORE, OWN_HANDLER_EXIT, || std::process::abort()),
    Role::exits("a SIGABRT handler installed after ours runs for an abort", OWN_HANDLER_EXIT, || {
        handle(libc::SIGABRT);
        std::process::abort()
    }),
    Role::exits("a SIGSEGV handler of the program's own runs", OWN_HANDLER_EXIT, || {
        handle(libc::SIGSEGV);
        write_to_null();
    }),
    Role::is_killed("the program raises SIGABRT", libc::SIGABRT, || raise(libc::SIGABRT)),
    Role::is_killed("the program raises SIGABRT after a handled refusal", libc::SIGABRT, || {
        fill::handled_refusal();
        raise(libc::SIGABRT)
    })
    .handling(),
    Role::is_killed(
        "kill -ABRT from this process, with the words of a destructor on the stack",
        libc::SIGABRT,
        || {
            fill::handled_refusal();
            DROPPED.with(|_| ());
            let here = std::process::id() as i32;
            // SAFETY: takes no pointer.
            unsafe { libc::kill(here, libc::SIGABRT) };
        },
    )
    .handling(),
    Role::is_killed("kill -ABRT from another process, with the heap full to the brim", libc::SIGABRT, || {
        fill::heap().keep();
        // SAFETY: the child makes system calls only.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: takes nothing.
            let parent = unsafe { libc::getppid() };
            // SAFETY: takes no pointer.
            unsafe { libc::kill(parent, libc::SIGABRT) };
            // SAFETY: takes no pointer and does not come back.
            unsafe { libc::_exit(0) };
        }
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    })
    .handling(),
    Role::is_killed("the C library finds its heap corrupt", libc::SIGABRT, || {
        fill::handled_refusal();
        DROPPED.with(|_| ());
        let mut block = [0usize; 64];
        let inside = black_box(block.as_mut_ptr()).wrapping_add(2);
        // SAFETY: none: that it was never allocated is what this role is for.
        unsafe { libc::free(inside.cast()) };
    })
    .handling()
    .says("free(): invalid"),
    Role::is_killed("a panic in a thread of C's, after a handled refusal", libc::SIGABRT, || {
        fill::handled_refusal();
        c_thread_that_panics();
    })
    .limit(ROOMY)
    .handling()
    .says("in a callback"),
    Role::is_killed("a panic in a thread of C's, with the heap full to the brim", libc::SIGABRT, || {
        let filled = fill::heap();
        // A thread wants a stack, and a panic some memory.
        drop(filled);
        c_thread_that_panics();
    })
    .limit("256Mi")
    .handling()
    .says("in a callback")
    .needs_memory_back(),
    Role::exits("a handled refusal, work, and the code of a panic", 101, || {
        fill::handled_refusal();
        work();
        exit(101)
    })
    .handling(),
    Role::exits("a SIGABRT handler that calls the one before it goes on", OWN_HANDLER_EXIT, || {
        chain_to_abort_handler();
        raise(libc::SIGABRT);
        exit(OWN_HANDLER_EXIT);
    }),
    Role::exits("errno is kept by a line on stderr", 0, keeps_errno)
        .says("an ordinary line\nmemory allocation of \n"),
    Role::exits("errno is kept by a line on stderr after a handled refusal", 0, || {
        fill::handled_refusal();
        keeps_errno();
    })
    .handling()
    .says("an ordinary line\nmemory allocation of \n"),
    Role::is_killed("SIGTERM", libc::SIGTERM, || raise(libc::SIGTERM)).once(),
    Role::exits("a write from a bad address to stderr gives EFAULT", 0, || {
        write_from_bad_address();
    }),
    Role::exits("the same after a handled refusal", 0, || {
        fill::handled_refusal();
        write_from_bad_address();
    })
    .handling(),
    Role::exits("the same to /dev/null, which takes any address", 0, || {
        fill::handled_refusal();
        // SAFETY: nobody reads there.
        if unsafe { libc::write(libc::STDERR_FILENO, 8 as *const _, 40) } != 40 {
            exit(BROKEN_ROLE);
        }
    })
    .setting(Setting::StderrNull)
    .handling(),
    Role::exits("a line on stderr after a handled refusal arrives as it is", 0, || {
        fill::handled_refusal();
        eprintln!("memory allocation of nothing at all");
    })
    .handling()
    .says("memory allocation of nothing at all\n"),
];

struct Dropped(u64);

impl Drop for Dropped {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

thread_local! {
    /// Its first use has the C library remember a destructor.
    static DROPPED: Dropped = const { Dropped(1) };
}

/// Takes and gives back far more than what a death takes.
pub fn work() {
    for _ in 0..64 {
        drop(black_box(vec![1u8; black_box(1 << 20)]));
    }
}

fn c_thread_that_panics() {
    extern "C" fn callback(_: *mut libc::c_void) -> *mut libc::c_void {
        panic!("in a callback")
    }
    let mut thread = std::mem::MaybeUninit::uninit();
    // SAFETY: the thread's number is writable, and the function lives as long as the process.
    unsafe { libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), callback, std::ptr::null_mut()) };
    // SAFETY: written by the call, which worked.
    let thread = unsafe { thread.assume_init() };
    // SAFETY: a thread that was just started, and that nobody else joins.
    unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
}

/// As signal-hook does it.
fn chain_to_abort_handler() {
    static BEFORE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    extern "C" fn handle(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let before = BEFORE.get().copied().unwrap_or_default();
        if before != libc::SIG_DFL && before != libc::SIG_IGN {
            // SAFETY: a handler that was installed with SA_SIGINFO takes these three arguments.
            let before: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(before) };
            before(signal, info, context);
        }
    }
    // SAFETY: all-zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: both are ours for the length of the call.
    unsafe { libc::sigaction(libc::SIGABRT, &raw const action, &raw mut before) };
    let _ = BEFORE.set(before.sa_sigaction);
}

fn keeps_errno() {
    for line in ["an ordinary line\n", "memory allocation of \n", "memory allocation of "] {
        // SAFETY: a descriptor that is not open.
        unsafe { libc::close(-1) };
        // SAFETY: readable for its whole length.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EBADF) {
            exit(BROKEN_ROLE);
        }
    }
}

fn raise(signal: i32) {
    // SAFETY: raise takes no pointer.
    unsafe { libc::raise(signal) };
}

fn write_to_null() {
    let null = black_box(std::ptr::null_mut());
    // SAFETY: none: it is the crash that this role is for. Done by the C library, as Rust would check the pointer.
    unsafe { libc::memset(null, 1, 1) };
}

fn write_from_bad_address() {
    for address in [8usize, 1 << 20] {
        // SAFETY: the kernel checks the address itself.
        let wrote = unsafe { libc::write(libc::STDERR_FILENO, address as *const _, 40) };
        let errno = std::io::Error::last_os_error().raw_os_error();
        if (wrote, errno) != (-1, Some(libc::EFAULT)) {
            exit(BROKEN_ROLE);
        }
    }
}

#[allow(unconditional_recursion)]
pub fn without_end(depth: u64) -> u64 {
    let frame = black_box([depth; 128]);
    without_end(depth + 1) + frame[(depth % 128) as usize]
}

fn grow_stack(bytes: usize) {
    let start = black_box(0);
    deep(&start, bytes);
}

/// Recurses until the stack has grown by `bytes` from `start`, and comes back.
fn deep(start: &u8, bytes: usize) {
    let frame = black_box([0u8; 1024]);
    let here = &raw const frame as usize;
    if (start as *const u8 as usize).saturating_sub(here) < bytes {
        deep(start, bytes);
    }
    black_box(frame);
}
