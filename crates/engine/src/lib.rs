//! The code inside the process that dies well, in whatever language it is written: for the packages `oomguard`, which is what
//! Rust programs name, and `oomguard-shim`, the library for all others, and it changes with them.
//!
//! The one rule of this crate: once a refusal is not survived, nothing here allocates, takes a lock, panics or waits
//! without a deadline until `_exit`. The program's own `on_exhausted` callbacks may do all of that; the watchdog ends
//! them. Nothing here depends on the parent's side,
//! nor on the standard library where the feature `std` is off, as it is for the shim.
//!
//! Before that, more is allowed. A refusal that may still be survived has malloc trim its heap, which takes malloc's
//! locks, and waits for another thread that does so or runs callbacks, for 50 ms at most (`refusal`). Start-up and the
//! first start of a thread ask the dynamic linker, which has a lock of its own. Registering a callback allocates, and
//! `pressure` starts a thread of std's: both are ordinary code in a thread of the program's.
//!
//! | file | what it holds |
//! |---|---|
//! | `allocator` | `Guard<A>`: forwards, and hands refusals over |
//! | `interface` | the types that programs name, on other systems, too |
//! | `elsewhere` | all that a worker calls, on systems where nothing is guarded |
//! | `anchor` | what a program that uses `Guard` links in: the constructor and the interposed names |
//! | `settings`, `limits` | what was asked for, and what holds; pure |
//! | `startup` | what runs before `main`, in order |
//! | `arenas` | malloc's arenas: how many, and what a refusal in one of them means |
//! | `stack` | the main stack, mapped so that its growth is never refused |
//! | `owner` | which process is guarded |
//! | `trial` | the program's own allocator on trial |
//! | `armed` | what start-up found out, fixed from then on |
//! | `refusal` | what is tried before a refusal is passed on, and what is noted of it |
//! | `refused` | what was refused so far, and by which limit |
//! | `filter` | whether a filter for system calls is in the way |
//! | `resident` | the measure `resident`: may it have more? |
//! | `onlooker` | a thread that looks whether it holds too much, where no parent does |
//! | `notes` | what was refused and not got over, and what has been allocated since |
//! | `gone_on` | whether the program reads, writes or waits since, where the library is in charge |
//! | `said`, `panics` | what the program says after a refusal: on stderr, and in panics |
//! | `thrown` | what std throws when it panics, seen when it is thrown |
//! | `std_line` | std's own line, held back until it is plain that it is std's |
//! | `frames` | whether a certain function is on a thread's stack |
//! | `verdict` | whether a guarded program dies of a refusal: what only a Rust program shows |
//! | `judge` | the same for every program, whoever asked |
//! | `aborts`, `abort_signal` | SIGABRT: those of the C library's, and everybody else's; who handles it |
//! | `asked` | what a parent asks by a signal |
//! | `threads`, `standstill` | threads that were refused, and programs that stand still for it |
//! | `unchecked` | C code that does not check what malloc gives |
//! | `rust` | what is asked of Rust's standard library, and what stands for the answer where there is none |
//! | `written` | where `write` goes: to the C library, or by us after a refusal |
//! | `interpose` | the calls where std meets the C library on its way out: `write`, `abort`, `pthread_create` |
//! | `c_heap`, `mappings` | the C library's heap and mappings, as C code and plugins call them |
//! | `real` | the functions that our names hide |
//! | `hook` | calls upwards, handed in at the start |
//! | `standing` | who speaks when the process dies; the others wait |
//! | `exhaustion` | from a refusal not survived to `_exit`: the last words |
//! | `reserve` | memory for the last words |
//! | `exits` | the ends by exit and its kin |
//! | `profile/` | which code holds the memory: samples of the live allocations |
//! | `unwind/` | call stacks, from the unwind tables of the loaded files |
//! | `record` | the page that a supervisor reads |
//! | `lease` | what this process has of a budget that it shares: asks for more, waits, is refused |
//! | `watchdog` | the deadline of the last words |
//! | `callbacks` | `on_reclaim`, `on_exhausted` |
//! | `child_limit` | `ChildLimit`: the limits of programs that a guarded one starts by itself |
//! | `pressure`, `event` | `on_pressure`, `PressureFd`: the one thread that a program may ask for, and how it tells |
//! | `status` | `status()` |
//! | `library` | what the guard asks the library for programs not written in Rust, which it does not know |
//! | `inject` | refusals on purpose, for tests (feature `inject`) |

#![cfg_attr(not(any(test, feature = "std")), no_std)]
// Without the standard library there is no `Guard` of anybody's, and nothing of what only such a program needs is called.
#![cfg_attr(not(feature = "std"), allow(dead_code))]
// Nor elsewhere of most of what is pure.
#![cfg_attr(
    not(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    allow(dead_code)
)]
#![cfg_attr(oomguard_nightly, feature(alloc_error_hook))]
// Most of this is for our own packages, whose readers have the comments on what needs one.
#![allow(missing_docs)]
// Nor do they miss what those who write for others would add.
#![allow(clippy::new_without_default)]

#[warn(missing_docs)]
pub mod interface;
pub mod settings;

// What is guarded is 64-bit Linux, on the processors that are tested. Elsewhere, `elsewhere` stands in for it.
cfg_if::cfg_if! {
    if #[cfg(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))] {
        mod abort_signal;
        mod aborts;
        #[cfg(feature = "std")]
        mod allocator;
        mod anchor;
        mod arenas;
        pub mod armed;
        pub mod asked;
        pub mod c_heap;
        #[warn(missing_docs)]
        pub mod callbacks;
        #[cfg(feature = "std")]
        mod child_limit;
        pub mod dlopen;
        #[cfg(feature = "std")]
        mod event;
        pub mod exhaustion;
        pub mod exit_turns;
        mod exits;
        pub mod filter;
        mod frames;
        pub mod gone_on;
        pub mod hook;
        #[cfg(feature = "inject")]
        #[warn(missing_docs)]
        pub mod inject;
        pub mod interpose;
        pub mod judge;
        pub mod lease;
        pub mod library;
        mod limits;
        pub mod loading;
        pub mod mappings;
        pub mod notes;
        pub mod onlooker;
        pub mod owner;
        mod panics;
        #[cfg(feature = "std")]
        #[warn(missing_docs)]
        pub mod pressure;
        mod profile;
        pub mod real;
        pub mod record;
        pub mod refusal;
        pub mod refused;
        pub mod reserve;
        pub mod resident;
        mod rust;
        mod said;
        mod stack;
        pub mod standing;
        mod standstill;
        pub mod startup;
        #[warn(missing_docs)]
        pub mod status;
        mod std_line;
        #[cfg(feature = "shim")]
        pub mod task;
        pub mod threads;
        pub mod thrown;
        mod trial;
        mod unchecked;
        pub mod unwind;
        mod verdict;
        pub mod watchdog;
        mod written;

        #[cfg(feature = "std")]
        pub use callbacks::{on_exhausted, on_reclaim};
        #[cfg(feature = "std")]
        pub use pressure::{PressureFd, on_pressure};
        pub use status::status;
    } else {
        mod elsewhere;

        pub use elsewhere::{on_exhausted, on_pressure, on_reclaim, status};
    }
}
pub use interface::{ChildLimit, Guard, Profiled, Registration, Status, Unset};
