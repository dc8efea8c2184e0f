//! Call stacks, without an allocation, a lock or a fault: from the unwind tables of the loaded files, whose answers are
//! kept per return address; by frame pointers where there are none.
//!
//! What a step needs (where the caller's frame is, and where it keeps its caller's registers) depends on the return
//! address alone. It is worked out once, from `.eh_frame` (LSB core, 10.6; DWARF 5, 6.4), and kept in one word.

#[cfg(test)]
mod against_gimli;
mod files;
mod frame_rules;

pub(super) use files::Files;

use core::sync::atomic::{AtomicU64, Ordering};
use frame_rules::{Rule, rule_for};
use oomguard_core::profile::MAX_FRAMES;
use oomguard_core::sys;

/// The rules of the return addresses met so far. A slot's two words belong together if their XOR is the address: a
/// slot that two threads wrote at once fits neither address, so no ordering is needed.
#[repr(C, align(64))]
pub(super) struct Rules {
    sets: [[[AtomicU64; 2]; WAYS]; SETS],
}

/// Slots in which an address may be: together a cache line.
const WAYS: usize = 4;
const SETS: usize = 512;

impl Rules {
    fn find(&self, pc: usize) -> Option<Rule> {
        self.sets.get(set_of(pc))?.iter().find_map(|[key, rule]| {
            let (key, rule) = (key.load(Ordering::Relaxed), rule.load(Ordering::Relaxed));
            if key ^ rule == pc as u64 { Rule::decode(rule) } else { None }
        })
    }

    fn keep(&self, pc: usize, rule: Rule) {
        let Some(set) = self.sets.get(set_of(pc)) else { return };
        let free = set.iter().find(|[key, _]| key.load(Ordering::Relaxed) == 0);
        // In a full set the address decides which other one has to go.
        if let Some([key, word]) = free.or_else(|| set.get(pc % WAYS)) {
            let rule = rule.encode();
            word.store(rule, Ordering::Relaxed);
            key.store(pc as u64 ^ rule, Ordering::Relaxed);
        }
    }
}

fn set_of(pc: usize) -> usize {
    ((pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize % SETS
}

/// The registers from which a walk starts.
#[derive(Clone, Copy)]
pub struct Registers {
    pub(super) pc: usize,
    pub sp: usize,
    pub(super) fp: usize,
    /// The return address, where the architecture keeps it in a register.
    pub(super) link: usize,
}

/// The registers at the place of the call, which is inlined.
#[inline(always)]
pub(super) fn here() -> Registers {
    let (pc, sp, fp, link): (usize, usize, usize, usize);
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: reads three registers, and touches neither memory nor flags.
        unsafe {
            core::arch::asm!("lea {pc}, [rip]", "mov {sp}, rsp", "mov {fp}, rbp", pc = out(reg) pc, sp = out(reg) sp,
                fp = out(reg) fp, options(nomem, nostack, preserves_flags));
        }
        link = 0;
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: reads four registers, and touches neither memory nor flags.
        unsafe {
            core::arch::asm!("adr {pc}, .", "mov {sp}, sp", "mov {fp}, x29", "mov {link}, x30", pc = out(reg) pc,
                sp = out(reg) sp, fp = out(reg) fp, link = out(reg) link, options(nomem, nostack, preserves_flags));
        }
    }
    Registers { pc, sp, fp, link }
}

/// The registers of the thread that a signal handler has interrupted.
///
/// # Safety
/// `context` is the third argument of a signal handler that was installed with SA_SIGINFO.
pub unsafe fn interrupted(context: *mut libc::c_void) -> Registers {
    // SAFETY: by contract it points to a ucontext_t for as long as the handler runs.
    let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    {
        let register = |number: i32| machine.gregs.get(number as usize).map_or(0, |value| *value as usize);
        Registers {
            pc: register(libc::REG_RIP),
            sp: register(libc::REG_RSP),
            fp: register(libc::REG_RBP),
            link: 0,
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let register = |number: usize| machine.regs.get(number).map_or(0, |value| *value as usize);
        Registers { pc: machine.pc as usize, sp: machine.sp as usize, fp: register(29), link: register(30) }
    }
}

/// Has that thread go on at the beginning of `function`, on the stack that it was on.
///
/// # Safety
/// As for `interrupted`; and nothing may rely on where the thread was.
pub(super) unsafe fn divert(context: *mut libc::c_void, function: extern "C" fn() -> !) {
    // SAFETY: by contract it points to a ucontext_t for as long as the handler runs.
    let machine = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    let start = function as *const () as usize;
    #[cfg(target_arch = "x86_64")]
    {
        /// What a function may keep below its stack pointer (System V ABI, 3.2.2).
        const RED_ZONE: i64 = 128;
        let registers = &mut machine.gregs;
        if let Some(sp) = registers.get_mut(libc::REG_RSP as usize) {
            // As after a call: a return address below what is aligned.
            *sp = ((*sp - RED_ZONE) & !15) - 8;
        }
        if let Some(pc) = registers.get_mut(libc::REG_RIP as usize) {
            *pc = start as i64;
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        machine.pc = start as u64;
    }
}

/// Whether the unwind tables say how to leave the function that `pc` is in.
pub(super) fn is_described(pc: usize, files: &Files) -> bool {
    files.find(pc).and_then(|file| rule_for(pc, &file)).is_some_and(|rule| rule != Rule::NoTable)
}

/// A stack: return addresses from the innermost caller outwards.
pub(super) struct Stack {
    frames: [u64; MAX_FRAMES],
    len: usize,
    /// It goes on, beyond what is kept.
    pub(super) is_cut: bool,
    pub(super) steps: Steps,
}

impl Stack {
    pub(super) fn frames(&self) -> &[u64] {
        self.frames.get(..self.len).unwrap_or(&[])
    }

    fn push(&mut self, pc: usize) -> bool {
        match self.frames.get_mut(self.len) {
            Some(slot) => {
                *slot = pc as u64;
                self.len += 1;
                true
            }
            None => {
                self.is_cut = true;
                false
            }
        }
    }
}

/// Walks outwards from `registers`, whose own function is left out, and keeps the stack. Async-signal-safe.
pub(super) fn walk(registers: Registers, rules: &Rules, files: &Files) -> Stack {
    let mut stack = Stack { frames: [0; MAX_FRAMES], len: 0, is_cut: false, steps: Steps::default() };
    let steps = visit(registers, Some(rules), files, |pc| stack.push(pc));
    Stack { steps, ..stack }
}

/// How a walk went.
#[derive(Clone, Copy, Default)]
pub(super) struct Steps {
    /// Steps by the unwind tables, and by frame pointers.
    pub(super) by_table: u64,
    pub(super) by_pointer: u64,
    /// An address that is in no file known so far.
    pub(super) met_unknown: bool,
}

/// Walks outwards from `registers`, whose own function is left out: `on_frame` gets each return address, and says
/// whether to go on. Without `rules` each step is worked out anew. Async-signal-safe.
pub(super) fn visit(
    mut registers: Registers,
    rules: Option<&Rules>,
    files: &Files,
    mut on_frame: impl FnMut(usize) -> bool,
) -> Steps {
    let mut steps = Steps::default();
    let mut memory = ReadableStack { page: registers.sp & !(PAGE - 1) };
    let mut innermost = true;
    loop {
        let rule = rules.and_then(|rules| rules.find(registers.pc)).unwrap_or_else(|| {
            let rule = match files.find(registers.pc) {
                Some(file) => rule_for(registers.pc, &file).unwrap_or(Rule::NoTable),
                None => {
                    steps.met_unknown = true;
                    return Rule::NoTable;
                }
            };
            if let Some(rules) = rules {
                rules.keep(registers.pc, rule);
            }
            rule
        });
        let next = match rule {
            Rule::End => None,
            Rule::Frame(frame) => {
                let base = if frame.cfa_from_fp { registers.fp } else { registers.sp };
                let cfa = base.wrapping_add_signed(frame.cfa_offset);
                let saved = |memory: &mut ReadableStack, offset: isize| {
                    memory.word(registers.sp, cfa.wrapping_add_signed(offset))
                };
                let pc = match frame.return_offset {
                    Some(offset) => saved(&mut memory, offset),
                    // Only the innermost function can have it in the register still.
                    None if innermost => Some(registers.link),
                    None => None,
                };
                let fp = match frame.fp_offset {
                    Some(offset) => saved(&mut memory, offset),
                    None => Some(registers.fp),
                };
                steps.by_table += 1;
                // A frame is never empty; a function that has not built one yet may be innermost.
                let goes_outwards = cfa > registers.sp || innermost && cfa == registers.sp;
                pc.zip(fp).filter(|_| goes_outwards).map(|(pc, fp)| Registers { pc, sp: cfa, fp, link: 0 })
            }
            Rule::NoTable => {
                let fp = registers.fp;
                let outer = memory.word(registers.sp, fp);
                let pc = memory.word(registers.sp, fp.wrapping_add(8));
                steps.by_pointer += 1;
                // The register may hold anything: only what leads outwards and into code is believed.
                outer
                    .zip(pc)
                    .filter(|(outer, pc)| *outer > fp && files.find(without_signature(*pc)).is_some())
                    .map(|(outer, pc)| Registers { pc, sp: fp.wrapping_add(16), fp: outer, link: 0 })
            }
        };
        let Some(mut next) = next else { return steps };
        next.pc = without_signature(next.pc);
        if next.pc == 0 || !on_frame(next.pc) {
            return steps;
        }
        registers = next;
        innermost = false;
    }
}

/// Without what pointer authentication puts into the high bits on some machines.
fn without_signature(pc: usize) -> usize {
    if cfg!(target_arch = "aarch64") { pc & ((1 << 48) - 1) } else { pc }
}

/// The stack above some address, read only where it is known to be readable: a wrong rule must not be a fault.
struct ReadableStack {
    /// The page that was read last.
    page: usize,
}

const PAGE: usize = 4096;

impl ReadableStack {
    /// The word at `address`, which lies at `from` or above.
    fn word(&mut self, from: usize, address: usize) -> Option<usize> {
        if address < from || !address.is_multiple_of(8) {
            return None;
        }
        let page = address & !(PAGE - 1);
        if page != self.page {
            if !sys::memory::is_readable(address) {
                return None;
            }
            self.page = page;
        }
        // SAFETY: aligned, and in a page that this thread's stack pointer is in, or that was just found readable.
        Some(unsafe { (address as *const usize).read_volatile() })
    }
}

/// What these tables say of a return address, `into` bytes behind their beginning. They are a whole file: `.eh_frame_hdr`
/// first, and what it points to behind it.
#[cfg(fuzzing)]
pub fn fuzz(tables: &[u8], into: usize) {
    let start = tables.as_ptr() as usize;
    let file = files::File::at(start..start + tables.len(), start, tables.len());
    if let Some(rule) = rule_for(start.wrapping_add(into), &file) {
        assert!(matches!(Rule::decode(rule.encode()), Some(kept) if kept == rule || kept == Rule::NoTable));
    }
}
