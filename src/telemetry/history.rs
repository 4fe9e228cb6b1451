//! The last hours in figures, minute by minute, in memory only.
//!
//! In: what was counted so far, once a minute, in all and by queue. Out: what happened in any span of
//! time, in buckets. Bounded in minutes and in queues, whatever happens. Filled and read by the HTTP
//! door.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::telemetry::queues::OTHER;

/// Minutes that are kept.
const MINUTES_MAX: usize = 24 * 60;
/// Minutes that are kept of each queue, and queues that are kept.
const QUEUE_MINUTES_MAX: usize = 6 * 60;
const QUEUES_MAX: usize = 100;
/// Groups, and queues with dead letters, that the newest sample tells one by one.
const NEWEST_MAX: usize = 1_000;

/// Everything counted since the start, and some numbers of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each is a counter of telemetry by its own name")]
pub struct Snapshot {
    /// When, unix milliseconds.
    pub time_ms: u64,
    pub pushed: u64,
    pub push_requests: u64,
    pub popped: u64,
    pub pop_requests: u64,
    pub pop_empty: u64,
    pub acked: u64,
    pub ack_requests: u64,
    pub ack_failed: u64,
    pub dead: u64,
    pub errors: u64,
    pub retained: u64,
    pub completed_gone: u64,
    pub expired: u64,
    pub removals: u64,
    pub commits: u64,
    pub user_us: u64,
    pub system_us: u64,
    /// Of the moment: memory, bytes.
    pub rss_bytes: u64,
    pub virtual_bytes: u64,
    /// Of the moment: open messages.
    pub pending: u64,
    /// Of the moment: the age of the oldest open message of each queue, on average and at most.
    pub lag_avg_ms: u64,
    pub lag_max_ms: u64,
    /// Of the moment: connections over the binary protocol.
    pub connections: u64,
    /// Of the moment: connections to the database that work and that rest.
    pub db_active: u64,
    pub db_idle: u64,
}

/// The same of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "as in Snapshot")]
pub struct QueueSnapshot {
    pub time_ms: u64,
    pub pushed: u64,
    pub dead: u64,
    /// What this server was asked and did, as [`super::queues`] counts it: messages that were handed out
    /// and completed, of all groups together, and requests.
    pub popped: u64,
    pub acked: u64,
    pub push_requests: u64,
    pub pop_empty: u64,
    pub ack_requests: u64,
    pub ack_refused: u64,
    pub transactions: u64,
    /// Whether they were counted for this queue.
    pub has_requests: bool,
    /// Of the moment.
    pub partitions: u64,
    pub parked: u64,
    pub lag_ms: u64,
    /// Partitions that came and that went, as far as one sample showed more or fewer than the one before.
    pub partitions_made: u64,
    pub partitions_gone: u64,
}

/// What happened in a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket<T> {
    /// When it begins, unix milliseconds.
    pub start_ms: u64,
    /// How long it is, seconds.
    pub seconds: f64,
    /// How much was counted in it; what is of the moment is as at its end.
    pub counted: T,
}

/// Something that is counted.
pub trait Counted: Copy + Default {
    /// When it was counted, unix milliseconds.
    fn time_ms(&self) -> u64;
    /// What came since an earlier one.
    fn since(&self, earlier: &Self) -> Self;
}

impl Counted for Snapshot {
    fn time_ms(&self) -> u64 {
        self.time_ms
    }

    fn since(&self, earlier: &Self) -> Self {
        let more = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        Self {
            pushed: more(|it| it.pushed),
            push_requests: more(|it| it.push_requests),
            popped: more(|it| it.popped),
            pop_requests: more(|it| it.pop_requests),
            pop_empty: more(|it| it.pop_empty),
            acked: more(|it| it.acked),
            ack_requests: more(|it| it.ack_requests),
            ack_failed: more(|it| it.ack_failed),
            dead: more(|it| it.dead),
            errors: more(|it| it.errors),
            retained: more(|it| it.retained),
            completed_gone: more(|it| it.completed_gone),
            expired: more(|it| it.expired),
            removals: more(|it| it.removals),
            commits: more(|it| it.commits),
            user_us: more(|it| it.user_us),
            system_us: more(|it| it.system_us),
            ..*self
        }
    }
}

impl Counted for QueueSnapshot {
    fn time_ms(&self) -> u64 {
        self.time_ms
    }

    fn since(&self, earlier: &Self) -> Self {
        let more = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        Self {
            pushed: more(|it| it.pushed),
            dead: more(|it| it.dead),
            popped: more(|it| it.popped),
            acked: more(|it| it.acked),
            push_requests: more(|it| it.push_requests),
            pop_empty: more(|it| it.pop_empty),
            ack_requests: more(|it| it.ack_requests),
            ack_refused: more(|it| it.ack_refused),
            transactions: more(|it| it.transactions),
            partitions_made: more(|it| it.partitions_made),
            partitions_gone: more(|it| it.partitions_gone),
            ..*self
        }
    }
}

/// How a group of a queue stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GroupNow {
    /// The queue.
    pub queue: Box<str>,
    /// The group.
    pub group: Box<str>,
    /// Messages that it has not settled.
    pub behind: u64,
    /// When the oldest of them was pushed, unix milliseconds.
    pub oldest_ms: Option<u64>,
}

/// What is true of the moment of the newest sample only.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Newest {
    /// When it was taken, unix milliseconds; 0 before the first one.
    pub time_ms: u64,
    /// Groups, the one that is furthest behind first; what does not fit is under [`OTHER`].
    pub groups: Vec<GroupNow>,
    /// Queues with dead letters, the one with the most first; what does not fit is under [`OTHER`].
    pub dead: Vec<(Box<str>, u64)>,
}

impl Newest {
    /// As many as are kept of these; the rest of them is one.
    #[must_use]
    pub fn of(time_ms: u64, mut groups: Vec<GroupNow>, mut dead: Vec<(Box<str>, u64)>) -> Self {
        groups.sort_by_key(|it| std::cmp::Reverse(it.behind));
        dead.sort_by_key(|it| std::cmp::Reverse(it.1));
        let rest = groups.drain(NEWEST_MAX.min(groups.len())..);
        let rest = rest.reduce(|sum, it| GroupNow {
            behind: sum.behind + it.behind,
            oldest_ms: [sum.oldest_ms, it.oldest_ms].into_iter().flatten().min(),
            ..sum
        });
        groups.extend(rest.map(|it| GroupNow { queue: OTHER.into(), group: OTHER.into(), ..it }));
        let rest: u64 = dead.drain(NEWEST_MAX.min(dead.len())..).map(|(_, count)| count).sum();
        dead.extend((rest > 0).then(|| (OTHER.into(), rest)));
        Self { time_ms, groups, dead }
    }
}

#[derive(Debug, Default)]
struct Kept {
    newest: Arc<Newest>,
    all: VecDeque<Snapshot>,
    queues: BTreeMap<Box<str>, VecDeque<QueueSnapshot>>,
}

/// The last hours.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

impl History {
    /// Takes the figures of a minute. Queues that are not among them are forgotten; of more than are
    /// kept, those that have had the most messages stay.
    pub fn take(&self, all: Snapshot, mut queues: Vec<(Box<str>, QueueSnapshot)>) {
        queues.sort_by(|a, b| b.1.pushed.cmp(&a.1.pushed).then_with(|| a.0.cmp(&b.0)));
        queues.truncate(QUEUES_MAX);
        let mut kept = self.0.lock();
        push(&mut kept.all, all, MINUTES_MAX);
        kept.queues.retain(|name, _| queues.iter().any(|(it, _)| it == name));
        for (name, mut snapshot) in queues {
            let its = kept.queues.entry(name).or_default();
            if let Some(last) = its.back() {
                let (before, now) = (last.partitions, snapshot.partitions);
                snapshot.partitions_made = last.partitions_made + now.saturating_sub(before);
                snapshot.partitions_gone = last.partitions_gone + before.saturating_sub(now);
            }
            push(its, snapshot, QUEUE_MINUTES_MAX);
        }
    }

    /// Takes what is true of the moment.
    pub fn take_newest(&self, newest: Newest) {
        self.0.lock().newest = Arc::new(newest);
    }

    /// What was true of the moment of the newest sample.
    #[must_use]
    pub fn newest(&self) -> Arc<Newest> {
        Arc::clone(&self.0.lock().newest)
    }

    /// What happened in a range, oldest first.
    #[must_use]
    pub fn buckets(&self, from_ms: u64, to_ms: u64, bucket_ms: u64) -> Vec<Bucket<Snapshot>> {
        buckets(&self.0.lock().all, from_ms, to_ms, bucket_ms)
    }

    /// The same by queue, of one or of all that are kept.
    #[must_use]
    pub fn queue_buckets(
        &self,
        queue: Option<&str>,
        (from_ms, to_ms): (u64, u64),
        bucket_ms: u64,
    ) -> Vec<(Box<str>, Vec<Bucket<QueueSnapshot>>)> {
        let kept = self.0.lock();
        let wanted = kept.queues.iter().filter(|(name, _)| queue.is_none_or(|it| *it == ***name));
        let read =
            wanted.map(|(name, all)| (name.clone(), buckets(all, from_ms, to_ms, bucket_ms)));
        read.collect()
    }

    /// Messages pushed and settled per second over the last minutes.
    #[must_use]
    pub fn rates(&self, now_ms: u64) -> (f64, f64) {
        const SPAN_MS: u64 = 3 * 60_000;
        let recent = self.buckets(now_ms.saturating_sub(SPAN_MS), now_ms, SPAN_MS);
        let seconds: f64 = recent.iter().map(|bucket| bucket.seconds).sum();
        let per_second = |of: fn(&Snapshot) -> u64| {
            let sum: u64 = recent.iter().map(|bucket| of(&bucket.counted)).sum();
            if seconds > 0.0 { sum as f64 / seconds } else { 0.0 }
        };
        (per_second(|it| it.pushed), per_second(|it| it.acked))
    }
}

fn push<T>(all: &mut VecDeque<T>, next: T, most: usize) {
    if all.len() >= most {
        all.pop_front();
    }
    all.push_back(next);
}

fn buckets<T: Counted>(
    all: &VecDeque<T>,
    from_ms: u64,
    to_ms: u64,
    bucket_ms: u64,
) -> Vec<Bucket<T>> {
    let bucket_ms = bucket_ms.max(1);
    let mut found: Vec<(u64, T, T)> = Vec::new();
    for (earlier, later) in all.iter().zip(all.iter().skip(1)) {
        // A span belongs to the bucket in which it ends.
        let end = later.time_ms();
        if end < from_ms || end > to_ms {
            continue;
        }
        let start = end - end % bucket_ms;
        match found.last_mut().filter(|(at, ..)| *at == start) {
            Some((_, _, last)) => *last = *later,
            None => found.push((start, *earlier, *later)),
        }
    }
    let bucket = |(start_ms, earlier, later): (u64, T, T)| Bucket {
        start_ms,
        seconds: later.time_ms().saturating_sub(earlier.time_ms()) as f64 / 1000.0,
        counted: later.since(&earlier),
    };
    found.into_iter().map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn filled(minutes: u64) -> History {
        let history = History::default();
        for minute in 0..minutes {
            let time_ms = minute * MINUTE_MS;
            let all =
                Snapshot { time_ms, pushed: minute * 60, acked: minute * 30, ..Default::default() };
            let queues = (0..QUEUES_MAX + 5).map(|queue| {
                let pushed = minute * queue as u64;
                let snapshot = QueueSnapshot { time_ms, pushed, ..Default::default() };
                (format!("q{queue:03}").into(), snapshot)
            });
            history.take(all, queues.collect());
        }
        history
    }

    #[test]
    fn buckets_hold_what_was_counted_in_them_and_nothing_twice() {
        let history = filled(31);
        let buckets = history.buckets(0, u64::MAX, 5 * MINUTE_MS);
        let sum: u64 = buckets.iter().map(|bucket| bucket.counted.pushed).sum();
        assert_eq!(sum, 30 * 60);
        assert_eq!((buckets[1].start_ms, buckets[1].counted.pushed), (5 * MINUTE_MS, 300));
        assert!((buckets[1].seconds - 300.0).abs() < 0.001);
        let (pushed, acked) = history.rates(30 * MINUTE_MS);
        assert!((pushed - 1.0).abs() < 0.001 && (acked - 0.5).abs() < 0.001);
    }

    #[test]
    fn groups_beyond_the_bound_are_one_and_nothing_of_them_is_lost() {
        let group = |at: u64| GroupNow {
            queue: format!("q{at}").into(),
            group: "g".into(),
            behind: at,
            oldest_ms: Some(10_000 - at),
        };
        let many = NEWEST_MAX as u64 + 500;
        let dead = (1..=many).map(|at| (format!("q{at}").into(), at)).collect();
        let newest = Newest::of(7, (1..=many).map(group).collect(), dead);
        assert_eq!((newest.groups.len(), newest.dead.len()), (NEWEST_MAX + 1, NEWEST_MAX + 1));
        assert_eq!((&*newest.groups[0].queue, newest.groups[0].behind), ("q1500", many));
        let last = newest.groups.last().unwrap();
        assert_eq!((&*last.queue, &*last.group, last.behind), (OTHER, OTHER, 500 * 501 / 2));
        assert_eq!(last.oldest_ms, Some(9_500));
        assert_eq!(newest.dead.iter().map(|it| it.1).sum::<u64>(), many * (many + 1) / 2);
        assert_eq!(Newest::of(7, Vec::new(), Vec::new()).groups.len(), 0);
    }

    #[test]
    fn what_came_and_went_within_a_bucket_is_told_both() {
        let history = History::default();
        for (at, partitions) in [0, 3, 1, 2].into_iter().enumerate() {
            let snapshot =
                QueueSnapshot { time_ms: at as u64 * 1000, partitions, ..Default::default() };
            history.take(Snapshot::default(), vec![("q".into(), snapshot)]);
        }
        let (_, buckets) = history.queue_buckets(None, (0, u64::MAX), MINUTE_MS).remove(0);
        let told = buckets.iter().map(|it| it.counted);
        let told: Vec<_> = told.map(|it| (it.partitions_made, it.partitions_gone)).collect();
        assert_eq!(told, [(4, 2)]);
    }

    #[test]
    fn minutes_and_queues_are_bounded_and_the_busiest_queues_stay() {
        let history = filled(MINUTES_MAX as u64 + 10);
        assert_eq!(history.buckets(0, u64::MAX, MINUTE_MS).len(), MINUTES_MAX - 1);
        let queues = history.queue_buckets(None, (0, u64::MAX), MINUTE_MS);
        assert_eq!(queues.len(), QUEUES_MAX);
        assert!(queues.iter().all(|(_, all)| all.len() < QUEUE_MINUTES_MAX));
        assert!(queues.iter().any(|(name, _)| &**name == "q104"));
        assert_eq!(history.queue_buckets(Some("q000"), (0, u64::MAX), MINUTE_MS).len(), 0);
        assert_eq!(history.queue_buckets(Some("q050"), (0, u64::MAX), MINUTE_MS).len(), 1);
    }
}
