//! PushControls: how a push to a process is waited for and bounded.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | `level`: 0 default, 1 accepted, 2 slot, 3 reply, 4 cascade |
//! | 1 | `said`: bit 0 `timeout_ms`, 1 `result_depth`, 2 `max_depth`, 3 `max_hops`, 4 `max_messages`; bit 5 `strict`; others 0 |
//! | 4 | `timeout_ms`: at most 600 000; only when it is said, as all that follow |
//! | 4 | `result_depth` |
//! | 4 | `max_depth` |
//! | 4 | `max_hops` |
//! | 8 | `max_messages` |

use bytes::{BufMut, BytesMut};

use crate::decode_error::DecodeError;
use crate::limits::PROCESS_WAIT_MS_MAX;
use crate::primitive::{Reader, in_range, numbered};

numbered! {
    /// How far a push to a process is waited for.
    AwaitLevel, "level",
    /// As far as the server does where nothing is said: the whole cascade.
    Default = 0,
    /// Until the message is durable.
    Accepted = 1,
    /// Until it is evaluated.
    Slot = 2,
    /// Until the first answer of its cascade to `$reply`.
    Reply = 3,
    /// Until nothing of its cascade is pending.
    Cascade = 4,
}

const STRICT: u8 = 1 << 5;
const SAID_MAX: u8 = STRICT | (STRICT - 1);

/// What a push to a process asks besides its message. What is `None` is as the server or the class says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushControls {
    /// How far it is waited for.
    pub level: AwaitLevel,
    /// For how long, in milliseconds: at most 600 000.
    pub timeout_ms: Option<u32>,
    /// How many levels of the answer's tree carry their results.
    pub result_depth: Option<u32>,
    /// How deep it is waited for; what is deeper goes on by itself.
    pub max_depth: Option<u32>,
    /// How often a message may be sent on; 0 for no limit.
    pub max_hops: Option<u32>,
    /// How many messages may come of it.
    pub max_messages: Option<u64>,
    /// Whether a failure is said by the answer's status.
    pub strict: bool,
}

impl Default for PushControls {
    fn default() -> Self {
        Self {
            level: AwaitLevel::Default,
            timeout_ms: None,
            result_depth: None,
            max_depth: None,
            max_hops: None,
            max_messages: None,
            strict: false,
        }
    }
}

impl PushControls {
    fn numbers(&self) -> [Option<u32>; 4] {
        [self.timeout_ms, self.result_depth, self.max_depth, self.max_hops]
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut said = if self.strict { STRICT } else { 0 };
        for (bit, number) in self.numbers().iter().enumerate() {
            said |= u8::from(number.is_some()) << bit;
        }
        said |= u8::from(self.max_messages.is_some()) << 4;
        out.put_u8(self.level.number());
        out.put_u8(said);
        self.numbers().iter().flatten().for_each(|number| out.put_u32_le(*number));
        if let Some(messages) = self.max_messages {
            out.put_u64_le(messages);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let level = AwaitLevel::read(reader)?;
        let offset = reader.at();
        let said = reader.u8("said")?;
        in_range("said", offset, u64::from(said), 0, u64::from(SAID_MAX))?;
        let is_said = |bit: u8| said & (1 << bit) != 0;
        let mut number = |bit: u8, field: &'static str, max: u32| match is_said(bit) {
            true => reader.u32_in(field, 0, max).map(Some),
            false => Ok(None),
        };
        let timeout_ms = number(0, "timeout_ms", PROCESS_WAIT_MS_MAX)?;
        let result_depth = number(1, "result_depth", u32::MAX)?;
        let max_depth = number(2, "max_depth", u32::MAX)?;
        let max_hops = number(3, "max_hops", u32::MAX)?;
        let max_messages = match is_said(4) {
            true => Some(reader.u64("max_messages")?),
            false => None,
        };
        let strict = said & STRICT != 0;
        Ok(Self { level, timeout_ms, result_depth, max_depth, max_hops, max_messages, strict })
    }
}
