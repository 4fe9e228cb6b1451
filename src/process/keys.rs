//! Where the room keeps what it must not forget: state keys, by owner, beside partitions.
//!
//! An instance's keys and results lie beside its own partition; what concerns a whole cascade lies
//! beside the partition of its first message, under that message's sequence, so that a prefix finds
//! all of it. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use onrush_protocol::id::MessageId;

use crate::base::place::PartitionNumber;
use crate::state::effect::{OwnerId, Sequence};

/// What guests keep, by their own keys. Owners of queries count from 0 and never get this far.
pub(super) const STATE: OwnerId = 0xffff_0000;
/// Slot (8 bytes, big end first) → its record.
pub(super) const RESULTS: OwnerId = 0xffff_0001;
/// Cascades: see the functions below.
pub(super) const CASCADES: OwnerId = 0xffff_0002;
/// Messages that were refused: [`child_key`] → letter.
pub(super) const DEAD: OwnerId = 0xffff_0003;
/// Beside an instance: what the room knows of it.
pub(super) const META: OwnerId = 0xffff_0004;
/// Beside the desk's partition: due time and id → timer.
pub(super) const TIMERS: OwnerId = 0xffff_0006;
/// Beside the desk's partition: id → due time of its timer.
pub(super) const TIMER_IDS: OwnerId = 0xffff_0007;
/// Beside the desk's partition: [`parked_key`] → message.
pub(super) const PARKED: OwnerId = 0xffff_0008;
/// Beside the desk's partition: due time and [`child_key`] → call of a server elsewhere.
pub(super) const EFFECTS: OwnerId = 0xffff_0009;

/// [`META`]: the version of the class that an instance is at, 4 bytes.
pub(super) const VERSION: &[u8] = b"version";
/// [`META`]: there while an instance is stopped; its value says why.
pub(super) const STOPPED: &[u8] = b"stopped";
/// [`META`]: what the key of a slot that is to be passed over begins with; the slot follows.
pub(super) const SKIP: &[u8] = b"skip:";
/// [`META`]: where the newest reset stands that passes over all slots before it.
pub(super) const PASSED: &[u8] = b"passed";
/// [`META`]: records of slots before this one (8 bytes, big end first) are let go of.
pub(super) const TRIMMED: &[u8] = b"trimmed";

/// [`META`]: bytes of an instance's state keys, or more, 8 bytes; there once they are many.
pub(super) const STATE_BYTES: &[u8] = b"bytes";

/// The address of a message, which is its id too.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address {
    /// Its partition.
    pub partition: PartitionNumber,
    /// Its sequence: for a message of a process, its slot.
    pub seq: Sequence,
    /// When it was pushed, unix milliseconds.
    pub time_ms: u64,
}

impl Address {
    /// The message's id as text.
    #[must_use]
    pub fn id(self) -> String {
        let Self { partition, seq, time_ms } = self;
        MessageId::new(time_ms, partition, seq).map(|id| id.to_string()).unwrap_or_default()
    }

    /// The address in an id.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let (time_ms, partition, seq) = MessageId::parse(id).ok()?.parts();
        Some(Self { partition, seq, time_ms })
    }
}

/// Key of a slot's record.
pub(super) fn slot_key(slot: Sequence) -> Bytes {
    let mut key = BytesMut::with_capacity(8);
    key.put_u64(slot);
    key.freeze()
}

/// Key that says that a slot is to be passed over.
pub(super) fn skip_key(slot: Sequence) -> Bytes {
    [SKIP, &slot_key(slot)].concat().into()
}

/// The slot of [`skip_key`].
pub(super) fn read_skip_key(key: &[u8]) -> Option<Sequence> {
    read_slot_key(key.strip_prefix(SKIP)?)
}

/// The first message of the cascade that a key of [`CASCADES`] is of.
pub(super) fn read_root_seq(mut key: &[u8]) -> Option<Sequence> {
    key.try_get_u64().ok()
}

/// Key of a cascade's tally.
pub(super) fn tally_key(root: Address) -> Bytes {
    cascade_key(root, b't').freeze()
}

/// Key of the place of what a slot sent, in its cascade.
pub(super) fn child_key(
    root: Address,
    partition: PartitionNumber,
    slot: Sequence,
    index: u32,
) -> Bytes {
    entry_key(root, b'c', partition, slot, index)
}

/// Key of an answer to whoever pushed the cascade's first message.
pub(super) fn reply_key(
    root: Address,
    partition: PartitionNumber,
    slot: Sequence,
    index: u32,
) -> Bytes {
    entry_key(root, b'r', partition, slot, index)
}

/// What all answers of a cascade begin with.
pub(super) fn replies_prefix(root: Address) -> Bytes {
    cascade_key(root, b'r').freeze()
}

fn entry_key(
    root: Address,
    kind: u8,
    partition: PartitionNumber,
    slot: Sequence,
    index: u32,
) -> Bytes {
    let mut key = cascade_key(root, kind);
    key.put_u32(partition);
    key.put_u64(slot);
    key.put_u32(index);
    key.freeze()
}

/// Big ends first, so that keys stand in the order of their numbers.
fn cascade_key(root: Address, kind: u8) -> BytesMut {
    let mut key = BytesMut::with_capacity(32);
    key.put_u64(root.seq);
    key.put_u8(kind);
    key
}

/// The slot of [`slot_key`].
pub(super) fn read_slot_key(mut key: &[u8]) -> Option<Sequence> {
    key.try_get_u64().ok().filter(|_| key.is_empty())
}

/// Source of the entry that a [`child_key`] names: partition, slot, index.
pub(super) fn read_child_key(key: &[u8]) -> Option<(PartitionNumber, Sequence, u32)> {
    let mut rest = key.get(9..)?;
    let partition = rest.try_get_u32().ok()?;
    let slot = rest.try_get_u64().ok()?;
    let index = rest.try_get_u32().ok()?;
    rest.is_empty().then_some((partition, slot, index))
}

/// Key of a letter: by cascade, then by source.
pub(super) fn dead_key(root: Address, child: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(4 + child.len());
    key.put_u32(root.partition);
    key.put_slice(child);
    key.freeze()
}

/// What the keys of all letters of a cascade begin with.
pub(super) fn dead_prefix(root: Address) -> Bytes {
    dead_key(root, &slot_key(root.seq))
}

/// Key of what waits for its time.
pub(super) fn timer_key(due_ms: u64, id: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(8 + id.len());
    key.put_u64(due_ms);
    key.put_slice(id);
    key.freeze()
}

/// Bytes of a source at the end of a [`child_key`]: partition, slot, index.
const SOURCE: usize = 16;

/// Key of what waits for a class or queue: what one source sent in the order in which it did, whatever
/// cascades that was for.
pub(super) fn parked_key(class: &str, child: &[u8]) -> Bytes {
    let source = child.len().checked_sub(SOURCE).and_then(|at| child.get(at..));
    [class.as_bytes(), &[0], source.unwrap_or_default(), child].concat().into()
}

/// The child key in a [`parked_key`].
pub(super) fn read_parked_key(key: &[u8]) -> Option<&[u8]> {
    let name = key.iter().position(|byte| *byte == 0)?;
    key.get(name + 1 + SOURCE..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_id_and_a_child_is_found_below_its_cascade() {
        let root = Address { partition: 7, seq: 9, time_ms: 1_700_000_000_000 };
        assert_eq!(Address::parse(&root.id()), Some(root));
        assert_eq!(Address::parse("no id"), None);
        let key = child_key(root, 1, 2, 3);
        assert_eq!(read_child_key(&key), Some((1, 2, 3)));
        assert!(key.starts_with(&slot_key(root.seq)));
        assert_eq!(read_slot_key(&slot_key(5)), Some(5));
        assert_eq!(read_root_seq(&key), Some(9));
        assert_eq!(read_skip_key(&skip_key(5)), Some(5));
        assert_eq!(read_skip_key(b"skip:5"), None);
        assert_eq!(read_child_key(b"short"), None);
    }

    #[test]
    fn what_waits_for_a_class_stands_in_the_order_in_which_its_source_sent_it() {
        let root = |seq| Address { partition: 7, seq, time_ms: 1 };
        let early = child_key(root(90), 3, 5, 1);
        let late = child_key(root(2), 3, 6, 1);
        assert!(late < early, "its cascade began before");
        let (one, other) = (parked_key("late", &early), parked_key("late", &late));
        assert!(one < other);
        assert_eq!(read_parked_key(&one), Some(&*early));
        assert_eq!(read_parked_key(b"late"), None);
    }
}
