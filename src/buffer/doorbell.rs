//! Waking the lane: cheap while it is awake, one system call when it sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A bell that one thread listens to. A ring is never lost: a sleep that begins after it ends at
/// once.
#[derive(Debug, Default)]
pub struct Doorbell {
    rung: AtomicBool,
    asleep: Mutex<bool>,
    woken: Condvar,
}

impl Doorbell {
    /// Wakes the lane, or keeps it from falling asleep.
    pub fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let asleep = self.asleep.lock();
        if *asleep {
            self.woken.notify_one();
        }
    }

    /// Forgets rings so far; call before looking for work.
    pub fn listen(&self) {
        // Not a plain store: whoever found the bell rung already did its work before, and this
        // must see it.
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Sleeps until the bell rings or `most` has passed; returns at once if it rang since
    /// [`Self::listen`].
    pub fn sleep(&self, most: Duration) {
        let mut asleep = self.asleep.lock();
        if self.rung.load(Ordering::Acquire) {
            return;
        }
        *asleep = true;
        self.woken.wait_for(&mut asleep, most);
        *asleep = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_sleep_ends_it_at_once() {
        let bell = Doorbell::default();
        bell.listen();
        bell.ring();
        bell.sleep(Duration::from_secs(3600));
    }

    #[test]
    fn a_ring_from_another_thread_ends_the_sleep() {
        let bell = std::sync::Arc::new(Doorbell::default());
        bell.listen();
        let other = std::sync::Arc::clone(&bell);
        let ringer = std::thread::spawn(move || other.ring());
        bell.sleep(Duration::from_secs(3600));
        ringer.join().unwrap();
    }
}
