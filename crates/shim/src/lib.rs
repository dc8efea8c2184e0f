//! liboomguard: the guard for programs that are not written in Rust. `names` exports what stands before the C library's own, each
//! one call inwards; what they promise to C is in `include/oomguard.h`, and what they do is decided in the other files here.
//!
//! Such a program has no function that only a death calls. So refusals are noted, and the question whether the program
//! survived them is put when it dies: by `exit` with a code other than 0, by `abort`, by a fault.
//!
//! | file | what it holds |
//! |---|---|
//! | `names/` | the names that the library exports |
//! | `startup` | the constructor, and when it stands down |
//! | `environment` | the variables that must not reach the program's children |
//! | `breaks` | brk and sbrk |
//! | `threads` | pthread_create |
//! | `children` | system, popen and pclose, wait and its kin |
//! | `messages`, `streams`, `formatted` | what a dying program says, by `write` and by stdio |
//! | `overheard` | what it has read, and may pass on |
//! | `variadic` | what stands for such a function in a static program |
//! | `words`, `lookups` | gettext and strerror: what it is about to say in the user's language, and whether it did |
//! | `ends` | exit, _exit, quick_exit, exit_group, abort, failed assertions, signals to oneself |
//! | `abort_handler` | what a handler of the program's own for SIGABRT makes of an abort |
//! | `leaving` | exit, whose last handler asks; musl's, which tells it no code |
//! | `execs` | what is to be done before the process becomes another program |
//! | `faults` | the signals of a crash |
//! | `handlers` | the program's own handlers for them, to which they look untouched |
//! | `filter` | whether the program has a filter for its system calls |
//! | `stalls` | programs that are refused again and again and get nowhere |
//! | `uncaught` | an exhaustion that ends a thread ends the process, if the user says so |
//! | `python/` | what CPython knows of its own end |
//! | `api` | the functions of `oomguard.h` |
//! | `panic` | what a panic of ours would come to |

#![cfg_attr(not(test), no_std)]
// What is public is so for the names, and no crate depends on this one.
#![allow(missing_docs)]
// Tests are programs: they call a little of it, and keep the C library's names.
#![cfg_attr(test, allow(dead_code, unused_imports))]

// A build that does not end in aborts is one of the whole workspace's, to be looked at and not to be loaded.
#[cfg(all(not(panic = "abort"), not(test)))]
extern crate std;

mod abort_handler;
mod api;
mod breaks;
mod children;
mod ends;
mod environment;
mod execs;
mod faults;
mod filter;
mod formatted;
mod handlers;
mod leaving;
mod lookups;
mod messages;
#[cfg(not(test))]
mod names;
mod overheard;
#[cfg(all(panic = "abort", not(test)))]
mod panic;
mod python;
mod stalls;
mod startup;
mod streams;
mod threads;
mod uncaught;
mod variadic;
mod words;

pub use api::*;
pub use breaks::{brk, sbrk};
pub use children::{pclose, popen, system, wait, wait3, wait4, waitid, waiting_syscall, waitpid};
pub use ends::{
    SYSCALL_ENTRY, abort, abort_for_good, assert_fail, before_syscall, exit_at_once, fail_syscall, kill,
    prctl, quick_exit, raise,
};
pub use execs::{execv, execve, execve_as_told_behind, execvp, execvpe, posix_spawn, posix_spawnp};
pub use formatted::{
    before_err, before_error, before_errx, before_fprintf, before_fprintf_chk, before_printf,
    before_printf_chk, before_vfprintf, before_vfprintf_chk, before_warn, before_warnx,
};
pub use handlers::{sigaction, signal};
pub use messages::{write, writev};
pub use oomguard_engine::c_heap::*;
pub use oomguard_engine::mappings::{fallocate, mapping_syscall, mmap, mprotect, mremap, posix_fallocate};
pub use overheard::{
    fclose, fread, fread_chk, fread_unlocked, pread, pread_chk, preadv, read, read_chk, readv, recv,
    recvfrom, recvmsg,
};
pub use python::fflush;
pub use startup::arm;
pub use streams::{fputs, fwrite, perror, puts};
pub use threads::pthread_create;
pub use words::{
    dcgettext, dgettext, gettext, iconv_open, ngettext, setlocale, strerror, strerror_l, strerror_r,
};
