//! Failure: why a request, or one section of it, was not done. It answers any request.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | `code`: an error's number |
//! | 4 | `retry_after_ms`: 0 for no advice |
//! | 1 + n | `field`: a short text, empty when no field is to blame |
//! | 8 | `limit`: 0 when no limit was broken |
//! | 2 + n | `message`: a long text for people |

use bytes::{BufMut, Bytes, BytesMut};

use crate::code::Code;
use crate::decode_error::DecodeError;
use crate::primitive::{Reader, put_long, put_short};
use crate::text::{LongText, ShortText};

/// Says no, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number of a [`Code`], maybe one that only a newer server knows; see [`Self::known`].
    pub code: u16,
    /// How long to wait before trying again, in milliseconds; 0 for no advice.
    pub retry_after_ms: u32,
    /// The field that was refused; empty when none is to blame.
    pub field: ShortText,
    /// The limit that was broken; 0 when none was.
    pub limit: u64,
    /// What happened, for people. Not for programs: it may change.
    pub message: LongText,
}

impl Failure {
    /// A failure without field, limit and advice; a message that is too long is cut.
    #[must_use]
    pub fn new(code: Code, message: &str) -> Self {
        Self {
            code: code.number(),
            retry_after_ms: 0,
            field: ShortText::default(),
            limit: 0,
            message: LongText::lossy(message),
        }
    }

    /// The same, blaming a field and the limit that it broke (0 for none).
    #[must_use]
    pub fn blaming(mut self, field: &str, limit: u64) -> Self {
        self.field = ShortText::lossy(field);
        self.limit = limit;
        self
    }

    /// The same, with advice on when to try again.
    #[must_use]
    pub fn retry_after(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }

    /// The code, if this version knows its number.
    #[must_use]
    pub fn known(&self) -> Option<Code> {
        Code::from_number(self.code)
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(self.code);
        out.put_u32_le(self.retry_after_ms);
        put_short(out, self.field.as_bytes());
        out.put_u64_le(self.limit);
        put_long(out, self.message.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let failure = Self::read(&mut reader)?;
        reader.end()?;
        Ok(failure)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            code: reader.u16("code")?,
            retry_after_ms: reader.u32("retry_after_ms")?,
            field: reader.short("field", ShortText::parse)?,
            limit: reader.u64("limit")?,
            message: reader.long("message", LongText::parse)?,
        })
    }
}
