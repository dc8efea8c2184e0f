//! One guest machine: a running user-mode Linux, all of whose processes are processes
//! of the host in one group.

use crate::keeper::Keeper;
use crate::run_directory::RunDirectory;
use crate::{Error, Kernel};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The XSAVE area that the guest kernel can hold; a larger one needs the shim.
const GUEST_XSAVE_BYTES: u32 = 2696;
const SHIM: &[u8] = include_bytes!(env!("POD_SHIM"));

/// What the guest is made of.
pub struct Plan<'a> {
    pub ram_bytes: u64,
    /// A directory of the host that is the guest's `/`.
    pub root: &'a Path,
    pub root_writable: bool,
    /// The init program, by its path in the guest.
    pub init: &'a Path,
    /// The directory shared with init, by its path on the host.
    pub exchange: &'a Path,
}

/// Gone when dropped, and its files with it.
pub struct Machine {
    process: Child,
    console: PathBuf,
    keeper: Keeper,
}

impl Machine {
    pub fn start(
        kernel: &Kernel,
        plan: &Plan,
        place: &RunDirectory,
        mut keeper: Keeper,
    ) -> Result<Machine, Error> {
        let console = place.path().join("console");
        let output = File::create(&console).map_err(Error::on("create", &console))?;
        let errors = output.try_clone().map_err(Error::on("open again", &console))?;
        // Pinned: the guest kernel hands each page fault and system call from process to
        // process, and waking another processor for that costs ten times the work.
        // Neither taskset nor linux.uml forks before it is the machine, so the group is its.
        let mut command = Command::new("taskset");
        command
            .arg("--cpu-list")
            .arg(next_cpu()?.to_string())
            .arg(kernel.path())
            .args(kernel_command_line(plan, place))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", place.base())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        if std::arch::x86_64::__cpuid_count(0xd, 0).ebx > GUEST_XSAVE_BYTES {
            let shim = place.path().join("shim.so");
            fs::write(&shim, SHIM).map_err(Error::on("write", &shim))?;
            command.env("LD_PRELOAD", &shim);
        }
        let process = command
            .spawn()
            .map_err(|e| Error::new(format!("cannot start taskset: {e}; it comes with util-linux")))?;
        keeper.watch(process.id())?;
        Ok(Machine { process, console, keeper })
    }

    /// Until it switches itself off, or the time is over. What is left of it then is the
    /// keeper's to kill.
    pub fn wait(&mut self, limit: Duration) -> Result<(), Error> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            let ended = self.process.try_wait();
            if ended.map_err(|e| Error::new(format!("cannot wait for the guest: {e}")))?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(Error::new(format!("the guest did not end within {} s", limit.as_secs())))
    }

    /// The last lines that the guest kernel wrote, to explain why it failed.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.keeper.end();
        let _ = self.process.wait();
    }
}

fn kernel_command_line(plan: &Plan, place: &RunDirectory) -> Vec<String> {
    let mut words = vec![
        format!("mem={}M", plan.ram_bytes.div_ceil(1 << 20)),
        format!("uml_dir={}/", place.path().display()),
        "umid=uml".to_owned(),
        "root=/dev/root".to_owned(),
        "rootfstype=hostfs".to_owned(),
        format!("rootflags={}", plan.root.display()),
        (if plan.root_writable { "rw" } else { "ro" }).to_owned(),
        format!("init={}", plan.init.display()),
        format!("POD_EXCHANGE={}", plan.exchange.display()),
    ];
    words.extend(
        [
            // A benchmark of 0.85 s that nothing here needs.
            "initcall_blacklist=raid6_select_algo",
            // Init mounts /dev itself: before that, it may have to be read from the host's.
            "devtmpfs.mount=0",
            "quiet",
            "con=null",
            "con0=null,fd:1",
            "ssl=null",
            "noreboot",
        ]
        .map(str::to_owned),
    );
    words
}

/// The processors that this process may use, in turn.
fn next_cpu() -> Result<usize, Error> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).map_err(Error::on("read", path))?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .ok_or_else(|| Error::new("no Cpus_allowed_list in /proc/self/status: is /proc mounted?"))?;
    let cpus = cpu_list(list.trim())
        .ok_or_else(|| Error::new(format!("/proc/self/status: Cpus_allowed_list is '{list}'")))?;
    // Relaxed: a turn, not a lock. The process id spreads processes of one pod each.
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() as usize;
    Ok(cpus[turn % cpus.len()])
}

/// Of "0-3,8": each number. `None` for anything else, and for an empty list.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    (!cpus.is_empty()).then_some(cpus)
}

#[cfg(test)]
mod tests {
    use super::cpu_list;

    #[test]
    fn processors_come_as_numbers_and_ranges() {
        assert_eq!(cpu_list("0-2,8"), Some(vec![0, 1, 2, 8]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        assert_eq!(cpu_list(""), None);
        assert_eq!(cpu_list("3-x"), None);
    }
}
