//! The circuit breaker: stops asking a server that keeps failing.
//!
//! In: what became of requests, and the time. Out: whether a request may go out. Pure: time is an
//! argument, nothing sleeps and nothing is spawned. Called by the client around every request.
//!
//! ```text
//!            threshold failures in a row          timeout passed, one probe goes out
//!  closed ──────────────────────────────► open ──────────────────────────────► half open
//!    ▲                                      ▲               probe failed           │ │
//!    │                                      └──────────────────────────────────────┘ │
//!    └───────────────────────────────── probe succeeded ─────────────────────────────┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// Counts failures in a row and decides who may pass.
#[derive(Clone, Debug)]
pub struct Breaker {
    threshold: u32,
    timeout: Duration,
    state: BreakerState,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything passes.
    Closed {
        /// Failures in a row so far.
        failures: u32,
    },
    /// Nothing passes.
    Open {
        /// Until then.
        until: Instant,
    },
    /// One probe is under way, nothing else passes.
    HalfOpen {
        /// When the probe counts as lost and another may go out.
        until: Instant,
    },
}

impl Breaker {
    /// A closed breaker that opens after `threshold` failures in a row (0: never) and lets a
    /// probe through `timeout` later.
    #[must_use]
    pub fn new(threshold: u32, timeout: Duration) -> Self {
        Self { threshold, timeout, state: BreakerState::Closed { failures: 0 } }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Asks to pass. Whoever passes reports back with [`Self::succeeded`], [`Self::failed`] or
    /// [`Self::abandoned`].
    ///
    /// # Errors
    /// How long until the next probe may pass.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            BreakerState::Closed { .. } => Ok(()),
            BreakerState::Open { until } | BreakerState::HalfOpen { until } if now < until => {
                Err(until - now)
            }
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => {
                self.state = BreakerState::HalfOpen { until: now + self.timeout };
                Ok(())
            }
        }
    }

    /// The server answered: closed, and all failures are forgotten.
    pub fn succeeded(&mut self) {
        // A late answer from before the opening proves as much as a probe's.
        self.state = BreakerState::Closed { failures: 0 };
    }

    /// The server failed once more.
    pub fn failed(&mut self, now: Instant) {
        let open = BreakerState::Open { until: now + self.timeout };
        match self.state {
            BreakerState::Closed { failures } => {
                let failures = failures.saturating_add(1);
                let is_enough = self.threshold > 0 && failures >= self.threshold;
                self.state = if is_enough { open } else { BreakerState::Closed { failures } };
            }
            BreakerState::HalfOpen { .. } => self.state = open,
            // Failures of requests that passed before it opened do not hold it open for longer.
            BreakerState::Open { .. } => {}
        }
    }

    /// Whoever passed has gone without a verdict: the next may probe at once.
    pub fn abandoned(&mut self, now: Instant) {
        if let BreakerState::HalfOpen { .. } = self.state {
            self.state = BreakerState::Open { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(5, MINUTE);
        for _ in 0..5 {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn four_failures_pass_and_the_fifth_opens() {
        let now = Instant::now();
        let mut breaker = Breaker::new(5, MINUTE);
        for _ in 0..4 {
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.failed(now);
        assert_eq!(breaker.admit(now), Err(MINUTE));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_again() {
        let now = Instant::now();
        let mut breaker = Breaker::new(5, MINUTE);
        for _ in 0..20 {
            for _ in 0..4 {
                breaker.failed(now);
            }
            breaker.succeeded();
        }
        assert_eq!(breaker.state(), BreakerState::Closed { failures: 0 });
    }

    #[test]
    fn after_the_timeout_exactly_one_probe_passes() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + MINUTE / 2), Err(MINUTE / 2));
        assert_eq!(breaker.admit(now + MINUTE), Ok(()));
        assert_eq!(breaker.admit(now + MINUTE), Err(MINUTE));
    }

    #[test]
    fn a_probe_closes_or_opens_by_its_outcome() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + MINUTE), Ok(()));
        breaker.failed(now + MINUTE);
        assert_eq!(breaker.admit(now + MINUTE + MINUTE / 2), Err(MINUTE / 2));
        assert_eq!(breaker.admit(now + MINUTE * 2), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.admit(now + MINUTE * 2), Ok(()));
    }

    #[test]
    fn a_probe_that_vanishes_makes_room_for_another() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + MINUTE), Ok(()));
        breaker.abandoned(now + MINUTE);
        assert_eq!(breaker.admit(now + MINUTE), Ok(()));
        // One that hangs is given up after another timeout.
        assert_eq!(breaker.admit(now + MINUTE * 2), Ok(()));
    }

    #[test]
    fn late_failures_do_not_hold_it_open_for_longer() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.failed(now + MINUTE / 2);
        assert_eq!(breaker.admit(now + MINUTE), Ok(()));
    }

    #[test]
    fn a_threshold_of_zero_never_opens() {
        let now = Instant::now();
        let mut breaker = Breaker::new(0, MINUTE);
        for _ in 0..1000 {
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Ok(()));
    }
}
