//! The catalogue of ways to run out of memory, and of ways to end that are not that.
//!
//! Each way is a role that the test binary plays when it starts itself. `main` runs every role under
//! {deferred, immediate} × {address-space, data} × `RUST_BACKTRACE` {0, 1}; the profile is cargo's. Over mimalloc and
//! jemalloc the roles that do not depend on the allocator run in one cell each way (`Role::once`), and those that the
//! allocator itself is not up to do not run (`Role::not_over`). `tests/compilers` builds it with other compilers and in
//! other ways; with `panic = "abort"` some roles end otherwise (`Role::where_panics_abort`), or have no meaning
//! (`Role::needs_unwinding`).
//!
//! | file | roles |
//! |---|---|
//! | `heap` | requests that are refused, in every shape and place |
//! | `errors` | refusals that come back as errors, C code's among them |
//! | `crowd` | threads: refused, failing at once, told from one another |
//! | `words` | `on_exhausted`, `on_reclaim`, and where the report goes |
//! | `own_fate` | ends that are the program's own |
//! | `hook` | an alloc-error hook of the program's own, on nightly compilers |
//! | `fill` | filling the process up to its limit |
//! | `early` | what runs before and after `main` |

mod crowd;
mod early;
mod errors;
mod fill;
mod heap;
#[cfg(alloc_error_hook)]
mod hook;
mod judge;
mod own_fate;
mod words;

use crate::common::{self, child::End};
use judge::Cell;
use libtest_mimic::{Arguments, Trial};
use oomguard::{Measure, OnRefusal};
use std::process::ExitCode;
use std::time::Duration;

/// How a role has to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Exit 198 and a report with one of these causes.
    OutOfMemory(&'static [&'static str]),
    /// The program's own end, and no report.
    Own(End),
}

/// What is special about the way a role is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Usual,
    /// Threads want much, so that one can be refused while there is room for a panic and its backtrace.
    LargeStacks,
    /// Standard error is a full pipe that nobody reads.
    StderrFull,
    /// There is no standard error.
    StderrClosed,
    /// Standard error is `/dev/null`.
    StderrNull,
    /// `OOMGUARD_REPORT=fd:N`.
    ReportToDescriptor,
    /// `OOMGUARD_REPORT=report`, a path relative to where the program starts.
    ReportRelative,
    /// `OOMGUARD_QUIET=1`.
    Quiet,
}

/// One way to end.
#[derive(Clone, Copy)]
struct Role {
    name: &'static str,
    play: fn(),
    deferred: Fate,
    immediate: Fate,
    limit: &'static str,
    setting: Setting,
    /// What stderr must hold besides our own lines; with nothing said, there must be nothing.
    says: Option<&'static str>,
    /// What stdout must hold.
    prints: &'static str,
    /// The report is the child's of the process that we started.
    in_child: bool,
    takes_at_least: Duration,
    /// Without a guard it would not end.
    would_hang: bool,
    /// Does not depend on allocator and measure.
    once: bool,
    /// The allocators that are not up to it, whatever a guard does.
    not_over: &'static [&'static str],
    /// Has no meaning where nothing unwinds.
    needs_unwinding: bool,
}

/// Where a panic aborts, it ends so.
const ABORTED: Fate = Fate::Own(End::Signal(libc::SIGABRT));
const OUT_OF_HEAP: Fate = Fate::OutOfMemory(&["heap"]);
const OUT_OF_THREADS: Fate = Fate::OutOfMemory(&["thread"]);
/// Threads that start while others eat: what is refused first is a matter of luck.
const OUT_OF_EITHER: Fate = Fate::OutOfMemory(&["heap", "thread"]);

impl Role {
    const fn new(name: &'static str, fate: Fate, play: fn()) -> Role {
        Role {
            name,
            play,
            deferred: fate,
            immediate: fate,
            limit: "96Mi",
            setting: Setting::Usual,
            says: None,
            prints: "",
            in_child: false,
            takes_at_least: Duration::ZERO,
            would_hang: false,
            once: false,
            not_over: &[],
            needs_unwinding: false,
        }
    }

    const fn dies(name: &'static str, play: fn()) -> Role {
        Role::new(name, OUT_OF_HEAP, play)
    }

    const fn exits(name: &'static str, code: i32, play: fn()) -> Role {
        Role::new(name, Fate::Own(End::Exit(code)), play)
    }

    const fn is_killed(name: &'static str, signal: i32, play: fn()) -> Role {
        Role::new(name, Fate::Own(End::Signal(signal)), play)
    }

    /// Handles a refusal, which `immediate` does not let it.
    const fn handling(mut self) -> Role {
        self.immediate = OUT_OF_HEAP;
        self
    }

    /// Ends in another way where a panic aborts instead of unwinding. To be said before `handling`.
    const fn where_panics_abort(mut self, fate: Fate) -> Role {
        if cfg!(panic = "abort") {
            self.deferred = fate;
            self.immediate = fate;
        }
        self
    }

    const fn needs_unwinding(mut self) -> Role {
        self.needs_unwinding = true;
        self
    }

    const fn limit(mut self, limit: &'static str) -> Role {
        self.limit = limit;
        self
    }

    const fn setting(mut self, setting: Setting) -> Role {
        self.setting = setting;
        self
    }

    const fn says(mut self, text: &'static str) -> Role {
        self.says = Some(text);
        self
    }

    const fn prints(mut self, text: &'static str) -> Role {
        self.prints = text;
        self
    }

    const fn in_child(mut self) -> Role {
        self.in_child = true;
        self
    }

    const fn takes_at_least(mut self, milliseconds: u64) -> Role {
        self.takes_at_least = Duration::from_millis(milliseconds);
        self
    }

    /// Threads make their first allocation in a full process. jemalloc then uses a cache that it could not set up, and
    /// mimalloc a heap: both die of SIGSEGV inside themselves.
    const fn first_allocation_when_full(mut self) -> Role {
        self.not_over = &["jemalloc", "mimalloc"];
        self
    }

    /// Memory that was freed is to be there for others. jemalloc keeps the mappings, which count.
    const fn needs_memory_back(mut self) -> Role {
        self.not_over = &["jemalloc"];
        self
    }

    /// Nothing else may be refused. mimalloc tries to map an arena on the way, which the limit refuses.
    const fn needs_no_arena(mut self) -> Role {
        self.not_over = &["mimalloc"];
        self
    }

    /// 2 MiB are to be had of 4 MiB. jemalloc may want as much again for its own book-keeping.
    const fn needs_exact_reserve(mut self) -> Role {
        self.not_over = &["jemalloc"];
        self
    }

    /// What was given back last is given first. mimalloc has another order.
    const fn needs_last_first(mut self) -> Role {
        self.not_over = &["mimalloc"];
        self
    }

    const fn would_hang(mut self) -> Role {
        self.would_hang = true;
        self
    }

    const fn once(mut self) -> Role {
        self.once = true;
        self
    }
}

#[cfg(alloc_error_hook)]
const HOOK_ROLES: [&[Role]; 2] = [hook::ROLES, hook::ROLES_WITH_STD_LINE];
#[cfg(not(alloc_error_hook))]
const HOOK_ROLES: [&[Role]; 2] = [&[], &[]];

fn roles() -> impl Iterator<Item = &'static Role> {
    [heap::ROLES, errors::ROLES, crowd::ROLES, words::ROLES, own_fate::ROLES]
        .into_iter()
        .chain(HOOK_ROLES)
        .flatten()
}

pub fn main(allocator: &str) -> ExitCode {
    if let Ok(name) = std::env::var(common::ROLE) {
        return play(&name);
    }
    let mut arguments = Arguments::from_args();
    // Some roles wait for a deadline of two seconds: more of them than cores may do so at once.
    arguments.test_threads.get_or_insert(4);
    libtest_mimic::run(&arguments, trials(allocator)).exit_code()
}

fn play(name: &str) -> ExitCode {
    match roles().find(|role| role.name == name) {
        Some(role) => {
            (role.play)();
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("no role {name:?}");
            ExitCode::from(common::BROKEN_ROLE as u8)
        }
    }
}

/// Judges one run. The other allocators have races of their own with a full process, which crash them now and then
/// (see `Role::not_over`): over those, and only those, one failure is told and tried again. The guard is held to every
/// single run over the system allocator.
fn judge(cell: &Cell, strictly: bool) -> Result<(), String> {
    match judge::run(cell) {
        Err(first) if !strictly => {
            eprintln!("tried again: {}: {first}", cell.name());
            judge::run(cell)
        }
        verdict => verdict,
    }
}

fn trials(allocator: &str) -> Vec<Trial> {
    let every_cell = allocator == "system";
    let mut trials = Vec::new();
    let unwinds = cfg!(panic = "unwind");
    let suits = |role: &&Role| !role.not_over.contains(&allocator) && (unwinds || !role.needs_unwinding);
    for role in roles().filter(suits) {
        for on_refusal in [OnRefusal::Deferred, OnRefusal::Immediate] {
            for measure in [Measure::AddressSpace, Measure::Data] {
                for backtrace in [true, false] {
                    let reduced = role.once && !every_cell;
                    if reduced && (measure == Measure::AddressSpace || !backtrace) {
                        continue;
                    }
                    let cell = Cell { role, on_refusal, measure, backtrace };
                    trials.push(Trial::test(cell.name(), move || Ok(judge(&cell, every_cell)?)));
                }
            }
        }
    }
    trials
}
