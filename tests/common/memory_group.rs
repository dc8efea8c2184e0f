//! A control group with a limit for memory, where this process may make one: of version 1, as root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Removed when dropped, once nobody is in it.
pub struct Group(PathBuf);

impl Group {
    pub fn new(name: &str, limit: &str) -> Result<Group, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = groups
            .lines()
            .find_map(|line| line.split_once(":memory:"))
            .ok_or("no memory controller of cgroup version 1")?
            .1;
        let directory = Path::new("/sys/fs/cgroup/memory")
            .join(own.trim_start_matches('/'))
            .join(format!("oomguard-{name}-{}", std::process::id()));
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let group = Group(directory);
        fs::write(group.0.join("memory.limit_in_bytes"), limit).map_err(|error| error.to_string())?;
        Ok(group)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
