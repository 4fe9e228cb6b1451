//! Tallies: state keys that are counted on rather than put, for something that many partitions are part of.
//!
//! In: a change, and the tally as it stands when the change is decided. Out: the tally after it, or
//! why not. Decisions of all shards are taken one after the other, so a tally is never behind what
//! it counts; entries carry the sum and never the change. The cascades of the `process` room are
//! counted so. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What was counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Messages that are there and not done.
    pub pending: i64,
    /// Messages that ever were.
    pub messages: i64,
    /// Of those, the ones whose code failed.
    pub errors: i64,
    /// Messages that were refused and are kept as dead letters.
    pub refused: i64,
    /// Of those, the ones that a limit of the whole refused.
    pub truncated: i64,
    /// Messages that failed for good and are not kept.
    pub lost: i64,
    /// The longest way from the first message to one that is done.
    pub depth: u32,
    /// Whether it was called off.
    pub cancelled: bool,
    /// When it was counted on first, unix milliseconds.
    pub began_ms: u64,
    /// When nothing was pending any more, unix milliseconds; 0 while something is.
    pub ended_ms: u64,
}

/// A change of a tally, and under which conditions it may be made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TallyChange {
    /// Added to [`Tally::pending`].
    pub pending: i64,
    /// Added to [`Tally::messages`].
    pub messages: i64,
    /// Added to [`Tally::errors`].
    pub errors: i64,
    /// Added to [`Tally::refused`].
    pub refused: i64,
    /// Added to [`Tally::truncated`].
    pub truncated: i64,
    /// Added to [`Tally::lost`].
    pub lost: i64,
    /// The longest way is at least this.
    pub depth: u32,
    /// Calls it off.
    pub cancel: bool,
    /// There may not be more messages than this after it; 0 = any number.
    pub messages_max: i64,
    /// Only as long as it was not called off.
    pub unless_cancelled: bool,
}

/// Bytes of a tally as a value.
const BYTES: usize = 6 * 8 + 4 + 1 + 2 * 8;

impl Tally {
    /// The tally after a change at a time.
    ///
    /// # Errors
    /// The tally as it is, where a condition of the change does not hold.
    pub fn after(self, change: &TallyChange, now_ms: u64) -> Result<Self, Self> {
        let messages = self.messages + change.messages;
        let is_over = change.messages > 0 && messages > change.messages_max;
        if change.messages_max > 0 && is_over || change.unless_cancelled && self.cancelled {
            return Err(self);
        }
        let pending = self.pending + change.pending;
        Ok(Self {
            pending,
            messages,
            errors: self.errors + change.errors,
            refused: self.refused + change.refused,
            truncated: self.truncated + change.truncated,
            lost: self.lost + change.lost,
            depth: self.depth.max(change.depth),
            cancelled: self.cancelled || change.cancel,
            began_ms: if self.began_ms == 0 { now_ms } else { self.began_ms },
            ended_ms: if pending > 0 { 0 } else { now_ms },
        })
    }

    /// As the value of a state key.
    #[must_use]
    pub fn to_value(self) -> Bytes {
        let mut out = BytesMut::with_capacity(BYTES);
        let Self { pending, messages, errors, refused, truncated, lost, .. } = self;
        for number in [pending, messages, errors, refused, truncated, lost] {
            out.put_i64_le(number);
        }
        out.put_u32_le(self.depth);
        out.put_u8(u8::from(self.cancelled));
        out.put_u64_le(self.began_ms);
        out.put_u64_le(self.ended_ms);
        out.freeze()
    }

    /// From the value of a state key; `None` for any other bytes.
    #[must_use]
    pub fn from_value(mut value: &[u8]) -> Option<Self> {
        if value.len() != BYTES {
            return None;
        }
        Some(Self {
            pending: value.get_i64_le(),
            messages: value.get_i64_le(),
            errors: value.get_i64_le(),
            refused: value.get_i64_le(),
            truncated: value.get_i64_le(),
            lost: value.get_i64_le(),
            depth: value.get_u32_le(),
            cancelled: value.get_u8() != 0,
            began_ms: value.get_u64_le(),
            ended_ms: value.get_u64_le(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_comes_back_from_its_value_and_nothing_else_does() {
        let change = TallyChange { pending: 2, messages: 3, depth: 4, ..TallyChange::default() };
        let tally = Tally::default().after(&change, 7).unwrap();
        assert_eq!((tally.pending, tally.began_ms, tally.ended_ms), (2, 7, 0));
        let value = tally.to_value();
        assert_eq!(Tally::from_value(&value), Some(tally));
        assert_eq!(Tally::from_value(value.get(1..).unwrap()), None);
        let done = TallyChange { pending: -2, errors: 1, ..TallyChange::default() };
        let done = tally.after(&done, 9).unwrap();
        assert_eq!((done.pending, done.errors, done.ended_ms, done.depth), (0, 1, 9, 4));
    }

    #[test]
    fn a_change_whose_condition_does_not_hold_changes_nothing() {
        let one = TallyChange { messages: 1, messages_max: 1, ..TallyChange::default() };
        let full = Tally::default().after(&one, 1).unwrap();
        assert_eq!(full.after(&one, 2), Err(full));
        let other = TallyChange { errors: 1, messages_max: 1, ..TallyChange::default() };
        assert!(full.after(&other, 2).is_ok(), "it adds no message");
        let off = TallyChange { cancel: true, ..TallyChange::default() };
        let off = full.after(&off, 3).unwrap();
        let on = TallyChange { unless_cancelled: true, ..TallyChange::default() };
        assert_eq!(off.after(&on, 4), Err(off));
    }
}
