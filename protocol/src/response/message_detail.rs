//! MessageDetail: one message with its payload, and how each group stands with it.
//!
//! | bytes | field |
//! |---|---|
//! | | the message, as in `MessagePage` |
//! | 1 | `is_encrypted`: 0 or 1: whether the server keeps it sealed |
//! | 4 + n | `batch`: a record batch of this message alone; of 0 bytes when it cannot be shown |
//! | 2 + n | `problem`: a long text; why it cannot be shown |
//! | 4 | count of groups, each: |
//! | 1 + n | `group`: a name |
//! | 1 | `status`: as that of a message |
//! | 4 | `attempts`: that failed |
//! | 8 | `lease_until_ms`: when the lease on it ends; 0 when nobody holds it |
//! | 2 + n | `error`: a long text; what its dead letter says |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::GroupName;
use crate::primitive::{Reader, put_blob, put_count32, put_flag, put_long, put_short};
use crate::response::{MessageShown, MessageStanding};
use crate::text::LongText;

/// Fewest bytes of a group: all but its texts.
const GROUP_BYTES_MIN: usize = 2 + 1 + 4 + 8 + 2;

/// Shows one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageDetail {
    /// What a page shows of it.
    pub shown: MessageShown,
    /// Whether the server keeps it sealed.
    pub is_encrypted: bool,
    /// A record batch of this message alone, not yet parsed; empty when it cannot be shown.
    pub batch: Bytes,
    /// Why it cannot be shown.
    pub problem: LongText,
    /// How each group of its queue stands with it.
    pub groups: Vec<MessageGroup>,
}

/// How one group stands with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageGroup {
    /// The group.
    pub group: GroupName,
    /// How it stands.
    pub status: MessageStanding,
    /// Attempts that failed.
    pub attempts: u32,
    /// When the lease on it ends, in milliseconds since 1970; 0 when nobody holds it.
    pub lease_until_ms: u64,
    /// What its dead letter says; empty when there is none.
    pub error: LongText,
}

impl MessageDetail {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 2^32 - 1 groups.
    pub fn encode(&self, out: &mut BytesMut) {
        self.shown.encode(out);
        put_flag(out, self.is_encrypted);
        put_blob(out, &self.batch);
        put_long(out, self.problem.as_bytes());
        put_count32(out, self.groups.len());
        for it in &self.groups {
            put_short(out, it.group.as_bytes());
            out.put_u8(it.status.number());
            out.put_u32_le(it.attempts);
            out.put_u64_le(it.lease_until_ms);
            put_long(out, it.error.as_bytes());
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let shown = MessageShown::decode(&mut reader)?;
        let is_encrypted = reader.flag("is_encrypted")?;
        let batch = reader.blob("batch")?;
        let problem = reader.long("problem", LongText::parse)?;
        let count = reader.count32("groups", GROUP_BYTES_MIN, u32::MAX)?;
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            groups.push(MessageGroup {
                group: reader.short("group", GroupName::parse)?,
                status: MessageStanding::read(&mut reader)?,
                attempts: reader.u32("attempts")?,
                lease_until_ms: reader.u64("lease_until_ms")?,
                error: reader.long("error", LongText::parse)?,
            });
        }
        reader.end()?;
        Ok(Self { shown, is_encrypted, batch, problem, groups })
    }
}
