//! The record: memory that a supervisor and its guarded child share, so that the parent knows how the child stood
//! when it died, whatever it died of. This is the layout that both sides read; neither acts here.
//!
//! ```text
//!   the child's page | a page for each descendant that was refused something | the child's profile
//! ```
//! The parent makes it and says in `OOMGUARD_RECORD` where the child finds it: `fd:N:INODE`, or
//! `proc:PID:N:INODE` for a descriptor that stays the parent's: then descendants find it, too. A page is an array of
//! 64-bit words, all zero at first; only the process that it belongs to writes. A number is stored plus one, so that zero is "not known".
//! The writer neither allocates nor waits. The reader takes a copy and trusts nothing in it: lengths are clamped,
//! words that mean nothing are unknown, and every number is a claim of that child about itself.

mod claims;
mod codes;
mod failed;
mod head;
mod layout;
mod page;
mod place;

pub use claims::{Claims, Loading, Open, State, trouble};
pub use codes::ProfileState;
pub use failed::{Child, Failed, PASSED_ON_MS, may_be, passes_on};
pub use head::Head;
pub use layout::{
    FILE_BYTES, HEAD_BYTES, LIMIT_NOW_AT, NOTE_LAYOUT, NOTE_NAME, PATH_MAX_BYTES, RECORD_BYTES,
};
pub use page::{Armed, Becoming, Counted, Page, Told};
pub use place::{Place, from_variable};
#[cfg(any(feature = "alloc", not(feature = "shim")))]
pub use place::{variable_value, variable_value_of};
