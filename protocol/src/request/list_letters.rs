//! ListLetters: asks for a page of dead letters, newest failure first.
//!
//! In: which letters, and which page of them. Answered by `LetterPage`.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `skip`: letters left out, at most 1 000 000 |
//! | 4 | `limit`: letters wanted, 1 to 1 000 |
//! | 8 | `from_ms`: failed no earlier; 0 for no such limit; milliseconds since 1970 |
//! | 8 | `to_ms`: failed no later; 0 for no such limit |
//! | 1 + n | `partition`: a name; of 0 bytes for all |
//! | 1 + n | `group`: a name; of 0 bytes for all |
//! | 1 | `scope`: 0 all queues, 1 one |
//! | 1 + n | `queue`: a name; only when `scope` is 1 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::{LETTERS_SKIP_MAX, PAGE_ITEMS_MAX};
use crate::name::{GroupName, PartitionName, QueueName};
use crate::primitive::{Reader, put_short};
use crate::request::scope::{put_scope, read_scope};

/// Asks for a page of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListLetters {
    /// Letters of the list that are left out: at most 1 000 000.
    pub skip: u32,
    /// Letters wanted: 1 to 1 000. An answer may have fewer, for their bytes.
    pub limit: u32,
    /// Failed no earlier, in milliseconds since 1970; 0 for no such limit.
    pub from_ms: u64,
    /// Failed no later, in milliseconds since 1970; 0 for no such limit.
    pub to_ms: u64,
    /// Only of partitions called so.
    pub partition: Option<PartitionName>,
    /// Only of this group.
    pub group: Option<GroupName>,
    /// The queue; all of them when `None`.
    pub queue: Option<QueueName>,
}

impl ListLetters {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.skip);
        out.put_u32_le(self.limit);
        out.put_u64_le(self.from_ms);
        out.put_u64_le(self.to_ms);
        put_short(out, self.partition.as_ref().map(PartitionName::as_bytes).unwrap_or_default());
        put_short(out, self.group.as_ref().map(GroupName::as_bytes).unwrap_or_default());
        put_scope(out, self.queue.as_ref());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let skip = reader.u32_in("skip", 0, LETTERS_SKIP_MAX)?;
        let limit = reader.u32_in("limit", 1, PAGE_ITEMS_MAX)?;
        let (from_ms, to_ms) = (reader.u64("from_ms")?, reader.u64("to_ms")?);
        let partition = reader.optional("partition", PartitionName::parse)?;
        let group = reader.optional("group", GroupName::parse)?;
        let queue = read_scope(&mut reader)?;
        reader.end()?;
        Ok(Self { skip, limit, from_ms, to_ms, partition, group, queue })
    }
}
