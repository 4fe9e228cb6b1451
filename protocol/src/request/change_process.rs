//! ChangeProcess: stops a process, or lets it go on; answered by `ProcessChanged`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `class`: a queue name |
//! | 1 + n | `key`: a partition name |
//! | 1 | `change`: 0 pause, 1 resume |
//! | 2 + n | `reason`: a long text; only when `change` is 0 |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, put_long, put_short};
use crate::text::LongText;

/// Changes whether a process goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeProcess {
    /// The class.
    pub class: QueueName,
    /// Which of its processes.
    pub key: PartitionName,
    /// What is to be done.
    pub change: ProcessChange,
}

/// What is done to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// It evaluates nothing until it is resumed.
    Pause {
        /// Why, for whoever asks.
        reason: LongText,
    },
    /// It goes on.
    Resume,
}

impl ChangeProcess {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.class.as_bytes());
        put_short(out, self.key.as_bytes());
        match &self.change {
            ProcessChange::Pause { reason } => {
                out.put_u8(0);
                put_long(out, reason.as_bytes());
            }
            ProcessChange::Resume => out.put_u8(1),
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let class = reader.short("class", QueueName::parse)?;
        let key = reader.short("key", PartitionName::parse)?;
        let offset = reader.at();
        let change = match reader.u8("change")? {
            0 => ProcessChange::Pause { reason: reader.long("reason", LongText::parse)? },
            1 => ProcessChange::Resume,
            other => {
                let value = u64::from(other);
                return Err(DecodeError::Value { field: "change", offset, value, min: 0, max: 1 });
            }
        };
        reader.end()?;
        Ok(Self { class, key, change })
    }
}
