//! The few system calls that the guard and the parent need, each behind a small safe function.
//!
//! No policy lives here. Nothing here allocates, locks or panics, and everything is async-signal-safe except where
//! a function says otherwise (`symbols`, `objects`). This is one of the places where `unsafe` is allowed.

#[cfg(feature = "supervisor")]
pub(crate) mod child;
pub(crate) mod fd;
pub(crate) mod local;
pub(crate) mod memfd;
pub(crate) mod memory;
pub(crate) mod objects;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod symbols;
#[cfg(feature = "supervisor")]
pub(crate) mod trace;
pub(crate) mod valgrind;
