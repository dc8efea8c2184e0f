//! The constructor of a program that is not written in Rust, and the cases in which it stands down: then every name
//! passes on and nothing is judged.

use super::environment::{Variables, this_library};
use super::{
    breaks, ends, execs, faults, filter, formatted, handlers, leaving, messages, overheard, python, stalls,
    streams, threads, words,
};
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicBool, Ordering};
use oomguard_core::contract::variable;
use oomguard_core::record::NOTE_NAME;
use oomguard_core::sys;
use oomguard_core::sys::objects::Name;
use oomguard_engine::armed::armed;
use oomguard_engine::library::{Library, take_charge};
use oomguard_engine::settings::Settings;
use oomguard_engine::startup::{program_name, read_environment, set_up};
use oomguard_engine::{asked, c_heap, dlopen, mappings, notes, onlooker, thrown};

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
    let stands_down = sys::objects::with_known(|| {
        resolve();
        stands_down()
    });
    // musl tells constructors nothing: what they get is whatever was in the registers.
    let (argc, argv, envp) =
        if sys::c_library::is_glibc() { (argc, argv, envp) } else { (1, program_words(), environment()) };
    if stands_down || envp.is_null() {
        return;
    }
    // SAFETY: the loader's arguments.
    let program = unsafe { program_name(argc, argv) };
    // SAFETY: the environment that the loader made: C strings up to a null pointer.
    let environment = unsafe { read_environment(envp) };
    // SAFETY: the same array, on the writable stack; no other constructor runs meanwhile.
    let variables = unsafe { Variables::new(envp) };
    SAYS_LIMIT.store(environment.of(variable::LIMIT).is_some(), Ordering::Relaxed);
    // SAFETY: the flag above lets only one constructor through.
    if unsafe { set_up(&Settings::UNSET, &environment, program, None, || 0..0) }.is_none() {
        return;
    }
    if environment.of(variable::HINTED) == Some(b"1") {
        messages::expect_hinted();
    }
    if environment.of(variable::RECORD).is_some_and(|place| place.starts_with(b"fd:")) {
        variables.remove_closed_record();
    }
    if environment.of(variable::INHERIT) == Some(b"0")
        && let Some(library) = this_library()
    {
        variables.remove_all_of_ours(library);
        execs::lift_limit_of_others();
    }
    filter::begin();
    take_charge(&ANSWERS);
    notes::begin_only_here();
    faults::install();
    leaving::watch_exit();
    onlooker::begin();
    if let Some(program) = sys::process::entry_address() {
        thrown::watch(program, messages::note_thrown);
    }
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
    mappings::resolve_allocation();
    breaks::resolve();
    super::children::resolve();
    threads::resolve();
    messages::resolve();
    overheard::resolve();
    streams::resolve();
    formatted::resolve();
    words::resolve();
    ends::resolve();
    leaving::resolve();
    handlers::resolve();
    dlopen::resolve();
    dlopen::resolve_dlsym();
    execs::resolve();
    python::resolve(ends::has_said_so);
}

/// The program guards itself, or must not be touched, or another copy of this library is there already.
fn stands_down() -> bool {
    sys::process::has_raised_privileges() || sys::symbols::program_has_note(NOTE_NAME) || is_second_copy()
}

fn is_second_copy() -> bool {
    of_first_copy(c"oomguard_version").is_some()
}

/// The function of another copy of this library, where that is the one which everybody gets.
pub(super) fn of_first_copy(name: &CStr) -> Option<usize> {
    let base = |address| sys::objects::object_of(address).map(|(base, _)| base);
    let first = sys::symbols::first_definition(Name::new(name))?;
    let base_of_first = base(first)?;
    (Some(base_of_first) != base(of_first_copy as *const () as usize)).then_some(first)
}

/// A child of fork(2) starts with a clean slate.
extern "C" fn in_child() {
    filter::begin_in_child();
    overheard::begin_in_child();
    if armed().is_some() {
        notes::begin();
        messages::forget();
        python::forget();
        stalls::forget();
        asked::begin_in_child();
        handlers::hold_in_child();
        onlooker::begin();
    }
}

/// What the guard asks from now on.
static ANSWERS: Library = Library {
    has_filter: filter::is_set,
    is_finding_out: python::is_inside,
    note_for_stall: stalls::note,
    listen: || {
        python::note_refusal();
        messages::note_refusal();
    },
};
