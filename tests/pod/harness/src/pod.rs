//! A pod: what to run, under which limits, and how to run it once.

use crate::keeper::Keeper;
use crate::machine::{Machine, Plan};
use crate::run_directory::RunDirectory;
use crate::stage::{Stage, find_program};
use crate::{Error, Kernel, Report};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const INIT: &[u8] = include_bytes!(env!("POD_INIT"));
/// Beyond the pod's limit, so that the pod's cgroup runs out of memory, not the guest.
const RAM_BESIDES_POD: u64 = 512 << 20;
/// For a pod without a limit.
const RAM_WITHOUT_LIMIT: u64 = 1 << 30;
/// What boot and shutdown may take, on a busy host, beyond the pod's own time.
const BOOT_ALLOWANCE: Duration = Duration::from_secs(90);

/// What to run. Start from [`Pod::new`] and set what differs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// A path, or a name to find in PATH; and its arguments.
    pub command: Vec<OsString>,
    /// memory.max in bytes; `None` for "max".
    pub memory_max: Option<u64>,
    /// memory.oom.group: Kubernetes sets it since 1.28.
    pub oom_group: bool,
    pub user: Option<User>,
    pub capabilities: Capabilities,
    /// Besides PATH, HOME, HOSTNAME and TMPDIR.
    pub environment: Vec<(OsString, OsString)>,
    pub root: Root,
    /// Files and directories that a staged root holds besides the command.
    pub include: Vec<PathBuf>,
    /// Files of the guest (/proc, /sys) to write before the pod starts: path, content.
    pub guest_writes: Vec<(String, String)>,
    /// Changes to files of the pod's cgroup.
    pub changes: Vec<Change>,
    /// vm.overcommit_memory: a kubelet sets 1.
    pub overcommit: u8,
    /// Then the pod is killed.
    pub timeout: Duration,
    /// RAM of the guest; `None` for the limit and 512 MiB.
    pub guest_memory: Option<u64>,
}

/// Who the main process runs as, without supplementary groups.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// The main process's capability bounding set. Root gets what it holds, others none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capabilities {
    /// The 14 that a container runtime leaves.
    Default,
    None,
    All,
}

/// What the pod sees as `/`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// A copy of the command, its libraries and the includes; the pod starts in `/`.
    Staged,
    /// The host's `/`, read-only; the pod starts in the current directory.
    Host,
}

/// `echo value > file` in the pod's cgroup, from outside the pod.
#[derive(Clone, Debug)]
pub struct Change {
    /// Such as memory.max.
    pub file: String,
    /// As the kernel reads it: `64M` will do.
    pub value: String,
    /// After the pod's start; zero for before it.
    pub at: Duration,
    /// Not before the pod uses less than the value, which is a number of bytes then: as a kubelet resizes a container in place.
    pub once_it_fits: bool,
}

/// What one run brought.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub report: Report,
    /// The guest kernel's log, one message a line.
    pub kernel_log: String,
}

impl Pod {
    /// A pod as Kubernetes starts it today.
    pub fn new<Words>(memory_max: Option<u64>, command: Words) -> Pod
    where
        Words: IntoIterator,
        Words::Item: Into<OsString>,
    {
        Pod {
            command: command.into_iter().map(Into::into).collect(),
            memory_max,
            oom_group: true,
            user: None,
            capabilities: Capabilities::Default,
            environment: Vec::new(),
            root: Root::Staged,
            include: Vec::new(),
            guest_writes: Vec::new(),
            changes: Vec::new(),
            overcommit: 1,
            timeout: Duration::from_secs(60),
            guest_memory: None,
        }
    }

    /// Boots a guest, runs the pod in it to its end, and removes all traces. An error
    /// says that the harness failed; how the pod failed is in the outcome's report.
    pub fn run(&self) -> Result<Outcome, Error> {
        let kernel = Kernel::find()?;
        let program = self.program()?;
        let ram_bytes = self.ram_bytes();
        let place = RunDirectory::create(ram_bytes)?;
        let keeper = Keeper::start(place.path())?;
        let layout = self.lay_out(&place, &program)?;
        layout.put("order", &self.order(&program, &layout)?)?;
        let plan = Plan {
            ram_bytes,
            root: &layout.root,
            root_writable: self.root == Root::Staged,
            init: &layout.init,
            exchange: &layout.exchange,
        };
        let mut machine = Machine::start(&kernel, &plan, &place, keeper)?;
        let ended = machine.wait(self.timeout + BOOT_ALLOWANCE);
        ended
            .and_then(|()| layout.outcome())
            .map_err(|error| Error::new(format!("{error}\nthe guest's console:\n{}", machine.last_words())))
    }

    fn program(&self) -> Result<PathBuf, Error> {
        let name = self.command.first().ok_or_else(|| Error::new("the pod has no command"))?;
        find_program(name).ok_or_else(|| {
            let name = name.display();
            Error::new(format!("the pod's command '{name}' is not a file, nor one in PATH"))
        })
    }

    fn ram_bytes(&self) -> u64 {
        let by_limit = self.memory_max.map(|limit| limit.saturating_add(RAM_BESIDES_POD));
        self.guest_memory.or(by_limit).unwrap_or(RAM_WITHOUT_LIMIT)
    }

    fn lay_out(&self, place: &RunDirectory, program: &Path) -> Result<Layout, Error> {
        let layout = match self.root {
            Root::Staged => {
                let root = place.make("root")?;
                let mut stage = Stage::new(root.clone())?;
                stage.add(program)?;
                for path in &self.include {
                    stage.add(&std::path::absolute(path).map_err(Error::on("find", path))?)?;
                }
                Layout {
                    exchange: place.make("root/.pod")?,
                    init: "/.pod/init".into(),
                    root,
                    workdir: "/".into(),
                    tmp: "/tmp",
                }
            }
            Root::Host => {
                let exchange = place.make("exchange")?;
                let tmp = place.make("exchange/tmp")?;
                fs::set_permissions(&tmp, Permissions::from_mode(0o1777))
                    .map_err(Error::on("open to all users", &tmp))?;
                let workdir = std::env::current_dir()
                    .map_err(|e| Error::new(format!("cannot tell the current directory: {e}")))?;
                Layout {
                    init: exchange.join("init"),
                    exchange,
                    root: "/".into(),
                    workdir,
                    tmp: "/dev/pod/tmp",
                }
            }
        };
        layout.put("init", INIT)?;
        let init = layout.exchange.join("init");
        fs::set_permissions(&init, Permissions::from_mode(0o755))
            .map_err(Error::on("make executable", &init))?;
        Ok(layout)
    }

    /// For the guest's init, which reads it in its `order.rs`.
    fn order(&self, program: &Path, layout: &Layout) -> Result<Vec<u8>, Error> {
        let mut order = Records::default();
        order.add("arg", [program.as_os_str().as_bytes()]);
        for argument in &self.command[1..] {
            order.add("arg", [argument.as_bytes()]);
        }
        let home = if self.user.is_some_and(|user| user.uid != 0) { "/" } else { "/root" };
        for (name, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", home),
            ("HOSTNAME", "pod"),
            ("TMPDIR", layout.tmp),
        ] {
            order.add("env", [name, "=", value]);
        }
        for (name, value) in &self.environment {
            order.add("env", [name.as_bytes(), b"=", value.as_bytes()]);
        }
        order.add("workdir", [layout.workdir.as_os_str().as_bytes()]);
        let limit = self.memory_max.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        order.add("memory.max", [limit]);
        order.add("memory.oom.group", [if self.oom_group { "1" } else { "0" }]);
        order.add("overcommit", [self.overcommit.to_string()]);
        if let Some(User { uid, gid }) = self.user {
            order.add("user", [format!("{uid}:{gid}")]);
        }
        let capabilities = match self.capabilities {
            Capabilities::Default => "default",
            Capabilities::None => "none",
            Capabilities::All => "all",
        };
        order.add("caps", [capabilities]);
        order.add("timeout_ms", [self.timeout.as_millis().to_string()]);
        for (path, value) in &self.guest_writes {
            order.add("write", [path, "=", value]);
        }
        for Change { file, value, at, once_it_fits } in &self.changes {
            let key = if *once_it_fits { "change_once_it_fits" } else { "change" };
            order.add(key, [format!("{}:{file}={value}", at.as_millis())]);
        }
        order.finish()
    }
}

/// Where the guest finds things, and the host.
struct Layout {
    root: PathBuf,
    exchange: PathBuf,
    init: PathBuf,
    workdir: PathBuf,
    tmp: &'static str,
}

impl Layout {
    fn put(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.exchange.join(name);
        fs::write(&path, content).map_err(Error::on("write", &path))
    }

    fn outcome(&self) -> Result<Outcome, Error> {
        let get = |name: &str| {
            let path = self.exchange.join(name);
            fs::read(&path).map_err(|e| Error::new(format!("the guest left no {name}: {e}")))
        };
        let text = String::from_utf8_lossy(&get("result")?).into_owned();
        let report = Report::parse(&text).map_err(|e| Error::new(format!("in the guest: {e}")))?;
        let kernel_log = String::from_utf8_lossy(&get("log")?).into_owned();
        Ok(Outcome { stdout: get("stdout")?, stderr: get("stderr")?, report, kernel_log })
    }
}

/// `key=value`, each ended by a NUL byte.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    count: usize,
}

impl Records {
    fn add<const N: usize>(&mut self, key: &str, value: [impl AsRef<[u8]>; N]) {
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(b'=');
        for part in value {
            self.bytes.extend_from_slice(part.as_ref());
        }
        self.bytes.push(0);
        self.count += 1;
    }

    fn finish(self) -> Result<Vec<u8>, Error> {
        if self.bytes.iter().filter(|&&byte| byte == 0).count() != self.count {
            return Err(Error::new("an argument, variable or value of the pod holds a NUL byte"));
        }
        Ok(self.bytes)
    }
}
