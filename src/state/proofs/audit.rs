//! Reads the log with eyes of its own: sets instead of ranges, no code shared with `apply`.
//!
//! In: every entry that the log took. Out: a panic where one breaks an invariant: sequences dense from
//! 0, an id once within its horizon, one live lease per partition and group, cursors that only go
//! forward and never past an open message, attempts that only grow, dead letters that own their payload.

use std::collections::{BTreeMap, BTreeSet};

use onrush_protocol::batch::RecordBatch;

use crate::base::place::{PartitionNumber, QueueId};
use crate::state::care::Care;
use crate::state::effect::{
    DeadLetter, Effect, Entry, GroupIndex, OwnerId, ProducerSub, Progress, Sequence,
};
use crate::state::model::Lease;
use crate::state::proofs::picture::{Message, States};
use crate::state::proofs::world::{POLICY, SHARD, shards};

#[derive(Default)]
pub(super) struct Partition {
    queue: QueueId,
    live: bool,
    base: Sequence,
    /// All messages that ever were, from sequence 0 on.
    pub(super) messages: Vec<Message>,
    cursors: BTreeMap<GroupIndex, Cursor>,
    /// Messages that were pushed without asking whether their ids are known.
    again: BTreeSet<Sequence>,
}

#[derive(Clone, Default)]
struct Cursor {
    settled: BTreeSet<Sequence>,
    attempts: BTreeMap<Sequence, u32>,
    lease: Option<Lease>,
}

/// What the log has said so far.
#[derive(Default)]
pub(super) struct Audit {
    pub(super) partitions: BTreeMap<PartitionNumber, Partition>,
    groups: Vec<QueueId>,
    gone: BTreeSet<GroupIndex>,
    /// Where groups were sent elsewhere.
    sought: BTreeSet<(PartitionNumber, GroupIndex)>,
    dead: BTreeSet<(PartitionNumber, GroupIndex, Sequence)>,
    erased: BTreeSet<(PartitionNumber, Sequence)>,
    /// Messages that some group got back from its dead letters.
    pub(super) reopened: BTreeSet<(PartitionNumber, Sequence)>,
    pub(super) states: States,
    dropped: BTreeSet<OwnerId>,
    last_ms: u64,
    /// How often each thing was seen, so that a test can prove that it saw them.
    pub(super) seen: BTreeMap<&'static str, u64>,
}

fn records(
    batch: &bytes::Bytes,
    first: Sequence,
    time_ms: u64,
    sub: &Option<ProducerSub>,
) -> Vec<Message> {
    let batch = RecordBatch::parse_trusted(batch.clone()).unwrap();
    let message = |(seq, record): (Sequence, onrush_protocol::batch::Record<'_>)| Message {
        seq,
        time_ms,
        id: record.transaction_id.map(str::to_owned),
        sub: sub.clone(),
        payload: String::from_utf8(record.payload.to_vec()).unwrap(),
    };
    (first..).zip(batch.records()).map(message).collect()
}

impl Audit {
    /// Takes the next entry.
    pub(super) fn take(&mut self, entry: &Entry) {
        assert!(entry.time_ms >= self.last_ms, "time went back");
        self.last_ms = entry.time_ms;
        for effect in &entry.effects {
            self.effect(effect, entry.time_ms);
        }
    }

    fn effect(&mut self, effect: &Effect, now_ms: u64) {
        match effect {
            Effect::CreatePartition { number, queue, .. } => self.create(*number, *queue),
            Effect::Append { partition, first_seq, count, sub, batch, fingerprints } => {
                let messages = records(batch, *first_seq, now_ms, sub);
                assert_eq!(messages.len(), *count as usize);
                if fingerprints.is_empty() {
                    // Without ids, or the message of a dead letter: its id is no new one.
                    let partition = self.partition(*partition);
                    partition.again.extend(*first_seq..*first_seq + u64::from(*count));
                }
                self.append(*partition, *first_seq, messages);
            }
            Effect::Relocate { partition, first_seq, time_ms, sub, batch, .. } => {
                let moved = records(batch, *first_seq, *time_ms, sub);
                let there = &self.partition(*partition).messages[*first_seq as usize..];
                assert_eq!(&there[..moved.len()], moved, "moving changed messages");
            }
            Effect::RegisterGroup { group, queue, start, .. } => {
                self.register(
                    *group,
                    *queue,
                    *start != crate::state::effect::GroupStart::Beginning,
                );
            }
            Effect::Lease { partition, group, token, until_ms, from, to } => {
                let lease = Lease { token: *token, until_ms: *until_ms, from: *from, to: *to };
                self.lease(*partition, *group, lease, now_ms);
            }
            Effect::Extend { partition, group, until_ms } => {
                let lease = self.cursor(*partition, *group).lease.as_mut();
                let lease = lease.expect("a lease that is there");
                assert!(lease.until_ms < *until_ms, "a lease was shortened");
                lease.until_ms = *until_ms;
            }
            Effect::Settle { partition, group, progress, release } => {
                self.settle(*partition, *group, progress, *release);
            }
            Effect::Bury(letter) => self.bury(letter),
            Effect::Care(care) => self.care(care),
            Effect::Trim { partition, base_seq } => {
                let partition = self.partition(*partition);
                // Asked for twice in one commit, once by an emptying and once by retention, it is said
                // twice, and the further one counts.
                if *base_seq < partition.base {
                    return;
                }
                assert!(*base_seq <= partition.messages.len() as u64);
                partition.base = *base_seq;
                for cursor in partition.cursors.values_mut() {
                    cursor.settled.extend(0..*base_seq);
                }
            }
            Effect::DropQueue { queue } => {
                for partition in self.partitions.values_mut().filter(|it| it.queue == *queue) {
                    partition.live = false;
                    partition.cursors.clear();
                }
                let partitions = &self.partitions;
                self.states.retain(|(number, ..), _| partitions[number].live);
            }
            Effect::PutState { owner, partition, key, value } => {
                self.partition(*partition);
                let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                assert!(!self.dropped.contains(owner), "a key of an owner that is gone");
                let state = (text(value), now_ms);
                self.states.insert((*partition, *owner, text(key)), state);
                *self.seen.entry("state").or_default() += 1;
            }
            Effect::RemoveState { owner, partition, key } => {
                self.partition(*partition);
                let key = String::from_utf8(key.to_vec()).unwrap();
                self.states.remove(&(*partition, *owner, key));
            }
            Effect::DropStates { owner } => {
                self.dropped.insert(*owner);
                self.states.retain(|(_, its, _), _| its != owner);
            }
            Effect::Seek { group, moves } => self.seek(*group, moves),
            Effect::DropGroup { group } => self.drop_group(*group),
            Effect::DefineQueue(_)
            | Effect::DefineQuery(_)
            | Effect::DefineClass { .. }
            | Effect::DefineGroup { .. }
            | Effect::ForgetGroup { .. }
            | Effect::Subscribe { .. }
            | Effect::Replayed { .. }
            | Effect::Project { .. }
            | Effect::Maintain(_)
            | Effect::ForgetQueue { .. } => {
                panic!("the catalog's effects are not for this shard")
            }
        }
    }

    fn partition(&mut self, number: PartitionNumber) -> &mut Partition {
        let partition = self.partitions.get_mut(&number).expect("a partition that was made");
        assert!(partition.live, "partition {number} is gone");
        partition
    }

    fn cursor(&mut self, number: PartitionNumber, group: GroupIndex) -> &mut Cursor {
        self.partition(number).cursors.get_mut(&group).expect("a group that was registered")
    }

    fn create(&mut self, number: PartitionNumber, queue: QueueId) {
        let expected = shards().number(SHARD, self.partitions.len() as u32);
        assert_eq!(Some(number), expected, "numbers are not dense");
        let mut partition = Partition { queue, live: true, ..Partition::default() };
        for (group, its) in (0..).zip(&self.groups) {
            if *its == queue && !self.gone.contains(&group) {
                partition.cursors.insert(group, Cursor::default());
            }
        }
        self.partitions.insert(number, partition);
    }

    fn register(&mut self, group: GroupIndex, queue: QueueId, is_new: bool) {
        assert_eq!(group as usize, self.groups.len(), "indexes of groups are not dense");
        self.groups.push(queue);
        let live = self.partitions.iter_mut().filter(|(_, it)| it.live && it.queue == queue);
        for (number, partition) in live {
            let start = if is_new { partition.messages.len() as u64 } else { partition.base };
            let erased = self.erased.iter().filter(|(of, _)| of == number).map(|(_, seq)| *seq);
            let cursor =
                Cursor { settled: (0..start).chain(erased).collect(), ..Cursor::default() };
            partition.cursors.insert(group, cursor);
        }
    }

    fn append(&mut self, number: PartitionNumber, first: Sequence, new: Vec<Message>) {
        let partition = self.partition(number);
        assert_eq!(first, partition.messages.len() as u64, "sequences of {number} are not dense");
        for message in new {
            let is_again = partition.again.contains(&message.seq);
            if let Some(id) = message.id.as_ref().filter(|_| !is_again) {
                let first =
                    partition.messages.iter().filter(|it| !partition.again.contains(&it.seq));
                let mut same = first.filter(|it| it.id.as_ref() == Some(id));
                let again = same.find(|it| it.time_ms + POLICY.horizon_ms > message.time_ms);
                assert_eq!(again, None, "{id} was stored within the horizon");
            }
            partition.messages.push(message);
        }
        *self.seen.entry("append").or_default() += 1;
    }

    fn lease(&mut self, number: PartitionNumber, group: GroupIndex, lease: Lease, now_ms: u64) {
        let end = self.partition(number).messages.len() as u64;
        let cursor = self.cursor(number, group);
        if let Some(held) = cursor.lease.filter(|held| held.token == lease.token) {
            // What was never given to its consumer is given back; the rest stays as it was held.
            let shorter = Lease { to: lease.to, ..held };
            assert!(lease == shorter && lease.from < lease.to && lease.to < held.to);
            cursor.lease = Some(lease);
            *self.seen.entry("give back").or_default() += 1;
            return;
        }
        assert_eq!(cursor.lease, None, "a second lease on {number} for group {group}");
        assert!(lease.from < lease.to && lease.to <= end && lease.until_ms > now_ms);
        // Its end may be settled: it is the end of the last run that fitted.
        assert!(!cursor.settled.contains(&lease.from), "{} is settled and leased", lease.from);
        let open = (0..lease.from).find(|seq| !cursor.settled.contains(seq));
        assert_eq!(open, None, "a lease from {} leaves messages out", lease.from);
        cursor.lease = Some(lease);
        *self.seen.entry("lease").or_default() += 1;
    }

    fn settle(
        &mut self,
        number: PartitionNumber,
        group: GroupIndex,
        new: &Progress,
        release: bool,
    ) {
        let end = self.partition(number).messages.len() as u64;
        let cursor = self.cursor(number, group);
        let ranges = new.settled.iter().flat_map(|(first, last)| *first..=*last);
        let settled: BTreeSet<Sequence> = (0..new.next).chain(ranges).collect();
        assert!(settled.is_superset(&cursor.settled), "something settled is open again");
        assert!(settled.iter().all(|seq| *seq < end), "something that is not there is settled");
        assert!(!settled.contains(&new.next), "the cursor stands on a settled message");
        let attempts: BTreeMap<Sequence, u32> = new.attempts.iter().copied().collect();
        for (seq, before) in &cursor.attempts {
            let after = attempts.get(seq).copied().unwrap_or(0);
            assert!(settled.contains(seq) || after >= *before, "attempts of {seq} were forgotten");
        }
        (cursor.settled, cursor.attempts) = (settled, attempts);
        if release {
            cursor.lease = None;
            *self.seen.entry("release").or_default() += 1;
        }
    }

    fn care(&mut self, care: &Care) {
        match care {
            Care::Reopen { partition, group, letters } => {
                // A group that went back meets messages that it has letters of.
                let went_back = self.sought.contains(&(*partition, *group));
                for (seq, _) in letters {
                    assert!(self.dead.remove(&(*partition, *group, *seq)), "{seq} was not dead");
                    let base = self.partition(*partition).base;
                    let cursor = self.cursor(*partition, *group);
                    assert!(*seq >= base, "{seq} is not in its partition any more");
                    let was_settled = cursor.settled.remove(seq);
                    assert!(was_settled || went_back, "{seq} was dead and open");
                    let lease = cursor.lease;
                    assert!(!lease.is_some_and(|it| (it.from..it.to).contains(seq)));
                    self.reopened.insert((*partition, *seq));
                }
                *self.seen.entry("reopen").or_default() += 1;
            }
            Care::Exhume { partition, group, letters } => {
                for (seq, _) in letters {
                    assert!(self.dead.remove(&(*partition, *group, *seq)), "{seq} was not dead");
                }
                *self.seen.entry("exhume").or_default() += 1;
            }
            Care::Erase { partition, seq } => {
                assert!(self.erased.insert((*partition, *seq)), "{seq} was deleted twice");
                let of_it = |(of, _, at): &&(u32, u32, u64)| (of, at) == (partition, seq);
                assert_eq!(self.dead.iter().find(of_it), None, "a dead letter of {seq} is left");
                for cursor in self.partition(*partition).cursors.values_mut() {
                    cursor.settled.insert(*seq);
                    cursor.attempts.remove(seq);
                }
                *self.seen.entry("erase").or_default() += 1;
            }
            Care::SetJob(_) | Care::Trace(_) => panic!("not for this shard"),
        }
    }

    fn seek(&mut self, group: GroupIndex, moves: &[(PartitionNumber, Sequence)]) {
        for (number, next) in moves {
            let partition = self.partition(*number);
            assert!((partition.base..=partition.messages.len() as u64).contains(next));
            self.sought.insert((*number, group));
            let erased = self.erased.iter().filter(|(of, _)| of == number).map(|(_, seq)| *seq);
            let settled = (0..*next).chain(erased).collect();
            *self.cursor(*number, group) = Cursor { settled, ..Cursor::default() };
        }
        *self.seen.entry("seek").or_default() += 1;
    }

    fn drop_group(&mut self, group: GroupIndex) {
        for partition in self.partitions.values_mut() {
            partition.cursors.remove(&group);
        }
        self.gone.insert(group);
        *self.seen.entry("drop group").or_default() += 1;
    }

    fn bury(&mut self, letter: &DeadLetter) {
        let message = &self.partition(letter.partition).messages[letter.seq as usize];
        assert_eq!(letter.pushed_ms, message.time_ms);
        let own = records(&letter.batch, letter.seq, letter.pushed_ms, &letter.sub);
        assert_eq!(own.as_slice(), std::slice::from_ref(message), "a dead letter lost its payload");
        let is_new = self.dead.insert((letter.partition, letter.group, letter.seq));
        assert_eq!(is_new, !letter.is_again, "a letter came back, or stands twice");
        *self.seen.entry("bury").or_default() += 1;
    }
}
