//! PushSlot: waits for what comes of a message that is in the log of its process; answered by `SlotPushed`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `class`: a queue name |
//! | 1 + n | `key`: a partition name |
//! | 8 | `slot` |
//! | | controls, as in `PushControls`; limits of the cascade are those of its first push |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::name::{PartitionName, QueueName};
use crate::primitive::{Reader, put_short};
use crate::request::PushControls;

/// Waits for what comes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSlot {
    /// The class.
    pub class: QueueName,
    /// Which of its processes.
    pub key: PartitionName,
    /// Which of its messages.
    pub slot: u64,
    /// How it is waited for.
    pub controls: PushControls,
}

impl PushSlot {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.class.as_bytes());
        put_short(out, self.key.as_bytes());
        out.put_u64_le(self.slot);
        self.controls.encode(out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field and the limit.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let class = reader.short("class", QueueName::parse)?;
        let key = reader.short("key", PartitionName::parse)?;
        let slot = reader.u64("slot")?;
        let controls = PushControls::decode(&mut reader)?;
        reader.end()?;
        Ok(Self { class, key, slot, controls })
    }
}
