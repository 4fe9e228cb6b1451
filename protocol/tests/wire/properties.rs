//! Properties: what is written can be read, whatever it says; what cannot be read breaks nothing.

use bytes::{Bytes, BytesMut};
use onrush_protocol::limits::{FRAME_BYTES_MAX, SEQUENCE_MAX, TIME_MS_MAX};
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
    BatchBuilder, BatchLimits, GroupName, LongText, MessageId, NewRecord, PartitionName, Qos,
    QueueName, QueueOptions, RecordBatch, Request, Response, ShortText, frame, fuzz_bodies, id,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{desk_strategies, process_strategies};

/// Any text of up to `bytes_max` bytes that names may have.
fn plain(bytes_min: usize, bytes_max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>().prop_filter("no control", |c| !c.is_ascii_control()), bytes_min..=bytes_max)
        .prop_map(move |chars| {
            let mut text = String::new();
            for c in chars {
                if text.len() + c.len_utf8() <= bytes_max {
                    text.push(c);
                }
            }
            text
        })
}

pub(crate) fn queue() -> impl Strategy<Value = QueueName> {
    plain(0, 255).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn partition() -> impl Strategy<Value = PartitionName> {
    plain(4, 40).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn group() -> impl Strategy<Value = GroupName> {
    plain(4, 255).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn short() -> impl Strategy<Value = ShortText> {
    plain(0, 255).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn long() -> impl Strategy<Value = LongText> {
    any::<String>().prop_map(|text| LongText::lossy(&text))
}

pub(crate) fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn options() -> impl Strategy<Value = QueueOptions> {
    let numbers = (any::<[u32; 8]>(), any::<u64>(), any::<i32>(), any::<[bool; 4]>());
    (numbers, any::<u32>()).prop_map(|((n, max_size, priority, b), max_wait_time_s)| QueueOptions {
        lease_time_s: n[0],
        max_size,
        ttl_s: n[1],
        retry_limit: n[2],
        retry_delay_ms: n[3],
        dead_letter_queue: b[0],
        dlq_after_max_retries: b[1],
        priority,
        delayed_processing_s: n[4],
        window_buffer_s: n[5],
        retention_s: n[6],
        completed_retention_s: n[7],
        retention_enabled: b[2],
        encryption_enabled: b[3],
        max_wait_time_s,
    })
}

fn hello() -> impl Strategy<Value = Request> {
    let token = option::of(vec(any::<u8>(), 1..=4096));
    (any::<u16>(), any::<u16>(), short(), token).prop_map(|(min, max, client, token)| {
        Request::Hello(Hello {
            version_min: min,
            version_max: max,
            client,
            token: token.map(|raw| Token::parse(raw.into()).unwrap()),
        })
    })
}

fn push() -> impl Strategy<Value = Request> {
    let qos = prop_oneof![Just(Qos::Buffered), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)];
    let section = (queue(), partition(), blob())
        .prop_map(|(queue, partition, batch)| PushSection { queue, partition, batch });
    (qos, any::<[u32; 3]>(), vec(section, 1..6)).prop_map(|(qos, n, sections)| {
        Request::Push(Push {
            terms: PushTerms { qos, timeout_ms: n[0], buffer_ms: n[1], buffer_max: n[2] },
            sections: PushSections::collect(&sections).unwrap(),
        })
    })
}

fn start() -> impl Strategy<Value = SubscriptionStart> {
    prop_oneof![
        Just(SubscriptionStart::Default),
        Just(SubscriptionStart::Beginning),
        Just(SubscriptionStart::New),
        any::<i64>().prop_map(SubscriptionStart::Time),
    ]
}

fn of_groups() -> impl Strategy<Value = Request> {
    let to = prop_oneof![
        Just(SeekTo::Beginning),
        Just(SeekTo::End),
        any::<i64>().prop_map(SeekTo::Time),
    ];
    let scope = || option::of(queue());
    prop_oneof![
        (queue(), group(), option::of(partition()), to).prop_map(
            |(queue, group, partition, to)| Request::Seek(Seek { queue, group, partition, to })
        ),
        (group(), any::<bool>(), scope()).prop_map(|(group, keep_start, queue)| {
            Request::DeleteGroup(DeleteGroup { group, keep_start, queue })
        }),
        (any::<(bool, u32)>(), 1..=1_000u32, scope()).prop_map(
            |((with_oldest, skip), limit, queue)| {
                Request::ListGroups(ListGroups { with_oldest, skip, limit, queue })
            }
        ),
        (queue(), group(), any::<(bool, u64)>(), 1..=10_000u32).prop_map(
            |(queue, group, (only_lagging, from), limit)| {
                Request::GroupLag(GroupLag { queue, group, only_lagging, from, limit })
            }
        ),
        (group(), any::<i64>(), scope()).prop_map(|(group, start_ms, queue)| {
            Request::Subscribe(Subscribe { group, start_ms, queue })
        }),
    ]
}

fn about_groups() -> impl Strategy<Value = Response> {
    let group =
        (queue(), group(), any::<[u64; 6]>(), start()).prop_map(|(queue, group, n, start)| {
            GroupStanding {
                queue,
                group,
                members: n[0],
                partitions: n[1],
                lagging: n[2],
                behind: n[3],
                oldest_ms: n[4],
                since_ms: n[5],
                start,
            }
        });
    let standing =
        (any::<u32>(), partition(), any::<[u64; 5]>()).prop_map(|(partition, name, n)| {
            PartitionStanding {
                partition,
                name,
                next_seq: n[0],
                end_seq: n[1],
                behind: n[2],
                oldest_ms: n[3],
                lease_until_ms: n[4],
            }
        });
    prop_oneof![
        any::<u64>().prop_map(|partitions| Response::Sought(Sought { partitions })),
        any::<(u32, u64)>().prop_map(|(queues, partitions)| {
            Response::GroupDeleted(GroupDeleted { queues, partitions })
        }),
        (any::<bool>(), vec(group, 0..4))
            .prop_map(|(has_more, groups)| Response::Groups(Groups { has_more, groups })),
        (any::<u64>(), vec(standing, 0..4)).prop_map(|(next, partitions)| {
            Response::GroupPartitions(GroupPartitions { next, partitions })
        }),
        any::<u32>().prop_map(|queues| Response::Subscribed(Subscribed { queues })),
    ]
}

pub(crate) fn pop() -> impl Strategy<Value = Request> {
    let start = start();
    let names = (queue(), option::of(partition()), group());
    let counts = (1..=10_000u32, 1..=u16::MAX, any::<[u32; 3]>(), any::<bool>());
    (names, counts, start).prop_map(|((queue, partition, group), counts, start)| {
        let (messages_max, partitions_max, [bytes_max, wait_ms, lease_ms], auto_ack) = counts;
        Request::Pop(Pop {
            queue,
            partition,
            group,
            messages_max,
            bytes_max,
            partitions_max,
            wait_ms,
            lease_ms,
            auto_ack,
            start,
        })
    })
}

fn ack() -> impl Strategy<Value = Request> {
    let outcome = (0..4u8).prop_map(|number| AckOutcome::from_number(number).unwrap());
    let item = (any::<u32>(), any::<u64>(), any::<u64>(), outcome, long()).prop_map(
        |(partition, a, b, outcome, error)| AckItem {
            partition,
            first_seq: a.min(b),
            last_seq: a.max(b),
            outcome,
            error,
        },
    );
    (group(), any::<[u8; 16]>(), vec(item, 0..8))
        .prop_map(|(group, lease, items)| Request::Ack(Ack { group, lease, items }))
}

fn transaction() -> impl Strategy<Value = Request> {
    let acks = vec(ack(), 0..5).prop_map(|requests| {
        let asked = requests.into_iter().flat_map(|request| {
            let Request::Ack(Ack { group, lease, items }) = request else { return Vec::new() };
            let each = items.into_iter().map(|item| {
                let group = group.clone();
                TransactionAck { group, lease, item }
            });
            each.collect()
        });
        asked.collect::<Vec<TransactionAck>>()
    });
    let section = (queue(), partition(), blob())
        .prop_map(|(queue, partition, batch)| PushSection { queue, partition, batch });
    (any::<bool>(), vec(any::<[u8; 16]>(), 0..4), acks, vec(section, 0..4)).prop_map(
        |(fail_on_duplicate, leases, acks, sections)| {
            Request::Transaction(Transaction { fail_on_duplicate, leases, acks, sections })
        },
    )
}

fn any_request() -> impl Strategy<Value = Request> {
    let configure = (queue(), short(), short(), options(), any::<bool>()).prop_map(
        |(queue, namespace, task, options, sql_rows)| {
            Request::Configure(Configure { queue, namespace, task, options, sql_rows })
        },
    );
    prop_oneof![
        hello(),
        Just(Request::Ping(Ping {})),
        push(),
        pop(),
        ack(),
        (any::<[u8; 16]>(), any::<u32>())
            .prop_map(|(lease, extend_ms)| Request::Extend(Extend { lease, extend_ms })),
        configure,
        queue().prop_map(|queue| Request::DeleteQueue(DeleteQueue { queue })),
        Just(Request::Stats(AskStats {})),
        of_groups(),
        transaction(),
        desk_strategies::request(),
        process_strategies::request(),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    (any::<u16>(), any::<u32>(), short(), any::<u64>(), long()).prop_map(
        |(code, retry_after_ms, field, limit, message)| Failure {
            code,
            retry_after_ms,
            field,
            limit,
            message,
        },
    )
}

fn receipts() -> impl Strategy<Value = Response> {
    let outcome = (any::<bool>(), any::<u64>(), any::<u64>()).prop_map(|(again, seq, time_ms)| {
        let status = if again { PushStatus::Duplicate } else { PushStatus::Pushed };
        PushOutcome { status, seq, time_ms }
    });
    let section = prop_oneof![
        any::<(u32, u64, u64, u32)>().prop_map(|(partition, first_seq, time_ms, count)| {
            SectionReceipt::Pushed { partition, first_seq, time_ms, count }
        }),
        (any::<u32>(), vec(outcome, 0..20))
            .prop_map(|(partition, outcomes)| SectionReceipt::Mixed { partition, outcomes }),
        any::<u32>().prop_map(|count| SectionReceipt::Buffered { count }),
        failure().prop_map(SectionReceipt::Failed),
    ];
    (any::<bool>(), any::<bool>(), vec(section, 0..6)).prop_map(
        |(buffered, store_healthy, sections)| {
            Response::Receipts(Receipts { buffered, store_healthy, sections })
        },
    )
}

pub(crate) fn messages() -> impl Strategy<Value = Response> {
    let chunk = (any::<u64>(), any::<u64>(), blob())
        .prop_map(|(first_seq, time_ms, batch)| Chunk { first_seq, time_ms, batch });
    let attempts = any::<(u64, u32)>().prop_map(|(seq, attempts)| Attempts { seq, attempts });
    let section = (queue(), any::<u32>(), partition(), vec(chunk, 0..5), vec(attempts, 0..5))
        .prop_map(|(queue, partition, partition_name, chunks, attempts)| MessagesSection {
            queue,
            partition,
            partition_name,
            chunks,
            attempts,
        });
    (any::<[u8; 16]>(), any::<u64>(), vec(section, 0..5)).prop_map(
        |(lease, lease_until_ms, sections)| {
            Response::Messages(Messages { lease, lease_until_ms, sections })
        },
    )
}

fn any_response() -> impl Strategy<Value = Response> {
    let welcome = (any::<u16>(), any::<[u32; 4]>(), short(), short(), short()).prop_map(
        |(version, n, server, store, durability)| {
            Response::Welcome(Welcome {
                version,
                server,
                frame_bytes_max: n[0],
                batch_bytes_max: n[1],
                message_bytes_max: n[2],
                in_flight_max: n[3],
                store,
                durability,
            })
        },
    );
    let acked =
        any::<(u16, u32, u32, bool)>().prop_map(|(code, acked, dead_lettered, lease_released)| {
            AckedItem { code, acked, dead_lettered, lease_released }
        });
    let entry = (short(), any::<u64>()).prop_map(|(name, value)| StatsEntry { name, value });
    prop_oneof![
        welcome,
        Just(Response::Pong(Pong {})),
        receipts(),
        messages(),
        vec(acked, 0..9).prop_map(|items| Response::Acked(Acked { items })),
        any::<u64>().prop_map(|until_ms| Response::Extended(Extended { until_ms })),
        (any::<u64>(), options(), any::<bool>()).prop_map(|(queue_id, options, sql_rows)| {
            Response::Configured(Configured { queue_id, options, sql_rows })
        }),
        any::<bool>().prop_map(|existed| Response::Deleted(Deleted { existed })),
        (any::<[u32; 2]>(), any::<[u64; 2]>()).prop_map(
            |([acked, count], [first_seq, time_ms])| {
                let acks = vec![AckedItem { acked, ..AckedItem::default() }];
                let section =
                    SectionReceipt::Pushed { partition: acked, first_seq, time_ms, count };
                Response::Committed(Committed { acks, sections: vec![section] })
            }
        ),
        vec(entry, 0..9).prop_map(|entries| Response::Stats(Stats { entries })),
        failure().prop_map(Response::Failure),
        about_groups(),
        desk_strategies::response(),
        process_strategies::response(),
    ]
}

/// What a record is made of, owned.
#[derive(Clone, Debug)]
struct Parts {
    transaction_id: Option<String>,
    trace_id: Option<[u8; 16]>,
    headers: Vec<(String, Vec<u8>)>,
    is_json: bool,
    payload: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let header = (plain(4, 30), vec(any::<u8>(), 0..40));
    let id = option::of(plain(4, 255));
    (id, any::<Option<[u8; 16]>>(), vec(header, 0..4), any::<bool>(), vec(any::<u8>(), 0..60))
        .prop_map(|(transaction_id, trace_id, headers, is_json, payload)| Parts {
            transaction_id,
            trace_id,
            headers,
            is_json,
            payload,
        })
}

fn build(records: &[Parts]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for parts in records {
        let headers: Vec<(&str, &[u8])> =
            parts.headers.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        let record = NewRecord {
            transaction_id: parts.transaction_id.as_deref(),
            trace_id: parts.trace_id,
            headers: &headers,
            is_json: parts.is_json,
            payload: &parts.payload,
        };
        builder.push(&record).unwrap();
    }
    assert_eq!(builder.count() as usize, records.len());
    let bytes = builder.bytes_len();
    let batch = builder.finish().unwrap();
    assert_eq!(batch.bytes().len(), bytes);
    batch
}

/// Holds a batch against the records that it should have.
fn assert_holds<'a>(batch: &RecordBatch, wanted: impl IntoIterator<Item = &'a Parts>) {
    let mut found = batch.records();
    let mut end = 16;
    for parts in wanted {
        let record = found.next().expect("a record for each that went in");
        assert_eq!(record.transaction_id, parts.transaction_id.as_deref());
        assert_eq!(record.trace_id, parts.trace_id);
        assert_eq!((record.is_json, record.payload), (parts.is_json, parts.payload.as_slice()));
        let headers: Vec<(String, Vec<u8>)> =
            record.headers.map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
        assert_eq!(headers, parts.headers);
        assert_eq!(record.range.start, end);
        end = record.range.end;
    }
    assert_eq!(found.next(), None);
    assert_eq!(end, batch.bytes().len());
    assert_eq!(
        RecordBatch::parse(batch.bytes().clone(), &BatchLimits::default()).as_ref(),
        Ok(batch)
    );
}

proptest! {
    #[test]
    fn every_request_is_read_as_it_was_written(request in any_request(), request_id: u64) {
        let mut buffer = BytesMut::new();
        request.encode_frame(request_id, &mut buffer);
        let frame = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(frame.request_id, request_id);
        prop_assert_eq!(frame.opcode, request.opcode().number());
        for cut in 0..frame.body.len() {
            prop_assert!(Request::decode(frame.opcode, frame.body.slice(..cut)).is_err());
        }
        prop_assert_eq!(Request::decode(frame.opcode, frame.body), Ok(request));
    }

    #[test]
    fn every_response_is_read_as_it_was_written(response in any_response(), request_id: u64) {
        let mut buffer = BytesMut::new();
        response.encode_frame(request_id, &mut buffer);
        let frame = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
        prop_assert_eq!(frame.request_id, request_id);
        prop_assert_eq!(frame.opcode, response.opcode().number());
        for cut in 0..frame.body.len() {
            prop_assert!(Response::decode(frame.opcode, frame.body.slice(..cut)).is_err());
        }
        prop_assert_eq!(Response::decode(frame.opcode, frame.body), Ok(response));
    }

    #[test]
    fn every_batch_is_read_as_it_was_built(records in vec(parts(), 1..12)) {
        assert_holds(&build(&records), &records);
    }

    #[test]
    fn what_a_filter_keeps_is_what_it_was_asked_to(
        records in vec((parts(), any::<bool>()), 1..12),
    ) {
        let (all, keep): (Vec<Parts>, Vec<bool>) = records.into_iter().unzip();
        let wanted = all.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(parts, _)| parts);
        match build(&all).filter(|index| keep[index]) {
            Some(batch) => assert_holds(&batch, wanted),
            None => prop_assert_eq!(wanted.count(), 0),
        }
    }

    #[test]
    fn a_slice_and_what_is_left_join_to_the_whole(records in vec(parts(), 2..12), at in 1..11u32) {
        let batch = build(&records);
        let at = at.min(batch.count() - 1);
        let halves = [batch.slice(0, at).unwrap(), batch.slice(at, batch.count()).unwrap()];
        assert_holds(&halves[0], &records[..at as usize]);
        assert_holds(&halves[1], &records[at as usize..]);
        let mut whole = BytesMut::from(&RecordBatch::joined_header(&halves).unwrap()[..]);
        halves.iter().for_each(|half| whole.extend_from_slice(&half.records_section()));
        prop_assert_eq!(batch.bytes(), &whole);
    }

    #[test]
    fn random_bytes_break_no_promise(data in vec(any::<u8>(), 0..300)) {
        fuzz_bodies::frame(&data);
        fuzz_bodies::batch(&data);
        let mut seed = vec![0];
        seed.extend_from_slice(&data);
        for opcode in 0..=255 {
            seed[0] = opcode;
            fuzz_bodies::request(&seed);
            fuzz_bodies::response(&seed);
        }
    }

    #[test]
    fn random_records_behind_a_fitting_header_break_no_promise(
        records in vec(prop_oneof![0..6u8, any::<u8>()], 5..200),
        count in 1..6u32,
        flags in 0..2u8,
    ) {
        let mut data = vec![1, flags, 0, 0];
        data.extend_from_slice(&count.to_le_bytes());
        data.extend_from_slice(&(records.len() as u32).to_le_bytes());
        data.extend_from_slice(&crc32fast::hash(&records).to_le_bytes());
        data.extend_from_slice(&records);
        fuzz_bodies::batch(&data);
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames(
        bodies in vec(vec(any::<u8>(), 0..50), 1..6),
        step in 1..40usize,
    ) {
        let mut stream = BytesMut::new();
        for (id, body) in bodies.iter().enumerate() {
            frame::encode(3, id as u64, &mut stream, |out| out.extend_from_slice(body));
        }
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap() {
                prop_assert_eq!(frame.request_id, found.len() as u64);
                found.push(frame.body.to_vec());
            }
        }
        prop_assert_eq!(found, bodies);
    }

    #[test]
    fn every_address_is_found_again_in_its_id(
        time_ms in 0..=TIME_MS_MAX,
        partition: u32,
        seq in 0..=SEQUENCE_MAX,
    ) {
        let message = MessageId::new(time_ms, partition, seq).unwrap();
        prop_assert_eq!(message.parts(), (time_ms, partition, seq));
        prop_assert_eq!(MessageId::parse(&message.to_string()), Ok(message));
        prop_assert_eq!(MessageId::from_bytes(message.to_bytes()), Ok(message));
        prop_assert_eq!(id::partition_from_uuid(id::partition_uuid(partition)), Some(partition));
        prop_assert_eq!(id::partition_from_uuid(message.to_bytes()), None);
    }

    #[test]
    fn any_text_is_an_id_of_ours_or_none(text in "[0-9a-fA-F-]{30,40}|\\PC{0,40}") {
        if let Ok(message) = MessageId::parse(&text) {
            prop_assert_eq!(message.to_string(), text.to_lowercase());
        }
    }
}
