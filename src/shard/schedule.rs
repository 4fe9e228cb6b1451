//! When the lane does what nobody asked for: checkpoints and retention. Pure.

/// Times of upkeep, in the clock's microseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Schedule {
    checkpoint_every_us: u64,
    retention_every_us: u64,
    checkpoint_at_us: u64,
    retention_at_us: u64,
    /// `u64::MAX` while nobody wants to look for space.
    reclaim_at_us: u64,
    /// The shard whose turn comes next.
    turn: u16,
    is_under_way: bool,
}

impl Schedule {
    /// A schedule that starts at `now_us`.
    #[must_use]
    pub fn new(checkpoint_ms: u64, retention_ms: u64, now_us: u64) -> Self {
        let (checkpoint_every_us, retention_every_us) =
            (checkpoint_ms.max(1) * 1000, retention_ms.max(1) * 1000);
        Self {
            checkpoint_every_us,
            retention_every_us,
            checkpoint_at_us: now_us + checkpoint_every_us,
            retention_at_us: now_us + retention_every_us,
            reclaim_at_us: u64::MAX,
            turn: 0,
            is_under_way: false,
        }
    }

    /// When the lane should wake for upkeep; checkpoints only matter where there are changes.
    #[must_use]
    pub fn next_us(&self, has_changes: bool) -> Option<u64> {
        let upkeep = self.retention_at_us.min(self.reclaim_at_us);
        Some(upkeep.min(self.next_checkpoint_us(has_changes).unwrap_or(u64::MAX)))
    }

    /// The same while nothing can be committed.
    #[must_use]
    pub fn next_checkpoint_us(&self, has_changes: bool) -> Option<u64> {
        (has_changes && !self.is_under_way).then_some(self.checkpoint_at_us)
    }

    /// Whether retention is due; if so, the next one is an interval later.
    pub fn take_retention(&mut self, now_us: u64) -> bool {
        let is_due = self.retention_at_us <= now_us;
        if is_due {
            self.retention_at_us = now_us + self.retention_every_us;
        }
        is_due
    }

    /// The next retention comes at `at_us` at the latest: the one before left something to do.
    pub fn retain_by(&mut self, at_us: u64) {
        self.retention_at_us = self.retention_at_us.min(at_us);
    }

    /// Whether it is time to look for space in the log; if so, it is not until somebody asks.
    pub fn take_reclaim(&mut self, now_us: u64) -> bool {
        let is_due = self.reclaim_at_us <= now_us;
        if is_due {
            self.reclaim_at_us = u64::MAX;
        }
        is_due
    }

    /// Asks to look for space in the log at `at_us` at the latest.
    pub fn reclaim_by(&mut self, at_us: u64) {
        self.reclaim_at_us = self.reclaim_at_us.min(at_us);
    }

    /// Whether a checkpoint is being written.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// Where a checkpoint may begin, the shards whose turn it is: from whoever comes next to the last.
    #[must_use]
    pub fn turns(&self, shards: u16, now_us: u64) -> Option<std::ops::Range<u16>> {
        let may = !self.is_under_way && self.checkpoint_at_us <= now_us;
        may.then_some(self.turn..shards)
    }

    /// A checkpoint begins, of shards up to and without `next`.
    pub fn begin(&mut self, next: u16, shards: u16) {
        self.is_under_way = true;
        self.turn = if next < shards { next } else { 0 };
    }

    /// The checkpoint under way ended. The next shards follow at once until the turn comes round;
    /// then there is a pause.
    pub fn end(&mut self, now_us: u64) {
        if std::mem::take(&mut self.is_under_way) && self.turn == 0 {
            self.checkpoint_at_us = now_us + self.checkpoint_every_us;
        }
    }

    /// No shard whose turn it is has anything to write: pause.
    pub fn rest(&mut self, now_us: u64) {
        self.turn = 0;
        self.checkpoint_at_us = now_us + self.checkpoint_every_us;
    }

    /// Something has grown too large to wait for the pause to end.
    pub fn hurry(&mut self, now_us: u64) {
        self.checkpoint_at_us = self.checkpoint_at_us.min(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_take_turns_and_a_pause_follows_the_last() {
        let mut schedule = Schedule::new(5, 1_000, 0);
        assert!(schedule.turns(2, 4_999).is_none());
        for shard in [0, 2] {
            assert_eq!(schedule.turns(3, 5_000), Some(shard..3));
            schedule.begin(shard + 2, 3);
            assert_eq!(schedule.turns(3, 5_000), None, "one at a time");
            schedule.end(5_000);
        }
        assert_eq!(schedule.turns(3, 9_999), None);
        assert_eq!(schedule.turns(3, 10_000), Some(0..3));
        schedule.rest(10_000);
        assert_eq!(schedule.turns(3, 14_999), None);
        schedule.hurry(12_000);
        assert_eq!(schedule.turns(3, 12_000), Some(0..3));
    }

    #[test]
    fn retention_comes_once_an_interval() {
        let mut schedule = Schedule::new(5, 10, 0);
        assert!(!schedule.take_retention(9_999));
        assert!(schedule.take_retention(10_000));
        assert!(!schedule.take_retention(10_001));
        schedule.retain_by(10_500);
        assert_eq!(schedule.next_us(false), Some(10_500));
        assert_eq!(schedule.next_checkpoint_us(false), None, "it needs a commit");
        assert!(schedule.take_retention(10_500));
        assert!(!schedule.take_retention(20_499));
    }

    #[test]
    fn space_is_looked_for_once_each_time_that_somebody_asks() {
        let mut schedule = Schedule::new(5, 1_000, 0);
        assert!(!schedule.take_reclaim(u64::MAX - 1));
        schedule.reclaim_by(300);
        schedule.reclaim_by(700);
        assert_eq!(schedule.next_us(false), Some(300));
        assert!(!schedule.take_reclaim(299));
        assert!(schedule.take_reclaim(300));
        assert!(!schedule.take_reclaim(800));
    }
}
