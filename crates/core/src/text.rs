//! Text in a fixed buffer: what is built here never allocates, never panics, and is cut rather than lost.

/// Up to `N` bytes of text.
#[derive(Clone, Copy)]
pub struct Text<const N: usize>(Cuttable<[u8; N]>);

/// The same of any length.
#[derive(Clone, Copy)]
struct Cuttable<B: ?Sized> {
    len: usize,
    cut: bool,
    bytes: B,
}

/// Puts as many bytes behind the text as there is room for. In one place, as there are hundreds of callers: inlined, it made a
/// guarded program tens of KiB larger.
#[inline(never)]
fn append(text: &mut Cuttable<[u8]>, bytes: &[u8]) {
    let room = text.bytes.get_mut(text.len..).unwrap_or_default();
    for (slot, byte) in room.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    text.len += room.len().min(bytes.len());
    text.cut |= bytes.len() > room.len();
}

/// As [`Text::push_foreign`]; one function for every length, too.
#[inline(never)]
fn append_foreign(text: &mut Cuttable<[u8]>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            append(text, harmless(character).encode_utf8(&mut [0; 4]).as_bytes());
        }
        if !chunk.invalid().is_empty() {
            append(text, "\u{fffd}".as_bytes());
        }
    }
}

impl<const N: usize> Text<N> {
    pub const fn new() -> Self {
        Text(Cuttable { len: 0, cut: false, bytes: [0; N] })
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut text = Text::new();
        text.push_bytes(bytes);
        text
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.bytes.get(..self.0.len).unwrap_or(&[])
    }

    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether something did not fit.
    pub fn is_cut(&self) -> bool {
        self.0.cut
    }

    pub fn truncate(&mut self, len: usize) {
        if len < self.0.len {
            self.0.len = len;
        }
    }

    pub fn push_bytes(&mut self, bytes: &[u8]) {
        append(&mut self.0, bytes);
    }

    pub fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    pub fn push_number(&mut self, number: u64) {
        self.push_bytes(number_text(number).as_bytes());
    }

    /// A size for people: `512 MiB`; below 10 KiB the bytes themselves.
    pub fn push_size(&mut self, bytes: u64) {
        self.push_bytes(size_text(bytes).as_bytes());
    }

    /// Bytes that somebody else chose, made harmless for a terminal: see [`harmless`]; and what is not UTF-8 becomes
    /// U+FFFD.
    pub fn push_foreign(&mut self, bytes: &[u8]) {
        append_foreign(&mut self.0, bytes);
    }
}

/// A character that a terminal shows rather than obeys: `?` for a control character. Those are C0 with ESC, DEL, and
/// C1, in which one character, U+009B, does what ESC and `[` do. The one place that decides it, for every text of ours.
pub fn harmless(character: char) -> char {
    if character.is_control() { '?' } else { character }
}

// Not inlined, for the reason given at `append`.

#[inline(never)]
fn number_text(mut number: u64) -> Text<20> {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    Text::from_bytes(digits.get(first..).unwrap_or(&[]))
}

#[inline(never)]
fn size_text(bytes: u64) -> Text<40> {
    const UNITS: [&str; 4] = [" KiB", " MiB", " GiB", " TiB"];
    let mut text = Text::new();
    if bytes < 10 * 1024 {
        text.push_number(bytes);
        text.push(" bytes");
        return text;
    }
    let mut scaled = bytes;
    let mut tenths = 0;
    let mut unit = "";
    for name in UNITS {
        tenths = (scaled % 1024) * 10 / 1024;
        scaled /= 1024;
        unit = name;
        if scaled < 10 * 1024 {
            break;
        }
    }
    text.push_number(scaled);
    if tenths != 0 {
        text.push(".");
        text.push_number(tenths);
    }
    text.push(unit);
    text
}

/// What lies between separators, as `split` gives it.
pub struct Parts<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

pub fn parts(text: &[u8], separator: u8) -> Parts<'_> {
    Parts { rest: Some(text), separator }
}

impl<'a> Parts<'a> {
    /// All that is left, separators and all.
    pub fn rest(self) -> Option<&'a [u8]> {
        self.rest
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    #[inline(never)]
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let Some(at) = position(rest, self.separator) else {
            self.rest = None;
            return Some(rest);
        };
        self.rest = rest.get(at + 1..);
        rest.get(..at)
    }

    #[inline(never)]
    fn nth(&mut self, n: usize) -> Option<&'a [u8]> {
        for _ in 0..n {
            self.next()?;
        }
        self.next()
    }
}

/// Where a byte is for the first time.
#[inline(never)]
pub fn position(text: &[u8], wanted: u8) -> Option<usize> {
    text.iter().position(|byte| *byte == wanted)
}

/// Where a byte is for the last time.
#[inline(never)]
pub fn last_position(text: &[u8], wanted: u8) -> Option<usize> {
    text.iter().rposition(|byte| *byte == wanted)
}

/// What lies before the first such byte: everything where there is none.
pub fn until(text: &[u8], end: u8) -> &[u8] {
    position(text, end).and_then(|at| text.get(..at)).unwrap_or(text)
}

/// What lies behind the last such byte: everything where there is none.
pub fn behind_last(text: &[u8], separator: u8) -> &[u8] {
    last_position(text, separator).and_then(|at| text.get(at + 1..)).unwrap_or(text)
}

/// Where `part`, which is not empty, is for the first time.
#[inline(never)]
pub fn place_of(text: &[u8], part: &[u8]) -> Option<usize> {
    let places = text.len().checked_sub(part.len())?;
    (0..=places).find(|at| text.get(*at..).is_some_and(|rest| rest.starts_with(part)))
}

/// The decimal number at the start of `text`, after blanks; stops at the first other byte.
#[inline(never)]
pub fn leading_number(text: &[u8]) -> Option<u64> {
    let mut number: Option<u64> = None;
    for byte in text.iter().skip_while(|byte| matches!(byte, b' ' | b'\t')) {
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            }
            _ => break,
        }
    }
    number
}

/// All of `text` as a decimal number.
#[inline(never)]
pub fn whole_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    leading_number(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(build: impl Fn(&mut Text<64>)) -> String {
        let mut text = Text::new();
        build(&mut text);
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn numbers_and_sizes_are_written_as_people_read_them() {
        for number in [0, 9, 10, 1_234_567, u64::MAX] {
            assert_eq!(built(|t| t.push_number(number)), number.to_string());
        }
        for (bytes, text) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 KiB"),
            (536_870_912, "512 MiB"),
            (1_610_612_736, "1536 MiB"),
            (1 << 40, "1024 GiB"),
            (12_345_678, "11.7 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(built(|t| t.push_size(bytes)), text);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_passed_on() {
        // ESC, DEL, and CSI in one character (U+009B); as a lone byte that is no UTF-8.
        let foreign = b"a\x1b[31m \x7f \xc2\x9b31m \x9b1m \xc2\x80\xc2\x9f\xc2\xa0 \xc3\xa9\n";
        assert_eq!(built(|t| t.push_foreign(foreign)), "a?[31m ? ?31m \u{fffd}1m ??\u{a0} é?");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_told() {
        let mut text = Text::<4>::new();
        text.push("abcdef");
        assert_eq!((text.as_bytes(), text.is_cut()), (&b"abcd"[..], true));
    }

    #[test]
    fn numbers_are_read_or_refused() {
        assert_eq!(leading_number(b"  42 kB"), Some(42));
        assert_eq!(leading_number(b"max"), None);
        assert_eq!(leading_number(b"18446744073709551616"), None);
        assert_eq!(whole_number(b"42 "), None);
        assert_eq!(whole_number(b""), None);
        assert_eq!(whole_number(b"255"), Some(255));
    }
}
