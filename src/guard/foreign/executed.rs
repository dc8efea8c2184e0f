//! exec and posix_spawn: a program that cannot have this library is to see nothing of it, neither a line of the dynamic
//! linker's nor our variables: one for another machine or C library, one with a sanitizer, one that more rights keep us
//! out of, and any in a root directory where the library is not. With `OOMGUARD_INHERIT=0` no program is to have our
//! limit either.
//!
//! It may be a child of vfork(2) that executes, on its parent's stack and with its parent's memory: all that is made here
//! lies on the stack, and nothing that outlives the call is written.

use super::environment::{PRELOAD, is_library, take_out_of_list, this_library, value_of};
use crate::guard::armed::armed;
use crate::guard::real::{Real, call_real, weak};
use crate::guard::startup::c_string;
use crate::program_file::{Kind, kind_of};
use crate::sys;
use crate::sys::memory::{Rlimit, replaced_soft_limit, rlimit, set_rlimit};
use crate::text::Text;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicBool, Ordering};

type Strings = *const *const c_char;
type Execve = unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int;
type Spawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const c_char,
    *const libc::posix_spawn_file_actions_t,
    *const libc::posix_spawnattr_t,
    Strings,
    Strings,
) -> c_int;

static EXECVE: Real = Real::new(c"execve");
static EXECVPE: Real = Real::new(c"execvpe");
static SPAWN: Real = Real::new(c"posix_spawn");
static SPAWNP: Real = Real::new(c"posix_spawnp");

weak!(
    oomguard_table_of_execve "__execve",
    oomguard_table_of_execvpe "__execvpe",
    oomguard_table_of_posix_spawn "__posix_spawn",
    oomguard_table_of_posix_spawnp "__posix_spawnp"
);

/// The next definition; or, in a static program, the C library's other name for it.
macro_rules! real_or_weak {
    ($real:expr, $weak:expr, $signature:ty) => {
        call_real!($real, $signature).or_else(|| {
            // SAFETY: the C library's function of this name has this signature.
            $weak.map(|function| unsafe {
                core::mem::transmute::<unsafe extern "C" fn(), $signature>(function)
            })
        })
    };
}

pub(super) fn resolve() {
    for real in [&EXECVE, &EXECVPE, &SPAWN, &SPAWNP] {
        let _ = real.address();
    }
}

static LIFTS_LIMIT: AtomicBool = AtomicBool::new(false);

/// What this process executes is not to have its limit.
pub(super) fn lift_limit_of_others() {
    // Relaxed, here and below: written before `main`.
    LIFTS_LIMIT.store(true, Ordering::Relaxed);
}

unsafe extern "C" {
    static environ: Strings;
}

fn current_environment() -> Strings {
    // SAFETY: the C library's own, which only the program changes.
    unsafe { environ }
}

fn no_such_function() -> c_int {
    sys::fd::set_errno(libc::ENOSYS);
    -1
}

/// execve(2).
///
/// # Safety
/// That of execve(2).
pub unsafe fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    let Some(real) = real_or_weak!(EXECVE, oomguard_table_of_execve, Execve) else {
        return no_such_function();
    };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let call = |environment| unsafe { real(path, arguments, environment) };
    // SAFETY: by contract.
    unsafe { pass_on(path, false, environment, call) }
}

/// execv(3).
///
/// # Safety
/// That of execv(3).
pub unsafe fn execv(path: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: by contract.
    unsafe { execve(path, arguments, current_environment()) }
}

/// execvpe(3).
///
/// # Safety
/// That of execvpe(3).
pub unsafe fn execvpe(file: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    let Some(real) = real_or_weak!(EXECVPE, oomguard_table_of_execvpe, Execve) else {
        return no_such_function();
    };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let call = |environment| unsafe { real(file, arguments, environment) };
    // SAFETY: by contract.
    unsafe { pass_on(file, true, environment, call) }
}

/// execvp(3).
///
/// # Safety
/// That of execvp(3).
pub unsafe fn execvp(file: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: by contract.
    unsafe { execvpe(file, arguments, current_environment()) }
}

/// posix_spawn(3).
///
/// # Safety
/// That of posix_spawn(3).
pub unsafe fn posix_spawn(
    pid: *mut libc::pid_t,
    path: *const c_char,
    actions: *const libc::posix_spawn_file_actions_t,
    attributes: *const libc::posix_spawnattr_t,
    arguments: Strings,
    environment: Strings,
) -> c_int {
    let Some(real) = real_or_weak!(SPAWN, oomguard_table_of_posix_spawn, Spawn) else { return libc::ENOSYS };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let call = |environment| unsafe { real(pid, path, actions, attributes, arguments, environment) };
    // SAFETY: by contract.
    unsafe { pass_on(path, false, environment, call) }
}

/// posix_spawnp(3).
///
/// # Safety
/// That of posix_spawnp(3).
pub unsafe fn posix_spawnp(
    pid: *mut libc::pid_t,
    file: *const c_char,
    actions: *const libc::posix_spawn_file_actions_t,
    attributes: *const libc::posix_spawnattr_t,
    arguments: Strings,
    environment: Strings,
) -> c_int {
    let Some(real) = real_or_weak!(SPAWNP, oomguard_table_of_posix_spawnp, Spawn) else {
        return libc::ENOSYS;
    };
    // SAFETY: the arguments are the caller's, whose contract is the same.
    let call = |environment| unsafe { real(pid, file, actions, attributes, arguments, environment) };
    // SAFETY: by contract.
    unsafe { pass_on(file, true, environment, call) }
}

/// Makes the call with the environment that suits the program.
///
/// # Safety
/// `file` is null or a C string, and `environment` null or an array of C strings up to a null pointer, as for execve(2).
unsafe fn pass_on(
    file: *const c_char,
    in_path: bool,
    environment: Strings,
    call: impl FnOnce(Strings) -> c_int,
) -> c_int {
    if file.is_null() || environment.is_null() {
        return call(environment);
    }
    let errno = sys::fd::errno();
    // SAFETY: by contract.
    let file = unsafe { CStr::from_ptr(file) };
    // SAFETY: by contract.
    let entrance = this_library()
        .filter(|library| unsafe { preloads(environment, library) })
        .map_or(Entrance::Open, |library| entrance_of(file, in_path, library));
    let lifted = if entrance == Entrance::WithoutLimit || LIFTS_LIMIT.load(Ordering::Relaxed) {
        lift_limit()
    } else {
        None
    };
    let mut room = Room::new();
    let without = match this_library() {
        // SAFETY: by contract.
        Some(library) if entrance != Entrance::Open => unsafe { room.without_ours(environment, library) },
        _ => None,
    };
    sys::fd::set_errno(errno);
    let result = call(without.unwrap_or(environment));
    if let Some((resource, before)) = lifted {
        let errno = sys::fd::errno();
        set_rlimit(resource, before);
        sys::fd::set_errno(errno);
    }
    result
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entrance {
    Open,
    Closed,
    /// It cannot live under a limit either.
    WithoutLimit,
}

fn entrance_of(file: &CStr, in_path: bool, library: &CStr) -> Entrance {
    let mut found = Text::<4096>::new();
    let Some(path) = (if in_path { in_search_path(file, &mut found) } else { Some(file) }) else {
        return Entrance::Open;
    };
    if !sys::fd::can_read(library) || sys::fd::raises_privileges(path) {
        return Entrance::Closed;
    }
    match kind_of(path) {
        Kind::Sanitized => Entrance::WithoutLimit,
        Kind::Foreign => Entrance::Closed,
        Kind::Native | Kind::Static | Kind::Unknown => Entrance::Open,
    }
}

/// The file that execvp(3) would find.
fn in_search_path<'a>(file: &'a CStr, found: &'a mut Text<4096>) -> Option<&'a CStr> {
    if file.to_bytes().contains(&b'/') {
        return Some(file);
    }
    // SAFETY: the C library's environment, an array of C strings.
    let path = unsafe { entries(current_environment()) }.find_map(|entry| value_of(entry, "PATH"));
    for directory in path.unwrap_or(b"/bin:/usr/bin").split(|byte| *byte == b':') {
        found.truncate(0);
        found.push_bytes(if directory.is_empty() { b"." } else { directory });
        found.push("/");
        found.push_bytes(file.to_bytes_with_nul());
        let is_it = |path: &[u8]| CStr::from_bytes_with_nul(path).is_ok_and(sys::fd::can_execute);
        if !found.is_cut() && is_it(found.as_bytes()) {
            return CStr::from_bytes_with_nul(found.as_bytes()).ok();
        }
    }
    None
}

/// # Safety
/// An array of C strings up to a null pointer, none of which is changed while the iterator is used.
unsafe fn entries(array: Strings) -> impl Iterator<Item = &'static [u8]> {
    let mut next = array;
    core::iter::from_fn(move || {
        // SAFETY: not past the null pointer.
        let entry = unsafe { next.read() };
        if entry.is_null() {
            return None;
        }
        // SAFETY: as above.
        next = unsafe { next.add(1) };
        // SAFETY: a C string by contract.
        Some(unsafe { c_string(entry) })
    })
}

/// # Safety
/// As for `entries`.
unsafe fn preloads(environment: Strings, library: &CStr) -> bool {
    // SAFETY: by contract.
    unsafe { entries(environment) }
        .filter_map(|entry| value_of(entry, PRELOAD))
        .any(|list| list.split(|byte| b": ".contains(byte)).any(|name| is_library(name, library.to_bytes())))
}

const MOST_ENTRIES: usize = 640;

/// An environment without us, where it has no more entries than this and no longer list of libraries.
struct Room {
    entries: [*const c_char; MOST_ENTRIES + 1],
    list: [u8; 2048],
}

impl Room {
    fn new() -> Room {
        Room { entries: [core::ptr::null(); MOST_ENTRIES + 1], list: [0; 2048] }
    }

    /// # Safety
    /// As for `entries`.
    unsafe fn without_ours(&mut self, environment: Strings, library: &CStr) -> Option<Strings> {
        let mut kept = 0;
        // SAFETY: by contract.
        for entry in unsafe { entries(environment) } {
            let mut at = entry.as_ptr().cast::<c_char>();
            if entry.starts_with(b"OOMGUARD_") {
                continue;
            }
            if let Some(list) = value_of(entry, PRELOAD) {
                let value_at = entry.len() - list.len();
                self.list.get_mut(..entry.len())?.copy_from_slice(entry);
                let copy = self.list.get_mut(value_at..=entry.len())?;
                // SAFETY: the copy's value and a NUL, which are this structure's own.
                unsafe { take_out_of_list(copy.as_mut_ptr(), list.len(), library.to_bytes()) };
                if copy.first() == Some(&0) {
                    continue;
                }
                at = self.list.as_ptr().cast();
            }
            // The last slot stays null.
            *self.entries.get_mut(..MOST_ENTRIES)?.get_mut(kept)? = at;
            kept += 1;
        }
        Some(self.entries.as_ptr())
    }
}

/// Gives this process, for the length of a call, the limit that it had before; what to set again.
fn lift_limit() -> Option<(sys::memory::Resource, Rlimit)> {
    let measure = armed()?.measure;
    let before = replaced_soft_limit(measure)?;
    let now = rlimit(measure.into());
    let lifted = Rlimit { soft: before, hard: now.hard };
    (lifted != now && set_rlimit(measure.into(), lifted)).then_some((measure.into(), now))
}
