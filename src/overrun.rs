//! Who is over a limit on what is resident without having asked, and when to look again: for the guard, and for a parent that
//! looks at its children. Pure.

/// The value that comes along with the SIGABRT by which a parent tells a guard that its process is over its limit.
pub(crate) const TOLD: u64 = u64::from_le_bytes(*b"oomguard");

/// The most that a process may hold before it is ended for it, in bytes: the stack, and what was granted a moment ago, ask
/// nobody.
pub(crate) const fn most(limit: u64) -> u64 {
    let margin = limit / 64;
    limit.saturating_add(if margin > 2 << 20 { margin } else { 2 << 20 })
}

/// Somebody who is over is looked at again so soon, in milliseconds; who stays so ends.
pub(crate) const AGAIN_MS: u64 = 10;

/// How long it is until the next look at a process, in milliseconds, so that it is not far over by then: it may begin at any
/// moment to use what it has mapped, a GiB in a second or so; or go on as it has done in the last `ms`.
pub(crate) fn pause_ms(limit: u64, held: u64, grown: u64, ms: u64) -> u64 {
    const LONGEST_MS: u64 = 500;
    const SHORTEST_MS: u64 = 5;
    /// Near the limit, and not growing.
    const RESTING_MS: u64 = 20;
    const BYTES_PER_MS: u64 = 1 << 20;
    let Some(room) = most(limit).checked_sub(held) else { return AGAIN_MS };
    let rate = grown.checked_div(ms).unwrap_or(0).saturating_mul(2);
    let least = if rate == 0 { RESTING_MS } else { SHORTEST_MS };
    (room / rate.max(BYTES_PER_MS)).clamp(least, LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_nearer_the_oftener() {
        for (held, grown, expected) in [
            (0, 0, 102),
            (60 * MIB, 0, 42),
            (99 * MIB, 0, 20),
            (99 * MIB, MIB, 5),
            (60 * MIB, 50 * MIB, 5),
            (102 * MIB, 0, 20),
            (103 * MIB, 0, AGAIN_MS),
        ] {
            assert_eq!(pause_ms(100 * MIB, held, grown, 10), expected, "{held} {grown}");
        }
        assert_eq!(pause_ms(1 << 40, 0, 0, 10), 500);
        assert_eq!(pause_ms(u64::MAX, u64::MAX, u64::MAX, 0), 20);
    }
}
