//! Ids: a message's id is its address.
//!
//! In: time, partition number and sequence; or a text. Out: a UUIDv7 whose 48-bit millisecond is
//! the batch's time and whose 74 free bits are partition (32) and sequence (42), so ids are
//! neither stored nor indexed. A partition's public id is a UUIDv8 that holds its number. Called
//! by whoever shows ids to the world.

use crate::limits::{SEQUENCE_MAX, TIME_MS_MAX};

/// Bits of the sequence number.
const SEQUENCE_BITS: u32 = 42;
/// Bits below the variant.
const LOW_BITS: u32 = 62;
const LOW_MASK: u128 = (1 << LOW_BITS) - 1;
const VARIANT: u128 = 0b10 << LOW_BITS;
const VARIANT_MASK: u128 = 0b11 << LOW_BITS;
const VERSION_SHIFT: u32 = 76;
const VERSION_MASK: u128 = 0xf << VERSION_SHIFT;
const TIME_SHIFT: u32 = 80;
/// The first 48 bits of every partition id: «onrush» in ASCII.
const PARTITION_TAG: u128 = 0x6f6e_7275_7368;

const _: () = assert!(SEQUENCE_MAX == (1 << SEQUENCE_BITS) - 1);

/// A message's id: its time, partition and sequence in a UUIDv7. Ids of one partition order as
/// their messages do, as long as its time does not go back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u128);

/// Why there is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// The time does not fit 48 bits of milliseconds.
    Time {
        /// The time in milliseconds.
        time_ms: u64,
    },
    /// The sequence number does not fit 42 bits.
    Sequence {
        /// The sequence number.
        seq: u64,
    },
    /// The text is not a UUID of 36 characters.
    Text,
    /// A UUID, and not one of ours.
    Foreign,
}

impl std::fmt::Display for IdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time { time_ms } => write!(f, "time {time_ms} is above {TIME_MS_MAX} ms"),
            Self::Sequence { seq } => write!(f, "sequence {seq} is above {SEQUENCE_MAX}"),
            Self::Text => f.write_str("an id must be a UUID of 36 characters"),
            Self::Foreign => f.write_str("the UUID is no id of a message"),
        }
    }
}

impl std::error::Error for IdError {}

impl MessageId {
    /// The id of message `seq` in `partition`, in a batch stamped with `time_ms` since 1970.
    ///
    /// # Errors
    /// [`IdError::Time`] above 48 bits, [`IdError::Sequence`] above 42.
    pub fn new(time_ms: u64, partition: u32, seq: u64) -> Result<Self, IdError> {
        if time_ms > TIME_MS_MAX {
            return Err(IdError::Time { time_ms });
        }
        if seq > SEQUENCE_MAX {
            return Err(IdError::Sequence { seq });
        }
        let address = u128::from(partition) << SEQUENCE_BITS | u128::from(seq);
        let high = (address >> LOW_BITS) << 64;
        Ok(Self(
            u128::from(time_ms) << TIME_SHIFT
                | 7 << VERSION_SHIFT
                | high
                | VARIANT
                | (address & LOW_MASK),
        ))
    }

    /// Time in milliseconds since 1970, partition number, sequence number.
    #[must_use]
    pub fn parts(self) -> (u64, u32, u64) {
        let time_ms = self.0 >> TIME_SHIFT;
        let address = (self.0 >> 64 & 0xfff) << LOW_BITS | (self.0 & LOW_MASK);
        let seq = address & u128::from(SEQUENCE_MAX);
        // Each cast keeps all bits: the shifts above leave 48, 32 and 42.
        (time_ms as u64, (address >> SEQUENCE_BITS) as u32, seq as u64)
    }

    /// The id as 36 characters of lower-case hexadecimal with dashes.
    #[must_use]
    pub fn to_uuid_text(self) -> [u8; 36] {
        text(self.0)
    }

    /// The id's 16 bytes, in the order of its text.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        to_bytes(self.0)
    }

    /// Reads an id from its text, in upper or lower case.
    ///
    /// # Errors
    /// [`IdError::Text`] when it is no UUID, [`IdError::Foreign`] when its version or variant is
    /// another's.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        Self::from_value(parse_text(text).ok_or(IdError::Text)?)
    }

    /// Reads an id from its 16 bytes.
    ///
    /// # Errors
    /// [`IdError::Foreign`] when its version or variant is another's.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, IdError> {
        Self::from_value(from_bytes(bytes))
    }

    fn from_value(value: u128) -> Result<Self, IdError> {
        let is_ours = value & VERSION_MASK == 7 << VERSION_SHIFT && value & VARIANT_MASK == VARIANT;
        if is_ours { Ok(Self(value)) } else { Err(IdError::Foreign) }
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_uuid_text()).unwrap_or_default())
    }
}

impl std::fmt::Debug for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

/// A partition's public id: a UUIDv8 of the tag «onrush» and the partition's number.
#[must_use]
pub fn partition_uuid(number: u32) -> [u8; 16] {
    to_bytes(partition_value(number))
}

/// The number in a partition's public id; `None` when the UUID is not one of ours.
#[must_use]
pub fn partition_from_uuid(uuid: [u8; 16]) -> Option<u32> {
    let value = from_bytes(uuid);
    let number = (value & u128::from(u32::MAX)) as u32;
    (value == partition_value(number)).then_some(number)
}

/// Any UUID as 36 characters of lower-case hexadecimal with dashes.
#[must_use]
pub fn uuid_text(uuid: [u8; 16]) -> [u8; 36] {
    text(from_bytes(uuid))
}

/// The 16 bytes of any UUID of 36 characters, in upper or lower case.
#[must_use]
pub fn uuid_parse(text: &str) -> Option<[u8; 16]> {
    parse_text(text).map(to_bytes)
}

fn partition_value(number: u32) -> u128 {
    PARTITION_TAG << TIME_SHIFT | 8 << VERSION_SHIFT | VARIANT | u128::from(number)
}

/// The value's bytes, highest first, as every UUID is written.
fn to_bytes(value: u128) -> [u8; 16] {
    let mut bytes = value.to_le_bytes();
    bytes.reverse();
    bytes
}

fn from_bytes(mut bytes: [u8; 16]) -> u128 {
    bytes.reverse();
    u128::from_le_bytes(bytes)
}

/// Whether a dash stands at this place of the text.
fn is_dash(place: usize) -> bool {
    matches!(place, 8 | 13 | 18 | 23)
}

fn text(value: u128) -> [u8; 36] {
    let mut out = [b'-'; 36];
    let mut shift = 128;
    for (_, place) in out.iter_mut().enumerate().filter(|(at, _)| !is_dash(*at)) {
        shift -= 4;
        let nibble = (value >> shift & 0xf) as u8;
        *place = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    out
}

fn parse_text(text: &str) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    let mut value = 0u128;
    for (place, byte) in text.bytes().enumerate() {
        if is_dash(place) {
            if byte != b'-' {
                return None;
            }
        } else {
            value = value << 4 | u128::from(char::from(byte).to_digit(16)?);
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_version_and_variant_of_a_uuid_v7() {
        for (time_ms, partition, seq) in
            [(0, 0, 0), (TIME_MS_MAX, u32::MAX, SEQUENCE_MAX), (1, 2, 3)]
        {
            let text = MessageId::new(time_ms, partition, seq).unwrap().to_string();
            assert_eq!(text.len(), 36);
            assert_eq!(&text[14..15], "7", "{text}");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }

    #[test]
    fn an_address_beyond_its_bits_has_no_id() {
        let time_ms = TIME_MS_MAX + 1;
        assert_eq!(MessageId::new(time_ms, 0, 0), Err(IdError::Time { time_ms }));
        let seq = SEQUENCE_MAX + 1;
        assert_eq!(MessageId::new(0, 0, seq), Err(IdError::Sequence { seq }));
    }

    #[test]
    fn ids_of_a_partition_order_as_time_and_sequence_do() {
        let id = |time_ms, seq| MessageId::new(time_ms, 9, seq).unwrap();
        assert!(id(1, SEQUENCE_MAX) < id(2, 0));
        assert!(id(2, 0) < id(2, 1));
        assert!(id(2, 1).to_string() < id(2, 2).to_string());
        assert!(id(2, (1 << 20) - 1) < id(2, 1 << 20));
    }

    #[test]
    fn uuids_that_are_not_ours_are_told_from_text_that_is_none() {
        let ours = MessageId::new(5, 6, 7).unwrap();
        assert_eq!(ours.to_string().to_uppercase().parse(), Ok(ours));
        let v4 = "018bcfe5-6800-4000-8000-a800000003e8";
        assert_eq!(MessageId::parse(v4), Err(IdError::Foreign));
        let variant = "018bcfe5-6800-7000-c000-a800000003e8";
        assert_eq!(MessageId::parse(variant), Err(IdError::Foreign));
        for text in [
            "",
            "018bcfe568007000 8000a800000003e8",
            "018bcfe5-6800-7000-8000-a800000003e",
            "018bcfe5-6800-7000-8000-a800000003e80",
            "018bcfe5_6800-7000-8000-a800000003e8",
            "018bcfe5-6800-7000-8000-a800000003eg",
            "+18bcfe5-6800-7000-8000-a800000003e8",
            "é8bcfe5-6800-7000-8000-a800000003e8",
        ] {
            assert_eq!(MessageId::parse(text), Err(IdError::Text), "{text}");
        }
    }

    #[test]
    fn a_partition_id_gives_its_number_back_and_no_other_uuid_does() {
        for number in [0, 1, 42, u32::MAX] {
            assert_eq!(partition_from_uuid(partition_uuid(number)), Some(number));
        }
        for byte in 0..12 {
            for bit in 0..8 {
                let mut uuid = partition_uuid(42);
                uuid[byte] ^= 1 << bit;
                assert_eq!(partition_from_uuid(uuid), None, "byte {byte}, bit {bit}");
            }
        }
    }

    #[test]
    fn any_uuid_is_its_text_and_back() {
        let uuid = std::array::from_fn(|index| index as u8 * 17);
        let text = uuid_text(uuid);
        let text = std::str::from_utf8(&text).unwrap();
        assert_eq!(text, "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(uuid_parse(text), Some(uuid));
        assert_eq!(uuid_parse("00112233"), None);
    }
}
