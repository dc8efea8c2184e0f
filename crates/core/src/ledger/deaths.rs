//! Those who ended last for want of memory.

use super::row::{load_name, store_name};
use super::{ANY, Ledger};
use crate::text::Text;
use core::sync::atomic::AtomicU64;

/// So many deaths are remembered.
pub const DEATHS: usize = 8;

/// Somebody who ended out of memory.
#[repr(C)]
pub(super) struct Death {
    pid: AtomicU64,
    /// In seconds since 1970.
    at: AtomicU64,
    held: AtomicU64,
    /// What it asked for, in bytes, plus one; zero for nothing.
    wanted: AtomicU64,
    name: [AtomicU64; 2],
}

/// One of the last deaths, as somebody noted it.
#[derive(Clone, Copy)]
pub struct Died {
    pub pid: u32,
    pub name: Text<16>,
    /// In seconds since 1970.
    pub at: u64,
    pub held: u64,
    pub wanted: Option<u64>,
}

impl Ledger {
    /// A process ends out of memory.
    pub fn note_death(&self, pid: u32, held: u64, wanted: Option<u64>, at: u64, name: &[u8]) {
        let place = self.head.died.fetch_add(1, ANY) as usize % DEATHS;
        let Some(death) = self.deaths.get(place) else { return };
        death.pid.store(0, ANY);
        death.at.store(at, ANY);
        death.held.store(held, ANY);
        death.wanted.store(wanted.map_or(0, |wanted| wanted.saturating_add(1)), ANY);
        store_name(&death.name, name);
        death.pid.store(pid.into(), ANY);
    }

    /// The last deaths, the first of them first.
    pub fn last_deaths(&self) -> impl Iterator<Item = Died> {
        let next = self.head.died.load(ANY) as usize;
        (next..next + DEATHS).filter_map(|place| {
            let death = self.deaths.get(place % DEATHS)?;
            let pid = u32::try_from(death.pid.load(ANY)).ok().filter(|pid| *pid != 0)?;
            Some(Died {
                pid,
                name: load_name(&death.name),
                at: death.at.load(ANY),
                held: death.held.load(ANY),
                wanted: death.wanted.load(ANY).checked_sub(1),
            })
        })
    }
}
