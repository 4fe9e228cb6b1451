//! Any bytes as what a store gives back: opened, cut, changed.
//!
//! In: bytes. Out: nothing; a panic is the finding. Called by the fuzz target `sealed`, and by a test on
//! seeds.

use std::sync::Arc;

use bytes::Bytes;
use onrush_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};

use super::keys::KeySet;
use super::{Keyring, Place};
use crate::base::random::SeededRandom;

/// Reads bytes as a sealed batch that came back from a store. And seals them: they open as they were in
/// their place, and not at all where any byte of the payload was changed, or in another place.
///
/// # Panics
/// When what opens is not what was sealed.
pub fn fuzz_open(input: &[u8]) {
    let Ok(keys) = KeySet::single(&"7e".repeat(32)) else { return };
    let ring = Keyring::new(keys, Arc::new(SeededRandom::new(1)));
    let place = Place { queue: 5, partition: "customer" };
    if let Ok(stored) = RecordBatch::parse_trusted(Bytes::copy_from_slice(input)) {
        // Whatever it is, nobody has its seal.
        assert!(
            !stored.is_sealed()
                || ring.open(place, &stored).is_err()
                || stored.records().next().is_none()
        );
    }
    let (at, payload) = input.split_first().unwrap_or((&0, &[]));
    let mut builder = BatchBuilder::new();
    let transaction_id = Some("t");
    for payload in [payload, b"second"] {
        let record = NewRecord { transaction_id, payload, ..NewRecord::default() };
        if builder.push(&record).is_err() {
            return;
        }
    }
    let Some(batch) = builder.finish() else { return };
    let Ok(sealed) = ring.seal(place, &batch) else { return };
    assert_eq!(ring.open(place, &sealed).as_ref(), Ok(&batch));
    assert!(ring.open(Place { queue: 6, ..place }, &sealed).is_err());
    assert!(ring.open(Place { partition: "custome", ..place }, &sealed).is_err());
    let Some(second) = sealed.slice(1, 2) else { return };
    let opened = ring.open(place, &second).ok();
    assert_eq!(opened, batch.slice(1, 2));
    let mut bytes = second.bytes().to_vec();
    let from = bytes.len() - second.records().next().map_or(0, |it| it.payload.len());
    let at = from + usize::from(*at) % (bytes.len() - from).max(1);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    if let Ok(changed) = RecordBatch::parse_trusted(bytes.into()) {
        assert!(ring.open(place, &changed).is_err(), "byte {at}");
    }
}
