//! How long to wait before trying again: exponential, with full jitter.
//!
//! In: how often it failed, and a random fraction. Out: a duration. Pure; the only randomness is
//! handed in, so that tests can say it. Called by the client's retry loop, the reconnecting
//! session and the client-side buffer.

use std::time::Duration;

/// The wait grows as `base`, `2 base`, `4 base` … up to `max`; what is waited is a random part of
/// that, so that clients that failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait before the first repetition.
    pub base: Duration,
    /// Longest wait ever.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// Longest wait after `failures` failures in a row.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }

    /// The wait after `failures` failures, where `fraction` is random in 0 to 1. A server's own
    /// advice counts as the least, stretched by up to its half so that its clients spread.
    #[must_use]
    pub fn wait(&self, failures: u32, advice: Option<Duration>, fraction: f64) -> Duration {
        let fraction = fraction.clamp(0.0, 1.0);
        match advice {
            Some(advice) => advice + advice.mul_f64(fraction / 2.0),
            None => self.ceiling(failures).mul_f64(fraction),
        }
    }

    /// As [`Self::wait`], with the thread's own randomness.
    pub(crate) fn random_wait(&self, failures: u32, advice: Option<Duration>) -> Duration {
        self.wait(failures, advice, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_ceiling_doubles_up_to_its_limit() {
        let backoff = Backoff { base: SECOND, max: SECOND * 5 };
        let ceilings: Vec<_> = (1..=5).map(|n| backoff.ceiling(n).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.ceiling(u32::MAX), SECOND * 5);
    }

    #[test]
    fn the_wait_is_any_part_of_the_ceiling() {
        let backoff = Backoff { base: SECOND, max: SECOND * 60 };
        assert_eq!(backoff.wait(3, None, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(3, None, 0.5), SECOND * 2);
        assert_eq!(backoff.wait(3, None, 1.0), SECOND * 4);
    }

    #[test]
    fn a_server_is_never_asked_before_it_said() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(1, Some(SECOND * 2), 0.0), SECOND * 2);
        assert_eq!(backoff.wait(9, Some(SECOND * 2), 1.0), SECOND * 3);
    }
}
