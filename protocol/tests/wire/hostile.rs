//! Bytes that mean no good: cut short, gone on, changed, or announcing more than is there.

use bytes::{BufMut, Bytes, BytesMut};
use onrush_protocol::request::{Ack, Configure, Hello, Pop, Push, Transaction};
use onrush_protocol::response::{Acked, Committed, Messages, Receipts, Stats};
use onrush_protocol::{Code, DecodeError, Request, Response, fuzz_bodies};

use crate::examples;

#[test]
fn every_proper_prefix_of_every_body_is_refused() {
    for (name, _, example) in examples::all() {
        let body = example.body();
        for cut in 0..body.len() {
            let decoded = example.decode(body.slice(..cut));
            assert!(decoded.is_err(), "{name} was read from {cut} of {} bytes", body.len());
        }
    }
}

#[test]
fn every_body_with_a_byte_too_many_is_refused_at_its_end() {
    for (name, _, example) in examples::all() {
        let body = example.body();
        let mut longer = BytesMut::from(body.as_ref());
        longer.put_u8(0);
        let refused = DecodeError::Trailing { offset: body.len(), bytes: 1 };
        assert_eq!(example.decode(longer.freeze()), Err(refused), "{name}");
    }
}

#[test]
fn no_change_of_one_byte_breaks_a_promise() {
    for (_, _, example) in examples::all() {
        let mut seed = vec![example.opcode()];
        seed.extend_from_slice(&example.body());
        for at in 0..seed.len() {
            for value in 0..=255 {
                let mut changed = seed.clone();
                changed[at] = value;
                fuzz_bodies::request(&changed);
                fuzz_bodies::response(&changed);
            }
        }
    }
}

#[test]
fn fuzz_bodies_hold_on_every_example_and_its_prefixes() {
    for (_, request_id, example) in examples::all() {
        let frame = example.frame(request_id);
        for cut in 0..=frame.len() {
            fuzz_bodies::frame(&frame[..cut]);
        }
        let mut seed = vec![example.opcode()];
        seed.extend_from_slice(&example.body());
        for cut in 0..=seed.len() {
            fuzz_bodies::request(&seed[..cut]);
            fuzz_bodies::response(&seed[..cut]);
        }
    }
    let batch = examples::batch();
    for cut in 0..=batch.bytes().len() {
        fuzz_bodies::batch(&batch.bytes()[..cut]);
    }
}

#[test]
fn an_opcode_of_the_other_direction_is_no_message() {
    for (_, _, example) in examples::all() {
        let opcode = example.opcode();
        let refused = match example {
            examples::Example::Ask(_) => Response::decode(opcode, Bytes::new()).map(|_| ()),
            examples::Example::Answer(_) => Request::decode(opcode, Bytes::new()).map(|_| ()),
        };
        assert_eq!(refused, Err(DecodeError::Opcode(opcode)));
    }
    let unknown = Request::decode(77, Bytes::new()).unwrap_err();
    assert_eq!((unknown.code(), unknown.field()), (Code::UnknownOpcode, "opcode"));
}

/// A body of `head` and a count of all ones, of `count_bytes` bytes, and a little more.
fn announcing(head: &[u8], count_bytes: usize) -> Bytes {
    let mut body = BytesMut::from(head);
    body.put_bytes(0xff, count_bytes);
    body.put_bytes(0, 64);
    body.freeze()
}

/// What a decoder says about a count, without its offset.
fn count<T: std::fmt::Debug>(decoded: Result<T, DecodeError>) -> (&'static str, u64, u64) {
    match decoded {
        Err(DecodeError::Count { field, count, max, .. }) => (field, count, max),
        other => panic!("not about a count: {other:?}"),
    }
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused() {
    let every_u16 = u64::from(u16::MAX);
    let every_u32 = u64::from(u32::MAX);

    let push = Push::decode(announcing(&[0; 13], 2));
    assert_eq!(count(push), ("sections", every_u16, 64 / 6));
    let mut ack = vec![1, b'g'];
    ack.extend_from_slice(&[0; 16]);
    assert_eq!(count(Ack::decode(announcing(&ack, 4))), ("items", every_u32, 64 / 23));
    let leases = Transaction::decode(announcing(&[0], 2));
    assert_eq!(count(leases), ("leases", every_u16, 64 / 16));
    let acks = Transaction::decode(announcing(&[0; 3], 4));
    assert_eq!(count(acks), ("acks", every_u32, 64 / 40));
    let sections = Transaction::decode(announcing(&[0; 7], 2));
    assert_eq!(count(sections), ("sections", every_u16, 64 / 6));
    let configure = Configure::decode(announcing(&[0; 3], 2));
    assert_eq!(count(configure), ("options", every_u16, 64 / 9));

    let receipts = Receipts::decode(announcing(&[0], 2));
    assert_eq!(count(receipts), ("sections", every_u16, 64 / 5));
    let mixed = Receipts::decode(announcing(&[0, 1, 0, 1, 0, 0, 0, 0], 4));
    assert_eq!(count(mixed), ("outcomes", every_u32, 64 / 17));
    let messages = Messages::decode(announcing(&[0; 24], 2));
    assert_eq!(count(messages), ("sections", every_u16, 64 / 15));
    let mut section = vec![0; 24];
    section.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 1, b'p']);
    let chunks = Messages::decode(announcing(&section, 4));
    assert_eq!(count(chunks), ("chunks", every_u32, 64 / 20));
    section.extend_from_slice(&[0; 4]);
    let attempts = Messages::decode(announcing(&section, 4));
    assert_eq!(count(attempts), ("attempts", every_u32, 64 / 12));
    assert_eq!(count(Acked::decode(announcing(&[], 4))), ("items", every_u32, 64 / 11));
    assert_eq!(count(Committed::decode(announcing(&[], 4))), ("acks", every_u32, 64 / 11));
    assert_eq!(count(Stats::decode(announcing(&[], 2))), ("entries", every_u16, 64 / 9));
}

#[test]
fn an_ack_of_more_items_than_allowed_is_refused_though_the_bytes_are_there() {
    let mut body = BytesMut::from(&[1, b'g'][..]);
    body.put_bytes(0, 16);
    body.put_u32_le(100_001);
    body.put_bytes(0, 100_001 * 23);
    assert_eq!(count(Ack::decode(body.freeze())), ("items", 100_001, 100_000));
}

/// The body of the example with this name, with `bytes` written over it at `at`.
fn overwritten(name: &str, at: usize, bytes: &[u8]) -> Result<examples::Example, DecodeError> {
    let (_, _, example) = examples::all().into_iter().find(|(n, _, _)| *n == name).unwrap();
    let mut body = BytesMut::from(example.body().as_ref());
    body[at..at + bytes.len()].copy_from_slice(bytes);
    example.decode(body.freeze())
}

#[test]
fn numbers_outside_their_limits_are_refused_with_field_and_limit() {
    let cases: &[(&str, usize, &[u8], &str, u64)] = &[
        ("push", 0, &[3], "qos", 2),
        ("push", 13, &[0, 0], "sections", 1),
        ("pop", 16, &[0, 0, 0, 0], "messages_max", 1),
        ("pop", 16, &[0x11, 0x27, 0, 0], "messages_max", 10_000),
        ("pop", 24, &[0, 0], "partitions_max", 1),
        ("pop", 34, &[2], "auto_ack", 1),
        ("pop", 35, &[4], "start", 3),
        ("ack", 40, &[0xe7, 3], "last_seq", 1000),
        ("ack", 48, &[4], "outcome", 3),
        ("receipts", 0, &[4], "flags", 3),
        ("receipts", 3, &[4], "receipt", 3),
        ("receipts", 37, &[2], "status", 1),
        ("acked", 14, &[2], "lease_released", 1),
        ("deleted", 0, &[2], "existed", 1),
        ("list_messages", 0, &[0xa1, 0x86, 1, 0], "skip", 100_000),
        ("list_messages", 4, &[0, 0, 0, 0], "limit", 1),
        ("list_messages", 4, &[0xe9, 3, 0, 0], "limit", 1000),
        ("list_messages", 8, &[5], "status", 4),
        ("change_message", 4, &[2], "by", 1),
        ("change_message", 14, &[3], "change", 2),
        ("begin_job", 0, &[3], "action", 2),
        ("job_begun", 5, &[4], "state", 3),
        ("message_page", 40, &[0], "status", 1),
        ("pop_any", 6, &[2], "by_task", 1),
        ("push_process", 13, &[5], "level", 4),
        ("push_process", 14, &[0x40], "said", 63),
        ("push_process", 15, &[0xc1, 0x27, 9, 0], "timeout_ms", 600_000),
        ("get_process", 13, &[6], "what", 5),
        ("change_process", 13, &[2], "change", 1),
    ];
    for (name, at, bytes, field, limit) in cases {
        let error = overwritten(name, *at, bytes).unwrap_err();
        // A push without sections has its bytes left over in any case; the count speaks first.
        assert_eq!((error.field(), error.limit()), (*field, *limit), "{name}: {error}");
        assert_eq!(error.code(), Code::BadValue, "{name}: {error}");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn options_that_are_unknown_repeated_or_out_of_range_are_refused() {
    // Options begin behind queue, namespace, task and count: 7 + 5 + 1 + 2.
    let option = |index: usize| 15 + 9 * index;
    let unknown = overwritten("configure", option(14), &[17]).unwrap_err();
    assert_eq!(unknown.to_string(), "option at byte 141 is 17; at most 16 is allowed");
    let unknown = overwritten("configure", option(0), &[0]).unwrap_err();
    assert_eq!((unknown.field(), unknown.code()), ("option", Code::BadOption));
    let twice = overwritten("configure", option(1), &[1]).unwrap_err();
    assert_eq!(twice, DecodeError::Duplicate { field: "option", offset: option(1), value: 1 });
    assert_eq!(twice.code(), Code::BadOption);
    let cases: &[(usize, &[u8], &str, u64)] = &[
        (0, &[0, 0, 0, 0, 1], "lease_time_s", u64::from(u32::MAX)),
        (5, &[2], "dead_letter_queue", 1),
        (7, &[0, 0, 0, 0x80, 0, 0, 0, 0], "priority", i32::MAX as u64),
    ];
    for (index, value, field, limit) in cases {
        let error = overwritten("configure", option(*index) + 1, value).unwrap_err();
        assert_eq!((error.field(), error.limit()), (*field, *limit));
        assert_eq!(error.code(), Code::BadOption);
    }
}

#[test]
fn an_option_that_is_missing_has_its_default() {
    let mut body = BytesMut::from(&[1, b'q', 0, 0][..]);
    body.put_u16_le(1);
    body.put_u8(4);
    body.put_u64_le(9);
    let configure = Configure::decode(body.freeze()).unwrap();
    let wanted = onrush_protocol::QueueOptions { retry_limit: 9, ..Default::default() };
    assert_eq!(configure.options, wanted);
}

#[test]
fn names_that_are_not_legal_are_refused_with_their_place() {
    let control = overwritten("pop", 1, b"\n").unwrap_err();
    assert_eq!((control.code(), control.field()), (Code::BadName, "queue"));
    let group = Pop::decode(Bytes::from_static(&[0, 0, 0])).unwrap_err();
    assert_eq!((group.field(), group.limit()), ("group", 1));
    let utf8 = Hello::decode(Bytes::from_static(&[1, 0, 1, 0, 1, 0xff])).unwrap_err();
    assert_eq!((utf8.code(), utf8.field()), (Code::BadName, "client"));
}

#[test]
fn a_token_longer_than_its_limit_is_refused_and_none_is_shown() {
    let mut body = BytesMut::from(&[1, 0, 1, 0, 0][..]);
    body.put_u16_le(4097);
    body.put_bytes(b'x', 4097);
    let refused = Hello::decode(body.freeze()).unwrap_err();
    assert_eq!((refused.field(), refused.limit()), ("token", 4096));
    let (_, _, hello) = examples::all().into_iter().next().unwrap();
    assert!(!format!("{hello:?}").contains("secret"));
}

#[test]
fn a_bad_name_in_one_section_of_a_push_leaves_the_others_whole() {
    let mut body = BytesMut::from(&[1][..]);
    body.put_bytes(0, 12);
    body.put_u16_le(2);
    body.put_slice(&[1, b'q', 0, 2, 0, 0, 0, 7, 7]);
    body.put_slice(&[1, b'q', 1, b'p', 1, 0, 0, 0, 8]);
    let push = Push::decode(body.freeze()).unwrap();
    let sections: Vec<_> = push.sections.iter().collect();
    assert_eq!(sections[0].as_ref().unwrap_err().field(), "partition");
    assert_eq!(sections[1].as_ref().unwrap().batch.as_ref(), &[8]);
    assert_eq!(sections.len(), 2);
}
