//! Hello: the first request of a connection; what the client speaks and who it is.
//!
//! In: versions, a name for logs, perhaps a token. Answered by `Welcome`.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | `version_min` |
//! | 2 | `version_max` |
//! | 1 + n | `client`: a short text |
//! | 2 + n | `token`: 0 to 4096 bytes, 0 when there is none |

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::TOKEN_BYTES_MAX;
use crate::name::NameError;
use crate::primitive::{Reader, put_long, put_short};
use crate::text::ShortText;

/// Opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version that the client speaks.
    pub version_min: u16,
    /// Highest protocol version that the client speaks.
    pub version_max: u16,
    /// Name and version of the client, for logs.
    pub client: ShortText,
    /// Proof of who the client is.
    pub token: Option<Token>,
}

/// A secret of 1 to 4096 bytes. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Bytes);

impl Token {
    /// Checks the length and keeps the bytes without a copy.
    ///
    /// # Errors
    /// [`NameError::Length`] outside 1 to 4096 bytes.
    pub fn parse(raw: Bytes) -> Result<Self, NameError> {
        let (bytes, max) = (raw.len(), TOKEN_BYTES_MAX);
        if bytes == 0 || bytes > max {
            return Err(NameError::Length { field: "token", bytes, min: 1, max });
        }
        Ok(Self(raw))
    }

    /// The secret, to be compared in constant time.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

impl Hello {
    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(self.version_min);
        out.put_u16_le(self.version_max);
        put_short(out, self.client.as_bytes());
        put_long(out, self.token.as_ref().map(Token::as_bytes).unwrap_or_default());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&body);
        let version_min = reader.u16("version_min")?;
        let version_max = reader.u16("version_max")?;
        let client = reader.short("client", ShortText::parse)?;
        let token = reader.long("token", |raw| match raw.is_empty() {
            true => Ok(None),
            false => Token::parse(raw).map(Some),
        })?;
        reader.end()?;
        Ok(Self { version_min, version_max, client, token })
    }
}
