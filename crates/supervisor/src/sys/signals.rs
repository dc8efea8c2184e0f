//! Signals as they arrive while they are blocked, and sent on with all that came along: signalfd(2), sigqueue(3).

use core::mem::zeroed;

pub(crate) use oomguard_core::sys::signals::*;

/// A signal that was sent to this process while it was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) signal: i32,
    /// Why it was sent: `si_code` in sigaction(2).
    pub(crate) code: i32,
    /// Who sent it, if a process of this PID namespace did.
    pub(crate) sender: u32,
    /// The user of whoever sent it.
    pub(crate) user: u32,
    /// What sigqueue(3) sent along.
    pub(crate) value: u64,
}

impl Arrival {
    /// Sent by the kernel itself, as when a key is pressed on the terminal.
    pub(crate) fn is_by_kernel(&self) -> bool {
        self.code == libc::SI_KERNEL
    }
}

/// A descriptor that brings the blocked `signals` as they arrive, and never waits: signalfd(2). Closed on exec.
pub(crate) fn arrivals(signals: Signals) -> std::io::Result<std::os::fd::OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    let set = &raw const signals.0;
    // SAFETY: the set is readable for the length that is given.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, set, size_of::<Signals>(), flags) };
    match i32::try_from(fd) {
        // SAFETY: a descriptor that the kernel has just made, and that nobody else knows.
        Ok(fd) if fd >= 0 => Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The next of them, if one is there.
pub(crate) fn next_arrival(arrivals: std::os::fd::BorrowedFd<'_>) -> Option<Arrival> {
    // SAFETY: all-zero is a valid `signalfd_siginfo`, a struct of integers.
    let mut info: libc::signalfd_siginfo = unsafe { zeroed() };
    let bytes = size_of::<libc::signalfd_siginfo>();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&arrivals);
    // SAFETY: `info` is writable for its whole length during the call.
    let got = unsafe { libc::read(fd, (&raw mut info).cast(), bytes) };
    if usize::try_from(got) != Ok(bytes) {
        return None;
    }
    let signal = info.ssi_signo.cast_signed();
    Some(Arrival {
        signal,
        code: info.ssi_code,
        sender: info.ssi_pid,
        user: info.ssi_uid,
        value: info.ssi_ptr,
    })
}

/// Sends process `pid` a signal with the value that came along: sigqueue(3). Who sent it first stays who sent it.
pub(crate) fn queue(pid: u32, arrival: Arrival) -> std::io::Result<()> {
    let info = info_of(arrival);
    // SAFETY: `info` is readable during the call.
    let sent = unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, arrival.signal, &raw const info) };
    if sent == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The same to one thread of it.
pub(crate) fn queue_to_thread(pid: u32, tid: u32, arrival: Arrival) -> std::io::Result<()> {
    let info = info_of(arrival);
    let signal = arrival.signal;
    // SAFETY: `info` is readable during the call.
    let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, signal, &raw const info) };
    if sent == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn info_of(arrival: Arrival) -> libc::siginfo_t {
    // SAFETY: all-zero is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    info.si_signo = arrival.signal;
    info.si_code = arrival.code;
    /// What follows the three numbers that every `siginfo_t` begins with.
    #[repr(C)]
    struct Queued {
        head: [i32; 3],
        at_eight: [u64; 0],
        sender: u32,
        user: u32,
        value: u64,
    }
    const { assert!(size_of::<Queued>() <= size_of::<libc::siginfo_t>()) };
    let queued: *mut Queued = (&raw mut info).cast();
    // SAFETY: within the structure, as just asserted, which is aligned for it and of which any bytes are valid.
    let queued = unsafe { &mut *queued };
    (queued.sender, queued.user, queued.value) = (arrival.sender, arrival.user, arrival.value);
    info
}
