//! What start-up found out: written once, before `main`, and only read from then on.

use super::limits::Resolved;
use super::settings::{Profile, WhenRefused};
use crate::contract::{LimitSource, Measure, TOKEN_MAX_BYTES};
use crate::sys::fd::FileId;
use crate::text::Text;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use once_cell::race::OnceRef;

/// The facts that a refusal and the end rest on.
pub(super) struct Armed {
    pub(super) exit_code: u8,
    pub(super) measure: Measure,
    pub(super) limit: HeldLimit,
    pub(super) on_refusal: WhenRefused,
    pub(super) reserve_bytes: u64,
    pub(super) quiet: bool,
    pub(super) report: ReportTarget,
    /// `OOMGUARD_PROFILE`.
    pub(super) profile_from_environment: Option<Profile>,
    pub(super) token: Option<Text<TOKEN_MAX_BYTES>>,
    pub(super) program: Text<64>,
    pub(super) started_ms: u64,
    /// Whether address space is limited, by us or by an rlimit that was there before.
    pub(super) address_space_is_limited: AtomicBool,
    /// Whether the user has tuned malloc's arenas, so that we have not capped them.
    pub(super) arenas_are_set: bool,
    /// The code of `std::alloc::handle_alloc_error`.
    pub(super) alloc_error_code: Range<usize>,
    /// What SIGABRT did before.
    pub(super) abort_action: libc::sigaction,
}

/// The limit that holds. In a Rust program it never changes; a C program may set it once more.
pub(super) struct HeldLimit {
    bytes: AtomicU64,
    source: AtomicU8,
}

// Relaxed throughout: written before `main`, or by a call of the program's that is documented to be made early; bytes
// and source may be of two moments for a reader in between.
impl HeldLimit {
    const SOURCES: [LimitSource; 6] = [
        LimitSource::Environment,
        LimitSource::Source,
        LimitSource::Cgroup,
        LimitSource::Rlimit,
        LimitSource::Budget,
        LimitSource::Changed,
    ];

    pub(super) fn new(limit: Option<Resolved>) -> Self {
        let held = HeldLimit { bytes: AtomicU64::new(0), source: AtomicU8::new(u8::MAX) };
        held.set(limit);
        held
    }

    pub(super) fn set(&self, limit: Option<Resolved>) {
        let source = limit.and_then(|limit| Self::SOURCES.iter().position(|source| *source == limit.source));
        self.bytes.store(limit.map_or(0, |limit| limit.bytes), Ordering::Relaxed);
        self.source.store(source.map_or(u8::MAX, |source| source as u8), Ordering::Relaxed);
    }

    /// In bytes.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.source().map(|_| self.bytes.load(Ordering::Relaxed))
    }

    /// Who set it.
    pub(super) fn source(&self) -> Option<LimitSource> {
        Self::SOURCES.get(usize::from(self.source.load(Ordering::Relaxed))).copied()
    }
}

/// Where the record goes.
pub(super) enum ReportTarget {
    Nowhere,
    /// A path, absolute, appended to.
    File(&'static CStr),
    /// A descriptor that must still be the same file.
    Descriptor(i32, FileId),
}

/// A path's place. Apart from the facts, so that a process without a report never touches its page.
struct PathStorage(UnsafeCell<Text<4096>>);

// SAFETY: written only by `keep_path`, which runs once, before there is a second thread; then only read.
unsafe impl Sync for PathStorage {}

static PATH: PathStorage = PathStorage(UnsafeCell::new(Text::new()));

/// Keeps a path, with its NUL, for the life of the process. `None` where it does not fit.
///
/// # Safety
/// At most once in a process, from the constructor.
pub(super) unsafe fn keep_path(parts: [&[u8]; 2]) -> Option<&'static CStr> {
    // SAFETY: nobody else holds a reference: this runs once.
    let path = unsafe { &mut *PATH.0.get() };
    parts.into_iter().for_each(|part| path.push_bytes(part));
    path.push_bytes(&[0]);
    if path.is_cut() { None } else { CStr::from_bytes_until_nul(path.as_bytes()).ok() }
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
