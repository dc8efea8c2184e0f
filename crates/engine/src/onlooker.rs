//! A limit on what is resident, where no parent looks: what was mapped and is used later asks nobody, so a bare thread looks
//! at this process, the oftener the nearer it is to its limit. Found over it, and again a moment later, the process is told to
//! end, by the signal that a parent would send: what says the last words is a thread of the program's.
//!
//! ```text
//!   looks ──over──▶ looks again ──still over──▶ SIGABRT with a value ──nothing comes of it──▶ _exit
//! ```

use super::armed::{Armed, armed};
use super::{filter, lease, standing};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use oomguard_core::contract::{LAST_WORDS_DEADLINE_MS, Measure};
use oomguard_core::overrun::{AGAIN_MS, Finding, Suspicion, TOLD, most, pause_ms};
use oomguard_core::sys;
use oomguard_core::sys::bare::{self, BareStack};
use oomguard_core::sys::memory::{MemoryUse, Untouched, settled, share_held_of, tells_of_refusal};

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
static STACK: BareStack<{ 16 << 10 }> = BareStack::new();
static LIVES: AtomicI32 = AtomicI32::new(0);

/// The process in which such a thread looks; zero for none. A child that is forked has none.
static LOOKS_IN: AtomicU32 = AtomicU32::new(0);

/// Whether a parent looks at this process, and all that descends from it.
static PARENT_LOOKS: AtomicBool = AtomicBool::new(false);

/// A parent looks: it has set the limit, and shares a record.
pub(super) fn leave_to_parent() {
    // Relaxed, here and below: written before `main`, or values that decide alone.
    PARENT_LOOKS.store(true, Ordering::Relaxed);
}

/// How many threads of this file's there are in this process.
pub(super) fn threads() -> u64 {
    u64::from(LOOKS_IN.load(Ordering::Relaxed) == sys::process::pid())
}

/// Whether thread `tid` is the one that looks.
pub(super) fn is_its(tid: u32) -> bool {
    LIVES.load(Ordering::Relaxed).cast_unsigned() == tid
}

/// Has this process looked at from now on, unless somebody does already. Once it is armed; and in a child of fork(2).
pub fn begin() {
    let is_wanted = armed().is_some_and(|armed| limit(armed).is_some());
    // valgrind runs no such threads.
    if !is_wanted || PARENT_LOOKS.load(Ordering::Relaxed) || sys::valgrind::is_running() {
        return;
    }
    let pid = sys::process::pid();
    if LOOKS_IN.swap(pid, Ordering::Relaxed) == pid {
        return;
    }
    // SAFETY: `look` keeps to what a bare thread may do; nobody is on the stack: the word above lets one thread of a process
    // through, and a forked child has a copy of its own.
    if !unsafe { bare::start(&STACK, &LIVES, look) } {
        LOOKS_IN.store(0, Ordering::Relaxed);
    }
}

fn limit(armed: &Armed) -> Option<u64> {
    if armed.measure == Measure::Resident { armed.limit.bytes() } else { None }
}

extern "C" fn look(_: *mut libc::c_void) -> i32 {
    let pid = sys::process::pid();
    let was_filtered = sys::process::is_filtered();
    let (mut pause, mut before, mut suspicion) = (AGAIN_MS, 0, Suspicion::default());
    let mut untouched = Untouched::default();
    loop {
        bare::sleep_ms(pause);
        let Some(armed) = armed() else { bare::end_thread() };
        // A filter of the program's own, set for all threads at once, may kill it for a call of ours.
        if filter::is_the_programs() || !was_filtered && sys::process::is_filtered() {
            LOOKS_IN.store(0, Ordering::Relaxed);
            bare::end_thread();
        }
        let mut text = [0; 4096];
        let used = bare::read_file(c"/proc/self/status", &mut text).map(MemoryUse::read).unwrap_or_default();
        let (Some(limit), Some(held)) = (limit(armed), used.held()) else {
            pause = pause_ms(u64::MAX, 0, 0, 1);
            continue;
        };
        pause = pause_ms(limit, held, held.saturating_sub(before), pause);
        before = held;
        let mut is_refused = false;
        if let Some(data) = used.data {
            untouched.note(data, held, sys::clock::monotonic_ms());
            bare::change_soft_limit_on_data(|now| {
                is_refused = tells_of_refusal(now.soft);
                // In a budget it follows the lease, which whoever keeps the ledger looks after.
                if lease::is_shared() { now.soft } else { settled(now, &untouched, limit) }
            });
        }
        match suspicion.look(limit, held, is_refused, sys::clock::monotonic_ms()) {
            Finding::Within => {}
            Finding::Suspected(ms) => pause = ms,
            Finding::Over => {
                let asked_ms = sys::clock::monotonic_ms();
                let share = bare::read_file(c"/proc/self/smaps_rollup", &mut text).and_then(share_held_of);
                if share.is_none_or(|share| share > most(limit)) {
                    tell(armed, pid);
                }
                suspicion.clear();
                // It shares it with others. The answer is dear.
                pause = ((sys::clock::monotonic_ms() - asked_ms) * 100).max(100);
            }
        }
    }
}

/// Has the process end. It does not come back, unless the process was over no more when it was told.
fn tell(armed: &Armed, pid: u32) {
    const OBEYS_WITHIN_MS: u64 = 50;
    const ENDS_WITHIN_MS: u64 = LAST_WORDS_DEADLINE_MS + 2000;
    bare::queue_signal(pid, libc::SIGABRT, TOLD);
    for waited_ms in 0..ENDS_WITHIN_MS {
        if waited_ms >= OBEYS_WITHIN_MS && !standing::is_anybody_dying(pid) {
            break;
        }
        bare::sleep_ms(1);
    }
    let mut text = [0; 4096];
    let used = bare::read_file(c"/proc/self/status", &mut text).map(MemoryUse::read).unwrap_or_default();
    if limit(armed).is_some_and(|limit| used.held().is_some_and(|held| held > most(limit))) {
        // Its handler was taken, or the signal is blocked.
        bare::end_process(armed.exit_code);
    }
}
