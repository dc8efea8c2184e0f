//! The code inside the process that dies well.
//!
//! The one rule of this folder: once a refusal is not survived, nothing here allocates, takes a lock, panics or waits
//! without a deadline until `_exit`. The program's own `on_exhausted` callbacks may do all of that; the watchdog ends
//! them. Nothing here depends on the parent's side.
//!
//! Before that, more is allowed. A refusal that may still be survived has malloc trim its heap, which takes malloc's
//! locks, and waits for another thread that does so or runs callbacks, for 50 ms at most (`refusal`). Start-up and the
//! first start of a thread ask the dynamic linker, which has a lock of its own. Registering a callback allocates, and
//! `pressure` starts a thread of std's: both are ordinary code in a thread of the program's.
//!
//! | file | what it holds |
//! |---|---|
//! | `allocator` | `Guard<A>`: forwards, and hands refusals over |
//! | `interface` | the types that programs name, on other systems, too |
//! | `anchor` | what a program that uses `Guard` links in: the constructor and the interposed names |
//! | `macros` | `guard!` |
//! | `settings`, `limits` | what was asked for, and what holds; pure |
//! | `startup` | what runs before `main`, in order |
//! | `arenas` | malloc's arenas: how many, and what a refusal in one of them means |
//! | `stack` | the main stack, mapped so that its growth is never refused |
//! | `armed` | what start-up found out, fixed from then on |
//! | `refusal` | what is tried before a refusal is passed on, and what is noted of it |
//! | `resident` | the measure `resident`: may it have more? |
//! | `onlooker` | a thread that looks whether it holds too much, where no parent does |
//! | `notes` | what was refused and not got over, and what has been allocated since |
//! | `said`, `panics` | what the program says after a refusal: on stderr, and in panics |
//! | `std_line` | std's own line, held back until it is plain that it is std's |
//! | `frames` | whether a certain function is on a thread's stack |
//! | `verdict` | whether a guarded program dies of a refusal: what only a Rust program shows |
//! | `judge` | the same for every program, whoever asked |
//! | `aborts` | SIGABRT: those of the C library's, and everybody else's |
//! | `threads`, `standstill` | threads that were refused, and programs that stand still for it |
//! | `unchecked` | C code that does not check what malloc gives |
//! | `rust` | what is asked of Rust's standard library, and what stands for the answer where there is none |
//! | `interpose` | the calls where std meets the C library on its way out: `write`, `abort`, `pthread_create` |
//! | `c_heap`, `mappings` | the C library's heap and mappings, as C code and plugins call them |
//! | `real` | the functions that our names hide |
//! | `exhaustion` | from a refusal not survived to `_exit` |
//! | `profile/` | which code holds the memory: samples of the live allocations |
//! | `unwind/` | call stacks, from the unwind tables of the loaded files |
//! | `record` | the page that a supervisor reads |
//! | `lease` | what this process has of a budget that it shares: asks for more, waits, is refused |
//! | `watchdog` | the deadline of the last words |
//! | `callbacks` | `on_reclaim`, `on_exhausted` |
//! | `child_limit` | `ChildLimit`: the limits of programs that a guarded one starts by itself |
//! | `pressure`, `event` | `on_pressure`, `PressureFd`: the one thread that a program may ask for, and how it tells |
//! | `status` | `status()` |
//! | `foreign` | the same for programs not written in Rust (feature `shim`) |
//! | `inject` | refusals on purpose, for tests (feature `inject`) |

mod aborts;
#[cfg(not(all(feature = "shim", not(feature = "supervisor"))))]
pub(crate) mod allocator;
mod anchor;
mod arenas;
mod armed;
mod c_heap;
pub(crate) mod callbacks;
#[cfg(not(all(feature = "shim", not(feature = "supervisor"))))]
mod child_limit;
#[cfg(not(all(feature = "shim", not(feature = "supervisor"))))]
mod event;
mod exhaustion;
#[cfg(feature = "shim")]
pub mod foreign;
mod frames;
#[cfg(feature = "inject")]
pub mod inject;
pub(crate) mod interface;
mod interpose;
mod judge;
mod lease;
mod limits;
mod macros;
mod mappings;
mod notes;
mod onlooker;
mod panics;
#[cfg(not(all(feature = "shim", not(feature = "supervisor"))))]
pub(crate) mod pressure;
mod profile;
mod real;
mod record;
mod refusal;
mod resident;
mod rust;
mod said;
pub(crate) mod settings;
mod stack;
mod standstill;
mod startup;
pub(crate) mod status;
mod std_line;
#[cfg(feature = "shim")]
mod task;
mod threads;
mod unchecked;
mod unwind;
mod verdict;
mod watchdog;

#[cfg(fuzzing)]
pub(crate) use unwind::fuzz as fuzz_unwind;
