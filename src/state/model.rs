//! What a shard knows in memory: partitions, cursors, leases, groups.
//!
//! Sizes matter here: a server with a million partitions holds a million [`Partition`]s. Plain data;
//! changed by `apply` only, read by `draft`.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::base::place::QueueId;
use crate::state::effect::{GroupIndex, GroupStart, LeaseToken, Progress, Sequence};

/// Where consecutive records of a partition lie in the log: one effect that holds a batch, or
/// several that stand in a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// Sequence of its first record.
    pub first_seq: Sequence,
    /// Log position of the first effect.
    pub position: u64,
    /// When it was pushed, unix milliseconds.
    pub time_ms: u64,
    /// Bytes of its effects.
    pub len: u32,
    /// Its records.
    pub count: u32,
}

impl Run {
    /// Bytes up to which runs are joined: small pops should not touch much more than they return.
    const JOINED_BYTES_MAX: u32 = 256 * 1024;

    /// Joins `next` to this run if it stands right behind it in the log, and in the partition.
    pub(super) fn join(&mut self, next: &Run) -> bool {
        let in_a_row = self.position + u64::from(self.len) == next.position
            && self.end_seq() == next.first_seq
            && self.time_ms == next.time_ms;
        let len = self.len.saturating_add(next.len);
        if !in_a_row || len > Self::JOINED_BYTES_MAX {
            return false;
        }
        (self.len, self.count) = (len, self.count.saturating_add(next.count));
        true
    }

    /// Behind its last sequence.
    #[must_use]
    pub fn end_seq(&self) -> Sequence {
        self.first_seq + u64::from(self.count)
    }
}

/// One partition.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its name in its queue.
    pub name: Box<str>,
    /// Sequence that the next message gets.
    pub next_seq: Sequence,
    /// First sequence that is kept.
    pub base_seq: Sequence,
    /// Runs before this sequence are rows of the key-value store and perhaps not in `runs`.
    pub stored_seq: Sequence,
    /// When its newest message was pushed, unix milliseconds; zero before the first.
    pub newest_ms: u64,
    /// The newest runs, ascending, without a gap to `next_seq`.
    pub runs: SmallVec<[Run; 1]>,
    /// One cursor for each group of the queue that this shard knows.
    pub cursors: SmallVec<[Cursor; 1]>,
    /// How many of them have settled everything: only these change when a message comes.
    pub at_end: u32,
    /// Its queue.
    pub queue: QueueId,
    /// False when its queue was deleted; its number is never used again.
    pub live: bool,
    /// Changed since the last checkpoint.
    pub dirty: bool,
}

/// One group's place in one partition.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// Everything below is settled.
    pub next: Sequence,
    /// The group.
    pub group: GroupIndex,
    /// In the group's list of partitions with work.
    pub ready: bool,
    /// Has work, and waits for its time among the shard's sleepers instead; see [`super::sleep`].
    pub asleep: bool,
    /// Who holds messages now.
    pub lease: Option<Box<Lease>>,
    /// What lies beyond `next`, where there is anything.
    pub beyond: Option<Box<Beyond>>,
}

/// Settled ranges and failed attempts beyond a cursor.
#[derive(Clone, Debug, Default)]
pub struct Beyond {
    /// As in [`Progress::settled`].
    pub settled: Vec<(Sequence, Sequence)>,
    /// As in [`Progress::attempts`].
    pub attempts: Vec<(Sequence, u32)>,
    /// As in [`Progress::not_before_ms`].
    pub not_before_ms: u64,
}

/// Messages held by one consumer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Its fencing token.
    pub token: LeaseToken,
    /// When it ends, unix milliseconds.
    pub until_ms: u64,
    /// First sequence that is held.
    pub from: Sequence,
    /// Behind the last sequence that is held.
    pub to: Sequence,
}

impl Cursor {
    /// A cursor of `group` before which everything is settled.
    #[must_use]
    pub fn at(next: Sequence, group: GroupIndex) -> Self {
        Self { next, group, ready: false, asleep: false, lease: None, beyond: None }
    }

    /// How many messages are settled, from sequence 0 on.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let beyond = self.beyond.iter().flat_map(|it| &it.settled);
        self.next + beyond.map(|(first, last)| last - first + 1).sum::<u64>()
    }

    /// The cursor's progress, whole.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match &self.beyond {
            None => Progress { next: self.next, ..Progress::default() },
            Some(beyond) => Progress {
                next: self.next,
                settled: beyond.settled.clone(),
                attempts: beyond.attempts.clone(),
                not_before_ms: beyond.not_before_ms,
            },
        }
    }

    pub(super) fn set_progress(&mut self, progress: Progress) {
        self.next = progress.next;
        let Progress { settled, attempts, not_before_ms, .. } = progress;
        let is_beyond = !settled.is_empty() || !attempts.is_empty() || not_before_ms > 0;
        self.beyond = is_beyond.then(|| Box::new(Beyond { settled, attempts, not_before_ms }));
    }
}

/// One consumer group of one queue, as far as this shard is concerned.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its queue.
    pub queue: QueueId,
    /// Its name.
    pub name: Box<str>,
    /// Where it began.
    pub start: GroupStart,
    /// Local indexes of partitions with work, in turn. May hold stale ones: a cursor's `ready`
    /// decides.
    pub ready: VecDeque<u32>,
    /// How many partitions really have work.
    pub ready_count: usize,
    /// The same in numbers that cost nothing to ask for.
    pub standing: Standing,
    /// False when it or its queue was deleted.
    pub live: bool,
}

impl Group {
    /// It or its queue is gone.
    pub(super) fn end(&mut self) {
        self.live = false;
        (self.ready, self.ready_count, self.standing) = Default::default();
    }
}

/// How a group stands in its shard, over all partitions of its queue there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// Messages settled, from each partition's sequence 0 on.
    pub settled: u64,
    /// Partitions with messages that are not settled.
    pub open_partitions: u64,
    /// Partitions under lease.
    pub leased: u64,
}
