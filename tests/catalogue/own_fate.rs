//! Ends that are the program's own: not one of them may become 198, or come with a report.

use super::early::{ABORT_HANDLER_BEFORE, OWN_HANDLER_EXIT, handle};
use super::{ABORTED, Role, fill};
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
    Role::is_killed("SIGTERM", libc::SIGTERM, || raise(libc::SIGTERM)).once(),
    Role::exits("a write from a bad address to stderr gives EFAULT", 0, || {
        write_from_bad_address();
    }),
    Role::exits("the same after a handled refusal", 0, || {
        fill::handled_refusal();
        write_from_bad_address();
    })
    .handling(),
    Role::exits("a line on stderr after a handled refusal arrives as it is", 0, || {
        fill::handled_refusal();
        eprintln!("memory allocation of nothing at all");
    })
    .handling()
    .says("memory allocation of nothing at all\n"),
];

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
fn without_end(depth: u64) -> u64 {
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
