//! Who is over a limit on what is resident without having asked, and when to look again: for the guard, and for a parent that
//! looks at its children. Pure.
//!
//! Being over is no crime by itself: what was granted a moment ago is used a moment later, a program that was refused gives
//! back, a collector runs. Whoever stays over is ended:
//!
//! ```text
//!   within ──over──▶ suspected ──and again, and again──▶ over, and told to end
//!     ▲                 │ ▲
//!     └──within again───┘ └── gives back, or was refused and is not far over: it has a little more time
//! ```

/// The value that comes along with the SIGABRT by which a parent tells a guard that its process is over its limit.
pub const TOLD: u64 = u64::from_le_bytes(*b"oomguard");

/// The same where it is to leave as those who share its budget together are over it, or their container is nearly full, and it
/// holds most.
pub const ASKED_TO_LEAVE: u64 = u64::from_le_bytes(*b"oomleave");

/// The value that comes along with a SIGSTOP for a process that its tracer is to hold still, and with `STILL_SIGNAL` for one that is to
/// do so itself: whoever keeps the ledger of its budget sends it.
pub const STAND_STILL: u64 = u64::from_le_bytes(*b"oomstill");

/// Whoever has no handler for this one does not notice it, also if that is another program by the time at which it comes.
pub const STILL_SIGNAL: i32 = libc::SIGURG;

/// The most that a process may hold before it is suspected, in bytes: the stack, and what was granted a moment ago, ask
/// nobody.
pub const fn most(limit: u64) -> u64 {
    let margin = limit / 64;
    limit.saturating_add(if margin > 2 << 20 { margin } else { 2 << 20 })
}

/// Whoever holds more than this grows fast, and is not waited for.
const fn far(limit: u64) -> u64 {
    limit.saturating_add(limit / 4)
}

/// Somebody who is over is looked at again so soon, in milliseconds.
pub const AGAIN_MS: u64 = 10;

/// Who is at least so far over is looked at again sooner.
const SOON_MS: u64 = 3;

/// How often a process is found over its limit, one look after the other, until it is told to end.
const LOOKS: u32 = 3;

/// So long one that gives back may take.
const GIVING_BACK_MS: u64 = 200;

/// So long one may take that was refused something, and is not far over: to give back, or to say why it ends.
const REFUSED_MS: u64 = 1000;

/// What was seen of one process so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspicion {
    looks: u32,
    since_ms: u64,
    /// What it held at the last look.
    held: u64,
}

/// What a look has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Within,
    /// It is over; another look, after so many milliseconds, tells more.
    Suspected(u64),
    /// It stays over.
    Over,
}

impl Suspicion {
    /// A process holds so much; `is_refused`: the last thing that it asked for was refused.
    pub fn look(&mut self, limit: u64, held: u64, is_refused: bool, now_ms: u64) -> Finding {
        if held <= most(limit) {
            *self = Suspicion::default();
            return Finding::Within;
        }
        let before = self.held;
        self.held = held;
        if self.looks == 0 {
            self.since_ms = now_ms;
        }
        let is_far = held > far(limit);
        let since_ms = now_ms.saturating_sub(self.since_ms);
        let gives_back = self.looks > 0 && held < before.saturating_sub(limit / 128);
        let has_time = gives_back && since_ms < GIVING_BACK_MS
            || is_refused && held <= most(limit).saturating_add(limit / 16) && since_ms < REFUSED_MS;
        self.looks = if has_time { 1 } else { self.looks + 1 };
        if self.looks >= LOOKS || is_far && self.looks >= 2 {
            return Finding::Over;
        }
        Finding::Suspected(if is_far { SOON_MS } else { AGAIN_MS })
    }

    /// It was asked for closer, and is not over.
    pub fn clear(&mut self) {
        *self = Suspicion::default();
    }
}

/// How long it is until the next look at a process, in milliseconds, so that it is not far over by then: it may begin at any
/// moment to use what it has mapped, a GiB in a second or so; or go on as it has done in the last `ms`.
pub fn pause_ms(limit: u64, held: u64, grown: u64, ms: u64) -> u64 {
    const LONGEST_MS: u64 = 2000;
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
        assert_eq!(pause_ms(1 << 40, 0, 0, 10), 2000);
        assert_eq!(pause_ms(u64::MAX, u64::MAX, u64::MAX, 0), 20);
    }

    /// How long a process with a limit of 100 MiB lives which holds so many MiB at one look after the other, and the last of
    /// them from then on.
    fn ended_after_ms(is_refused: bool, held: &[u64]) -> Option<u64> {
        let (mut suspicion, mut now_ms) = (Suspicion::default(), 1000);
        for look in 0..1000 {
            let held = held.get(look).or(held.last()).unwrap() * MIB;
            now_ms += match suspicion.look(100 * MIB, held, is_refused, now_ms) {
                Finding::Within => 20,
                Finding::Suspected(ms) => ms,
                Finding::Over => return Some(now_ms - 1000),
            };
        }
        None
    }

    #[test]
    fn who_stays_over_is_ended_soon() {
        assert_eq!(ended_after_ms(false, &[103]), Some(20));
        assert_eq!(ended_after_ms(false, &[110, 115, 120]), Some(20));
        assert_eq!(ended_after_ms(false, &[500]), Some(3));
        // A refusal is no leave to go on growing.
        assert_eq!(ended_after_ms(true, &[105, 115, 125, 500]), Some(20));
        assert_eq!(ended_after_ms(true, &[500]), Some(3));
    }

    #[test]
    fn who_comes_back_is_not() {
        assert_eq!(ended_after_ms(false, &[101, 102]), None);
        assert_eq!(ended_after_ms(false, &[110, 110, 90]), None);
        assert_eq!(ended_after_ms(false, &[120, 118, 116, 114, 112, 110, 105, 101]), None);
    }

    #[test]
    fn who_was_refused_has_time_to_give_back_and_no_more() {
        let slow: Vec<u64> = [106; 90].into_iter().chain([99]).collect();
        assert_eq!(ended_after_ms(true, &slow), None);
        assert_eq!(ended_after_ms(false, &slow), Some(20));
        let end = ended_after_ms(true, &[106]).unwrap();
        assert!((1000..1100).contains(&end), "{end}");
    }

    #[test]
    fn who_gives_back_and_takes_again_is_over_all_the_same() {
        let seesaw: Vec<u64> = [110, 105].into_iter().cycle().take(500).collect();
        let end = ended_after_ms(false, &seesaw).unwrap();
        assert!(end < 300, "{end}");
    }
}
