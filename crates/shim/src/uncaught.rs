//! `OOMGUARD_EXIT_ON_UNCAUGHT`: for services, in which an exhaustion that nobody handles ends a thread or a request, and the
//! rest goes on, full, and answers. What a JVM has as `ExitOnOutOfMemoryError`.
//!
//! Python tells by itself (`python/`). Ruby's threads say on stderr what they die of (`Thread#report_on_exception`). A C++
//! thread ends its process anyhow.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use oomguard_core::contract::{Cause, Evidence};
use oomguard_core::sys;
use oomguard_core::text::place_of;
use oomguard_engine::armed::{Armed, armed};
use oomguard_engine::exhaustion::{self, Own, Verdict};
use oomguard_engine::{notes, owner, refused, standing};

/// Whether the user wants it.
pub(super) fn ends_process() -> bool {
    armed().is_some_and(|armed| armed.exits_on_uncaught)
}

/// Ends the process, if something was refused in it.
pub(super) fn end(evidence: Evidence) {
    if let Some(armed) = armed().filter(|armed| armed.exits_on_uncaught)
        && owner::is_guarded()
        && refused::count() > 0
        && !standing::is_under_way()
    {
        end_now(armed, evidence);
    }
}

fn end_now(armed: &Armed, evidence: Evidence) {
    let noted = notes::requested().or_else(notes::mapped).map(|noted| (noted.cause, noted.request()));
    let (cause, request) = match noted.or_else(refused::last_here) {
        Some((cause, request)) => (cause, Some(request)),
        None => (Cause::Heap, None),
    };
    exhaustion::end(armed, Verdict { cause, request, evidence, own: Own::Unknown });
}

/// The thread that has said that it dies of an exception, and is about to say of which. Relaxed: a thread looks for its own
/// number, which no other stores.
static DYING: AtomicU32 = AtomicU32::new(0);

/// The program says something on stderr or stdout, after a refusal.
pub(super) fn hear(message: &[u8]) {
    if !ends_process() {
        return;
    }
    let says = |words: &[u8]| place_of(message, words).is_some();
    if says(b" terminated with exception (report_on_exception is true)") {
        DYING.store(sys::process::tid(), Relaxed);
    }
    if DYING.load(Relaxed) == sys::process::tid() && says(b"NoMemoryError") {
        end(Evidence::Said);
    }
}
