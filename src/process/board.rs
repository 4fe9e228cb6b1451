//! Who waits for what becomes of a slot or of the cascade that it began, and who is to be told.
//!
//! Only those of this engine are told; a wait looks again now and then for what other engines did.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

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
