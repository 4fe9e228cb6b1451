//! The rows of an entry. Pure.
//!
//! In: a decoded entry with its place, the queues that ask for rows, and names. Out: a row per message
//! that was pushed in it, and rows that go because their message was deleted. What was only written again
//! has its row already. Called by the task.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::RecordBatch;
use onrush_protocol::id::MessageId;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::log::postgres::{GoneRow, MessageRow, Projected, RowChanges};
use crate::state::care::Care;
use crate::state::effect::{Effect, Entry, Sequence};

/// Adds what an entry changes to other changes. `name` knows a partition's queue and name; one that it
/// does not know is of a queue that is gone.
pub(super) fn add(
    changes: &mut RowChanges,
    (shard, index): (ShardId, u64),
    entry: &Entry,
    queues: &[Projected],
    name: impl Fn(PartitionNumber) -> Option<(QueueId, Arc<str>)>,
) {
    let place = |number: PartitionNumber| {
        let (queue, partition) = name(number)?;
        let queue = queues.iter().find(|it| it.queue == queue)?;
        Some(Named { queue, partition, number })
    };
    for effect in &entry.effects {
        match effect {
            Effect::Append { partition, first_seq, batch, .. } => {
                let Some(named) = place(*partition) else { continue };
                // Unless it was pushed before its queue asked for rows.
                let from = named.queue.from.get(usize::from(shard));
                if from.is_some_and(|from| index >= *from) {
                    add_batch(&mut changes.rows, &named, entry.time_ms, *first_seq, batch);
                }
            }
            Effect::Care(Care::Erase { partition, seq }) => {
                if let Some(Named { queue, partition, .. }) = place(*partition) {
                    let queue = Arc::clone(&queue.name);
                    changes.gone.push(GoneRow { queue, partition, seq: *seq });
                }
            }
            _ => {}
        }
    }
}

/// A partition of a queue that asks for rows.
struct Named<'a> {
    queue: &'a Projected,
    partition: Arc<str>,
    number: PartitionNumber,
}

fn add_batch(
    rows: &mut Vec<MessageRow>,
    named: &Named<'_>,
    time_ms: u64,
    first_seq: Sequence,
    batch: &Bytes,
) {
    // It was a batch when it was pushed, and what is stored is those bytes.
    let Ok(batch) = RecordBatch::parse_trusted(batch.clone()) else { return };
    for (seq, record) in (first_seq..).zip(batch.records()) {
        let Some(id) = id(time_ms, named.number, seq) else { continue };
        let transaction_id = match record.transaction_id {
            Some(text) => text.into(),
            None => id.to_string().into(),
        };
        rows.push(MessageRow {
            queue: Arc::clone(&named.queue.name),
            partition: Arc::clone(&named.partition),
            seq,
            id: id.to_bytes(),
            transaction_id,
            time_ms,
            is_json: record.is_json,
            payload: (!batch.is_sealed())
                .then(|| batch.records_section().slice_ref(record.payload)),
        });
    }
}

/// Nothing beyond what ids hold is ever stored.
fn id(time_ms: u64, partition: PartitionNumber, seq: Sequence) -> Option<MessageId> {
    MessageId::new(time_ms, partition, seq).ok()
}

#[cfg(test)]
mod tests {
    use onrush_protocol::batch::{BatchBuilder, NewRecord};

    use super::*;

    fn batch(payloads: &[&[u8]]) -> Bytes {
        let mut builder = BatchBuilder::new();
        for payload in payloads {
            builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
        }
        builder.finish().unwrap().bytes().clone()
    }

    #[test]
    fn what_was_pushed_since_its_queue_asked_becomes_rows_and_nothing_else_does() {
        let append = |partition, first_seq| Effect::Append {
            partition,
            first_seq,
            count: 2,
            fingerprints: Vec::new(),
            sub: None,
            batch: batch(&[b"one", b"two"]),
        };
        let again = Effect::Relocate {
            partition: 1,
            first_seq: 0,
            count: 2,
            time_ms: 3,
            sub: None,
            batch: batch(&[b"one", b"two"]),
        };
        // Partition 1 is of a queue that asks, 2 of one that does not, 3 of none that is known.
        let erase = |partition| Effect::Care(Care::Erase { partition, seq: 41 });
        let mut effects = vec![append(2, 0), again, append(1, 40), append(3, 0)];
        effects.extend([erase(2), erase(1), erase(3)]);
        let entry = Entry { time_ms: 7, origin: Default::default(), effects };
        let queues = [Projected { queue: 5, name: "q".into(), from: vec![0, 9] }];
        let name = |number: PartitionNumber| match number {
            1 => Some((5, "p".into())),
            2 => Some((6, "p".into())),
            _ => None,
        };
        let mut changes = RowChanges::default();
        add(&mut changes, (1, 8), &entry, &queues, name);
        assert_eq!(changes.rows, [], "it was pushed before");
        add(&mut changes, (1, 9), &entry, &queues, name);
        let RowChanges { rows, gone } = changes;
        let seen: Vec<(u64, &[u8])> =
            rows.iter().map(|row| (row.seq, row.payload.as_deref().unwrap())).collect();
        assert_eq!(seen, [(40, &b"one"[..]), (41, &b"two"[..])]);
        let id = MessageId::new(7, 1, 41).unwrap();
        assert_eq!((rows[1].id, &*rows[1].transaction_id), (id.to_bytes(), &*id.to_string()));
        // Whenever it was pushed: there may be a row from when its queue asked before.
        let row = GoneRow { queue: "q".into(), partition: "p".into(), seq: 41 };
        assert_eq!(gone, [row.clone(), row]);
    }
}
