//! `oomguard run` from outside: exit codes, signals, what the command inherits, and what is said. This program is its
//! own hungry command: started with `role NAME` it plays that part. It has no guard of its own.

mod arguments;
mod budget;
#[allow(dead_code)]
#[path = "../../../../tests/common/c.rs"]
mod c;
mod codes;
mod descendants;
#[path = "../../../../tests/common/dispositions.rs"]
mod dispositions;
mod every_signal;
mod inheritance;
mod memory;
#[path = "../../../../tests/common/memory_group.rs"]
mod memory_group;
mod nested;
mod outside;
mod resident;
mod signals;
#[path = "../../../../tests/common/skip.rs"]
mod skip;
mod started;
mod stderr;
mod terminal;
#[path = "../../../../tests/common/trials.rs"]
mod trials;
mod worlds;

use libtest_mimic::Arguments;
use std::hint::black_box;
use trials::{add, role_to_play};

fn main() {
    if let Some(role) = role_to_play() {
        play(&role);
        return;
    }
    dispositions::reset();
    let mut trials = Vec::new();
    arguments::add_to(&mut trials);
    budget::add_to(&mut trials);
    codes::add_to(&mut trials);
    descendants::add_to(&mut trials);
    every_signal::add_to(&mut trials);
    inheritance::add_to(&mut trials);
    memory::add_to(&mut trials);
    nested::add_to(&mut trials);
    outside::add_to(&mut trials);
    resident::add_to(&mut trials);
    signals::add_to(&mut trials);
    stderr::add_to(&mut trials);
    terminal::add_to(&mut trials);
    worlds::add_to(&mut trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// More than any limit here.
fn refuse() {
    let mut block: Vec<u8> = Vec::new();
    assert!(block.try_reserve_exact(black_box(1 << 40)).is_err());
}

/// exit_group(2) by the instruction, as a program without a C library makes it.
fn exit_by_itself(code: i32) -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: takes no pointer and does not come back.
    unsafe {
        std::arch::asm!("syscall", in("rax") libc::SYS_exit_group, in("rdi") code, options(noreturn))
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as above.
    unsafe {
        libc::_exit(code)
    }
}

fn play(arguments: &[String]) {
    match arguments {
        // So many MiB, and the answer on stdout.
        [role, mib] if role == "need" => {
            let mib: u8 = mib.parse().unwrap();
            let blocks: Vec<Vec<u8>> = (0..mib).map(|n| black_box(vec![n; 1 << 20])).collect();
            println!("{}", blocks.iter().map(|block| u64::from(block[black_box(7)])).sum::<u64>());
        }
        // Whether there could be a filter is asked by many sandboxes; from then on nobody here may ask anything else.
        [role, mib] if role == "probe-and-need" => {
            // SAFETY: without a filter the call fails, and changes nothing.
            let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, 0) };
            assert_eq!(result, -1);
            play(&["need".to_owned(), mib.to_owned()]);
        }
        // More than there is, which is no trouble to it.
        [role] if role == "cope" => {
            let refused = Vec::<u8>::new().try_reserve_exact(1 << 30).is_err();
            println!("{}", if black_box(refused) { "refused" } else { "granted" });
        }
        // All that there is, given back before the end.
        [role] if role.starts_with("give-back") => {
            let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(4096);
            let mut block = Vec::new();
            while block.try_reserve_exact(1 << 20).is_ok() {
                block.resize(1 << 20, 1);
                blocks.push(black_box(std::mem::take(&mut block)));
            }
            drop(blocks);
            eprintln!("out of memory");
            if role.ends_with("-abort") {
                std::process::abort();
            }
            std::process::exit(1);
        }
        // Touches what it does not get.
        [role] if role == "refused-at-once" => {
            // SAFETY: any size may be asked for.
            let block: *mut u8 = unsafe { libc::malloc(1 << 40) }.cast();
            // SAFETY: it is not: that is the point.
            unsafe { black_box(block).write_volatile(1) };
            std::process::exit(0);
        }
        // Refused what it wants; then the end comes by a door that no handler of ours is behind.
        [role, words] if role == "leave" => {
            let refused = fill();
            eprint!("{words}");
            drop(refused);
            leave(2);
        }
        // The same, but it has gone on with what it had.
        [role] if role == "go-on-and-leave" => {
            drop(fill());
            for n in 0..1000u32 {
                black_box(vec![n; 16 << 10]);
            }
            leave(3);
        }
        // Nobody hears it.
        [role] if role == "fail-unheard" => {
            let refused = fill();
            for fd in [1, 2] {
                // SAFETY: nothing here uses it any more.
                unsafe { libc::close(fd) };
            }
            drop(refused);
            std::process::exit(2);
        }
        [role, kind, mib] if role == "hold" => resident::hold(kind, mib.parse().unwrap()),
        [role, marks, mib, all, refused] if role == "want" => {
            budget::want(marks.as_ref(), mib.parse().unwrap(), all.parse().unwrap(), refused.parse().unwrap())
        }
        [role, marks, mib, all, kind] if role == "want-shared" => {
            budget::want_shared(marks.as_ref(), mib.parse().unwrap(), all.parse().unwrap(), kind)
        }
        [role, marks, mib] if role == "hold-marked" => budget::hold(marks.as_ref(), mib.parse().unwrap()),
        [role, marks, mib] if role == "hold-apart" => {
            budget::hold_apart(marks.as_ref(), mib.parse().unwrap())
        }
        [role] if role == "share" => resident::share(),
        [role, limit] if role == "arm" => budget::arm(limit),
        [role, command @ ..] if role == "with-odd-entries" => inheritance::execute_with_odd_entries(command),
        [role] if role == "catch" => every_signal::catch(),
        [role, command @ ..] if role == "start-and-catch" => every_signal::start_and_catch(command),
        // Says so, and ends by a call that no library sees.
        [role, words] if role == "exit-by-itself" => {
            refuse();
            eprintln!("{words}");
            exit_by_itself(2);
        }
        // Says so, and waits for its end.
        [role, words] if role == "announce" => {
            refuse();
            eprintln!("{words}");
            println!("{}", std::process::id());
            loop {
                std::thread::park();
            }
        }
        // Says it, without a refusal.
        [role, words] if role == "say" => {
            eprintln!("{words}");
            std::process::exit(3);
        }
        // Closes what its end could be told on.
        [role] if role == "close" => {
            refuse();
            eprintln!("out of memory");
            for fd in [libc::STDERR_FILENO, 5] {
                // SAFETY: nothing in this process writes any more.
                unsafe { libc::close(fd) };
            }
            std::process::exit(2);
        }
        _ => panic!("no such role: {arguments:?}"),
    }
}

/// All that there is, until something is refused.
fn fill() -> Vec<Vec<u8>> {
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(4096);
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            return blocks;
        }
        block.resize(1 << 20, 1);
        blocks.push(black_box(block));
    }
}

/// exit_group(2), by nobody's function.
fn leave(code: i32) -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel ends this process; nothing comes back.
    unsafe {
        std::arch::asm!("syscall", in("rax") libc::SYS_exit_group, in("rdi") code, options(noreturn))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("svc 0", in("x8") libc::SYS_exit_group, in("x0") code, options(noreturn))
    }
}
