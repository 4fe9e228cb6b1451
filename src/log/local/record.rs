//! What the local log writes into the journal's records. Pure.
//!
//! In: proposals, or heads. Out: ropes for the journal, whose payload slices are the proposals' own
//! (only counts and headers are new bytes), and entries found again in a record. Called by `local`
//! for appending, and by recovery and reading.
//!
//! ```text
//! kind 1, entries of one append:  count u32 | entry × count
//!         entry:                  shard u16 | 0 u16 | bytes u32 | index u64 | the entry's bytes
//! kind 2, heads of all shards:    count u32 | next index u64 × count, by shard
//! ```
//!
//! Integers are little-endian. Records of kind 2 let the heads outlive the segments that hold the
//! shards' last entries.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::base::place::ShardId;
use crate::log::Proposal;

/// Journal kind of a record of entries.
pub(super) const KIND_ENTRIES: u8 = 1;
/// Journal kind of a record of heads.
pub(super) const KIND_HEADS: u8 = 2;

const COUNT_BYTES: usize = 4;
const ENTRY_HEADER_BYTES: usize = 16;

/// Bytes that a record of `entries` entries has beside theirs.
pub(super) const fn overhead(entries: usize) -> u64 {
    (COUNT_BYTES + ENTRY_HEADER_BYTES * entries) as u64
}

/// One append as the journal takes it.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// The record's payload.
    pub(super) parts: Vec<Bytes>,
    /// Where each entry's first byte lies in the payload, in the order proposed.
    pub(super) offsets: Vec<u64>,
}

/// Encodes proposals; their parts are shared, not copied. `None` when an entry or their number does
/// not fit into 32 bits, which no append within the limit reaches.
pub(super) fn encode(proposals: &[Proposal]) -> Option<Encoded> {
    let mut headers = BytesMut::with_capacity(overhead(proposals.len()) as usize);
    headers.put_u32_le(u32::try_from(proposals.len()).ok()?);
    for proposal in proposals {
        headers.put_u16_le(proposal.shard);
        headers.put_u16_le(0);
        headers.put_u32_le(u32::try_from(proposal.len()).ok()?);
        headers.put_u64_le(proposal.expected_head);
    }
    let mut headers = headers.freeze();
    let parts = proposals.iter().map(|proposal| proposal.parts.len() + 1).sum::<usize>() + 1;
    let mut encoded =
        Encoded { parts: Vec::with_capacity(parts), offsets: Vec::with_capacity(proposals.len()) };
    let mut offset = 0;
    for (number, proposal) in proposals.iter().enumerate() {
        // The count goes out with the first header, so that each entry adds one slice of ours.
        let own = if number == 0 { COUNT_BYTES + ENTRY_HEADER_BYTES } else { ENTRY_HEADER_BYTES };
        encoded.parts.push(headers.split_to(own));
        offset += own as u64;
        encoded.offsets.push(offset);
        encoded.parts.extend(proposal.parts.iter().filter(|part| !part.is_empty()).cloned());
        offset += proposal.len() as u64;
    }
    Some(encoded)
}

/// An entry inside a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Slot {
    pub(super) shard: ShardId,
    pub(super) index: u64,
    /// Where its first byte lies in the payload.
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

/// Walks the entries of a payload, oldest first, without a copy.
pub(super) struct Slots {
    payload: Bytes,
    offset: usize,
    left: u32,
}

/// Why a payload is not what its kind says; the text is for a person.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the record ends inside an entry")]
    Short,
    #[error("bytes follow the record's last entry")]
    Long,
    #[error("a field that must be 0 is not")]
    Padding,
}

/// The entries of a record of kind 1.
pub(super) fn entries(payload: &Bytes) -> Result<Slots, Malformed> {
    let mut count = payload.get(..COUNT_BYTES).ok_or(Malformed::Short)?;
    let left = count.get_u32_le();
    Ok(Slots { payload: payload.clone(), offset: COUNT_BYTES, left })
}

impl Slots {
    fn take(&mut self) -> Result<Slot, Malformed> {
        let start = self.offset + ENTRY_HEADER_BYTES;
        let mut header = self.payload.get(self.offset..start).ok_or(Malformed::Short)?;
        let shard = header.get_u16_le();
        if header.get_u16_le() != 0 {
            return Err(Malformed::Padding);
        }
        let end = start + header.get_u32_le() as usize;
        let index = header.get_u64_le();
        if end > self.payload.len() {
            return Err(Malformed::Short);
        }
        self.offset = end;
        self.left -= 1;
        let bytes = self.payload.slice(start..end);
        Ok(Slot { shard, index, offset: start as u64, bytes })
    }
}

impl Iterator for Slots {
    type Item = Result<Slot, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let rest = self.payload.len() - self.offset;
            // Told once: the walk is over in any case.
            self.offset = self.payload.len();
            return (rest > 0).then_some(Err(Malformed::Long));
        }
        let taken = self.take();
        if taken.is_err() {
            self.left = 0;
            self.offset = self.payload.len();
        }
        Some(taken)
    }
}

/// The payload of a record of kind 2.
pub(super) fn encode_heads(heads: &[u64]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(COUNT_BYTES + 8 * heads.len());
    bytes.put_u32_le(heads.len() as u32);
    for head in heads {
        bytes.put_u64_le(*head);
    }
    bytes.freeze()
}

/// The heads in a record of kind 2.
pub(super) fn decode_heads(payload: &[u8]) -> Result<Vec<u64>, Malformed> {
    let (mut count, mut rest) = payload.split_at_checked(COUNT_BYTES).ok_or(Malformed::Short)?;
    let bytes = u64::from(count.get_u32_le()) * 8;
    match (rest.len() as u64).cmp(&bytes) {
        std::cmp::Ordering::Less => Err(Malformed::Short),
        std::cmp::Ordering::Greater => Err(Malformed::Long),
        std::cmp::Ordering::Equal => {
            let mut heads = Vec::with_capacity(rest.len() / 8);
            while rest.has_remaining() {
                heads.push(rest.get_u64_le());
            }
            Ok(heads)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flat(parts: &[Bytes]) -> Bytes {
        parts.concat().into()
    }

    fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
        let rope = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5);
        let one = (any::<u16>(), any::<u64>(), rope).prop_map(|(shard, expected_head, rope)| {
            let parts = rope.into_iter().map(Bytes::from).collect();
            Proposal {
                shard,
                expected_head,
                parts,
                brief: None,
                relies_on: None,
                labels: Vec::new(),
            }
        });
        prop::collection::vec(one, 1..8)
    }

    proptest! {
        #[test]
        fn an_append_is_read_back_as_it_was_proposed(proposals in proposals()) {
            let encoded = encode(&proposals).unwrap();
            let payload = flat(&encoded.parts);
            let bytes: u64 = proposals.iter().map(|one| one.len() as u64).sum();
            prop_assert_eq!(payload.len() as u64, bytes + overhead(proposals.len()));
            let slots: Vec<Slot> = entries(&payload).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(slots.len(), proposals.len());
            for ((slot, one), offset) in slots.iter().zip(&proposals).zip(&encoded.offsets) {
                prop_assert_eq!((slot.shard, slot.index), (one.shard, one.expected_head));
                prop_assert_eq!(&slot.bytes, &flat(&one.parts));
                prop_assert_eq!(slot.offset, *offset);
            }
        }

        #[test]
        fn any_cut_of_a_record_is_malformed(proposals in proposals(), cut in 1usize..1_000) {
            let payload = flat(&encode(&proposals).unwrap().parts);
            let kept = payload.len() - 1 - cut % payload.len();
            let ok = entries(&payload.slice(..kept)).is_ok_and(|mut slots| slots.all(|s| s.is_ok()));
            prop_assert!(!ok);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let payload = Bytes::from(bytes);
            if let Ok(slots) = entries(&payload) {
                prop_assert!(slots.count() <= payload.len() / ENTRY_HEADER_BYTES + 1);
            }
            if let Ok(heads) = decode_heads(&payload) {
                prop_assert_eq!(encode_heads(&heads), payload);
            }
        }
    }

    #[test]
    fn the_parts_of_a_rope_are_shared_and_not_copied() {
        let part = Bytes::from(vec![7; 1_000]);
        let parts = vec![part.clone(), Bytes::new(), part.slice(10..20)];
        let encoded = encode(&[Proposal {
            shard: 1,
            expected_head: 2,
            parts,
            brief: None,
            relies_on: None,
            labels: vec![],
        }])
        .unwrap();
        assert_eq!(encoded.parts.len(), 3);
        assert_eq!(encoded.parts[1].as_ptr(), part.as_ptr());
        assert_eq!(encoded.parts[2].as_ptr(), part[10..].as_ptr());
    }

    #[test]
    fn what_follows_the_last_entry_is_malformed() {
        let mut payload = flat(&encode(&[]).unwrap().parts).to_vec();
        assert!(payload.is_empty(), "no proposals, no record");
        payload = flat(
            &encode(&[Proposal {
                shard: 1,
                expected_head: 2,
                parts: vec![],
                brief: None,
                relies_on: None,
                labels: vec![],
            }])
            .unwrap()
            .parts,
        )
        .to_vec();
        payload.push(0);
        let found: Vec<_> = entries(&payload.into()).unwrap().collect();
        assert_eq!(found.last(), Some(&Err(Malformed::Long)));
    }

    #[test]
    fn heads_are_read_back_and_refused_when_cut() {
        let payload = encode_heads(&[0, 7, u64::MAX]);
        assert_eq!(decode_heads(&payload).unwrap(), vec![0, 7, u64::MAX]);
        for kept in 0..payload.len() {
            assert_eq!(decode_heads(&payload[..kept]), Err(Malformed::Short));
        }
    }
}
