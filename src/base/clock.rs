//! Time: the only place in the server that reads a real clock.
//!
//! In: nothing. Out: wall time in Unix milliseconds (for what is stored and shown) and monotonic
//! microseconds (for durations and deadlines). Called by the rooms that act; the rooms that decide
//! take time as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Wall time in milliseconds since 1970-01-01 UTC. May jump in either direction.
    fn now_ms(&self) -> u64;

    /// Microseconds since some fixed moment of this process. Never goes back.
    fn monotonic_us(&self) -> u64;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now_ms(&self) -> u64 {
        (**self).now_ms()
    }

    fn monotonic_us(&self) -> u64 {
        (**self).monotonic_us()
    }
}

/// The clock of the machine.
#[derive(Clone, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at 0 now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A machine set before 1970 reads as 1970: no caller can use a negative time.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A clock that moves only when told to. Clones share their time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    times: Arc<ManualTimes>,
}

#[derive(Debug, Default)]
struct ManualTimes {
    wall_ms: AtomicU64,
    monotonic_us: AtomicU64,
}

impl ManualClock {
    /// A clock whose wall shows `now_ms` and whose monotonic time is 0.
    pub fn new(now_ms: u64) -> Self {
        let clock = Self::default();
        clock.set_ms(now_ms);
        clock
    }

    /// Sets the wall time, forwards or backwards; monotonic time does not move.
    pub fn set_ms(&self, now_ms: u64) {
        self.times.wall_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Lets `ms` milliseconds pass on both times.
    pub fn advance_ms(&self, ms: u64) {
        self.times.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.advance_monotonic_us(ms.saturating_mul(1_000));
    }

    /// Lets `us` microseconds pass on the monotonic time alone.
    pub fn advance_monotonic_us(&self, us: u64) {
        self.times.monotonic_us.fetch_add(us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.times.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> u64 {
        self.times.monotonic_us.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_manual_clock_share_their_time() {
        let clock = ManualClock::new(1_000);
        let other = clock.clone();
        clock.advance_ms(5);
        assert_eq!((other.now_ms(), other.monotonic_us()), (1_005, 5_000));
    }

    #[test]
    fn setting_the_wall_back_leaves_monotonic_time_alone() {
        let clock = ManualClock::new(1_000);
        clock.advance_ms(7);
        clock.set_ms(10);
        assert_eq!((clock.now_ms(), clock.monotonic_us()), (10, 7_000));
    }

    #[test]
    fn the_system_clock_is_after_2020_and_its_monotonic_time_never_goes_back() {
        let clock = SystemClock::new();
        assert!(clock.now_ms() > 1_577_836_800_000);
        let first = clock.monotonic_us();
        assert!(clock.monotonic_us() >= first);
    }
}
