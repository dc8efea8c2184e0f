//! The functions of `oomguard.h`. None of them aborts or unwinds; each says in `errno` what went wrong.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};
use oomguard_core::contract::LimitSource;
use oomguard_core::limit::Limit;
use oomguard_core::sys;
use oomguard_engine::armed::armed;
use oomguard_engine::callbacks::{Callback, Callbacks, EXHAUSTED, Node, RECLAIM};
use oomguard_engine::{owner, record, reserve, startup, status as guard_status, task};

/// What `oomguard_version` gives.
pub const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

/// `struct oomguard_status`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CStatus {
    size: usize,
    limit: u64,
    in_use: u64,
    headroom: u64,
    refusals: u64,
    measure: c_int,
    source: c_int,
    armed: c_int,
    reserved: c_int,
    budget: u64,
    lease: u64,
    waiting_ms: u64,
}

/// `OOMGUARD_UNKNOWN`.
const UNKNOWN: u64 = u64::MAX;

fn fail(errno: c_int) -> c_int {
    sys::errno::set_errno(errno);
    -1
}

/// The function of this name and type in the copy of this library that is in charge, where it is not this one: the launcher's,
/// in a program that was linked with the archive.
macro_rules! in_charge {
    ($name:literal, $type:ty) => {
        elsewhere($name).map(|address| {
            // SAFETY: every copy has this function with the type that the header gives it.
            let function: $type = unsafe { core::mem::transmute(address) };
            function
        })
    };
}

fn elsewhere(name: &CStr) -> Option<usize> {
    if armed().is_some() { None } else { super::startup::of_first_copy(name) }
}

type OfText = unsafe extern "C" fn(*const c_char) -> c_int;
type Register = extern "C" fn(Option<extern "C" fn(*mut c_void)>, *mut c_void) -> c_int;

/// `oomguard_arm`.
///
/// # Safety
/// `limit` is null or a C string.
pub unsafe fn arm_with_limit(limit: *const c_char) -> c_int {
    if let Some(arm) = in_charge!(c"oomguard_arm", OfText) {
        // SAFETY: by contract.
        return unsafe { arm(limit) };
    }
    // SAFETY: by contract.
    unsafe { change_limit(limit, super::startup::environment_says_limit()) }
}

/// `oomguard_set_limit`.
///
/// # Safety
/// `limit` is null or a C string.
pub unsafe fn set_limit(limit: *const c_char) -> c_int {
    if let Some(set_limit) = in_charge!(c"oomguard_set_limit", OfText) {
        // SAFETY: by contract.
        return unsafe { set_limit(limit) };
    }
    // SAFETY: by contract.
    unsafe { change_limit(limit, false) }
}

/// # Safety
/// `limit` is null or a C string.
unsafe fn change_limit(limit: *const c_char, is_settled: bool) -> c_int {
    if limit.is_null() {
        return fail(libc::EINVAL);
    }
    // SAFETY: by contract.
    let text = unsafe { CStr::from_ptr(limit) }.to_bytes();
    let Ok(limit) = Limit::parse(text) else { return fail(libc::EINVAL) };
    let Some(armed) = armed() else { return fail(libc::ENOTSUP) };
    if is_settled {
        return 0;
    }
    match startup::change_limit(armed, limit) {
        Ok(()) => {
            record::note_armed(armed);
            0
        }
        Err(errno) => fail(errno),
    }
}

/// `oomguard_task`.
///
/// # Safety
/// `name` is null or a C string.
pub unsafe fn set_task(name: *const c_char) {
    if let Some(set_task) = in_charge!(c"oomguard_task", unsafe extern "C" fn(*const c_char)) {
        // SAFETY: by contract.
        return unsafe { set_task(name) };
    }
    if name.is_null() {
        task::begin(None);
    } else {
        // SAFETY: by contract.
        task::begin(Some(unsafe { CStr::from_ptr(name) }.to_bytes()));
    }
}

/// `oomguard_status`.
///
/// # Safety
/// `status` is null, or `size` bytes are writable there.
pub unsafe fn status(status: *mut c_void, size: usize) -> c_int {
    if let Some(ask) = in_charge!(c"oomguard_status", unsafe extern "C" fn(*mut c_void, usize) -> c_int) {
        // SAFETY: by contract.
        return unsafe { ask(status, size) };
    }
    if status.is_null() || size < size_of::<usize>() {
        return fail(libc::EINVAL);
    }
    let Some(armed) = armed() else { return fail(libc::ENOTSUP) };
    let errno = sys::errno::errno();
    let now = guard_status::status();
    let full = CStatus {
        size: size_of::<CStatus>().min(size),
        limit: now.limit.unwrap_or(UNKNOWN),
        in_use: now.in_use.unwrap_or(UNKNOWN),
        headroom: now.headroom().unwrap_or(UNKNOWN),
        refusals: now.refusals,
        measure: armed.measure.number().into(),
        source: now.source.map_or(0, |source| match source {
            LimitSource::CommandLine => LimitSource::Environment.number().into(),
            source => source.number().into(),
        }),
        armed: c_int::from(owner::is_guarded()),
        reserved: 0,
        budget: now.budget.unwrap_or(UNKNOWN),
        lease: now.lease.unwrap_or(UNKNOWN),
        waiting_ms: now.waiting_ms.unwrap_or(UNKNOWN),
    };
    // SAFETY: `full` has at least as many bytes as are copied, and the caller's memory `size` of them.
    unsafe { core::ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), status.cast(), full.size) };
    sys::errno::set_errno(errno);
    0
}

/// A C function and its argument.
struct CCallback {
    function: extern "C" fn(*mut c_void),
    argument: *mut c_void,
}

// SAFETY: the header says that it may be called from any thread.
unsafe impl Send for CCallback {}
// SAFETY: as above.
unsafe impl Sync for CCallback {}

impl Callback for CCallback {
    fn run(&self) {
        (self.function)(self.argument);
    }
}

/// How many callbacks of each kind there may be.
const MOST_CALLBACKS: usize = 16;

struct Slot {
    callback: UnsafeCell<MaybeUninit<CCallback>>,
    node: UnsafeCell<MaybeUninit<Node>>,
}

/// Places for callbacks that need no allocation.
struct Table {
    taken: AtomicUsize,
    slots: [Slot; MOST_CALLBACKS],
}

// SAFETY: a slot is written once, by the thread that took it, before its node is in the list.
unsafe impl Sync for Table {}

impl Table {
    const fn new() -> Self {
        Table {
            taken: AtomicUsize::new(0),
            slots: [const {
                Slot {
                    callback: UnsafeCell::new(MaybeUninit::uninit()),
                    node: UnsafeCell::new(MaybeUninit::uninit()),
                }
            }; MOST_CALLBACKS],
        }
    }

    fn register(&'static self, list: &Callbacks, callback: CCallback) -> c_int {
        let take = |taken| if taken < MOST_CALLBACKS { Some(taken + 1) } else { None };
        // Relaxed: the number alone decides; the list publishes what is in the slot.
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let Some(slot) = taken.ok().and_then(|index| self.slots.get(index)) else {
            return fail(libc::ENOSPC);
        };
        // SAFETY: this thread took the slot, and nobody else looks at it before the node is in the list.
        let callback: &'static CCallback = unsafe { (*slot.callback.get()).write(callback) };
        // SAFETY: as above.
        let node = unsafe { (*slot.node.get()).write(Node::new(callback)) };
        // SAFETY: a static that is written once, and in no list yet.
        unsafe { list.append(node) };
        0
    }
}

static RECLAIM_TABLE: Table = Table::new();
static EXHAUSTED_TABLE: Table = Table::new();

/// `oomguard_on_reclaim`.
pub fn on_reclaim(function: Option<extern "C" fn(*mut c_void)>, argument: *mut c_void) -> c_int {
    if let Some(register) = in_charge!(c"oomguard_on_reclaim", Register) {
        return register(function, argument);
    }
    let Some(function) = function else { return fail(libc::EINVAL) };
    RECLAIM_TABLE.register(&RECLAIM, CCallback { function, argument })
}

/// `oomguard_on_exhausted`.
pub fn on_exhausted(function: Option<extern "C" fn(*mut c_void)>, argument: *mut c_void) -> c_int {
    if let Some(register) = in_charge!(c"oomguard_on_exhausted", Register) {
        return register(function, argument);
    }
    let Some(function) = function else { return fail(libc::EINVAL) };
    let result = EXHAUSTED_TABLE.register(&EXHAUSTED, CCallback { function, argument });
    if result == 0 {
        let errno = sys::errno::errno();
        reserve::keep();
        sys::errno::set_errno(errno);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// Says of each field of the structure where it lies and how long it is.
    macro_rules! fields {
        ($($field:ident),*) => {{
            // Names each field, so that a new one is an error here.
            let _ = |CStatus { $($field),* }| { $(let _ = $field;)* };
            fn bytes<T>(_: fn(&CStatus) -> &T) -> usize {
                size_of::<T>()
            }
            [$((stringify!($field), core::mem::offset_of!(CStatus, $field), bytes(|status| &status.$field))),*]
        }};
    }

    #[test]
    fn the_status_lies_in_c_as_it_lies_here() {
        let fields = fields!(
            size, limit, in_use, headroom, refusals, measure, source, armed, reserved, budget, lease,
            waiting_ms
        );
        let mut program = String::from("#include <oomguard.h>\nstatic struct oomguard_status *status;\n");
        let mut expect = |what: String, is: usize| {
            program += &format!("_Static_assert({what} == {is}, \"{what} is {is} in Rust\");\n");
        };
        for (field, offset, bytes) in fields {
            expect(format!("offsetof(struct oomguard_status, {field})"), offset);
            expect(format!("sizeof status->{field}"), bytes);
        }
        expect("sizeof *status".to_owned(), size_of::<CStatus>());
        expect("_Alignof(struct oomguard_status)".to_owned(), align_of::<CStatus>());
        expect("(OOMGUARD_UNKNOWN == UINT64_MAX)".to_owned(), usize::from(UNKNOWN == u64::MAX));

        let compiler = std::env::var_os("CC").filter(|name| !name.is_empty()).unwrap_or_else(|| "cc".into());
        let mut compiler = Command::new(compiler)
            .args([
                "-std=c11",
                "-Wall",
                "-Wno-unused-variable",
                "-Werror",
                "-fsyntax-only",
                "-x",
                "c",
                "-",
                "-I",
            ])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/include"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a C compiler, as tests/c_library.rs needs, too");
        compiler.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
        let output = compiler.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
