//! Record batches: what is refused, and what slicing, filtering and joining keep.

use bytes::{BufMut, Bytes, BytesMut};
use onrush_protocol::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES_MAX, RECORDS_MAX};
use onrush_protocol::{
    BatchBuilder, BatchError, BatchLimits, Code, NewRecord, Record, RecordBatch,
};

use crate::examples;

fn parse(bytes: impl Into<Bytes>) -> Result<RecordBatch, BatchError> {
    RecordBatch::parse(bytes.into(), &BatchLimits::default())
}

/// A batch around `records`, whatever they are, with a header that fits them.
fn around(records: &[u8], count: u32, flags: u8) -> BytesMut {
    let mut batch = BytesMut::from(&[1, flags, 0, 0][..]);
    batch.put_u32_le(count);
    batch.put_u32_le(records.len() as u32);
    batch.put_u32_le(crc32fast::hash(records));
    batch.put_slice(records);
    batch
}

/// A record of these flags and bytes.
fn record(flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut record = (rest.len() as u32 + 1).to_le_bytes().to_vec();
    record.push(flags);
    record.extend_from_slice(rest);
    record
}

fn payloads(payloads: &[&str]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for payload in payloads {
        let payload = payload.as_bytes();
        builder.push(&NewRecord { payload, ..NewRecord::default() }).unwrap();
    }
    builder.finish().unwrap()
}

fn texts(batch: &RecordBatch) -> Vec<&str> {
    batch.records().map(|record| std::str::from_utf8(record.payload).unwrap()).collect()
}

#[test]
fn records_come_out_with_all_that_they_went_in_with() {
    let batch = parse(examples::batch().bytes().clone()).unwrap();
    let records: Vec<Record<'_>> = batch.records().collect();
    assert_eq!(batch.count(), 2);
    assert!(batch.has_transaction_ids());
    let first = &records[0];
    assert_eq!((first.transaction_id, first.trace_id), (Some("order-1"), None));
    assert_eq!((first.is_json, first.payload), (true, &br#"{"n":1}"#[..]));
    assert!(first.headers.is_empty());
    let second = &records[1];
    assert_eq!((second.transaction_id, second.is_json), (None, false));
    assert_eq!(second.trace_id, Some(std::array::from_fn(|index| index as u8)));
    assert_eq!(second.headers.collect::<Vec<_>>(), vec![("k", &b"v"[..])]);
    assert_eq!((second.headers.get("k"), second.headers.get("x")), (Some(&b"v"[..]), None));
    assert_eq!((first.range.clone(), second.range.clone()), (16..36, 36..67));
    assert_eq!(batch.bytes().len(), 67);
}

#[test]
fn a_parsed_batch_shares_the_memory_it_came_in() {
    let bytes = examples::batch().bytes().clone();
    let batch = parse(bytes.clone()).unwrap();
    assert_eq!(batch.bytes().as_ptr(), bytes.as_ptr());
    let record = batch.records().nth(1).unwrap();
    let payload = batch.bytes().slice_ref(record.payload);
    assert_eq!(payload.as_ref(), &[1, 2, 3]);
}

#[test]
fn every_proper_prefix_of_a_batch_is_refused() {
    let bytes = examples::batch().bytes().clone();
    for cut in 0..bytes.len() {
        assert!(parse(bytes.slice(..cut)).is_err(), "{cut}");
        assert!(RecordBatch::parse_trusted(bytes.slice(..cut)).is_err(), "{cut}");
    }
}

#[test]
fn every_change_of_one_bit_of_the_records_is_a_bad_checksum() {
    let bytes = examples::batch().bytes().clone();
    for at in 16..bytes.len() {
        for bit in 0..8 {
            let mut changed = BytesMut::from(bytes.as_ref());
            changed[at] ^= 1 << bit;
            let refused = parse(changed).unwrap_err();
            assert!(matches!(refused, BatchError::Checksum { .. }), "{refused}");
            assert_eq!((refused.code(), refused.field()), (Code::BadChecksum, "crc32"));
        }
    }
}

#[test]
fn headers_of_other_versions_encodings_or_counts_are_refused_by_name() {
    let good = examples::batch().bytes().clone();
    let cases: &[(usize, &[u8], &str, Code)] = &[
        (0, &[2], "version", Code::UnsupportedEncoding),
        (1, &[0b011], "compression", Code::UnsupportedEncoding),
        (1, &[0b101], "compression", Code::UnsupportedEncoding),
        (1, &[0b111], "compression", Code::UnsupportedEncoding),
        (1, &[0b1001], "encryption", Code::UnsupportedEncoding),
        (1, &[0x11], "flags", Code::BatchInvalid),
        (1, &[0x81], "flags", Code::BatchInvalid),
        (1, &[0], "has_transaction_ids", Code::BatchInvalid),
        (2, &[1], "reserved", Code::BatchInvalid),
        (3, &[1], "reserved", Code::BatchInvalid),
        (4, &[0], "record_count", Code::BatchInvalid),
        (4, &[1], "records_bytes", Code::BatchInvalid),
        (4, &[3], "length", Code::BatchInvalid),
        (4, &[11], "record_count", Code::BatchInvalid),
        (4, &[0x41, 0x42, 0x0f], "record_count", Code::TooManyRecords),
        (8, &[50], "records_bytes", Code::BatchInvalid),
        (8, &[52], "records_bytes", Code::BatchInvalid),
    ];
    for (at, bytes, field, code) in cases {
        let mut changed = BytesMut::from(good.as_ref());
        changed[*at..at + bytes.len()].copy_from_slice(bytes);
        let refused = parse(changed).unwrap_err();
        assert_eq!((refused.field(), refused.code()), (*field, *code), "{refused}");
    }
}

#[test]
fn a_flag_that_promises_ids_where_there_are_none_is_refused() {
    let refused = parse(around(&record(0, b"x"), 1, 1)).unwrap_err();
    assert_eq!(refused.field(), "has_transaction_ids");
}

#[test]
fn records_that_do_not_follow_their_format_are_refused_by_field_and_index() {
    let sound = record(0, b"ok");
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![0, 0, 0, 0, 0], "length"),
        (vec![3, 0, 0, 0, 0], "length"),
        (vec![0xff, 0xff, 0xff, 0xff, 0], "length"),
        (record(0x10, b""), "flags"),
        (record(0x80, b""), "flags"),
        (record(1, b""), "transaction_id"),
        (record(1, &[0]), "transaction_id"),
        (record(1, &[2, b'a']), "transaction_id"),
        (record(1, &[1, 0xff]), "transaction_id"),
        (record(2, &[0; 15]), "trace_id"),
        (record(4, &[0]), "headers"),
        (record(4, &[5, 0, 1, b'k', 0, 0]), "headers"),
        (record(4, &[1, 0, 0]), "header_key"),
        (record(4, &[2, 0, 2, b'k']), "header_key"),
        (record(4, &[2, 0, 1, 0xff]), "header_key"),
        (record(4, &[3, 0, 1, b'k', 0]), "header_value"),
        (record(4, &[4, 0, 1, b'k', 1, 0]), "header_value"),
    ];
    for (bad, field) in cases {
        let mut records = sound.clone();
        records.extend_from_slice(bad);
        let refused = parse(around(&records, 2, bad[4] & 1)).unwrap_err();
        assert_eq!((refused.field(), refused.record()), (*field, Some(1)), "{refused}");
        assert_eq!(refused.code(), Code::BatchInvalid);
        // Taken on trust it cannot be refused; walking it ends before the bad record, or shows
        // it with texts that are text.
        let trusted = RecordBatch::parse_trusted(around(&records, 2, 0).freeze()).unwrap();
        assert_eq!(trusted.records().next().unwrap().payload, b"ok");
        assert!(trusted.records().map(|record| record.headers.count()).sum::<usize>() < 2);
    }
}

#[test]
fn sizes_above_the_limits_are_refused_with_the_limit() {
    let limits = BatchLimits { batch_bytes_max: 67, message_bytes_max: 7, records_max: 2 };
    let bytes = examples::batch().bytes().clone();
    assert!(RecordBatch::parse(bytes.clone(), &limits).is_ok());
    let small = BatchLimits { batch_bytes_max: 66, ..limits };
    let refused = RecordBatch::parse(bytes.clone(), &small).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::BatchTooLarge, 66));
    let small = BatchLimits { message_bytes_max: 6, ..limits };
    let refused = RecordBatch::parse(bytes.clone(), &small).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::MessageTooLarge, 6));
    assert_eq!((refused.field(), refused.record()), ("payload", Some(0)));
    let small = BatchLimits { records_max: 1, ..limits };
    let refused = RecordBatch::parse(bytes, &small).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::TooManyRecords, 1));
}

#[test]
fn a_batch_of_the_most_records_is_taken_and_one_more_is_not() {
    let records = record(0, b"").repeat(RECORDS_MAX as usize + 1);
    let most = &records[..records.len() - 5];
    let batch = parse(around(most, RECORDS_MAX, 0)).unwrap();
    assert_eq!(batch.records().count(), RECORDS_MAX as usize);
    let refused = parse(around(&records, RECORDS_MAX + 1, 0)).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::TooManyRecords, 1_000_000));
}

#[test]
fn slices_hold_the_records_between_their_ends() {
    let batch = payloads(&["a", "b", "c", "d"]);
    let middle = batch.slice(1, 3).unwrap();
    assert_eq!(texts(&middle), ["b", "c"]);
    assert_eq!(parse(middle.bytes().clone()), Ok(middle));
    let whole = batch.slice(0, 4).unwrap();
    assert_eq!(whole.bytes().as_ptr(), batch.bytes().as_ptr(), "the whole is shared, not copied");
    for (from, to) in [(0, 0), (2, 1), (4, 4), (0, 5), (4, 5)] {
        assert_eq!(batch.slice(from, to), None, "{from}..{to}");
    }
}

#[test]
fn filtering_keeps_order_and_tells_whether_ids_remain() {
    let batch = payloads(&["a", "b", "c", "d", "e"]);
    let odd = batch.filter(|index| index % 2 == 0).unwrap();
    assert_eq!(texts(&odd), ["a", "c", "e"]);
    assert_eq!(parse(odd.bytes().clone()), Ok(odd));
    assert_eq!(batch.filter(|_| false), None);
    let all = batch.filter(|_| true).unwrap();
    assert_eq!(all.bytes().as_ptr(), batch.bytes().as_ptr());

    let mixed = examples::batch();
    assert!(mixed.filter(|index| index == 0).unwrap().has_transaction_ids());
    let without = mixed.filter(|index| index == 1).unwrap();
    assert!(!without.has_transaction_ids());
    assert_eq!(parse(without.bytes().clone()), Ok(without));
}

#[test]
fn joined_parts_are_a_batch_of_all_their_records() {
    let parts = [payloads(&["a"]), examples::batch(), payloads(&["", "long enough"])];
    let mut whole = BytesMut::from(&RecordBatch::joined_header(&parts).unwrap()[..]);
    for part in &parts {
        whole.extend_from_slice(&part.records_section());
    }
    let batch = parse(whole).unwrap();
    assert_eq!((batch.count(), batch.has_transaction_ids()), (5, true));
    assert_eq!(texts(&batch), ["a", r#"{"n":1}"#, "\u{1}\u{2}\u{3}", "", "long enough"]);
    let alone = RecordBatch::joined_header(&parts[..1]).unwrap();
    assert_eq!(alone[..], parts[0].bytes()[..16]);
}

#[test]
fn parts_that_are_too_much_together_are_not_joined() {
    assert_eq!(RecordBatch::joined_header([]).unwrap_err().field(), "record_count");
    let payload = vec![b'x'; BATCH_BYTES_MAX / 8];
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload: &payload, ..NewRecord::default() }).unwrap();
    let large = builder.finish().unwrap();
    assert!(RecordBatch::joined_header([&large; 7]).is_ok());
    let refused = RecordBatch::joined_header([&large; 8]).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::BatchTooLarge, BATCH_BYTES_MAX as u64));
}

#[test]
fn a_builder_refuses_what_a_parser_would_and_is_as_before() {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { payload: b"first", ..NewRecord::default() }).unwrap();
    let before = builder.bytes_len();
    let long = "x".repeat(256);
    let large = vec![0; MESSAGE_BYTES_MAX + 1];
    let value = vec![0; 65_536];
    let part = vec![0; 40_000];
    let plain = NewRecord::default();
    let cases = [
        (NewRecord { payload: &large, ..plain }, "payload", MESSAGE_BYTES_MAX),
        (NewRecord { transaction_id: Some(""), ..plain }, "transaction_id", 0),
        (NewRecord { transaction_id: Some(&long), ..plain }, "transaction_id", 255),
        (NewRecord { headers: &[("", b"")], ..plain }, "header_key", 0),
        (NewRecord { headers: &[(&long, b"")], ..plain }, "header_key", 255),
        (NewRecord { headers: &[("k", &value)], ..plain }, "header_value", 65_535),
        (NewRecord { headers: &[("a", &part), ("b", &part)], ..plain }, "headers", 65_535),
    ];
    for (record, field, limit) in cases {
        let refused = builder.push(&record).unwrap_err();
        assert_eq!((refused.field(), refused.limit()), (field, limit as u64));
        assert_eq!((builder.count(), builder.bytes_len(), refused.record()), (1, before, Some(1)));
    }
    assert_eq!(texts(&builder.finish().unwrap()), ["first"]);
}

#[test]
fn a_builder_stops_exactly_at_the_limits_it_was_given() {
    let limits = BatchLimits { batch_bytes_max: 30, message_bytes_max: 9, records_max: 2 };
    let mut builder = BatchBuilder::with_limits(limits);
    let nine = NewRecord { payload: b"123456789", ..NewRecord::default() };
    let refused =
        builder.push(&NewRecord { payload: b"1234567890", ..NewRecord::default() }).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::MessageTooLarge, 9));
    builder.push(&nine).unwrap();
    assert_eq!(builder.bytes_len(), 30);
    let refused = builder.push(&NewRecord::default()).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::BatchTooLarge, 30));
    let full = builder.finish().unwrap();
    assert!(RecordBatch::parse(full.bytes().clone(), &limits).is_ok());

    builder.push(&NewRecord::default()).unwrap();
    builder.push(&NewRecord::default()).unwrap();
    let refused = builder.push(&NewRecord::default()).unwrap_err();
    assert_eq!((refused.code(), refused.limit()), (Code::TooManyRecords, 2));
}

#[test]
fn a_builder_is_empty_again_after_it_handed_over() {
    let mut builder = BatchBuilder::with_capacity(1024);
    assert_eq!((builder.count(), builder.bytes_len()), (0, 0));
    assert_eq!(builder.finish(), None);
    let with_id = NewRecord { transaction_id: Some("t"), ..NewRecord::default() };
    builder.push(&with_id).unwrap();
    let first = builder.finish().unwrap();
    assert_eq!((builder.count(), builder.bytes_len()), (0, 0));
    builder.push(&NewRecord { payload: b"second", ..NewRecord::default() }).unwrap();
    let second = builder.finish().unwrap();
    assert!(first.has_transaction_ids());
    assert!(!second.has_transaction_ids());
    assert_eq!(texts(&second), ["second"]);
    assert_eq!(parse(first.bytes().clone()), Ok(first));
    assert_eq!(parse(second.bytes().clone()), Ok(second));
}

#[test]
fn bytes_read_back_on_trust_are_the_batch_that_was_stored() {
    let batch = examples::batch();
    assert_eq!(RecordBatch::parse_trusted(batch.bytes().clone()), Ok(batch));
}
