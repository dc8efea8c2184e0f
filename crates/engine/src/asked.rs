//! What a parent or an onlooker asks of this process by a signal: to end, as it holds too much, or as the budget is short; or to stand
//! still for a moment, as nobody may trace it who would hold it.

use super::armed::Armed;
use super::exhaustion::{self, Own, Verdict};
use super::standing::{self, Standing};
use super::{filter, lease, loading, resident};
use oomguard_core::contract::{Cause, Evidence};
use oomguard_core::overrun;
use oomguard_core::sys;
use oomguard_core::sys::memory::memory_use;

/// SIGABRT has come: ends the process, if it was sent as this process is over its limit, and it is. True: it was sent for that.
pub fn heed(armed: &Armed, info: &libc::siginfo_t) -> bool {
    // SAFETY: a queued signal has a value; of any other these are bytes all the same.
    let value = unsafe { info.si_value() }.sival_ptr as u64;
    if info.si_code == libc::SI_QUEUE && value == overrun::ASKED_TO_LEAVE {
        if standing::here() == Standing::Alive && lease::leaves() {
            let (cause, evidence, own) = (Cause::AskedToLeave, Evidence::Exact, Own::Unknown);
            exhaustion::end(armed, Verdict { cause, request: None, evidence, own });
        }
        return true;
    }
    let is_told = info.si_code == libc::SI_QUEUE && value == overrun::TOLD;
    let Some(limit) = resident::limit(armed).filter(|_| is_told) else { return false };
    // Whoever says the last words goes on.
    if standing::here() == Standing::Alive {
        end_if_over(armed, limit);
    }
    true
}

/// The handler of `STILL_SIGNAL`.
pub const STAND_STILL: sys::signals::Handler = stand_still;

/// This process shares a budget, and stands still when it is told to, unless that signal is the program's. Whether it does.
pub fn heed_stillness() -> bool {
    let now = sys::signals::disposition(overrun::STILL_SIGNAL).sa_sigaction;
    let is_ours = now == STAND_STILL as *const () as usize;
    let may = now == libc::SIG_DFL || is_ours;
    let heeds = lease::set_heeds_stillness(may) && may;
    if heeds && !is_ours {
        sys::signals::install(overrun::STILL_SIGNAL, STAND_STILL);
    }
    heeds
}

/// This process, a child that was just forked, has a part of its own in the budget, if its parent had one.
pub extern "C" fn begin_in_child() {
    if lease::is_shared() {
        lease::begin_in_child();
        heed_stillness();
    }
    loading::forget();
    resident::settle_child();
}

/// `STILL_SIGNAL` has come: this thread stands still as long as the launcher wants it to, and is there. Whoever dies goes on.
extern "C" fn stand_still(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    /// The launcher lets everybody go on before this.
    const MOST_MS: u64 = 6000;
    const PAUSE_MS: u64 = 2;
    // SAFETY: null, or what the kernel hands to a handler.
    let told = unsafe { info.as_ref() }.filter(|info| info.si_code == libc::SI_QUEUE);
    // SAFETY: a queued signal has a value.
    let value = told.map(|info| unsafe { info.si_value() }.sival_ptr as u64);
    if value != Some(overrun::STAND_STILL) || !filter::may_ask() {
        return;
    }
    let errno = sys::errno::errno();
    let since_ms = sys::clock::monotonic_ms();
    while lease::is_to_stand_still()
        && !standing::is_under_way()
        && sys::clock::monotonic_ms() - since_ms < MOST_MS
    {
        sys::clock::sleep_ms(PAUSE_MS);
    }
    sys::errno::set_errno(errno);
}

/// What others share of it may explain that it holds too much.
fn end_if_over(armed: &Armed, limit: u64) {
    let most = overrun::most(limit);
    let is_over = memory_use().held().is_some_and(|held| held > most)
        && sys::memory::share_held().is_none_or(|share| share > most);
    if is_over {
        let (cause, evidence, own) = (Cause::Resident, Evidence::Exact, Own::Unknown);
        exhaustion::end_for_certain(armed, Verdict { cause, request: None, evidence, own });
    }
}
