//! Children of this process: wait for them without reaping, reap them, kill them. See wait(2), pidfd_open(2).

use super::errno::errno;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::process::{self, Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What the kernel tells of a child that it hands over for good: wait4(2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reaped {
    /// The status as wait(2) encodes it.
    pub(crate) raw_status: i32,
    /// The most it ever had resident, in bytes.
    pub(crate) resident_peak: u64,
}

fn as_pid(pid: u32) -> Result<Pid, Errno> {
    Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH)
}

/// What is new of child `pid`: waitid(2). `None`: nothing.
fn wait_id(pid: u32, options: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
    process::waitid(WaitId::Pid(as_pid(pid)?), options)
}

/// Waits until child `pid` is dead, and leaves it to be reaped. False: not dead yet, where `block` is off.
pub(crate) fn wait_dead(pid: u32, block: bool) -> io::Result<bool> {
    let how = if block { WaitIdOptions::empty() } else { WaitIdOptions::NOHANG };
    let dead = retry_on_intr(|| wait_id(pid, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | how))?;
    Ok(dead.is_some())
}

/// Reaps child `pid`, waiting for its death if need be. Its number is free for others afterwards.
pub(crate) fn reap(pid: u32) -> io::Result<Reaped> {
    // SAFETY: all-zero is a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    let mut raw_status = 0;
    loop {
        // SAFETY: both results are writable during the call.
        let got = unsafe { libc::wait4(pid.cast_signed(), &raw mut raw_status, 0, &raw mut usage) };
        if got > 0 {
            // In KiB: getrusage(2).
            let resident_peak = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
            return Ok(Reaped { raw_status, resident_peak });
        }
        if errno() != libc::EINTR {
            return Err(io::Error::last_os_error());
        }
    }
}

/// A descriptor that becomes readable when process `pid` ends.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    Ok(pidfd_open(as_pid(pid)?, PidfdFlags::empty())?)
}

/// Sends a signal to process `pid`; with `group`, to its whole process group, whose number it must be.
pub(crate) fn kill(pid: u32, group: bool, signal: i32) -> io::Result<()> {
    let target = if group { -pid.cast_signed() } else { pid.cast_signed() };
    // SAFETY: kill takes no pointer.
    if unsafe { libc::kill(target, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether there is a process with this number, be it somebody else's.
pub(crate) fn is_alive(pid: u32) -> bool {
    kill(pid, false, 0).map_or_else(|error| error.raw_os_error() != Some(libc::ESRCH), |()| true)
}

/// Whether process `pid`, a child of this one that nobody else waits for, has ended; it stays to be reaped.
pub(crate) fn is_zombie(pid: u32) -> bool {
    let any_kind = WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT | any_kind;
    wait_id(pid, how).is_ok_and(|dead| dead.is_some())
}

/// Sends a signal to the process behind a descriptor of [`pidfd`].
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = core::ptr::null::<libc::siginfo_t>();
    // SAFETY: without information of ours the kernel fills in who sent it, as for kill(2).
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reaps children that are dead, as long as the first to be found is none of `ours`, which stay to be waited for.
pub(crate) fn reap_strangers(ours: &[u32]) {
    loop {
        // SAFETY: all-zero is a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        // SAFETY: `info` is writable during the call.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
        if result != 0 || info.si_signo != libc::SIGCHLD {
            return;
        }
        // SAFETY: waitid filled in the child's number, as the signal's number tells.
        let pid = unsafe { info.si_pid() };
        // SAFETY: waitpid may be told not to say how it ended.
        if ours.contains(&pid.cast_unsigned()) || unsafe { libc::waitpid(pid, core::ptr::null_mut(), 0) } < 0
        {
            return;
        }
    }
}

/// The signal that stopped child `pid`, if it is stopped and nobody was told so before.
pub(crate) fn take_stop(pid: u32) -> Option<i32> {
    wait_id(pid, WaitIdOptions::STOPPED | WaitIdOptions::NOHANG).ok()??.stopping_signal()
}

// These two are zero, which is no number of rustix's, where the leader is outside of this namespace: pid_namespaces(7).

/// Whether this process leads its session: setsid(2).
pub(crate) fn leads_session() -> bool {
    // SAFETY: getsid takes no pointer.
    unsafe { libc::getsid(0) }.cast_unsigned() == super::process::pid()
}

/// Whether process `pid`, dead or alive but not reaped, leads a process group of its own.
pub(crate) fn leads_group(pid: u32) -> bool {
    // SAFETY: getpgid takes no pointer.
    unsafe { libc::getpgid(pid.cast_signed()) == pid.cast_signed() }
}

/// Waits until one of `fds` is readable or hung up, for at most `timeout_ms` (-1: for ever). Which are; an interrupted
/// wait is an empty answer.
pub(crate) fn poll<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout_ms: i32,
) -> io::Result<[bool; N]> {
    let mut polls = fds.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    // Those to ask first, and no more than those: the kernel takes no more entries than descriptors may be open.
    polls.sort_unstable_by_key(|poll| poll.fd < 0);
    let asked = polls.iter().filter(|poll| poll.fd >= 0).count();
    // SAFETY: an array of at least so many structures, writable during the call.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), asked as libc::nfds_t, timeout_ms) };
    if ready < 0 && errno() != libc::EINTR {
        return Err(io::Error::last_os_error());
    }
    let happened =
        |fd: BorrowedFd<'_>| polls.iter().any(|poll| poll.fd == fd.as_raw_fd() && poll.revents != 0);
    Ok(fds.map(|fd| ready > 0 && fd.is_some_and(happened)))
}

/// Makes reads from `fd` return at once.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

/// The same file under a number of at least `least`, closed on exec.
pub(crate) fn move_up(fd: OwnedFd, least: i32) -> OwnedFd {
    fcntl_dupfd_cloexec(&fd, least).unwrap_or(fd)
}

/// Lets descriptor `fd` survive exec, or not. Also between fork and exec: async-signal-safe.
pub(crate) fn keep_across_exec(fd: i32, keep: bool) -> io::Result<()> {
    let flags = if keep { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: F_SETFD takes an integer.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the kernel send SIGKILL to this process when the thread that forked it ends, where no more is known of that one.
pub(crate) fn die_with_whoever_is_parent() {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Has the kernel send SIGKILL to this process when the thread that forked it ends, unless that has happened already.
/// Between fork and exec: async-signal-safe.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getppid takes nothing and cannot fail.
    if unsafe { libc::getppid() }.unsigned_abs() != parent {
        // The parent went in between: nobody is left to read an error.
        super::process::exit_now(libc::SIGKILL as u8);
    }
    Ok(())
}
