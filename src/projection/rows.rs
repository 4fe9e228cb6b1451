//! The rows of an entry. Pure.
//!
//! In: a decoded entry with its place, the queues that ask for rows, and names. Out: a row per message
//! that was pushed in it. What was only written again has its row already. Called by the task.

use std::sync::Arc;

use onrush_protocol::batch::RecordBatch;
use onrush_protocol::id::MessageId;

use crate::base::place::{PartitionNumber, QueueId, ShardId};
use crate::log::postgres::{MessageRow, Projected};
use crate::state::effect::{Effect, Entry, Sequence};

/// Adds the rows of an entry to others. `name` knows a partition's queue and name; one that it does not
/// know is of a queue that is gone.
pub(super) fn add(
    rows: &mut Vec<MessageRow>,
    (shard, index): (ShardId, u64),
    entry: &Entry,
    queues: &[Projected],
    name: impl Fn(PartitionNumber) -> Option<(QueueId, Arc<str>)>,
) {
    for effect in &entry.effects {
        let Effect::Append { partition, first_seq, batch, .. } = effect else { continue };
        let Some((queue, partition_name)) = name(*partition) else { continue };
        let Some(queue) = queues.iter().find(|it| it.queue == queue) else { continue };
        // It was pushed before its queue asked for rows.
        if queue.from.get(usize::from(shard)).is_none_or(|from| index < *from) {
            continue;
        }
        // It was a batch when it was pushed, and what is stored is those bytes.
        let Ok(batch) = RecordBatch::parse_trusted(batch.clone()) else { continue };
        for (seq, record) in (*first_seq..).zip(batch.records()) {
            let Some(id) = id(entry.time_ms, *partition, seq) else { continue };
            let transaction_id = match record.transaction_id {
                Some(text) => text.into(),
                None => id.to_string().into(),
            };
            rows.push(MessageRow {
                queue: Arc::clone(&queue.name),
                partition: Arc::clone(&partition_name),
                seq,
                id: id.to_bytes(),
                transaction_id,
                time_ms: entry.time_ms,
                is_json: record.is_json,
                payload: (!batch.is_sealed())
                    .then(|| batch.records_section().slice_ref(record.payload)),
            });
        }
    }
}

/// Nothing beyond what ids hold is ever stored.
fn id(time_ms: u64, partition: PartitionNumber, seq: Sequence) -> Option<MessageId> {
    MessageId::new(time_ms, partition, seq).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
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
        let effects = vec![append(2, 0), again, append(1, 40), append(3, 0)];
        let entry = Entry { time_ms: 7, origin: Default::default(), effects };
        let queues = [Projected { queue: 5, name: "q".into(), from: vec![0, 9] }];
        let name = |number: PartitionNumber| match number {
            1 => Some((5, "p".into())),
            2 => Some((6, "p".into())),
            _ => None,
        };
        let mut rows = Vec::new();
        add(&mut rows, (1, 8), &entry, &queues, name);
        assert_eq!(rows, [], "it was pushed before");
        add(&mut rows, (1, 9), &entry, &queues, name);
        let seen: Vec<(u64, &[u8])> =
            rows.iter().map(|row| (row.seq, row.payload.as_deref().unwrap())).collect();
        assert_eq!(seen, [(40, &b"one"[..]), (41, &b"two"[..])]);
        let id = MessageId::new(7, 1, 41).unwrap();
        assert_eq!((rows[1].id, &*rows[1].transaction_id), (id.to_bytes(), &*id.to_string()));
    }
}
