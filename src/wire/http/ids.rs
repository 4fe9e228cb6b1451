//! Ids and times as texts of JSON.
//!
//! In: numbers that the rooms know things by. Out: UUID texts and ISO 8601 times, written straight
//! into the answer. A queue's public id is a UUID that holds its number, beside those of messages
//! and partitions. Pure. Called by every route that renders.

use jiff::Timestamp;
use onrush_protocol::id::{MessageId, partition_from_uuid, partition_uuid, uuid_text};
use serde::{Serialize, Serializer};

use crate::base::place::{PartitionNumber, QueueId};
use crate::base::random::Random;
use crate::state::queries::QueryId;

/// Where the ids of queues and queries have a letter of their own, and which one a query's has.
const QUERY_BYTE: usize = 7;
const QUERY_LETTER: u8 = b's';

/// A UUID as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl Uuid {
    /// A partition's public id.
    pub(super) fn of_partition(number: PartitionNumber) -> Self {
        Self(partition_uuid(number))
    }

    /// A queue's public id: as a partition's, but for a letter that tells them apart.
    pub(super) fn of_queue(id: QueueId) -> Self {
        let mut uuid = partition_uuid(id);
        if let Some(byte) = uuid.get_mut(7) {
            *byte = b'q';
        }
        Self(uuid)
    }

    /// A query's public id: as a queue's, with another letter.
    pub(super) fn of_query(id: QueryId) -> Self {
        let mut uuid = partition_uuid(id);
        if let Some(byte) = uuid.get_mut(QUERY_BYTE) {
            *byte = QUERY_LETTER;
        }
        Self(uuid)
    }

    /// A random one, of version 4: it can never be taken for a message's id, which is one of time.
    pub(super) fn random(random: &dyn Random) -> Self {
        let mut uuid = [0; 16];
        random.fill(&mut uuid);
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
        *version = *version & 0x0F | 0x40;
        *variant = *variant & 0x3F | 0x80;
        Self(uuid)
    }

    /// A message's id; `None` where its parts are beyond what ids hold.
    pub(super) fn of_message(time_ms: u64, partition: PartitionNumber, seq: u64) -> Option<Self> {
        MessageId::new(time_ms, partition, seq).ok().map(|id| Self(id.to_bytes()))
    }
}

/// The number of a query, from its public id.
pub(super) fn query_from_uuid(mut uuid: [u8; 16]) -> Option<QueryId> {
    let letter = partition_uuid(0).get(QUERY_BYTE).copied()?;
    let byte = uuid.get_mut(QUERY_BYTE).filter(|byte| **byte == QUERY_LETTER)?;
    *byte = letter;
    partition_from_uuid(uuid)
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = uuid_text(self.0);
        // Hexadecimal digits and dashes are UTF-8.
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// A transaction id: what the producer gave, or else the message's own id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TransactionId<'a> {
    /// The producer's, or a word that stands for one.
    Text(&'a str),
    /// The message's.
    Own(Uuid),
}

impl Serialize for TransactionId<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Own(id) => id.serialize(serializer),
        }
    }
}

/// A time as pops show it: microseconds and `Z`.
pub(super) fn micros_text(time_ms: u64) -> String {
    at(time_ms).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A time as everything else shows it: milliseconds and `Z`.
pub(super) fn millis_text(time_ms: u64) -> String {
    at(time_ms).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// The latest time that can be shown is the year 9999; what lies beyond is shown as that.
fn at(time_ms: u64) -> Timestamp {
    let millis = i64::try_from(time_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_iso_8601_with_a_z() {
        assert_eq!(micros_text(1_778_918_400_123), "2026-05-16T08:00:00.123000Z");
        assert_eq!(millis_text(1_778_918_400_007), "2026-05-16T08:00:00.007Z");
        assert!(micros_text(u64::MAX).starts_with("9999-12-"));
    }

    #[test]
    fn a_queues_id_is_not_taken_for_a_partitions() {
        assert_ne!(Uuid::of_queue(7), Uuid::of_partition(7));
        assert_eq!(partition_from_uuid(Uuid::of_queue(7).0), None);
        assert_eq!(partition_from_uuid(Uuid::of_query(7).0), None);
        assert_eq!(query_from_uuid(Uuid::of_query(7).0), Some(7));
        assert_eq!(query_from_uuid(Uuid::of_queue(7).0), None);
        let text = serde_json::to_string(&Uuid::of_queue(7)).unwrap();
        assert_eq!(text, "\"6f6e7275-7368-8071-8000-000000000007\"");
    }
}
