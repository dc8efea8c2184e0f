//! What the host wants run: records `key=value`, each ended by a NUL byte, so that
//! arguments may hold anything. The host's side of this is `Pod::order`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file to write: its path, its new content, and for the pod's own cgroup files when.
pub struct Change {
    pub file: String,
    pub value: String,
    pub at: Duration,
    /// The value is a number of bytes, and waits until the pod uses less.
    pub once_it_fits: bool,
}

#[derive(Default)]
pub struct Order {
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub workdir: PathBuf,
    pub memory_max: String,
    pub oom_group: String,
    pub overcommit: String,
    pub user: Option<(u32, u32)>,
    pub capabilities: String,
    pub timeout: Duration,
    pub guest_writes: Vec<Change>,
    pub changes: Vec<Change>,
}

impl Order {
    pub fn read(path: &Path) -> Result<Order, String> {
        let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let mut order = Order::default();
        for record in bytes.split(|&byte| byte == 0).filter(|r| !r.is_empty()) {
            order
                .take(record)
                .ok_or_else(|| format!("the order holds '{}'", String::from_utf8_lossy(record)))?;
        }
        if order.arguments.is_empty() {
            return Err("the order holds no command".to_owned());
        }
        Ok(order)
    }

    /// `None`: not a record of this grammar.
    fn take(&mut self, record: &[u8]) -> Option<()> {
        let (key, value) = split(record, b'=')?;
        let text = || String::from_utf8(value.to_vec()).ok();
        match key {
            b"arg" => self.arguments.push(os(value)),
            b"env" => {
                let (name, value) = split(value, b'=')?;
                self.environment.push((os(name), os(value)));
            }
            b"workdir" => self.workdir = os(value).into(),
            b"memory.max" => self.memory_max = text()?,
            b"memory.oom.group" => self.oom_group = text()?,
            b"overcommit" => self.overcommit = text()?,
            b"user" => {
                let text = text()?;
                let (uid, gid) = text.split_once(':')?;
                self.user = Some((uid.parse().ok()?, gid.parse().ok()?));
            }
            b"caps" => self.capabilities = text()?,
            b"timeout_ms" => self.timeout = milliseconds(&text()?)?,
            b"write" => self.guest_writes.push(change(&text()?, Duration::ZERO)?),
            b"change" | b"change_once_it_fits" => {
                let text = text()?;
                let (at, rest) = text.split_once(':')?;
                let once_it_fits = key == b"change_once_it_fits";
                self.changes.push(Change { once_it_fits, ..change(rest, milliseconds(at)?)? });
            }
            _ => return None,
        }
        Some(())
    }
}

fn change(text: &str, at: Duration) -> Option<Change> {
    let (file, value) = text.split_once('=')?;
    let (file, value) = (file.to_owned(), value.to_owned());
    Some(Change { file, value, at, once_it_fits: false })
}

fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = bytes.iter().position(|&byte| byte == at)?;
    Some((&bytes[..i], &bytes[i + 1..]))
}

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}
