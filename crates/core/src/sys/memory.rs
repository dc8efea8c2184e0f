//! What the kernel says of this process's memory: limits, use, and whether an address can be read.

use super::c_library;
use super::fd::Lines;
use super::raw::{self, call};
use crate::contract::Measure;
use crate::text::{leading_number, parts, position};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a page.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// A soft and a hard limit of setrlimit(2), in bytes; `None` is infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// What the kernel enforces; the process may set it anywhere up to the hard one.
    pub soft: Option<u64>,
    /// What the soft one can be raised to.
    pub hard: Option<u64>,
}

/// The resources of setrlimit(2) that this crate looks at.
#[derive(Clone, Copy)]
pub enum Resource {
    AddressSpace,
    Data,
    Stack,
    /// How many processes and threads the user may have; not bytes.
    Processes,
}

impl From<Measure> for Resource {
    fn from(measure: Measure) -> Resource {
        match measure {
            Measure::AddressSpace => Resource::AddressSpace,
            Measure::Data | Measure::Resident => Resource::Data,
        }
    }
}

impl Resource {
    pub fn number(self) -> i32 {
        match self {
            Resource::AddressSpace => libc::RLIMIT_AS as i32,
            Resource::Data => libc::RLIMIT_DATA as i32,
            Resource::Stack => libc::RLIMIT_STACK as i32,
            Resource::Processes => libc::RLIMIT_NPROC as i32,
        }
    }
}

pub fn rlimit(resource: Resource) -> Rlimit {
    let mut raw = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // Fails only for a bad resource or address; then the two infinities stand.
    // SAFETY: `raw` is writable during the call.
    unsafe { raw::prlimit(0, resource.number() as _, core::ptr::null(), &raw mut raw) };
    let bytes = |value| if value == libc::RLIM_INFINITY { None } else { Some(value) };
    Rlimit { soft: bytes(raw.rlim_cur), hard: bytes(raw.rlim_max) }
}

/// What a guard of this process replaced: the soft limit from before, plus one; zero where there is none.
/// A supervisor in the same process gives it back to its children.
static REPLACED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn replaced(measure: Measure) -> &'static AtomicU64 {
    let [address_space, data] = &REPLACED;
    match measure {
        Measure::AddressSpace => address_space,
        Measure::Data | Measure::Resident => data,
    }
}

/// Notes the soft limit that the guard is about to lower; `None` is infinity.
pub fn note_replaced_soft_limit(measure: Measure, soft: Option<u64>) {
    // Relaxed: written before `main`.
    replaced(measure).store(soft.map_or(u64::MAX, |soft| soft.saturating_add(1)), Ordering::Relaxed);
}

/// The soft limit that held before this process's guard lowered it; the outer `None`: no guard did.
pub fn replaced_soft_limit(measure: Measure) -> Option<Option<u64>> {
    // Relaxed: as above.
    match replaced(measure).load(Ordering::Relaxed) {
        0 => None,
        u64::MAX => Some(None),
        soft => Some(Some(soft - 1)),
    }
}

/// The low bits of a soft limit on data that holds another measure, and so says nothing of data itself: the kernel compares
/// whole pages. Whoever inherits it, and takes care of itself, may go above it: as far as the hard limit, or, where the
/// process was started with a lower one, no further.
const OURS: u64 = 0x198;
const OURS_BELOW_ANOTHER: u64 = 0x199;
/// The same of a program that no guard gets into: nobody moves it, but for a tracer that takes it over.
const OURS_STANDING: u64 = 0x19a;
/// The same of one that is followed: its tracer moves it.
const OURS_FOLLOWED: u64 = 0x19b;
/// Beside it, where something was refused last, and nothing granted since: whoever looks on knows by this that the process
/// has been told no, and may be on its way out.
const REFUSED: u64 = 0x400;
const MARK_BITS: u64 = 0xbff;
const LOW_BITS: u64 = 0xfff;

/// A soft limit on data of about so many bytes that is known as ours; below another one, if there was a lower one before.
pub fn marked(bytes: u64, is_below_another: bool) -> u64 {
    bytes & !LOW_BITS | if is_below_another { OURS_BELOW_ANOTHER } else { OURS }
}

/// The same for a program that no guard gets into.
pub fn marked_standing(bytes: u64) -> u64 {
    bytes & !LOW_BITS | OURS_STANDING
}

/// The same for a program that is followed.
pub fn marked_followed(bytes: u64) -> u64 {
    bytes & !LOW_BITS | OURS_FOLLOWED
}

/// The highest one below that hard limit.
pub fn marked_followed_up_to(hard: Option<u64>) -> u64 {
    marked_followed(hard.unwrap_or(i64::MAX as u64).saturating_sub(LOW_BITS))
}

/// A soft limit of ours that says that something was refused, and nothing granted since.
pub fn with_refusal(soft: u64) -> u64 {
    if is_marked(soft) { soft | REFUSED } else { soft }
}

/// Whether it says so.
pub fn tells_of_refusal(soft: Option<u64>) -> bool {
    soft.is_some_and(|soft| is_marked(soft) && soft & REFUSED != 0)
}

/// Whether a soft limit is such a one.
pub fn is_marked(soft: u64) -> bool {
    matches!(soft & MARK_BITS, OURS | OURS_BELOW_ANOTHER | OURS_STANDING | OURS_FOLLOWED)
}

/// Who moves a soft limit on data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// The process's own guard.
    Guard,
    /// The tracer that follows it.
    Tracer,
    /// Nobody: it is of a program that no guard gets into.
    Nobody,
    /// It is none of ours.
    User,
}

/// Who moves this soft limit.
pub fn mover_of(soft: Option<u64>) -> Mover {
    match soft.map(|soft| soft & MARK_BITS) {
        Some(OURS | OURS_BELOW_ANOTHER) => Mover::Guard,
        Some(OURS_FOLLOWED) => Mover::Tracer,
        Some(OURS_STANDING) => Mover::Nobody,
        _ => Mover::User,
    }
}

/// How much of what a process has mapped it does not use, as those who look at it find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untouched {
    now: u64,
    /// The least of this time and of the one before: what was mapped a moment ago is about to be used.
    least: u64,
    least_before: Option<u64>,
    began_ms: u64,
}

impl Untouched {
    /// What is not used for so long will not be used soon.
    const TIME_MS: u64 = 500;

    /// The next look.
    pub fn note(&mut self, data: u64, held: u64, now_ms: u64) {
        self.now = data.saturating_sub(held);
        self.least = self.least.min(self.now);
        if now_ms.saturating_sub(self.began_ms) >= Self::TIME_MS {
            self.least_before = (self.began_ms > 0).then_some(self.least);
            (self.least, self.began_ms) = (self.now, now_ms);
        }
    }

    /// How much has not been used for a while.
    fn for_a_while(&self) -> u64 {
        self.least_before.map_or(0, |before| before.min(self.least))
    }
}

/// The soft limit on data that leaves room for what may still be held of `limit`, where it is ours and far from that: what was
/// used without asking is taken off; and what was granted and never used makes room for those that cannot ask, as the dynamic
/// linker and the C library cannot. Else as it is.
pub fn settled(now: Rlimit, untouched: &Untouched, limit: u64) -> Option<u64> {
    let soft = now.soft?;
    let mark = soft & MARK_BITS;
    if !is_marked(soft) || mark == OURS_STANDING {
        return Some(soft);
    }
    let [lowered, raised] =
        [untouched.now, untouched.for_a_while()].map(|untouched| limit.saturating_add(untouched));
    let may_rise = mark != OURS_BELOW_ANOTHER;
    let wanted = match soft {
        soft if soft > lowered.saturating_add(limit / 32) => lowered,
        soft if may_rise && raised > soft.saturating_add(limit / 32) => raised,
        soft => return Some(soft),
    };
    Some((wanted & !LOW_BITS | soft & LOW_BITS).min(now.hard.unwrap_or(u64::MAX)))
}

/// The soft limit on data that nobody moves, for a limit of so many bytes; where it is another's, as it is.
pub fn standing(now: Rlimit, bytes: u64) -> Option<u64> {
    match mover_of(now.soft) {
        Mover::Nobody => {
            Some(now.hard.map_or(marked_standing(bytes), |hard| marked_standing(bytes).min(hard)))
        }
        _ => now.soft,
    }
}

/// The soft limit on data of another process that is to ask again before it has more than `data` bytes: as it is, where it
/// is not ours to move, or lower already.
pub fn lowered(now: Rlimit, data: u64) -> Option<u64> {
    let soft = now.soft?;
    let asks_again = matches!(soft & MARK_BITS, OURS | OURS_BELOW_ANOTHER | OURS_FOLLOWED);
    Some(if asks_again { soft.min(data & !LOW_BITS | soft & LOW_BITS) } else { soft })
}

/// How far the soft limit on data may be moved, in bytes: as far as whoever started this process lets it.
pub fn ceiling_of(now: Rlimit) -> Option<u64> {
    match now.soft {
        Some(soft) if matches!(soft & MARK_BITS, OURS | OURS_STANDING | OURS_FOLLOWED) => now.hard,
        soft => soft.or(now.hard),
    }
}

pub fn set_rlimit(resource: Resource, limit: Rlimit) -> bool {
    let raw = libc::rlimit {
        rlim_cur: limit.soft.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: limit.hard.unwrap_or(libc::RLIM_INFINITY),
    };
    // SAFETY: `raw` is readable during the call.
    unsafe { raw::prlimit(0, resource.number() as _, &raw const raw, core::ptr::null_mut()) == 0 }
}

/// Sets the soft limit of process `pid` from what `wanted` makes of its soft and hard one, if that changes it:
/// prlimit(2). The error is `errno`.
pub fn change_soft_limit(
    pid: u32,
    resource: Resource,
    wanted: impl FnOnce(Rlimit) -> Option<u64>,
) -> Result<(), i32> {
    let change = |new: *const libc::rlimit, old: *mut libc::rlimit| {
        // SAFETY: each is null or a structure of the caller's that outlives the call.
        let result = unsafe { raw::prlimit(pid.cast_signed(), resource.number() as _, new, old) };
        if result == 0 { Ok(()) } else { Err(super::errno::errno()) }
    };
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    change(core::ptr::null(), &raw mut raw)?;
    let bytes = |value| if value == libc::RLIM_INFINITY { None } else { Some(value) };
    let now = Rlimit { soft: bytes(raw.rlim_cur), hard: bytes(raw.rlim_max) };
    let soft = wanted(now);
    if soft == now.soft {
        return Ok(());
    }
    raw.rlim_cur = soft.unwrap_or(libc::RLIM_INFINITY);
    change(&raw const raw, core::ptr::null_mut())
}

/// What a process uses, in bytes, as `/proc/self/status` tells (proc_pid_status(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// `VmSize`: all mappings; what `RLIMIT_AS` is compared with.
    pub address_space: Option<u64>,
    /// `VmData`: private writable mappings; what `RLIMIT_DATA` is compared with.
    pub data: Option<u64>,
    /// `VmRSS`.
    pub resident: Option<u64>,
    /// `VmHWM`.
    pub resident_peak: Option<u64>,
    /// `RssAnon`: private memory in use.
    pub anonymous: Option<u64>,
    /// `RssShmem`: what is in use of memory that may be shared, files in tmpfs included.
    pub shared: Option<u64>,
    /// `VmSwap`.
    pub swapped: Option<u64>,
    /// `Threads`.
    pub threads: Option<u64>,
    /// What the program's own allocator counts, where it does; not from that file.
    pub heap: HeapUse,
}

/// Bytes that the program holds of its allocator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapUse {
    pub live: Option<u64>,
    pub peak: Option<u64>,
}

impl MemoryUse {
    pub fn of(&self, measure: Measure) -> Option<u64> {
        match measure {
            Measure::AddressSpace => self.address_space,
            Measure::Data => self.data,
            Measure::Resident => self.held().or(self.resident),
        }
    }

    /// What counts as resident: what the process would give back with its end, unless others share it.
    pub fn held(&self) -> Option<u64> {
        let others = self.shared.unwrap_or(0).saturating_add(self.swapped.unwrap_or(0));
        Some(self.anonymous?.saturating_add(others))
    }

    /// What a text of that form tells.
    pub fn read(text: &[u8]) -> MemoryUse {
        let mut found = MemoryUse::default();
        parts(text, b'\n').for_each(|line| found.note(line));
        found
    }

    /// Takes in one line of the file.
    fn note(&mut self, line: &[u8]) {
        // Most lines are none of these.
        if !matches!(line, [b'V', b'm', ..] | [b'R', b's', ..] | [b'T', b'h', ..]) {
            return;
        }
        let Some(colon) = position(line, b':') else { return };
        let (key, value) = line.split_at(colon);
        let (field, unit) = match key {
            b"VmSize" => (&mut self.address_space, 1024),
            b"VmData" => (&mut self.data, 1024),
            b"VmRSS" => (&mut self.resident, 1024),
            b"VmHWM" => (&mut self.resident_peak, 1024),
            b"RssAnon" => (&mut self.anonymous, 1024),
            b"RssShmem" => (&mut self.shared, 1024),
            b"VmSwap" => (&mut self.swapped, 1024),
            b"Threads" => (&mut self.threads, 1),
            _ => return,
        };
        *field = value.get(1..).and_then(leading_number).and_then(|number| number.checked_mul(unit));
    }
}

/// What this process uses now; all unknown where there is no `/proc`. About 15 µs.
pub fn memory_use() -> MemoryUse {
    let found = read_status(c"/proc/self/status", |_| {});
    if found.resident.is_none() && found.threads.is_some() {
        // The first thread has ended, and uses nothing.
        return read_status(c"/proc/thread-self/status", |_| {});
    }
    found
}

/// The process that thread `tid` belongs to, and what it uses; unknown where it is gone or there is no `/proc`.
pub fn process_of(tid: u32) -> (Option<u32>, MemoryUse) {
    let mut process = None;
    let path = super::proc::proc_path(tid, "status");
    let Ok(path) = CStr::from_bytes_until_nul(path.as_bytes()) else { return (None, MemoryUse::default()) };
    let memory = read_status(path, |line| {
        if let Some(value) = line.strip_prefix(b"Tgid:") {
            process = leading_number(value).and_then(|number| u32::try_from(number).ok());
        }
    });
    (process, memory)
}

/// The soft limit of process `pid`, in bytes.
pub fn soft_limit_of(pid: u32, resource: Resource) -> Option<u64> {
    let mut raw = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: nothing is set, and `raw` is writable during the call.
    unsafe { raw::prlimit(pid.cast_signed(), resource.number() as _, core::ptr::null(), &raw mut raw) };
    let soft = (raw.rlim_cur != libc::RLIM_INFINITY).then_some(raw.rlim_cur);
    soft.map(|soft| if is_marked(soft) { soft & !LOW_BITS } else { soft })
}

/// The soft limit on data of process `pid`, as it stands.
pub fn soft_limit_on_data_of(pid: u32) -> Option<u64> {
    let mut soft = None;
    let _ = change_soft_limit(pid, Resource::Data, |now| {
        soft = now.soft;
        now.soft
    });
    soft
}

/// Whether the soft limit on data of process `pid` may be its own guard's.
pub fn may_have_guard(pid: u32) -> bool {
    matches!(mover_of(soft_limit_on_data_of(pid)), Mover::Guard | Mover::User)
}

/// The soft limit on data of process `pid` that nobody moves, in bytes.
pub fn standing_limit_of(pid: u32) -> Option<u64> {
    let soft = soft_limit_on_data_of(pid);
    match mover_of(soft) {
        Mover::Guard | Mover::Tracer => None,
        Mover::Nobody => soft.map(|soft| soft & !LOW_BITS),
        Mover::User => soft,
    }
}

/// What this process holds where what several share counts in parts: proc_pid_smaps(5), Pss. `None` where the kernel does
/// not say. It walks the page tables, some milliseconds for a GiB.
pub fn share_held() -> Option<u64> {
    share_held_in(c"/proc/self/smaps_rollup")
}

/// The same of process `pid`.
pub fn share_held_by(pid: u32) -> Option<u64> {
    let path = super::proc::proc_path(pid, "smaps_rollup");
    share_held_in(CStr::from_bytes_until_nul(path.as_bytes()).ok()?)
}

/// The same of shared memory alone.
pub fn shared_share_held_by(pid: u32) -> Option<u64> {
    let path = super::proc::proc_path(pid, "smaps_rollup");
    share_in(CStr::from_bytes_until_nul(path.as_bytes()).ok()?)?.shared
}

fn share_held_in(path: &CStr) -> Option<u64> {
    share_in(path)?.held()
}

fn share_in(path: &CStr) -> Option<Share> {
    let mut buffer = [0; 512];
    let mut lines = Lines::open(path, &mut buffer)?;
    let mut share = Share::default();
    while let Some(line) = lines.next() {
        share.note(line);
    }
    Some(share)
}

/// What a text of that file's tells.
pub fn share_held_of(text: &[u8]) -> Option<u64> {
    let mut share = Share::default();
    parts(text, b'\n').for_each(|line| share.note(line));
    share.held()
}

#[derive(Default)]
struct Share {
    anonymous: Option<u64>,
    shared: Option<u64>,
    swapped: Option<u64>,
}

impl Share {
    fn note(&mut self, line: &[u8]) {
        let fields: [(&[u8], &mut Option<u64>); 3] = [
            (b"Pss_Anon:", &mut self.anonymous),
            (b"Pss_Shmem:", &mut self.shared),
            (b"SwapPss:", &mut self.swapped),
        ];
        for (key, field) in fields {
            if let Some(value) = line.strip_prefix(key) {
                *field = leading_number(value).and_then(|number| number.checked_mul(1024));
            }
        }
    }

    fn held(&self) -> Option<u64> {
        Some(self.anonymous?.saturating_add(self.shared?).saturating_add(self.swapped.unwrap_or(0)))
    }
}

/// What process `pid` uses; all unknown where it is gone.
pub fn memory_use_of(pid: u32) -> MemoryUse {
    process_of(pid).1
}

fn read_status(path: &CStr, mut look: impl FnMut(&[u8])) -> MemoryUse {
    let mut found = MemoryUse::default();
    let mut buffer = [0; 512];
    let Some(mut lines) = Lines::open(path, &mut buffer) else { return found };
    while let Some(line) = lines.next() {
        look(line);
        found.note(line);
        // The last one of ours in the file, since Linux 2.6.
        if found.threads.is_some() {
            break;
        }
    }
    found
}

/// A process's address space, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpaceUse {
    /// All mappings.
    pub all: u64,
    /// Of these, what cannot be written: code, files, reservations.
    pub not_writable: u64,
}

/// What this process has mapped now: proc_pid_statm(5), a quarter of the time that [`memory_use`] takes.
pub fn address_space_use() -> Option<AddressSpaceUse> {
    let mut buffer = [0; 512];
    let mut lines = Lines::open(c"/proc/self/statm", &mut buffer)?;
    // size resident shared text lib data dirty, in pages; `data` is private writable memory and the main stack.
    let mut fields = lines.next()?.split(|byte| *byte == b' ');
    let all = leading_number(fields.next()?)?;
    let writable = leading_number(fields.nth(4)?)?;
    let page = page_bytes();
    Some(AddressSpaceUse { all: all * page, not_writable: all.saturating_sub(writable) * page })
}

/// The main stack as far as it is mapped: proc_pid_maps(5).
pub fn main_stack() -> Option<core::ops::Range<usize>> {
    let mut buffer = [0; 512];
    let mut lines = Lines::open(c"/proc/self/maps", &mut buffer)?;
    while let Some(line) = lines.next() {
        if let Some(stack) = stack_in(line) {
            return Some(stack);
        }
    }
    None
}

/// How much of what is mapped there RLIMIT_DATA counts: private and writable. `None` where it cannot be read.
pub fn data_within(range: core::ops::Range<usize>) -> Option<u64> {
    data_within_of(c"/proc/self/maps", range)
}

/// The same of process `pid`.
pub fn data_of_within(pid: u32, range: core::ops::Range<usize>) -> Option<u64> {
    let path = super::proc::proc_path(pid, "maps");
    data_within_of(CStr::from_bytes_until_nul(path.as_bytes()).ok()?, range)
}

fn data_within_of(maps: &CStr, range: core::ops::Range<usize>) -> Option<u64> {
    let mut buffer = [0; 512];
    let mut lines = Lines::open(maps, &mut buffer)?;
    let mut bytes = 0;
    while let Some(line) = lines.next() {
        let Some((bounds, permissions)) = bounds_in(line) else { continue };
        if bounds.start >= range.end {
            break;
        }
        if let [_, b'w', _, b'p', ..] = permissions {
            let (start, end) = (bounds.start.max(range.start), bounds.end.min(range.end));
            bytes += end.saturating_sub(start) as u64;
        }
    }
    Some(bytes)
}

/// The bounds of the mapping in that line of proc_pid_maps(5), and its permissions.
fn bounds_in(line: &[u8]) -> Option<(core::ops::Range<usize>, &[u8])> {
    let mut fields = parts(line, b' ');
    let mut bounds = parts(fields.next()?, b'-');
    let mut bound = || {
        let digits = core::str::from_utf8(bounds.next()?).ok()?;
        usize::from_str_radix(digits, 16).ok()
    };
    Some((bound()?..bound()?, fields.next()?))
}

/// The bounds of the mapping in that line, if it is the main stack.
fn stack_in(line: &[u8]) -> Option<core::ops::Range<usize>> {
    // start-end permissions offset device inode name, where a file's name may be any bytes, and end so, too; but it
    // begins with a slash.
    let mut fields = parts(line, b' ').filter(|field| !field.is_empty());
    if fields.nth(5)? != b"[stack]" {
        return None;
    }
    bounds_in(line).map(|(bounds, _)| bounds)
}

/// The machine's memory in bytes: sysinfo(2).
pub fn machine_memory() -> Option<u64> {
    // SAFETY: all-zero is a valid `sysinfo`, a struct of integers.
    let mut info: libc::sysinfo = unsafe { core::mem::zeroed() };
    // SAFETY: `info` is writable during the call.
    if unsafe { raw::sysinfo(&raw mut info) } != 0 {
        return None;
    }
    info.totalram.checked_mul(u64::from(info.mem_unit))
}

/// Whether the machine's administrator has switched `RLIMIT_DATA` off.
pub fn data_limit_is_ignored() -> bool {
    const SWITCH: &CStr = c"/sys/module/kernel/parameters/ignore_rlimit_data";
    let mut buffer = [0; 512];
    let Some(mut lines) = Lines::open(SWITCH, &mut buffer) else { return false };
    matches!(lines.next(), Some([b'Y' | b'y' | b'1', ..]))
}

/// An anonymous mapping, past whoever interposes `mmap`. `errno` stays as it is.
///
/// # Safety
/// That of mmap(2): with MAP_FIXED it may replace what exists.
unsafe fn map(at: usize, bytes: usize, protection: i32, flags: i32) -> Option<*mut libc::c_void> {
    // SAFETY: by contract.
    let at = unsafe { call(libc::SYS_mmap, [at, bytes, protection as usize, flags as usize, usize::MAX, 0]) };
    // An error is a small negative number, and no mapping begins on a page like that.
    usize::try_from(at).ok().map(|at| at as *mut libc::c_void)
}

/// New zeros for `bytes`, for good: they take memory only where they are written to.
pub fn map_zeros_for_ever(bytes: usize) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let at =
        unsafe { libc::mmap(core::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}

/// Whether a new private writable mapping of `bytes` would be refused right now. Maps it for a moment.
pub fn would_be_refused(bytes: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let Some(at) = (unsafe { map(0, bytes, libc::PROT_READ | libc::PROT_WRITE, flags) }) else { return true };
    // SAFETY: exactly the mapping made above, which nobody else knows.
    unsafe { call(libc::SYS_munmap, [at as usize, bytes, 0, 0, 0, 0]) };
    false
}

/// New zeroed memory for good; a child that is forked finds zeroes in it (MADV_WIPEONFORK, since Linux 4.14).
pub fn map_wiped_on_fork(bytes: usize) -> Option<*mut u8> {
    let at = map_private(bytes)?;
    // SAFETY: exactly the mapping made just now, which nobody else knows.
    let wiped = unsafe { libc::madvise(at.cast(), bytes, libc::MADV_WIPEONFORK) };
    (wiped == 0).then_some(at)
}

/// New zeroed memory for good.
pub fn map_private(bytes: usize) -> Option<*mut u8> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}

/// Whether the eight bytes at `address` can be read, found out without reading them.
///
/// `rt_sigprocmask` copies the new set in before it looks at `how`; with an impossible `how` it ends in EINVAL where
/// the address is good and in EFAULT where it is not, and changes nothing either way. Unlike `process_vm_readv` it
/// needs no permission that a container's seccomp filter may withhold.
pub fn is_readable(address: usize) -> bool {
    const IMPOSSIBLE: i32 = !0;
    // Null would mean that there is no new set to copy.
    if address == 0 {
        return false;
    }
    if super::valgrind::is_running() {
        return is_mapped(address);
    }
    let no_old_set = core::ptr::null_mut::<u8>();
    // SAFETY: the kernel checks the address itself and writes nothing: there is no old set.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, IMPOSSIBLE, address, no_old_set, 8usize) };
    result == 0 || super::errno::errno() != libc::EFAULT
}

/// The first bytes that a program wants to write, at most `most` of them, which is a page at the most, so that both ends
/// tell of all; `None` where they cannot be read: EFAULT must stay the kernel's answer to a bad address, not become a
/// fault of ours.
///
/// # Safety
/// What is mapped there stays as it is for as long as the slice is used: the caller's, for the length of its call.
pub unsafe fn readable<'a>(start: usize, len: usize, most: usize) -> Option<&'a [u8]> {
    const PAGE: usize = 4096;
    let shown = len.min(most);
    let last = start.wrapping_add(shown.checked_sub(1)?);
    // What the program's last call has left there may tell what its words are about.
    let errno = super::errno::errno();
    let is_there = is_readable(start & !7) && (last / PAGE == start / PAGE || is_readable(last & !7));
    super::errno::set_errno(errno);
    if !is_there {
        return None;
    }
    // SAFETY: both its pages were just found readable, and it stays so by contract.
    Some(unsafe { core::slice::from_raw_parts(start as *const u8, shown) })
}

/// Whether the page that `address` is in is mapped: mincore(2).
fn is_mapped(address: usize) -> bool {
    const PAGE: usize = 4096;
    let mut is_resident = 0u8;
    // SAFETY: the kernel checks the address itself, and writes one byte for the one page.
    unsafe { raw::mincore((address & !(PAGE - 1)) as *mut _, 1, &raw mut is_resident) == 0 }
}

/// Makes the kernel write a few bytes at `address`; false if it cannot.
///
/// A fault inside a system call grows a stack as one in the program does, but ends in EFAULT rather than SIGSEGV, and
/// kernels before 5.0 do not apply their distance check to it.
pub fn touch_from_the_kernel(address: usize) -> bool {
    // SAFETY: the caller owns the 16 bytes at `address` (unused stack); the kernel checks that they can be written.
    let result = unsafe { libc::syscall(libc::SYS_clock_getres, libc::CLOCK_MONOTONIC, address) };
    result == 0
}

/// Reserves and releases `[from, from + bytes)`: whether nothing was mapped there and it could be.
pub fn is_free_to_map(from: usize, bytes: usize) -> bool {
    // MAP_GROWSDOWN so that it is counted as stack, as the growth that it stands for will be.
    let flags = libc::MAP_PRIVATE
        | libc::MAP_ANONYMOUS
        | libc::MAP_NORESERVE
        | libc::MAP_FIXED_NOREPLACE
        | libc::MAP_GROWSDOWN;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping; kernels before 4.17 take the address as a hint.
    let Some(at) = (unsafe { map(from, bytes, protection, flags) }) else { return false };
    // SAFETY: exactly the mapping made above, which nobody else knows.
    unsafe { raw::munmap(at, bytes) };
    at as usize == from
}

/// Unmaps a part of the main stack that lies far below what is in use: it grows again when it is needed.
pub fn unmap_unused_stack(from: usize, bytes: usize) {
    // SAFETY: below the calling main thread's stack pointer, and nobody's: the caller mapped it, and has not used it.
    unsafe { raw::munmap(from as *mut _, bytes) };
}

/// Gives free heap memory of the C library back to the system. Takes malloc's locks, so never call it while dying.
pub fn trim_heap() {
    c_library::trim_malloc();
}

/// Has malloc keep up to twice `bytes` of free memory at an arena's end instead of the usual 128 KiB, and serve blocks
/// below `bytes` from the arena: what glibc does by itself when a program frees a mapped block of that size (mallopt(3),
/// M_MMAP_THRESHOLD). Setting the thresholds by mallopt would end that adjustment for good. It allocates a block and frees
/// it, so never call it while dying.
pub fn raise_malloc_thresholds(bytes: usize) {
    if !c_library::is_glibc() {
        return;
    }
    // SAFETY: any size may be asked for.
    let block = unsafe { libc::malloc(bytes) };
    // Without black_box the compiler may remove the pair.
    let block = core::hint::black_box(block);
    // SAFETY: null, or the block just allocated, which nobody else knows.
    unsafe { libc::free(block) };
}

// The options of glibc's mallopt(3). It is called before the process has a second thread.
const M_TRIM_THRESHOLD: i32 = -1;
const M_MMAP_THRESHOLD: i32 = -3;
const M_ARENA_MAX: i32 = -8;

/// Has malloc give large blocks back to the system when they are freed, and what is free at its end, unless the user has said
/// otherwise in a variable that it reads: by itself it keeps the more the larger the blocks are. Those of a MiB and more, or of a
/// 256th of what there is to share: what is given back and taken again costs time. It takes malloc's lock.
pub fn have_freed_blocks_given_back(budget: u64) {
    const LEAST_BYTES: u64 = 1 << 20;
    /// No malloc of glibc's takes a larger threshold.
    const MOST_BYTES: u64 = 32 << 20;
    let bytes = (budget / 256).clamp(LEAST_BYTES, MOST_BYTES) as i32;
    c_library::set_malloc_option(M_MMAP_THRESHOLD, bytes);
    c_library::set_malloc_option(M_TRIM_THRESHOLD, bytes);
}

/// Caps the number of malloc's arenas; mallopt(3), which takes malloc's lock.
pub fn cap_arenas(arenas: i32) {
    c_library::set_malloc_option(M_ARENA_MAX, arenas);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_this_process_uses() {
        let used = memory_use();
        let (space, data) = (used.address_space.unwrap(), used.data.unwrap());
        assert!(space > data && data > 0);
        assert!(used.resident.unwrap() <= used.resident_peak.unwrap());
        assert!(used.threads.unwrap() >= 1);
    }

    #[test]
    fn a_file_that_is_named_like_the_main_stack_is_not_it() {
        let stack = stack_in(b"7ffd000-7ffe000 rw-p 00000000 00:00 0                          [stack]");
        assert_eq!(stack, Some(0x7ffd000..0x7ffe000));
        for other in [
            &b"7f00a000-7f00b000 rw-p 00000000 fe:01 1234                       /tmp/a [stack]"[..],
            b"7f00a000-7f00b000 rw-p 00000000 fe:01 1234                       /tmp/[stack]",
            b"7f00a000-7f00b000 rw-p 00000000 00:00 0",
            b"7f00a000-7f00b000 rw-p 00000000 00:00 0                          [heap]",
            b"",
        ] {
            assert_eq!(stack_in(other), None, "{}", other.escape_ascii());
        }
        assert!(main_stack().is_some());
    }

    #[test]
    fn what_is_granted_and_never_used_makes_room_and_what_is_used_without_a_question_is_taken_off() {
        const MIB: u64 = 1 << 20;
        let settled = |soft: u64, looks: &[(u64, u64)]| {
            let mut untouched = Untouched::default();
            for (count, (data, held)) in (1..).zip(looks) {
                untouched.note(data * MIB, held * MIB, count * 300);
            }
            let now = Rlimit { soft: Some(marked(soft * MIB, false)), hard: None };
            super::settled(now, &untouched, 100 * MIB).unwrap() / MIB
        };
        for (soft, looks, expected) in [
            (100, &[(10, 10)][..], 100),
            (100, &[(90, 10), (90, 10)], 100),
            (100, &[(90, 10); 8], 180),
            // What came last is about to be used.
            (100, &[(90, 10), (90, 50), (150, 90), (150, 120), (200, 150), (200, 190)], 110),
            // Given back: first no longer resident, then no longer mapped.
            (100, &[(90, 90), (90, 90), (90, 90), (90, 90), (90, 90), (90, 20)], 100),
            // Used without a question.
            (180, &[(90, 10), (90, 80)], 110),
            (110, &[(90, 80), (90, 81)], 110),
        ] {
            assert_eq!(settled(soft, looks), expected, "{soft} {looks:?}");
        }
        let unmarked = Rlimit { soft: Some(100 * MIB), hard: None };
        assert_eq!(super::settled(unmarked, &Untouched::default(), MIB), Some(100 * MIB));
    }

    #[test]
    fn both_files_of_the_kernel_tell_the_same() {
        let (statm, status) = (address_space_use().unwrap(), memory_use());
        // Other tests map and unmap meanwhile.
        assert!(statm.all.abs_diff(status.address_space.unwrap()) < 1 << 30);
        assert!(statm.not_writable > 0 && statm.not_writable < statm.all);
    }

    #[test]
    fn addresses_are_probed_without_harm() {
        let here = 7u64;
        assert!(is_readable(&raw const here as usize));
        assert!(!is_readable(0));
        assert!(!is_readable(usize::MAX - 4096));
    }

    #[test]
    fn impossible_mappings_are_refused_and_possible_ones_are_not() {
        assert!(would_be_refused(1 << 60));
        assert!(!would_be_refused(65536));
    }
}
