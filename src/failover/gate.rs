//! Which partitions have batches that wait: what comes for them now goes behind those.
//!
//! Partitions are known by their placing hash. Two of them with one hash only wait for each other.
//! Pure; called by the lane.

use hashbrown::HashMap;

/// Batches that wait, by partition.
#[derive(Debug, Default)]
pub struct Gate {
    waiting: HashMap<u64, u32, foldhash::fast::RandomState>,
}

impl Gate {
    /// A batch waits.
    pub fn close(&mut self, hash: u64) {
        *self.waiting.entry(hash).or_default() += 1;
    }

    /// A batch of those that waited is through.
    pub fn pass(&mut self, hash: u64) {
        if let Some(count) = self.waiting.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&hash);
            }
        }
    }

    /// Whether batches of this partition wait.
    #[must_use]
    pub fn is_closed(&self, hash: u64) -> bool {
        self.waiting.contains_key(&hash)
    }

    /// Whether nothing waits at all.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_open_again_when_all_of_its_batches_are_through() {
        let mut gate = Gate::default();
        gate.close(1);
        gate.close(1);
        gate.close(2);
        gate.pass(1);
        assert!(gate.is_closed(1) && gate.is_closed(2) && !gate.is_closed(3));
        gate.pass(1);
        assert!(!gate.is_closed(1) && !gate.is_open());
        gate.pass(2);
        gate.pass(2);
        assert!(gate.is_open());
    }
}
