//! The guard for programs that are not written in Rust: what the exported names of `crates/shim/` call.
//!
//! Such a program has no function that only a death calls. So refusals are noted, and the question whether the program
//! survived them is put when it dies: by `exit` with a code other than 0, by `abort`, by a fault.
//!
//! | file | what it holds |
//! |---|---|
//! | `startup` | the constructor, and when it stands down |
//! | `environment` | the variables that must not reach the program's children |
//! | `breaks` | brk and sbrk |
//! | `threads` | pthread_create |
//! | `children` | system |
//! | `messages`, `streams`, `formatted` | what a dying program says, by `write` and by stdio |
//! | `variadic` | what stands for such a function in a static program |
//! | `words`, `lookups` | gettext and strerror: what it is about to say in the user's language, and whether it did |
//! | `ends` | exit, _exit, quick_exit, exit_group, abort, failed assertions, signals to oneself |
//! | `leaving` | exit where its handlers are told no code: musl's |
//! | `execs` | what is to be done before the process becomes another program |
//! | `faults` | the signals of a crash, and how they look untouched |
//! | `stalls` | programs that are refused again and again and get nowhere |
//! | `uncaught` | an exhaustion that ends a thread ends the process, if the user says so |
//! | `python/` | what CPython knows of its own end |
//! | `api` | the functions of `oomguard.h` |

mod api;
mod breaks;
mod children;
mod ends;
mod environment;
mod execs;
mod faults;
mod formatted;
mod leaving;
mod loading;
mod lookups;
mod messages;
mod python;
mod stalls;
mod startup;
mod streams;
mod threads;
mod uncaught;
mod variadic;
mod words;

pub use crate::guard::c_heap::*;
pub use crate::guard::mappings::{mapping_syscall, mmap, mprotect, mremap};
pub use api::*;
pub use breaks::{brk, sbrk};
pub use children::system;
pub use ends::{
    SYSCALL_ENTRY, abort, abort_for_good, assert_fail, before_syscall, exit_at_once, fail_syscall, kill,
    prctl, quick_exit, raise,
};
pub use execs::{execv, execve, execve_as_told_behind, execvp, execvpe, posix_spawn, posix_spawnp};
pub use faults::{sigaction, signal};
pub use formatted::{
    before_err, before_error, before_errx, before_fprintf, before_fprintf_chk, before_printf,
    before_printf_chk, before_vfprintf, before_vfprintf_chk, before_warn, before_warnx,
};
pub use loading::{DLOPEN_ENTRY, before_dlopen};
pub(super) use messages::note_refusal;
pub use messages::{write, writev};
pub use python::fflush;
pub(super) use python::{is_inside as is_asking_python, note_refusal as ask_python};
pub(super) use stalls::note as note_for_stall;
pub use startup::arm;
pub(super) use startup::{has_filter_of_its_own, is_in_charge};
pub use streams::{fputs, fwrite, perror, puts, strerror};
pub use threads::pthread_create;
pub use words::{dcgettext, dgettext, gettext, iconv_open, ngettext, setlocale, strerror_l, strerror_r};
