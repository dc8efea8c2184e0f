//! The guard for programs that are not written in Rust: what the exported names of `shim/` call.
//!
//! Such a program has no function that only a death calls. So refusals are noted, and the question whether the program
//! survived them is put when it dies: by `exit` with a code other than 0, by `abort`, by a fault.
//!
//! | file | what it holds |
//! |---|---|
//! | `startup` | the constructor, and when it stands down |
//! | `environment` | the variables that must not reach the program's children |
//! | `real` | the functions that our names hide |
//! | `allocate` | the malloc family |
//! | `mappings` | mmap and the like |
//! | `threads` | pthread_create |
//! | `notes` | what was refused, and what has been allocated since |
//! | `messages`, `streams` | what a dying program says, by `write` and by stdio |
//! | `verdict` | whether the program dies of a refusal |
//! | `ends` | exit, _exit, abort, failed assertions |
//! | `faults` | the signals of a crash, and how they look untouched |
//! | `api` | the functions of `oomguard.h` |

mod allocate;
mod api;
mod ends;
mod environment;
mod faults;
mod mappings;
mod messages;
mod notes;
mod real;
mod startup;
mod streams;
mod threads;
mod verdict;

pub use allocate::*;
pub use api::*;
pub use ends::{abort, assert_fail, exit_at_once};
pub use faults::{sigaction, signal};
pub use mappings::{brk, mmap, mprotect, mremap, sbrk};
pub use messages::{write, writev};
pub(super) use notes::note;
pub use startup::arm;
pub use streams::{
    before_fprintf, before_fprintf_chk, before_vfprintf, before_vfprintf_chk, fputs, fwrite, perror, strerror,
};
pub use threads::pthread_create;
