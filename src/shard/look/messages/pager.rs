//! Finding a page of messages, newest first, in as many looks as it takes.
//!
//! In: a filter, and the engine's state time and again. First all partitions are passed, and those whose
//! newest message is newest are kept; then their runs are merged by time. A partition's runs are looked up
//! when its turn comes and not before. What came after the first look is left out, so that a page is of
//! one moment as far as its messages go. How much one look does is bounded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use crate::base::place::{PartitionNumber, QueueId};
use crate::shard::look::View;
use crate::shard::look::messages::{FoundMessage, MessageFilter, MessagePage, found};
use crate::shard::look::tour::{STRIDE, Tour};
use crate::state::ShardState;
use crate::state::effect::Sequence;
use crate::state::kv::KvError;
use crate::state::model::{Partition, Run};

/// Runs that one page looks at, at most.
const RUNS_MAX: usize = 100_000;
/// Messages whose status one page looks at, at most.
const STATUSES_MAX: u64 = 50_000;
/// Sequences whose runs are taken at a time, at most.
const WINDOW_MAX: u64 = 1024;
/// What finding rows costs, beside one for each of them, and the standing of one message with a group, in
/// partitions that could be passed meanwhile.
const ROWS_COST: usize = 64;
const STANDING_COST: usize = 16;

/// One partition being walked from its end.
#[derive(Default)]
struct Walk {
    /// Runs that are known, ascending.
    runs: Vec<Run>,
    /// Everything from here on was seen.
    end: Sequence,
    /// Sequences whose runs are taken next: few of a partition of which little is wanted.
    window: u64,
    /// The run whose turn comes.
    found: Option<Run>,
    /// Everything of that run from here on was taken.
    taken: Option<Sequence>,
}

impl Walk {
    /// From what memory knows of the partition on.
    fn new(partition: &Partition) -> Self {
        let (runs, end) = (partition.runs.to_vec(), partition.next_seq);
        Self { runs, end, window: 1, ..Self::default() }
    }

    /// The newest run that was not seen; and what it cost to find it.
    fn next(
        &mut self,
        view: &View<'_>,
        state: &ShardState,
        (number, partition): (PartitionNumber, &Partition),
    ) -> Result<(Option<Run>, usize), KvError> {
        let mut cost = 1;
        if self.runs.is_empty() && self.end > partition.base_seq {
            let from = self.end.saturating_sub(self.window).max(partition.base_seq);
            self.runs = state.runs(view.kv, number, from, self.end)?;
            self.window = (2 * self.window).min(WINDOW_MAX);
            cost = ROWS_COST + self.runs.len();
        }
        let run = self.runs.pop();
        self.end = run.map_or(partition.base_seq, |run| run.first_seq);
        Ok((run, cost))
    }
}

/// A partition's turn, by time: that of a run, or the question what comes next, which is asked only when
/// nothing else can be newer.
type Turn = (u64, bool, PartitionNumber);

/// A page on its way.
pub(super) struct Pager {
    filter: MessageFilter,
    offset: u64,
    limit: usize,
    runs_max: usize,
    /// Nothing that came later is on the page.
    until_ms: Option<u64>,
    tour: Tour,
    /// Partitions that were passed: those with the newest messages.
    newest: BinaryHeap<Reverse<(u64, PartitionNumber)>>,
    turns: BinaryHeap<Turn>,
    walks: HashMap<PartitionNumber, Walk>,
    /// Questions that were asked.
    looked: usize,
    /// Messages whose standing was looked at.
    statuses: u64,
    matched: u64,
    messages: Vec<FoundMessage>,
    /// Whether everything was looked at.
    is_whole: bool,
    is_over: bool,
}

impl Pager {
    pub(super) fn new(filter: MessageFilter, offset: usize, limit: usize) -> Self {
        Self {
            offset: offset as u64,
            limit,
            runs_max: RUNS_MAX,
            until_ms: None,
            tour: Tour::of(filter.queues.clone()),
            newest: BinaryHeap::new(),
            turns: BinaryHeap::new(),
            walks: HashMap::new(),
            looked: 0,
            statuses: 0,
            matched: 0,
            messages: Vec::new(),
            is_whole: true,
            is_over: false,
            filter,
        }
    }

    /// Whether the page is found.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Does as much as one look may.
    pub(super) fn go_on(&mut self, view: &View<'_>) -> Result<(), KvError> {
        self.work(view, STRIDE).map(drop)
    }

    /// The page, as far as it was found.
    pub(super) fn into_page(self) -> MessagePage {
        let seen = self.offset + self.messages.len() as u64;
        let total = self.is_whole.then_some(self.matched);
        let has_more = !self.messages.is_empty() && total.is_none_or(|total| total > seen);
        MessagePage { messages: self.messages, total, has_more }
    }

    /// Works for about so long; tells for how long it did.
    fn work(&mut self, view: &View<'_>, most: usize) -> Result<usize, KvError> {
        let mut spent = 0;
        if self.until_ms.is_none() {
            let last_ms = view.replica.shards.iter().map(ShardState::last_ms).max();
            let now_ms = view.now_ms.max(last_ms.unwrap_or(0));
            self.until_ms = Some(self.filter.to_ms.min(now_ms));
        }
        if !self.tour.is_over() {
            spent = self.pass(view, most);
            if !self.tour.is_over() {
                return Ok(spent);
            }
            let newest = std::mem::take(&mut self.newest).into_iter();
            self.turns = newest.map(|Reverse((time_ms, number))| (time_ms, true, number)).collect();
        }
        while !self.is_over && spent < most {
            spent += self.take_turn(view, most - spent)?;
        }
        Ok(spent)
    }

    /// Passes partitions; tells how many.
    fn pass(&mut self, view: &View<'_>, most: usize) -> usize {
        let (filter, newest) = (&self.filter, &mut self.newest);
        let mut keep = |number: PartitionNumber, partition: &Partition| {
            let (time_ms, name) = (partition.newest_ms, &filter.partition);
            let is_empty = partition.base_seq == partition.next_seq;
            let is_called = name.as_ref().is_none_or(|name| *name.as_str() == *partition.name);
            if !is_empty && is_called && time_ms >= filter.from_ms {
                newest.push(Reverse((time_ms, number)));
            }
        };
        if let (Some(queues), Some(_)) = (&filter.queues, &filter.partition) {
            let called = queues.iter().filter_map(|queue| find(view, *queue, filter));
            called.for_each(|(number, partition)| keep(number, partition));
            self.tour = Tour::nowhere();
        }
        let passed = self.tour.go_on(view, most, |_, number, it| keep(number, it));
        while self.newest.len() > self.runs_max {
            // Its turn would never come.
            self.newest.pop();
            self.is_whole = false;
        }
        passed
    }

    /// Takes the run that is newest, or asks for it; tells what that cost.
    fn take_turn(&mut self, view: &View<'_>, most: usize) -> Result<usize, KvError> {
        let turn = self.turns.pop().filter(|(time_ms, ..)| *time_ms >= self.filter.from_ms);
        let Some((time_ms, is_question, number)) = turn else {
            // And so is everything further.
            self.is_over = true;
            return Ok(1);
        };
        let shard = usize::from(view.replica.count().of_partition(number));
        let state = view.replica.shards.get(shard);
        let held = state.and_then(|state| Some((state, state.partition(number)?)));
        // It may have gone meanwhile.
        let Some((state, partition)) = held else { return Ok(1) };
        if is_question {
            self.looked += 1;
            if self.looked > self.runs_max || self.statuses > STATUSES_MAX {
                (self.is_whole, self.is_over) = (false, true);
                return Ok(1);
            }
            let walk = self.walks.entry(number).or_insert_with(|| Walk::new(partition));
            let (run, cost) = walk.next(view, state, (number, partition))?;
            (walk.found, walk.taken) = (run, None);
            self.turns.extend(run.map(|run| (run.time_ms, false, number)));
            return Ok(cost);
        }
        let run = self.walks.get(&number).and_then(|walk| walk.found);
        let Some(run) = run.filter(|_| Some(time_ms) <= self.until_ms) else {
            self.turns.push((time_ms, true, number));
            return Ok(1);
        };
        let (is_done, cost) = self.take(view, state, (number, partition), &run, most)?;
        self.turns.push((time_ms, is_done, number));
        Ok(cost)
    }

    /// Takes messages of a run from its end on; tells whether that was all of them, and what it cost.
    fn take(
        &mut self,
        view: &View<'_>,
        state: &ShardState,
        (number, partition): (PartitionNumber, &Partition),
        run: &Run,
        most: usize,
    ) -> Result<(bool, usize), KvError> {
        let taken = self.walks.get(&number).and_then(|walk| walk.taken);
        let (first, end) = (run.first_seq.max(partition.base_seq), taken.unwrap_or(run.end_seq()));
        let has_gaps = !state.erased().of(number).is_empty();
        let is_plain = self.filter.status.is_none() && !has_gaps;
        let is_full = self.messages.len() >= self.limit;
        let len = end.saturating_sub(first);
        if is_plain && (is_full || self.matched + len <= self.offset) {
            self.matched += len;
            return Ok((true, 1));
        }
        // The first one is looked at however little time there is: else nothing would go on.
        let mut cost = 0;
        for seq in (first..end).rev() {
            if cost >= most {
                if let Some(walk) = self.walks.get_mut(&number) {
                    walk.taken = Some(seq + 1);
                }
                return Ok((false, cost));
            }
            cost += 1;
            if state.erased().has(number, seq) {
                continue;
            }
            let wants = self.matched >= self.offset && self.messages.len() < self.limit;
            if self.filter.status.is_none() && !wants {
                self.matched += 1;
                continue;
            }
            self.statuses += 1;
            cost += STANDING_COST * partition.cursors.len().max(1);
            let message = found(view, state, (number, partition), seq, Some(*run))?;
            let Some(message) = message else { continue };
            if self.filter.status.is_some_and(|status| status != message.status()) {
                continue;
            }
            if wants {
                self.messages.push(message);
            }
            self.matched += 1;
        }
        Ok((true, cost.max(1)))
    }
}

/// The partition of a queue that is called as a filter says.
fn find<'a>(
    view: &View<'a>,
    queue: QueueId,
    filter: &MessageFilter,
) -> Option<(PartitionNumber, &'a Partition)> {
    let name = filter.partition.as_ref()?.as_str();
    let (count, hash) = (view.replica.count(), view.replica.key().place(queue, name));
    let state = view.replica.shards.get(usize::from(count.of_hash(hash)))?;
    let number = state.find(queue, name, hash)?;
    Some((number, state.partition(number)?))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use onrush_protocol::batch::{BatchBuilder, NewRecord};

    use super::*;
    use crate::base::place::{ShardCount, ShardId, StoreKey};
    use crate::shard::look::messages::Status;
    use crate::shard::parked::Parked;
    use crate::shard::replica::Replica;
    use crate::state::catalog::QueueDefinition;
    use crate::state::effect::{Effect, Entry, Origin};
    use crate::state::kv::memory::MemoryKv;
    use crate::state::kv::{IdRow, Kv, RowChange, Scan, Space};
    use crate::state::ledger::DedupPolicy;

    /// No rows, and how often they were asked for.
    #[derive(Default)]
    struct Rows(AtomicUsize);

    impl Kv for Rows {
        fn get(&self, _: Space, _: &[u8]) -> Result<Option<Bytes>, KvError> {
            Ok(None)
        }
        fn scan(
            &self,
            _: Space,
            _: &[u8],
            _: &[u8],
            _: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
        ) -> Result<(), KvError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn last(&self, _: Space, _: &[u8], _: &[u8]) -> Result<Option<(Bytes, Bytes)>, KvError> {
            Ok(None)
        }
        fn write_with_ids(&self, _: &[RowChange], _: Vec<IdRow>) -> Result<(), KvError> {
            Ok(())
        }
        fn persist(&self) -> Result<(), KvError> {
            Ok(())
        }
        fn find_id(&self, _: PartitionNumber, _: u128, _: u32) -> Result<Option<IdRow>, KvError> {
            Ok(None)
        }
        fn scan_ids(
            &self,
            _: ShardId,
            _: ShardCount,
            _: &mut dyn FnMut(&IdRow) -> Scan,
        ) -> Result<(), KvError> {
            Ok(())
        }
        fn forget_ids(&self, _: ShardId, _: ShardCount) -> Result<(), KvError> {
            Ok(())
        }
        fn drop_generations_before(&self, _: u32) -> Result<(), KvError> {
            Ok(())
        }
    }

    fn apply(replica: &mut Replica, shard: ShardId, time_ms: u64, effects: Vec<Effect>) {
        // A place of its own for each, so that no two of them are one run.
        let entry = Entry { time_ms, origin: Origin::default(), effects };
        replica.apply(shard, &entry, 1_000 * time_ms, 10);
    }

    /// The newest message of each partition alone is in memory.
    fn stored(partitions: &[&[u64]]) -> Replica {
        let mut replica = filled(partitions);
        let policy = DedupPolicy { horizon_ms: 60_000, generation_ms: 20_000 };
        let _rows = replica.shards[0].begin_checkpoint(policy);
        replica.shards[0].end_checkpoint();
        replica
    }

    /// Partitions with a message at each of these times.
    fn filled(partitions: &[&[u64]]) -> Replica {
        let count = ShardCount::new(1).unwrap();
        let mut replica = Replica::new(count, StoreKey([7; 16]));
        let queue = QueueDefinition {
            id: 0,
            name: "q".into(),
            namespace: Box::default(),
            task: Box::default(),
            created_ms: 0,
            options: Default::default(),
            sealed: false,
            ttl_asked: false,
        };
        apply(&mut replica, count.catalog(), 1, vec![Effect::DefineQueue(Box::new(queue))]);
        for (local, times) in (0..).zip(partitions) {
            let number = count.number(0, local).unwrap();
            let name = format!("p{local}").into();
            let made = Effect::CreatePartition { number, queue: 0, name };
            apply(&mut replica, 0, 1, vec![made]);
            for (seq, time_ms) in (0..).zip(*times) {
                append(&mut replica, number, seq, *time_ms);
            }
        }
        replica
    }

    fn append(replica: &mut Replica, partition: PartitionNumber, first_seq: u64, time_ms: u64) {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord { payload: b"1", ..NewRecord::default() }).unwrap();
        let batch = builder.finish().unwrap().bytes().clone();
        let (count, sub, fingerprints) = (1, None, Vec::new());
        let append = Effect::Append { partition, first_seq, count, fingerprints, sub, batch };
        apply(replica, 0, time_ms, vec![append]);
    }

    /// Looks until a page is found, of so much work each; tells how much each did.
    fn page(
        view: &View<'_>,
        filter: &MessageFilter,
        (offset, limit): (usize, usize),
        runs_max: usize,
        most: usize,
    ) -> Result<(MessagePage, Vec<usize>), KvError> {
        let mut pager = Pager { runs_max, ..Pager::new(filter.clone(), offset, limit) };
        let mut spent = Vec::new();
        while !pager.is_over() {
            spent.push(pager.work(view, most)?);
        }
        Ok((pager.into_page(), spent))
    }

    #[test]
    fn a_page_looks_up_no_rows_of_partitions_whose_turn_does_not_come() {
        let replica = stored(&[&[10, 20, 50], &[30, 60], &[5, 40]]);
        let (rows, parked) = (Rows::default(), Parked::default());
        let view = View { replica: &replica, kv: &rows, parked: &parked, now_ms: 70 };
        let filter = MessageFilter { to_ms: u64::MAX, ..MessageFilter::default() };
        let (found, _) = page(&view, &filter, (0, 1), 1, STRIDE).unwrap();
        assert_eq!(found.messages.iter().map(|it| it.time_ms).collect::<Vec<_>>(), [60]);
        assert!(found.total.is_none() && found.has_more);
        assert_eq!(rows.0.load(Ordering::Relaxed), 0);
        // What comes behind it has to be looked up.
        page(&view, &filter, (0, 1), 2, STRIDE).unwrap();
        assert_eq!(rows.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn after_a_restart_the_newest_messages_are_still_the_first() {
        let mut replica = filled(&[&[10], &[20], &[30], &[40], &[50]]);
        let (count, kv) = (replica.count(), MemoryKv::new());
        let policy = DedupPolicy { horizon_ms: 60_000, generation_ms: 20_000 };
        let rows = replica.shards[0].begin_checkpoint(policy);
        kv.write_with_ids(&rows.rows, Vec::new()).unwrap();
        replica.shards[0] = ShardState::load(0, count, StoreKey([7; 16]), &kv).unwrap();
        append(&mut replica, count.number(0, 1).unwrap(), 1, 60);
        let view = View { replica: &replica, kv: &kv, parked: &Parked::default(), now_ms: 70 };
        let filter = MessageFilter { to_ms: u64::MAX, ..MessageFilter::default() };
        let times = |(offset, limit), runs_max| {
            let (found, _) = page(&view, &filter, (offset, limit), runs_max, STRIDE).unwrap();
            found.messages.iter().map(|it| it.time_ms).collect::<Vec<_>>()
        };
        assert_eq!(times((0, 2), 3), [60, 50], "of those that are looked at");
        assert_eq!(times((2, 10), 100), [40, 30, 20, 10]);
    }

    fn places(page: &MessagePage) -> Vec<(PartitionNumber, Sequence)> {
        page.messages.iter().map(|it| (it.partition, it.seq)).collect()
    }

    #[test]
    fn no_look_passes_more_partitions_than_it_may_and_the_page_is_the_same() {
        let times: Vec<[u64; 2]> = (0..5_000).map(|at| [at * 7 % 5_003, 5_003 + at]).collect();
        let partitions: Vec<&[u64]> = times.iter().map(|it| &it[..]).collect();
        let replica = filled(&partitions);
        let parked = Parked::default();
        let view =
            View { replica: &replica, kv: &Rows::default(), parked: &parked, now_ms: 20_000 };
        for status in [None, Some(Status::Pending)] {
            let filter = MessageFilter { status, to_ms: u64::MAX, ..MessageFilter::default() };
            for at in [(0, 3), (4_990, 30), (9_995, 30)] {
                let (whole, looks) = page(&view, &filter, at, RUNS_MAX, usize::MAX).unwrap();
                assert_eq!(looks.len(), 1);
                assert_eq!(whole.total, Some(10_000));
                assert_eq!(whole.messages.len(), at.1.min(10_000 - at.0));
                let (found, looks) = page(&view, &filter, at, RUNS_MAX, 500).unwrap();
                assert!(looks.len() >= 10, "{looks:?}");
                let most = 500 + ROWS_COST + STANDING_COST;
                assert!(looks.iter().all(|spent| *spent <= most), "{looks:?}");
                assert_eq!(places(&found), places(&whole), "{at:?}");
                assert_eq!((found.total, found.has_more), (whole.total, whole.has_more));
            }
        }
    }

    #[test]
    fn what_comes_while_a_page_is_found_is_not_on_it() {
        let mut replica = filled(&[&[10, 20], &[15, 30]]);
        let parked = Parked::default();
        let filter = MessageFilter { to_ms: u64::MAX, ..MessageFilter::default() };
        let mut pager = Pager::new(filter, 0, 10);
        let look = |replica: &Replica, pager: &mut Pager, most, now_ms| {
            let view = View { replica, kv: &Rows::default(), parked: &parked, now_ms };
            pager.work(&view, most).unwrap();
        };
        look(&replica, &mut pager, 1, 35);
        append(&mut replica, 0, 2, 40);
        append(&mut replica, 1, 2, 50);
        while !pager.is_over() {
            look(&replica, &mut pager, 1, 60);
        }
        let found = pager.into_page();
        assert_eq!(
            found.messages.iter().map(|it| it.time_ms).collect::<Vec<_>>(),
            [30, 20, 15, 10]
        );
        assert_eq!(found.total, Some(4));
    }

    #[test]
    fn one_look_reads_rows_of_few_partitions_however_many_it_must_read() {
        let times: Vec<[u64; 2]> = (0..400).map(|at| [at, 1_000]).collect();
        let partitions: Vec<&[u64]> = times.iter().map(|it| &it[..]).collect();
        let (replica, kv) = (stored(&partitions), Rows::default());
        let view = View { replica: &replica, kv: &kv, parked: &Parked::default(), now_ms: 2_000 };
        let filter = MessageFilter { to_ms: u64::MAX, ..MessageFilter::default() };
        let mut pager = Pager::new(filter, 0, 1_000);
        let mut reads = Vec::new();
        while !pager.is_over() {
            pager.go_on(&view).unwrap();
            reads.push(kv.0.swap(0, Ordering::Relaxed));
        }
        assert_eq!(reads.iter().sum::<usize>(), 400, "{reads:?}");
        assert!(reads.iter().all(|it| *it <= STRIDE / ROWS_COST + 1), "{reads:?}");
    }
}
