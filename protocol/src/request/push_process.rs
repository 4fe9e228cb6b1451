//! PushProcess: a message for a process, and how far what comes of it is waited for.
//!
//! In: the process, the message, how to wait. Answered by `ProcessPushed`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `class`: a queue name |
//! | 1 + n | `key`: a partition name |
//! | | controls, as in `PushControls` |
//! | 2 + n | `transaction_id`: a long text of at most 255 bytes; of 0 bytes for none |
//! | 4 + n | `message`: JSON |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::TRANSACTION_ID_BYTES_MAX;
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, in_range, put_blob, put_long, put_short};
use crate::request::PushControls;
use crate::text::LongText;

/// Pushes a message to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushProcess {
    /// The class.
    pub class: QueueName,
    /// Which of its processes; it is made where its class says so.
    pub key: PartitionName,
    /// How it is waited for and bounded.
    pub controls: PushControls,
    /// The producer's id for the message; empty for none. At most 255 bytes.
    pub transaction_id: LongText,
    /// The message: the text of a JSON value, not looked at here.
    pub message: Bytes,
}

impl PushProcess {
    /// Appends the body.
    ///
    /// # Panics
    /// Over 4 GiB of message.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.class.as_bytes());
        put_short(out, self.key.as_bytes());
        self.controls.encode(out);
        put_long(out, self.transaction_id.as_bytes());
        put_blob(out, &self.message);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let class = reader.short("class", QueueName::parse)?;
        let key = reader.short("key", PartitionName::parse)?;
        let controls = PushControls::decode(&mut reader)?;
        let offset = reader.at();
        let transaction_id = reader.long("transaction_id", LongText::parse)?;
        let bytes = transaction_id.as_bytes().len() as u64;
        in_range("transaction_id", offset, bytes, 0, TRANSACTION_ID_BYTES_MAX as u64)?;
        let message = reader.blob("message")?;
        reader.end()?;
        Ok(Self { class, key, controls, transaction_id, message })
    }
}
