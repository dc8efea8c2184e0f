//! What tests of this package wait for.

use std::time::{Duration, Instant};

/// Waits until that is so, however slow the machine is.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
