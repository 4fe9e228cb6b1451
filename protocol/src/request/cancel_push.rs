//! CancelPush: lets nothing of a push to a process be evaluated any more; answered by `PushCancelled`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 + n | `push`: a short text: the push's id |

use bytes::{Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_short};
use crate::text::ShortText;

/// Calls a push off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelPush {
    /// The push's id.
    pub push: ShortText,
}

impl CancelPush {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        put_short(out, self.push.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let push = reader.short("push", ShortText::parse)?;
        reader.end()?;
        Ok(Self { push })
    }
}
