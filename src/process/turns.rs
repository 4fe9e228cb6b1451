//! Whose code runs next: as many evaluations at a time as there are cores, for every class in turn.
//!
//! In one line for all, a class with many instances, or with code that never ends by itself, would
//! keep all others waiting. So each class has a line of its own, of which no more than `cores` stand
//! in the common one; and a class whose code took long a moment ago has a common line with its like,
//! which gets half of the cores. Code that is quick never waits for code that is slow.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::base::clock::Clock;
use crate::base::place::QueueId;

/// A step that takes longer makes its class a slow one, microseconds.
const SLOW_US: u64 = 50_000;
/// How long it is one then at least, microseconds.
const SLOW_FOR_US: u64 = 10_000_000;
/// The same in multiples of what it took.
const SLOW_FOR: u64 = 10;
/// Lines of classes that are kept; those where nobody stands are forgotten then.
const LINES_MAX: usize = 4_096;

/// See the module.
pub(super) struct Turns {
    quick: Semaphore,
    slow: Semaphore,
    /// Evaluations of one class at a time.
    of_class: usize,
    lines: Mutex<HashMap<QueueId, Arc<Line>>>,
    clock: Arc<dyn Clock>,
}

/// Where the instances of a class stand.
struct Line {
    places: Arc<Semaphore>,
    /// Until when it is a slow one, microseconds of the clock.
    slow_until_us: AtomicU64,
}

/// A turn; over when dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    line: Arc<Line>,
    began_us: u64,
    _place: tokio::sync::OwnedSemaphorePermit,
    _core: SemaphorePermit<'a>,
}

impl Turns {
    /// For so many evaluations at a time.
    pub(super) fn new(cores: usize, clock: Arc<dyn Clock>) -> Self {
        let of_class = cores.max(1);
        Self {
            quick: Semaphore::new(of_class),
            slow: Semaphore::new(of_class.div_ceil(2)),
            of_class,
            lines: Mutex::default(),
            clock,
        }
    }

    /// Waits for a turn of a class. Dropping the future gives up its place in the line.
    pub(super) async fn take(&self, class: QueueId) -> Option<Turn<'_>> {
        let line = self.line(class);
        let place = Arc::clone(&line.places).acquire_owned().await.ok()?;
        let is_slow = line.slow_until_us.load(Ordering::Relaxed) > self.clock.monotonic_us();
        let cores = if is_slow { &self.slow } else { &self.quick };
        let core = cores.acquire().await.ok()?;
        let began_us = self.clock.monotonic_us();
        Some(Turn { turns: self, line, began_us, _place: place, _core: core })
    }

    fn line(&self, class: QueueId) -> Arc<Line> {
        let mut lines = self.lines.lock();
        if lines.len() >= LINES_MAX && !lines.contains_key(&class) {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        let new = || {
            let places = Arc::new(Semaphore::new(self.of_class));
            Arc::new(Line { places, slow_until_us: AtomicU64::new(0) })
        };
        Arc::clone(lines.entry(class).or_insert_with(new))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now_us = self.turns.clock.monotonic_us();
        let took_us = now_us.saturating_sub(self.began_us);
        if took_us > SLOW_US {
            let until_us = now_us + SLOW_FOR_US.max(took_us.saturating_mul(SLOW_FOR));
            self.line.slow_until_us.fetch_max(until_us, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => ready,
            Poll::Pending => None,
        }
    }

    #[test]
    fn quick_code_does_not_wait_for_code_that_is_slow() {
        let clock = Arc::new(ManualClock::new(1_000));
        let turns = Turns::new(2, Arc::clone(&clock) as Arc<dyn Clock>);
        let take = |class| now(turns.take(class));
        let (one, other) = (take(1), take(1));
        assert!(one.is_some() && other.is_some(), "as many as there are cores");
        assert!(take(1).is_none() && take(2).is_none(), "and no more");
        clock.advance_monotonic_us(SLOW_US + 1);
        drop((one, other));
        let slow = take(1);
        assert!(slow.is_some());
        assert!(take(1).is_none(), "half of the cores");
        assert!(take(2).is_some(), "others do not wait");
        drop(slow);
        clock.advance_monotonic_us(SLOW_FOR_US + 1);
        let (one, other) = (take(1), take(1));
        assert!(one.is_some() && other.is_some(), "it is forgiven in time");
    }
}
