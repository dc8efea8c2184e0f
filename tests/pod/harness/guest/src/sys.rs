//! The system calls that the standard library has no word for, one small function each.

use libc::{c_int, c_ulong};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

/// Empty names stand for none.
pub fn mount(source: &str, target: &str, kind: &str, flags: c_ulong, data: &str) -> Result<(), String> {
    let names = [source, target, kind, data].map(c_string);
    let [source_at, target_at, kind_at, data_at] =
        names.each_ref().map(|name| if name.is_empty() { ptr::null() } else { name.as_ptr() });
    // SAFETY: null or NUL-terminated strings in `names`, which outlives the call.
    let status = unsafe { libc::mount(source_at, target_at, kind_at, flags, data_at.cast()) };
    check(status, || format!("cannot mount {source} ({kind}) on {target}, flags {flags:#x}"))
}

pub fn detach(target: &str) -> Result<(), String> {
    let name = c_string(target);
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let status = unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH) };
    check(status, || format!("cannot unmount {target}"))
}

pub fn unshare(flags: c_int) -> Result<(), String> {
    // SAFETY: takes a number, touches no memory.
    check(unsafe { libc::unshare(flags) }, || format!("cannot unshare {flags:#x}"))
}

pub fn enter_namespace(namespace: &File, kind: c_int) -> Result<(), String> {
    // SAFETY: takes an open descriptor and a number, touches no memory.
    let status = unsafe { libc::setns(namespace.as_raw_fd(), kind) };
    check(status, || format!("cannot enter a namespace of kind {kind:#x}"))
}

pub fn set_host_name(name: &str) -> Result<(), String> {
    // SAFETY: the kernel reads `len` bytes of `name`, which has as many.
    let status = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    check(status, || format!("cannot set the host name {name}"))
}

pub fn start_session() -> Result<(), String> {
    // SAFETY: takes nothing, touches no memory.
    check(unsafe { libc::setsid() }, || "cannot start a session".to_owned())
}

pub fn drop_from_bounding_set(capability: u64) -> Result<(), String> {
    // SAFETY: takes numbers, touches no memory.
    let status = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    check(status, || format!("cannot drop capability {capability}"))
}

/// Needs a process of one thread, as libc would otherwise have to tell the others.
pub fn become_user(uid: u32, gid: u32) -> Result<(), String> {
    // SAFETY: an empty list: the kernel reads nothing through the null pointer.
    let status = unsafe { libc::setgroups(0, ptr::null()) };
    check(status, || "cannot leave all groups".to_owned())?;
    // SAFETY: takes numbers, touches no memory.
    let status = unsafe { libc::setresgid(gid, gid, gid) };
    check(status, || format!("cannot become group {gid}"))?;
    // SAFETY: takes numbers, touches no memory.
    let status = unsafe { libc::setresuid(uid, uid, uid) };
    check(status, || format!("cannot become user {uid}"))
}

pub fn bring_loopback_up() -> Result<(), String> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|e| format!("cannot make a socket: {e}"))?;
    let mut name = [0; libc::IFNAMSIZ];
    name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short },
    };
    // SAFETY: SIOCSIFFLAGS reads one ifreq, and `request` outlives the call.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(status, || "cannot bring the interface lo up".to_owned())
}

pub fn power_off() -> ! {
    // SAFETY: takes nothing, touches no memory of ours.
    unsafe { libc::sync() };
    // SAFETY: takes a number; as the guest's first process we may.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    panic!("the guest cannot switch itself off: {}", io::Error::last_os_error())
}

fn check(status: c_int, what: impl FnOnce() -> String) -> Result<(), String> {
    if status >= 0 {
        return Ok(());
    }
    Err(format!("{}: {}", what(), io::Error::last_os_error()))
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("names of file systems and paths hold no NUL byte")
}
