//! Places of the work list: how many pops of instances are worked off at a time, and by whose leave.
//!
//! Every class has one place of its own, whatever the others do, and may have half of those that all
//! share. So classes whose code takes long, however many they are and by whatever way their messages
//! come, keep no other class from being evaluated. In: a class. Out: a seat, which is a place until it is
//! dropped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::place::QueueId;

/// Classes that are kept; those that have no place are forgotten then.
const CLASSES_MAX: usize = 4_096;

/// See the module.
pub(super) struct Places {
    shared: Arc<Semaphore>,
    /// Of those, how many one class may have.
    of_class: usize,
    classes: Mutex<HashMap<QueueId, Arc<OfClass>>>,
}

/// What one class may have.
struct OfClass {
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

/// A place of the work list; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    /// The class's own; or one of the shared, by leave of the class and of all.
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Places {
    /// So many that all share, beside those that are a class's own.
    pub(super) fn new(shared: usize) -> Self {
        let shared = shared.max(1);
        let of_class = (shared / 2).max(1);
        Self { shared: Arc::new(Semaphore::new(shared)), of_class, classes: Mutex::default() }
    }

    /// Waits for a place for a class; whoever waits longer comes first. Dropping the future gives up its
    /// turn. `None` never happens before the end.
    pub(super) async fn take(&self, class: QueueId) -> Option<Seat> {
        let mine = self.of(class);
        let shared = async {
            let of_class = Arc::clone(&mine.shared).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.shared).acquire_owned().await.ok()?;
            Some(Seat { _permits: (of_class, Some(of_all)) })
        };
        tokio::select! {
            biased;
            own = Arc::clone(&mine.own).acquire_owned() => {
                Some(Seat { _permits: (own.ok()?, None) })
            }
            seat = shared => seat,
        }
    }

    /// A place for a class, if there is one that nobody waits for.
    pub(super) fn try_take(&self, class: QueueId) -> Option<Seat> {
        let mine = self.of(class);
        if let Ok(own) = Arc::clone(&mine.own).try_acquire_owned() {
            return Some(Seat { _permits: (own, None) });
        }
        let of_class = Arc::clone(&mine.shared).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.shared).try_acquire_owned().ok()?;
        Some(Seat { _permits: (of_class, Some(of_all)) })
    }

    fn of(&self, class: QueueId) -> Arc<OfClass> {
        let mut classes = self.classes.lock();
        if classes.len() >= CLASSES_MAX && !classes.contains_key(&class) {
            // A permit that is out holds its semaphore.
            let is_used = |it: &Arc<OfClass>| {
                let all = [&it.own, &it.shared].map(Arc::strong_count);
                Arc::strong_count(it) > 1 || all.iter().any(|count| *count > 1)
            };
            classes.retain(|_, it| is_used(it));
        }
        let new = || OfClass {
            own: Arc::new(Semaphore::new(1)),
            shared: Arc::new(Semaphore::new(self.of_class)),
        };
        Arc::clone(classes.entry(class).or_insert_with(|| Arc::new(new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn now(places: &Places, class: QueueId) -> Option<Seat> {
        match pin!(places.take(class)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => ready,
            Poll::Pending => None,
        }
    }

    #[test]
    fn classes_that_have_all_shared_places_leave_every_other_one_of_its_own() {
        let places = Places::new(4);
        let mut seats: Vec<Seat> = Vec::new();
        for (class, most) in [(1, 3), (2, 3)] {
            for at in 0..most {
                let seat = if at % 2 == 0 { now(&places, class) } else { places.try_take(class) };
                seats.push(seat.expect("its own, and half of the shared"));
            }
            assert!(now(&places, class).is_none() && places.try_take(class).is_none());
        }
        let third = now(&places, 3);
        assert!(third.is_some(), "its own");
        assert!(now(&places, 3).is_none(), "and no other is left");
        assert!(places.try_take(4).is_some(), "of whatever class");
        seats.clear();
        let more: Vec<Seat> = (0..2).filter_map(|_| now(&places, 3)).collect();
        assert_eq!(more.len(), 2, "half of the shared");
        drop(third);
        assert!(places.try_take(3).is_some(), "and its own again");
    }

    #[test]
    fn classes_without_a_place_are_forgotten_and_those_with_one_are_not() {
        let places = Places::new(2);
        let kept = places.try_take(0);
        for class in 1..=CLASSES_MAX as QueueId + 1 {
            assert!(places.try_take(class).is_some());
        }
        assert!(places.classes.lock().len() < CLASSES_MAX);
        let shared = places.try_take(0);
        assert!(shared.is_some(), "one of the shared");
        assert!(places.try_take(0).is_none(), "its own is taken still");
        drop((kept, shared));
    }
}
