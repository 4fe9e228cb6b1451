//! ChangeMessage: deletes a message, gives a dead letter back, or makes one of a message.
//!
//! In: which message, what is to be done, and for which group. Answered by `MessageChanged`.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `partition`: its number |
//! | 1 | `by`: 0 its sequence number, 1 its transaction id |
//! | 8 | `seq`; only when `by` is 0 |
//! | 2 + n | `id`: a long text; only when `by` is 1 |
//! | 1 | `change`: 0 delete, 1 retry, 2 bury |
//! | 1 + n | `group`: a name; of 0 bytes for every group; not looked at by a delete |
//! | 2 + n | `error`: a long text; what a bury's letters say |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::GroupName;
use crate::primitive::{Reader, numbered, put_long, put_short};
use crate::request::MessageKey;
use crate::text::LongText;

numbered! {
    /// What is done to a message.
    MessageChange, "change",
    /// It goes, for all groups, its dead letters too.
    Delete = 0,
    /// Its dead letters go back to their groups, as if it had never been tried.
    Retry = 1,
    /// It becomes a dead letter of every group that has not settled it.
    Bury = 2,
}

/// Does something to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeMessage {
    /// The partition's number.
    pub partition: u32,
    /// Which of its messages.
    pub key: MessageKey,
    /// What is done to it.
    pub change: MessageChange,
    /// For one group; for all of them when `None`.
    pub group: Option<GroupName>,
    /// Why a message is buried.
    pub error: LongText,
}

impl ChangeMessage {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.partition);
        self.key.encode(out);
        out.put_u8(self.change.number());
        put_short(out, self.group.as_ref().map(GroupName::as_bytes).unwrap_or_default());
        put_long(out, self.error.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let partition = reader.u32("partition")?;
        let key = MessageKey::decode(&mut reader)?;
        let change = MessageChange::read(&mut reader)?;
        let group = reader.optional("group", GroupName::parse)?;
        let error = reader.long("error", LongText::parse)?;
        reader.end()?;
        Ok(Self { partition, key, change, group, error })
    }
}
