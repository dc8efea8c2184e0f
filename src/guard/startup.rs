//! What runs before `main`, and in which order: the only constructor.
//!
//! The standard library's runtime has not started yet, so nothing here uses its services; nothing allocates. What
//! goes wrong ends in one line on stderr and exit 125, before the program has done anything.

use super::armed::{Armed, HeldLimit, ReportTarget, arm_with, armed, keep_path};
use super::limits::{Known, Resolved, needs_container, resolve_limit};
use super::settings::{Environment, ReportTo, Settings, Wishes, resolve};
use super::{allocator::Source, arenas, exhaustion, interpose, profile, record, stack, verdict};
use crate::cgroup::container_limit;
use crate::contract::{EXIT_CANNOT_GUARD, LimitSource, Measure, variable};
use crate::sys;
use crate::sys::memory::{Resource, Rlimit, rlimit, set_rlimit};
use crate::text::Text;
use core::ffi::{CStr, c_char};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::alloc::Layout;

/// The constructor.
pub(super) unsafe extern "C" fn arm<A, S: Source>(
    argc: i32,
    argv: *const *const c_char,
    envp: *const *const c_char,
) {
    static ARMED_ONCE: AtomicBool = AtomicBool::new(false);
    // Relaxed: constructors run one after the other in one thread.
    if ARMED_ONCE.swap(true, Ordering::Relaxed) {
        // SAFETY: in a constructor, before there is a second thread.
        unsafe { start_profile::<S>() };
        return;
    }
    // Only glibc hands a constructor the arguments of `main`; elsewhere they are whatever was in the registers.
    let (argc, argv, envp) = if cfg!(target_env = "gnu") {
        (argc, argv, envp)
    } else {
        (0, core::ptr::null(), current_environment())
    };
    // SAFETY: argv is an array of at least `argc` pointers to C strings that live as long as the process.
    let program = unsafe { program_name(argc, argv) };
    // SAFETY: envp is the environment that the loader made: C strings up to a null pointer.
    let environment = unsafe { read_environment(envp) };
    let trial = trial_of::<A>();
    // SAFETY: the flag above lets only one constructor through.
    unsafe { arm_once(&S::SETTINGS, &environment, program, trial) };
    // SAFETY: in a constructor, before there is a second thread.
    unsafe { start_profile::<S>() };
}

/// Where the profiler is compiled in. Of several guards in a program any may have it.
///
/// # Safety
/// From the constructor, while the process has one thread.
unsafe fn start_profile<S: Source>() {
    if let Some(from_source) = const { S::SETTINGS.profile_from_source() }
        && let Some(armed) = armed()
    {
        // SAFETY: by this function's contract.
        unsafe { profile::start(from_source, armed) };
    }
}

/// # Safety
/// `argv` is an array of at least `argc` pointers to C strings that live as long as the process.
pub(super) unsafe fn program_name(argc: i32, argv: *const *const c_char) -> &'static [u8] {
    if argc > 0 {
        // SAFETY: there is one, by contract.
        let first = unsafe { *argv };
        // SAFETY: a C string that lives as long as the process, by contract.
        unsafe { c_string(first) }
    } else {
        // SAFETY: AT_EXECFN is the address of a C string that lives as long as the process.
        sys::process::executable_name_address()
            .map_or(b"?".as_slice(), |name| unsafe { c_string(name as *const c_char) })
    }
}

fn current_environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: set by the C library before constructors run, and nobody else runs yet.
    unsafe { environ }
}

/// # Safety
/// At most once in a process, before it has a second thread.
unsafe fn arm_once(
    source: &Settings,
    environment: &Environment<'_>,
    program: &[u8],
    trial: Option<fn() -> bool>,
) {
    // SAFETY: once, by this function's contract.
    let armed = unsafe { set_up(source, environment, program, trial, verdict::alloc_error_code) };
    interpose::resolve_real_functions();
    verdict::install_abort_handler(armed);
    exhaustion::watch_exit();
    #[cfg(feature = "nightly")]
    std::alloc::set_alloc_error_hook(verdict::alloc_error_hook);
}

/// What programs of all languages have in common: wishes, limit, facts, record. `trial` tries the program's allocator.
///
/// # Safety
/// At most once in a process, before it has a second thread.
pub(super) unsafe fn set_up(
    source: &Settings,
    environment: &Environment<'_>,
    program: &[u8],
    trial: Option<fn() -> bool>,
    alloc_error_code: fn() -> Range<usize>,
) -> &'static Armed {
    let started_ms = sys::process::monotonic_ms();
    let wishes =
        resolve(source, environment).unwrap_or_else(|bad| refuse_to_start(|line| bad.describe(line)));
    // SAFETY: once, by this function's contract.
    let report = unsafe { report_target(&wishes) };
    let existing = rlimit(wishes.measure.into());
    let limit = resolve_limit(&known(&wishes, existing));

    let mut address_space_is_limited = false;
    if let Some(limit) = limit {
        check_that_it_counts(wishes.measure);
        address_space_is_limited = prepare_address_space(wishes.measure, wishes.arenas_are_set, limit.bytes);
        set_soft_limit(limit, wishes.measure, existing);
        check_that_it_fits(limit, wishes.measure);
        if let Some(trial) = trial {
            check_that_the_allocator_starts(wishes.measure, trial);
        }
    }
    // The trial is not among what is counted.
    inject_as_told(&wishes);

    let facts = Armed {
        exit_code: wishes.exit_code,
        measure: wishes.measure,
        limit: HeldLimit::new(limit),
        other_limit: rlimit(wishes.measure.other().into()).soft,
        on_refusal: wishes.on_refusal,
        reserve_bytes: wishes.reserve_bytes,
        quiet: wishes.quiet,
        report,
        profile_from_environment: wishes.profile_from_environment,
        token: wishes.token.map(Text::from_bytes),
        program: Text::from_bytes(program.rsplit(|byte| *byte == b'/').next().unwrap_or(program)),
        started_ms,
        address_space_is_limited: address_space_is_limited.into(),
        arenas_are_set: wishes.arenas_are_set,
        alloc_error_code: alloc_error_code(),
        abort_action: sys::signals::disposition(libc::SIGABRT),
    };
    // SAFETY: once, by this function's contract.
    let armed = unsafe { arm_with(facts) };
    record::attach(environment.record, armed, source.profiles());
    armed
}

/// Sets the limit that a C program asks for once it runs, as if its source had said so before. The errno of what went
/// wrong; then nothing has changed.
#[cfg(feature = "shim")]
pub(super) fn change_limit(armed: &Armed, limit: crate::Limit) -> Result<(), i32> {
    let measure = armed.measure;
    let now = rlimit(measure.into());
    let soft = sys::memory::replaced_soft_limit(measure).unwrap_or(now.soft);
    let ask = needs_container(None, Some(limit));
    let resolved = resolve_limit(&Known {
        from_environment: None,
        from_source: Some(limit),
        container: if ask { container_limit("") } else { None },
        machine: if ask { sys::memory::machine_memory() } else { None },
        existing: Rlimit { soft, hard: now.hard },
    });
    if let Some(resolved) = resolved {
        if measure == Measure::Data && sys::memory::data_limit_is_ignored() {
            return Err(libc::ENOTSUP);
        }
        if sys::memory::memory_use().of(measure).is_some_and(|in_use| in_use > resolved.bytes) {
            return Err(libc::ENOMEM);
        }
        // Relaxed: as for the limit itself, a call to be made early.
        let limited = prepare_address_space(measure, armed.arenas_are_set, resolved.bytes);
        armed.address_space_is_limited.store(limited, Ordering::Relaxed);
    }
    let wanted = Rlimit { soft: resolved.map_or(soft, |resolved| Some(resolved.bytes)), hard: now.hard };
    if now != wanted && !set_rlimit(measure.into(), wanted) {
        return Err(sys::fd::errno());
    }
    sys::memory::note_replaced_soft_limit(measure, soft);
    armed.limit.set(resolved);
    Ok(())
}

/// The limit's sources, as far as they matter.
fn known(wishes: &Wishes<'_>, existing: Rlimit) -> Known {
    let ask = needs_container(wishes.limit_from_environment, wishes.limit_from_source);
    Known {
        from_environment: wishes.limit_from_environment,
        from_source: wishes.limit_from_source,
        container: if ask { container_limit("") } else { None },
        machine: if ask { sys::memory::machine_memory() } else { None },
        existing,
    }
}

/// A limit on `data` is no limit where the machine ignores it.
fn check_that_it_counts(measure: Measure) {
    if measure == Measure::Data && sys::memory::data_limit_is_ignored() {
        refuse_to_start(|line| {
            line.push(
                "measure data cannot be limited: this machine ignores RLIMIT_DATA \
                 (/sys/module/kernel/parameters/ignore_rlimit_data is on); use OOMGUARD_MEASURE=address-space, \
                 or have the machine's parameter switched off",
            );
        });
    }
}

/// What has to happen while address space is still to be had. Whether it is limited at all.
fn prepare_address_space(measure: Measure, arenas_are_set: bool, limit_bytes: u64) -> bool {
    let limit_bytes = match measure {
        Measure::AddressSpace => Some(limit_bytes),
        Measure::Data => rlimit(Resource::AddressSpace).soft,
    };
    let Some(limit_bytes) = limit_bytes else { return false };
    if !arenas_are_set {
        sys::memory::cap_arenas(arenas::arenas_under(limit_bytes));
    }
    stack::reserve_main_stack(limit_bytes);
    true
}

/// Once the limit is set: one page more or none tells in 3 µs what `/proc/self/status` takes 30 to tell.
fn check_that_it_fits(limit: Resolved, measure: Measure) {
    if !sys::memory::would_be_refused(sys::memory::page_bytes() as usize) {
        return;
    }
    let Some(in_use) = sys::memory::memory_use().of(measure) else { return };
    if in_use <= limit.bytes {
        return;
    }
    refuse_to_start(|line| {
        line.push("the limit of ");
        push_bytes(line, limit.bytes);
        line.push(" of ");
        line.push(measure.as_str());
        line.push(match limit.source {
            LimitSource::Environment => " (OOMGUARD_LIMIT)",
            LimitSource::Source => " (the program's source)",
            LimitSource::Cgroup => " (from the container)",
            LimitSource::Rlimit => " (an rlimit that was there before)",
            LimitSource::Budget => " (from the budget)",
            LimitSource::Changed => " (an rlimit that was moved since the start)",
        });
        line.push(" is below the ");
        push_bytes(line, in_use);
        line.push(" that this process uses before main; set OOMGUARD_LIMIT well above that");
    });
}

/// A trial of the allocator `A`, unless it is the system's, which lives under any limit.
fn trial_of<A>() -> Option<fn() -> bool> {
    // The name may change with the compiler: then the system's is tried, too.
    if core::any::type_name::<A>() == "std::alloc::System" { None } else { Some(can_allocate) }
}

/// By the program's allocator, as the program does. The facts are not known yet, so that a refusal is nothing but null.
fn can_allocate() -> bool {
    const LAYOUT: Layout = Layout::new::<[u64; 8]>();
    // SAFETY: the size is not zero.
    let block = unsafe { std::alloc::alloc(LAYOUT) };
    // Without it the compiler may remove the pair.
    let block = core::hint::black_box(block);
    if !block.is_null() {
        // SAFETY: from the same allocator with the same layout.
        unsafe { std::alloc::dealloc(block, LAYOUT) };
    }
    !block.is_null()
}

/// The measure under which the allocator is on trial: its place in `Measure`, plus one.
static ON_TRIAL: AtomicU8 = AtomicU8::new(0);

/// An allocator that reserves much at its start would fail in the program's first allocation, with words that name
/// nobody, or none.
fn check_that_the_allocator_starts(measure: Measure, trial: fn() -> bool) {
    // Relaxed, here and below: read back by this thread.
    ON_TRIAL.store(if measure == Measure::Data { 2 } else { 1 }, Ordering::Relaxed);
    if !trial() {
        refuse_if_on_trial();
    }
    ON_TRIAL.store(0, Ordering::Relaxed);
}

/// The allocator gives up, in its own way.
pub(super) fn refuse_if_on_trial() {
    let measure = match ON_TRIAL.load(Ordering::Relaxed) {
        0 => return,
        1 => Measure::AddressSpace,
        _ => Measure::Data,
    };
    refuse_to_start(|line| {
        line.push("the program's allocator cannot start under the limit");
        if let Some(limit) = rlimit(measure.into()).soft {
            line.push(" of ");
            push_bytes(line, limit);
        }
        line.push(" of ");
        line.push(measure.as_str());
        line.push(": it reserves more than that at once; use ");
        if measure == Measure::AddressSpace {
            line.push("OOMGUARD_MEASURE=data, if it only reserves, or ");
        }
        line.push("a larger OOMGUARD_LIMIT, or another allocator");
    });
}

fn push_bytes(line: &mut Text<1024>, bytes: u64) {
    line.push_number(bytes);
    line.push(" bytes");
    if bytes >= 10 << 10 {
        line.push(" (");
        line.push_size(bytes);
        line.push(")");
    }
}

/// Sets the soft limit and leaves the hard one: what lies between them is the reserve.
fn set_soft_limit(limit: Resolved, measure: Measure, existing: Rlimit) {
    let wanted = Rlimit { soft: Some(limit.bytes), hard: existing.hard };
    sys::memory::note_replaced_soft_limit(measure, existing.soft);
    if existing != wanted && !set_rlimit(measure.into(), wanted) {
        refuse_to_start(|line| {
            line.push("the limit of ");
            push_bytes(line, limit.bytes);
            line.push(" of ");
            line.push(measure.as_str());
            line.push(" cannot be set (setrlimit: errno ");
            line.push_number(u64::from(sys::fd::errno().unsigned_abs()));
            line.push("); see whether a security profile forbids it, or set OOMGUARD_LIMIT=off");
        });
    }
}

/// Finds out now whether a report could be written later.
///
/// # Safety
/// At most once in a process, from the constructor.
unsafe fn report_target(wishes: &Wishes<'_>) -> ReportTarget {
    match wishes.report {
        ReportTo::Nowhere => ReportTarget::Nowhere,
        ReportTo::Descriptor(fd) => match sys::fd::file_id(fd) {
            Some(id) if sys::fd::is_writable(fd) => ReportTarget::Descriptor(fd, id),
            _ => refuse_report(
                format_args_of_descriptor(fd).as_bytes(),
                "no descriptor that is open for writing",
            ),
        },
        ReportTo::Path(path) => {
            let mut directory = [0; 4096];
            // Absolute from the start, as the program may change its directory.
            let prefix = if path.starts_with(b"/") { &[] } else { current_directory(&mut directory) };
            // SAFETY: once, by this function's contract.
            let Some(file) = (unsafe { keep_path([prefix, path]) }) else {
                refuse_report(path, "longer than a path can be");
            };
            if path.ends_with(b"/") || !can_append(file) {
                refuse_report(path, "cannot be written");
            }
            ReportTarget::File(file)
        }
    }
}

/// The directory that this process runs in, with a slash behind it; empty where it cannot be told.
fn current_directory(buffer: &mut [u8; 4096]) -> &[u8] {
    let Some(len) = sys::fd::current_directory(buffer) else { return &[] };
    match buffer.get_mut(len) {
        Some(end) => *end = b'/',
        None => return &[],
    }
    buffer.get(..=len).unwrap_or(&[])
}

fn can_append(file: &CStr) -> bool {
    let mut parent = Text::<4096>::from_bytes(file.to_bytes());
    let slash = parent.as_bytes().iter().rposition(|byte| *byte == b'/');
    parent.truncate(slash.map_or(0, |at| at.max(1)));
    parent.push_bytes(&[0]);
    let parent = CStr::from_bytes_until_nul(parent.as_bytes());
    parent.is_ok_and(|directory| sys::fd::can_append(file, directory))
}

fn format_args_of_descriptor(fd: i32) -> Text<16> {
    let mut text = Text::new();
    text.push("fd:");
    text.push_number(u64::from(fd.unsigned_abs()));
    text
}

fn refuse_report(value: &[u8], reason: &'static str) -> ! {
    refuse_to_start(|line| {
        super::settings::BadVariable {
            name: variable::REPORT,
            value,
            reason,
            accepted: "the path of a file that can be appended to, or fd:N for a descriptor open for writing",
        }
        .describe(line);
    })
}

#[cfg(feature = "inject")]
fn inject_as_told(wishes: &Wishes<'_>) {
    if let Some(value) = wishes.inject
        && !super::inject::plan_from(value)
    {
        refuse_inject(
            value,
            "not a plan",
            "N (the Nth allocation after start) or N+ (the Nth and all after it)",
        );
    }
}

#[cfg(not(feature = "inject"))]
fn inject_as_told(wishes: &Wishes<'_>) {
    if let Some(value) = wishes.inject {
        refuse_inject(
            value,
            "this program was built without oomguard's feature `inject`",
            "nothing; unset it",
        );
    }
}

fn refuse_inject(value: &[u8], reason: &'static str, accepted: &'static str) -> ! {
    refuse_to_start(|line| {
        super::settings::BadVariable { name: variable::INJECT, value, reason, accepted }.describe(line);
    })
}

/// The end of a process whose guard cannot be set up: one line, exit 125.
fn refuse_to_start(describe: impl FnOnce(&mut Text<1024>)) -> ! {
    let mut reason = Text::new();
    describe(&mut reason);
    let mut line = Text::<1100>::new();
    line.push("oomguard: cannot guard this process: ");
    line.push_bytes(reason.as_bytes());
    line.push("\n");
    // Said even under OOMGUARD_QUIET: there is no report that would say it instead.
    sys::fd::write_patiently(libc::STDERR_FILENO, line.as_bytes(), 1000);
    sys::process::exit_now(EXIT_CANNOT_GUARD)
}

/// Our variables, unless the program runs with more rights than whoever set them.
///
/// # Safety
/// `envp` is null or an array of C strings that ends in a null pointer, and that lives as long as the process.
pub(super) unsafe fn read_environment(envp: *const *const c_char) -> Environment<'static> {
    let mut environment = Environment::default();
    if envp.is_null() || sys::process::has_raised_privileges() {
        return environment;
    }
    let mut next = envp;
    loop {
        // SAFETY: not past the null pointer, by the loop.
        let entry = unsafe { *next };
        if entry.is_null() {
            return environment;
        }
        // SAFETY: a C string by contract.
        environment.note(unsafe { c_string(entry) });
        // SAFETY: the array goes on, as this entry was not its end.
        next = unsafe { next.add(1) };
    }
}

/// # Safety
/// `text` is a C string that lives as long as the process.
pub(super) unsafe fn c_string(text: *const c_char) -> &'static [u8] {
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}
