//! The grammar of limits. One parser serves the environment, the `guard!` literal (at compile time) and
//! `"512Mi".parse::<Limit>()` in a parent; it is a `const fn` without allocation or floating point.

use core::fmt;
use core::str::FromStr;

use crate::text::Text;

/// A memory limit as a person writes it.
///
/// | text | meaning |
/// |---|---|
/// | `536870912` | bytes |
/// | `512M`, `1.5G`, `512MB` | powers of 1000: `K M G T`, with or without `B` |
/// | `512Mi`, `1.5Gi`, `512MiB` | powers of 1024: `Ki Mi Gi Ti`, with or without `B` |
/// | `80%` | of the container's limit, or of the machine's memory where there is no container |
/// | `auto` | 90 % of the container's limit; no limit where there is none |
/// | `off` | no limit |
///
/// Case matters, except that `k` and `K` are the same. Fractions of a byte are dropped.
///
/// ```
/// use oomguard::Limit;
/// assert_eq!("1.5GiB".parse(), Ok(Limit::Bytes(1_610_612_736)));
/// assert_eq!("512M".parse(), Ok(Limit::Bytes(512_000_000)));
/// assert_eq!("auto".parse(), Ok(Limit::Auto));
/// assert!("512 MiB".parse::<Limit>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// So many bytes.
    Bytes(u64),
    /// A share of the container's limit.
    Share(Share),
    /// 90 % of the container's limit.
    Auto,
    /// No limit.
    Off,
}

/// A share of something, above 0 and up to 100 %, exact to a millionth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    micro_percent: u64,
}

const MICRO: u64 = 1_000_000;

impl Share {
    #[doc(hidden)]
    pub const fn percent(percent: u64) -> Share {
        Share { micro_percent: percent * MICRO }
    }

    /// What it leaves of the whole.
    #[doc(hidden)]
    pub const fn rest(self) -> Share {
        Share { micro_percent: (100 * MICRO).saturating_sub(self.micro_percent) }
    }

    /// Returns this share of `whole` bytes, rounded down.
    pub const fn of(self, whole: u64) -> u64 {
        // Below 2^64 * 10^8 < 2^128, and the quotient is at most `whole`.
        (whole as u128 * self.micro_percent as u128 / (100 * MICRO as u128)) as u64
    }
}

/// Why a text is not a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimitError(Wrong);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Form,
    Zero,
    TooLarge,
    FractionOfBytes,
    OverHundredPercent,
}

/// What every message about a limit offers as the cure.
#[doc(hidden)]
pub const LIMIT_FORMS: &str = "bytes (536870912), 512M or 512Mi (K M G T, Ki Mi Gi Ti), 80%, auto or off";
/// The same for a plain size, such as the reserve.
#[doc(hidden)]
pub const SIZE_FORMS: &str = "bytes (4194304), 4M or 4Mi (K M G T, Ki Mi Gi Ti)";

impl ParseLimitError {
    /// Returns the reason, in a few words that fit after "is not a limit: ".
    pub const fn reason(self) -> &'static str {
        match self.0 {
            Wrong::Form => "not a number with a known unit",
            Wrong::Zero => "zero is no limit to run under",
            Wrong::TooLarge => "more bytes than 64 bits can count",
            Wrong::FractionOfBytes => "bytes are whole; a decimal point needs a unit",
            Wrong::OverHundredPercent => "more than 100%",
        }
    }
}

impl fmt::Display for ParseLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; write {LIMIT_FORMS}", self.reason())
    }
}

impl core::error::Error for ParseLimitError {}

impl FromStr for Limit {
    type Err = ParseLimitError;

    fn from_str(text: &str) -> Result<Limit, ParseLimitError> {
        Limit::parse(text.as_bytes())
    }
}

impl fmt::Display for Limit {
    /// Writes what [`Limit::from_str`] reads back as the same limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Bytes(bytes) => write!(f, "{bytes}"),
            Limit::Share(share) => {
                let (whole, micro) = (share.micro_percent / MICRO, share.micro_percent % MICRO);
                if micro == 0 {
                    return write!(f, "{whole}%");
                }
                let zeros = (0..).take_while(|zeros| micro % 10u64.pow(zeros + 1) == 0).count();
                let digits = 6 - zeros;
                write!(f, "{whole}.{:0digits$}%", micro / 10u64.pow(zeros as u32))
            }
            Limit::Auto => f.write_str("auto"),
            Limit::Off => f.write_str("off"),
        }
    }
}

impl Limit {
    /// Reads a limit; usable in constants.
    #[doc(hidden)]
    pub const fn parse(text: &[u8]) -> Result<Limit, ParseLimitError> {
        if equal(text, b"auto") {
            return Ok(Limit::Auto);
        }
        if equal(text, b"off") {
            return Ok(Limit::Off);
        }
        let (number, unit) = match split_number(text) {
            Ok(parts) => parts,
            Err(wrong) => return Err(ParseLimitError(wrong)),
        };
        if equal(unit, b"%") {
            return match number.times(MICRO) {
                Some(0) => Err(ParseLimitError(Wrong::Zero)),
                Some(micro_percent) if micro_percent <= 100 * MICRO => {
                    Ok(Limit::Share(Share { micro_percent }))
                }
                _ => Err(ParseLimitError(Wrong::OverHundredPercent)),
            };
        }
        match size(number, unit) {
            Ok(0) => Err(ParseLimitError(Wrong::Zero)),
            Ok(bytes) => Ok(Limit::Bytes(bytes)),
            Err(wrong) => Err(ParseLimitError(wrong)),
        }
    }
}

/// What somebody may have meant who wrote a unit in another case, or a blank before it, as `512m`, `4gi` or `1 GB`, or who
/// calls no limit by another word: the spellings that would do, for messages. Allocates nothing.
#[doc(hidden)]
pub fn meant(text: &[u8]) -> Option<Text<96>> {
    const NO_LIMIT: &[&[u8]] = &[b"off", b"none", b"no", b"unlimited", b"infinity", b"max", b"-1"];
    let text = text.trim_ascii();
    let mut words = Text::new();
    if text.eq_ignore_ascii_case(b"auto") {
        words.push("auto");
        return Some(words);
    }
    if NO_LIMIT.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        words.push("off");
        return Some(words);
    }
    let number_len =
        text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(number_len)?;
    let unit = unit.trim_ascii_start();
    let letter = unit.first()?.to_ascii_uppercase();
    let (is_binary, has_byte) = match unit.get(1..)? {
        [] => (false, false),
        [b'b' | b'B'] => (false, true),
        [b'i' | b'I'] => (true, false),
        [b'i' | b'I', b'b' | b'B'] => (true, true),
        _ => return None,
    };
    for binary in [false, true].into_iter().filter(|binary| *binary || !is_binary) {
        let start = words.len() + if words.len() > 0 { 4 } else { 0 };
        words.push(if words.len() > 0 { " or " } else { "" });
        words.push_bytes(number);
        words.push_bytes(&[letter]);
        words.push(if binary { "i" } else { "" });
        words.push(if has_byte { "B" } else { "" });
        // Only what is one, so that nobody is sent from one error to the next.
        Limit::parse(words.as_bytes().get(start..)?).ok()?;
    }
    Some(words)
}

#[cfg(any(feature = "alloc", not(feature = "shim")))]
impl ParseLimitError {
    /// Returns the message for this very text, with what may have been meant.
    pub fn for_text(self, text: &str) -> alloc::string::String {
        use alloc::string::{String, ToString};
        match meant(text.as_bytes()) {
            Some(words) if self.0 == Wrong::Form => {
                alloc::format!("{self}; did you mean {}?", String::from_utf8_lossy(words.as_bytes()))
            }
            _ => self.to_string(),
        }
    }
}

/// Reads a plain size, zero allowed; usable in constants.
#[doc(hidden)]
pub const fn parse_size(text: &[u8]) -> Result<u64, ParseLimitError> {
    match split_number(text) {
        Ok((number, unit)) => match size(number, unit) {
            Ok(bytes) => Ok(bytes),
            Err(wrong) => Err(ParseLimitError(wrong)),
        },
        Err(wrong) => Err(ParseLimitError(wrong)),
    }
}

/// A decimal number: what stands before the point, and the digits behind it.
#[derive(Clone, Copy)]
struct Decimal<'a> {
    whole: u128,
    fraction: &'a [u8],
}

impl Decimal<'_> {
    /// The product with `factor`, rounded down, if it fits.
    const fn times(self, factor: u64) -> Option<u64> {
        // From the last digit on; rounding down at each step gives what rounding down at the end would.
        let mut below: u128 = 0;
        let mut rest = self.fraction;
        while let [before @ .., digit] = rest {
            below = ((*digit - b'0') as u128 * factor as u128 + below) / 10;
            rest = before;
        }
        // `below` is less than `factor`, so the sum overflows only where it is far above any size.
        match self.whole.checked_mul(factor as u128) {
            Some(product) => match product.checked_add(below) {
                Some(sum) if sum <= u64::MAX as u128 => Some(sum as u64),
                _ => None,
            },
            None => None,
        }
    }
}

const fn size(number: Decimal<'_>, unit: &[u8]) -> Result<u64, Wrong> {
    let factor = match factor(unit) {
        Some(factor) => factor,
        None => return Err(Wrong::Form),
    };
    if factor == 1 && !number.fraction.is_empty() {
        return Err(Wrong::FractionOfBytes);
    }
    match number.times(factor) {
        Some(bytes) => Ok(bytes),
        None => Err(Wrong::TooLarge),
    }
}

/// The bytes that a unit stands for: nothing, or `[kKMGT]i?B?`.
const fn factor(unit: &[u8]) -> Option<u64> {
    let (letter, rest) = match unit {
        [] => return Some(1),
        [letter, rest @ ..] => (*letter, rest),
    };
    let base: u64 = match rest {
        [] | [b'B'] => 1000,
        [b'i'] | [b'i', b'B'] => 1024,
        _ => return None,
    };
    match letter {
        b'k' | b'K' => Some(base),
        b'M' => Some(base.pow(2)),
        b'G' => Some(base.pow(3)),
        b'T' => Some(base.pow(4)),
        _ => None,
    }
}

/// Splits `12.5Mi` into 12.5 and `Mi`. There must be a digit on both sides of a point.
const fn split_number(text: &[u8]) -> Result<(Decimal<'_>, &[u8]), Wrong> {
    let (before_point, rest) = split_digits(text);
    let (fraction, unit) = match rest {
        [b'.', behind_point @ ..] => match split_digits(behind_point) {
            ([], _) => return Err(Wrong::Form),
            parts => parts,
        },
        _ => (&[] as &[u8], rest),
    };
    let mut digits = match before_point {
        [] => return Err(Wrong::Form),
        digits => digits,
    };
    let mut whole: u128 = 0;
    while let [digit, tail @ ..] = digits {
        whole = match whole.checked_mul(10) {
            // 10 * x + 9 only overflows where x * 10 nearly does: far above any size.
            Some(shifted) if shifted < u128::MAX - 9 => shifted + (*digit - b'0') as u128,
            _ => return Err(Wrong::TooLarge),
        };
        digits = tail;
    }
    Ok((Decimal { whole, fraction }, unit))
}

/// The digits at the start of `text`, and what follows them.
const fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let mut len = 0;
    while len < text.len() && text[len].is_ascii_digit() {
        len += 1;
    }
    text.split_at(len)
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_a_unit_in_another_way_is_told_how() {
        for (text, words) in [
            ("4g", "4G or 4Gi"),
            ("512m", "512M or 512Mi"),
            ("512mb", "512MB or 512MiB"),
            ("1.5gi", "1.5Gi"),
            ("512MIB", "512MiB"),
            ("1 GB", "1GB or 1GiB"),
            ("AUTO", "auto"),
            ("Off", "off"),
            ("unlimited", "off"),
            ("-1", "off"),
        ] {
            let meant = meant(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(meant.as_bytes()), words, "{text}");
            let said = text.parse::<Limit>().unwrap_err().for_text(text);
            assert!(said.contains(&format!("did you mean {words}?")), "{said}");
        }
        for text in ["", "g", "12Q", "4gx", "1..5g", "-4g", "0m", "99999999999999999999g", "lots"] {
            assert!(meant(text.as_bytes()).is_none(), "{text}");
        }
    }

    fn bytes(text: &str) -> Option<u64> {
        match text.parse() {
            Ok(Limit::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    #[test]
    fn sizes_mean_what_kubernetes_and_si_say() {
        let table: &[(&str, u64)] = &[
            ("1", 1),
            ("007", 7),
            ("536870912", 512 << 20),
            ("1k", 1000),
            ("1K", 1000),
            ("1kB", 1000),
            ("1ki", 1024),
            ("1KiB", 1024),
            ("512M", 512_000_000),
            ("512MB", 512_000_000),
            ("512Mi", 512 << 20),
            ("512MiB", 512 << 20),
            ("1.5G", 1_500_000_000),
            ("1.5Gi", 3 << 29),
            ("0.5Ti", 1 << 39),
            ("16777215T", 16_777_215_000_000_000_000),
            ("18446744073709551615", u64::MAX),
            ("1.0000000000000000000000000001Gi", 1 << 30),
            ("0.001K", 1),
            // Exactly one byte, which takes twenty digits to say.
            ("0.00000095367431640625Mi", 1),
            ("1.00000095367431640625Mi", (1 << 20) + 1),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text), Some(*expected), "{text}");
        }
    }

    #[test]
    fn words_and_shares_are_limits() {
        assert_eq!("auto".parse(), Ok(Limit::Auto));
        assert_eq!("off".parse(), Ok(Limit::Off));
        assert_eq!("80%".parse(), Ok(Limit::Share(Share::percent(80))));
        assert_eq!("100%".parse(), Ok(Limit::Share(Share::percent(100))));
        let Ok(Limit::Share(share)) = "12.5%".parse::<Limit>() else { panic!("12.5% is a share") };
        assert_eq!(share.of(800), 100);
        assert_eq!(share.of(u64::MAX), u64::MAX / 8);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            " ",
            "1 ",
            " 1",
            "1 M",
            "+1",
            "-1",
            "M",
            "Mi",
            "1m",
            "1mi",
            "1MI",
            "1g",
            "1t",
            "1Kb",
            "1KIB",
            "1iB",
            "1i",
            "1B",
            "1.",
            ".5M",
            "1..5M",
            "1.5",
            "1e9",
            "0x10",
            "1Pi",
            "1Ei",
            "1MM",
            "1MiBB",
            "%",
            "0%",
            "100.1%",
            "101%",
            "-5%",
            "80 %",
            "80%%",
            "Auto",
            "AUTO",
            "OFF",
            "Off",
            "none",
            "max",
            "unlimited",
            "0",
            "0Mi",
            "0.0001K",
            "18446744073709551616",
            "16777216Ti",
            "340282366920938463463374607431768211456",
            "999999999999999999999999999999999999999999",
            "1,5G",
            "1_000",
            "512M\n",
            "٣M",
        ] {
            assert!(text.parse::<Limit>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_reason_names_what_is_wrong() {
        let reason = |text: &str| text.parse::<Limit>().unwrap_err().reason();
        assert!(reason("0").contains("zero"));
        assert!(reason("1.5").contains("whole"));
        assert!(reason("120%").contains("100%"));
        assert!(reason("99999999T").contains("64 bits"));
    }

    #[test]
    fn a_reserve_may_be_zero_but_no_share() {
        assert_eq!(parse_size(b"0"), Ok(0));
        assert_eq!(parse_size(b"8MiB"), Ok(8 << 20));
        assert!(parse_size(b"5%").is_err());
        assert!(parse_size(b"auto").is_err());
    }

    #[test]
    fn display_reads_back() {
        for text in ["1", "123456", "80%", "12.5%", "0.000001%", "auto", "off"] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!(limit.to_string(), text);
        }
    }
}
