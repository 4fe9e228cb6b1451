//! The fake's memory: partitions, ids, cursors, leases.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use onrush_protocol::request::{Ack, AckOutcome, Configure, DeleteQueue, Extend, Pop, PushSection};
use onrush_protocol::response::{
    Acked, AckedItem, Attempts, Chunk, Configured, Deleted, Extended, Failure, Messages,
    MessagesSection, PushOutcome, PushStatus, SectionReceipt,
};
use onrush_protocol::{
    BatchBuilder, BatchLimits, Code, LeaseToken, NO_LEASE, NameError, NewRecord, Qos, RecordBatch,
    Response,
};

/// The time of every batch; the fake has no clock.
const TIME_MS: u64 = 1_700_000_000_000;

#[derive(Default)]
pub(crate) struct Store {
    /// By queue and partition name.
    partitions: BTreeMap<(String, String), Partition>,
    leases: u64,
    queues: u64,
    /// Acks that came, as (partition, first, last, outcome).
    pub(crate) acks: Vec<(u32, u64, u64, AckOutcome)>,
    /// Leases that were extended.
    pub(crate) extended: u64,
    /// What shall go wrong before the first message is handed out.
    pub(crate) mischief: Option<Mischief>,
}

/// Ways to break a promise.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mischief {
    Lose,
    Repeat,
    Swap,
    Damage,
}

#[derive(Default)]
struct Partition {
    number: u32,
    records: Vec<Stored>,
    ids: HashMap<String, u64>,
    groups: HashMap<String, Cursor>,
}

#[derive(Clone)]
struct Stored {
    transaction_id: Option<String>,
    trace_id: Option<[u8; 16]>,
    headers: Vec<(String, Vec<u8>)>,
    is_json: bool,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Cursor {
    next: u64,
    lease: LeaseToken,
    attempts: HashMap<u64, u32>,
}

impl Store {
    pub(crate) fn count(&self) -> u64 {
        self.partitions.values().map(|partition| partition.records.len() as u64).sum()
    }

    pub(crate) fn payloads(&self, queue: &str, partition: &str) -> Vec<Vec<u8>> {
        let key = (queue.to_owned(), partition.to_owned());
        let records = self.partitions.get(&key).map(|partition| partition.records.iter());
        records.into_iter().flatten().map(|record| record.payload.clone()).collect()
    }

    /// Does to the first partition what a server must never do, once.
    fn misbehave(&mut self) {
        let Some(mischief) = self.mischief else { return };
        let Some(partition) = self.partitions.values_mut().find(|p| p.records.len() > 3) else {
            return;
        };
        self.mischief = None;
        match mischief {
            Mischief::Lose => drop(partition.records.remove(1)),
            Mischief::Repeat => {
                let again = partition.records[0].clone();
                partition.records.push(again);
            }
            Mischief::Swap => partition.records.swap(1, 2),
            Mischief::Damage => partition.records[1].payload[30] ^= 1,
        }
    }

    pub(crate) fn push(
        &mut self,
        qos: Qos,
        section: Result<PushSection, NameError>,
    ) -> SectionReceipt {
        let refuse = |code, text: &str| SectionReceipt::Failed(Failure::new(code, text));
        let section = match section {
            Ok(section) => section,
            Err(error) => return refuse(error.code(), &error.to_string()),
        };
        let batch = match RecordBatch::parse(section.batch, &BatchLimits::default()) {
            Ok(batch) => batch,
            Err(error) => return refuse(error.code(), &error.to_string()),
        };
        let number = self.partitions.len() as u32;
        let key = (section.queue.to_string(), section.partition.to_string());
        let partition = self
            .partitions
            .entry(key)
            .or_insert_with(|| Partition { number, ..Partition::default() });
        let first_seq = partition.records.len() as u64;
        let outcomes: Vec<PushOutcome> =
            batch.records().map(|record| partition.store(&record)).collect();
        let (partition, count) = (partition.number, batch.count());
        if qos == Qos::Buffered {
            SectionReceipt::Buffered { count }
        } else if outcomes.iter().all(|outcome| outcome.status == PushStatus::Pushed) {
            SectionReceipt::Pushed { partition, first_seq, time_ms: TIME_MS, count }
        } else {
            SectionReceipt::Mixed { partition, outcomes }
        }
    }

    pub(crate) fn pop(&mut self, pop: &Pop) -> Messages {
        self.misbehave();
        self.leases += 1;
        let mut lease = NO_LEASE;
        lease[..8].copy_from_slice(&self.leases.to_le_bytes());
        let mut left = pop.messages_max as usize;
        let mut sections = Vec::new();
        for ((queue, name), partition) in &mut self.partitions {
            let is_wanted = queue == pop.queue.as_str()
                && pop.partition.as_ref().is_none_or(|wanted| wanted.as_str() == name);
            if !is_wanted || left == 0 || sections.len() >= usize::from(pop.partitions_max) {
                continue;
            }
            let group = partition.groups.entry(pop.group.to_string()).or_default();
            let records = partition.records.get(group.next as usize..).unwrap_or_default();
            let records = &records[..records.len().min(left)];
            if group.lease != NO_LEASE || records.is_empty() {
                continue;
            }
            left -= records.len();
            let first_seq = group.next;
            if pop.auto_ack {
                group.next += records.len() as u64;
            } else {
                group.lease = lease;
            }
            let attempts = (first_seq..first_seq + records.len() as u64)
                .filter_map(|seq| {
                    group.attempts.get(&seq).map(|&attempts| Attempts { seq, attempts })
                })
                .collect();
            sections.push(MessagesSection {
                queue: pop.queue.clone(),
                partition: partition.number,
                partition_name: name.parse().expect("a name"),
                chunks: vec![Chunk { first_seq, time_ms: TIME_MS, batch: batch_of(records) }],
                attempts,
            });
        }
        let is_held = !sections.is_empty() && !pop.auto_ack;
        let lease = if is_held { lease } else { NO_LEASE };
        Messages { lease, lease_until_ms: TIME_MS + 60_000, sections }
    }

    pub(crate) fn ack(&mut self, ack: &Ack) -> Acked {
        let mut items = Vec::new();
        for item in &ack.items {
            self.acks.push((item.partition, item.first_seq, item.last_seq, item.outcome));
            let found = self
                .partitions
                .values_mut()
                .find(|partition| partition.number == item.partition)
                .and_then(|partition| partition.groups.get_mut(ack.group.as_str()))
                .filter(|group| group.lease == ack.lease && ack.lease != NO_LEASE);
            let Some(group) = found else {
                let code = Code::LeaseNotFound.number();
                items.push(AckedItem { code, ..AckedItem::default() });
                continue;
            };
            let count = (item.last_seq - item.first_seq + 1) as u32;
            if item.outcome == AckOutcome::Completed {
                group.next = item.last_seq + 1;
            } else {
                for seq in item.first_seq..=item.last_seq {
                    *group.attempts.entry(seq).or_default() += 1;
                }
            }
            items.push(AckedItem { code: 0, acked: count, dead_lettered: 0, lease_released: true });
        }
        for partition in self.partitions.values_mut() {
            for group in partition.groups.values_mut().filter(|group| group.lease == ack.lease) {
                group.lease = NO_LEASE;
            }
        }
        Acked { items }
    }

    pub(crate) fn extend(&mut self, extend: Extend) -> Response {
        let mut groups = self.partitions.values().flat_map(|partition| partition.groups.values());
        if groups.any(|group| group.lease == extend.lease) {
            self.extended += 1;
            Response::Extended(Extended { until_ms: TIME_MS + u64::from(extend.extend_ms) })
        } else {
            Response::Failure(Failure::new(Code::LeaseNotFound, "nobody holds it"))
        }
    }

    pub(crate) fn configure(&mut self, configure: &Configure) -> Response {
        self.queues += 1;
        Response::Configured(Configured {
            queue_id: self.queues,
            options: configure.options,
            sql_rows: configure.sql_rows,
        })
    }

    pub(crate) fn delete(&mut self, delete: &DeleteQueue) -> Response {
        let before = self.partitions.len();
        self.partitions.retain(|(queue, _), _| queue != delete.queue.as_str());
        Response::Deleted(Deleted { existed: self.partitions.len() < before })
    }
}

impl Partition {
    fn store(&mut self, record: &onrush_protocol::Record<'_>) -> PushOutcome {
        let seq = self.records.len() as u64;
        if let Some(id) = record.transaction_id {
            if let Some(&seq) = self.ids.get(id) {
                return PushOutcome { status: PushStatus::Duplicate, seq, time_ms: TIME_MS };
            }
            self.ids.insert(id.to_owned(), seq);
        }
        self.records.push(Stored {
            transaction_id: record.transaction_id.map(str::to_owned),
            trace_id: record.trace_id,
            headers: record.headers.map(|(k, v)| (k.to_owned(), v.to_vec())).collect(),
            is_json: record.is_json,
            payload: record.payload.to_vec(),
        });
        PushOutcome { status: PushStatus::Pushed, seq, time_ms: TIME_MS }
    }
}

fn batch_of(records: &[Stored]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in records {
        let headers: Vec<(&str, &[u8])> =
            record.headers.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
        let record = NewRecord {
            transaction_id: record.transaction_id.as_deref(),
            trace_id: record.trace_id,
            headers: &headers,
            is_json: record.is_json,
            payload: &record.payload,
        };
        builder.push(&record).expect("it was a record before");
    }
    builder.finish().expect("at least one").bytes().clone()
}
