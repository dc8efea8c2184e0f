//! What runs before `main`, and in which order: the only constructor.
//!
//! The standard library's runtime has not started yet, so nothing here uses its services; nothing allocates, but for
//! a trial of an allocator that is not the system's. What goes wrong ends in one line on stderr and exit 125, before
//! the program has done anything. Only in a library that dlopen(3) loads the process has begun long ago, and is not
//! ours to end: there the guard stands aside.

use super::armed::{Armed, HeldLimit, ReportTarget, arm_with, armed, keep_path};
use super::limits::{Known, Resolved, needs_container, resolve_limit};
use super::real::WATCHES_C_HEAP;
use super::settings::{BEGINNINGS, BadVariable, Environment, ReportTo, Settings, Wishes, resolve};
use super::{
    aborts, arenas, asked, c_heap, dlopen, exits, frames, interface::Source, interpose, lease, mappings,
    notes, onlooker, panics, profile, record, resident, rust, stack, thrown, trial, verdict,
};
use core::ffi::{CStr, c_char};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use oomguard_core::cgroup::container_limit;
use oomguard_core::contract::{EXIT_CANNOT_GUARD, LimitSource, Measure, variable};
use oomguard_core::limit::Limit;
use oomguard_core::names::push_misspelt;
use oomguard_core::outer::Outer;
use oomguard_core::report::place_of;
use oomguard_core::sys;
use oomguard_core::sys::memory::{Resource, Rlimit, rlimit, set_rlimit};
use oomguard_core::text::{Text, behind_last, last_position};

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
pub unsafe fn program_name(argc: i32, argv: *const *const c_char) -> &'static [u8] {
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
/// At most once in a process, from the constructor.
unsafe fn arm_once(
    source: &Settings,
    environment: &Environment<'_>,
    program: &[u8],
    trial: Option<fn() -> bool>,
) {
    // SAFETY: once, by this function's contract.
    let armed = unsafe { set_up(source, environment, program, trial, rust::alloc_error_code) };
    let Some(armed) = armed else { return };
    arenas::note_files(frames::note_files());
    interpose::resolve_real_functions();
    if WATCHES_C_HEAP {
        c_heap::resolve();
        mappings::resolve();
        dlopen::resolve();
        stack::resolve();
    }
    notes::begin();
    aborts::install_handler(armed);
    if !verdict::can_be_told(armed) {
        say_that_nothing_can_be_told();
    }
    exits::watch_exit();
    thrown::watch(arm_once as *const () as usize, panics::hear_thrown);
    onlooker::begin();
    if lease::is_shared() {
        asked::heed_stillness();
        sys::c_library::call_in_children_of_program(asked::begin_in_child);
    }
    #[cfg(oomguard_nightly)]
    std::alloc::set_alloc_error_hook(aborts::alloc_error_hook);
}

/// Whether the program was found to be one of those; see `verdict::can_be_told`.
static NOTHING_CAN_BE_TOLD: AtomicBool = AtomicBool::new(false);

/// Whether a refused allocation that the program does not survive can be recognised.
pub(super) fn recognizes() -> bool {
    // Relaxed: written before `main`.
    armed().is_some() && !NOTHING_CAN_BE_TOLD.load(Ordering::Relaxed)
}

fn say_that_nothing_can_be_told() {
    NOTHING_CAN_BE_TOLD.store(true, Ordering::Relaxed);
    const LINE: &[u8] =
        b"oomguard: the limit holds, but this program was built so that running out of memory cannot be \
                          told from other aborts: build it with unwind tables (-C force-unwind-tables)\n";
    sys::fd::write_patiently(libc::STDERR_FILENO, LINE, 1000);
}

/// What programs of all languages have in common: wishes, limit, facts, record. `None`: the guard stands aside. `trial`
/// tries the program's allocator.
///
/// # Safety
/// At most once in a process, from the constructor.
pub unsafe fn set_up(
    source: &Settings,
    environment: &Environment<'_>,
    program: &[u8],
    trial: Option<fn() -> bool>,
    alloc_error_code: fn() -> Range<usize>,
) -> Option<&'static Armed> {
    let home = sys::objects::home_of(set_up as *const () as usize);
    let process_has_begun = home.came_by_dlopen();
    // Before there is a limit, as this may allocate, and before anything that would be left behind.
    let stays = home.keep();
    let set_up = if stays || !process_has_begun {
        // SAFETY: once, by this function's contract.
        unsafe { try_to_set_up(source, environment, program, trial, alloc_error_code, process_has_begun) }
    } else {
        Err(Trouble::WouldBeUnloaded)
    };
    match set_up {
        Ok(armed) => Some(armed),
        Err(trouble) if process_has_begun => {
            stand_aside(&trouble);
            None
        }
        Err(trouble) => refuse_to_start(&trouble, environment.of(variable::RECORD)),
    }
}

/// # Safety
/// As above.
unsafe fn try_to_set_up<'a>(
    source: &Settings,
    environment: &Environment<'a>,
    program: &[u8],
    trial: Option<fn() -> bool>,
    alloc_error_code: fn() -> Range<usize>,
    process_has_begun: bool,
) -> Result<&'static Armed, Trouble<'a>> {
    let started_ms = sys::clock::monotonic_ms();
    let wishes = resolve(source, environment).map_err(Trouble::Variable)?;
    let report = match wishes.report {
        ReportTo::Nowhere => ReportTarget::Nowhere,
        // SAFETY: once, by this function's contract.
        _ => unsafe { report_target(&wishes, environment) }?,
    };
    let outer = environment.of(variable::OUTER).map(Outer::parse).unwrap_or_default();
    let now = rlimit(wishes.measure.into());
    let (rlimits_measure, soft) = match wishes.measure {
        Measure::Resident => (Measure::Data, sys::memory::ceiling_of(now)),
        measure => (measure, now.soft),
    };
    let replaced = outer.replaced(rlimits_measure, now);
    let existing = Rlimit { soft: replaced.unwrap_or(soft), ..now };
    let shares = wishes.measure == Measure::Resident
        && lease::attach(environment.of(variable::LEDGER), environment.of(variable::RECORD));
    let limit = resolve_limit(&known(&wishes, existing, shares)).map(|limit| match limit.source {
        LimitSource::Environment if outer.says_limit(environment.of(variable::LIMIT)) => {
            Resolved { source: LimitSource::CommandLine, ..limit }
        }
        _ => limit,
    });

    let limit = if shares {
        sys::memory::have_freed_blocks_given_back(lease::budget().unwrap_or(0));
        within_budget(limit)
    } else {
        limit
    };

    let mut address_space_is_limited = false;
    if let Some(limit) = limit {
        check_that_it_counts(wishes.measure)?;
        if process_has_begun {
            // Other threads would be refused by a limit that is only tried out.
            check_that_it_fits(limit, wishes.measure, &sys::memory::memory_use())?;
        }
        address_space_is_limited = prepare_address_space(wishes.measure, wishes.arenas_are_set, limit.bytes);
        let is_looked_at = environment.of(variable::RECORD).is_some();
        set_soft_limit(limit, wishes.measure, now, existing.soft, is_looked_at)?;
        if let Some(trial) = trial {
            check_that_the_allocator_starts(limit, wishes.measure, trial)?;
        }
    }
    note_other_limit(&outer, wishes.measure.other());
    // The trial is not among what is counted.
    inject_as_told(&wishes)?;

    let other = wishes.measure.other();
    let facts = Armed {
        exit_code: wishes.exit_code,
        measure: wishes.measure,
        limit: HeldLimit::new(limit),
        other_limit: rlimit(other.into()).soft,
        users_data_limit: existing.soft.filter(|_| wishes.measure == Measure::Resident),
        on_refusal: wishes.on_refusal,
        reserve_bytes: wishes.reserve_bytes,
        quiet: wishes.quiet,
        sufficient: wishes.sufficient,
        report_is_parents: !matches!(report, ReportTarget::Nowhere)
            && (outer.report().is_none() || outer.file_of_report(environment.of(variable::REPORT)).is_some()),
        report,
        profile_from_environment: wishes.profile_from_environment,
        token: wishes.token.map(Text::from_bytes),
        program: Text::from_bytes(behind_last(program, b'/')),
        started_ms,
        address_space_is_limited: address_space_is_limited.into(),
        arenas_are_set: wishes.arenas_are_set,
        alloc_error_code: alloc_error_code(),
        stall_ms: wishes.stall_ms,
        exits_on_uncaught: wishes.exits_on_uncaught,
        abort_action: sys::signals::disposition(libc::SIGABRT),
    };
    // SAFETY: once, by this function's contract.
    let armed = unsafe { arm_with(facts) };
    record::attach(environment.of(variable::RECORD), armed, source.profiles());
    // A launcher has seen the environment, and said it.
    let by_launcher = environment.of(variable::OUTER).is_some()
        || environment.of(variable::RECORD).is_some_and(|place| place.starts_with(b"proc:"));
    if let Some((name, meant)) = environment.misspelt
        && !wishes.quiet
        && !by_launcher
    {
        say_that_there_is_no_variable(name, meant);
    }
    // Who gives a process its limit, or its budget, looks whether it keeps it.
    let is_given = environment.of(variable::LIMIT).is_some()
        || limit.is_some_and(|limit| limit.source == LimitSource::Budget);
    if record::is_shared() && is_given && environment.of(variable::MEASURE).is_some() {
        onlooker::leave_to_parent();
    }
    Ok(armed)
}

/// The most that a process may have which shares a budget.
fn within_budget(limit: Option<Resolved>) -> Option<Resolved> {
    let budget = Resolved { bytes: lease::budget()?, source: LimitSource::Budget };
    Some(limit.filter(|limit| limit.bytes < budget.bytes).unwrap_or(budget))
}

/// Sets the limit that a C program asks for once it runs, as if its source had said so before. The errno of what went
/// wrong; then nothing has changed.
pub fn change_limit(armed: &Armed, limit: Limit) -> Result<(), i32> {
    let measure = armed.measure;
    let now = rlimit(measure.into());
    let soft = sys::memory::replaced_soft_limit(measure).unwrap_or(now.soft);
    let ask = needs_container(None, Some(limit));
    let resolved = resolve_limit(&Known {
        from_environment: None,
        from_source: Some(limit),
        container: if ask { container_limit("") } else { None },
        machine: if ask { sys::memory::machine_memory() } else { None },
        existing: of_same_measure(measure, Rlimit { soft, hard: now.hard }),
    });
    let resolved = if lease::is_shared() { within_budget(resolved) } else { resolved };
    if let Some(resolved) = resolved {
        if measure != Measure::AddressSpace && sys::memory::data_limit_is_ignored() {
            return Err(libc::ENOTSUP);
        }
        if sys::memory::memory_use().of(measure).is_some_and(|in_use| in_use > resolved.bytes) {
            return Err(libc::ENOMEM);
        }
        // Relaxed: as for the limit itself, a call to be made early.
        let limited = prepare_address_space(measure, armed.arenas_are_set, resolved.bytes);
        armed.address_space_is_limited.store(limited, Ordering::Relaxed);
    }
    if measure == Measure::Resident {
        armed.limit.set(resolved);
        let use_now = sys::memory::memory_use();
        return if resident::set(resolved.map(|resolved| resolved.bytes), soft, &use_now, record::is_shared())
        {
            sys::memory::note_replaced_soft_limit(measure, soft);
            onlooker::begin();
            Ok(())
        } else {
            Err(sys::errno::errno())
        };
    }
    let wanted = Rlimit { soft: resolved.map_or(soft, |resolved| Some(resolved.bytes)), hard: now.hard };
    if now != wanted && !set_rlimit(measure.into(), wanted) {
        return Err(sys::errno::errno());
    }
    sys::memory::note_replaced_soft_limit(measure, soft);
    armed.limit.set(resolved);
    Ok(())
}

/// The limit's sources, as far as they matter.
fn known(wishes: &Wishes<'_>, existing: Rlimit, shares: bool) -> Known {
    let said = wishes.limit_from_environment.or(wishes.limit_from_source);
    // In a budget there is that, where nobody says less.
    let is_budget = shares && said.unwrap_or(Limit::Auto) == Limit::Auto;
    let from_environment = if is_budget { Some(Limit::Off) } else { wishes.limit_from_environment };
    let ask = needs_container(from_environment, wishes.limit_from_source);
    Known {
        from_environment,
        from_source: wishes.limit_from_source,
        container: if ask { container_limit("") } else { None },
        machine: if ask { sys::memory::machine_memory() } else { None },
        existing: of_same_measure(wishes.measure, existing),
    }
}

/// An rlimit that was there before, where it counts what the limit counts: none counts what is resident.
fn of_same_measure(measure: Measure, existing: Rlimit) -> Rlimit {
    if measure == Measure::Resident { Rlimit { soft: None, hard: None } } else { existing }
}

/// A limit on `data` is no limit where the machine ignores it.
fn check_that_it_counts(measure: Measure) -> Result<(), Trouble<'static>> {
    if measure != Measure::AddressSpace && sys::memory::data_limit_is_ignored() {
        return Err(Trouble::DataIsIgnored(measure));
    }
    Ok(())
}

/// What has to happen while address space is still to be had. Whether it is limited at all.
fn prepare_address_space(measure: Measure, arenas_are_set: bool, limit_bytes: u64) -> bool {
    let is_measured = measure == Measure::AddressSpace;
    let limit_bytes = if is_measured { Some(limit_bytes) } else { rlimit(Resource::AddressSpace).soft };
    let Some(limit_bytes) = limit_bytes else { return false };
    if !arenas_are_set {
        sys::memory::cap_arenas(arenas::arenas_under(limit_bytes));
    }
    stack::reserve_main_stack(limit_bytes);
    true
}

fn check_that_it_fits(
    limit: Resolved,
    measure: Measure,
    use_now: &sys::memory::MemoryUse,
) -> Result<(), Trouble<'static>> {
    match use_now.of(measure) {
        Some(in_use) if in_use > limit.bytes => Err(Trouble::DoesNotFit { limit, measure, in_use }),
        _ => Ok(()),
    }
}

/// A trial of the allocator `A`, unless it is the system's, which lives under any limit.
fn trial_of<A>() -> Option<fn() -> bool> {
    // The name may change with the compiler: then the system's is tried, too.
    if core::any::type_name::<A>() == "std::alloc::System" { None } else { Some(rust::can_allocate) }
}

/// An allocator that reserves much at its start would fail in the program's first allocation, with words that name
/// nobody, or none.
fn check_that_the_allocator_starts(
    limit: Resolved,
    measure: Measure,
    trial: fn() -> bool,
) -> Result<(), Trouble<'static>> {
    let starts = trial::run(trial, limit.bytes, measure, |bytes, measure| {
        refuse_to_start(&Trouble::AllocatorDoesNotStart { bytes, measure }, None)
    });
    if starts { Ok(()) } else { Err(Trouble::AllocatorDoesNotStart { bytes: limit.bytes, measure }) }
}

/// Sets the soft limit and leaves the hard one: what lies between them is the reserve.
fn set_soft_limit(
    limit: Resolved,
    measure: Measure,
    now: Rlimit,
    soft_of_the_users: Option<u64>,
    is_looked_at: bool,
) -> Result<(), Trouble<'static>> {
    if measure == Measure::Resident {
        // Read once: the kernel takes longer over it than anything else takes here.
        let use_now = sys::memory::memory_use();
        check_that_it_fits(limit, measure, &use_now)?;
        if !resident::set(Some(limit.bytes), soft_of_the_users, &use_now, is_looked_at) {
            return Err(Trouble::CannotBeSet { limit, measure, errno: sys::errno::errno() });
        }
        sys::memory::note_replaced_soft_limit(measure, soft_of_the_users);
        return Ok(());
    }
    let wanted = Rlimit { soft: Some(limit.bytes), hard: now.hard };
    if now != wanted && !set_rlimit(measure.into(), wanted) {
        return Err(Trouble::CannotBeSet { limit, measure, errno: sys::errno::errno() });
    }
    // One page more or none tells in 3 µs what `/proc/self/status` takes 30 to tell.
    if sys::memory::would_be_refused(sys::memory::page_bytes() as usize)
        && let Err(trouble) = check_that_it_fits(limit, measure, &sys::memory::memory_use())
    {
        set_rlimit(measure.into(), now);
        return Err(trouble);
    }
    sys::memory::note_replaced_soft_limit(measure, soft_of_the_users);
    Ok(())
}

/// A limit of an outer launcher's by another measure than this process's own stays in force here, but is nobody's word for
/// what a supervisor in this process starts.
fn note_other_limit(outer: &Outer<'_>, measure: Measure) {
    if let Some(before) = outer.replaced(measure, rlimit(measure.into())) {
        sys::memory::note_replaced_soft_limit(measure, before);
    }
}

/// Finds out now whether a report could be written later. By itself, as most processes need not touch so much of the stack.
///
/// # Safety
/// At most once in a process, from the constructor.
#[inline(never)]
unsafe fn report_target<'a>(
    wishes: &Wishes<'a>,
    environment: &Environment<'a>,
) -> Result<ReportTarget, Trouble<'a>> {
    let bad = |reason| {
        Trouble::Variable(BadVariable {
            name: variable::REPORT,
            value: environment.of(variable::REPORT).unwrap_or_default(),
            reason,
            accepted: "the path of a file that can be appended to, or fd:N for a descriptor open for writing",
        })
    };
    // What a launcher was told is the launcher's, who has tried it: that it is out of reach here is no error.
    let launchers = environment
        .of(variable::OUTER)
        .and_then(|outer| Outer::parse(outer).file_of_report(environment.of(variable::REPORT)));
    let missing = |reason| if launchers.is_some() { Ok(ReportTarget::Nowhere) } else { Err(bad(reason)) };
    match wishes.report {
        ReportTo::Nowhere => Ok(ReportTarget::Nowhere),
        ReportTo::Descriptor(fd) => match sys::fd::file_id(fd) {
            // Of the same number may be quite another file.
            Some(id) if launchers.is_some_and(|launchers| launchers != id.numbers()) => {
                Ok(ReportTarget::Nowhere)
            }
            Some(id) if sys::fd::is_writable(fd) => Ok(ReportTarget::Descriptor(fd, id)),
            _ => missing("no descriptor that is open for writing"),
        },
        ReportTo::Path(path) => {
            let mut directory = [0; 4096];
            // Absolute from the start, as the program may change its directory.
            let prefix = if path.starts_with(b"/") { &[] } else { current_directory(&mut directory) };
            // SAFETY: once, by this function's contract.
            let Some(file) = (unsafe { keep_path([prefix, path]) }) else {
                return missing("longer than a path can be");
            };
            if path.ends_with(b"/") || !can_append(file) {
                return missing("cannot be written");
            }
            Ok(ReportTarget::File(file))
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
    let slash = last_position(parent.as_bytes(), b'/');
    parent.truncate(slash.map_or(0, |at| at.max(1)));
    parent.push_bytes(&[0]);
    let parent = CStr::from_bytes_until_nul(parent.as_bytes());
    parent.is_ok_and(|directory| sys::fd::can_append(file, directory))
}

#[cfg(feature = "inject")]
fn inject_as_told<'a>(wishes: &Wishes<'a>) -> Result<(), Trouble<'a>> {
    match wishes.inject {
        Some(value) if !super::inject::plan_from(value) => Err(bad_inject(
            value,
            "not a plan",
            "N (the Nth allocation after start) or N+ (the Nth and all after it)",
        )),
        _ => Ok(()),
    }
}

#[cfg(not(feature = "inject"))]
fn inject_as_told<'a>(wishes: &Wishes<'a>) -> Result<(), Trouble<'a>> {
    match wishes.inject {
        Some(value) => Err(bad_inject(
            value,
            "this program was built without oomguard's feature `inject`",
            "nothing; unset it",
        )),
        None => Ok(()),
    }
}

fn bad_inject<'a>(value: &'a [u8], reason: &'static str, accepted: &'static str) -> Trouble<'a> {
    Trouble::Variable(BadVariable { name: variable::INJECT, value, reason, accepted })
}

/// Why a process cannot be guarded.
enum Trouble<'a> {
    Variable(BadVariable<'a>),
    DataIsIgnored(Measure),
    CannotBeSet { limit: Resolved, measure: Measure, errno: i32 },
    DoesNotFit { limit: Resolved, measure: Measure, in_use: u64 },
    AllocatorDoesNotStart { bytes: u64, measure: Measure },
    WouldBeUnloaded,
}

impl Trouble<'_> {
    fn describe(&self, line: &mut Text<1024>) {
        match self {
            Trouble::Variable(bad) => bad.describe(line),
            Trouble::DataIsIgnored(measure) => {
                line.push("measure ");
                line.push(measure.as_str());
                line.push(
                " cannot be limited: this machine ignores RLIMIT_DATA \
                 (/sys/module/kernel/parameters/ignore_rlimit_data is on); use OOMGUARD_MEASURE=address-space, \
                 or have the machine's parameter switched off",
            );
            }
            Trouble::CannotBeSet { limit, measure, errno } => {
                push_limit(line, *limit, *measure);
                line.push(" cannot be set (setrlimit: errno ");
                line.push_number(u64::from(errno.unsigned_abs()));
                line.push("); see whether a security profile forbids it, or set OOMGUARD_LIMIT=off");
            }
            Trouble::DoesNotFit { limit, measure, in_use } => {
                push_limit(line, *limit, *measure);
                line.push(" (");
                line.push(place_of(limit.source));
                line.push(")");
                line.push(" is below the ");
                push_bytes(line, *in_use);
                line.push(" that this process uses already; ");
                line.push(match limit.source {
                    LimitSource::CommandLine => "give it a --limit (-m) well above that",
                    LimitSource::Budget => "give it a larger --budget",
                    _ => "set OOMGUARD_LIMIT well above that",
                });
            }
            Trouble::AllocatorDoesNotStart { bytes, measure } => {
                line.push("the program's allocator cannot start under the limit of ");
                push_bytes(line, *bytes);
                line.push(" of ");
                line.push(measure.as_str());
                line.push(": it reserves more than that at once; use ");
                if *measure == Measure::AddressSpace {
                    line.push("OOMGUARD_MEASURE=data, if it only reserves, or ");
                }
                line.push("a larger OOMGUARD_LIMIT, or another allocator");
            }
            Trouble::WouldBeUnloaded => line.push("its library cannot be kept from being unloaded (dlopen)"),
        }
    }
}

fn push_limit(line: &mut Text<1024>, limit: Resolved, measure: Measure) {
    line.push("the limit of ");
    push_bytes(line, limit.bytes);
    line.push(" of ");
    line.push(measure.as_str());
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

/// The end of a process whose guard cannot be set up: one line, here and in the record, if there is one; exit 125.
fn refuse_to_start(trouble: &Trouble<'_>, record: Option<&[u8]>) -> ! {
    complain(trouble, "");
    let mut reason = Text::new();
    trouble.describe(&mut reason);
    record::note_trouble(record, reason.as_bytes());
    sys::process::exit_now(EXIT_CANNOT_GUARD)
}

fn say_that_there_is_no_variable(name: &[u8], meant: &str) {
    let mut line = Text::<256>::new();
    line.push("oomguard: ");
    push_misspelt(&mut line, name, meant);
    line.push("\n");
    sys::fd::write_patiently(libc::STDERR_FILENO, line.as_bytes(), 1000);
}

/// The process goes on as if this library had no guard.
fn stand_aside(trouble: &Trouble<'_>) {
    complain(
        trouble,
        "; as the library that has the guard was loaded by dlopen, the process goes on without",
    );
}

/// Said even under OOMGUARD_QUIET: there is no report that would say it instead.
fn complain(trouble: &Trouble<'_>, consequence: &str) {
    let mut reason = Text::new();
    trouble.describe(&mut reason);
    let mut line = Text::<1200>::new();
    line.push("oomguard: cannot guard this process: ");
    line.push_bytes(reason.as_bytes());
    line.push(consequence);
    line.push("\n");
    sys::fd::write_patiently(libc::STDERR_FILENO, line.as_bytes(), 1000);
}

/// Our variables, unless the program runs with more rights than whoever set them.
///
/// # Safety
/// `envp` is null or an array of C strings that ends in a null pointer, and that lives as long as the process.
pub unsafe fn read_environment(envp: *const *const c_char) -> Environment<'static> {
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
        if BEGINNINGS.iter().any(|beginning| unsafe { begins_with(entry, beginning) }) {
            // SAFETY: as above.
            environment.note(unsafe { c_string(entry) });
        }
        // SAFETY: the array goes on, as this entry was not its end.
        next = unsafe { next.add(1) };
    }
}

/// Most of the environment is not ours, and need not be read to its end.
///
/// # Safety
/// `text` is a C string.
unsafe fn begins_with(text: *const c_char, beginning: &str) -> bool {
    // SAFETY: not past the end of the string, as its NUL differs.
    beginning
        .bytes()
        .enumerate()
        .all(|(at, byte)| unsafe { text.wrapping_add(at).cast::<u8>().read() } == byte)
}

/// # Safety
/// `text` is a C string that lives as long as the process.
pub unsafe fn c_string(text: *const c_char) -> &'static [u8] {
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}
