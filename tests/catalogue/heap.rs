//! Requests to the heap that are refused and not coped with: in every shape, and at every moment of a process's life.

use super::early::{AFTER_MAIN, BEFORE_MAIN};
use super::{OUT_OF_HEAP, Role, Setting, fill};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hint::black_box;
use std::mem;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread;

pub const ROLES: &[Role] = &[
    Role::dies("one huge Vec", fill::one_huge_request),
    Role::dies("a Vec that grows", || {
        let mut pages = Vec::<[u64; 512]>::new();
        loop {
            pages.push(black_box([1; 512]));
        }
    }),
    Role::dies("a String that grows", || {
        let mut text = String::new();
        let more = "x".repeat(64 << 10);
        loop {
            text.push_str(black_box(&more));
        }
    }),
    Role::dies("a HashMap that grows", || {
        let mut map = HashMap::new();
        for key in 0u64.. {
            map.insert(key, black_box([key; 64]));
        }
    }),
    Role::dies("a BTreeMap that grows", || {
        let mut map = BTreeMap::new();
        for key in 0u64.. {
            map.insert(key, black_box([key; 64]));
        }
    }),
    Role::dies("a VecDeque with too much room", || {
        mem::forget(black_box(VecDeque::<u64>::with_capacity(black_box(fill::HUGE / 8))));
    })
    .once(),
    Role::dies("many small boxes", || {
        loop {
            mem::forget(black_box(Box::new([1u8; 500])));
        }
    }),
    Role::dies("one huge Arc", || {
        mem::forget(black_box(Arc::<[u8]>::new_uninit_slice(black_box(fill::HUGE))));
    }),
    Role::dies("one huge zeroed Vec", || mem::forget(black_box(vec![0u8; black_box(fill::HUGE)]))),
    Role::dies("zeroed blocks", || {
        loop {
            mem::forget(black_box(vec![0u8; black_box(1 << 20)]));
        }
    }),
    Role::dies("over-aligned blocks", || {
        #[repr(align(65536))]
        struct Aligned(#[allow(dead_code)] [u8; 65536]);
        loop {
            mem::forget(black_box(Vec::<Aligned>::with_capacity(black_box(4))));
        }
    }),
    Role::dies("growth by realloc", || {
        let mut bytes = vec![1u8; 1 << 20];
        loop {
            bytes.reserve_exact(black_box(bytes.capacity() + (1 << 20)));
            black_box(bytes.as_mut_ptr());
        }
    }),
    Role::dies("a direct call of handle_alloc_error after a refusal", || {
        let layout = Layout::from_size_align(fill::HUGE, 8).expect("a layout");
        // SAFETY: the size is not zero.
        let block = unsafe { alloc_zeroed(layout) };
        assert!(black_box(block).is_null());
        handle_alloc_error(layout)
    }),
    Role::new("a direct call of handle_alloc_error without a refusal", OUT_OF_HEAP, || {
        handle_alloc_error(Layout::new::<u64>())
    })
    .once(),
    Role::dies("in a spawned thread", || {
        let _ = thread::spawn(fill::one_huge_request).join();
    }),
    Role::dies("in a named thread", || {
        let named = thread::Builder::new().name("eater".into());
        let _ = named.spawn(fill::one_huge_request).expect("room for a thread").join();
    })
    .once(),
    Role::dies("in a thread with a stack of 64 KiB", || {
        let small = thread::Builder::new().stack_size(64 << 10);
        let _ = small.spawn(fill::one_huge_request).expect("room for a thread").join();
    }),
    Role::dies("in a thread-local's destructor in the main thread", || DYING.with(|dying| dying.asks())),
    Role::dies("in a thread-local's destructor in a spawned thread", || {
        let _ = thread::spawn(|| DYING.with(|dying| dying.asks())).join();
    }),
    Role::dies("aborted by the C library, in a thread whose alternate stack is the smallest", || {
        let _ = thread::spawn(|| {
            take_smallest_alternate_stack();
            fill::heap().keep();
            // glibc has to allocate to remember the destructor.
            DYING.with(|_| ());
        })
        .join();
    })
    .says("")
    .first_allocation_when_full(),
    Role::dies("in an atexit handler", || {
        extern "C" fn at_exit() {
            fill::one_huge_request();
        }
        // SAFETY: the handler lives as long as the process.
        unsafe { libc::atexit(at_exit) };
    }),
    Role::dies(BEFORE_MAIN, || unreachable!("main began")),
    Role::dies(AFTER_MAIN, || {}),
    Role::dies("inside catch_unwind", || {
        let _ = catch_unwind(fill::one_huge_request);
    }),
    Role::dies("in a destructor while a panic unwinds", || {
        struct Asks;
        impl Drop for Asks {
            fn drop(&mut self) {
                fill::one_huge_request();
            }
        }
        let _asks = Asks;
        std::panic::resume_unwind(Box::new(()));
    })
    .needs_unwinding(),
    Role::dies("in a forked child", || {
        // SAFETY: there is no other thread, so the child may do anything.
        let child = unsafe { libc::fork() };
        if child == 0 {
            return fill::one_huge_request();
        }
        println!("child {child}");
        let mut status = 0;
        // SAFETY: `status` is writable during the call.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(libc::WIFEXITED(status));
        std::process::exit(libc::WEXITSTATUS(status));
    })
    .in_child(),
    Role::dies("in a child forked by a second thread", || {
        let fork = || {
            // SAFETY: the child uses the allocator only, which glibc keeps usable after fork.
            let child = unsafe { libc::fork() };
            if child == 0 {
                return fill::one_huge_request();
            }
            println!("child {child}");
            let mut status = 0;
            // SAFETY: `status` is writable during the call.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            std::process::exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 });
        };
        let _ = thread::spawn(fork).join();
    })
    .in_child(),
    Role::dies("a panic with the heap full to the brim", || {
        fill::heap().keep();
        panic!("with nothing left");
    })
    .says(""),
    Role::dies("a panic with a message that needs the heap, full to the brim", || {
        fill::heap().keep();
        let number = black_box(7);
        std::panic::panic_any(format!("number {number:>2000}"));
    })
    .says(""),
    Role::dies("a failed unwrap in a thread with the heap full to the brim", || {
        let worker = thread::spawn(|| {
            fill::heap().keep();
            "x".parse::<u32>().unwrap()
        });
        let _ = worker.join();
    })
    .says(""),
    Role::dies("stderr is a full pipe that nobody reads", fill::one_huge_request)
        .setting(Setting::StderrFull),
    Role::dies("stderr is closed at the start", fill::one_huge_request).setting(Setting::StderrClosed),
    Role::dies("stderr is closed by the program", || {
        // SAFETY: nobody in this process owns descriptor 2 but std, which copes.
        unsafe { libc::close(libc::STDERR_FILENO) };
        fill::one_huge_request();
    })
    .setting(Setting::Quiet),
    Role::dies("a SIGABRT handler of the program's own, installed after ours", || {
        super::early::handle(libc::SIGABRT);
        fill::one_huge_request();
    }),
    Role::dies(super::early::ABORT_HANDLER_BEFORE_DEATH, fill::one_huge_request),
    Role::dies("SIGABRT is ignored and blocked", || {
        // SAFETY: ignoring a signal takes no pointer.
        unsafe { libc::signal(libc::SIGABRT, libc::SIG_IGN) };
        // SAFETY: all-zero is a valid set of signals.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `set` is writable during the call.
        unsafe { libc::sigfillset(&raw mut set) };
        // SAFETY: `set` is readable during the call.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
        fill::one_huge_request();
    }),
    Role::dies("with the heap full to the brim", || {
        fill::heap().keep();
        fill::eat(1 << 10)
    }),
];

struct Dying(std::cell::Cell<bool>);

impl Dying {
    fn asks(&self) {
        self.0.set(true);
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        if self.0.get() {
            fill::one_huge_request();
        }
    }
}

thread_local! {
    static DYING: Dying = const { Dying(std::cell::Cell::new(false)) };
}

/// Room for the registers that the kernel saves, and a kilobyte; below it lies a page that nobody may touch.
fn take_smallest_alternate_stack() {
    const PAGE: usize = 4096;
    // SAFETY: asks for a number.
    let registers = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    let bytes = registers.max(libc::MINSIGSTKSZ) + 1024;
    let guard = fill::map(PAGE + bytes).expect("room for a small stack");
    // SAFETY: a mapping of our own, which nobody uses yet.
    assert_eq!(unsafe { libc::mprotect(guard as *mut _, PAGE, libc::PROT_NONE) }, 0);
    let stack = libc::stack_t { ss_sp: (guard + PAGE) as *mut _, ss_flags: 0, ss_size: bytes };
    // SAFETY: a mapping that is never unmapped.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
}
