//! Records of old slots are let go of, and with them what is known of their cascades, where the class says so.
//!
//! Looked at when a process has evaluated some more slots. What is pending is kept whatever its age. Nothing
//! of it is needed to go on: a crash in between leaves some for the next time. In: how far a process is.
//! Out: fewer rows. Called by `runner`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::place::PartitionNumber;
use crate::process::control::changes;
use crate::process::definition::Retention;
use crate::process::evaluate::Evaluated;
use crate::process::instance::{page, values};
use crate::process::keys::{
    Address, CASCADES, META, RESULTS, TRIMMED, read_root_seq, read_slot_key, slot_key, tally_key,
};
use crate::process::look::{kept_from, read_record};
use crate::process::step::Step;
use crate::process::{Inner, ProcessError};
use crate::shard::look::View;
use crate::state::draft::transaction::StateOp;
use crate::state::effect::{OwnerId, Sequence};
use crate::state::kv::KvError;
use crate::state::states::StateAsk;
use crate::state::tally::Tally;

/// Rows of one look and of one transaction.
const ROWS: usize = 512;
/// Bytes of one look.
const BYTES: usize = 1 << 20;
/// Slots after which a process is looked at again, at most.
const SLOTS: u64 = 1_024;

/// Rows that may go.
struct Found {
    removed: Vec<StateOp>,
    /// The row to look behind for more; `None` where what is kept begins.
    after: Option<Bytes>,
    /// Where that is, as far as was looked.
    floor: Sequence,
}

impl Retention {
    /// Whether it is time for a look after these slots: so often that never more than half as many again as
    /// are wanted are kept.
    fn is_due(&self, slots: &Range<Sequence>) -> bool {
        let every = match self.slots {
            0 => SLOTS,
            slots => (slots / 2).clamp(1, SLOTS),
        };
        self.lets_go() && slots.start / every != slots.end / every
    }
}

impl Inner {
    /// Slots were evaluated: they are counted, and what the process need not keep any more is let go of,
    /// where it is time for that. Does not wait for it.
    pub(super) fn count_slots(
        self: &Arc<Self>,
        partition: PartitionNumber,
        evaluated: &Evaluated,
        slots: Range<Sequence>,
    ) {
        self.count(&evaluated.done);
        let code = evaluated.done.last().and_then(|done| done.code.as_ref());
        let Some(retention) = code.map(|code| code.definition.retention) else { return };
        if !retention.is_due(&slots) {
            return;
        }
        let (inner, busy) = (Arc::clone(self), Arc::clone(&self.busy));
        tokio::spawn(async move {
            if let Err(error) = inner.trim(partition, retention, slots.end).await {
                tracing::debug!(partition, %error, "old slots are let go of later");
            }
            drop(busy);
        });
    }

    /// Lets go of records, and then of what is known of the cascades that began with them.
    async fn trim(
        &self,
        partition: PartitionNumber,
        retention: Retention,
        done: Sequence,
    ) -> Result<(), ProcessError> {
        let most = match retention.slots {
            0 => 0,
            slots => done.saturating_sub(slots),
        };
        let before_ms = match retention.seconds {
            0 => 0,
            seconds => self.clock.now_ms().saturating_sub(seconds.saturating_mul(1_000)),
        };
        let (mut after, mut floor) = (None, 0);
        loop {
            let look = move |look: &View<'_>| old_records(look, partition, after, most, before_ms);
            let found = self.engine.look(look).await??;
            floor = floor.max(found.floor);
            self.let_go(RESULTS, partition, found.removed, Some(floor)).await?;
            after = found.after;
            if after.is_none() {
                break;
            }
        }
        let mut after = None;
        loop {
            let look = move |look: &View<'_>| old_cascades(look, partition, after, floor);
            let found = self.engine.look(look).await??;
            self.let_go(CASCADES, partition, found.removed, None).await?;
            after = found.after;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn let_go(
        &self,
        owner: OwnerId,
        partition: PartitionNumber,
        removed: Vec<StateOp>,
        floor: Option<Sequence>,
    ) -> Result<(), ProcessError> {
        if removed.is_empty() {
            return Ok(());
        }
        let mut states = vec![changes(owner, partition, removed)];
        if let Some(floor) = floor {
            let (key, value) = (Bytes::from_static(TRIMMED), slot_key(floor));
            states.push(changes(META, partition, vec![StateOp::Put { key, value }]));
        }
        let step = Step { states, ..Step::default() };
        // Where nothing stands, the process is gone.
        self.carry_out(&step).await.map(|_| ())
    }
}

fn ask(owner: OwnerId, partition: PartitionNumber, after: Option<Bytes>) -> StateAsk {
    let prefix = Bytes::new();
    StateAsk { owner, partition, prefix, after, rows_max: ROWS, bytes_max: BYTES }
}

/// Whether something of the cascade that began with a message is pending.
fn is_pending(look: &View<'_>, partition: PartitionNumber, seq: Sequence) -> Result<bool, KvError> {
    let root = Address { partition, seq, time_ms: 0 };
    let found = values(look, CASCADES, partition, &[tally_key(root)])?;
    let tally = found.first().and_then(|(_, value)| Tally::from_value(value));
    Ok(tally.is_some_and(|tally| tally.pending > 0))
}

/// Records of slots before `most`, or of before a time.
fn old_records(
    look: &View<'_>,
    partition: PartitionNumber,
    after: Option<Bytes>,
    most: Sequence,
    before_ms: u64,
) -> Result<Found, KvError> {
    let page = page(look, &ask(RESULTS, partition, after))?;
    // What was let go of before stays so, whatever was pending then.
    let floor = kept_from(look, partition)?;
    let mut found = Found { removed: Vec::new(), after: page.more_after, floor };
    for row in page.rows {
        let Some(slot) = read_slot_key(&row.key) else { continue };
        let is_old = slot < most
            || before_ms > 0
                && read_record(&row.value).is_some_and(|record| record.evaluated_ms < before_ms);
        if !is_old {
            found.after = None;
            break;
        }
        found.floor = found.floor.max(slot + 1);
        if !is_pending(look, partition, slot)? {
            found.removed.push(StateOp::Remove { key: row.key });
        }
    }
    Ok(found)
}

/// What is known of cascades whose first messages stand before `floor`.
fn old_cascades(
    look: &View<'_>,
    partition: PartitionNumber,
    after: Option<Bytes>,
    floor: Sequence,
) -> Result<Found, KvError> {
    let page = page(look, &ask(CASCADES, partition, after))?;
    let mut found = Found { removed: Vec::new(), after: page.more_after, floor };
    let mut pending: HashMap<Sequence, bool> = HashMap::new();
    for row in page.rows {
        let Some(seq) = read_root_seq(&row.key) else { continue };
        if seq >= floor {
            found.after = None;
            break;
        }
        let is_kept = match pending.get(&seq) {
            Some(is_kept) => *is_kept,
            None => {
                let is_kept = is_pending(look, partition, seq)?;
                pending.insert(seq, is_kept);
                is_kept
            }
        };
        if !is_kept {
            found.removed.push(StateOp::Remove { key: row.key });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_looked_at_now_and_then() {
        let few = Retention { slots: 8, ..Retention::default() };
        assert!(!few.is_due(&(0..3)) && few.is_due(&(3..4)) && few.is_due(&(5..9)));
        let one = Retention { slots: 1, ..Retention::default() };
        assert!(one.is_due(&(7..8)), "with every slot");
        let young = Retention { seconds: 60, ..Retention::default() };
        assert!(!young.is_due(&(0..1_023)) && young.is_due(&(1_000..1_024)));
        assert!(!Retention::default().is_due(&(0..100_000)));
    }
}
