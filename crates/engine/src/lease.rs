//! This process's part of a budget that it shares with others: its row in the ledger (`oomguard_core::ledger`). When the kernel
//! refuses, the soft limit may move only as far as the lease goes; so the question "may I have more?" is passed on to here.
//!
//! ```text
//!   no room ──▶ what the dead had ──▶ what others do not use ──▶ wait ──nothing moves──▶ who holds most is refused
//! ```
//! No allocation, and no lock of ours is held while it waits. It never waits past its patience, whoever else is dead.

use super::{filter, standing};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use oomguard_core::contract::Measure;
use oomguard_core::growth::{self, Grant, Growth, Looks, Use};
use oomguard_core::ledger::{Id, LEDGER_BYTES, Ledger, Row, Seen};
use oomguard_core::record;
use oomguard_core::report::Holder;
use oomguard_core::sys;
use oomguard_core::sys::fd::Fd;
use oomguard_core::sys::memfd::ASKS_FOR_THE_LEDGER;
use oomguard_core::sys::memory::memory_use;
use oomguard_core::sys::signals::Held;
use oomguard_core::text::Text;
use oomguard_core::wait::Wait;

static LEDGER: AtomicPtr<Ledger> = AtomicPtr::new(core::ptr::null_mut());

/// The place of this process's row, plus one, and above it the process that it is the row of: a child that is forked has
/// another one. Zero for none.
static ROW: AtomicU64 = AtomicU64::new(0);

/// How long the last request waited, in milliseconds, plus one; zero where none was refused for want of a lease.
static WAITED: AtomicU64 = AtomicU64::new(0);

/// When a mapping was refused after it had waited: monotonic milliseconds, zero for never.
static WAITED_IN_VAIN_AT_MS: AtomicU64 = AtomicU64::new(0);

/// What the soft limit leaves this process, where its lease leaves so much.
pub(super) fn soft_limit(soft: u64) -> u64 {
    ledger().map_or(soft, |ledger| growth::unasked(ledger, soft))
}

/// Opens the ledger that `OOMGUARD_LEDGER` names. Another user may not, and asks whoever keeps the record, which
/// `OOMGUARD_RECORD` names. Whether this process shares a budget.
pub(super) fn attach(value: Option<&[u8]>, record: Option<&[u8]>) -> bool {
    let Some(place) = value.and_then(record::from_variable) else { return false };
    let Some(pid) = place.pid else { return false };
    let is_it = |fd: &Fd| sys::memfd::sealed_inode(fd.number(), LEDGER_BYTES) == Some(place.inode);
    let ask = || {
        let record = record.and_then(record::from_variable)?;
        sys::memfd::ask_for(ASKS_FOR_THE_LEDGER, record.inode).filter(is_it)
    };
    let Some(fd) = sys::memfd::open_of(pid, place.fd).filter(is_it).or_else(ask) else { return false };
    let Some(start) = sys::memfd::map_for_ever(fd.number(), LEDGER_BYTES) else { return false };
    let at: *mut Ledger = start.cast();
    // SAFETY: a mapping of the ledger's size that is never unmapped and, being sealed, cannot shrink; its words are atomics,
    // so that others may write to it.
    let ledger = unsafe { &*at };
    if !ledger.is_one() || !has_its_numbers(ledger) {
        return false;
    }
    // Relaxed, here and below: written before `main`, or numbers that decide alone.
    LEDGER.store(at, Ordering::Relaxed);
    PROC_DEVICE.store(proc_device(), Ordering::Relaxed);
    // What it was started under lets a program start.
    let Some(row) = settle(ledger, sys::process::pid()) else { return false };
    // It may be a process that has become another program.
    let now_ms = sys::clock::monotonic_ms();
    ledger.note_left_behind(row, now_ms);
    ledger.note_given_back(row.lease(), now_ms);
    row.begin();
    row.set_name(&sys::process::thread_name());
    true
}

fn ledger() -> Option<&'static Ledger> {
    let at = LEDGER.load(Ordering::Relaxed);
    // SAFETY: null, or as in `attach`, which stored it.
    unsafe { at.as_ref() }
}

/// Whether this process shares a budget.
pub(super) fn is_shared() -> bool {
    ledger().is_some()
}

/// What all may have together, in bytes.
pub(super) fn budget() -> Option<u64> {
    ledger().map(Ledger::budget)
}

/// What this process may have of it for now, for whoever has moved a limit by it: see `Row::hold_lease`.
pub(super) fn hold() -> Option<u64> {
    row().map(Row::hold_lease)
}

/// What this process may have of it for now, in bytes.
pub(super) fn bytes() -> Option<u64> {
    row().map(Row::lease)
}

/// How long a thread of this process has been waiting for room, in milliseconds; `None`: none waits.
pub(super) fn waiting_ms() -> Option<u64> {
    known_row()?.waiting_ms(sys::clock::monotonic_ms())
}

/// The row of this process, which gets one with its first question.
fn row() -> Option<&'static Row> {
    let ledger = ledger()?;
    known_row().or_else(|| if filter::may_ask() { settle(ledger, sys::process::pid()) } else { None })
}

/// The row of this process, if it has one.
fn known_row() -> Option<&'static Row> {
    let known = ROW.load(Ordering::Relaxed);
    let is_own = known >> 32 == u64::from(sys::process::pid());
    ledger().filter(|_| is_own)?.row((known as u32).wrapping_sub(1) as usize)
}

/// Whether this process is to stand still for somebody who is there.
pub(super) fn is_to_stand_still() -> bool {
    known_row().and_then(Row::stands_still_for).is_some_and(growth::is_alive)
}

/// This process stands still when it is told to; or does not any more. False: it shares no budget, and is not told.
pub fn set_heeds_stillness(heeds: bool) -> bool {
    known_row().inspect(|row| row.set_heeds_stillness(heeds)).is_some()
}

/// In another namespace numbers are other processes.
fn has_its_numbers(ledger: &Ledger) -> bool {
    ledger.pid_namespace() == sys::process::pid_namespace()
}

/// The device that `/proc` was when the ledger was opened: each namespace has one of its own.
static PROC_DEVICE: AtomicU64 = AtomicU64::new(0);

fn proc_device() -> u64 {
    sys::fd::stat_of_path(c"/proc").map_or(0, |stat| stat.st_dev)
}

/// This process's number where the ledger's are. A child that was forked into another namespace still sees that one's `/proc`, as
/// long as it mounts none of its own.
fn number(ledger: &Ledger) -> Option<u32> {
    if has_its_numbers(ledger) {
        return Some(sys::process::pid());
    }
    let is_the_same = proc_device() == PROC_DEVICE.load(Ordering::Relaxed);
    if is_the_same { sys::proc::own_number() } else { None }
}

/// Finds this process's row, or takes one.
fn settle(ledger: &'static Ledger, pid: u32) -> Option<&'static Row> {
    let id = growth::id_of(number(ledger)?)?;
    let place = LOOKS.take_row(ledger, id)?;
    let row = ledger.row(place)?;
    if row.is_outside() {
        // A look was there first.
        row.begin();
    }
    row.set_name(&sys::process::thread_name());
    ROW.store(u64::from(pid) << 32 | (place as u64 + 1), Ordering::Relaxed);
    Some(row)
}

/// This process has started a program that cannot ask: it is looked at from now on, and not once it is found.
pub fn note_outside(pid: u32) {
    let Some(ledger) = ledger().filter(|ledger| filter::may_ask() && has_its_numbers(ledger)) else { return };
    let Some(life) = sys::proc::life_of(pid).filter(|life| life.is_alive) else { return };
    let Some(maker) = growth::id_of(sys::process::pid()) else { return };
    ledger.take_row_outside(Id::new(pid, life.start), sys::proc::name_of(pid).as_bytes(), maker);
}

/// This process, a child that was just forked, holds what its parent held: its parent is charged for that.
pub fn begin_in_child() {
    if !is_shared() || !filter::may_ask() {
        return;
    }
    WAITED.store(0, Ordering::Relaxed);
    let held = memory_use().of(Measure::Resident).unwrap_or(0);
    let parents = ROW.load(Ordering::Relaxed) as u32;
    let parent = ledger().and_then(|ledger| ledger.row(parents.wrapping_sub(1) as usize)).and_then(Row::id);
    if let Some(row) = row() {
        row.begin();
        row.set_name(&sys::process::thread_name());
        row.set_base(held, parent);
        row.note_held(held);
    }
}

/// How much this process may take without asking; `None`: it shares no budget. `pledged`: all that its threads were about to take
/// before it was looked what it uses.
pub(super) fn free(seen: Seen, pledged: u64) -> Option<u64> {
    let (ledger, row) = (ledger()?, row()?);
    let fresh = ledger.note_use(row, seen, sys::clock::monotonic_ms());
    let free = row.lease().saturating_sub(row.charge()).saturating_sub(fresh);
    Some(free.saturating_sub(pledged))
}

/// This thread is about to take so much by a call that no limit refuses: see `Row::pledge`. Dropped once the call has been made, or
/// will not be. A signal handler that jumped out meanwhile would leave the pledge for ever: there is none.
#[must_use]
pub(super) struct Pledge {
    bytes: u64,
    _held: Held,
}

impl Pledge {
    /// `None`: it shares no budget.
    pub(super) fn new(bytes: u64) -> Option<Pledge> {
        let row = row()?;
        let held = sys::signals::hold_back();
        row.pledge(bytes);
        Some(Pledge { bytes, _held: held })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        row().inspect(|row| row.end_pledge(self.bytes));
    }
}

/// All that its threads are about to take in that way.
pub(super) fn pledged() -> u64 {
    row().map_or(0, Row::pledged)
}

/// It has got shared memory, and is yet to use it.
pub(super) fn note_new_shared(bytes: u64) {
    row().inspect(|row| row.note_new_shared(bytes, sys::clock::monotonic_ms()));
}

/// It has room for code, little of which it will use.
pub(super) fn note_room_for_code(bytes: u64) {
    row().inspect(|row| row.note_room_for_code(bytes));
}

/// What it could have at most, with what nobody has: of what it is refused above that, the budget is the reason.
pub(super) fn most(held: u64) -> Option<u64> {
    let (ledger, row) = (ledger()?, row()?);
    let left = ledger.permitted().saturating_sub(ledger.leased());
    Some(held.saturating_add(row.lease().saturating_sub(row.charge())).saturating_add(left))
}

/// How much it may take, where it wants `wanted` more, and a little beside: the lease grows if there is room.
///
/// A signal handler that jumped out in between would leave what was claimed, and nobody here could claim anything any more.
pub(super) fn make_room(used: Use, wanted: u64) -> Option<Grant> {
    let _held = is_shared().then(sys::signals::hold_back);
    Some(Growth { ledger: ledger()?, row: row()?, looks: &LOOKS }.make_room(used, wanted))
}

/// When this process looked at what others had.
static LOOKS: Looks = Looks::new();

/// Lets another process go first that grows as well, and has more already, as long as the patience lasts: see
/// `Ledger::has_to_yield`. Whether there was one.
pub(super) fn yield_to_others(bytes: u64) -> bool {
    const PAUSE_MS: u64 = 8;
    let (Some(ledger), Some(row)) = (ledger(), row()) else { return false };
    let (mut request, mut yields) = (Wait::new(), false);
    while !standing::is_under_way() && request.yields(ledger, row, bytes, sys::clock::monotonic_ms()) {
        yields = true;
        LOOKS.take_from_the_dead(ledger);
        sys::clock::sleep_ms(PAUSE_MS);
    }
    request.end_to_yield(row, sys::clock::monotonic_ms());
    yields
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A block, which a program that does not get it may die of.
    Block,
    /// A mapping. Runtimes probe, and give back memory of their own when they are refused.
    Mapping,
}

/// Waits until there is room for `bytes`, which `again` asks for and finds out; false where it is to be refused after all.
pub(super) fn wait(bytes: u64, kind: Kind, again: &mut dyn FnMut() -> bool) -> bool {
    const LONGEST_PAUSE_MS: u64 = 16;
    let (Some(ledger), Some(row)) = (ledger(), row()) else { return false };
    WAITED.store(1, Ordering::Relaxed);
    let was_in_vain = WAITED_IN_VAIN_AT_MS.load(Ordering::Relaxed);
    let is_probe = kind == Kind::Mapping
        && was_in_vain != 0
        && sys::clock::monotonic_ms().saturating_sub(was_in_vain) < ledger.patience_ms().saturating_mul(10);
    let (mut request, mut pause_ms, mut got) = (Wait::new(), 1, false);
    while !standing::is_under_way()
        && request.goes_on(ledger, row, bytes, !is_probe, sys::clock::monotonic_ms())
    {
        sys::clock::sleep_ms(pause_ms);
        pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
        if again() {
            got = true;
            break;
        }
    }
    let now_ms = sys::clock::monotonic_ms();
    WAITED.store(request.waited_ms(now_ms) + 1, Ordering::Relaxed);
    if !got {
        row.note_refusal(bytes);
        if kind == Kind::Mapping && !is_probe {
            WAITED_IN_VAIN_AT_MS.store(now_ms.max(1), Ordering::Relaxed);
        }
    }
    request.end(ledger, row, !got && !is_probe, now_ms);
    REFUSED.store(!got, Ordering::Relaxed);
    got
}

/// Whether it was the budget that had no room for what was refused last.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Its own limit refused it something.
pub(super) fn acquit() {
    REFUSED.store(false, Ordering::Relaxed);
}

pub(super) fn has_refused() -> bool {
    REFUSED.load(Ordering::Relaxed)
}

/// Nobody here can ask any more, as a filter of the program's own, or a root directory without `/proc`, is in the way: a look
/// charges this process for what it holds, as it does with those in which nothing of ours runs.
pub(super) fn leave_it_to_a_look() {
    row().inspect(|row| row.set_outside());
}

/// How long the last request waited that the budget had no room for; `None`: there was none.
pub(super) fn waited_ms() -> Option<u64> {
    ledger().map(|_| WAITED.load(Ordering::Relaxed).saturating_sub(1))
}

/// Whether this process was asked to leave, a moment ago; then it does.
pub(super) fn leaves() -> bool {
    const MOMENT_MS: u64 = 1000;
    let asked = row().filter(|row| {
        let asked_ms = row.asked_to_leave_ms();
        asked_ms != 0 && sys::clock::monotonic_ms().saturating_sub(asked_ms) < MOMENT_MS
    });
    asked.inspect(|row| row.note_leaving()).is_some()
}

/// This process is about to be gone: nobody holds it.
pub(super) fn note_end() {
    row().inspect(|row| row.note_leaving());
}

/// All leases together.
pub(super) fn used() -> Option<u64> {
    ledger().map(Ledger::leased)
}

/// This process ends out of memory, without so many bytes.
pub(super) fn note_death(held: Option<u64>, wanted: Option<u64>) {
    if let Some(ledger) = ledger() {
        let (pid, at) = (sys::process::pid(), sys::clock::wall_clock_s());
        let name = row().map_or(Text::new(), Row::name);
        ledger.note_death(pid, held.unwrap_or(0), wanted, at, name.as_bytes());
    }
}

/// Those who hold most of the budget.
pub(super) fn greatest<const N: usize>() -> [Option<Holder>; N] {
    ledger().map_or([None; N], Ledger::greatest)
}
