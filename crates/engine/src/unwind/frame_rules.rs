//! What the unwind tables say of one return address: `.eh_frame_hdr`, a sorted table, points at descriptions in
//! `.eh_frame`, each a small program that says where the caller's frame is (LSB core, 10.6; DWARF 5, 6.4).

use super::files::File;
use oomguard_core::sys;

/// How to get from a function's frame to its caller's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    Frame(Frame),
    /// This function has no caller.
    End,
    /// Nothing is said, or nothing that fits here.
    NoTable,
}

/// Offsets in bytes; what they are relative to is the canonical frame address, the caller's stack pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// That address is relative to the frame pointer, not to the stack pointer.
    pub(super) cfa_from_fp: bool,
    pub(super) cfa_offset: isize,
    /// Where the return address is saved; `None`: it still is in its register.
    pub(super) return_offset: Option<isize>,
    /// Where the caller's frame pointer is saved; `None`: the register still holds it.
    pub(super) fp_offset: Option<isize>,
}

const FRAME: u64 = 1;
const END: u64 = 2;
const NO_TABLE: u64 = 3;
const CFA_FROM_FP: u64 = 1 << 2;
const RETURN_SAVED: u64 = 1 << 3;
const FP_SAVED: u64 = 1 << 4;

impl Rule {
    pub(super) fn encode(self) -> u64 {
        match self {
            Rule::End => END,
            Rule::NoTable => NO_TABLE,
            Rule::Frame(frame) => frame.encode().unwrap_or(NO_TABLE),
        }
    }

    pub(super) fn decode(word: u64) -> Option<Rule> {
        let field =
            |shift: u32, bits: u32| ((word << (64 - shift - bits)) as i64 >> (64 - bits)) as isize * 8;
        match word & 3 {
            FRAME => Some(Rule::Frame(Frame {
                cfa_from_fp: word & CFA_FROM_FP != 0,
                cfa_offset: field(40, 24),
                return_offset: (word & RETURN_SAVED != 0).then(|| field(8, 16)),
                fp_offset: (word & FP_SAVED != 0).then(|| field(24, 16)),
            })),
            END => Some(Rule::End),
            NO_TABLE => Some(Rule::NoTable),
            _ => None,
        }
    }
}

impl Frame {
    /// `None` where an offset is no multiple of a word, or too large: no compiler writes such.
    fn encode(self) -> Option<u64> {
        let field = |offset: isize, shift: u32, bits: u32| {
            let words = offset / 8;
            let fits = offset % 8 == 0 && words >= -(1 << (bits - 1)) && words < 1 << (bits - 1);
            fits.then_some((words as u64 & ((1 << bits) - 1)) << shift)
        };
        let mut word = FRAME | field(self.cfa_offset, 40, 24)?;
        if self.cfa_from_fp {
            word |= CFA_FROM_FP;
        }
        if let Some(offset) = self.return_offset {
            word |= RETURN_SAVED | field(offset, 8, 16)?;
        }
        if let Some(offset) = self.fp_offset {
            word |= FP_SAVED | field(offset, 24, 16)?;
        }
        Some(word)
    }
}

/// DWARF's numbers of the registers that matter.
#[cfg(target_arch = "x86_64")]
pub(super) mod register {
    pub(in super::super) const FP: u64 = 6;
    pub(in super::super) const SP: u64 = 7;
    pub(in super::super) const RETURN: u64 = 16;
}
#[cfg(target_arch = "aarch64")]
pub(super) mod register {
    pub(in super::super) const FP: u64 = 29;
    pub(in super::super) const SP: u64 = 31;
    pub(in super::super) const RETURN: u64 = 30;
}

/// Reads the rule for a return address from the tables of the file that it is in.
pub(super) fn rule_for(pc: usize, file: &File) -> Option<Rule> {
    // The call is what is described; what follows it may be another function's.
    let pc = pc.wrapping_sub(1);
    let description = find_description(pc, file)?;
    let entry = Entry::read(description, file)?;
    // Assembler may stand between two functions and be described by neither.
    if pc.checked_sub(entry.start)? >= entry.code_bytes {
        return None;
    }
    let (mut state, initial) = (State::START, State::START);
    if !run(entry.common.instructions, &entry.common, &mut state, &initial, entry.start, pc)? {
        return None;
    }
    let initial = state;
    run(entry.instructions, &entry.common, &mut state, &initial, entry.start, pc)?;
    state.rule()
}

/// The address of the description of the function that `pc` is in: the last one that begins at or before it.
fn find_description(pc: usize, file: &File) -> Option<usize> {
    let end = file.unwind_table.checked_add(file.unwind_table_bytes)?;
    // A library may have been unloaded since it was noted.
    if !sys::memory::is_readable(file.unwind_table) || !sys::memory::is_readable(end.checked_sub(8)?) {
        return None;
    }
    let table = Bytes { at: file.unwind_table, end };
    // Version 1; pointer to .eh_frame: relative, 4 bytes; count: 4 bytes; pairs: relative to the table, 4 bytes.
    if table.peek::<4>(0)? != [1, 0x1b, 0x03, 0x3b] {
        return None;
    }
    let count = u32::from_ne_bytes(table.peek(8)?) as usize;
    let relative = |offset: usize| {
        let distance = i32::from_ne_bytes(table.peek(offset)?);
        Some(table.at.wrapping_add_signed(distance as isize))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if relative(12 + middle * 8)? <= pc { low = middle + 1 } else { high = middle }
    }
    relative(12 + low.checked_sub(1)? * 8 + 4)
}

/// Bytes of a loaded file's tables.
#[derive(Clone, Copy)]
struct Bytes {
    at: usize,
    end: usize,
}

impl Bytes {
    fn peek<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let from = self.at.checked_add(offset)?;
        if from.checked_add(N)? > self.end {
            return None;
        }
        // SAFETY: within the file's tables, whose page was found readable, and which are never written.
        Some(unsafe { (from as *const [u8; N]).read() })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.peek(0)?;
        self.at += N;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        let at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        (at <= self.end).then(|| self.at = at)
    }

    /// LEB128, unsigned.
    fn unsigned(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    }

    /// LEB128, signed.
    fn signed(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0i64, 0u32);
        loop {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 {
                let sign = if byte & 0x40 != 0 { (-1i64).checked_shl(shift).unwrap_or(0) } else { 0 };
                return Some(value | sign);
            }
        }
    }
}

/// What descriptions share.
struct Common {
    code_factor: u64,
    data_factor: i64,
    return_register: u64,
    instructions: Bytes,
}

/// The description of one function.
struct Entry {
    common: Common,
    start: usize,
    code_bytes: usize,
    instructions: Bytes,
}

/// The bytes of the entry at `address`, and where its second word is.
fn entry_at(address: usize, file: &File) -> Option<(Bytes, usize)> {
    if !file.contains(address) || !sys::memory::is_readable(address) {
        return None;
    }
    let mut bytes = Bytes { at: address, end: file.end };
    let length = u32::from_ne_bytes(bytes.take()?);
    // Zero ends the section; all ones would be the 64-bit form, which no compiler writes here.
    if length == 0 || length == u32::MAX {
        return None;
    }
    let end = bytes.at.checked_add(length as usize)?;
    let second = bytes.at;
    (end <= file.end && sys::memory::is_readable((end - 1) & !7)).then_some((Bytes { end, ..bytes }, second))
}

impl Entry {
    fn read(address: usize, file: &File) -> Option<Entry> {
        let (mut bytes, second) = entry_at(address, file)?;
        let back = u32::from_ne_bytes(bytes.take()?);
        let (common, pointers, is_augmented) = read_common(second.checked_sub(back as usize)?, file)?;
        // How the function's place is written: relative to where it is written, 4 bytes, signed.
        if pointers != 0x1b {
            return None;
        }
        let from = bytes.at;
        let start = from.wrapping_add_signed(i32::from_ne_bytes(bytes.take()?) as isize);
        let code_bytes = u32::from_ne_bytes(bytes.take()?) as usize;
        if is_augmented {
            let length = bytes.unsigned()?;
            bytes.skip(length)?;
        }
        Some(Entry { common, start, code_bytes, instructions: bytes })
    }
}

/// The common part; how pointers are written; whether there is augmentation data.
fn read_common(address: usize, file: &File) -> Option<(Common, u8, bool)> {
    let (mut bytes, _) = entry_at(address, file)?;
    let id: [u8; 4] = bytes.take()?;
    let version = bytes.byte()?;
    if id != [0; 4] || !matches!(version, 1 | 3) {
        return None;
    }
    let letters = bytes;
    while bytes.byte()? != 0 {}
    let code_factor = bytes.unsigned()?;
    let data_factor = bytes.signed()?;
    let return_register = if version == 1 { u64::from(bytes.byte()?) } else { bytes.unsigned()? };
    // Without a letter, pointers are written absolute.
    let mut pointers = 0;
    let is_augmented = letters.peek(0) == Some(*b"z");
    if is_augmented {
        let length = bytes.unsigned()?;
        let mut data = bytes;
        bytes.skip(length)?;
        let mut letters = letters;
        loop {
            match letters.byte()? {
                0 => break,
                b'R' => pointers = data.byte()?,
                b'L' => drop(data.byte()?),
                b'P' => skip_pointer(&mut data)?,
                // `S`: a signal's frame, whose registers are described by expressions, if at all.
                b'z' | b'S' | b'B' => {}
                _ => return None,
            }
        }
    }
    Some((Common { code_factor, data_factor, return_register, instructions: bytes }, pointers, is_augmented))
}

/// A pointer, with how it is written before it.
fn skip_pointer(data: &mut Bytes) -> Option<()> {
    match data.byte()? & 0x0f {
        0x00 | 0x04 | 0x0c => data.skip(8),
        0x03 | 0x0b => data.skip(4),
        0x02 | 0x0a => data.skip(2),
        _ => None,
    }
}

/// Where a register of the caller is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Same,
    /// Relative to the canonical frame address.
    At(i64),
    Undefined,
    /// Said in a way that is not understood here.
    Unknown,
}

#[derive(Clone, Copy)]
struct State {
    cfa_register: u64,
    /// `None`: said in a way that is not understood here.
    cfa_offset: Option<i64>,
    fp: Place,
    ret: Place,
}

impl State {
    const START: State = State { cfa_register: 0, cfa_offset: None, fp: Place::Same, ret: Place::Same };

    fn place(&mut self, register: u64) -> Option<&mut Place> {
        match register {
            register::FP => Some(&mut self.fp),
            register::RETURN => Some(&mut self.ret),
            _ => None,
        }
    }

    fn set(&mut self, register: u64, place: Place) {
        if let Some(slot) = self.place(register) {
            *slot = place;
        }
    }

    fn rule(self) -> Option<Rule> {
        let offset = |place| match place {
            Place::At(offset) => Some(Some(isize::try_from(offset).ok()?)),
            Place::Same => Some(None),
            Place::Undefined | Place::Unknown => None,
        };
        if self.ret == Place::Undefined {
            return Some(Rule::End);
        }
        let cfa_from_fp = match self.cfa_register {
            register::FP => true,
            register::SP => false,
            _ => return None,
        };
        // A caller that does not need its frame pointer may have it undefined.
        let fp_offset = if self.fp == Place::Undefined { None } else { offset(self.fp)? };
        Some(Rule::Frame(Frame {
            cfa_from_fp,
            cfa_offset: isize::try_from(self.cfa_offset?).ok()?,
            return_offset: offset(self.ret)?,
            fp_offset,
        }))
    }
}

/// How deep DW_CFA_remember_state is followed.
const REMEMBERED: usize = 4;

/// Runs the instructions up to `pc`; whether they went on to the end. `None`: an instruction that is not known.
fn run(
    mut code: Bytes,
    common: &Common,
    state: &mut State,
    initial: &State,
    start: usize,
    pc: usize,
) -> Option<bool> {
    if common.return_register != register::RETURN {
        return None;
    }
    let mut location = start;
    let mut remembered = [State::START; REMEMBERED];
    let mut depth = 0usize;
    while code.at < code.end {
        let byte = code.byte()?;
        let low = u64::from(byte & 0x3f);
        let factored = |offset: u64| Place::At((offset as i64).wrapping_mul(common.data_factor));
        let factored_signed = |offset: i64| offset.wrapping_mul(common.data_factor);
        let advance = |location: usize, delta: u64| {
            location.wrapping_add(delta.wrapping_mul(common.code_factor) as usize)
        };
        match byte >> 6 {
            1 => location = advance(location, low),
            2 => {
                let offset = code.unsigned()?;
                state.set(low, factored(offset));
            }
            3 => restore(state, initial, low),
            _ => match byte {
                0x00 => {}
                0x02 => location = advance(location, code.byte()?.into()),
                0x03 => location = advance(location, u16::from_ne_bytes(code.take()?).into()),
                0x04 => location = advance(location, u32::from_ne_bytes(code.take()?).into()),
                0x05 => {
                    let (register, offset) = (code.unsigned()?, code.unsigned()?);
                    state.set(register, factored(offset));
                }
                0x06 => restore(state, initial, code.unsigned()?),
                0x07 => state.set(code.unsigned()?, Place::Undefined),
                0x08 => state.set(code.unsigned()?, Place::Same),
                0x09 => {
                    let (register, _in) = (code.unsigned()?, code.unsigned()?);
                    state.set(register, Place::Unknown);
                }
                0x0a => {
                    *remembered.get_mut(depth)? = *state;
                    depth += 1;
                }
                0x0b => {
                    depth = depth.checked_sub(1)?;
                    *state = *remembered.get(depth)?;
                }
                0x0c => {
                    state.cfa_register = code.unsigned()?;
                    state.cfa_offset = i64::try_from(code.unsigned()?).ok();
                }
                0x0d => state.cfa_register = code.unsigned()?,
                0x0e => state.cfa_offset = i64::try_from(code.unsigned()?).ok(),
                0x0f => {
                    let length = code.unsigned()?;
                    code.skip(length)?;
                    state.cfa_offset = None;
                }
                0x10 | 0x16 => {
                    let (register, length) = (code.unsigned()?, code.unsigned()?);
                    code.skip(length)?;
                    state.set(register, Place::Unknown);
                }
                0x11 => {
                    let (register, offset) = (code.unsigned()?, code.signed()?);
                    state.set(register, Place::At(factored_signed(offset)));
                }
                0x12 => {
                    state.cfa_register = code.unsigned()?;
                    state.cfa_offset = Some(factored_signed(code.signed()?));
                }
                0x13 => state.cfa_offset = Some(factored_signed(code.signed()?)),
                0x14 => {
                    let (register, _offset) = (code.unsigned()?, code.unsigned()?);
                    state.set(register, Place::Unknown);
                }
                0x15 => {
                    let (register, _offset) = (code.unsigned()?, code.signed()?);
                    state.set(register, Place::Unknown);
                }
                // Pointer authentication was switched: what is saved is signed, which `unwind` takes off.
                0x2d => {}
                0x2e => drop(code.unsigned()?),
                _ => return None,
            },
        }
        if location > pc {
            return Some(false);
        }
    }
    Some(true)
}

fn restore(state: &mut State, initial: &State, register: u64) {
    let mut initial = *initial;
    if let Some(place) = initial.place(register).copied() {
        state.set(register, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_a_word_or_is_none() {
        let frame = |cfa_offset, return_offset, fp_offset| {
            Rule::Frame(Frame { cfa_from_fp: cfa_offset == 16, cfa_offset, return_offset, fp_offset })
        };
        for rule in [
            Rule::End,
            Rule::NoTable,
            frame(8, Some(-8), None),
            frame(16, Some(-8), Some(-16)),
            frame(1 << 20, Some(-(1 << 16)), Some(-(1 << 17))),
            frame(0, None, None),
        ] {
            assert_eq!(Rule::decode(rule.encode()), Some(rule));
        }
        for odd in
            [frame(12, Some(-8), None), frame(1 << 40, Some(-8), None), frame(8, Some(-(1 << 30)), None)]
        {
            assert_eq!(Rule::decode(odd.encode()), Some(Rule::NoTable));
        }
        assert_eq!(Rule::decode(0), None);
    }

    #[test]
    fn numbers_are_read_as_written() {
        let bytes = [0xe5u8, 0x8e, 0x26, 0x9b, 0xf1, 0x59, 0x7f, 0x80];
        let at = bytes.as_ptr() as usize;
        let mut read = Bytes { at, end: at + bytes.len() };
        assert_eq!(
            (read.unsigned(), read.signed(), read.signed()),
            (Some(624_485), Some(-624_485), Some(-1))
        );
        assert_eq!(read.unsigned(), None, "beyond the end");
    }
}
