//! What a log says, read entry by entry with no help from the engine's state.
//!
//! In: all entries. Out: every partition's messages. Panics where the log itself breaks an invariant:
//! sequences dense from 0, an id once, one live lease per partition and group, settled messages that
//! stay settled, dead letters with their payload.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use onrush::base::place::{PartitionNumber, ShardId};
use onrush::state::codec;
use onrush::state::effect::{Effect, GroupIndex, Sequence};
use onrush_protocol::batch::RecordBatch;

/// A message as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: Option<String>,
    pub(crate) payload: String,
}

#[derive(Default)]
pub(crate) struct Transcript {
    /// Messages by partition, from sequence 0 on.
    pub(crate) messages: BTreeMap<PartitionNumber, Vec<Message>>,
    /// Dead letters: group's name, partition, sequence.
    pub(crate) dead: BTreeSet<(String, PartitionNumber, Sequence)>,
    groups: BTreeMap<(ShardId, GroupIndex), String>,
    leases: BTreeSet<(PartitionNumber, GroupIndex)>,
    settled: BTreeMap<(PartitionNumber, GroupIndex), BTreeSet<Sequence>>,
    times: BTreeMap<ShardId, u64>,
    /// Entries read.
    pub(crate) entries: u64,
}

fn records(batch: &Bytes) -> Vec<Message> {
    let batch = RecordBatch::parse_trusted(batch.clone()).unwrap();
    let message = |record: onrush_protocol::batch::Record<'_>| Message {
        id: record.transaction_id.map(str::to_owned),
        payload: String::from_utf8(record.payload.to_vec()).unwrap(),
    };
    batch.records().map(message).collect()
}

impl Transcript {
    /// Reads all entries, in the order of the log.
    pub(crate) fn of(entries: impl Iterator<Item = (ShardId, Bytes)>) -> Self {
        let mut transcript = Self::default();
        for (shard, bytes) in entries {
            transcript.entries += 1;
            let entry = codec::decode(bytes).unwrap();
            let last = transcript.times.insert(shard, entry.time_ms);
            assert!(last.is_none_or(|last| last <= entry.time_ms), "time of {shard} went back");
            for effect in entry.effects {
                transcript.take(shard, effect);
            }
        }
        transcript
    }

    /// Whether the group has settled the message.
    pub(crate) fn is_settled(
        &self,
        group: &str,
        partition: PartitionNumber,
        seq: Sequence,
    ) -> bool {
        self.settled.iter().any(|((number, index), settled)| {
            let mut names = self.groups.iter().filter(|((_, known), _)| known == index);
            *number == partition && settled.contains(&seq) && names.any(|(_, name)| name == group)
        })
    }

    fn take(&mut self, shard: ShardId, effect: Effect) {
        match effect {
            Effect::CreatePartition { number, .. } => {
                assert!(self.messages.insert(number, Vec::new()).is_none(), "{number} made twice");
            }
            Effect::Append { partition, first_seq, batch, .. } => {
                let messages = self.messages.get_mut(&partition).expect("a partition");
                assert_eq!(first_seq, messages.len() as u64, "{partition} is not dense");
                for new in records(&batch) {
                    let again = new.id.is_some() && messages.iter().any(|it| it.id == new.id);
                    assert!(!again, "{:?} stands twice in {partition}", new.id);
                    messages.push(new);
                }
            }
            Effect::RegisterGroup { group, name, .. } => {
                let known = self.groups.insert((shard, group), name.to_string());
                assert_eq!(known, None, "a group's index was given twice");
            }
            Effect::Lease { partition, group, .. } => {
                assert!(self.leases.insert((partition, group)), "two leases on {partition}");
            }
            Effect::Settle { partition, group, progress, release } => {
                let ranges = progress.settled.iter().flat_map(|(first, last)| *first..=*last);
                let settled: BTreeSet<Sequence> = (0..progress.next).chain(ranges).collect();
                let end = self.messages.get(&partition).map_or(0, |it| it.len() as u64);
                assert!(settled.last().is_none_or(|last| *last < end));
                let before = self.settled.insert((partition, group), settled.clone());
                let before = before.unwrap_or_default();
                let reopened: Vec<&Sequence> = before.difference(&settled).collect();
                let number = self.entries;
                assert!(reopened.is_empty(), "entry {number} opens {reopened:?} of {partition}");
                if release {
                    self.leases.remove(&(partition, group));
                }
            }
            Effect::Bury(letter) => {
                let messages = &self.messages[&letter.partition];
                assert_eq!(records(&letter.batch), messages[letter.seq as usize..][..1]);
                let name = self.groups[&(shard, letter.group)].clone();
                self.dead.insert((name, letter.partition, letter.seq));
            }
            Effect::Care(care) => panic!("nobody asks for this here: {care:?}"),
            _ => {}
        }
    }
}
