//! The grammar of limits against an independent model of it: exact rational numbers of any size.

use oomguard::Limit;
use proptest::prelude::*;

/// A natural number of any size in decimal digits, the least significant first. Slow, and plainly right.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Natural(Vec<u8>);

impl Natural {
    fn from_digits(digits: &str) -> Natural {
        let mut number = Natural(digits.bytes().rev().map(|digit| digit - b'0').collect());
        number.trim();
        number
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn times(&self, factor: u64) -> Natural {
        let mut digits = Vec::new();
        let mut carry = 0u128;
        for digit in &self.0 {
            let value = u128::from(*digit) * u128::from(factor) + carry;
            digits.push((value % 10) as u8);
            carry = value / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
        let mut product = Natural(digits);
        product.trim();
        product
    }

    /// Divided by a power of ten, rounded down.
    fn shifted_right(&self, places: usize) -> Natural {
        Natural(self.0.get(places..).unwrap_or(&[]).to_vec())
    }

    fn to_u64(&self) -> Option<u64> {
        self.0.iter().rev().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(*digit)))
    }
}

/// What `whole.fraction` times `factor` is, rounded down.
fn model(whole: &str, fraction: &str, factor: u64) -> Option<u64> {
    Natural::from_digits(&format!("{whole}{fraction}")).times(factor).shifted_right(fraction.len()).to_u64()
}

const UNITS: [(&str, u64); 18] = [
    ("k", 1000),
    ("K", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("TiB", 1 << 40),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in any::<String>()) {
        if let Err(error) = text.parse::<Limit>() {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_text_of_the_grammars_own_characters_is_read_or_refused(text in "[0-9.kKMGTiB%autof ]{0,40}") {
        let _ = text.parse::<Limit>();
    }

    #[test]
    fn a_limit_that_is_written_reads_back_as_the_same(text in "[0-9]{1,22}(\\.[0-9]{1,30})?([KMGT]i?B?|k|%)?|auto|off") {
        if let Ok(limit) = text.parse::<Limit>() {
            let written = limit.to_string();
            prop_assert_eq!(written.parse::<Limit>(), Ok(limit), "{} written as {}", text, written);
        }
    }

    #[test]
    fn plain_bytes_are_themselves(bytes in any::<u64>()) {
        let read = bytes.to_string().parse::<Limit>();
        prop_assert_eq!(read.ok(), (bytes > 0).then_some(Limit::Bytes(bytes)));
    }

    #[test]
    fn a_size_is_what_exact_arithmetic_says(
        whole in "[0-9]{1,25}",
        fraction in "[0-9]{0,60}",
        (unit, factor) in prop::sample::select(&UNITS[..]),
    ) {
        let point = if fraction.is_empty() { "" } else { "." };
        let read = format!("{whole}{point}{fraction}{unit}").parse::<Limit>().ok();
        let bytes = model(&whole, &fraction, factor).filter(|bytes| *bytes > 0);
        prop_assert_eq!(read, bytes.map(Limit::Bytes));
    }

    #[test]
    fn a_fraction_may_be_as_long_as_it_takes_to_name_a_byte(bytes in 1u64..1 << 40) {
        // 2^-40 has forty digits behind the point.
        let mut digits = Natural::from_digits(&bytes.to_string());
        for _ in 0..40 {
            digits = digits.times(5);
        }
        let fraction: String = (0..40).rev().map(|at| (b'0' + digits.0.get(at).unwrap_or(&0)) as char).collect();
        prop_assert_eq!(format!("0.{fraction}Ti").parse::<Limit>(), Ok(Limit::Bytes(bytes)));
    }

    #[test]
    fn a_share_is_what_exact_arithmetic_says(
        whole in 0u64..=101,
        fraction in "[0-9]{0,6}",
        of in any::<u64>(),
    ) {
        let point = if fraction.is_empty() { "" } else { "." };
        let read = format!("{whole}{point}{fraction}%").parse::<Limit>();
        let micro = model(&whole.to_string(), &fraction, 1_000_000).expect("small");
        match read {
            Ok(Limit::Share(share)) => {
                prop_assert!((1..=100_000_000).contains(&micro));
                let exact = Natural::from_digits(&of.to_string()).times(micro).shifted_right(8);
                prop_assert_eq!(Some(share.of(of)), exact.to_u64());
            }
            other => prop_assert!(!(1..=100_000_000).contains(&micro), "{:?} from {} micro-percent", other, micro),
        }
    }
}
