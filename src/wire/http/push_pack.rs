//! From items to record batches: one section per queue, partition and batch.
//!
//! In: a parsed push. Out: batches in the order in which they must be taken in, each knowing which
//! items it holds; items that fit no batch are refused alone. Items of one partition keep their
//! order. Pure. Called by `push` and by the fuzzer.

use bytes::Bytes;
use hashbrown::HashMap;
use onrush_protocol::batch::{BatchBuilder, BatchError, BatchLimits, NewRecord};
use onrush_protocol::name::{PartitionName, QueueName};

use crate::wire::http::push_parse::PushItem;
use crate::wire::http::status::Failure;

/// The record header that holds a W3C trace context, for both doors.
pub(super) const TRACEPARENT: &str = "traceparent";

/// A batch on its way into one partition.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) queue: QueueName,
    pub(super) partition: PartitionName,
    pub(super) batch: Bytes,
    /// Which items of the request it holds, by index, in its order.
    pub(super) items: Vec<u32>,
}

/// A packed push.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// In the order in which they are to be taken in.
    pub(super) sections: Vec<Section>,
    /// Items that fit no batch, by index.
    pub(super) refused: Vec<(u32, BatchError)>,
}

struct Group {
    queue: QueueName,
    partition: PartitionName,
    builder: BatchBuilder,
    items: Vec<u32>,
}

/// Packs items into batches that aim at `target_bytes` and never pass `limits`.
///
/// # Errors
/// The whole request is refused for a name that cannot be one.
pub(super) fn pack(
    items: &[PushItem<'_>],
    limits: BatchLimits,
    target_bytes: usize,
) -> Result<Packed, Failure> {
    let mut packed = Packed::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut by_name: HashMap<(&str, &str), usize, foldhash::fast::RandomState> = HashMap::default();
    for (index, item) in items.iter().enumerate() {
        let name = (&*item.queue, &*item.partition);
        let at = match by_name.get(&name) {
            Some(at) => *at,
            None => {
                let group = Group {
                    queue: name.0.parse().map_err(|error| Failure::from(error).at(index))?,
                    partition: name.1.parse().map_err(|error| Failure::from(error).at(index))?,
                    builder: BatchBuilder::with_limits(limits),
                    items: Vec::new(),
                };
                by_name.insert(name, groups.len());
                groups.push(group);
                groups.len() - 1
            }
        };
        // The index was just found or made.
        let Some(group) = groups.get_mut(at) else { continue };
        if let Err(error) = group.add(index as u32, item, target_bytes, &mut packed.sections) {
            packed.refused.push((index as u32, error));
        }
    }
    packed.sections.extend(groups.iter_mut().filter_map(Group::finish));
    Ok(packed)
}

impl Group {
    fn add(
        &mut self,
        index: u32,
        item: &PushItem<'_>,
        target_bytes: usize,
        sections: &mut Vec<Section>,
    ) -> Result<(), BatchError> {
        let context = item.traceparent.as_deref().map(|text| (TRACEPARENT, text.as_bytes()));
        let record = NewRecord {
            transaction_id: item.transaction_id.as_deref(),
            trace_id: item.trace_id,
            headers: context.as_slice(),
            is_json: true,
            payload: item.payload.as_bytes(),
        };
        if let Err(error) = self.builder.push(&record) {
            // What a batch has no room for may fit the next one.
            let Some(full) = self.finish() else { return Err(error) };
            sections.push(full);
            self.builder.push(&record)?;
        }
        self.items.push(index);
        if self.builder.bytes_len() >= target_bytes {
            sections.extend(self.finish());
        }
        Ok(())
    }

    fn finish(&mut self) -> Option<Section> {
        let batch = self.builder.finish()?.bytes().clone();
        let items = std::mem::take(&mut self.items);
        Some(Section { queue: self.queue.clone(), partition: self.partition.clone(), batch, items })
    }
}

#[cfg(test)]
mod tests {
    use onrush_protocol::batch::RecordBatch;

    use super::*;
    use crate::wire::http::dialect::Dialect;
    use crate::wire::http::push_parse::parse;

    const LIMITS: BatchLimits =
        BatchLimits { batch_bytes_max: 4_000, message_bytes_max: 1_000, records_max: 100 };

    fn packed(items: &str, target_bytes: usize) -> Result<Packed, Failure> {
        let body = format!(r#"{{"items":[{items}]}}"#);
        let request = parse(body.as_bytes(), Dialect::Onrush).unwrap();
        pack(&request.items, LIMITS, target_bytes)
    }

    fn payloads(section: &Section) -> Vec<String> {
        let batch = RecordBatch::parse(section.batch.clone(), &LIMITS).unwrap();
        let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
        batch.records().map(|record| text(record.payload)).collect()
    }

    #[test]
    fn items_of_one_partition_share_a_batch_in_request_order() {
        let items = r#"{"queue":"a","payload":1},{"queue":"b","payload":2},
            {"queue":"a","payload":3,"partition":"p"},{"queue":"a","payload":4,"partition":"Default"}"#;
        let sections = packed(items, 4_000).unwrap().sections;
        let seen: Vec<_> = sections
            .iter()
            .map(|it| (it.queue.as_str(), it.partition.as_str(), it.items.clone(), payloads(it)))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", "Default", vec![0, 3], vec!["1".to_owned(), "4".to_owned()]),
                ("b", "Default", vec![1], vec!["2".to_owned()]),
                ("a", "p", vec![2], vec!["3".to_owned()]),
            ]
        );
    }

    #[test]
    fn a_record_carries_its_ids_and_says_that_it_is_json() {
        let items = r#"{"queue":"a","payload":{"x": 1},"transactionId":"t\u0031",
            "traceId":"019a0c11-7fe8-7001-9999-0123456789ab"}"#;
        let sections = packed(items, 4_000).unwrap().sections;
        let batch = RecordBatch::parse(sections[0].batch.clone(), &LIMITS).unwrap();
        let record = batch.records().next().unwrap();
        assert_eq!((record.transaction_id, record.is_json), (Some("t1"), true));
        assert_eq!(record.payload, br#"{"x": 1}"#);
        assert_eq!(record.trace_id.unwrap()[..2], [0x01, 0x9a]);
    }

    #[test]
    fn a_bulk_push_is_split_at_the_target_and_loses_nothing() {
        let item = |index: usize| format!(r#"{{"queue":"a","payload":"{index:0>200}"}}"#);
        let items: Vec<String> = (0..50).map(item).collect();
        let sections = packed(&items.join(","), 1_000).unwrap().sections;
        assert!(sections.len() > 5, "{}", sections.len());
        assert!(sections.iter().all(|it| it.batch.len() < 1_300), "about the target");
        let order: Vec<u32> = sections.iter().flat_map(|it| it.items.clone()).collect();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
        assert_eq!(sections.iter().flat_map(payloads).count(), 50);
    }

    #[test]
    fn a_batch_never_passes_its_limit_even_where_the_target_would_let_it() {
        let item = format!(r#"{{"queue":"a","payload":"{}"}}"#, "x".repeat(900));
        let sections = packed(&vec![item; 9].join(","), usize::MAX).unwrap().sections;
        let counts: Vec<usize> = sections.iter().map(|it| it.items.len()).collect();
        assert_eq!(counts, [4, 4, 1]);
        assert!(sections.iter().all(|it| it.batch.len() <= 4_000));
    }

    #[test]
    fn a_payload_over_its_limit_is_refused_alone() {
        let large = format!(r#"{{"queue":"a","payload":"{}"}}"#, "x".repeat(1_000));
        let small = r#"{"queue":"a","payload":1}"#;
        let packed = packed(&[small, &large, small].join(","), 4_000).unwrap();
        let taken: Vec<u32> = packed.sections.iter().flat_map(|it| it.items.clone()).collect();
        assert_eq!(taken, [0, 2]);
        assert!(matches!(
            packed.refused[..],
            [(1, BatchError::TooLarge { field: "payload", bytes: 1_002, limit: 1_000, .. })]
        ));
    }

    #[test]
    fn a_name_that_cannot_be_one_refuses_the_request_and_names_the_item() {
        let items = r#"{"queue":"a"},{"queue":"a","partition":""}"#;
        let refused = packed(items, 4_000).unwrap_err();
        assert_eq!(refused.message(), "partition has 0 bytes; 1 to 255 are allowed");
        assert_eq!(refused, Failure::clone(&refused).at(1));
        assert!(packed(r#"{"queue":""}"#, 4_000).is_ok(), "the empty queue name is legal");
    }
}
