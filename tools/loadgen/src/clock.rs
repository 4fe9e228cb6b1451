//! One time for the whole run: nanoseconds since it began.
//!
//! In: nothing. Out: a number that fits a payload's stamp and a histogram. Threads share one
//! clock, so a message's age can be taken on another thread than the one that sent it. Read by
//! every driver.

use std::time::{Duration, Instant};

/// When the run began. Cheap to copy; copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now_ns(self) -> u64 {
        as_ns(self.began.elapsed())
    }
}

/// Nanoseconds, as far as 584 years.
pub(crate) fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The times that matter of one measured run, on its clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// When the warm-up begins.
    pub(crate) begin_ns: u64,
    /// From here on, what happens counts.
    pub(crate) warm_ns: u64,
    /// From here on, nothing new is begun.
    pub(crate) end_ns: u64,
    /// From here on, answers are not waited for any more.
    pub(crate) give_up_ns: u64,
}

impl Span {
    /// A span that begins now.
    pub(crate) fn new(clock: Clock, warmup: Duration, length: Duration, drain: Duration) -> Self {
        let begin_ns = clock.now_ns();
        let warm_ns = begin_ns.saturating_add(as_ns(warmup));
        let end_ns = warm_ns.saturating_add(as_ns(length));
        Self { begin_ns, warm_ns, end_ns, give_up_ns: end_ns.saturating_add(as_ns(drain)) }
    }

    /// Whether something that happened then counts for the rate.
    pub(crate) fn counts(&self, at_ns: u64) -> bool {
        at_ns >= self.warm_ns && at_ns < self.end_ns
    }

    /// Seconds that are measured.
    pub(crate) fn seconds(&self) -> f64 {
        (self.end_ns - self.warm_ns) as f64 / 1e9
    }
}
