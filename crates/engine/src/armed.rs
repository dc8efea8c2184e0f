//! What start-up found out: written once, before `main`, and only read from then on.

use super::limits::{Resolved, holding, raised_for_last_words};
use super::settings::Profile;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use once_cell::race::OnceRef;
use oomguard_core::contract::{LimitSource, Measure, Sufficient, TOKEN_MAX_BYTES};
use oomguard_core::forms::WhenRefused;
use oomguard_core::sys::fd::FileId;
use oomguard_core::sys::memory::{Rlimit, rlimit};
use oomguard_core::text::Text;

/// The facts that a refusal and the end rest on.
pub struct Armed {
    pub exit_code: u8,
    pub measure: Measure,
    pub limit: HeldLimit,
    /// The soft rlimit of the other measure, in bytes.
    pub(super) other_limit: Option<u64>,
    /// With the measure `resident`: the user's own limit on data, above which ours never moves.
    pub(super) users_data_limit: Option<u64>,
    pub(super) on_refusal: WhenRefused,
    pub(super) reserve_bytes: u64,
    pub(super) quiet: bool,
    /// `OOMGUARD_VERDICT`.
    pub(super) sufficient: Sufficient,
    pub(super) report: ReportTarget,
    /// Whether what is written there is what the parent wants: it may have been told another target, or one out of reach.
    pub(super) report_is_parents: bool,
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
    /// `OOMGUARD_STALL`, in milliseconds; `None` where it may last for ever.
    pub stall_ms: Option<u64>,
    /// `OOMGUARD_EXIT_ON_UNCAUGHT`.
    pub exits_on_uncaught: bool,
    /// What SIGABRT did before.
    pub(super) abort_action: libc::sigaction,
}

impl Armed {
    /// Whether the limit would have room for so much, were nothing else in use.
    pub fn could_hold(&self, bytes: u64) -> bool {
        self.limit.bytes().is_none_or(|limit| bytes <= limit)
    }

    /// The limit that holds now: the soft rlimit, which the program and others may have moved since it was set. Makes one
    /// system call, and may run while the process dies.
    pub(super) fn limit_now(&self) -> Option<Resolved> {
        self.limit_as_of(rlimit(self.measure.into()))
    }

    /// The same of a moment at which the rlimit was `now`.
    pub(super) fn limit_as_of(&self, now: Rlimit) -> Option<Resolved> {
        let set = self.limit.get();
        if self.measure == Measure::Resident {
            // The rlimit is where we have moved it.
            return set;
        }
        let raised = raised_for_last_words(set.map(|set| set.bytes), self.reserve_bytes, now.hard);
        holding(set, [self.limit.lowered(), raised], now.soft)
    }

    /// A limit that was moved is what the reserve is lent above from now on.
    pub(super) fn settle_limit(&self) {
        if let Some(now) = self.limit_now()
            && now.source == LimitSource::Changed
        {
            self.limit.set(Some(now));
        }
    }
}

/// The limit that was set. In a Rust program it never changes; a C program may set it once more.
pub struct HeldLimit {
    bytes: AtomicU64,
    source: AtomicU8,
    /// What the rlimit was set to instead, so that there is a reserve; zero where it was not.
    lowered: AtomicU64,
}

// Relaxed throughout: written before `main`, or by a call of the program's that is documented to be made early; bytes
// and source may be of two moments for a reader in between.
impl HeldLimit {
    const SOURCES: [LimitSource; 7] = [
        LimitSource::Environment,
        LimitSource::Source,
        LimitSource::Cgroup,
        LimitSource::Rlimit,
        LimitSource::Budget,
        LimitSource::Changed,
        LimitSource::CommandLine,
    ];

    pub(super) fn new(limit: Option<Resolved>) -> Self {
        let held = HeldLimit {
            bytes: AtomicU64::new(0),
            source: AtomicU8::new(u8::MAX),
            lowered: AtomicU64::new(0),
        };
        held.set(limit);
        held
    }

    pub(super) fn set(&self, limit: Option<Resolved>) {
        let source = limit.and_then(|limit| Self::SOURCES.iter().position(|source| *source == limit.source));
        self.bytes.store(limit.map_or(0, |limit| limit.bytes), Ordering::Relaxed);
        self.source.store(source.map_or(u8::MAX, |source| source as u8), Ordering::Relaxed);
        self.lowered.store(0, Ordering::Relaxed);
    }

    /// The guard itself sets the rlimit to so many bytes instead.
    pub(super) fn note_lowered(&self, bytes: u64) {
        self.lowered.store(bytes, Ordering::Relaxed);
    }

    fn lowered(&self) -> Option<u64> {
        Some(self.lowered.load(Ordering::Relaxed)).filter(|lowered| *lowered != 0)
    }

    fn get(&self) -> Option<Resolved> {
        Some(Resolved { bytes: self.bytes()?, source: self.source()? })
    }

    /// In bytes.
    pub fn bytes(&self) -> Option<u64> {
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

// Apart from what every process touches: see `sys`.
#[unsafe(link_section = ".bss.large")]
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
pub fn armed() -> Option<&'static Armed> {
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
