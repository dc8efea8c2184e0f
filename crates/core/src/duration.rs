//! How spans of time are written: `500ms`, `5s`, `2min`. Pure, and safe before `main`.

use crate::text::whole_number;

/// In milliseconds; `None` where it is no span of time.
pub fn parse_duration(text: &[u8]) -> Option<u64> {
    // The longer units first, where one ends as another does.
    const UNITS: [(&[u8], u64); 4] = [(b"ms", 1), (b"min", 60_000), (b"s", 1000), (b"h", 3_600_000)];
    UNITS.into_iter().find_map(|(unit, ms)| whole_number(text.strip_suffix(unit)?)?.checked_mul(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("2min", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("10 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse_duration(text.as_bytes()), expected, "{text}");
        }
    }
}
