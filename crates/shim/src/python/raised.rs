//! Who has raised an exception: a `raise` of the program's, or the interpreter, which was refused memory.

use super::interpreter::{self, Owned};

/// The instruction of `raise` (RAISE_VARARGS in `opcode.opmap`), from which version on, as in `sys.hexversion`.
const RAISES: [(u32, Option<u32>); 5] = [
    (0x0308_0000, Some(130)),
    (0x030d_0000, Some(101)),
    // What came before the release had others.
    (0x030e_0000, None),
    (0x030e_00f0, Some(104)),
    (0x030f_0000, None),
];

/// So many entries of a traceback are gone through.
const MOST_ENTRIES: usize = 10_000;

/// Whether a `raise` has brought it into being. `None`: nobody knows, as where its traceback was taken off.
pub(super) fn is_by_program(exception: &Owned) -> Option<bool> {
    let answer = ask(exception);
    interpreter::forget_raised();
    answer
}

fn ask(exception: &Owned) -> Option<bool> {
    let mut entry = exception.attribute(c"__traceback__")?;
    // The last one is where it began.
    for _ in 0..MOST_ENTRIES {
        let next = entry.attribute(c"tb_next")?;
        if next.is_none() {
            let at: usize = number(&entry.attribute(c"tb_lasti")?)?.try_into().ok()?;
            let code = entry.attribute(c"tb_frame")?.attribute(c"f_code")?.attribute(c"co_code")?;
            // SAFETY: a sequence of bytes; gives a reference or null.
            let instruction = Owned::new(unsafe { interpreter::item_of(code.as_ptr(), at.cast_signed()) })?;
            let version = number(&interpreter::of_sys(c"hexversion")?)?;
            return Some(number(&instruction)? == raise_of(version)?);
        }
        entry = next;
    }
    None
}

/// `None`: not known yet.
fn raise_of(version: u32) -> Option<u32> {
    RAISES.iter().rfind(|(since, _)| version >= *since).and_then(|(_, number)| *number)
}

/// A number that is not negative.
fn number(object: &Owned) -> Option<u32> {
    object.with_text(|text| core::str::from_utf8(text).ok()?.parse().ok()).flatten()
}
