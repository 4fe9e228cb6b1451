//! MessageKey: which message of a partition is meant.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `by`: 0 its sequence number, 1 its transaction id |
//! | 8 | `seq`; only when `by` is 0 |
//! | 2 + n | `id`: a long text; only when `by` is 1 |

use bytes::{BufMut, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_long};
use crate::text::LongText;

/// Names one message of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKey {
    /// By its place.
    Seq(u64),
    /// By the id that its producer gave it, or by the text of its own id.
    TransactionId(LongText),
}

impl MessageKey {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Seq(seq) => {
                out.put_u8(0);
                out.put_u64_le(*seq);
            }
            Self::TransactionId(id) => {
                out.put_u8(1);
                put_long(out, id.as_bytes());
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.flag("by")? {
            false => reader.u64("seq").map(Self::Seq),
            true => reader.long("id", LongText::parse).map(Self::TransactionId),
        }
    }
}
