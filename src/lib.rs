//! Run out of memory on your own terms.
#![cfg_attr(feature = "nightly", feature(alloc_error_hook))]
#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("oomguard is for 64-bit Linux: it rests on RLIMIT_AS, RLIMIT_DATA and cgroups");

mod cgroup;
pub mod contract;
// Unsafe code is allowed here and in `sys`; each block says what makes it sound.
#[allow(unsafe_code)]
mod guard;
mod limit;
mod record;
mod report;
#[cfg(feature = "supervisor")]
pub mod supervisor;
#[allow(unsafe_code)]
mod sys;
mod text;

pub use contract::{EXIT_OUT_OF_MEMORY, LimitSource, Measure, OnRefusal};
pub use guard::allocator::{Guard, Unset};
pub use guard::callbacks::{on_exhausted, on_reclaim};
#[cfg(feature = "inject")]
pub use guard::inject;
pub use guard::status::{Status, status};
pub use limit::{Limit, ParseLimitError, Share};

/// For [`guard!`]; not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::guard::allocator::Source;
    pub use crate::guard::settings::Settings;
}
