//! Frames: where one message on a connection ends and the next begins.
//!
//! In: a growing buffer of received bytes. Out: whole frames whose bodies share that buffer's
//! memory, «not yet», or a [`FrameError`] after which the stream cannot be followed any more.
//! An opcode that nobody knows is no error here: the stream is still in step, and dispatch
//! answers it. Called by the server's and the client's connections.

use bytes::{BufMut, Bytes, BytesMut};

use crate::code::Code;
use crate::limits::{FRAME_HEADER_BYTES, FRAME_LENGTH_MIN};

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; see [`crate::Opcode`]. Not checked.
    pub opcode: u8,
    /// Flags; 0 in this version.
    pub flags: u8,
    /// Chosen by the client; the answer carries the same.
    pub request_id: u64,
    /// The body, sharing the receive buffer's memory.
    pub body: Bytes,
}

/// Why the stream cannot be followed. The buffer is left as it was; the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length field is above the limit.
    TooLarge {
        /// What it announces.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The length field does not even cover the header.
    TooSmall {
        /// What it announces.
        bytes: usize,
    },
    /// A flag that this version does not know.
    Flags(u8),
    /// The reserved field is not 0.
    Reserved(u16),
}

impl FrameError {
    /// The field that was refused.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::TooSmall { .. } => "length",
            Self::Flags(_) => "flags",
            Self::Reserved(_) => "reserved",
        }
    }

    /// The limit that was broken, in bytes; 0 when the error is not about one.
    #[must_use]
    pub fn limit(&self) -> u64 {
        match self {
            Self::TooLarge { max, .. } => *max as u64,
            Self::TooSmall { .. } => FRAME_LENGTH_MIN as u64,
            Self::Flags(_) | Self::Reserved(_) => 0,
        }
    }

    /// The number that a peer sees.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::FrameTooLarge,
            Self::TooSmall { .. } | Self::Flags(_) | Self::Reserved(_) => Code::BadFrame,
        }
    }
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge { bytes, max } => {
                write!(f, "a frame announces {bytes} bytes; at most {max} are taken")
            }
            Self::TooSmall { bytes } => {
                write!(
                    f,
                    "a frame announces {bytes} bytes; its header alone has {FRAME_LENGTH_MIN}"
                )
            }
            Self::Flags(flags) => write!(f, "a frame has unknown flags 0x{flags:02x}"),
            Self::Reserved(reserved) => {
                write!(f, "a frame's reserved field is 0x{reserved:04x} and must be 0")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// Takes the first whole frame out of `buffer`, without a copy; `None` while it is not all there.
///
/// `max` bounds the length field, in bytes. A length outside its limits is refused as soon as its
/// four bytes are there, the rest of the header as soon as it is; nothing is ever reserved here,
/// so a peer cannot make us allocate by announcing. [`frame_bytes`] tells the reader how far to
/// grow its buffer.
///
/// # Errors
/// [`FrameError`]; the buffer is untouched and the stream lost.
pub fn decode(buffer: &mut BytesMut, max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(length) = length(buffer) else { return Ok(None) };
    if length > max {
        return Err(FrameError::TooLarge { bytes: length, max });
    }
    if length < FRAME_LENGTH_MIN {
        return Err(FrameError::TooSmall { bytes: length });
    }
    let Some((_, header)) =
        buffer.first_chunk::<FRAME_HEADER_BYTES>().and_then(|h| h.split_first_chunk::<4>())
    else {
        return Ok(None);
    };
    let &[opcode, flags, reserved_low, reserved_high, ref id @ ..] = header else {
        return Ok(None);
    };
    if flags != 0 {
        return Err(FrameError::Flags(flags));
    }
    let reserved = u16::from_le_bytes([reserved_low, reserved_high]);
    if reserved != 0 {
        return Err(FrameError::Reserved(reserved));
    }
    let mut request_id = [0; 8];
    request_id.copy_from_slice(id);
    if buffer.len() - 4 < length {
        return Ok(None);
    }
    let mut frame = buffer.split_to(4 + length).freeze();
    let body = frame.split_off(FRAME_HEADER_BYTES);
    Ok(Some(Frame { opcode, flags, request_id: u64::from_le_bytes(request_id), body }))
}

/// How many bytes the first frame in `buffer` takes from its first to its last, as far as its
/// length field is there. Not held against any limit: [`decode`] does that.
#[must_use]
pub fn frame_bytes(buffer: &[u8]) -> Option<usize> {
    length(buffer).map(|length| length + 4)
}

/// The header of a frame whose body has `body_bytes` bytes and is written by the caller.
///
/// # Panics
/// When the length does not fit its four bytes; limits end long before.
#[must_use]
pub fn header(opcode: u8, request_id: u64, body_bytes: usize) -> [u8; FRAME_HEADER_BYTES] {
    let length = u32::try_from(FRAME_LENGTH_MIN + body_bytes)
        .expect("a frame's length field has four bytes");
    let [l0, l1, l2, l3] = length.to_le_bytes();
    let [i0, i1, i2, i3, i4, i5, i6, i7] = request_id.to_le_bytes();
    [l0, l1, l2, l3, opcode, 0, 0, 0, i0, i1, i2, i3, i4, i5, i6, i7]
}

/// Appends a whole frame to `out`; `body` appends the body.
///
/// # Panics
/// As [`header`].
pub fn encode(opcode: u8, request_id: u64, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let from = out.len();
    out.put_slice(&[0; FRAME_HEADER_BYTES]);
    body(out);
    let body_bytes = out.len() - from - FRAME_HEADER_BYTES;
    if let Some(place) = out.get_mut(from..from + FRAME_HEADER_BYTES) {
        place.copy_from_slice(&header(opcode, request_id, body_bytes));
    }
}

/// The length field, as soon as it is there.
fn length(buffer: &[u8]) -> Option<usize> {
    buffer.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize)
}
