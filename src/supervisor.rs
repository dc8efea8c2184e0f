//! The parent's side: start a program with a memory limit, and know for certain whether memory ended it.
//!
//! ```no_run
//! use oomguard::supervisor::{Budget, Command, Outcome, Pool, Retry, Worker};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let outcome = Worker::new(Command::new("./worker"))
//!     .limit("256MiB".parse()?)
//!     .retry(Retry::grow(2.0).up_to("1GiB".parse()?))
//!     .run()?;
//! match outcome {
//!     Outcome::OutOfMemory(report) => eprintln!("{report}"),
//!     other => eprintln!("{other}"),
//! }
//!
//! let pool = Pool::new(Budget::container()?.keep("128MiB".parse()?));
//! let job = pool.submit(Worker::new(Command::new("./worker")).limit("256MiB".parse()?))?;
//! println!("{}", job.wait()?);
//! # Ok(())
//! # }
//! ```
//!
//! A worker whose program is guarded ([`guard!`](crate::guard!)) ends with a [`Report`]. Any other program gets the
//! rlimit, and dies of it in its own way: see setrlimit(2). What it died of can be found out from outside:
//! [`Worker::infer_refusals`].

#[doc(inline)]
pub use oomguard_supervisor::*;
#[cfg(feature = "symbolize")]
#[doc(inline)]
pub use oomguard_symbols as symbols;
