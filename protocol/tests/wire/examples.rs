//! One example of each message, the same that the README dumps.
//!
//! Out: names, request ids and messages. Called by the tests that hold the README, truncation and
//! hostile bytes against every message.

use bytes::{Bytes, BytesMut};
use onrush_protocol::request::{
    Ack, AckItem, AckOutcome, Configure, DeleteGroup, DeleteQueue, Extend, GroupLag, Hello,
    ListGroups, Ping, Pop, Push, PushSection, PushSections, PushTerms, Seek, SeekTo,
    Stats as AskStats, Subscribe, SubscriptionStart, Token, Transaction, TransactionAck,
};
use onrush_protocol::response::{
    Acked, AckedItem, Attempts, Chunk, Committed, Configured, Deleted, Extended, Failure,
    GroupDeleted, GroupPartitions, GroupStanding, Groups, Messages, MessagesSection,
    PartitionStanding, Pong, PushOutcome, PushStatus, Receipts, SectionReceipt, Sought, Stats,
    StatsEntry, Subscribed, Welcome,
};
use onrush_protocol::{
    BatchBuilder, Code, GroupName, LeaseToken, LongText, NewRecord, PartitionName, Qos, QueueName,
    QueueOptions, RecordBatch, Request, Response, ShortText,
};

use crate::{desk_examples, process_examples};

/// The time of every example.
pub(crate) const TIME_MS: u64 = 1_700_000_000_000;

/// A message of either direction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Example {
    Ask(Request),
    Answer(Response),
}

impl Example {
    pub(crate) fn frame(&self, request_id: u64) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Ask(request) => request.encode_frame(request_id, &mut out),
            Self::Answer(response) => response.encode_frame(request_id, &mut out),
        }
        out.freeze()
    }

    pub(crate) fn body(&self) -> Bytes {
        self.frame(0).slice(16..)
    }

    pub(crate) fn opcode(&self) -> u8 {
        match self {
            Self::Ask(request) => request.opcode().number(),
            Self::Answer(response) => response.opcode().number(),
        }
    }

    /// Decodes `body` as a message of this example's kind.
    pub(crate) fn decode(&self, body: Bytes) -> Result<Self, onrush_protocol::DecodeError> {
        match self {
            Self::Ask(_) => Request::decode(self.opcode(), body).map(Self::Ask),
            Self::Answer(_) => Response::decode(self.opcode(), body).map(Self::Answer),
        }
    }
}

/// The batch that the README dumps by itself.
pub(crate) fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let first = NewRecord {
        transaction_id: Some("order-1"),
        is_json: true,
        payload: br#"{"n":1}"#,
        ..NewRecord::default()
    };
    let second = NewRecord {
        trace_id: Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        headers: &[("k", b"v")],
        payload: &[1, 2, 3],
        ..NewRecord::default()
    };
    builder.push(&first).unwrap();
    builder.push(&second).unwrap();
    builder.finish().unwrap()
}

/// A batch of the one record «hi».
pub(crate) fn small_batch() -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload: b"hi", ..NewRecord::default() }).unwrap();
    builder.finish().unwrap()
}

/// Every message: the name of its dump, its request id, itself.
pub(crate) fn all() -> Vec<(&'static str, u64, Example)> {
    let mut all: Vec<_> = requests().into_iter().map(|(n, i, r)| (n, i, Example::Ask(r))).collect();
    all.extend(responses().into_iter().map(|(n, i, r)| (n, i, Example::Answer(r))));
    all
}

fn lease() -> LeaseToken {
    std::array::from_fn(|index| 0x10 + index as u8)
}

pub(crate) fn queue() -> QueueName {
    "orders".parse().unwrap()
}

pub(crate) fn group() -> GroupName {
    "billing".parse().unwrap()
}

pub(crate) fn short(text: &str) -> ShortText {
    text.parse().unwrap()
}

pub(crate) fn long(text: &str) -> LongText {
    text.parse().unwrap()
}

fn options() -> QueueOptions {
    QueueOptions {
        lease_time_s: 60,
        dead_letter_queue: true,
        priority: -2,
        ..QueueOptions::default()
    }
}

fn transaction() -> Transaction {
    let item = AckItem {
        partition: 42,
        first_seq: 1000,
        last_seq: 1004,
        outcome: AckOutcome::Completed,
        error: long(""),
    };
    let section = PushSection {
        queue: queue(),
        partition: PartitionName::default(),
        batch: small_batch().bytes().clone(),
    };
    Transaction {
        fail_on_duplicate: true,
        leases: vec![lease()],
        acks: vec![TransactionAck { group: group(), lease: lease(), item }],
        sections: vec![section],
    }
}

fn committed() -> Committed {
    Committed {
        acks: vec![AckedItem { acked: 5, lease_released: true, ..AckedItem::default() }],
        sections: vec![SectionReceipt::Pushed {
            partition: 42,
            first_seq: 1000,
            time_ms: TIME_MS,
            count: 1,
        }],
    }
}

/// The example of a pop.
pub(crate) fn pop() -> Pop {
    Pop {
        queue: queue(),
        partition: None,
        group: group(),
        messages_max: 100,
        bytes_max: 0,
        partitions_max: 4,
        wait_ms: 30_000,
        lease_ms: 0,
        auto_ack: false,
        start: SubscriptionStart::Time(TIME_MS as i64),
    }
}

fn requests() -> Vec<(&'static str, u64, Request)> {
    let section = PushSection {
        queue: queue(),
        partition: PartitionName::default(),
        batch: small_batch().bytes().clone(),
    };
    let push = Push {
        terms: PushTerms { qos: Qos::AtLeastOnce, timeout_ms: 5000, ..PushTerms::default() },
        sections: PushSections::collect([&section]).unwrap(),
    };
    let item = |first_seq, last_seq, outcome, error| AckItem {
        partition: 42,
        first_seq,
        last_seq,
        outcome,
        error: long(error),
    };
    let ack = Ack {
        group: group(),
        lease: lease(),
        items: vec![
            item(1000, 1004, AckOutcome::Completed, ""),
            item(1005, 1005, AckOutcome::Failed, "no card"),
        ],
    };
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        client: short("app/1.0"),
        token: Some(Token::parse(Bytes::from_static(b"secret")).unwrap()),
    };
    let configure = Configure {
        queue: queue(),
        namespace: short("shop"),
        task: short(""),
        options: options(),
        sql_rows: false,
    };
    vec![
        ("hello", 1, Request::Hello(hello)),
        ("ping", 2, Request::Ping(Ping {})),
        ("push", 3, Request::Push(push)),
        ("pop", 4, Request::Pop(pop())),
        ("ack", 5, Request::Ack(ack)),
        ("extend", 6, Request::Extend(Extend { lease: lease(), extend_ms: 60_000 })),
        ("configure", 7, Request::Configure(configure)),
        ("delete_queue", 8, Request::DeleteQueue(DeleteQueue { queue: queue() })),
        ("stats", 9, Request::Stats(AskStats {})),
        ("transaction", 10, Request::Transaction(transaction())),
    ]
    .into_iter()
    .chain(group_requests())
    .chain(desk_examples::requests())
    .chain(process_examples::requests())
    .collect()
}

fn group_requests() -> Vec<(&'static str, u64, Request)> {
    let start_ms = TIME_MS as i64;
    let seek = Seek { queue: queue(), group: group(), partition: None, to: SeekTo::Time(start_ms) };
    let delete = DeleteGroup { group: group(), keep_start: false, queue: Some(queue()) };
    let list = ListGroups { with_oldest: true, skip: 0, limit: 100, queue: None };
    let lag = GroupLag { queue: queue(), group: group(), only_lagging: true, from: 0, limit: 1000 };
    let subscribe = Subscribe { group: group(), start_ms, queue: None };
    vec![
        ("seek", 10, Request::Seek(seek)),
        ("delete_group", 11, Request::DeleteGroup(delete)),
        ("list_groups", 12, Request::ListGroups(list)),
        ("group_lag", 13, Request::GroupLag(lag)),
        ("subscribe", 14, Request::Subscribe(subscribe)),
    ]
}

/// The example of a `messages` answer.
pub(crate) fn messages() -> Messages {
    let section = MessagesSection {
        queue: queue(),
        partition: 42,
        partition_name: PartitionName::default(),
        chunks: vec![Chunk {
            first_seq: 1000,
            time_ms: TIME_MS,
            batch: small_batch().bytes().clone(),
        }],
        attempts: vec![Attempts { seq: 1000, attempts: 2 }],
    };
    Messages { lease: lease(), lease_until_ms: TIME_MS + 300_000, sections: vec![section] }
}

fn receipts() -> Receipts {
    let outcome = |status, seq, time_ms| PushOutcome { status, seq, time_ms };
    Receipts {
        buffered: false,
        store_healthy: true,
        sections: vec![
            SectionReceipt::Pushed { partition: 42, first_seq: 1000, time_ms: TIME_MS, count: 3 },
            SectionReceipt::Mixed {
                partition: 43,
                outcomes: vec![
                    outcome(PushStatus::Pushed, 8, TIME_MS),
                    outcome(PushStatus::Duplicate, 5, TIME_MS - 1000),
                ],
            },
            SectionReceipt::Buffered { count: 9 },
            SectionReceipt::Failed(Failure::new(Code::RingFull, "ring full").retry_after(250)),
        ],
    }
}

fn responses() -> Vec<(&'static str, u64, Response)> {
    let welcome = Welcome {
        version: 1,
        server: short("onrush/0.1.0"),
        frame_bytes_max: 16 << 20,
        batch_bytes_max: 8 << 20,
        message_bytes_max: 1 << 20,
        in_flight_max: 256,
        store: short("embedded"),
        durability: short("sync"),
    };
    let acked = Acked {
        items: vec![
            AckedItem { acked: 5, ..AckedItem::default() },
            AckedItem {
                code: Code::LeaseExpired.number(),
                lease_released: true,
                ..AckedItem::default()
            },
        ],
    };
    let entry = StatsEntry { name: short("pushed_messages"), value: 123_456 };
    let failure =
        Failure::new(Code::MessageTooLarge, "record 3 is too large").blaming("payload", 1 << 20);
    vec![
        ("welcome", 1, Response::Welcome(welcome)),
        ("pong", 2, Response::Pong(Pong {})),
        ("receipts", 3, Response::Receipts(receipts())),
        ("messages", 4, Response::Messages(messages())),
        ("acked", 5, Response::Acked(acked)),
        ("extended", 6, Response::Extended(Extended { until_ms: TIME_MS + 60_000 })),
        (
            "configured",
            7,
            Response::Configured(Configured { queue_id: 12, options: options(), sql_rows: false }),
        ),
        ("deleted", 8, Response::Deleted(Deleted { existed: true })),
        ("stats_answer", 9, Response::Stats(Stats { entries: vec![entry] })),
        ("committed", 10, Response::Committed(committed())),
        ("failure", 72_623_859_790_382_856, Response::Failure(failure)),
    ]
    .into_iter()
    .chain(group_responses())
    .chain(desk_examples::responses())
    .chain(process_examples::responses())
    .collect()
}

fn group_responses() -> Vec<(&'static str, u64, Response)> {
    let standing = GroupStanding {
        queue: queue(),
        group: group(),
        members: 2,
        partitions: 4,
        lagging: 3,
        behind: 70,
        oldest_ms: TIME_MS,
        since_ms: TIME_MS - 1000,
        start: SubscriptionStart::Time(TIME_MS as i64),
    };
    let partition = PartitionStanding {
        partition: 42,
        name: PartitionName::default(),
        next_seq: 1000,
        end_seq: 1070,
        behind: 70,
        oldest_ms: TIME_MS,
        lease_until_ms: TIME_MS + 300_000,
    };
    let page = GroupPartitions { next: 3 << 32 | 7, partitions: vec![partition] };
    vec![
        ("sought", 10, Response::Sought(Sought { partitions: 3 })),
        ("group_deleted", 11, Response::GroupDeleted(GroupDeleted { queues: 1, partitions: 3 })),
        ("groups", 12, Response::Groups(Groups { has_more: false, groups: vec![standing] })),
        ("group_partitions", 13, Response::GroupPartitions(page)),
        ("subscribed", 14, Response::Subscribed(Subscribed { queues: 2 })),
    ]
}
