//! Who holds what of which budget on this machine, as far as this user may see it: read from the ledgers that processes have
//! open or mapped. Nothing is written to them.

use super::printable;
use super::sharing::read;
use super::sys;
use crate::ledger::{Ledger, Row};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A budget, and those who share it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Shares {
    /// What all may have together, in bytes.
    pub budget: u64,
    /// What of it may be leased, in bytes: less than all of it where the container has no room for more.
    pub permitted: u64,
    /// All leases together, in bytes.
    pub leased: u64,
    /// The limit of the container in bytes, if it has one.
    pub container: Option<u64>,
    /// What is in use there that no lease covers, in bytes.
    pub uncovered: u64,
    /// How long a request waits, in milliseconds.
    pub patience_ms: u64,
    /// The pid of the launcher or supervisor that looks after it.
    pub keeper: Option<u32>,
    /// Those who share it, who has most first.
    pub processes: Vec<Share>,
    /// Those who ended last for want of memory.
    pub deaths: Vec<Dead>,
}

/// A process that shares a budget.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Share {
    /// Its number.
    pub pid: u32,
    /// Its program's name.
    pub name: String,
    /// Its command line, fit for a terminal.
    pub command: String,
    /// What it holds, in bytes, that of others included where it was forked.
    pub resident: u64,
    /// What it may have for now, in bytes.
    pub lease: u64,
    /// How long it has been waiting, in milliseconds.
    pub waiting_ms: Option<u64>,
    /// What it waits for, or was refused last, in bytes.
    pub wanted: Option<u64>,
    /// How often it was refused.
    pub refusals: u64,
    /// It cannot ask: it is charged for what it is found to hold.
    pub is_outside: bool,
}

/// A process that ended out of memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dead {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// What it held, in bytes.
    pub held: u64,
    /// What it asked for.
    pub wanted: Option<u64>,
}

/// All budgets that can be seen from here.
pub fn budgets_here() -> Vec<Shares> {
    let mut found: BTreeMap<u64, (PathBuf, u32)> = BTreeMap::new();
    sys::proc::for_each(|pid| {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        for descriptor in descriptors.flatten() {
            let is_ledger = std::fs::read_link(descriptor.path())
                .is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"/memfd:oomguard-ledger"));
            if is_ledger && let Ok(file) = std::fs::metadata(descriptor.path()) {
                found.entry(file.ino()).or_insert((descriptor.path(), pid));
            }
        }
    });
    found.into_values().filter_map(|(path, keeper)| Some(shares(&*read(&path)?, keeper))).collect()
}

fn shares(ledger: &Ledger, keeper: u32) -> Shares {
    let (container, uncovered) = ledger.container();
    let mut processes: Vec<Share> = ledger.taken_rows().filter_map(share).collect();
    processes.sort_by_key(|share| std::cmp::Reverse((share.lease, share.resident)));
    Shares {
        budget: ledger.budget(),
        permitted: ledger.permitted(),
        leased: ledger.leased(),
        container,
        uncovered,
        patience_ms: ledger.patience_ms(),
        keeper: Some(keeper),
        processes,
        deaths: ledger
            .last_deaths()
            .map(|death| Dead {
                pid: death.pid,
                name: printable(&String::from_utf8_lossy(death.name.as_bytes())),
                at: death.at,
                held: death.held,
                wanted: death.wanted,
            })
            .collect(),
    }
}

fn share(row: &Row) -> Option<Share> {
    let pid = row.id()?.pid();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(command.strip_suffix(b"\0").unwrap_or(&command)).replace('\0', " ");
    Some(Share {
        pid,
        name: printable(&String::from_utf8_lossy(row.name().as_bytes())),
        command: printable(&command),
        resident: sys::memory::memory_use_of(pid).held().unwrap_or(row.held()),
        lease: row.lease(),
        waiting_ms: row.waiting_ms(sys::clock::monotonic_ms()),
        wanted: Some(row.wanted()).filter(|wanted| *wanted != 0),
        refusals: row.refusals(),
        is_outside: row.is_outside(),
    })
}
