//! Bytes of dead letters.
//!
//! ```text
//! body of Bury  u32 partition | u32 group | u64 seq | u64 pushed_ms | [u64 failed_ms, if flags bit 6]
//!               u32 attempts | u8 reason | u32 length | what the consumer said
//!               [u8 length | who pushed it, if flags bit 1] | record batch of one
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::{
    CUT_OFF, EntryError, FLAG_AGAIN, FLAG_FAILED_AT, Rope, TAG_BURY, effect_parts, read_sub,
};
use crate::state::effect::{DeadLetter, DeadReason};

impl Rope {
    pub(super) fn dead(&mut self, dead: &DeadLetter) {
        self.head.put_u32_le(dead.partition);
        self.head.put_u32_le(dead.group);
        self.head.put_u64_le(dead.seq);
        self.head.put_u64_le(dead.pushed_ms);
        if dead.failed_ms > 0 {
            self.head.put_u64_le(dead.failed_ms);
        }
        self.head.put_u32_le(dead.attempts);
        self.head.put_u8(dead.reason as u8);
        self.head.put_u32_le(dead.error.len() as u32);
        self.head.put_slice(dead.error.as_bytes());
        self.sub(&dead.sub);
        self.bytes(&dead.batch);
    }
}

/// Decodes the effect at a dead letter's place in the log.
///
/// # Errors
/// [`EntryError`] where there is no dead letter.
pub fn decode_dead(mut place: Bytes) -> Result<DeadLetter, EntryError> {
    let (tag, flags, mut body) = effect_parts(&mut place)?;
    if tag != TAG_BURY {
        return Err(EntryError { field: "dead letter", problem: "another effect" });
    }
    read_dead(flags, &mut body).map_err(|_| CUT_OFF)
}

pub(super) fn read_dead(flags: u8, body: &mut Bytes) -> Result<DeadLetter, bytes::TryGetError> {
    let partition = body.try_get_u32_le()?;
    let group = body.try_get_u32_le()?;
    let seq = body.try_get_u64_le()?;
    let pushed_ms = body.try_get_u64_le()?;
    let failed_ms = if flags & FLAG_FAILED_AT != 0 { body.try_get_u64_le()? } else { 0 };
    let is_again = flags & FLAG_AGAIN != 0;
    let attempts = body.try_get_u32_le()?;
    let reason = match body.try_get_u8()? {
        1 => DeadReason::Asked,
        2 => DeadReason::LeaseExpired,
        _ => DeadReason::RetriesExhausted,
    };
    let error_len = (body.try_get_u32_le()? as usize).min(body.len());
    let error = String::from_utf8_lossy(&body.split_to(error_len)).into();
    let sub = read_sub(flags, body)?;
    let batch = std::mem::take(body);
    let letter = DeadLetter {
        partition,
        group,
        seq,
        pushed_ms,
        failed_ms,
        is_again,
        attempts,
        reason,
        error,
        sub,
        batch,
    };
    Ok(letter)
}
