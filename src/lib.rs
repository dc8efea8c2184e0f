//! Run out of memory on your own terms.
//!
//! On cgroup v2, Kubernetes (since 1.28) has the kernel kill the *whole container* when one process in it goes over
//! the memory limit: a parent that put its heavy work into child processes is killed along with the child that ate
//! the memory. A process guarded by this crate reaches a limit of **its own** first. It says what happened and leaves
//! with a reserved exit code, and the parent lives to clean up and to try again.
//!
//! # In the worker
//!
//! One line in `main.rs`, outside `fn main`:
//!
//! ```
//! oomguard::guard!();
//!
//! fn main() {
//!     // …
//! }
//! ```
//!
//! From then on an allocation that is refused and that the program does not survive (`Vec::push`, `Box::new`,
//! `format!`, …) ends the process with [`EXIT_OUT_OF_MEMORY`], 198, and a report, instead of an abort:
//!
//! ```text
//! oomguard: out of memory: worker (pid 32544) in thread main (32544) could not go on without 27262976 bytes more (align 8)
//! oomguard:   limit: 64 MiB (67108864 bytes) of address-space, from OOMGUARD_LIMIT
//! oomguard:   in use: address-space 52.8 MiB, data 42.1 MiB, resident 44.1 MiB, resident at most 44.1 MiB; 1 refusal
//! oomguard:   try: a larger OOMGUARD_LIMIT
//! oomguard:   exit code 198
//! ```
//!
//! Nothing else changes: `try_reserve` gives its `Err`, a panic exits with 101, an `abort` is a SIGABRT.
//!
//! The limit is `OOMGUARD_LIMIT` if it is set, else what [`guard!`] says, else 90 % of the container's limit; a lower
//! rlimit that is there already always wins. What it counts is a [`Measure`]: address space unless told otherwise.
//! The report is one line of JSON where `OOMGUARD_REPORT` says.
//!
//! # While it runs
//!
//! - [`status()`] tells how near the limit is: for health endpoints.
//! - [`on_reclaim()`] registers what can be freed when an allocation is refused; it is then tried again.
//! - [`on_exhausted()`] registers last words.
//! - [`on_pressure()`] registers what is to be done when memory runs short, before anything is refused;
//!   [`PressureFd`] is the same for event loops.
//! - [`ChildLimit`] gives a child that is started by itself the limit that was there before the guard.
//! - [`Registration`] is any of these callbacks for a while: dropped, it takes the callback back.
//!
//! # Which code held the memory
//!
//! `guard!(profile = on)` keeps a sample of the live allocations with their stacks, in 1.5 MiB that are there from the
//! start, so that the end can tell who held what. A supervisor finds it in its [`Report`](supervisor::Report::profile)
//! and, after any other death, in its [`LastLook`](supervisor::LastLook::profile); without one, the dying process
//! appends it to a file beside its report (`OOMGUARD_REPORT` with `.profile` behind it), which
//! [`Profile::read_file`](supervisor::Profile::read_file) reads. With `profile = off` the
//! profiler is compiled in and waits for `OOMGUARD_PROFILE=on`. A program without the key has nothing of it; the
//! variable, which it may have inherited, then means nothing, and the record says so.
//!
//! # In the parent
//!
//! Any parent sees exit code 198, and the report where it asked for one. In Rust, [`supervisor`] starts workers with
//! limits, tells their outcomes, retries with more memory, and splits a budget among them.
//!
//! # With another allocator
//!
//! [`Guard`] wraps any [`GlobalAlloc`](std::alloc::GlobalAlloc): `guard!(allocator = mimalloc::MiMalloc)`, or a
//! `static` by hand. It costs one comparison per allocation.
//!
//! # What it rests on
//!
//! `RLIMIT_AS` and `RLIMIT_DATA` (setrlimit(2)), per process: the kernel counts and refuses, so nothing is counted here
//! and no allocation is missed, whoever makes it. A constructor sets the limit before `main`. Stable Rust has no hook
//! for a refused allocation, so a guarded program defines `write`, `abort` and `pthread_create`, looks at the few calls
//! of them that can be the last, and passes all on; a program that does not use [`Guard`] has none of this. How it works
//! in detail is in ARCHITECTURE.md, and what it cannot do in docs/limits.md.
//!
//! # On other systems
//!
//! 64-bit Linux on x86-64 and aarch64 is what is guarded. Everywhere else the worker's side of this crate compiles and does
//! nothing: [`guard!`] and [`Guard`] forward to the allocator, [`status()`] tells of no limit, and callbacks are never
//! called. What only makes sense with a limit ([`supervisor`], [`PressureFd`], `inject`) is not there, and the compiler
//! says so to whoever names it.
//!
//! # Features
//!
//! - `supervisor` (default): the parent's side. It adds `parking_lot` and `serde_json`, which the guard never calls.
//! - `symbolize`: functions, files and lines for the addresses of a profile (`supervisor::symbols`). It adds
//!   `addr2line`, `gimli`, `object`, `flate2` and two demanglers.
//! - `log`: one line per outcome of a worker, through the `log` facade.
//! - `inject`: refuse chosen allocations on purpose, to sweep a program for refusals that it does not survive.
//!
//! With a nightly compiler, `RUSTFLAGS="--cfg oomguard_nightly"` also sets the unstable alloc-error hook, instead of only
//! recognizing that it is called.
#![forbid(unsafe_code)]

// By itself: whoever names it elsewhere is told by the compiler that it is not there, and why.
#[cfg(all(
    feature = "supervisor",
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub mod supervisor;

#[doc(inline)]
pub use oomguard_core::contract::{
    self, EXIT_OUT_OF_MEMORY, LimitSource, Measure, OnRefusal, ParseMeasureError,
};
#[doc(inline)]
pub use oomguard_core::limit::{Limit, ParseLimitError, Share};
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[doc(inline)]
pub use oomguard_engine::PressureFd;
#[cfg(all(
    feature = "inject",
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[doc(inline)]
pub use oomguard_engine::inject;
#[doc(inline)]
pub use oomguard_engine::{
    ChildLimit, Guard, Profiled, Registration, Status, Unset, on_exhausted, on_pressure, on_reclaim, status,
};

mod macros;

/// For the package `fuzz`; not part of the interface.
#[cfg(fuzzing)]
#[doc(hidden)]
#[path = "fuzzing.rs"]
pub mod __fuzz;

/// For [`guard!`] and the launcher; not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use oomguard_core::forms;
    pub use oomguard_engine::interface::Source;
    pub use oomguard_engine::settings::{Profile, Settings};
}

/// The Rust programs of the documents: they compile.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/rust.md")]
    mod rust {}
    #[cfg(feature = "supervisor")]
    #[doc = include_str!("../docs/budget.md")]
    mod budget {}
    #[cfg(feature = "supervisor")]
    #[doc = include_str!("../docs/supervisor.md")]
    mod supervisor {}
}
