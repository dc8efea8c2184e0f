//! The machine around the pod: file systems, the loopback interface, and the kernel
//! settings of a Kubernetes node.

use crate::order::Order;
use crate::{EXCHANGE, sys};
use libc::{MS_NODEV, MS_NOEXEC, MS_NOSUID};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::{env, io};

/// The least that is needed to speak with the host: /dev, and in it the shared directory.
pub fn mount_exchange() -> Result<(), String> {
    sys::mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "")?;
    make_directory(EXCHANGE)?;
    let on_host =
        env::var("POD_EXCHANGE").map_err(|e| format!("POD_EXCHANGE from the kernel command line: {e}"))?;
    sys::mount("exchange", EXCHANGE, "hostfs", 0, &on_host)
}

pub fn prepare(order: &Order) -> Result<(), String> {
    let plain = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    sys::mount("proc", "/proc", "proc", plain, "")?;
    sys::mount("sysfs", "/sys", "sysfs", plain, "")?;
    make_directory("/dev/shm")?;
    sys::mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")?;
    make_directory("/dev/pts")?;
    sys::mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "")?;
    for (link, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        let link = format!("/dev/{link}");
        symlink(format!("/proc/self/fd{target}"), &link)
            .map_err(|e| format!("cannot make the link {link}: {e}"))?;
    }
    sys::bring_loopback_up()?;
    // A kubelet sets both: large reservations are granted, and memory shortage kills
    // processes instead of the machine.
    write("/proc/sys/vm/overcommit_memory", &order.overcommit)?;
    write("/proc/sys/vm/panic_on_oom", "0")?;
    for wanted in &order.guest_writes {
        write(&wanted.file, &wanted.value)?;
    }
    Ok(())
}

/// The kernel's log so far, one message a line. Best effort: it only explains.
pub fn save_kernel_log(mut to: File) {
    let source = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut source) = source else { return };
    let mut record = [0; 8192];
    // Each read gives one record, "priority,number,time,flags;text"; EAGAIN ends them.
    while let Ok(length @ 1..) = source.read(&mut record) {
        let text = record[..length].splitn(2, |&byte| byte == b';').last();
        let written: io::Result<()> = to.write_all(text.unwrap_or_default());
        if written.is_err() {
            return;
        }
    }
}

pub fn write(path: impl AsRef<Path>, value: &str) -> Result<(), String> {
    let path = path.as_ref();
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| format!("cannot write '{value}' to {}: {e}", path.display()))
}

pub fn make_directory(path: impl AsRef<Path>) -> Result<(), String> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(|e| format!("cannot make {}: {e}", path.display()))
}
