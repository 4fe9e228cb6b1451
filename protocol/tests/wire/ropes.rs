//! Writers that list batches beside their frames: the same bytes, and no copy of a payload.

use bytes::{Bytes, BytesMut};
use onrush_protocol::request::{Push, PushSection, PushSections, PushTerms};
use onrush_protocol::response::{KnownMessages, Messages, MessagesKind, MessagesWriter};
use onrush_protocol::{PartitionName, Qos, QueueName, Request, Response};

use crate::examples;

fn joined(pieces: &[Bytes]) -> BytesMut {
    let mut whole = BytesMut::new();
    for piece in pieces {
        whole.extend_from_slice(piece);
    }
    whole
}

/// Who pushed every chunk, where the answer says so.
const PRODUCER: &str = "shop";

/// Writes `messages` as a server would.
fn written(messages: &Messages, request_id: u64) -> Vec<Bytes> {
    written_as(MessagesKind::Plain, messages, request_id)
}

fn written_as(kind: MessagesKind, messages: &Messages, request_id: u64) -> Vec<Bytes> {
    let mut writer = MessagesWriter::new(kind, &messages.lease, messages.lease_until_ms);
    for section in &messages.sections {
        let mut out = writer.section(&section.queue, section.partition, &section.partition_name);
        for chunk in &section.chunks {
            out.chunk(chunk.first_seq, chunk.time_ms, PRODUCER, chunk.batch.clone());
        }
        out.end(&section.attempts);
    }
    let bytes = writer.frame_bytes();
    assert_eq!(usize::from(writer.sections()), messages.sections.len());
    let pieces = writer.finish(request_id);
    assert_eq!(joined(&pieces).len(), bytes);
    pieces
}

fn plain(messages: &Messages, request_id: u64) -> BytesMut {
    let mut out = BytesMut::new();
    Response::Messages(messages.clone()).encode_frame(request_id, &mut out);
    out
}

#[test]
fn a_rope_of_messages_is_the_frame_that_encode_writes() {
    let mut messages = examples::messages();
    assert_eq!(joined(&written(&messages, 4)), plain(&messages, 4));
    let mut second = messages.sections[0].clone();
    second.chunks.extend(second.chunks.clone());
    second.attempts.clear();
    messages.sections.push(second);
    let mut third = messages.sections[0].clone();
    third.chunks.clear();
    messages.sections.push(third);
    assert_eq!(joined(&written(&messages, 5)), plain(&messages, 5));
    messages.sections.clear();
    assert_eq!(joined(&written(&messages, 6)), plain(&messages, 6));
}

#[test]
fn a_rope_that_says_who_pushed_is_the_frame_that_encode_writes() {
    let mut messages = examples::messages();
    let mut second = messages.sections[0].clone();
    second.chunks.extend(second.chunks.clone());
    messages.sections.push(second);
    let producers = vec![PRODUCER.parse().unwrap(); 3];
    let known = KnownMessages { messages: messages.clone(), producers };
    for (kind, response) in [
        (MessagesKind::Known, Response::KnownMessages(known.clone())),
        (MessagesKind::Any, Response::AnyMessages(known)),
    ] {
        let mut out = BytesMut::new();
        response.encode_frame(7, &mut out);
        assert_eq!(joined(&written_as(kind, &messages, 7)), out);
    }
}

#[test]
fn a_rope_of_messages_holds_the_very_batches_it_was_given() {
    let messages = examples::messages();
    let batch = &messages.sections[0].chunks[0].batch;
    let pieces = written(&messages, 1);
    assert!(pieces.iter().any(|piece| piece.as_ptr() == batch.as_ptr()));
    assert_eq!(pieces.len(), 3);
}

#[test]
fn a_section_that_is_not_ended_is_taken_back_whole() {
    let messages = examples::messages();
    let section = &messages.sections[0];
    let mut writer =
        MessagesWriter::new(MessagesKind::Plain, &messages.lease, messages.lease_until_ms);
    let before = writer.frame_bytes();
    let mut dropped = writer.section(&section.queue, 1, &section.partition_name);
    dropped.chunk(1, 2, PRODUCER, Bytes::from_static(b"gone"));
    drop(dropped);
    assert_eq!((writer.frame_bytes(), writer.sections()), (before, 0));
    let empty = Messages { sections: Vec::new(), ..messages };
    assert_eq!(joined(&writer.finish(9)), plain(&empty, 9));
}

#[test]
fn a_push_written_around_its_batch_is_the_frame_that_encode_writes() {
    let batch = examples::batch().bytes().clone();
    let queue: QueueName = "orders".parse().unwrap();
    let partition = PartitionName::default();
    let terms = PushTerms { qos: Qos::ExactlyOnce, timeout_ms: 1, buffer_ms: 2, buffer_max: 3 };
    let mut around = BytesMut::from(&b"earlier"[..]);
    terms.encode_single(8, &queue, &partition, batch.len(), &mut around);
    around.extend_from_slice(&batch);

    let section = PushSection { queue, partition, batch };
    let push = Push { terms, sections: PushSections::collect([&section]).unwrap() };
    let mut plain = BytesMut::from(&b"earlier"[..]);
    Request::Push(push).encode_frame(8, &mut plain);
    assert_eq!(around, plain);
}

#[test]
fn a_push_of_many_sections_can_be_written_around_its_batches() {
    let batch = examples::batch().bytes().clone();
    let section = |name: &str| PushSection {
        queue: name.parse().unwrap(),
        partition: name.parse().unwrap(),
        batch: batch.clone(),
    };
    let sections = [section("a"), section("b"), section("c")];
    let terms = PushTerms::default();
    let mut around = BytesMut::new();
    terms.encode(3, &mut around);
    for section in &sections {
        let PushSection { queue, partition, batch } = section;
        PushTerms::section_head(queue, partition, batch.len(), &mut around);
        around.extend_from_slice(batch);
    }
    let push = Push { terms, sections: PushSections::collect(&sections).unwrap() };
    let mut plain = BytesMut::new();
    push.encode(&mut plain);
    assert_eq!(around, plain);
    let again: Vec<_> = push.sections.iter().map(Result::unwrap).collect();
    assert_eq!(again, sections);
}

#[test]
fn a_push_without_sections_or_with_too_many_cannot_be_made() {
    assert_eq!(PushSections::collect([]).unwrap_err().field(), "sections");
    let section = PushSection {
        queue: QueueName::default(),
        partition: PartitionName::default(),
        batch: Bytes::new(),
    };
    let many = std::iter::repeat_n(&section, 65_536);
    assert_eq!(PushSections::collect(many).unwrap_err().limit(), 65_535);
    let most = std::iter::repeat_n(&section, 65_535);
    assert_eq!(PushSections::collect(most).unwrap().count(), 65_535);
}
