//! What start-up found out: written once, before `main`, and only read from then on.

use crate::contract::{LimitSource, Measure, OnRefusal, TOKEN_MAX_BYTES};
use crate::sys::fd::FileId;
use crate::text::Text;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Range;
use once_cell::race::OnceRef;

/// The facts that a refusal and the end rest on.
pub(super) struct Armed {
    pub(super) exit_code: u8,
    pub(super) measure: Measure,
    pub(super) limit: Option<u64>,
    pub(super) limit_source: Option<LimitSource>,
    pub(super) on_refusal: OnRefusal,
    pub(super) reserve_bytes: u64,
    pub(super) quiet: bool,
    pub(super) report: ReportTarget,
    pub(super) token: Option<Text<TOKEN_MAX_BYTES>>,
    pub(super) program: Text<64>,
    pub(super) started_ms: u64,
    /// With a limit on address space: what was mapped and not writable at the start, in bytes.
    pub(super) mapped_at_start: Option<u64>,
    /// The code of `std::alloc::handle_alloc_error`.
    pub(super) alloc_error_code: Range<usize>,
    /// The code of glibc's `__cxa_thread_atexit_impl`, which aborts when it cannot allocate.
    pub(super) thread_exit_code: Option<Range<usize>>,
    /// What SIGABRT did before.
    pub(super) abort_action: libc::sigaction,
}

/// Where the record goes.
// There is one, in a static: its size is no matter, and a box would have to be allocated.
#[allow(clippy::large_enum_variant)]
pub(super) enum ReportTarget {
    Nowhere,
    /// A path, absolute and with its NUL, appended to.
    File(Text<4096>),
    /// A descriptor that must still be the same file.
    Descriptor(i32, FileId),
}

struct Storage(UnsafeCell<MaybeUninit<Armed>>);

// SAFETY: written only by `arm_with`, which runs once, before there is a second thread; then only read.
unsafe impl Sync for Storage {}

static STORAGE: Storage = Storage(UnsafeCell::new(MaybeUninit::uninit()));
static ARMED: OnceRef<'static, Armed> = OnceRef::new();

/// The facts; `None` before start-up, and in a program without a guard.
pub(super) fn armed() -> Option<&'static Armed> {
    ARMED.get()
}

/// Publishes the facts.
///
/// # Safety
/// At most once in a process, from the constructor.
pub(super) unsafe fn arm_with(facts: Armed) -> &'static Armed {
    // SAFETY: nobody else holds a reference yet: ARMED is unset, and this runs once.
    let stored = unsafe { (*STORAGE.0.get()).write(facts) };
    let _ = ARMED.set(stored);
    stored
}
