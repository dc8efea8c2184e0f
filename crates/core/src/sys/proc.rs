//! Processes and threads by their number, as proc(5) and the kernel tell of them: any that may be looked at.

use super::raw;
use crate::text::{Text, behind_last, last_position, leading_number, parts, until, whole_number};

/// `/proc/PID/NAME`, with a NUL at the end.
pub fn proc_path(pid: u32, name: &str) -> Text<48> {
    let mut path = Text::new();
    path.push("/proc/");
    path.push_number(u64::from(pid));
    path.push("/");
    path.push(name);
    path.push("\0");
    path
}

/// The name of thread or process `tid`, up to 15 bytes: proc_pid_comm(5).
pub fn name_of(tid: u32) -> Text<16> {
    let mut name = Text::new();
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
pub fn program_of(pid: u32) -> Text<64> {
    let mut target = [0u8; 4096];
    let path = proc_path(pid, "exe");
    let target = link_in(path.as_bytes(), &mut target).unwrap_or(b"?");
    Text::from_bytes(behind_last(target, b'/'))
}

/// The name of the file behind a descriptor of thread `tid`, cut at its end: proc_pid_fd(5).
pub fn file_of(tid: u32, fd: i32) -> Text<256> {
    let mut target = [0u8; 256];
    let mut path = Text::<48>::new();
    path.push("/proc/");
    path.push_number(tid.into());
    path.push("/fd/");
    path.push_number(u64::try_from(fd).unwrap_or(u64::MAX));
    path.push("\0");
    Text::from_bytes(link_in(path.as_bytes(), &mut target).unwrap_or_default())
}

/// What a link points to, cut at the end of `target`: readlink(2). `path` ends with NUL.
fn link_in<'a>(path: &[u8], target: &'a mut [u8]) -> Option<&'a [u8]> {
    let path = core::ffi::CStr::from_bytes_until_nul(path).ok()?;
    // SAFETY: a C string, and a buffer that is writable for its whole length, during the call.
    let len = unsafe { raw::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    target.get(..usize::try_from(len).ok()?)
}

/// Which signals wait for a thread or its process, and what the thread does with them, a bit for each: proc_pid_status(5).
#[derive(Default)]
struct Signals {
    pending: u64,
    blocked: u64,
    caught: u64,
}

fn signals_of(tid: u32) -> Signals {
    let mut signals = Signals::default();
    let path = proc_path(tid, "status");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes());
    let mut buffer = [0; 512];
    let Some(mut lines) = path.ok().and_then(|path| super::fd::Lines::open(path, &mut buffer)) else {
        return signals;
    };
    while let Some(line) = lines.next() {
        let set = |name: &[u8]| {
            let set = core::str::from_utf8(line.strip_prefix(name)?.trim_ascii()).ok()?;
            u64::from_str_radix(set, 16).ok()
        };
        signals.pending |= set(b"SigPnd:").or_else(|| set(b"ShdPnd:")).unwrap_or(0);
        signals.blocked |= set(b"SigBlk:").unwrap_or(0);
        signals.caught |= set(b"SigCgt:").unwrap_or(0);
    }
    signals
}

/// Whether process `pid` has a handler for that signal, which its main thread lets in: a program that blocks it may have a thread
/// which takes it by sigwait(3), as a message.
pub fn handles(pid: u32, signal: i32) -> bool {
    let Signals { blocked, caught, .. } = signals_of(pid);
    caught & !blocked & (1 << (signal - 1)) != 0
}

/// Whether that signal, which was sent to process `pid`, runs its handler as soon as its main thread does: it has one, and does not
/// keep the signal waiting.
pub fn is_to_handle(pid: u32, signal: i32) -> bool {
    let Signals { pending, blocked, caught } = signals_of(pid);
    caught & !(pending & blocked) & (1 << (signal - 1)) != 0
}

/// Whether a signal waits for thread `tid`, which it does not block.
pub fn has_signal_pending(tid: u32) -> bool {
    let Signals { pending, blocked, .. } = signals_of(tid);
    pending & !blocked != 0
}

/// What stands behind the name in proc_pid_stat(5), from the third field on. The name may hold anything, of 15 bytes at most,
/// and ends with the last bracket.
pub fn behind_name(stat: &[u8]) -> Option<&[u8]> {
    last_position(stat, b')').and_then(|at| stat.get(at + 2..))
}

/// How process `pid` stands, in the letter of proc_pid_stat(5): `T` is stopped by a signal, `t` by a tracer. `None`: it
/// is gone, or there is no `/proc`.
pub fn state_of(pid: u32) -> Option<u8> {
    let mut stat = [0u8; 128];
    let path = proc_path(pid, "stat");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
    let len = super::fd::open_to_read(path)?.read(&mut stat);
    behind_name(stat.get(..len)?)?.first().copied()
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
    // The faults are the 10th field, the number of threads the 20th, the start the 22nd.
    let mut fields = parts(behind_name(stat.get(..len)?)?, b' ');
    let has_ended = matches!(fields.next()?, b"Z" | b"X");
    let faults = leading_number(fields.nth(6)?)?;
    let threads = leading_number(fields.nth(9)?)?;
    Some(Life { is_alive: !has_ended || threads > 1, start: leading_number(fields.nth(1)?)?, faults })
}

/// This process's number where `/proc` is from, which may be another namespace than its own.
pub fn own_number() -> Option<u32> {
    let mut target = [0u8; 16];
    let number = leading_number(link_in(b"/proc/self\0", &mut target)?)?;
    u32::try_from(number).ok()
}

/// Whether the kernel knows a process with this number, dead or alive; also one that may not be looked at.
pub fn exists(pid: u32) -> bool {
    // SAFETY: kill takes no pointer, and signal 0 reaches nobody.
    let result = unsafe { raw::kill(pid.cast_signed(), 0) };
    result == 0 || super::errno::errno() != libc::ESRCH
}

/// Whether the process that was started as `pid` at that time, as `Life` has it, is alive; one that may not be looked at is.
pub fn is_alive_since(pid: u32, start: u64) -> bool {
    match life_of(pid) {
        Some(life) => life.is_alive && life.start == start,
        None => exists(pid),
    }
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
            let name = until(name, 0);
            if let Some(pid) = whole_number(name).and_then(|pid| u32::try_from(pid).ok()) {
                look(pid);
            }
            rest = rest.get(len.max(HEAD_BYTES)..).unwrap_or_default();
        }
    }
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

/// What [`Doings::childrens_pages`](super::process::Doings::childrens_pages) counts, of process `pid`: proc_pid_stat(5), cminflt. Zero where it is gone.
pub fn childrens_pages_of(pid: u32) -> u64 {
    const FIELD: usize = 11;
    stat_of(pid, FIELD).unwrap_or(0)
}

/// The parent of process `pid`: ppid in proc_pid_stat(5). Also of a thread: its process's.
pub fn parent_of(pid: u32) -> Option<u32> {
    const FIELD: usize = 4;
    stat_of(pid, FIELD).and_then(|parent| u32::try_from(parent).ok())
}

/// Who traces process `pid`: proc_pid_status(5), TracerPid.
pub fn tracer_of(pid: u32) -> Option<u32> {
    let path = proc_path(pid, "status");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
    let mut buffer = [0; 128];
    let mut lines = super::fd::Lines::open(path, &mut buffer)?;
    while let Some(line) = lines.next() {
        if let Some(tracer) = line.strip_prefix(b"TracerPid:") {
            let tracer = whole_number(tracer.trim_ascii()).and_then(|tracer| u32::try_from(tracer).ok());
            return tracer.filter(|tracer| *tracer != 0);
        }
    }
    None
}

/// The system call that thread `tid` is in, which this process traces: proc_pid_syscall(5).
pub fn call_of(tid: u32) -> Option<u64> {
    let mut text = [0u8; 128];
    let path = proc_path(tid, "syscall");
    let path = core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok()?;
    let len = super::fd::open_to_read(path)?.read(&mut text);
    whole_number(until(text.get(..len)?, b' '))
}

/// What process `pid` has written by write(2) and its kin, wherever to: proc_pid_io(5), wchar.
pub fn written_by(pid: u32) -> Option<u64> {
    let path = proc_path(pid, "io");
    let mut buffer = [0; 256];
    let mut lines =
        super::fd::Lines::open(core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok()?, &mut buffer)?;
    while let Some(line) = lines.next() {
        if let Some(bytes) = line.strip_prefix(b"wchar: ") {
            return whole_number(bytes);
        }
    }
    None
}

/// A field of proc_pid_stat(5) behind the name, counted as there.
fn stat_of(pid: u32, field: usize) -> Option<u64> {
    let path = proc_path(pid, "stat");
    let mut buffer = [0; 1024];
    let file = super::fd::open_to_read(core::ffi::CStr::from_bytes_until_nul(path.as_bytes()).ok()?)?;
    let read = file.read(&mut buffer);
    whole_number(parts(behind_name(buffer.get(..read)?)?, b' ').nth(field - 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_bytes() {
        for name in [&b"plain"[..], b"a\nb) Z", b"\n", b"caf\xc3", b"fifteen bytes.."] {
            let told = std::thread::spawn(move || {
                let text = Text::<17>::from_bytes(&[name, b"\0"].concat());
                // SAFETY: PR_SET_NAME reads a C string of at most 16 bytes.
                unsafe { libc::prctl(libc::PR_SET_NAME, text.as_bytes().as_ptr()) };
                name_of(super::super::process::tid()).as_bytes().to_vec()
            });
            assert_eq!(told.join().unwrap(), name, "{}", name.escape_ascii());
        }
        assert_eq!(name_of(u32::MAX).as_bytes(), b"");
    }
}
