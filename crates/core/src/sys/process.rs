//! This process and its threads: numbers, time, sleep, the end.

/// The process number.
pub fn pid() -> u32 {
    // The kernel, not a cached value: right in a child of fork, too.
    // SAFETY: getpid takes nothing and cannot fail.
    unsafe { libc::getpid() }.unsigned_abs()
}

/// The process that started this one.
pub fn parent_pid() -> u32 {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { libc::getppid() }.unsigned_abs()
}

/// The calling thread's number; the same as `pid` in the main thread.
pub fn tid() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) }.unsigned_abs() as u32
}

/// The calling thread's name without the NUL, up to 15 bytes: PR_GET_NAME in prctl(2).
pub fn thread_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, and there are 16.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// `/proc/PID/NAME`, with a NUL at the end.
pub fn proc_path(pid: u32, name: &str) -> crate::text::Text<48> {
    let mut path = crate::text::Text::new();
    path.push("/proc/");
    path.push_number(u64::from(pid));
    path.push("/");
    path.push(name);
    path.push("\0");
    path
}

/// The name of thread or process `tid`, up to 15 bytes: proc_pid_comm(5).
pub fn name_of(tid: u32) -> crate::text::Text<16> {
    let mut name = crate::text::Text::new();
    let path = proc_path(tid, "comm");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes());
    let Some(file) = path.ok().and_then(super::fd::open_to_read) else { return name };
    // The name and a newline; the name may hold newlines, too.
    let mut content = [0u8; 32];
    let len = file.read(&mut content);
    let content = content.get(..len).unwrap_or_default();
    name.push_bytes(content.strip_suffix(b"\n").unwrap_or(b"?"));
    name
}

/// The file name of the program that process `pid` runs, without its directory: proc_pid_exe(5).
pub fn program_of(pid: u32) -> crate::text::Text<64> {
    let mut target = [0u8; 4096];
    let path = proc_path(pid, "exe");
    // SAFETY: a C string, and a buffer that is writable for its whole length, during the call.
    let len =
        unsafe { libc::readlink(path.as_bytes().as_ptr().cast(), target.as_mut_ptr().cast(), target.len()) };
    let target = usize::try_from(len).ok().and_then(|len| target.get(..len)).unwrap_or(b"?");
    crate::text::Text::from_bytes(target.rsplit(|byte| *byte == b'/').next().unwrap_or(b"?"))
}

/// Whether process `pid` has a handler for that signal: SigCgt in proc_pid_status(5).
pub fn catches(pid: u32, signal: i32) -> bool {
    let path = proc_path(pid, "status");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes());
    let Some(mut lines) = path.ok().and_then(super::fd::Lines::<512>::open) else { return false };
    while let Some(line) = lines.next() {
        if let Some(set) = line.strip_prefix(b"SigCgt:") {
            let set =
                core::str::from_utf8(set.trim_ascii()).ok().and_then(|set| u64::from_str_radix(set, 16).ok());
            return set.is_some_and(|set| set & (1 << (signal - 1)) != 0);
        }
    }
    false
}

/// Whether a signal waits for thread `tid`, which it does not block.
pub fn has_signal_pending(tid: u32) -> bool {
    let path = proc_path(tid, "status");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes());
    let Some(mut lines) = path.ok().and_then(super::fd::Lines::<512>::open) else { return false };
    let (mut pending, mut blocked) = (0u64, 0u64);
    while let Some(line) = lines.next() {
        let set = |name: &[u8]| {
            let set = core::str::from_utf8(line.strip_prefix(name)?.trim_ascii()).ok()?;
            u64::from_str_radix(set, 16).ok()
        };
        pending |= set(b"SigPnd:").or_else(|| set(b"ShdPnd:")).unwrap_or(0);
        blocked |= set(b"SigBlk:").unwrap_or(0);
    }
    pending & !blocked != 0
}

/// Milliseconds since some fixed moment: CLOCK_MONOTONIC.
pub fn monotonic_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// The same from a clock that moves every few milliseconds and costs next to nothing: CLOCK_MONOTONIC_COARSE.
pub fn coarse_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// How process `pid` stands, in the letter of proc_pid_stat(5): `T` is stopped by a signal, `t` by a tracer. `None`: it
/// is gone, or there is no `/proc`.
pub fn state_of(pid: u32) -> Option<u8> {
    let mut stat = [0u8; 128];
    let path = proc_path(pid, "stat");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
    let len = super::fd::open_to_read(path)?.read(&mut stat);
    // pid (name) state …, where the name is of 15 bytes at most, and may be any bytes.
    let stat = stat.get(..len)?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_end + 2).copied()
}

/// A process, as proc_pid_stat(5) tells.
#[derive(Clone, Copy)]
pub struct Life {
    /// Whether it has memory still: a zombie has none.
    pub is_alive: bool,
    /// When it was started, in ticks of the clock: what tells it from another one with its number.
    pub start: u64,
    /// How many pages it has been given so far without a read of a disk: also where it wrote to one that it shared.
    pub faults: u64,
}

/// `None`: it is gone, or its file cannot be read.
pub fn life_of(pid: u32) -> Option<Life> {
    let mut stat = [0u8; 512];
    let path = proc_path(pid, "stat");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
    let len = super::fd::open_to_read(path)?.read(&mut stat);
    // pid (name) state …, where the name is of 15 bytes at most, and may be any bytes; the faults are the 10th, the start is the 22nd.
    let stat = stat.get(..len)?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(name_end + 2..)?.split(|byte| *byte == b' ');
    let is_alive = !matches!(fields.next()?, b"Z" | b"X");
    let faults = crate::text::leading_number(fields.nth(6)?)?;
    Some(Life { is_alive, start: crate::text::leading_number(fields.nth(11)?)?, faults })
}

/// Whether the kernel knows a process with this number, dead or alive; also one that may not be looked at.
pub fn exists(pid: u32) -> bool {
    // SAFETY: kill takes no pointer, and signal 0 reaches nobody.
    let result = unsafe { libc::kill(pid.cast_signed(), 0) };
    result == 0 || super::fd::errno() != libc::ESRCH
}

/// Whether the process that was started as `pid` at that time, as `Life` has it, is alive; one that may not be looked at is.
pub fn is_alive_since(pid: u32, start: u64) -> bool {
    match life_of(pid) {
        Some(life) => life.is_alive && life.start == start,
        None => exists(pid),
    }
}

/// The inode of the PID namespace that this process is in: namespaces(7); zero where it cannot be told.
pub fn pid_namespace() -> u64 {
    super::fd::stat_of_path(c"/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// Seconds since 1970.
pub fn wall_clock_s() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec.unsigned_abs()
}

/// The session of process `pid`, zero for this one.
pub fn session_of(pid: u32) -> i32 {
    // SAFETY: getsid takes no pointer.
    unsafe { libc::getsid(pid.cast_signed()) }
}

/// Whether the environment that process `pid` was started with has this entry, which is not empty.
pub fn environment_has(pid: u32, entry: &[u8]) -> bool {
    let path = proc_path(pid, "environ");
    let Ok(path) = core::ffi::CStr::from_bytes_until_nul(path.as_bytes()) else { return false };
    let Some(file) = super::fd::open_to_read(path) else { return false };
    // How many bytes of the entry have been met; more than all of them: in another entry.
    let mut met = 0;
    let mut part = [0u8; 4096];
    loop {
        let len = file.read(&mut part);
        for byte in part.get(..len).unwrap_or_default() {
            met = match (entry.get(met), byte) {
                (None, 0) if met == entry.len() => return true,
                (_, 0) => 0,
                (Some(expected), byte) if expected == byte => met + 1,
                _ => usize::MAX,
            };
        }
        if len == 0 {
            return met == entry.len();
        }
    }
}

/// Calls `look` with the number of each process that there is: proc(5).
pub fn for_each(mut look: impl FnMut(u32)) {
    /// `struct linux_dirent64` without its name, in getdents64(2).
    const HEAD_BYTES: usize = 19;
    let Some(directory) = super::fd::open(c"/proc", libc::O_RDONLY | libc::O_DIRECTORY) else { return };
    let mut entries = [0u8; 4096];
    loop {
        // SAFETY: the buffer is writable for its whole length during the call.
        let len = unsafe {
            libc::syscall(libc::SYS_getdents64, directory.number(), entries.as_mut_ptr(), entries.len())
        };
        let Some(mut rest) = usize::try_from(len).ok().and_then(|len| entries.get(..len)) else { return };
        if rest.is_empty() {
            return;
        }
        while let Some([low, high]) = rest.get(16..18) {
            let len = usize::from(u16::from_ne_bytes([*low, *high]));
            let name = rest.get(HEAD_BYTES..len).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if let Some(pid) = crate::text::whole_number(name).and_then(|pid| u32::try_from(pid).ok()) {
                look(pid);
            }
            rest = rest.get(len.max(HEAD_BYTES)..).unwrap_or_default();
        }
    }
}

/// The process group that this process is in.
pub fn group() -> u32 {
    group_of(0)
}

/// The process group of process `pid`; zero where it is gone.
pub fn group_of(pid: u32) -> u32 {
    // SAFETY: getpgid takes no pointer.
    u32::try_from(unsafe { libc::getpgid(pid.cast_signed()) }).unwrap_or(0)
}

/// The processor time that process `pid` has used, all its threads together, in nanoseconds; unknown where it is gone.
pub fn processor_ns_of(pid: u32) -> Option<u64> {
    // The number of another process's CPUCLOCK_SCHED, as clock_getcpuclockid(3) makes it.
    let clock = (!pid.cast_signed() << 3) | 2;
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `used` is writable during the call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut used) };
    (result == 0).then(|| used.tv_sec.unsigned_abs() * 1_000_000_000 + used.tv_nsec.unsigned_abs())
}

/// What [`Doings::childrens_pages`] counts, of process `pid`: proc_pid_stat(5), cminflt. Zero where it is gone.
pub fn childrens_pages_of(pid: u32) -> u64 {
    const FIELD: usize = 11;
    let path = proc_path(pid, "stat");
    let mut buffer = [0; 1024];
    let file = core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok().and_then(super::fd::open_to_read);
    let read = file.map_or(0, |file| file.read(&mut buffer));
    let text = buffer.get(..read).unwrap_or_default();
    // The name, which may hold anything, ends with the last bracket; the field behind it is the third.
    let after = text.iter().rposition(|byte| *byte == b')').and_then(|at| text.get(at + 2..)).unwrap_or(&[]);
    let field = after.split(|byte| *byte == b' ').nth(FIELD - 3).unwrap_or(&[]);
    crate::text::whole_number(field).unwrap_or(0)
}

/// What this process has done so far, all its threads together: getrusage(2).
#[derive(Clone, Copy, Default)]
pub struct Doings {
    /// Processor time, in milliseconds.
    pub processor_ms: u64,
    /// How often a thread has waited for something: a client, a disk, another thread.
    pub waits: u64,
    /// The pages that children have touched which have ended and been waited for: each has touched some.
    pub childrens_pages: u64,
}

/// The pages that children have touched which have ended and been waited for.
pub fn childrens_pages() -> u64 {
    usage_of(libc::RUSAGE_CHILDREN).ru_minflt.unsigned_abs()
}

pub fn doings() -> Doings {
    let (own, children) = (usage_of(libc::RUSAGE_SELF), usage_of(libc::RUSAGE_CHILDREN));
    let ms = |time: libc::timeval| time.tv_sec.unsigned_abs() * 1000 + time.tv_usec.unsigned_abs() / 1000;
    Doings {
        processor_ms: ms(own.ru_utime) + ms(own.ru_stime),
        waits: own.ru_nvcsw.unsigned_abs(),
        childrens_pages: children.ru_minflt.unsigned_abs(),
    }
}

fn usage_of(whose: libc::c_int) -> libc::rusage {
    // SAFETY: all-zero is a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: `usage` is writable during the call.
    unsafe { libc::getrusage(whose, &raw mut usage) };
    usage
}

/// Nanoseconds since the same moment.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable during the call.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec.unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.unsigned_abs())
}

/// The processor time that the calling thread has used, in nanoseconds.
pub fn thread_processor_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// What this process has done so far, all its threads together.
pub struct Effort {
    pub processor_ns: u64,
    /// Pages that were touched for the first time, or again after they were given back.
    pub new_pages: u64,
}

pub fn effort() -> Effort {
    let usage = usage_of(libc::RUSAGE_SELF);
    let new_pages = usage.ru_minflt.unsigned_abs() + usage.ru_majflt.unsigned_abs();
    Effort { processor_ns: clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID), new_pages }
}

/// How many calls of this process have written so far, as the kernel counts them.
pub fn calls_that_wrote() -> Option<u64> {
    io_count(b"syscw: ")
}

/// How many bytes this process has read so far by read(2) and its kin, without what we have read ourselves.
pub fn bytes_read() -> Option<u64> {
    let own = super::fd::bytes_of_lines();
    io_count(b"rchar: ").map(|bytes| bytes.saturating_sub(own))
}

/// A line of proc_pid_io(5).
fn io_count(name: &[u8]) -> Option<u64> {
    let mut lines = super::fd::Lines::<256>::open(c"/proc/self/io")?;
    while let Some(line) = lines.next() {
        if let Some(count) = line.strip_prefix(name) {
            return crate::text::whole_number(count);
        }
    }
    None
}

/// How often the calling thread has waited for something so far.
pub fn thread_waits() -> u64 {
    usage_of(libc::RUSAGE_THREAD).ru_nvcsw.unsigned_abs()
}

/// A key whose destructor runs at the end of each thread that has set it: pthread_key_create(3), which is not
/// async-signal-safe, and takes a lock in some C libraries.
pub fn thread_key(at_end: extern "C" fn(*mut libc::c_void)) -> Option<u32> {
    let mut key = 0;
    // SAFETY: `key` is writable during the call; the destructor lives as long as the process.
    let made = unsafe { libc::pthread_key_create(&raw mut key, Some(at_end)) } == 0;
    made.then_some(key)
}

/// Has the key's destructor run at the end of the calling thread. glibc allocates in the first call of a thread for a key
/// from 32 on: pthread_setspecific(3).
pub fn set_thread_key(key: u32) {
    // SAFETY: a key of `thread_key`'s; the value is never followed.
    unsafe { libc::pthread_setspecific(key, core::ptr::without_provenance(1)) };
}

/// Sleeps; a signal may end it early.
pub fn sleep_ms(ms: u64) {
    let span = libc::timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 };
    // The raw call: the library's nanosleep is a cancellation point.
    // SAFETY: `span` is readable during the call; the remainder is not asked for.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const span, core::ptr::null_mut::<u8>()) };
}

/// Whether a filter decides over this thread's system calls, by a question that threads' names are set by as well:
/// PR_GET_SECCOMP in prctl(2).
pub fn is_filtered() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) != 0 }
}

/// The process and the calling thread in one number, the process in the upper half: who it is that an atomic word names.
pub fn pid_and_tid() -> u64 {
    u64::from(pid()) << 32 | u64::from(tid())
}

/// Lets other threads run.
pub fn yield_now() {
    // SAFETY: sched_yield takes nothing.
    unsafe { libc::sched_yield() };
}

/// Ends the process, all its threads included, without running anything else.
pub fn exit_now(code: u8) -> ! {
    // The instruction: `_exit` and `syscall` may be those that the shim interposes.
    let status = i64::from(code);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: exit_group takes no pointer and does not come back.
    unsafe {
        core::arch::asm!("syscall", in("rax") libc::SYS_exit_group, in("rdi") status, options(noreturn, nostack))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("svc 0", in("x8") libc::SYS_exit_group, in("x0") status, options(noreturn, nostack))
    }
}

/// Whether the program runs with more rights than whoever started it: AT_SECURE in getauxval(3).
pub fn has_raised_privileges() -> bool {
    // SAFETY: getauxval takes no pointer.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Puts the path of the program that this process runs into `path`, and gives its length: /proc/self/exe.
pub fn executable(path: &mut [u8]) -> Option<usize> {
    // SAFETY: a C string, and a buffer that is writable for its whole length, during the call.
    let len = unsafe { libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    usize::try_from(len).ok()
}

/// Where the kernel put the program's file name: the topmost string of the main stack.
pub fn executable_name_address() -> Option<usize> {
    // SAFETY: getauxval takes no pointer.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    usize::try_from(address).ok().filter(|address| *address != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_bytes() {
        for name in [&b"plain"[..], b"a\nb) Z", b"\n", b"caf\xc3", b"fifteen bytes.."] {
            let told = std::thread::spawn(move || {
                let text = crate::text::Text::<17>::from_bytes(&[name, b"\0"].concat());
                // SAFETY: PR_SET_NAME reads a C string of at most 16 bytes.
                unsafe { libc::prctl(libc::PR_SET_NAME, text.as_bytes().as_ptr()) };
                name_of(tid()).as_bytes().to_vec()
            });
            assert_eq!(told.join().unwrap(), name, "{}", name.escape_ascii());
        }
        assert_eq!(name_of(u32::MAX).as_bytes(), b"");
    }
}
