//! Time that only goes on: what a lane decides by.
//!
//! A shard's time never goes back, so a wall clock that was once far ahead and is then set right would
//! leave the shard standing at that moment, and every lease with it, until the clock comes there again.
//! In: both clocks. Out: the wall's time, or if that was set back, the latest time so far and what
//! passed since by the clock that cannot be set. Pure; called by the lane.

/// The latest time that was known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    at_ms: u64,
    at_us: u64,
}

impl Steady {
    /// From a time on (unix milliseconds) that the monotonic clock (microseconds) reads as `now_us`.
    pub(super) fn new(at_ms: u64, now_us: u64) -> Self {
        Self { at_ms, at_us: now_us }
    }

    /// The time, unix milliseconds.
    pub(super) fn now_ms(&self, wall_ms: u64, now_us: u64) -> u64 {
        wall_ms.max(self.at_ms.saturating_add(now_us.saturating_sub(self.at_us) / 1000))
    }

    /// Remembers a wall that is ahead.
    pub(super) fn note(&mut self, wall_ms: u64, now_us: u64) {
        if self.now_ms(wall_ms, now_us) == wall_ms {
            *self = Self::new(wall_ms, now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

    #[test]
    fn it_is_the_wall_as_long_as_that_goes_on() {
        let mut steady = Steady::new(0, 0);
        for step in 0..10 {
            let (wall_ms, now_us) = (5_000 + 700 * step, 700_000 * step);
            steady.note(wall_ms, now_us);
            assert_eq!(steady.now_ms(wall_ms, now_us), wall_ms);
        }
    }

    #[test]
    fn it_goes_on_from_the_latest_time_when_the_wall_is_set_back() {
        let mut steady = Steady::new(1_000, 0);
        steady.note(1_000 + 10 * YEAR_MS, 1_000_000);
        steady.note(3_000, 2_000_000);
        assert_eq!(steady.now_ms(3_000, 2_000_000), 2_000 + 10 * YEAR_MS);
        assert_eq!(steady.now_ms(5_000, 4_500_000), 4_500 + 10 * YEAR_MS);
    }

    #[test]
    fn it_begins_with_what_the_log_says() {
        let steady = Steady::new(YEAR_MS, 7_000_000);
        assert_eq!(steady.now_ms(5, 7_000_000), YEAR_MS);
        assert_eq!(steady.now_ms(5, 9_000_000), YEAR_MS + 2_000);
    }
}
