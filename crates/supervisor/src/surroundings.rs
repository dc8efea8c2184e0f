//! Which limits hold where this process runs, and where each comes from: cgroups(7), setrlimit(2), proc_sys_vm(5).
//!
//! The files are looked for below a root directory, so that recorded hosts can be read.

use super::sys;
use super::sys::memory::{Resource, Rlimit, ceiling_of, machine_memory, replaced_soft_limit, rlimit};
use crate::Limit;
use crate::cgroup::{self, Findings};
use crate::contract::{LimitSource, Measure};
use crate::names::{meant_by, push_misspelt};
use crate::record::RECORD_BYTES;
use crate::resolution::{Known, resolve_limit};
use crate::text::Text;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What limits memory where this process runs.
///
/// ```
/// use oomguard::supervisor::Surroundings;
///
/// let here = Surroundings::here();
/// if let Some((bytes, file)) = here.container_limit() {
///     println!("the container has {bytes} bytes, says {}", file.display());
/// }
/// if let Some(group) = here.killed_together() {
///     println!("one process over that limit, and the kernel kills all of {}", group.directory.display());
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Surroundings {
    /// The cgroups that this process is in and that have the memory controller, from its own up to the root, as far as
    /// they can be seen. Empty: no such cgroup.
    pub groups: Vec<ControlGroup>,
    /// This process's rlimits, which its children inherit; as they were before a guard of its own lowered one.
    pub rlimits: Rlimits,
    /// The machine's administrator switched `RLIMIT_DATA` off: the measure `data` cannot be limited.
    pub data_limit_is_ignored: bool,
    /// Whether the kernel promises more memory than there is; `None`: not to be read.
    pub overcommit: Option<Overcommit>,
    /// The machine's memory in bytes.
    pub machine_memory: Option<u64>,
    /// The machine's swap space in bytes.
    pub machine_swap: Option<u64>,
}

/// A cgroup with the memory controller. `None` is no limit, or a file that this kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlGroup {
    /// Where its files are.
    pub directory: PathBuf,
    /// Which files those are.
    pub version: CgroupVersion,
    /// `memory.max` (version 2), `memory.limit_in_bytes` (version 1): what cannot be kept below it is killed.
    pub max: Option<u64>,
    /// `memory.high` (version 2): what goes above it is slowed down.
    pub high: Option<u64>,
    /// `memory.swap.max` (version 2); what `memory.memsw.limit_in_bytes` leaves for swap (version 1).
    pub swap_max: Option<u64>,
    /// `memory.current` (version 2), `memory.usage_in_bytes` (version 1).
    pub in_use: Option<u64>,
    /// `memory.oom.group` (version 2): the kernel's out-of-memory killer kills all of the group, or none.
    pub oom_group: Option<bool>,
}

/// The generation of cgroups that has the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CgroupVersion {
    /// A hierarchy of its own for memory.
    V1,
    /// One hierarchy for all.
    V2,
}

/// The rlimits that have to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rlimits {
    /// `RLIMIT_AS`, in bytes.
    pub address_space: Rlimit,
    /// `RLIMIT_DATA`, in bytes.
    pub data: Rlimit,
    /// `RLIMIT_STACK`, in bytes.
    pub stack: Rlimit,
    /// `RLIMIT_NPROC`: how many processes and threads this user may have.
    pub processes: Rlimit,
}

/// `/proc/sys/vm/overcommit_memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overcommit {
    /// 0: only what is obviously too much is refused.
    Heuristic,
    /// 1: nothing is refused.
    Always,
    /// 2: what goes beyond the machine's commit limit is refused, whatever the limits of processes say.
    Never,
}

/// The limit that a guard would set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitHere {
    /// How many bytes.
    pub bytes: u64,
    /// Who says so.
    pub source: LimitSource,
}

impl Surroundings {
    /// Reads the limits that hold now.
    pub fn here() -> Surroundings {
        super::outer::note_replaced();
        Surroundings::below("")
    }

    /// As [`here`](Surroundings::here), with the files of `/proc` and `/sys` below another root directory, such as
    /// that of a recorded host. The rlimits and the machine's memory are always those of here, as the kernel tells
    /// them without a file.
    pub fn below(root: &str) -> Surroundings {
        let file = |path: &str| fs::read(format!("{root}{path}")).unwrap_or_default();
        Surroundings {
            groups: cgroup::look_up::<Groups>(root).0,
            rlimits: Rlimits {
                address_space: unguarded(Measure::AddressSpace),
                data: unguarded(Measure::Data),
                stack: rlimit(Resource::Stack),
                processes: rlimit(Resource::Processes),
            },
            data_limit_is_ignored: file(IGNORE_RLIMIT_DATA).starts_with(b"Y"),
            overcommit: match file(OVERCOMMIT_MEMORY).trim_ascii() {
                b"0" => Some(Overcommit::Heuristic),
                b"1" => Some(Overcommit::Always),
                b"2" => Some(Overcommit::Never),
                _ => None,
            },
            machine_memory: machine_memory(),
            machine_swap: swap_total(&file("/proc/meminfo")),
        }
    }

    /// Returns the container's limit, which `auto` and `80%` refer to, and the file that says so: the smallest of all
    /// groups.
    pub fn container_limit(&self) -> Option<(u64, PathBuf)> {
        let limits = self.groups.iter().flat_map(|group| {
            let of_file = |bytes: Option<u64>, name| Some((bytes?, group.directory.join(name)));
            [of_file(group.max, group.version.max_file()), of_file(group.high, "memory.high")]
        });
        limits.flatten().min_by_key(|(bytes, _)| *bytes)
    }

    /// Returns the group that the kernel kills as a whole when one process in it goes over the container's limit: the
    /// highest with `memory.oom.group` below the limit. `None`: it kills one process.
    pub fn killed_together(&self) -> Option<&ControlGroup> {
        let tightest = self.groups.iter().enumerate().filter(|(_, group)| group.max.is_some());
        let tightest =
            tightest.min_by_key(|(_, group)| group.max).map_or(self.groups.len(), |(index, _)| index + 1);
        self.groups.iter().take(tightest).rfind(|group| group.oom_group == Some(true))
    }

    /// Returns the limit that a guarded program started here would have, and whose word it is: `environment` is what
    /// `OOMGUARD_LIMIT` or a [`Worker`](super::Worker) says, `source` what the program's source code says. `None`: no
    /// limit.
    pub fn limit_for(
        &self,
        environment: Option<Limit>,
        source: Option<Limit>,
        measure: Measure,
    ) -> Option<LimitHere> {
        let resolved = resolve_limit(&Known {
            from_environment: environment,
            from_source: source,
            container: self.container_limit().map(|(bytes, _)| bytes),
            machine: self.machine_memory,
            // No rlimit counts what is resident.
            existing: match measure {
                Measure::Resident => Rlimit { soft: None, hard: None },
                _ => self.rlimits.of(measure),
            },
        })?;
        Some(LimitHere { bytes: resolved.bytes, source: resolved.source })
    }
}

const IGNORE_RLIMIT_DATA: &str = "/sys/module/kernel/parameters/ignore_rlimit_data";
const OVERCOMMIT_MEMORY: &str = "/proc/sys/vm/overcommit_memory";

impl Rlimits {
    /// Returns the rlimit by which this measure is limited.
    pub fn of(&self, measure: Measure) -> Rlimit {
        if measure == Measure::AddressSpace { self.address_space } else { self.data }
    }
}

fn unguarded(measure: Measure) -> Rlimit {
    let now = rlimit(measure.into());
    // A guarded parent's limit on data may be none.
    let users = || if measure == Measure::AddressSpace { now.soft } else { ceiling_of(now) };
    let soft = replaced_soft_limit(measure).unwrap_or_else(users);
    Rlimit { soft, ..now }
}

impl CgroupVersion {
    /// Returns the name of the file that holds the limit: `memory.limit_in_bytes` or `memory.max`.
    pub const fn max_file(self) -> &'static str {
        match self {
            CgroupVersion::V1 => "memory.limit_in_bytes",
            CgroupVersion::V2 => "memory.max",
        }
    }
}

#[derive(Default)]
struct Groups(Vec<ControlGroup>);

impl Findings for Groups {
    fn look(&mut self, directory: &cgroup::Path, version: cgroup::Version) -> bool {
        let directory = PathBuf::from(OsStr::from_bytes(directory.as_bytes()));
        let group = match version {
            cgroup::Version::V1 => v1_group(directory),
            cgroup::Version::V2 => v2_group(directory),
        };
        let has_file = group.directory.join(group.version.max_file()).exists();
        if has_file || group.high.is_some() {
            self.0.push(group);
        }
        has_file
    }
}

fn v1_group(directory: PathBuf) -> ControlGroup {
    let bytes = |name| limit_in(&directory, name, cgroup::Version::V1);
    let max = bytes("memory.limit_in_bytes");
    ControlGroup {
        max,
        high: None,
        swap_max: bytes("memory.memsw.limit_in_bytes").and_then(|both| both.checked_sub(max?)),
        in_use: bytes("memory.usage_in_bytes"),
        oom_group: None,
        version: CgroupVersion::V1,
        directory,
    }
}

fn v2_group(directory: PathBuf) -> ControlGroup {
    let bytes = |name| limit_in(&directory, name, cgroup::Version::V2);
    ControlGroup {
        max: bytes("memory.max"),
        high: bytes("memory.high"),
        swap_max: bytes("memory.swap.max"),
        in_use: bytes("memory.current"),
        oom_group: bytes("memory.oom.group").map(|on| on == 1),
        version: CgroupVersion::V2,
        directory,
    }
}

fn limit_in(directory: &Path, name: &str, version: cgroup::Version) -> Option<u64> {
    cgroup::parse_limit(&fs::read(directory.join(name)).ok()?, version)
}

/// proc_meminfo(5).
fn swap_total(meminfo: &[u8]) -> Option<u64> {
    let line = meminfo.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"SwapTotal:"))?;
    crate::text::leading_number(line)?.checked_mul(1024)
}

/// Returns whether a worker's guard can fill in a record for its parent here: it takes a sealed memory file
/// (memfd_create(2)). Without one no [`Worker`](super::Worker) can be started.
///
/// # Errors
/// What stands in the way, such as a seccomp filter.
pub fn can_record() -> io::Result<()> {
    let record = sys::memfd::create_sealed(c"oomguard-record", RECORD_BYTES)?;
    match sys::memfd::sealed_inode(record.as_raw_fd(), RECORD_BYTES) {
        Some(_) => Ok(()),
        None => Err(io::Error::new(io::ErrorKind::Unsupported, "memory files cannot be sealed here")),
    }
}

/// What is wrong with the names of this process's variables, a line for each that nearly is one of ours: `there is no variable
/// OOMGUARD_LIMITS; did you mean OOMGUARD_LIMIT?`
pub fn misspelt_variables() -> Vec<String> {
    misspelt(std::env::vars_os().map(|(name, _)| name))
}

fn misspelt(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let line = |name: OsString| {
        let mut line = Text::<256>::new();
        push_misspelt(&mut line, name.as_bytes(), meant_by(name.as_bytes())?);
        Some(String::from_utf8_lossy(line.as_bytes()).into_owned())
    };
    let mut lines: Vec<String> = names.filter_map(line).collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recorded host: the files that are read.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new(files: &[(&str, &str)]) -> Host {
            let root = tempfile::tempdir().unwrap();
            for (path, content) in files {
                let path = root.path().join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Host(root)
        }

        fn read(&self) -> Surroundings {
            Surroundings::below(self.0.path().to_str().unwrap())
        }

        /// Without the root.
        fn path(&self, path: &Path) -> String {
            format!("/{}", path.strip_prefix(self.0.path()).unwrap().display())
        }

        fn container_limit(&self) -> Option<(u64, String)> {
            self.read().container_limit().map(|(bytes, file)| (bytes, self.path(&file)))
        }

        fn killed_together(&self) -> Option<String> {
            self.read().killed_together().map(|group| self.path(&group.directory))
        }
    }

    const V2_MOUNT: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNT: &str = "27 25 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

    /// A container of Kubernetes on version 2, with a cgroup namespace.
    fn pod() -> Host {
        Host::new(&[
            ("/proc/self/cgroup", "0::/\n"),
            ("/proc/self/mountinfo", V2_MOUNT),
            ("/proc/meminfo", "MemTotal:       24689764 kB\nSwapTotal:         2048 kB\n"),
            ("/proc/sys/vm/overcommit_memory", "1\n"),
            ("/sys/module/kernel/parameters/ignore_rlimit_data", "N\n"),
            ("/sys/fs/cgroup/memory.max", "536870912\n"),
            ("/sys/fs/cgroup/memory.high", "max\n"),
            ("/sys/fs/cgroup/memory.swap.max", "0\n"),
            ("/sys/fs/cgroup/memory.current", "20971520\n"),
            ("/sys/fs/cgroup/memory.oom.group", "1\n"),
        ])
    }

    #[test]
    fn a_pod_dies_as_a_whole() {
        let host = pod();
        let here = host.read();
        let [group] = here.groups.as_slice() else { panic!("{here:?}") };
        assert_eq!((group.version, group.max, group.high), (CgroupVersion::V2, Some(512 << 20), None));
        assert_eq!((group.swap_max, group.in_use), (Some(0), Some(20 << 20)));
        assert_eq!(host.container_limit(), Some((512 << 20, "/sys/fs/cgroup/memory.max".into())));
        assert_eq!(host.killed_together().as_deref(), Some("/sys/fs/cgroup"));
        assert_eq!((here.overcommit, here.machine_swap), (Some(Overcommit::Always), Some(2 << 20)));
        assert!(!here.data_limit_is_ignored);
    }

    #[test]
    fn all_groups_up_to_the_root_are_told_and_the_smallest_limit_is_named() {
        let host = Host::new(&[
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/proc/self/mountinfo", V2_MOUNT),
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.oom.group", "0\n"),
            ("/sys/fs/cgroup/a/memory.max", "4000\n"),
            ("/sys/fs/cgroup/a/memory.high", "3000\n"),
            ("/sys/fs/cgroup/cgroup.procs", "1\n"),
        ]);
        let directories: Vec<_> =
            host.read().groups.iter().map(|group| host.path(&group.directory)).collect();
        assert_eq!(directories, ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a"]);
        assert_eq!(host.container_limit(), Some((3000, "/sys/fs/cgroup/a/memory.high".into())));
        assert_eq!(host.killed_together(), None);
        let here = host.read();
        assert_eq!(
            here.container_limit().map(|(bytes, _)| bytes),
            cgroup::container_limit(host.0.path().to_str().unwrap()),
            "what is told is what holds"
        );
    }

    #[test]
    fn only_groups_below_the_limit_that_is_hit_are_killed_together() {
        let files = |own: &'static str, parents: &'static str| {
            Host::new(&[
                ("/proc/self/cgroup", "0::/a/b\n"),
                ("/proc/self/mountinfo", V2_MOUNT),
                ("/sys/fs/cgroup/a/b/memory.max", own),
                ("/sys/fs/cgroup/a/b/memory.oom.group", "0\n"),
                ("/sys/fs/cgroup/a/memory.max", parents),
                ("/sys/fs/cgroup/a/memory.oom.group", "1\n"),
            ])
            .killed_together()
        };
        assert_eq!(files("1000\n", "2000\n"), None, "the killer does not look above the limit that was hit");
        assert_eq!(files("2000\n", "1000\n").as_deref(), Some("/sys/fs/cgroup/a"));
        assert_eq!(
            files("max\n", "max\n").as_deref(),
            Some("/sys/fs/cgroup/a"),
            "the machine's limit is above all"
        );
    }

    #[test]
    fn version_1_counts_memory_and_swap_together() {
        let host = Host::new(&[
            ("/proc/self/cgroup", "4:memory:/jobs/7\n1:name=systemd:/x\n0::/x\n"),
            ("/proc/self/mountinfo", V1_MOUNT),
            ("/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/jobs/7/memory.memsw.limit_in_bytes", "1500\n"),
            ("/sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes", "10\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let here = host.read();
        let [own, root] = here.groups.as_slice() else { panic!("{here:?}") };
        assert_eq!((own.version, own.max, own.swap_max), (CgroupVersion::V1, Some(1000), Some(500)));
        assert_eq!((own.in_use, own.oom_group, root.max), (Some(10), None, None));
        let file = "/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes";
        assert_eq!(host.container_limit(), Some((1000, file.into())));
        assert_eq!(host.killed_together(), None);
    }

    #[test]
    fn a_host_that_shows_nothing_is_no_error() {
        let host = Host::new(&[("/etc/hostname", "bare\n")]);
        let here = host.read();
        assert!(here.groups.is_empty() && !here.data_limit_is_ignored, "{here:?}");
        assert_eq!((here.overcommit, here.machine_swap, here.container_limit()), (None, None, None));
    }

    #[test]
    fn a_switched_off_data_limit_is_seen() {
        let host = Host::new(&[("/sys/module/kernel/parameters/ignore_rlimit_data", "Y\n")]);
        assert!(host.read().data_limit_is_ignored);
    }

    #[test]
    fn the_limit_for_a_program_follows_the_order_of_precedence() {
        let mut here = pod().read();
        here.rlimits.data = Rlimit { soft: None, hard: None };
        let limit = |here: &Surroundings, environment: Option<&str>, source: Option<&str>| {
            let parse = |text: Option<&str>| text.map(|text| text.parse::<Limit>().unwrap());
            let limit = here.limit_for(parse(environment), parse(source), Measure::Data);
            limit.map(|limit| (limit.bytes, limit.source))
        };
        assert_eq!(limit(&here, None, None), Some(((512 << 20) * 9 / 10, LimitSource::Cgroup)));
        assert_eq!(limit(&here, Some("50%"), Some("1Gi")), Some((256 << 20, LimitSource::Environment)));
        assert_eq!(limit(&here, None, Some("1Mi")), Some((1 << 20, LimitSource::Source)));
        here.rlimits.data.hard = Some(1000);
        assert_eq!(limit(&here, Some("50%"), None), Some((1000, LimitSource::Rlimit)));
        here.rlimits.data.hard = None;
        assert_eq!(limit(&here, Some("off"), None), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let here = Surroundings::here();
        assert!(here.machine_memory > Some(0) && here.rlimits.stack.soft != Some(0), "{here:?}");
        can_record().unwrap();
    }
}
