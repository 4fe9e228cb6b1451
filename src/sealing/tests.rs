//! What a ring promises: what was sealed opens as it was, in its place and with its key, and nowhere else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use onrush_protocol::batch::{BatchBuilder, BatchLimits, NewRecord, RecordBatch};
use proptest::prelude::*;

use super::*;
use crate::base::random::SystemRandom;

const PLACE: Place<'_> = Place { queue: 7, partition: "customer-1" };

fn keys(text: &str) -> KeySet {
    let mut keys = KeySet::default();
    keys.add_file(text).unwrap();
    keys
}

/// Keys of these numbers, each made of its own digit; the last one seals.
fn numbered(ids: &[u8]) -> KeySet {
    let lines = ids.iter().map(|id| format!("{id} = \"{}\"\n", id.to_string().repeat(64)));
    keys(&format!("active = {}\n[keys]\n{}", ids.last().unwrap(), lines.collect::<String>()))
}

fn ring(ids: &[u8]) -> Keyring {
    Keyring::new(numbered(ids), Arc::new(SystemRandom))
}

fn batch(payloads: &[&[u8]]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for (at, payload) in payloads.iter().enumerate() {
        let id = format!("id-{at}");
        let headers: &[(&str, &[u8])] = if at % 2 == 0 { &[("k", b"v")] } else { &[] };
        let trace_id = (at % 3 == 0).then_some([at as u8; 16]);
        let (transaction_id, is_json) = (Some(id.as_str()), at % 2 == 1);
        let record = NewRecord { transaction_id, trace_id, headers, is_json, payload };
        builder.push(&record).unwrap();
    }
    builder.finish().unwrap()
}

fn single_payload(batch: &RecordBatch) -> Vec<u8> {
    batch.records().next().unwrap().payload.to_vec()
}

/// A batch of one whose payload is changed at a byte.
fn changed(sealed: &RecordBatch, at: usize) -> RecordBatch {
    let changed = sealed.rewrite(true, 0, |record, out| {
        let mut payload = record.payload.to_vec();
        payload[at] ^= 1;
        out.extend_from_slice(&payload);
        Ok::<_, ()>(())
    });
    changed.unwrap()
}

#[test]
fn what_was_sealed_opens_as_it_was_and_holds_nothing_of_the_payload_meanwhile() {
    let ring = ring(&[1]);
    let clear = batch(&[b"the plain text of a canary", b"", b"{\"canary\":true}"]);
    let sealed = ring.seal(PLACE, &clear).unwrap();
    assert!(sealed.is_sealed() && !clear.is_sealed());
    let holds = |text: &[u8]| sealed.bytes().windows(text.len()).any(|it| it == text);
    assert!(!holds(b"canary") && holds(b"id-0"), "ids stay in clear");
    assert_eq!(sealed.bytes().len(), clear.bytes().len() + 3 * form::OVERHEAD_BYTES);
    let opened = ring.open(PLACE, &sealed).unwrap();
    assert_eq!(opened, clear);
    // A consumer checks everything, and so does it here.
    assert!(RecordBatch::parse(opened.bytes().clone(), &BatchLimits::default()).is_ok());
    // Nobody can push what looks sealed.
    let refused = RecordBatch::parse(sealed.bytes().clone(), &BatchLimits::default()).unwrap_err();
    assert_eq!(refused.field(), "encryption");
    assert_eq!(ring.open(PLACE, &clear).unwrap(), clear, "what is not sealed is itself");
}

#[test]
fn a_sealed_message_opens_in_its_own_place_only() {
    let ring = ring(&[1]);
    let sealed = ring.seal(PLACE, &batch(&[b"a", b"b"])).unwrap();
    let broken = Err((0, OpenError::Broken(KeyId(1))));
    assert_eq!(ring.open(Place { queue: 8, ..PLACE }, &sealed), broken, "another queue");
    for partition in ["customer-2", "customer-", "customer-11", ""] {
        assert_eq!(ring.open(Place { partition, ..PLACE }, &sealed), broken, "{partition}");
    }
    // The payload of one record under the id of another.
    let payloads: Vec<Vec<u8>> = sealed.records().map(|it| it.payload.to_vec()).collect();
    let mut other = payloads.iter().rev();
    let swapped = sealed.rewrite(true, 0, |_, out| {
        out.extend_from_slice(other.next().unwrap());
        Ok::<_, ()>(())
    });
    assert_eq!(ring.open(PLACE, &swapped.unwrap()), broken);
}

#[test]
fn no_byte_of_a_sealed_message_can_be_changed() {
    let ring = ring(&[1]);
    let sealed = ring.seal(PLACE, &batch(&[b"some text"])).unwrap();
    for at in 0..single_payload(&sealed).len() {
        let (index, error) = ring.open(PLACE, &changed(&sealed, at)).unwrap_err();
        assert_eq!(index, 0);
        match at {
            0 => assert_eq!(error, OpenError::Malformed("its form is unknown")),
            1..5 => assert!(matches!(error, OpenError::NoKey(id) if id != KeyId(1)), "{error}"),
            _ => assert_eq!(error, OpenError::Broken(KeyId(1)), "byte {at}"),
        }
    }
    for len in 0..single_payload(&sealed).len() {
        let cut = sealed.rewrite(true, 0, |record, out| {
            out.extend_from_slice(&record.payload[..len]);
            Ok::<_, ()>(())
        });
        assert!(ring.open(PLACE, &cut.unwrap()).is_err(), "{len} bytes");
    }
}

#[test]
fn a_key_that_is_not_here_is_named_and_messages_before_its_own_still_open() {
    let ring = ring(&[1]);
    let old = ring.seal(PLACE, &batch(&[b"old"])).unwrap();
    assert!(ring.replace(numbered(&[1, 2])));
    assert!(!ring.replace(numbered(&[1, 2])), "the same keys are no news");
    let new = ring.seal(PLACE, &batch(&[b"new"])).unwrap();
    for sealed in [&old, &new] {
        assert!(ring.open(PLACE, sealed).is_ok());
    }
    ring.replace(numbered(&[2]));
    let error = ring.open(PLACE, &old).unwrap_err().1;
    assert_eq!(
        (error, error.to_string()),
        (OpenError::NoKey(KeyId(1)), "key 1 is not here".into())
    );
    assert!(ring.open(PLACE, &new).is_ok());
    // Another key under the same number is no key for it.
    ring.replace(keys(&format!("active = 1\n[keys]\n1 = \"{}\"", "9".repeat(64))));
    assert_eq!(ring.open(PLACE, &old).unwrap_err().1, OpenError::Broken(KeyId(1)));
    ring.replace(numbered(&[1]));
    assert!(ring.open(PLACE, &old).is_ok(), "it was never lost");
    assert_eq!(Keyring::empty().seal(PLACE, &old), Err(SealError::NoKey));
}

#[test]
fn the_first_message_that_does_not_open_is_told_by_its_index() {
    let ring = ring(&[1]);
    let sealed = ring.seal(PLACE, &batch(&[b"a", b"b", b"c"])).unwrap();
    let mut at = 0;
    let damaged = sealed.rewrite(true, 0, |record, out| {
        let mut payload = record.payload.to_vec();
        payload[30] ^= u8::from(at == 1);
        at += 1;
        out.extend_from_slice(&payload);
        Ok::<_, ()>(())
    });
    assert_eq!(ring.open(PLACE, &damaged.unwrap()).unwrap_err().0, 1);
}

#[test]
fn no_nonce_comes_twice_under_one_salt_whoever_seals_beside_whom() {
    let ring = ring(&[1]);
    let mut seen = BTreeSet::new();
    let of = |sealed: &RecordBatch| -> Vec<Vec<u8>> {
        sealed.records().map(|it| it.payload[5..25].to_vec()).collect()
    };
    let sealed: Vec<Vec<Vec<u8>>> = thread::scope(|scope| {
        let seal = || {
            let batches = (0..500)
                .map(|at| of(&ring.seal(PLACE, &batch(&vec![&b"x"[..]; at % 9 + 1])).unwrap()));
            batches.flatten().collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for used in sealed.into_iter().flatten() {
        assert!(seen.insert(used), "a nonce was used twice");
    }
}

#[test]
fn a_salt_is_left_before_its_counter_ends() {
    let ring = ring(&[1]);
    let salt = |sealed: &RecordBatch| single_payload(sealed)[5..21].to_vec();
    let counter = |sealed: &RecordBatch| single_payload(sealed)[21..25].to_vec();
    let first = ring.seal(PLACE, &batch(&[b"x"])).unwrap();
    let second = ring.seal(PLACE, &batch(&[b"x"])).unwrap();
    assert_eq!(salt(&first), salt(&second));
    assert_ne!(counter(&first), counter(&second));
    let inner = ring.ring.load();
    inner.epoch.as_ref().unwrap().load().used.store(BLOCKS_MAX - 1, Ordering::Relaxed);
    let third = ring.seal(PLACE, &batch(&[b"x"])).unwrap();
    assert_ne!(salt(&third), salt(&second));
    for sealed in [&first, &second, &third] {
        assert!(ring.open(PLACE, sealed).is_ok());
    }
}

#[test]
fn a_batch_that_outgrows_what_a_log_takes_is_refused() {
    let ring = ring(&[1]);
    let mut builder = BatchBuilder::new();
    for _ in 0..500_000 {
        builder.push(&NewRecord::default()).unwrap();
    }
    let refused = ring.seal(PLACE, &builder.finish().unwrap()).unwrap_err();
    assert!(matches!(refused, SealError::TooLarge { limit: SEALED_BYTES_MAX, .. }), "{refused}");
}

#[test]
fn what_can_be_told_of_a_ring_holds_no_key() {
    let ring = ring(&[1, 2]);
    let shown = format!("{ring:?} {:?} {:?}", ring.picture(), numbered(&[1, 2]));
    assert!(!shown.contains("1111") && !shown.contains("17, 17"), "{shown}");
    assert_eq!(ring.picture().active, Some(KeyId(2)));
}

#[test]
fn any_bytes_are_taken_for_what_they_are() {
    let sealed = ring(&[1]).seal(PLACE, &batch(&[b"seed", b"of a fuzzer"])).unwrap();
    for len in 0..=sealed.bytes().len() {
        fuzz_open(&sealed.bytes()[..len]);
    }
    for at in 0..sealed.bytes().len() {
        let mut bytes = sealed.bytes().to_vec();
        bytes[at] ^= 0x41;
        fuzz_open(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_part_of_a_sealed_batch_opens_as_that_part(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        cut in any::<(usize, usize)>(),
    ) {
        let ring = ring(&[1, 2]);
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let clear = batch(&slices);
        let sealed = ring.seal(PLACE, &clear).unwrap();
        prop_assert_eq!(&ring.open(PLACE, &sealed).unwrap(), &clear);
        let count = payloads.len();
        let from = cut.0 % count;
        let to = from + 1 + cut.1 % (count - from);
        let (from, to) = (from as u32, to as u32);
        let part = sealed.slice(from, to).unwrap();
        prop_assert!(part.is_sealed());
        prop_assert_eq!(ring.open(PLACE, &part).unwrap(), clear.slice(from, to).unwrap());
        let even = sealed.filter(|at| at % 2 == 0).unwrap();
        prop_assert_eq!(ring.open(PLACE, &even).unwrap(), clear.filter(|at| at % 2 == 0).unwrap());
    }
}
