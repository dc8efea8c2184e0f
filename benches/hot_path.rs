//! What does the guard cost a program that is refused nothing? (Aim: at most 1.01 times the bare allocator.)
//!
//! The methods of `GlobalAlloc` are called on statics: a guard around an allocator against that allocator, beside
//! other crates that wrap one. Three kinds of work, on one thread and on two; in each round the wrapper and what it
//! wraps take a turn each, in a new order, and what counts is the ratio within the round.
//!
//! Where the linker puts a loop can weigh more than one comparison, so each loop exists at several distances from
//! the start of a cache line, and all of them count. The bare allocator takes part twice: how far it is from itself
//! is what this machine can tell apart.
//!
//! The process itself runs without a limit, as that would also cap the arenas of the bare allocator, and with the
//! profiler on, which not all of its guards ask for.

use benches::{COMPARED, compared, interleave, pin_to, print_table};
use oomguard::{Guard, Profiled};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::sync::Barrier;
use std::time::Instant;

/// Turns of each subject and its peer, per distance. Many short ones, so that most are not interrupted.
const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 3;
/// Pairs of alloc and free in one turn of the first two kinds of work.
const PAIRS: usize = 32 * 1024;
/// Growths from 64 B to 1 MiB in one turn of the third.
const GROWTHS: usize = 16;

const BATCH: usize = 1024;
const UNLIMITED: usize = 1 << 50;

static BARE: System = System;
static GUARDED: Guard<System> = Guard::new(System);
static PROFILED: Guard<System, Profiled> = Guard::profiled(System);
static BARE_MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
static GUARDED_MIMALLOC: Guard<mimalloc::MiMalloc> = Guard::new(mimalloc::MiMalloc);
static BARE_JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
static GUARDED_JEMALLOC: Guard<tikv_jemallocator::Jemalloc> = Guard::new(tikv_jemallocator::Jemalloc);
static CAP: cap::Cap<System> = cap::Cap::new(System, UNLIMITED);
static LIMIT_ALLOC: limit_alloc::Limit<System> = limit_alloc::Limit::new(UNLIMITED, System);
static STATS_ALLOC: stats_alloc::StatsAlloc<System> = stats_alloc::StatsAlloc::system();
static PEAK_ALLOC: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
static TRACKING_ALLOCATOR: tracking_allocator::Allocator<System> = tracking_allocator::Allocator::system();

/// Notes nothing: what is left is the crate's own price.
struct NoNotes;

impl tracking_allocator::AllocationTracker for NoNotes {
    fn allocated(&self, _: usize, _: usize, _: usize, _: tracking_allocator::AllocationGroupId) {}
    fn deallocated(
        &self,
        _: usize,
        _: usize,
        _: usize,
        _: tracking_allocator::AllocationGroupId,
        _: tracking_allocator::AllocationGroupId,
    ) {
    }
}

#[derive(Clone, Copy)]
enum Work {
    Pairs,
    Batches,
    Growth,
}

/// One loop at four places within a cache line.
type Placed = [fn(); 4];

struct Subject {
    name: &'static str,
    /// The subject that this one is compared with.
    peer: usize,
    loops: [Placed; 3],
}

/// Puts what follows `OFFSET` bytes behind the start of a cache line. It also makes the copies differ, so that they
/// are not merged into one.
macro_rules! place {
    ($offset:expr) => {
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        // SAFETY: only instructions that do nothing.
        unsafe {
            std::arch::asm!(".p2align 6", ".skip {offset}, 0x90", offset = const $offset, options(nomem, nostack));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: only instructions that do nothing.
        unsafe {
            std::arch::asm!(".p2align 6", ".rept {offset} / 4", "nop", ".endr", offset = const $offset, options(nomem, nostack));
        }
    };
}

/// A type that names a static, so that the loops are compiled for it.
trait Named: 'static {
    type Allocator: GlobalAlloc;
    fn allocator() -> &'static Self::Allocator;
}

#[inline(never)]
fn pairs<N: Named, const OFFSET: usize>() {
    let allocator = N::allocator();
    let layout = black_box(Layout::new::<[u64; 8]>());
    place!(OFFSET);
    for _ in 0..PAIRS {
        // SAFETY: the layout is not empty.
        let block = black_box(unsafe { allocator.alloc(layout) });
        // SAFETY: allocated on the line above, with this layout.
        unsafe { allocator.dealloc(block, layout) };
    }
}

#[inline(never)]
fn batches<N: Named, const OFFSET: usize>() {
    let allocator = N::allocator();
    let mut blocks = [(std::ptr::null_mut::<u8>(), Layout::new::<u64>()); BATCH];
    place!(OFFSET);
    for _ in 0..PAIRS / BATCH {
        for (index, slot) in blocks.iter_mut().enumerate() {
            let bytes = black_box(16 + index * 619 % 1009);
            let layout = Layout::from_size_align(bytes, 8).expect("a small size");
            // SAFETY: the layout is not empty.
            *slot = (unsafe { allocator.alloc(layout) }, layout);
        }
        for (block, layout) in black_box(&mut blocks).iter() {
            // SAFETY: allocated in the loop above, with this layout.
            unsafe { allocator.dealloc(*block, *layout) };
        }
    }
}

#[inline(never)]
fn growth<N: Named, const OFFSET: usize>() {
    let allocator = N::allocator();
    place!(OFFSET);
    for _ in 0..GROWTHS {
        let mut layout = black_box(Layout::new::<[u64; 8]>());
        // SAFETY: the layout is not empty.
        let mut block = unsafe { allocator.alloc(layout) };
        while layout.size() < 1 << 20 {
            let bytes = layout.size() * 2;
            // SAFETY: allocated with this layout; the new size is neither zero nor too large.
            block = black_box(unsafe { allocator.realloc(block, layout, bytes) });
            layout = Layout::from_size_align(bytes, layout.align()).expect("at most 1 MiB");
        }
        // SAFETY: allocated with this layout.
        unsafe { allocator.dealloc(block, layout) };
    }
}

macro_rules! subjects {
    ($($name:literal, $static:ident: $type:ty, peer $peer:literal;)*) => {
        [$({
            enum This {}
            impl Named for This {
                type Allocator = $type;
                fn allocator() -> &'static $type { &$static }
            }
            Subject {
                name: $name,
                peer: $peer,
                loops: [
                    [pairs::<This, 0>, pairs::<This, 16>, pairs::<This, 32>, pairs::<This, 48>],
                    [batches::<This, 0>, batches::<This, 16>, batches::<This, 32>, batches::<This, 48>],
                    [growth::<This, 0>, growth::<This, 16>, growth::<This, 32>, growth::<This, 48>],
                ],
            }
        }),*]
    };
}

fn main() {
    if std::env::var_os("OOMGUARD_LIMIT").is_none_or(|limit| limit != "off") {
        let own = std::env::current_exe().expect("a program knows where it is");
        panic!(
            "{}",
            std::process::Command::new(own).env("OOMGUARD_LIMIT", "off").env("OOMGUARD_PROFILE", "on").exec()
        );
    }
    tracking_allocator::AllocationRegistry::set_global_tracker(NoNotes).expect("there is none yet");
    tracking_allocator::AllocationRegistry::enable_tracking();

    let subjects = subjects! {
        "`System`, once more", BARE: System, peer 1;
        "`System`", BARE: System, peer 1;
        "`Guard<System>`", GUARDED: Guard<System>, peer 1;
        "`Guard<System, Profiled>`", PROFILED: Guard<System, Profiled>, peer 1;
        "`MiMalloc`", BARE_MIMALLOC: mimalloc::MiMalloc, peer 4;
        "`Guard<MiMalloc>`", GUARDED_MIMALLOC: Guard<mimalloc::MiMalloc>, peer 4;
        "`Jemalloc`", BARE_JEMALLOC: tikv_jemallocator::Jemalloc, peer 6;
        "`Guard<Jemalloc>`", GUARDED_JEMALLOC: Guard<tikv_jemallocator::Jemalloc>, peer 6;
        "cap 0.1.2", CAP: cap::Cap<System>, peer 1;
        "limit-alloc 0.1.0", LIMIT_ALLOC: limit_alloc::Limit<System>, peer 1;
        "peak_alloc 0.3.0", PEAK_ALLOC: peak_alloc::PeakAlloc, peer 1;
        "stats_alloc 0.1.10", STATS_ALLOC: stats_alloc::StatsAlloc<System>, peer 1;
        "tracking-allocator 0.4.0", TRACKING_ALLOCATOR: tracking_allocator::Allocator<System>, peer 1;
    };
    let works = [
        (Work::Pairs, "64 B"),
        (Work::Batches, "16–1024 B, batches of 1024"),
        (Work::Growth, "realloc 64 B → 1 MiB"),
    ];

    for threads in [1, 2] {
        // A bare allocator is 1 by definition.
        let rows: Vec<_> = subjects
            .iter()
            .enumerate()
            .filter(|(index, subject)| *index != subject.peer)
            .map(|(_, subject)| {
                let cells = works.map(|(work, _)| compare(subject, &subjects[subject.peer], work, threads));
                std::iter::once(subject.name.to_owned()).chain(cells).collect()
            })
            .collect();
        print_table(
            &format!(
                "Time against the wrapped allocator, {threads} thread(s), {} rounds: {COMPARED}.",
                ROUNDS * 4
            ),
            &["allocator", works[0].1, works[1].1, works[2].1],
            &rows,
        );
    }
}

/// Ratios of `subject` to its peer, one turn right after the other, in an order drawn anew each time.
fn compare(subject: &Subject, peer: &Subject, work: Work, threads: usize) -> String {
    let (mut own, mut against) = (Vec::new(), Vec::new());
    for place in 0..4 {
        let pair = [subject.loops[work as usize][place], peer.loops[work as usize][place]];
        let mut times = if threads == 1 {
            pin_to(0);
            take_turns(pair, &mut || {})
        } else {
            take_turns_together(pair, threads)
        };
        against.append(&mut times[1]);
        own.append(&mut times[0]);
    }
    compared(&own, &against, 3)
}

/// Each thread on a processor of its own, and every turn begun by all at once; the times of the first one.
fn take_turns_together(pair: [fn(); 2], threads: usize) -> Vec<Vec<f64>> {
    let ready = &Barrier::new(threads);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    pin_to(thread);
                    take_turns(pair, &mut || {
                        ready.wait();
                    })
                })
            })
            .collect();
        let times = running.into_iter().map(|thread| thread.join().expect("a turn does not panic"));
        times.reduce(|first, _| first).expect("there are threads")
    })
}

/// The nanoseconds of each turn.
fn take_turns(pair: [fn(); 2], ready: &mut dyn FnMut()) -> Vec<Vec<f64>> {
    let mut turn = |subject: usize| {
        ready();
        let begin = Instant::now();
        pair[subject]();
        begin.elapsed().as_nanos() as f64
    };
    interleave(WARM_UP_ROUNDS, 2, &mut turn);
    interleave(ROUNDS, 2, turn)
}
