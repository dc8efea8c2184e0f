//! The constructor of a program that is not written in Rust, and the cases in which it stands down: then every name
//! passes on and nothing is judged.

use super::environment::{Variables, this_library};
use super::{
    breaks, ends, execs, faults, formatted, loading, messages, python, stalls, streams, threads, words,
};
use crate::contract::variable;
use crate::guard::armed::armed;
use crate::guard::settings::Settings;
use crate::guard::startup::{program_name, read_environment, set_up};
use crate::guard::{c_heap, lease, mappings, notes, onlooker, resident};
use crate::record::NOTE_NAME;
use crate::sys;
use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The constructor.
///
/// # Safety
/// Called by the loader, with what it hands to constructors.
pub unsafe extern "C" fn arm(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    static ARMED_ONCE: AtomicBool = AtomicBool::new(false);
    // Relaxed: constructors run one after the other in one thread.
    if ARMED_ONCE.swap(true, Ordering::Relaxed) {
        return;
    }
    sys::objects::with_known(resolve);
    // musl tells constructors nothing: what they get is whatever was in the registers.
    let (argc, argv, envp) =
        if sys::c_library::is_glibc() { (argc, argv, envp) } else { (1, program_words(), environment()) };
    if stands_down() || envp.is_null() {
        return;
    }
    // SAFETY: the loader's arguments.
    let program = unsafe { program_name(argc, argv) };
    // SAFETY: the environment that the loader made: C strings up to a null pointer.
    let environment = unsafe { read_environment(envp) };
    // SAFETY: the same array, on the writable stack; no other constructor runs meanwhile.
    let variables = unsafe { Variables::new(envp) };
    SAYS_LIMIT.store(environment.limit.is_some(), Ordering::Relaxed);
    // SAFETY: the flag above lets only one constructor through.
    if unsafe { set_up(&Settings::UNSET, &environment, program, None, || 0..0) }.is_none() {
        return;
    }
    if variables.is(variable::HINTED, b"1") {
        messages::expect_hinted();
    }
    variables.remove_closed_record();
    if variables.is(variable::INHERIT, b"0")
        && let Some(library) = this_library()
    {
        variables.remove_all_of_ours(library);
        execs::lift_limit_of_others();
    }
    OWNER.store(sys::process::pid(), Ordering::Relaxed);
    IS_IN_CHARGE.store(true, Ordering::Relaxed);
    notes::begin_only_here();
    faults::install();
    ends::watch_exit();
    onlooker::begin();
    sys::c_library::call_in_children(in_child);
}

/// The program's own name, in a list.
fn program_words() -> *const *const c_char {
    unsafe extern "C" {
        static program_invocation_name: *const c_char;
    }
    &raw const program_invocation_name
}

fn environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: set by the C library before constructors run, and nobody else runs yet.
    unsafe { environ }
}

static SAYS_LIMIT: AtomicBool = AtomicBool::new(false);

/// Whether the environment has set the limit, so that the program must not.
pub(super) fn environment_says_limit() -> bool {
    // Relaxed: written before `main`.
    SAYS_LIMIT.load(Ordering::Relaxed)
}

/// Asks the dynamic linker now, so that nobody has to later.
fn resolve() {
    c_heap::resolve();
    mappings::resolve();
    breaks::resolve();
    super::children::resolve();
    threads::resolve();
    messages::resolve();
    streams::resolve();
    formatted::resolve();
    words::resolve();
    ends::resolve();
    loading::resolve();
    execs::resolve();
    python::resolve();
    faults::resolve();
}

/// The program guards itself, or must not be touched, or another copy of this library is there already.
fn stands_down() -> bool {
    sys::process::has_raised_privileges() || sys::symbols::program_has_note(NOTE_NAME) || is_second_copy()
}

fn is_second_copy() -> bool {
    let base = |address| sys::objects::object_of(address).map(|(base, _)| base);
    let first = sys::symbols::first_definition(c"oomguard_version").and_then(base);
    first.is_some() && first != base(is_second_copy as *const () as usize)
}

/// A child of fork(2) starts with a clean slate.
extern "C" fn in_child() {
    // Relaxed: nobody else runs here yet.
    let parent = OWNER.swap(sys::process::pid(), Ordering::Relaxed);
    let _ = FILTERED.compare_exchange(parent, sys::process::pid(), Ordering::Relaxed, Ordering::Relaxed);
    if armed().is_some() {
        notes::begin();
        messages::forget();
        python::forget();
        stalls::forget();
        lease::begin_in_child();
        resident::settle_child();
        onlooker::begin();
    }
}

/// Whether this process is guarded by the library for other languages, and not by a guard of its own.
pub(in crate::guard) fn is_in_charge() -> bool {
    // Relaxed: written before `main`.
    IS_IN_CHARGE.load(Ordering::Relaxed)
}

static IS_IN_CHARGE: AtomicBool = AtomicBool::new(false);

/// Whether the program has set a filter for its own system calls, and so may be killed for one of ours. What it was
/// started under lets a program start, and so lets files be opened.
pub(in crate::guard) fn has_filter_of_its_own() -> bool {
    // Relaxed, here and below: set by the thread that makes the call, before it does.
    match FILTERED.load(Ordering::Relaxed) {
        0 => false,
        // A child of vfork(2) shares this memory, and what it does to itself is nobody else's.
        pid => pid == OWNER.load(Ordering::Relaxed) || pid == sys::process::pid(),
    }
}

pub(super) fn note_filter() {
    // While it may still be done.
    resident::stop_asking();
    FILTERED.store(sys::process::pid(), Ordering::Relaxed);
}

/// The process that has set a filter; zero for none.
static FILTERED: AtomicU32 = AtomicU32::new(0);

/// The process that this memory is of: one that was forked has it from its parent, filter and all.
static OWNER: AtomicU32 = AtomicU32::new(0);
