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
use super::{aborts, threads};
use crate::contract::{Cause, Evidence};
use crate::report::Request;
use crate::sys;
use crate::sys::bare::{self, BareStack};
use crate::text::Text;
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

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
    let until = sys::process::monotonic_ms() + PATIENCE_MS;
    while !bare::is_gone(&LIVES) {
        if sys::process::monotonic_ms() > until {
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
                if standing >= LOOKS_TOO_LATE || standing >= LOOKS && would_be_refused(bytes) {
                    STANDS_STILL.store(now, Ordering::Relaxed);
                    aborts::handle_again();
                    bare::signal_thread(pid, now as u32, libc::SIGABRT);
                    bare::end_thread();
                }
            }
        }
    }
}

/// The kernel's answer alone: what else `threads` asks for takes calls that a bare thread must not make.
fn would_be_refused(stack_bytes: u64) -> bool {
    usize::try_from(stack_bytes).map_or(true, sys::memory::would_be_refused)
}

/// The number of the system call that a thread is blocked in, its arguments, the stack and the place.
fn find(tid: u32) -> Found {
    let mut path = Text::<48>::new();
    path.push("/proc/self/task/");
    path.push_number(u64::from(tid));
    path.push("/syscall\0");
    let mut place = [0; size_of::<Place>()];
    let path = CStr::from_bytes_with_nul(path.as_bytes()).ok();
    if path.and_then(|path| bare::read_file(path, &mut place)).is_none() {
        return Found::Gone;
    }
    if crate::text::leading_number(&place) == Some(libc::SYS_futex as u64) {
        Found::Waiting(place)
    } else {
        Found::Elsewhere
    }
}

/// SIGABRT has come: ends the process if that is because this thread stands still.
pub(super) fn end_if_found(armed: &Armed) {
    if STANDS_STILL.load(Ordering::Relaxed) != sys::process::pid_and_tid() {
        return;
    }
    let request = threads::refused_stack().map(|bytes| Request { bytes, align: None });
    let (cause, evidence, own) = (Cause::Thread, EVIDENCE, Own::Unknown);
    exhaustion::end_for_certain(armed, Verdict { cause, request, evidence, own });
}
