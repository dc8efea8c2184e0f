//! Numbers that a seed decides, the same in parent and worker.

/// A counter whose values are mixed (splitmix64).
pub struct Random {
    state: u64,
}

impl Random {
    /// From one state to the next.
    pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// One of `from..=to`; that small ones are a little likelier does not matter here.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.draw() % (to - from + 1)
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Random::STEP);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Iterator for Random {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        Some(self.draw())
    }
}
