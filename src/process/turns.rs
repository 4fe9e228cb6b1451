//! Whose code runs next: as many evaluations at a time as there are cores, for every class in turn.
//!
//! In one line for all, a class with many instances, or with code that never ends by itself, would
//! keep all others waiting. So each class has a line of its own, of which no more than `cores` stand
//! in the common one; and a class whose code took long a moment ago has a common line with its like,
//! which gets half of the cores. Code that turns out to be slow gives its core back while it still runs:
//! code that is quick waits for it no longer than that takes to show.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

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
    /// Microseconds of it in which its code waited for the store.
    waited_us: Arc<AtomicU64>,
    is_slow: bool,
    _place: tokio::sync::OwnedSemaphorePermit,
    core: Option<SemaphorePermit<'a>>,
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

    /// Waits for a turn of a class. Dropping the future gives up its place in the line. What `waited_us`
    /// grows by is not counted as time of its code.
    pub(super) async fn take(
        &self,
        class: QueueId,
        waited_us: &Arc<AtomicU64>,
    ) -> Option<Turn<'_>> {
        let line = self.line(class);
        let place = Arc::clone(&line.places).acquire_owned().await.ok()?;
        let is_slow = line.slow_until_us.load(Ordering::Relaxed) > self.clock.monotonic_us();
        let cores = if is_slow { &self.slow } else { &self.quick };
        let core = cores.acquire().await.ok();
        core.as_ref()?;
        let (began_us, waited_us) = (self.clock.monotonic_us(), Arc::clone(waited_us));
        waited_us.store(0, Ordering::Relaxed);
        Some(Turn { turns: self, line, began_us, waited_us, is_slow, _place: place, core })
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

impl Turn<'_> {
    /// Waits for the code whose turn it is. Where that takes long, its class is a slow one from then on, and
    /// its core somebody else's; when a core for such code is free, it is held back for this one.
    pub(super) async fn run<T>(&mut self, code: impl Future<Output = T>) -> T {
        self.began_us = self.turns.clock.monotonic_us();
        tokio::pin!(code);
        while !self.is_slow {
            let left = Duration::from_micros(SLOW_US.saturating_sub(self.took_us()) + 1);
            tokio::select! {
                biased;
                done = &mut code => return done,
                () = sleep(left) => {}
            }
            self.is_slow = self.took_us() > SLOW_US;
            if self.is_slow {
                self.mark();
                self.core = None;
            }
        }
        if self.core.is_none() {
            let turns = self.turns;
            tokio::select! {
                biased;
                done = &mut code => return done,
                core = turns.slow.acquire() => self.core = core.ok(),
            }
        }
        code.await
    }

    /// Microseconds that its code took until now.
    fn took_us(&self) -> u64 {
        let took_us = self.turns.clock.monotonic_us().saturating_sub(self.began_us);
        took_us.saturating_sub(self.waited_us.load(Ordering::Relaxed))
    }

    /// Its class is a slow one, for longer the longer this takes.
    fn mark(&self) {
        let long_us = SLOW_FOR_US.max(self.took_us().saturating_mul(SLOW_FOR));
        let until_us = self.turns.clock.monotonic_us() + long_us;
        self.line.slow_until_us.fetch_max(until_us, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.took_us() > SLOW_US {
            self.mark();
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
        let waited = Arc::default();
        let take = |class| now(turns.take(class, &waited));
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

    #[tokio::test]
    async fn code_that_turns_out_to_be_slow_gives_its_core_back_while_it_runs() {
        let clock = Arc::new(ManualClock::new(1_000));
        let turns = Turns::new(1, Arc::clone(&clock) as Arc<dyn Clock>);
        let waited = Arc::default();
        let mut first = now(turns.take(1, &waited)).expect("a core");
        assert!(now(turns.take(2, &waited)).is_none(), "there is one");
        let running = first.run(std::future::pending::<()>());
        let others = async {
            clock.advance_monotonic_us(SLOW_US + 1);
            while now(turns.take(2, &waited)).is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(now(turns.take(1, &waited)).is_none(), "but no more of its like");
        };
        tokio::select! {
            // It begins before the clock goes on.
            biased;
            () = running => panic!("it never ends"),
            () = others => {}
        }
    }

    #[test]
    fn time_in_which_code_waits_for_the_store_does_not_make_it_slow() {
        let clock = Arc::new(ManualClock::new(1_000));
        let turns = Turns::new(2, Arc::clone(&clock) as Arc<dyn Clock>);
        let waited = Arc::default();
        for (store_us, expected) in [(SLOW_US, 2), (0, 1)] {
            let turn = now(turns.take(1, &waited)).expect("a core");
            waited.fetch_add(store_us, Ordering::Relaxed);
            clock.advance_monotonic_us(SLOW_US + 1);
            drop(turn);
            let all = [(), ()].map(|()| now(turns.take(1, &waited)));
            assert_eq!(all.iter().flatten().count(), expected, "{store_us}");
        }
    }
}
