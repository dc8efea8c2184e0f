//! What may follow a panic for want of a thread. Mostly the process ends: then it is judged like any other. But scoped
//! threads and pools wait for the threads that they have started, which wait for the one that never came, for ever.
//!
//! So a bare thread looks at the one that panicked: does it run on, or does it stand still? `/proc` tells in which system
//! call it is, and where. Nothing interrupts it, until it is found to have stood still for seconds: then a signal has it
//! end the process.
//!
//! ```text
//!   nobody ──a panic for want of a thread──▶ this thread ──it went on, or ended──▶ nobody
//!                                                 └──it stands still──▶ the end
//! ```

// A static program of glibc's cannot reach the `pthread_create` that ours would hide, so it has none of ours.
#![cfg_attr(all(target_feature = "crt-static", target_env = "gnu"), allow(dead_code))]

use super::armed::{Armed, armed};
use super::exhaustion::{self, Own, Verdict};
use super::{abort_signal, onlooker, threads};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use oomguard_core::contract::{Cause, Evidence};
use oomguard_core::report::Request;
use oomguard_core::sys;
use oomguard_core::sys::bare::{self, BareStack};
use oomguard_core::text::parts;

const EVIDENCE: Evidence = Evidence::Said;

const LOOK_EVERY_MS: u64 = 100;
/// So many times in a row it must be found at the same place, waiting for another thread …
const LOOKS: u32 = 50;
/// … or so many where its stack could be had by now: too late for whoever waits for it.
const LOOKS_TOO_LATE: u32 = 100;
/// So many times in a row it is found at work, or waiting for something else, and it has gone on. A panic that prints a
/// backtrace may be at work for seconds.
const LOOKS_GONE_ON: u32 = 50;

/// The thread that is looked at, and its process: zero for none. Only with the process in its upper half and no thread,
/// somebody looks, at nobody.
///
/// Relaxed, here and below: one word that says all; what it names is looked up in `/proc`.
static LOOKED_AT: AtomicU64 = AtomicU64::new(0);

/// The thread that has been found standing still, and ends the process when it gets the signal.
static STANDS_STILL: AtomicU64 = AtomicU64::new(0);

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static STACK: BareStack<{ 16 << 10 }> = BareStack::new();
static LIVES: AtomicI32 = AtomicI32::new(0);

fn nobody() -> u64 {
    u64::from(sys::process::pid()) << 32
}

/// A panic of this thread has said that a thread could not be started. The first such thread of a process is looked at, and
/// the next when that one has gone on.
pub(super) fn watch() {
    // valgrind runs no such threads.
    if threads::refused_stack().is_none() || sys::valgrind::is_running() {
        return;
    }
    // Without an end of its own there is none to give way to: where the evidence is not what the user wants, it may stand still.
    if armed().is_none_or(|armed| !armed.sufficient.allows(Some(EVIDENCE))) {
        return;
    }
    let me = sys::process::pid_and_tid();
    if LOOKED_AT.compare_exchange(nobody(), me, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        return;
    }
    // A parent's looks at nobody here.
    let is_free = |looked_at: u64| looked_at == 0 || looked_at >> 32 != me >> 32;
    let before = LOOKED_AT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |looked_at| is_free(looked_at).then_some(me));
    match before {
        Ok(0) if !has_left_its_stack() => LOOKED_AT.store(0, Ordering::Relaxed),
        // SAFETY: `look` keeps to what a bare thread may do; nobody is on the stack: this process has had no such thread,
        // or it is gone, and the word above lets one thread through.
        Ok(_) if !unsafe { bare::start(&STACK, &LIVES, look) } => LOOKED_AT.store(0, Ordering::Relaxed),
        _ => {}
    }
}

/// The last one may be on its way out.
fn has_left_its_stack() -> bool {
    const PATIENCE_MS: u64 = 20;
    let until = sys::clock::monotonic_ms() + PATIENCE_MS;
    while !bare::is_gone(&LIVES) {
        if sys::clock::monotonic_ms() > until {
            return false;
        }
        sys::process::yield_now();
    }
    true
}

/// This thread writes and does not panic: it has gone on.
pub(super) fn note_gone_on() {
    let looked_at = LOOKED_AT.load(Ordering::Relaxed);
    if looked_at != 0 && looked_at == sys::process::pid_and_tid() {
        forget(looked_at);
    }
}

fn forget(looked_at: u64) {
    let nobody = looked_at & !u64::from(u32::MAX);
    let _ = LOOKED_AT.compare_exchange(looked_at, nobody, Ordering::Relaxed, Ordering::Relaxed);
}

/// What proc_pid_syscall(5) says of a thread, and zeros behind it.
type Place = [u8; 192];

/// Where a thread was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// In futex(2), with these arguments, stack and return address: waiting for another thread.
    Waiting(Place),
    Elsewhere,
    Gone,
}

extern "C" fn look(_: *mut libc::c_void) -> i32 {
    let pid = sys::process::pid();
    let (mut looked_at, mut place, mut standing, mut elsewhere) = (0, [0; size_of::<Place>()], 0, 0);
    // So many looks in a row nobody else has gone on.
    let (mut before, mut quiet) = (Doings::default(), 0);
    loop {
        bare::sleep_ms(LOOK_EVERY_MS);
        let now = LOOKED_AT.load(Ordering::Relaxed);
        if now as u32 == 0 {
            if LOOKED_AT.compare_exchange(now, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                bare::end_thread();
            }
            continue;
        }
        if now != looked_at {
            // A place is of one thread: none of this one's is known.
            (looked_at, place, standing, elsewhere) = (now, [0; size_of::<Place>()], 0, 0);
        }
        let refused = threads::refused_stack();
        match (find(now as u32), refused) {
            (Found::Gone, _) | (_, None) => forget(now),
            (Found::Elsewhere, _) => {
                (standing, elsewhere) = (0, elsewhere + 1);
                if elsewhere >= LOOKS_GONE_ON {
                    forget(now);
                }
            }
            (Found::Waiting(at), Some(bytes)) => {
                standing = if at == place { standing + 1 } else { 0 };
                (place, elsewhere) = (at, 0);
                let doings = Doings::now();
                let goes_on = standing == 0 || doings.are_more_than(&before);
                (before, quiet) = if goes_on { (doings, 0) } else { (before, quiet + 1) };
                let is_long = |looks| looks >= LOOKS_TOO_LATE || looks >= LOOKS && would_be_refused(bytes);
                // While others go on, it may be one that has got over it and waits for them. One whose panic nobody
                // has caught, it says itself; asked once, and not where that would change what the program has set.
                let is_quiet = is_long(quiet);
                let is_alone = is_quiet && !before.others_go_on(now as u32);
                let is_unasked = ASKED.load(Ordering::Relaxed) != now;
                if is_alone || is_unasked && abort_signal::is_ours() && is_long(standing) {
                    ASKED.store(now, Ordering::Relaxed);
                    STANDS_STILL.store(now, Ordering::Relaxed);
                    IS_ALONE.store(is_alone, Ordering::Relaxed);
                    if is_alone {
                        abort_signal::hold_again();
                    }
                    bare::signal_thread(pid, now as u32, libc::SIGABRT);
                }
                if is_alone {
                    bare::end_thread();
                }
                if is_quiet {
                    // Somebody computes, sleeps, or waits for somebody outside.
                    (before, quiet) = (Doings::now(), 0);
                }
            }
        }
    }
}

/// Whether all others stand still as well, as far as was seen when the thread was told so.
static IS_ALONE: AtomicBool = AtomicBool::new(false);

/// Who was asked whether it panics still.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// What the threads of this process have done so far, without those of ours that only look.
#[derive(Clone, Copy, Default)]
struct Doings {
    at_ms: u64,
    reads_and_writes: u64,
    pages: u64,
    user_ms: u64,
    system_ms: u64,
    threads: u64,
}

impl Doings {
    /// By proc_pid_stat(5) and proc_pid_io(5).
    fn now() -> Doings {
        let mut buffer = [0; 1024];
        let calls = |text: &[u8], name: &[u8]| {
            let line = parts(text, b'\n').find_map(|line| line.strip_prefix(name));
            line.and_then(oomguard_core::text::leading_number).unwrap_or(0)
        };
        let io = bare::read_file(c"/proc/self/io", &mut buffer).unwrap_or(&[]);
        let all = calls(io, b"syscr:").saturating_add(calls(io, b"syscw:"));
        // The call that has told so is not among them yet.
        let reads_and_writes = all.saturating_sub(bare::reads().saturating_sub(1));
        let stat = bare::read_file(c"/proc/self/stat", &mut buffer).unwrap_or(&[]);
        let from_third = sys::proc::behind_name(stat).unwrap_or(&[]);
        let field = |number: usize| {
            let mut fields = parts(from_third, b' ');
            fields.nth(number - 3).and_then(oomguard_core::text::leading_number).unwrap_or(0)
        };
        Doings {
            at_ms: sys::clock::monotonic_ms(),
            reads_and_writes,
            pages: field(10).saturating_add(field(12)),
            user_ms: field(14) * sys::clock::MS_PER_TICK,
            system_ms: field(15) * sys::clock::MS_PER_TICK,
            threads: field(20),
        }
    }

    /// Whether somebody has gone on since `before`: has read, written or taken memory, has begun or ended.
    fn are_more_than(&self, before: &Doings) -> bool {
        self.reads_and_writes != before.reads_and_writes
            || self.pages != before.pages
            || self.threads != before.threads
    }

    /// Whether somebody else than `tid` has gone on since then, or may any moment: computes, waits for somebody outside, or
    /// sleeps. Who only looks for work again and again does not.
    fn others_go_on(&self, tid: u32) -> bool {
        let now = Doings::now();
        let (wall, user) = (now.at_ms.saturating_sub(self.at_ms), now.user_ms.saturating_sub(self.user_ms));
        let system = now.system_ms.saturating_sub(self.system_ms);
        let computes = user >= wall / 4 && user >= system.saturating_mul(4);
        if computes || now.are_more_than(self) {
            return true;
        }
        let mut goes_on = false;
        bare::each_thread(|other| {
            goes_on = other != tid && !onlooker::is_its(other) && !is_at(&LIVES, other) && may_go_on(other);
            !goes_on
        });
        goes_on
    }
}

/// Whether a bare thread with this word is thread `tid`.
fn is_at(lives: &AtomicI32, tid: u32) -> bool {
    lives.load(Ordering::Relaxed).cast_unsigned() == tid
}

/// Whether a thread waits for what may come from outside, or for a time that has not come.
fn may_go_on(tid: u32) -> bool {
    let mut text = [0; 192];
    let Some(place) = bare::read_of_thread(tid, "/syscall\0", &mut text) else { return false };
    let mut words = parts(place, b' ');
    let Some(call) = words.next().and_then(oomguard_core::text::leading_number) else {
        // It runs: who computes, or looks again and again, shows in what is used.
        return false;
    };
    let has_deadline = call == libc::SYS_clock_nanosleep as u64
        || call == libc::SYS_nanosleep as u64
        // Its fourth argument.
        || call == libc::SYS_futex as u64 && words.nth(3).is_some_and(|timeout| timeout != b"0x0");
    if !has_deadline {
        return call != libc::SYS_futex as u64;
    }
    // Who wakes a moment later only looks again.
    const MOMENT_MS: u64 = 50;
    let turns = || {
        let mut text = [0; 96];
        let turns = parts(bare::read_of_thread(tid, "/schedstat\0", &mut text)?, b' ').nth(2)?;
        oomguard_core::text::leading_number(turns)
    };
    let before = turns();
    bare::sleep_ms(MOMENT_MS);
    before.is_some() && before == turns()
}

/// The kernel's answer alone: what else `threads` asks for takes calls that a bare thread must not make.
fn would_be_refused(stack_bytes: u64) -> bool {
    usize::try_from(stack_bytes).map_or(true, sys::memory::would_be_refused)
}

/// The number of the system call that a thread is blocked in, its arguments, the stack and the place.
fn find(tid: u32) -> Found {
    let mut place = [0; size_of::<Place>()];
    if bare::read_of_thread(tid, "/syscall\0", &mut place).is_none() {
        return Found::Gone;
    }
    if oomguard_core::text::leading_number(&place) == Some(libc::SYS_futex as u64) {
        Found::Waiting(place)
    } else {
        Found::Elsewhere
    }
}

/// SIGABRT has come: ends the process if that is because this thread stands still. True: it was asked, and goes on waiting.
pub(super) fn heed(armed: &Armed) -> bool {
    let me = sys::process::pid_and_tid();
    if STANDS_STILL.compare_exchange(me, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return false;
    }
    if !IS_ALONE.load(Ordering::Relaxed) && !super::rust::is_panicking() {
        return true;
    }
    let request = threads::refused_stack().map(|bytes| Request { bytes, align: None });
    let (cause, evidence, own) = (Cause::Thread, EVIDENCE, Own::Unknown);
    exhaustion::end_for_certain(armed, Verdict { cause, request, evidence, own });
}
