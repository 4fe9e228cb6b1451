//! Post: what one thread leaves for a task that serves many requests.
//!
//! In: items from any thread. Out: all of them at once, at the next look. Several boxes may share
//! one bell, so that a task which waits for many kinds of mail waits for one thing. Called by
//! whoever answers a connection, and by the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Items on their way to one task.
#[derive(Debug)]
pub struct Mailbox<T> {
    items: Mutex<Vec<T>>,
    is_closed: AtomicBool,
    bell: Arc<Notify>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl<T> Mailbox<T> {
    /// An empty box that rings `bell` when its first item comes.
    #[must_use]
    pub fn new(bell: Arc<Notify>) -> Self {
        Self { items: Mutex::new(Vec::new()), is_closed: AtomicBool::new(false), bell }
    }

    /// Leaves an item; gives it back when nobody will look any more.
    ///
    /// # Errors
    /// The item itself, after [`Self::close`].
    pub fn put(&self, item: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(item);
        }
        let mut items = self.items.lock();
        let is_first = items.is_empty();
        items.push(item);
        drop(items);
        if is_first {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes all items that are there, into an empty `out`.
    pub fn take(&self, out: &mut Vec<T>) {
        std::mem::swap(out, &mut *self.items.lock());
    }

    /// Waits until there may be an item; may return without one. One waiter at a time for all boxes
    /// that share a bell.
    pub async fn arrived(&self) {
        self.bell.notified().await;
    }

    /// Nobody looks any more. What is there already is dropped with the box.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Whether nobody looks any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn boxes_with_one_bell_wake_one_waiter_and_keep_their_items() {
        let bell = Arc::new(Notify::new());
        let (numbers, words) = (Mailbox::new(Arc::clone(&bell)), Mailbox::new(bell));
        numbers.put(1).unwrap();
        numbers.put(2).unwrap();
        words.put("a").unwrap();
        words.arrived().await;
        let (mut all_numbers, mut all_words) = (Vec::new(), Vec::new());
        numbers.take(&mut all_numbers);
        words.take(&mut all_words);
        assert_eq!((all_numbers, all_words), (vec![1, 2], vec!["a"]));
    }

    #[test]
    fn a_closed_box_gives_back_what_comes() {
        let closed = Mailbox::default();
        closed.close();
        assert_eq!(closed.put(7), Err(7));
    }
}
