//! Who waits for what becomes of a slot or of the cascade that it began, and who is to be told.
//!
//! Only those of this engine are told; a wait looks again now and then for what other engines did.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::base::clock::Clock;
use crate::base::place::PartitionNumber;
use crate::process::keys::Address;
use crate::state::effect::Sequence;

/// See the module.
#[derive(Default)]
pub(super) struct Board {
    waiting: Mutex<HashMap<Place, Waiting>>,
}

/// A message, without its time.
type Place = (PartitionNumber, Sequence);

struct Waiting {
    notify: Arc<Notify>,
    count: usize,
}

/// How often whoever waits looks for what other engines did.
const LOOK: Duration = Duration::from_millis(250);

/// Until when somebody waits.
pub(super) struct Deadline<'a> {
    clock: &'a dyn Clock,
    until_us: u64,
}

impl<'a> Deadline<'a> {
    /// So long from now.
    pub(super) fn after(clock: &'a dyn Clock, patience: Duration) -> Self {
        let patience_us = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        Self { clock, until_us: clock.monotonic_us().saturating_add(patience_us) }
    }

    fn left(&self) -> Duration {
        Duration::from_micros(self.until_us.saturating_sub(self.clock.monotonic_us()))
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Waits for news, or until it is worth a look all the same.
    pub(super) async fn rest(&self, news: impl Future<Output = ()>) {
        // Whether there is news, the next look tells.
        let _ = timeout(self.left().min(LOOK), news).await;
    }
}

/// A place on the board; gone when dropped.
pub(super) struct Seat<'a> {
    board: &'a Board,
    place: Place,
    pub(super) notify: Arc<Notify>,
}

impl Board {
    /// Waits for news of a message and what came of it.
    pub(super) fn sit(&self, partition: PartitionNumber, seq: Sequence) -> Seat<'_> {
        let place = (partition, seq);
        let mut waiting = self.waiting.lock();
        let new = || Waiting { notify: Arc::default(), count: 0 };
        let entry = waiting.entry(place).or_insert_with(new);
        entry.count += 1;
        Seat { board: self, place, notify: Arc::clone(&entry.notify) }
    }

    /// Something became of a message, or of the cascade that it began.
    pub(super) fn tell(&self, message: Address) {
        if let Some(waiting) = self.waiting.lock().get(&(message.partition, message.seq)) {
            waiting.notify.notify_waiters();
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut waiting = self.board.waiting.lock();
        if let Some(entry) = waiting.get_mut(&self.place) {
            entry.count -= 1;
            if entry.count == 0 {
                waiting.remove(&self.place);
            }
        }
    }
}
