//! Stats: the server's counters by name. Names come and go; nobody may depend on one.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | count of entries, each 1 + n `name`, 8 `value` |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_count16, put_short};
use crate::text::ShortText;

/// Fewest bytes of an entry: an empty name and its value.
const ENTRY_BYTES_MIN: usize = 1 + 8;

/// Shows the server's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The counters; at most 65 535.
    pub entries: Vec<StatsEntry>,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsEntry {
    /// What it counts; the unit comes last, as in `frames_in_bytes`.
    pub name: ShortText,
    /// How far it has come.
    pub value: u64,
}

impl Stats {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 65 535 entries.
    pub fn encode(&self, out: &mut BytesMut) {
        put_count16(out, self.entries.len());
        for entry in &self.entries {
            put_short(out, entry.name.as_bytes());
            out.put_u64_le(entry.value);
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let count = reader.count16("entries", ENTRY_BYTES_MIN)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let name = reader.short("name", ShortText::parse)?;
            entries.push(StatsEntry { name, value: reader.u64("value")? });
        }
        reader.end()?;
        Ok(Self { entries })
    }
}
