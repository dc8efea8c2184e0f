//! What a guarded process and its supervisor agree on: the values, forms and layouts that both read, the rules that both
//! go by, and the system calls that both need. What users name of it is part of the package `oomguard`; the rest is for the
//! packages of oomguard alone, and changes with them.
//!
//! Nothing here acts: what a process does with its own end is the guard's, what it does about others' is the supervisor's,
//! and neither is known here. Nothing needs the standard library; what allocates says so by its type, is for the
//! supervisor, and is not there for the library for other languages alone (feature `shim` without `alloc`).
//!
//! | file | what it holds |
//! |---|---|
//! | `contract` | every value that two processes must agree on |
//! | `limit`, `duration`, `names` | how a limit and a span of time are written, and which name was meant |
//! | `resolution`, `outer` | which limit holds, and who said so; pure |
//! | `cgroup` | the limits of the container |
//! | `report` | the report's line and the lines for people |
//! | `record` | the page that a guarded process fills and its supervisor reads |
//! | `profile` | the tables of a profile, likewise |
//! | `ledger` | the pages that the processes of a shared budget read and write |
//! | `growth` | how much more a process may have that asks again and again; pure |
//! | `wait` | how far a request has come that finds no room there |
//! | `backoff`, `busy` | when something tried in vain is worth another try; whether a thread is at something |
//! | `message` | what a dying program says of memory; pure |
//! | `shortage`, `overrun` | when a limit is the cause of a refusal, and when one has been passed; pure |
//! | `text` | text in fixed buffers, without allocating |
//! | `sys` | system calls, each behind a small function |
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
// Most of this is for our own packages, whose readers have the comments on what needs one.
#![allow(missing_docs)]
// Nor do they miss what those who write for others would add.
#![allow(clippy::len_without_is_empty, clippy::new_without_default, clippy::should_implement_trait)]
// Much of what is pure is read by what is guarded alone.
#![cfg_attr(
    not(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    allow(dead_code)
)]

#[cfg(any(feature = "alloc", not(feature = "shim")))]
extern crate alloc;

#[warn(missing_docs)]
pub mod contract;
pub mod duration;
pub mod forms;
#[warn(missing_docs)]
pub mod limit;
pub mod names;
pub mod text;

// What is guarded is 64-bit Linux, on the processors that are tested.
cfg_if::cfg_if! {
    if #[cfg(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))] {
        pub mod backoff;
        pub mod busy;
        pub mod cgroup;
        pub mod growth;
        pub mod ledger;
        pub mod message;
        pub mod outer;
        pub mod overrun;
        pub mod profile;
        pub mod record;
        pub mod report;
        pub mod resolution;
        pub mod shortage;
        // Unsafe code is allowed here alone; each block says what makes it sound.
        #[allow(unsafe_code)]
        pub mod sys;
        pub mod wait;
    }
}
