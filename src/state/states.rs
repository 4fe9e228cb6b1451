//! State keys: small values that an owner keeps beside a partition, (owner, partition, key) → bytes.
//!
//! In: effects, and questions. Out: rows in key order, whatever of them is in memory still and
//! whatever in the key-value seam. What changed since the last checkpoint is held here under the
//! very keys that the rows have. A query's windows are the first of such owners; the shard knows
//! nothing of what they mean.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};

use crate::base::place::PartitionNumber;
use crate::state::ShardState;
use crate::state::effect::OwnerId;
use crate::state::kv::{Kv, KvError, RowChange, Scan, Space};
use crate::state::rows;

/// Longest key in bytes: it must fit beside owner and partition into a row's key.
pub const STATE_KEY_BYTES_MAX: usize = 1024;
/// Largest value in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;

/// Bytes of values that weigh as much as a row: few large values must not wait in memory as long as
/// many small ones.
const ROW_BYTES: usize = 1024;

/// A state key with its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateRow {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// When it was put, unix milliseconds.
    pub updated_ms: u64,
}

/// Which state keys are asked for.
#[derive(Clone, Debug, Default)]
pub struct StateAsk {
    /// Whose.
    pub owner: OwnerId,
    /// Of which partition.
    pub partition: PartitionNumber,
    /// Only keys that begin so.
    pub prefix: Bytes,
    /// Only keys behind this one.
    pub after: Option<Bytes>,
    /// Most rows of one answer.
    pub rows_max: usize,
    /// Bytes after which an answer ends; one row always fits.
    pub bytes_max: usize,
}

/// One answer: rows in key order, and whether there are more.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StatePage {
    /// In key order.
    pub rows: Vec<StateRow>,
    /// The key to ask behind for more; `None` when this is the end.
    pub more_after: Option<Bytes>,
}

/// What rows do not say yet.
#[derive(Debug, Default)]
pub(super) struct States {
    recent: BTreeMap<Vec<u8>, Recent>,
    /// Bytes of the values in it.
    bytes: usize,
    /// Owners whose rows are to go with the next checkpoint.
    dropped: Vec<OwnerId>,
    /// What the checkpoint under way carries, and whose rows go with it.
    writing: Vec<(Vec<u8>, u64)>,
    writing_dropped: Vec<OwnerId>,
    version: u64,
}

/// The newest value of a key as its row will have it; `None` once it is removed.
#[derive(Debug)]
struct Recent {
    version: u64,
    value: Option<Vec<u8>>,
}

impl Recent {
    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len)
    }
}

impl States {
    pub(super) fn put(&mut self, row: Vec<u8>, value: &[u8], now_ms: u64) {
        let mut out = Vec::with_capacity(8 + value.len());
        out.put_u64_le(now_ms);
        out.put_slice(value);
        self.set(row, Some(out));
    }

    pub(super) fn remove(&mut self, row: Vec<u8>) {
        self.set(row, None);
    }

    fn set(&mut self, row: Vec<u8>, value: Option<Vec<u8>>) {
        self.version += 1;
        self.bytes += value.as_ref().map_or(0, Vec::len);
        let before = self.recent.insert(row, Recent { version: self.version, value });
        self.bytes -= before.map_or(0, |it| it.bytes());
    }

    fn forget(&mut self, row: &[u8]) {
        self.bytes -= self.recent.remove(row).map_or(0, |it| it.bytes());
    }

    pub(super) fn drop_owner(&mut self, owner: OwnerId) {
        let is_its = |row: &[u8]| rows::parts_of_state_key(row).is_some_and(|it| it.1 == owner);
        self.recent.retain(|row, _| !is_its(row));
        self.bytes = self.recent.values().map(Recent::bytes).sum();
        self.dropped.push(owner);
    }

    /// The partition is gone; its rows go with its dead letters.
    pub(super) fn drop_partition(&mut self, partition: PartitionNumber) {
        let (from, end) = rows::keys_of_partition(partition);
        let of_it = self.recent.range(from..).take_while(|(row, _)| end.is_empty() || **row < end);
        let of_it: Vec<Vec<u8>> = of_it.map(|(row, _)| row.clone()).collect();
        of_it.iter().for_each(|row| self.forget(row));
    }

    /// How many rows of ordinary size a checkpoint would write, about.
    pub(super) fn weight(&self) -> usize {
        self.recent.len() + self.dropped.len() + self.bytes / ROW_BYTES
    }

    /// Rows of a checkpoint, and the owners whose older rows go with it.
    pub(super) fn begin_flush(&mut self, out: &mut Vec<RowChange>) -> Vec<OwnerId> {
        for (key, recent) in &self.recent {
            let (key, value) = (key.clone(), recent.value.clone());
            self.writing.push((key.clone(), recent.version));
            out.push(RowChange { space: Space::States, key, value });
        }
        self.writing_dropped = std::mem::take(&mut self.dropped);
        self.writing_dropped.clone()
    }

    /// Whether an owner lost its keys and their rows may still be there.
    fn is_dropped(&self, owner: OwnerId) -> bool {
        self.dropped.contains(&owner) || self.writing_dropped.contains(&owner)
    }

    /// The rows of the checkpoint can be read: what did not change meanwhile is let go of.
    pub(super) fn end_flush(&mut self) {
        self.writing_dropped.clear();
        for (key, version) in std::mem::take(&mut self.writing) {
            if self.recent.get(&key).is_some_and(|recent| recent.version == version) {
                self.forget(&key);
            }
        }
    }
}

impl ShardState {
    /// State keys of one owner and partition, in key order.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn states(&self, kv: &dyn Kv, ask: &StateAsk) -> Result<StatePage, KvError> {
        let StateAsk { owner, partition, prefix, after, rows_max, bytes_max } = ask;
        if self.partition(*partition).is_none() || self.states.is_dropped(*owner) {
            return Ok(StatePage::default());
        }
        let whole = rows::state_key(*partition, *owner, prefix);
        let end = behind_prefix(&whole);
        let from = match after.as_ref().filter(|after| *after >= prefix) {
            // The first key behind it in byte order.
            Some(after) => rows::state_key(*partition, *owner, &[after, [0].as_slice()].concat()),
            None => whole,
        };
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let (mut bytes, mut seen_to) = (0, None);
        kv.scan(Space::States, &from, &end, &mut |key, value| {
            // One that is gone since the rows were written makes no page end.
            if self.states.recent.get(key).is_some_and(|recent| recent.value.is_none()) {
                return Scan::Continue;
            }
            bytes += key.len() + value.len();
            found.insert(key.to_vec(), value.to_vec());
            if found.len() > *rows_max || bytes > *bytes_max {
                seen_to = Some(key.to_vec());
                return Scan::Stop;
            }
            Scan::Continue
        })?;
        for (key, recent) in self.states.recent.range(from..) {
            let is_past = !end.is_empty() && *key >= end;
            if is_past || seen_to.as_ref().is_some_and(|to| key > to) {
                break;
            }
            if let Some(value) = &recent.value {
                found.insert(key.clone(), value.clone());
            }
        }
        Ok(page(found, seen_to, *rows_max, *bytes_max))
    }

    /// The values of some state keys of one owner and partition, in the order asked; those that
    /// have none are left out.
    ///
    /// # Errors
    /// [`KvError`] when rows cannot be read.
    pub fn states_at(
        &self,
        kv: &dyn Kv,
        owner: OwnerId,
        partition: PartitionNumber,
        keys: &[Bytes],
    ) -> Result<Vec<StateRow>, KvError> {
        let mut found = Vec::new();
        if self.partition(partition).is_none() || self.states.is_dropped(owner) {
            return Ok(found);
        }
        for key in keys {
            let row = rows::state_key(partition, owner, key);
            let value = match self.states.recent.get(&row) {
                Some(recent) => recent.value.clone().map(Bytes::from),
                None => kv.get(Space::States, &row)?,
            };
            found.extend(value.and_then(|value| read_row(key.clone(), value)));
        }
        Ok(found)
    }
}

fn page(
    found: BTreeMap<Vec<u8>, Vec<u8>>,
    seen_to: Option<Vec<u8>>,
    rows_max: usize,
    bytes_max: usize,
) -> StatePage {
    let key_of = |row: &[u8]| rows::parts_of_state_key(row).map(|it| Bytes::copy_from_slice(it.2));
    let mut page = StatePage { rows: Vec::new(), more_after: seen_to.and_then(|row| key_of(&row)) };
    let mut bytes = 0;
    for (row, value) in found {
        bytes += row.len() + value.len();
        if page.rows.len() >= rows_max || bytes > bytes_max && !page.rows.is_empty() {
            page.more_after = page.rows.last().map(|last| last.key.clone());
            break;
        }
        page.rows.extend(key_of(&row).and_then(|key| read_row(key, value.into())));
    }
    page
}

fn read_row(key: Bytes, mut value: Bytes) -> Option<StateRow> {
    let updated_ms = value.try_get_u64_le().ok()?;
    Some(StateRow { key, value, updated_ms })
}

/// The first key that does not begin with `prefix` any more; empty where there is none.
fn behind_prefix(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX).map_or(0, |at| at + 1);
    let mut end = prefix.get(..kept).unwrap_or_default().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_value_weighs_more_than_a_small_one_until_it_is_a_row() {
        let mut states = States::default();
        let row = |partition, key: &[u8]| rows::state_key(partition, 1, key);
        states.put(row(1, b"a"), &[0; 1 << 20], 5);
        states.put(row(2, b"b"), b"small", 5);
        assert_eq!(states.weight(), 2 + 1024);
        states.put(row(1, b"a"), &[0; 2 << 20], 6);
        assert_eq!(states.weight(), 2 + 2048, "the newest value alone waits");
        states.drop_partition(1);
        assert_eq!(states.weight(), 1);
        states.put(row(1, b"a"), &[0; 1 << 20], 7);
        states.drop_owner(1);
        assert_eq!(states.weight(), 1, "that its rows are to go");
        states.put(row(1, b"a"), &[0; 1 << 20], 8);
        states.begin_flush(&mut Vec::new());
        states.end_flush();
        assert_eq!(states.weight(), 0);
    }
}
