//! The container's memory limit, from the control groups that this process is in: cgroups(7).
//!
//! Version 2 (`memory.max`, `memory.high`), version 1 (`memory.limit_in_bytes`) and hybrid hosts, with or without a
//! cgroup namespace. Parsed from fixed buffers without allocating, as this also runs before `main`. The root
//! directory is an argument, so that recorded hosts can be read. Which source of a limit wins is decided elsewhere.

use crate::sys::fd::{Fd, Lines, open_to_read};
use crate::text::{Text, last_position, parts, whole_number};
use core::ffi::CStr;

/// The longest path looked at, with the NUL; a deep one in Kubernetes has 300 bytes. Small, as a dozen of these are on
/// the stack, and each page that start-up is the first to touch costs it 1 to 3 µs.
const PATH_BYTES: usize = 1024;

pub type Path = Text<PATH_BYTES>;

/// Above this, version 1 means "no limit": the kernel writes LONG_MAX rounded down to a page.
const V1_UNLIMITED: u64 = 1 << 62;

/// Where the kernel counts the processes that its out-of-memory killer killed in this process's own group.
pub struct KillCounter {
    pub fd: Fd,
    /// The file's name, for people.
    pub name: &'static str,
}

/// Opens the counter of this process's own group: `memory.events` (version 2, where it counts the groups below, too)
/// or `memory.oom_control` (version 1, since Linux 4.13).
pub fn kill_counter(root: &str) -> Option<KillCounter> {
    let own = own_groups(root);
    let mut path = prefixed(root, b"/proc/self/mountinfo");
    let mut buffer = [0; PATH_BYTES];
    let mut mounts = Lines::open(c_str(&mut path), &mut buffer)?;
    while let Some(line) = mounts.next() {
        let Some(mount) = Mount::parse(line) else { continue };
        let Some(group) = own.path_in(mount.version) else { continue };
        let mut directory = prefixed(root, &[]);
        push_unescaped(&mut directory, mount.point);
        let mut mount_root = Path::new();
        push_unescaped(&mut mount_root, mount.root);
        directory.push_bytes(below_mount(group, mount_root.as_bytes()));
        let name = match mount.version {
            Version::V2 => "memory.events",
            Version::V1 => "memory.oom_control",
        };
        directory.push("/");
        directory.push(name);
        if let Some(fd) = open_to_read(c_str(&mut directory)) {
            let counter = KillCounter { fd, name };
            if counter.read().is_some() {
                return Some(counter);
            }
        }
    }
    None
}

impl KillCounter {
    /// How many processes were killed so far.
    pub fn read(&self) -> Option<u64> {
        let mut content = [0u8; 512];
        let len = self.fd.read_at_start(&mut content);
        parse_kills(content.get(..len)?)
    }
}

fn parse_kills(content: &[u8]) -> Option<u64> {
    let value = parts(content, b'\n').find_map(|line| line.strip_prefix(b"oom_kill "))?;
    whole_number(value.trim_ascii_end())
}

/// The smallest memory limit on the way from this process's own cgroup to the root, in bytes. `None`: no limit, or no
/// cgroups to be seen. `root` is `""` for the real system.
pub fn container_limit(root: &str) -> Option<u64> {
    look_up::<Smallest>(root).0
}

/// How full the container is, by the group that is nearest to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// In bytes.
    pub limit: u64,
    /// What is charged, in bytes, without what the kernel gives up easily.
    pub used: u64,
    /// The same without all that it gives up when it has to.
    pub needed: u64,
}

impl Filling {
    pub fn free(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// What is left until the kernel has to kill.
    pub fn left(self) -> u64 {
        self.limit.saturating_sub(self.needed)
    }
}

/// How full the container is: `memory.current` less what can be reclaimed at once, or what version 1 calls so; and where that is
/// counted. `None` where there is no limit, or it cannot be read.
pub fn filling(root: &str) -> Option<(Filling, UsageCounter)> {
    look_up::<Fullest>(root).0
}

/// Where the kernel counts what is charged to the container, with what it would give up.
pub struct UsageCounter(Fd);

impl UsageCounter {
    fn open(directory: &Path, version: Version) -> Option<UsageCounter> {
        let mut path = *directory;
        path.push(match version {
            Version::V1 => "/memory.usage_in_bytes",
            Version::V2 => "/memory.current",
        });
        open_to_read(c_str(&mut path)).map(UsageCounter)
    }

    /// In bytes.
    pub fn read(&self) -> Option<u64> {
        let mut content = [0; 32];
        let len = self.0.read_at_start(&mut content);
        whole_number(content.get(..len)?.trim_ascii())
    }
}

#[derive(Default)]
struct Fullest(Option<(Filling, UsageCounter)>);

impl Findings for Fullest {
    fn look(&mut self, directory: &Path, version: Version) -> bool {
        let mut smallest = Smallest::default();
        let has_file = smallest.look(directory, version);
        let read = |limit| {
            let counter = UsageCounter::open(directory, version)?;
            let charged = counter.read()?;
            let mut path = *directory;
            path.push_bytes(b"/memory.stat");
            let mut buffer = [0; 512];
            let mut lines = Lines::open(c_str(&mut path), &mut buffer)?;
            let mut stat = Stat::default();
            while let Some(line) = lines.next() {
                stat.note(line, version);
            }
            let [easily, at_all] = stat.reclaimable();
            let filling = Filling {
                limit,
                used: charged.saturating_sub(easily),
                needed: charged.saturating_sub(at_all),
            };
            Some((filling, counter))
        };
        let least = self.0.as_ref().map_or(u64::MAX, |(filling, _)| filling.free());
        if let Some(found) = smallest.0.and_then(read).filter(|(filling, _)| filling.free() < least) {
            self.0 = Some(found);
        }
        has_file
    }
}

/// What of `memory.stat` tells how much the kernel would give up: pages of files, half of those that are in use. What has to be
/// written first counts as well: whoever needs memory waits until it is.
#[derive(Default)]
struct Stat {
    inactive_file: u64,
    active_file: u64,
    slab: u64,
}

impl Stat {
    fn note(&mut self, line: &[u8], version: Version) {
        let mut words = parts(line, b' ');
        let (Some(key), Some(value)) = (words.next(), words.next().and_then(whole_number)) else { return };
        let key = match version {
            Version::V1 => key.strip_prefix(b"total_").unwrap_or_default(),
            Version::V2 => key,
        };
        match key {
            b"inactive_file" => self.inactive_file = value,
            b"active_file" => self.active_file = value,
            b"slab_reclaimable" => self.slab = value,
            _ => {}
        }
    }

    /// Easily, and at all.
    fn reclaimable(&self) -> [u64; 2] {
        [self.active_file / 2, self.active_file]
            .map(|active| self.inactive_file.saturating_add(active).saturating_add(self.slab))
    }
}

/// What is gathered on the way from this process's own cgroup to the root.
pub trait Findings: Default {
    /// Looks into the directory of a group; whether it has a limit's file.
    fn look(&mut self, directory: &Path, version: Version) -> bool;
}

#[derive(Default)]
struct Smallest(Option<u64>);

impl Findings for Smallest {
    fn look(&mut self, directory: &Path, version: Version) -> bool {
        let mut has_file = false;
        for name in version.limit_files() {
            let mut path = *directory;
            path.push_bytes(name);
            if let Some(file) = open_to_read(c_str(&mut path)) {
                has_file = true;
                self.0 = smaller(self.0, read_limit(&file, version));
            }
        }
        has_file
    }
}

/// Looks into every group with the memory controller from this process's own up to the root, as far as they are mounted.
pub fn look_up<F: Findings>(root: &str) -> F {
    let own = own_groups(root);
    if let Some((point, below, version)) = usual_place(root, &own) {
        let mut findings = F::default();
        if way_up(&point, below, version, &mut findings) {
            return findings;
        }
    }
    let mut findings = F::default();
    let mut mounted = false;
    let mut path = prefixed(root, b"/proc/self/mountinfo");
    let mut buffer = [0; PATH_BYTES];
    if let Some(mut mounts) = Lines::open(c_str(&mut path), &mut buffer) {
        while let Some(line) = mounts.next() {
            let Some(mount) = Mount::parse(line) else { continue };
            let Some(group) = own.path_in(mount.version) else { continue };
            mounted = true;
            let mut directory = prefixed(root, &[]);
            push_unescaped(&mut directory, mount.point);
            let mut mount_root = Path::new();
            push_unescaped(&mut mount_root, mount.root);
            let below = below_mount(group, mount_root.as_bytes());
            way_up(&directory, below, mount.version, &mut findings);
        }
    }
    if !mounted {
        // No mountinfo, as with a /proc of another kind: the places where everybody mounts them.
        for version in [Version::V2, Version::V1] {
            let below = own.path_in(version).unwrap_or(&[]);
            let point = prefixed(root, version.usual_mount_point());
            way_up(&point, below, version, &mut findings);
        }
    }
    findings
}

/// The mount point and the path below it, where the hierarchy that has the memory controller is mounted as nearly
/// everywhere. If this process's own group has a limit's file there, mountinfo would say the same, for 70 µs more of
/// start-up; it has none where only a part of the hierarchy is mounted. A controller that version 1 has is not in
/// version 2.
fn usual_place<'a>(root: &str, own: &'a OwnGroups) -> Option<(Path, &'a [u8], Version)> {
    let version = if own.v1.is_some() { Version::V1 } else { Version::V2 };
    let below = below_mount(own.path_in(version)?, b"/");
    Some((prefixed(root, version.usual_mount_point()), below, version))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    fn usual_mount_point(self) -> &'static [u8] {
        match self {
            Version::V1 => b"/sys/fs/cgroup/memory",
            Version::V2 => b"/sys/fs/cgroup",
        }
    }

    fn limit_files(self) -> &'static [&'static [u8]] {
        match self {
            Version::V1 => &[b"/memory.limit_in_bytes"],
            Version::V2 => &[b"/memory.max", b"/memory.high"],
        }
    }
}

/// The paths of this process's groups, as `/proc/self/cgroup` names them.
struct OwnGroups {
    v1: Option<Path>,
    v2: Option<Path>,
}

impl OwnGroups {
    fn path_in(&self, version: Version) -> Option<&[u8]> {
        match version {
            Version::V1 => self.v1.as_ref().map(Path::as_bytes),
            Version::V2 => self.v2.as_ref().map(Path::as_bytes),
        }
    }
}

fn own_groups(root: &str) -> OwnGroups {
    let mut own = OwnGroups { v1: None, v2: None };
    let mut path = prefixed(root, b"/proc/self/cgroup");
    let mut buffer = [0; PATH_BYTES];
    let Some(mut lines) = Lines::open(c_str(&mut path), &mut buffer) else { return own };
    while let Some(line) = lines.next() {
        // hierarchy-ID:controller,controller:path, where the path itself may hold colons.
        let mut fields = parts(line, b':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.rest())
        else {
            continue;
        };
        if hierarchy == b"0" && controllers.is_empty() {
            own.v2 = Some(Path::from_bytes(path));
        } else if parts(controllers, b',').any(|name| name == b"memory") {
            own.v1 = Some(Path::from_bytes(path));
        }
    }
    own
}

/// One line of mountinfo (proc_pid_mountinfo(5)) that mounts a hierarchy with the memory controller.
struct Mount<'a> {
    version: Version,
    /// Which directory of the hierarchy is mounted.
    root: &'a [u8],
    /// Where.
    point: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Mount<'a>> {
        // ID parent device root point options [optional fields] - type source super-options
        let mut fields = parts(line, b' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        fields.find(|field| *field == b"-")?;
        let version = match fields.next()? {
            b"cgroup2" => Version::V2,
            b"cgroup" => {
                let options = fields.nth(1)?;
                parts(options, b',').find(|option| *option == b"memory")?;
                Version::V1
            }
            _ => return None,
        };
        Some(Mount { version, root, point })
    }
}

/// The part of `group` below the directory that is mounted; empty where the two do not fit, as the mount point is
/// then the nearest group that can be seen.
fn below_mount<'a>(group: &'a [u8], mount_root: &[u8]) -> &'a [u8] {
    // A group outside the cgroup namespace shows as /../…
    if group.starts_with(b"/..") {
        return &[];
    }
    let below = match mount_root {
        b"/" => group,
        _ => group.strip_prefix(mount_root).unwrap_or(&[]),
    };
    if below == b"/" || !below.starts_with(b"/") { &[] } else { below }
}

/// Looks into `mount_point/below` and each directory above it, up to the mount point. Whether the first of them, the
/// group itself, has a limit's file.
fn way_up(mount_point: &Path, below: &[u8], version: Version, findings: &mut impl Findings) -> bool {
    let mut directory = *mount_point;
    directory.push_bytes(below);
    if directory.is_cut() {
        directory = *mount_point;
    }
    let starts_at_group = findings.look(&directory, version);
    while directory.len() > mount_point.len() {
        let parent = last_position(directory.as_bytes(), b'/').unwrap_or(0);
        directory.truncate(parent.max(mount_point.len()));
        findings.look(&directory, version);
    }
    starts_at_group
}

fn read_limit(file: &Fd, version: Version) -> Option<u64> {
    let mut content = [0u8; 32];
    let len = file.read(&mut content);
    parse_limit(content.get(..len)?, version)
}

pub fn parse_limit(content: &[u8], version: Version) -> Option<u64> {
    let bytes = whole_number(content.trim_ascii_end())?;
    match version {
        Version::V1 if bytes >= V1_UNLIMITED => None,
        _ => Some(bytes),
    }
}

fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

fn prefixed(root: &str, path: &[u8]) -> Path {
    let mut full = Path::from_bytes(root.as_bytes());
    full.push_bytes(path);
    full
}

/// The path as the C library wants it; the empty path, which opens nothing, where it does not fit.
fn c_str(path: &mut Path) -> &CStr {
    path.push_bytes(&[0]);
    if path.is_cut() {
        return c"";
    }
    CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or(c"")
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn push_unescaped(path: &mut Path, escaped: &[u8]) {
    let mut rest = escaped;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                path.push_bytes(&[(a - b'0') * 64 + (b - b'0') * 8 + (c - b'0')]);
                rest = tail;
            }
            _ => path.push_bytes(&[*first]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A recorded host: the two files of /proc and the files of its cgroup tree.
    struct Host(PathBuf);

    impl Host {
        fn new(name: &str, cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> Host {
            let root = std::env::temp_dir().join(format!("oomguard-host-{}-{name}", std::process::id()));
            let put = |path: &str, content: &str| {
                let path = root.join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            };
            put("/proc/self/cgroup", cgroup);
            put("/proc/self/mountinfo", mountinfo);
            for (path, content) in files {
                put(path, content);
            }
            Host(root)
        }

        fn limit(&self) -> Option<u64> {
            container_limit(self.0.to_str().unwrap())
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    const V2_MOUNT: &str = "\
22 27 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
29 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
27 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
";
    const HYBRID_MOUNTS: &str = "\
25 20 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/memory rw,relatime shared:11 - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:12 - cgroup cgroup rw,cpu,cpuacct
";
    const UNLIMITED_V1: &str = "9223372036854771712\n";

    #[test]
    fn v2_in_a_container_with_its_own_namespace() {
        let host = Host::new(
            "v2-container",
            "0::/\n",
            V2_MOUNT,
            &[("/sys/fs/cgroup/memory.max", "536870912\n"), ("/sys/fs/cgroup/memory.high", "max\n")],
        );
        assert_eq!(host.limit(), Some(536_870_912));
    }

    #[test]
    fn v2_nested_takes_the_smallest_on_the_way_up_and_high_counts() {
        let host = Host::new(
            "v2-nested",
            "0::/system.slice/app.service/worker\n",
            V2_MOUNT,
            &[
                ("/sys/fs/cgroup/system.slice/app.service/worker/memory.max", "max\n"),
                ("/sys/fs/cgroup/system.slice/app.service/worker/memory.high", "300000000\n"),
                ("/sys/fs/cgroup/system.slice/app.service/memory.max", "400000000\n"),
                ("/sys/fs/cgroup/system.slice/memory.max", "200000000\n"),
                ("/sys/fs/cgroup/other/memory.max", "1\n"),
            ],
        );
        assert_eq!(host.limit(), Some(200_000_000));
    }

    #[test]
    fn v2_without_a_limit_is_none() {
        let host = Host::new("v2-none", "0::/a\n", V2_MOUNT, &[("/sys/fs/cgroup/a/memory.max", "max\n")]);
        assert_eq!(host.limit(), None);
    }

    /// Nobody has to leave for it, and nobody is refused for it: the kernel writes it before it kills.
    #[test]
    fn pages_of_files_that_are_to_be_written_first_are_not_needed() {
        const STAT: &str = "active_file 300\ninactive_file 500\nfile_dirty 400\nfile_writeback 200\nslab_reclaimable 10\n\
            total_active_file 300\ntotal_inactive_file 500\ntotal_dirty 400\ntotal_writeback 200\n";
        for (name, cgroup, mounts, group, files, [used, needed]) in [
            ("v2-dirty", "0::/\n", V2_MOUNT, "", ["memory.max", "memory.current"], [340, 190]),
            (
                "v1-dirty",
                "4:memory:/a\n",
                HYBRID_MOUNTS,
                "/memory/a",
                ["memory.limit_in_bytes", "memory.usage_in_bytes"],
                [350, 200],
            ),
        ] {
            let path = |file| format!("/sys/fs/cgroup{group}/{file}");
            let [limit, usage, stat] = [files[0], files[1], "memory.stat"].map(path);
            let host =
                Host::new(name, cgroup, mounts, &[(&limit, "2000\n"), (&usage, "1000\n"), (&stat, STAT)]);
            let found = filling(host.0.to_str().unwrap()).map(|(found, _)| found);
            assert_eq!(
                found.map(|found| [found.limit, found.used, found.needed]),
                Some([2000, used, needed])
            );
        }
    }

    #[test]
    fn v1_in_docker_without_a_namespace() {
        let host = Host::new(
            "v1-docker",
            "11:memory:/docker/0123abcd\n3:cpu,cpuacct:/docker/0123abcd\n",
            "622 621 0:33 /docker/0123abcd /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n",
            &[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n")],
        );
        assert_eq!(host.limit(), Some(268_435_456));
    }

    #[test]
    fn v1_unlimited_is_none() {
        let host = Host::new(
            "v1-unlimited",
            "4:memory:/user.slice\n",
            HYBRID_MOUNTS,
            &[
                ("/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes", UNLIMITED_V1),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED_V1),
            ],
        );
        assert_eq!(host.limit(), None);
    }

    #[test]
    fn hybrid_reads_memory_where_the_controller_is() {
        let host = Host::new(
            "hybrid",
            "4:memory:/jobs/7\n1:name=systemd:/x\n0::/x\n",
            HYBRID_MOUNTS,
            &[
                ("/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "1073741824\n"),
                ("/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "805306368\n"),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", UNLIMITED_V1),
                ("/sys/fs/cgroup/unified/x/cgroup.procs", ""),
            ],
        );
        assert_eq!(host.limit(), Some(805_306_368));
    }

    #[test]
    fn a_controller_name_must_match_whole() {
        let host = Host::new(
            "names",
            "4:hugetlb,memory2:/a\n",
            "27 25 0:24 / /m rw - cgroup cgroup rw,memory_recursive\n",
            &[("/m/a/memory.limit_in_bytes", "1000\n")],
        );
        assert_eq!(host.limit(), None);
    }

    #[test]
    fn a_group_outside_the_namespace_falls_back_to_the_mount_point() {
        let host = Host::new(
            "outside",
            "0::/../../elsewhere\n",
            V2_MOUNT,
            &[("/sys/fs/cgroup/memory.max", "7777\n"), ("/elsewhere/memory.max", "1\n")],
        );
        assert_eq!(host.limit(), Some(7777));
    }

    #[test]
    fn mount_points_with_blanks_and_colons_in_paths() {
        let host = Host::new(
            "blanks",
            "0::/a:b\n",
            "29 22 0:26 / /odd\\040place\\134x rw - cgroup2 none rw\n",
            &[("/odd place\\x/a:b/memory.max", "4242\n")],
        );
        assert_eq!(host.limit(), Some(4242));
    }

    #[test]
    fn no_mountinfo_means_the_usual_places() {
        let host = Host::new("bare", "0::/a\n", "", &[("/sys/fs/cgroup/a/memory.max", "99\n")]);
        fs::remove_file(host.0.join("proc/self/mountinfo")).unwrap();
        assert_eq!(host.limit(), Some(99));
        fs::remove_file(host.0.join("proc/self/cgroup")).unwrap();
        assert_eq!(host.limit(), None);
    }

    #[test]
    fn malformed_and_huge_files_do_no_harm() {
        let long = "x".repeat(100_000);
        let mut mounts =
            String::from("\n- - -\n1 2 3\n29 22 0:26 /\n29 22 0:26 / /sys/fs/cgroup rw cgroup2\n");
        for i in 0..5000 {
            mounts.push_str(&format!(
                "{i} 1 0:9 / /var/lib/docker/overlay2/{i}/merged rw - overlay overlay {long:.300}\n"
            ));
        }
        mounts.push_str(&format!("1 1 0:9 / /{long} rw - overlay overlay rw\n"));
        mounts.push_str(V2_MOUNT);
        let cgroup = format!("::\n:\nnonsense\n5:cpu\n{long}\n0::/a/b\n");
        let deep = "/sys/fs/cgroup/a/b/memory.max";
        for (content, limit) in [
            ("123456\n", Some(123_456)),
            ("", None),
            ("\n", None),
            ("-1\n", None),
            ("12x\n", None),
            ("99999999999999999999\n", None),
            (long.as_str(), None),
        ] {
            let host = Host::new("malformed", &cgroup, &mounts, &[(deep, content)]);
            assert_eq!(host.limit(), limit, "{content:.20}");
        }
    }

    #[test]
    fn an_unusual_mount_is_found_where_the_usual_place_does_not_show_the_group() {
        let host = Host::new(
            "unusual",
            "0::/a/b\n",
            "29 22 0:26 / /elsewhere rw - cgroup2 cgroup2 rw\n",
            &[("/elsewhere/a/b/memory.max", "321\n"), ("/sys/fs/cgroup/memory.max", "1\n")],
        );
        assert_eq!(host.limit(), Some(321));
    }

    #[test]
    fn a_path_too_long_to_build_is_left_out() {
        let host = Host::new(
            "long",
            &format!("0::/{}\n", "d/".repeat(2040)),
            V2_MOUNT,
            &[("/sys/fs/cgroup/memory.max", "5\n")],
        );
        assert_eq!(host.limit(), Some(5));
    }

    #[test]
    fn kills_are_counted_where_the_version_counts_them() {
        let v2 = "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(parse_kills(v2.as_bytes()), Some(2));
        assert_eq!(parse_kills(b"oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(parse_kills(b"oom_kill_disable 0\nunder_oom 0\n"), None);
        let host = Host::new("kills", "0::/a\n", V2_MOUNT, &[("/sys/fs/cgroup/a/memory.events", v2)]);
        let counter = kill_counter(host.0.to_str().unwrap()).unwrap();
        assert_eq!((counter.read(), counter.name), (Some(2), "memory.events"));
    }

    #[test]
    fn the_limit_files_are_parsed_by_version() {
        assert_eq!(parse_limit(b"max\n", Version::V2), None);
        assert_eq!(parse_limit(b"0\n", Version::V2), Some(0));
        assert_eq!(parse_limit(b"9223372036854771712\n", Version::V2), Some(9_223_372_036_854_771_712));
        assert_eq!(parse_limit(b"9223372036854771712\n", Version::V1), None);
        assert_eq!(parse_limit(b"-1\n", Version::V1), None);
    }
}
