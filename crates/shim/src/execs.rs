//! The moment before this process, or a child of its, becomes another program: execve(2) and its kin, posix_spawn(3).
//!
//! A program that this library does not get into is followed from outside, if there is a supervisor that does so: it has
//! to be asked before. One whose dynamic linker cannot load this library sees nothing of it, neither a line of the linker's
//! nor our variables: one for another machine or C library, one with a sanitizer, one that more rights keep us out of, and
//! any in a root directory where the library is not. With `OOMGUARD_INHERIT=0` none has our limit. Of any other it is noted that
//! it is being loaded: if it has no room for that, it ends before there is a guard in it.
//!
//! All of it may run in a child of vfork(2): on the parent's stack, in the parent's memory.

use super::environment::{PRELOAD, is_library, take_out_of_list, this_library, value_of};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use oomguard_core::contract::BECOME;
use oomguard_core::record::Becoming;
use oomguard_core::sys;
use oomguard_core::sys::image::Image;
use oomguard_core::sys::memory::{Resource, Rlimit, replaced_soft_limit, rlimit, set_rlimit};
use oomguard_core::text::{Text, parts};
use oomguard_core::weak;
use oomguard_engine::armed::armed;
use oomguard_engine::call_real;
use oomguard_engine::real::Real;
use oomguard_engine::resident::{For, limit_at_start, while_becoming, while_starting};
use oomguard_engine::{lease, library, record};

type List = *const *const c_char;
type Execve = unsafe extern "C" fn(*const c_char, List, List) -> c_int;
type Spawn =
    unsafe extern "C" fn(*mut libc::pid_t, *const c_char, *const c_void, *const c_void, List, List) -> c_int;

static EXECVE: Real = Real::new(c"execve");
static EXECVPE: Real = Real::new(c"execvpe");
static POSIX_SPAWN: Real = Real::new(c"posix_spawn");
static POSIX_SPAWNP: Real = Real::new(c"posix_spawnp");

weak!(
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

static LIFTS_LIMIT: AtomicBool = AtomicBool::new(false);

/// What this process executes is not to have its limit.
pub(super) fn lift_limit_of_others() {
    // Relaxed, here and below: written before `main`.
    LIFTS_LIMIT.store(true, Ordering::Relaxed);
}

unsafe extern "C" {
    /// The program's environment: environ(7).
    static environ: List;
}

pub(super) fn resolve() {
    for real in [&EXECVE, &EXECVPE, &POSIX_SPAWN, &POSIX_SPAWNP] {
        let _ = real.address();
    }
}

/// execve(2).
///
/// # Safety
/// That of execve(2).
pub unsafe fn execve(path: *const c_char, arguments: List, environment: List) -> c_int {
    let Some(real) = call_real!(EXECVE, Execve) else {
        // SAFETY: the system call behind it, with the caller's arguments.
        return unsafe { libc::syscall(libc::SYS_execve, path, arguments, environment) as c_int };
    };
    // SAFETY: the caller's arguments, but for an environment that is as good.
    let exec = |environment| unsafe { real(path, arguments, environment) };
    // SAFETY: the caller's arguments.
    unsafe { become_it(path, environment, find_nowhere, exec) }
}

/// execv(3).
///
/// # Safety
/// That of execv(3).
pub unsafe fn execv(path: *const c_char, arguments: List) -> c_int {
    // SAFETY: the caller's arguments, and the environment as execv(3) takes it.
    unsafe { execve(path, arguments, environ) }
}

/// execle(3), by a list of its arguments: the environment is behind the null pointer that ends them.
///
/// # Safety
/// That of execle(3).
pub unsafe fn execve_as_told_behind(path: *const c_char, arguments: List) -> c_int {
    // SAFETY: a list, by contract.
    let count = unsafe { entries(arguments) }.count();
    // SAFETY: what follows its end, by contract.
    let environment = unsafe { arguments.add(count + 1) };
    // SAFETY: as above.
    let environment = unsafe { environment.read() };
    // SAFETY: the caller's arguments.
    unsafe { execve(path, arguments, environment.cast()) }
}

/// execvpe(3).
///
/// # Safety
/// That of execvpe(3).
pub unsafe fn execvpe(name: *const c_char, arguments: List, environment: List) -> c_int {
    let Some(real) = real_or_weak!(EXECVPE, oomguard_table_of_execvpe, Execve) else {
        sys::errno::set_errno(libc::ENOSYS);
        return -1;
    };
    // SAFETY: the caller's arguments, but for an environment that is as good.
    let exec = |environment| unsafe { real(name, arguments, environment) };
    // SAFETY: the caller's arguments.
    unsafe { become_it(name, environment, find_in_path, exec) }
}

/// execvp(3).
///
/// # Safety
/// That of execvp(3).
pub unsafe fn execvp(name: *const c_char, arguments: List) -> c_int {
    // SAFETY: the caller's arguments, and the environment as execvp(3) takes it.
    unsafe { execvpe(name, arguments, environ) }
}

/// posix_spawn(3).
///
/// # Safety
/// That of posix_spawn(3).
pub unsafe fn posix_spawn(
    pid: *mut libc::pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: List,
    environment: List,
) -> c_int {
    let Some(real) = real_or_weak!(POSIX_SPAWN, oomguard_table_of_posix_spawn, Spawn) else {
        return libc::ENOSYS;
    };
    // SAFETY: the caller's arguments, but for a path, lists and a number that are as good.
    let spawn =
        |pid, path, list, environment| unsafe { real(pid, path, actions, attributes, list, environment) };
    // SAFETY: the caller's arguments.
    unsafe { start_it(pid, path, arguments, environment, find_nowhere, spawn) }
}

/// posix_spawnp(3).
///
/// # Safety
/// That of posix_spawnp(3).
pub unsafe fn posix_spawnp(
    pid: *mut libc::pid_t,
    name: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: List,
    environment: List,
) -> c_int {
    let Some(real) = real_or_weak!(POSIX_SPAWNP, oomguard_table_of_posix_spawnp, Spawn) else {
        return libc::ENOSYS;
    };
    // SAFETY: the caller's arguments, but for a path, lists and a number that are as good.
    let spawn =
        |pid, name, list, environment| unsafe { real(pid, name, actions, attributes, list, environment) };
    // SAFETY: the caller's arguments.
    unsafe { start_it(pid, name, arguments, environment, find_in_path, spawn) }
}

type Path = Text<1024>;
type Find = fn(&CStr) -> Option<Path>;

/// This process becomes the program, unless `exec` comes back.
///
/// # Safety
/// `name` is null or a C string, `environment` null or a list of them.
unsafe fn become_it(
    name: *const c_char,
    environment: List,
    find: Find,
    exec: impl Fn(List) -> c_int,
) -> c_int {
    // SAFETY: by contract.
    let Some((path, image)) = (unsafe { program(name, find) }) else { return exec(environment) };
    let lifted = lift_limit_before(image);
    let heeds = heeds_environment(&path, image);
    let path = path.as_bytes().strip_suffix(b"\0").unwrap_or_default();
    // SAFETY: by contract.
    let whom = unsafe { whom(image, environment) };
    let exec = |environment| while_becoming(whom, || exec(environment));
    let result = match image {
        Image::Sanitized => {
            record::note_becoming(Becoming::Unguarded, path);
            // SAFETY: by contract.
            unsafe { without_library(environment, &exec) }
        }
        Image::Preloads if !library_is_there() => {
            record::note_becoming(Becoming::Unguarded, path);
            // SAFETY: by contract.
            unsafe { without_library(environment, &exec) }
        }
        Image::Preloads => {
            record::note_becoming(Becoming::Guarded, path);
            exec(environment)
        }
        Image::Static | Image::CallsByItself => {
            record::note_becoming(Becoming::Unguarded, path);
            ask_to_be_followed();
            exec(environment)
        }
        Image::OtherLinker | Image::Foreign => {
            record::note_becoming(Becoming::Unguarded, path);
            if image == Image::OtherLinker {
                ask_to_be_followed();
            }
            // SAFETY: by contract.
            unsafe { without_library(environment, &exec) }
        }
        Image::Privileged => {
            record::note_becoming(Becoming::Unguarded, path);
            // SAFETY: by contract.
            if heeds { exec(environment) } else { unsafe { without_library(environment, &exec) } }
        }
    };
    set_back(lifted);
    // It has not come about.
    record::note_becoming(Becoming::Nothing, b"");
    result
}

/// The same for a child of this process's, in which nothing of ours runs: where it has to ask for something, the record's
/// keeper is started in its place, which becomes it. Whoever else shares a budget is told of one that cannot ask.
///
/// # Safety
/// As for `become_it`; `list` is null or a list of C strings, `pid` null or writable: `spawn` writes the child's number there.
unsafe fn start_it(
    pid: *mut libc::pid_t,
    name: *const c_char,
    list: List,
    environment: List,
    find: Find,
    spawn: impl Fn(*mut libc::pid_t, *const c_char, List, List) -> c_int,
) -> c_int {
    let mut own = 0;
    let pid = if pid.is_null() { &raw mut own } else { pid };
    // SAFETY: by contract.
    let program = unsafe { program(name, find) };
    let whom = match &program {
        // SAFETY: by contract.
        Some((_, image)) => unsafe { whom(*image, environment) },
        None => For::Unguarded,
    };
    let spawn = |name, list, environment| while_starting(whom, || spawn(pid, name, list, environment));
    let mut asks_by_keeper = false;
    let lifted = program.and_then(|(_, image)| lift_limit_before(image));
    let result = match program {
        // SAFETY: by contract.
        Some((_, Image::OtherLinker | Image::Foreign | Image::Sanitized)) => unsafe {
            without_library(environment, &|environment| spawn(name, list, environment))
        },
        // SAFETY: by contract.
        Some((_, Image::Preloads)) if !library_is_there() => unsafe {
            without_library(environment, &|environment| spawn(name, list, environment))
        },
        // SAFETY: by contract.
        Some((path, image)) if !heeds_environment(&path, image) => unsafe {
            without_library(environment, &|environment| spawn(name, list, environment))
        },
        Some((path, Image::Static | Image::CallsByItself))
            if is_to_be_followed() && has_room_for_keeper() =>
        {
            // SAFETY: by contract.
            let result = unsafe { by_keeper(&path, list, &|name, list| spawn(name, list, environment)) };
            asks_by_keeper = result.is_some();
            result.unwrap_or_else(|| spawn(name, list, environment))
        }
        _ => spawn(name, list, environment),
    };
    set_back(lifted);
    if result == 0 && whom == For::Unguarded && !asks_by_keeper {
        let errno = sys::errno::errno();
        // SAFETY: the call has just written it.
        lease::note_outside(unsafe { pid.read() }.unsigned_abs());
        sys::errno::set_errno(errno);
    }
    result
}

/// What has no limit of ours is none of our business.
fn is_to_be_followed() -> bool {
    !LIFTS_LIMIT.load(Ordering::Relaxed)
}

fn ask_to_be_followed() {
    if is_to_be_followed() {
        record::ask_to_be_followed();
    }
}

/// Whether the program's dynamic linker loads what the environment says: to root, most set-user-ID programs are as any other.
fn heeds_environment(path: &Path, image: Image) -> bool {
    // SAFETY: takes nothing and cannot fail.
    let is_root = || unsafe { libc::geteuid() } == 0;
    let changes = || CStr::from_bytes_until_nul(path.as_bytes()).is_ok_and(sys::image::changes_user);
    image != Image::Privileged || is_root() && !changes()
}

/// Whether this library can be loaded from where the program will look for it: not after chroot(2), say.
fn library_is_there() -> bool {
    this_library().is_none_or(sys::fd::can_read)
}

/// Gives this process, for the length of a call, the limit that it had before; what to set again. For a parent of
/// posix_spawn(3) that is a moment without a limit; after it, the child would have begun with one.
fn lift_limit_before(image: Image) -> Option<(Resource, Rlimit)> {
    if image != Image::Sanitized && !LIFTS_LIMIT.load(Ordering::Relaxed) {
        return None;
    }
    let measure = armed()?.measure;
    let before = replaced_soft_limit(measure)?;
    let now = rlimit(measure.into());
    let lifted = Rlimit { soft: before, hard: now.hard };
    let errno = sys::errno::errno();
    let is_lifted = lifted != now && set_rlimit(measure.into(), lifted);
    sys::errno::set_errno(errno);
    is_lifted.then_some((measure.into(), now))
}

fn set_back(lifted: Option<(Resource, Rlimit)>) {
    if let Some((resource, limit)) = lifted {
        let errno = sys::errno::errno();
        set_rlimit(resource, limit);
        sys::errno::set_errno(errno);
    }
}

/// Whether the keeper's program, which is larger than what it is started for, can be loaded: it needs a tenth of that.
fn has_room_for_keeper() -> bool {
    let has = |resource, bytes| rlimit(resource).soft.is_none_or(|soft| soft >= bytes);
    // The soft limit of a moment says nothing where it moves.
    let has_data =
        |bytes| limit_at_start().map_or_else(|| has(Resource::Data, bytes), |limit| limit >= bytes);
    has(Resource::AddressSpace, 256 << 20) && has_data(32 << 20)
}

/// Starts the keeper, which becomes the program. `None`: there is none, or none that would be guarded and so could ask.
///
/// # Safety
/// As for `entries`.
#[inline(never)]
unsafe fn by_keeper(path: &Path, list: List, spawn: &impl Fn(*const c_char, List) -> c_int) -> Option<c_int> {
    const MOST_WORDS: usize = 1024;
    const BEFORE: usize = 3;
    let keeper = record::keepers_program()?;
    let program = CStr::from_bytes_until_nul(keeper.as_bytes()).ok()?;
    let path = CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
    // SAFETY: a C string that outlives the call.
    let may_execute = unsafe { libc::access(path.as_ptr(), libc::X_OK) } == 0;
    if !may_execute || sys::image::look(program) != Some(Image::Preloads) {
        return None;
    }
    let mut words = [core::ptr::null::<c_char>(); MOST_WORDS];
    let ours = [program, BECOME, path].map(CStr::as_ptr);
    // SAFETY: by contract.
    let theirs = unsafe { entries(list) }.map(CStr::as_ptr);
    for (count, word) in ours.into_iter().chain(theirs).enumerate() {
        match words.get_mut(count) {
            // The last one stays null: the list's end.
            Some(slot) if count + 1 < MOST_WORDS => *slot = word,
            _ => return None,
        }
    }
    // Without a name of its own it would take its path for that.
    (!words.get(BEFORE)?.is_null()).then(|| spawn(program.as_ptr(), words.as_ptr()))
}

/// Whether this library gets into a program of that kind, and takes over there.
///
/// # Safety
/// As for `entries`.
unsafe fn whom(image: Image, environment: List) -> For {
    let is_ours = |place: &[u8]| this_library().is_some_and(|library| library.to_bytes() == place);
    // SAFETY: by contract.
    let list = unsafe { variable(environment, PRELOAD) }.unwrap_or_default();
    let is_preloaded = list.split(|byte| matches!(byte, b':' | b' ')).any(is_ours);
    let is_lifted = image == Image::Sanitized || LIFTS_LIMIT.load(Ordering::Relaxed);
    if is_lifted || image == Image::Preloads && is_preloaded && library_is_there() {
        For::Guarded
    } else {
        For::Unguarded
    }
}

/// # Safety
/// As for `become_it`.
unsafe fn program(name: *const c_char, find: Find) -> Option<(Path, Image)> {
    if name.is_null() || library::in_charge().is_none() {
        return None;
    }
    // SAFETY: a C string, by contract.
    let path = find(unsafe { CStr::from_ptr(name) })?;
    let image = sys::image::look(CStr::from_bytes_until_nul(path.as_bytes()).ok()?)?;
    Some((path, image))
}

fn find_nowhere(path: &CStr) -> Option<Path> {
    let path = Text::from_bytes(path.to_bytes_with_nul());
    (!path.is_cut()).then_some(path)
}

/// As execvp(3) does: a name with a slash as it is, any other in PATH.
fn find_in_path(name: &CStr) -> Option<Path> {
    if name.to_bytes().contains(&b'/') {
        return find_nowhere(name);
    }
    // SAFETY: the environment is a list of C strings that nobody changes while it is used to start a program.
    let list = unsafe { variable(environ, "PATH") }.unwrap_or(b"/bin:/usr/bin");
    parts(list, b':').find_map(|place| {
        let mut path = Text::from_bytes(if place.is_empty() { b"." } else { place });
        path.push("/");
        path.push_bytes(name.to_bytes_with_nul());
        let found = CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
        (!path.is_cut() && sys::image::look(found).is_some()).then_some(path)
    })
}

/// # Safety
/// Null, or a list of C strings that ends in a null pointer.
unsafe fn entries(list: List) -> impl Iterator<Item = &'static CStr> {
    (0..).map_while(move |index| {
        if list.is_null() {
            return None;
        }
        // SAFETY: not past the null pointer: each entry before this one was none.
        let entry = unsafe { list.add(index) };
        // SAFETY: as above.
        let entry = unsafe { entry.read() };
        // SAFETY: a C string, by contract, for as long as the caller looks.
        (!entry.is_null()).then(|| unsafe { CStr::from_ptr(entry) })
    })
}

/// # Safety
/// As for `entries`.
unsafe fn variable(list: List, name: &str) -> Option<&'static [u8]> {
    // SAFETY: by contract.
    unsafe { entries(list) }.find_map(|entry| value_of(entry.to_bytes(), name))
}

/// Calls with an environment without us, which is as it was where it has more entries than this or a longer list of
/// libraries.
///
/// # Safety
/// As for `entries`.
#[inline(never)]
unsafe fn without_library(list: List, call: &impl Fn(List) -> c_int) -> c_int {
    let mut room = Room { entries: [core::ptr::null(); MOST_ENTRIES], list: [0; MOST_LIST_BYTES] };
    // SAFETY: by contract.
    match unsafe { room.fill(list) } {
        Some(()) => call(room.entries.as_ptr()),
        None => call(list),
    }
}

const MOST_ENTRIES: usize = 1024;
const MOST_LIST_BYTES: usize = 2048;

struct Room {
    entries: [*const c_char; MOST_ENTRIES],
    /// `LD_PRELOAD`, if it has others than ours.
    list: [u8; MOST_LIST_BYTES],
}

impl Room {
    /// # Safety
    /// As for `entries`.
    unsafe fn fill(&mut self, environment: List) -> Option<()> {
        let mut kept = 0;
        // SAFETY: by contract.
        for entry in unsafe { entries(environment) } {
            let text = entry.to_bytes();
            let mut at = entry.as_ptr();
            if text.starts_with(b"OOMGUARD_") {
                continue;
            }
            if let (Some(list), Some(library)) = (value_of(text, PRELOAD), this_library()) {
                let library = library.to_bytes();
                if list.split(|byte| b": ".contains(byte)).any(|name| is_library(name, library)) {
                    self.list.get_mut(..text.len())?.copy_from_slice(text);
                    let value = self.list.get_mut(text.len() - list.len()..=text.len())?;
                    // SAFETY: the copy's value and a NUL, which are this structure's own.
                    unsafe { take_out_of_list(value.as_mut_ptr(), list.len(), library) };
                    if value.first() == Some(&0) {
                        continue;
                    }
                    at = self.list.as_ptr().cast();
                }
            }
            // The last one stays null: the list's end.
            *self.entries.get_mut(..MOST_ENTRIES - 1)?.get_mut(kept)? = at;
            kept += 1;
        }
        Some(())
    }
}
