//! The arithmetic of sampling: how far it is to the next sample, and what a sample stands for. Pure; neither the C
//! library's mathematics nor anything that can panic.

/// Random numbers of one thread: xorshift64 (Marsaglia 2003).
#[derive(Clone, Copy)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn seeded(seed: u64) -> Random {
        // splitmix64's last step, so that near seeds give far numbers; never zero.
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((mixed ^ mixed >> 31) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes to the next sample: exponentially distributed with this mean, so that each byte is as likely as any other
    /// to be met, whatever was met before.
    pub(super) fn distance(&mut self, mean: u64) -> i64 {
        // 53 random bits and a half: never zero, never one.
        let uniform = ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        // A cast from f64 saturates.
        (-ln(uniform) * mean as f64) as i64
    }
}

/// The bytes that a sampled allocation of `bytes` stands for: it was met with the probability 1 - exp(-bytes / mean).
pub(super) fn stands_for(bytes: u64, mean: u64) -> u64 {
    let share = bytes as f64 / mean as f64;
    // Small shares: the quotient's series, as the difference would lose its digits.
    let met =
        if share < 1e-3 { share * (1.0 - share / 2.0 + share * share / 6.0) } else { 1.0 - exp_minus(share) };
    if met <= 0.0 { bytes } else { (bytes as f64 / met + 0.5) as u64 }
}

/// The natural logarithm of a positive, normal number.
fn ln(number: f64) -> f64 {
    let bits = number.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    // The number is mantissa · 2^exponent, with the mantissa from 1 to 2.
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    // ln m = 2 artanh((m - 1) / (m + 1)), whose series converges fast up to 1/3.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let q = s * s;
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q / 11.0))));
    exponent as f64 * core::f64::consts::LN_2 + 2.0 * s * series
}

/// exp(-x) for x not below zero.
fn exp_minus(x: f64) -> f64 {
    if x > 40.0 {
        return 0.0;
    }
    // exp(-x) = (exp(-x / 64))^64, with the inner one's series.
    let y = -x / 64.0;
    let mut power = 1.0
        + y * (1.0
            + y / 2.0
                * (1.0 + y / 3.0 * (1.0 + y / 4.0 * (1.0 + y / 5.0 * (1.0 + y / 6.0 * (1.0 + y / 7.0))))));
    for _ in 0..6 {
        power *= power;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_power_are_those_of_the_library() {
        for step in 1..4000 {
            let x = f64::from(step) / 100.0;
            assert!((ln(x) - x.ln()).abs() < 1e-6, "ln {x}");
            assert!((exp_minus(x) - (-x).exp()).abs() < 1e-6, "exp -{x}");
        }
        assert!((ln(1e-16) - 1e-16f64.ln()).abs() < 1e-5);
    }

    #[test]
    fn distances_have_the_mean_and_the_spread_of_an_exponential() {
        let mut random = Random::seeded(7);
        let draws: Vec<f64> = (0..200_000).map(|_| random.distance(1000) as f64).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!((mean - 1000.0).abs() < 10.0, "mean {mean}");
        assert!((variance.sqrt() - 1000.0).abs() < 15.0, "spread {}", variance.sqrt());
        let beyond = draws.iter().filter(|draw| **draw > 1000.0).count() as f64 / draws.len() as f64;
        assert!((beyond - (-1f64).exp()).abs() < 0.005, "{beyond}");
    }

    #[test]
    fn what_samples_stand_for_adds_up_to_what_was_allocated() {
        // Whatever the size, (probability of being met) × (what it stands for) is the size.
        for bytes in [1, 16, 500, 600, 4096, 100_000, 524_288, 10_000_000, 1 << 40] {
            let stands = stands_for(bytes, 512 << 10) as f64;
            let met = -(-(bytes as f64) / 524_288.0).exp_m1();
            assert!((stands * met / bytes as f64 - 1.0).abs() < 1e-5, "{bytes}: {stands}");
        }
    }

    #[test]
    fn seeds_next_to_each_other_give_other_numbers() {
        let firsts: std::collections::HashSet<i64> =
            (0..1000).map(|seed| Random::seeded(seed).distance(1 << 40)).collect();
        assert_eq!(firsts.len(), 1000);
    }
}
