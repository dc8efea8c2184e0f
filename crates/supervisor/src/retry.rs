//! When to try again, and with how much: pure, but for the hook between two tries.

use super::outcome::Ended;
use crate::Limit;
use std::fmt;

/// Tries a worker again with a larger limit, if and only if memory was the cause of its end.
///
/// ```
/// use oomguard::supervisor::Retry;
/// # fn main() -> Result<(), oomguard::ParseLimitError> {
/// // 256 MiB, then 512 MiB, then 1 GiB
/// let retry = Retry::grow(2.0).up_to("1GiB".parse()?).between(|ended| eprintln!("again: {ended}"));
/// # Ok(())
/// # }
/// ```
pub struct Retry {
    factor: f64,
    ceiling: Option<Limit>,
    most_tries: u32,
    between: Option<Box<Hook>>,
}

type Hook = dyn FnMut(&Ended) + Send;

impl Retry {
    /// Multiplies the limit by `factor` for each further try. A factor that is not above 1 never tries again.
    pub fn grow(factor: f64) -> Retry {
        Retry { factor, ceiling: None, most_tries: u32::MAX, between: None }
    }

    /// Sets the largest limit to try with. Without it: 90 % of the container's limit, as whoever waits for the worker needs the rest,
    /// or the machine's memory.
    #[must_use]
    pub fn up_to(mut self, ceiling: Limit) -> Retry {
        self.ceiling = Some(ceiling);
        self
    }

    /// Sets how often the worker is started in all.
    #[must_use]
    pub fn at_most(mut self, tries: u32) -> Retry {
        self.most_tries = tries;
        self
    }

    /// Sets what to do after a try that ran out of memory and before the next one: remove what it left half done.
    #[must_use]
    pub fn between(mut self, clean_up: impl FnMut(&Ended) + Send + 'static) -> Retry {
        self.between = Some(Box::new(clean_up));
        self
    }

    /// The ceiling in bytes, here and now.
    pub(super) fn ceiling_bytes(&self) -> u64 {
        let ceiling = match self.ceiling {
            Some(ceiling) => super::resolve(ceiling, ""),
            None => super::resolve(Limit::Auto, "").or_else(crate::sys::memory::machine_memory),
        };
        ceiling.unwrap_or(u64::MAX)
    }

    /// Whether there is to be another try, as far as its end and the number of tries tell.
    pub(super) fn is_due(&self, ended: &Ended) -> bool {
        ended.outcome.is_memory() && ended.tries < self.most_tries
    }

    /// The limit of the next try; `None` where there is to be none.
    pub(super) fn next(&self, ended: &Ended, ceiling: u64) -> Option<u64> {
        if !self.is_due(ended) {
            return None;
        }
        grown(ended.limit?, self.factor, ceiling)
    }

    pub(super) fn clean_up(&mut self, ended: &Ended) {
        if let Some(between) = &mut self.between {
            between(ended);
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("factor", &self.factor)
            .field("ceiling", &self.ceiling)
            .field("most_tries", &self.most_tries)
            .finish_non_exhaustive()
    }
}

/// `bytes` times `factor`, at most `ceiling`; `None` where that is no more than before.
fn grown(bytes: u64, factor: f64, ceiling: u64) -> Option<u64> {
    // Saturates; what a double cannot tell apart is no matter in a limit. NaN becomes zero, which is no growth.
    let product = (bytes as f64 * factor).ceil() as u64;
    Some(product.min(ceiling)).filter(|grown| *grown > bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_up_to_the_ceiling_and_no_further() {
        assert_eq!(grown(100, 2.0, 1000), Some(200));
        assert_eq!(grown(100, 1.001, 1000), Some(101));
        assert_eq!(grown(600, 2.0, 1000), Some(1000));
        assert_eq!(grown(1000, 2.0, 1000), None);
        assert_eq!(grown(2000, 2.0, 1000), None);
        assert_eq!(grown(u64::MAX / 2, 4.0, u64::MAX), Some(u64::MAX));
        for factor in [1.0, 0.5, 0.0, -2.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(grown(100, factor, 1000), None, "{factor}");
        }
        assert_eq!(grown(100, f64::INFINITY, 1000), Some(1000));
    }
}
