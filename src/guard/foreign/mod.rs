//! The guard for programs that are not written in Rust: what the exported names of `shim/` call.
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
//! | `messages`, `streams` | what a dying program says, by `write` and by stdio |
//! | `executed` | exec and posix_spawn: programs that cannot have the library see nothing of it |
//! | `ends` | exit, _exit, abort, failed assertions |
//! | `faults` | the signals of a crash, and how they look untouched |
//! | `api` | the functions of `oomguard.h` |

mod api;
mod breaks;
mod ends;
mod environment;
mod executed;
mod faults;
mod messages;
mod startup;
mod streams;
mod threads;

pub use crate::guard::c_heap::*;
pub use crate::guard::mappings::{mmap, mprotect, mremap};
pub use api::*;
pub use breaks::{brk, sbrk};
pub use ends::{abort, assert_fail, exit_at_once};
pub use executed::{execv, execve, execvp, execvpe, posix_spawn, posix_spawnp};
pub use faults::{sigaction, signal};
pub(super) use messages::note_refusal;
pub use messages::{write, writev};
pub use startup::arm;
pub(super) use startup::is_in_charge;
pub use streams::{
    before_fprintf, before_fprintf_chk, before_vfprintf, before_vfprintf_chk, fputs, fwrite, perror, strerror,
};
pub use threads::pthread_create;
