//! The pod itself: its cgroup, and its main process in namespaces of its own, with the
//! rights that a container runtime leaves it.

use crate::node::{make_directory, write};
use crate::order::Order;
use crate::output::Carrier;
use crate::sys;
use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HIERARCHY: &str = "/sys/fs/cgroup";
/// From the root down, as a kubelet nests them; the last one is the pod's.
const LEVELS: [&str; 4] = ["", "kubepods", "kubepods/pod", "kubepods/pod/main"];

/// What containerd and Docker leave to a container's root.
#[rustfmt::skip]
const USUAL_CAPABILITIES: [u64; 14] = [
    0,  // CAP_CHOWN
    1,  // CAP_DAC_OVERRIDE
    3,  // CAP_FOWNER
    4,  // CAP_FSETID
    5,  // CAP_KILL
    6,  // CAP_SETGID
    7,  // CAP_SETUID
    8,  // CAP_SETPCAP
    10, // CAP_NET_BIND_SERVICE
    13, // CAP_NET_RAW
    18, // CAP_SYS_CHROOT
    27, // CAP_MKNOD
    29, // CAP_AUDIT_WRITE
    31, // CAP_SETFCAP
];

/// A file of the pod's cgroup, as seen from outside the pod.
pub fn cgroup_file(name: &str) -> PathBuf {
    PathBuf::from(HIERARCHY).join(LEVELS[LEVELS.len() - 1]).join(name)
}

/// This process stays in the root cgroup, so that its own memory and the page cache of
/// the pod's output are not charged to the pod.
pub fn make_cgroup(order: &Order) -> Result<(), String> {
    let flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    sys::mount("cgroup2", HIERARCHY, "cgroup2", flags, "")?;
    for (depth, level) in LEVELS.iter().enumerate() {
        let directory = PathBuf::from(HIERARCHY).join(level);
        make_directory(&directory)?;
        if depth + 1 < LEVELS.len() {
            write(directory.join("cgroup.subtree_control"), "+memory +pids")?;
        }
    }
    write(cgroup_file("memory.max"), &order.memory_max)?;
    write(cgroup_file("memory.oom.group"), &order.oom_group)?;
    order
        .changes
        .iter()
        .filter(|change| change.at.is_zero())
        .try_for_each(|change| write(cgroup_file(&change.file), &change.value))
}

/// The pod's main process, or its exit code where it could not be started.
pub struct Pod {
    process: Result<Child, i32>,
    started: Instant,
}

/// How the main process ended.
pub struct Ended {
    /// 128 and the signal's number for a process killed by a signal, as in a shell.
    pub exit: i32,
    pub signal: Option<i32>,
    pub wall: Duration,
}

pub fn start(order: &Order, stdout: &Carrier, stderr: &Carrier, result: &File) -> Result<Pod, String> {
    let mut command = Command::new(&order.arguments[0]);
    command
        .args(&order.arguments[1..])
        .env_clear()
        .envs(order.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(stdout.end()?)
        .stderr(stderr.end()?);
    let inside =
        Inside { workdir: order.workdir.clone(), user: order.user, capabilities: order.capabilities.clone() };
    let mut failure = result.try_clone().map_err(|e| format!("cannot copy a descriptor: {e}"))?;
    let enter = move || {
        inside.enter().map_err(|error| {
            // The way back of `Command` carries a number only: the words go this way.
            let _ = writeln!(failure, "error=in the new container: {error}");
            io::Error::other(error)
        })
    };
    // SAFETY: this process has one thread, so its fork may allocate and take locks.
    unsafe { command.pre_exec(enter) };

    let started = Instant::now();
    let here = File::open("/proc/self/ns/pid").map_err(|e| format!("cannot open /proc/self/ns/pid: {e}"))?;
    sys::unshare(libc::CLONE_NEWPID)?;
    let spawned = command.spawn();
    // Back, or no thread could be started: threads share their process's namespace.
    sys::enter_namespace(&here, libc::CLONE_NEWPID)?;
    let process = spawned.map_err(|error| {
        let command = order.arguments[0].display();
        let _ = writeln!(stderr.file(), "pod: cannot run {command}: {error}");
        if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    });
    Ok(Pod { process, started })
}

impl Pod {
    /// Past this, nothing of the pod lives: its PID namespace ends with its first process.
    pub fn wait(self) -> Result<Ended, String> {
        let (exit, signal) = match self.process {
            Err(exit) => (exit, None),
            Ok(mut child) => {
                let status = child.wait().map_err(|e| format!("cannot wait for the pod: {e}"))?;
                let signal = status.signal();
                let killed = signal.map_or(0, |number| 128 + number);
                (status.code().unwrap_or(killed), signal)
            }
        };
        let wall = self.started.elapsed();
        Ok(Ended { exit, signal, wall })
    }
}

/// What the new process does to itself, between fork and exec.
struct Inside {
    workdir: PathBuf,
    user: Option<(u32, u32)>,
    capabilities: String,
}

impl Inside {
    fn enter(&self) -> Result<(), String> {
        // First the cgroup, then its namespace: this makes it the root of what the pod sees.
        write(cgroup_file("cgroup.procs"), "0")?;
        sys::unshare(libc::CLONE_NEWCGROUP | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC)?;
        mount_own_view()?;
        sys::set_host_name("pod")?;
        sys::start_session()?;
        self.drop_capabilities()?;
        if let Some((uid, gid)) = self.user {
            sys::become_user(uid, gid)?;
        }
        std::env::set_current_dir(&self.workdir)
            .map_err(|e| format!("cannot enter {}: {e}", self.workdir.display()))
    }

    /// Only the bounding set: exec computes the rest from it.
    fn drop_capabilities(&self) -> Result<(), String> {
        let keep: &[u64] = match self.capabilities.as_str() {
            "all" => return Ok(()),
            "default" => &USUAL_CAPABILITIES,
            _ => &[],
        };
        let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap")
            .map_err(|e| format!("cannot read /proc/sys/kernel/cap_last_cap: {e}"))?;
        let last = last.trim().parse().map_err(|e| format!("cap_last_cap is '{last}': {e}"))?;
        (0..=last).filter(|capability| !keep.contains(capability)).try_for_each(sys::drop_from_bounding_set)
    }
}

/// Its own /proc and cgroup, and what a runtime makes read-only.
fn mount_own_view() -> Result<(), String> {
    let plain = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    sys::mount("", "/", "", MS_REC | MS_PRIVATE, "")?;
    sys::detach(HIERARCHY)?;
    sys::mount("", "/sys", "", MS_REMOUNT | MS_BIND | MS_RDONLY | plain, "")?;
    sys::mount("cgroup2", HIERARCHY, "cgroup2", MS_RDONLY | plain, "")?;
    sys::detach("/proc")?;
    sys::mount("proc", "/proc", "proc", plain, "")?;
    sys::mount("/proc/sys", "/proc/sys", "", MS_BIND, "")?;
    sys::mount("", "/proc/sys", "", MS_REMOUNT | MS_BIND | MS_RDONLY | plain, "")
}
