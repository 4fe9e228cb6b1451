//! What the catalog remembers of consumer groups, and its bytes in a queue's row.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::state::catalog::ROW;
use crate::state::codec::EntryError;
use crate::state::effect::GroupStart;
use crate::state::rows;

/// What is remembered of a consumer group of a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// Where it begins in partitions in which it has no cursor.
    pub start: GroupStart,
    /// When that was said, unix milliseconds; 0 where a store of an earlier version does not say.
    pub since_ms: u64,
    /// Whether the group is there. One that was deleted may be remembered until it comes again.
    pub is_active: bool,
}

impl Subscription {
    /// Where the group begins in a shard that hears of it later than others: new messages are then
    /// those that came since the group did.
    #[must_use]
    pub fn late_start(self) -> GroupStart {
        match self.start {
            GroupStart::New if self.since_ms > 0 => GroupStart::Time(self.since_ms),
            start => start,
        }
    }
}

pub(super) fn put_subscription(out: &mut BytesMut, subscription: Subscription) {
    let Subscription { start, since_ms, is_active } = subscription;
    rows::put_start(out, start);
    out.put_u64_le(since_ms);
    out.put_u8(u8::from(is_active));
}

pub(super) fn read_subscription(value: &mut Bytes) -> Result<Subscription, EntryError> {
    let start = rows::read_start(value)?;
    let since_ms = value.try_get_u64_le().map_err(|_| ROW)?;
    let is_active = value.try_get_u8().map_err(|_| ROW)? != 0;
    Ok(Subscription { start, since_ms, is_active })
}
