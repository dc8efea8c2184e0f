//! Runs a program as the main process of a Kubernetes-like container: cgroup v2 with
//! `memory.max` and `memory.oom.group`, namespaces, the usual capabilities. The cgroup
//! belongs to a guest kernel of its own (user-mode Linux, a process), so the host needs
//! neither root nor cgroups.
//!
//! ```no_run
//! use pod::Pod;
//!
//! let pod = Pod { oom_group: false, ..Pod::new(Some(128 << 20), ["/bin/true"]) };
//! let outcome = pod.run()?;
//! assert_eq!(outcome.report.exit, 0);
//! # Ok::<(), pod::Error>(())
//! ```

mod error;
mod keeper;
mod kernel;
mod machine;
mod pod;
mod report;
mod run_directory;
mod stage;
mod sys;

pub use error::Error;
pub use kernel::Kernel;
pub use pod::{Capabilities, Change, Outcome, Pod, Root, User};
pub use report::Report;
