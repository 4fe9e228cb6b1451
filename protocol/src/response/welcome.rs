//! Welcome: the answer to a hello; what the server is and how much it takes.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | `version`: the one that both now speak |
//! | 1 + n | `server`: a short text |
//! | 4 | `frame_bytes_max`: of a frame's length field |
//! | 4 | `batch_bytes_max` |
//! | 4 | `message_bytes_max` |
//! | 4 | `in_flight_max`: requests without an answer |
//! | 1 + n | `store`: a short text, as `embedded` |
//! | 1 + n | `durability`: a short text, `sync` or `os` |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_short};
use crate::text::ShortText;

/// Accepts a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version that both sides speak from now on.
    pub version: u16,
    /// Name and version of the server, for logs.
    pub server: ShortText,
    /// Largest value of a frame's length field, in bytes.
    pub frame_bytes_max: u32,
    /// Largest record batch, in bytes.
    pub batch_bytes_max: u32,
    /// Largest payload of a message, in bytes.
    pub message_bytes_max: u32,
    /// How many requests may wait for their answers on one connection.
    pub in_flight_max: u32,
    /// Where messages are stored: `embedded`.
    pub store: ShortText,
    /// When a message counts as durable: `sync` after fdatasync, `os` after the write.
    pub durability: ShortText,
}

impl Welcome {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(self.version);
        put_short(out, self.server.as_bytes());
        out.put_u32_le(self.frame_bytes_max);
        out.put_u32_le(self.batch_bytes_max);
        out.put_u32_le(self.message_bytes_max);
        out.put_u32_le(self.in_flight_max);
        put_short(out, self.store.as_bytes());
        put_short(out, self.durability.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let welcome = Self {
            version: reader.u16("version")?,
            server: reader.short("server", ShortText::parse)?,
            frame_bytes_max: reader.u32("frame_bytes_max")?,
            batch_bytes_max: reader.u32("batch_bytes_max")?,
            message_bytes_max: reader.u32("message_bytes_max")?,
            in_flight_max: reader.u32("in_flight_max")?,
            store: reader.short("store", ShortText::parse)?,
            durability: reader.short("durability", ShortText::parse)?,
        };
        reader.end()?;
        Ok(welcome)
    }
}
