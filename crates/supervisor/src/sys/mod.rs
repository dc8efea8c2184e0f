//! The system calls of the parent's side: those that both sides need, and those that it alone does. Each is behind a small
//! function; no policy lives here.
//!
//! This is one of the places where `unsafe` is allowed.

pub(super) mod child;
pub(super) mod locale;
pub(super) mod memfd;
pub(super) mod signals;
pub(super) mod spawn;
pub(super) mod terminal;
pub(super) mod trace;
pub(super) mod turns;

pub(super) use oomguard_core::sys::{clock, errno, fd, image, join, memory, proc, process};
