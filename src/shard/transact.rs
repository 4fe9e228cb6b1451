//! What the lane does for transactions beside deciding them: pushes that came before them are taken
//! along, those that must not go round the failover log are refused, and they get their answers. And
//! state keys are read.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::base::place::ShardId;
use crate::buffer::ring::Ring;
use crate::log::AppendError;
use crate::shard::command::{Command, CommandError, ReadStates};
use crate::shard::lane::{COMMIT_BYTES_MAX, Lane, fail_command};
use crate::shard::round::Work;
use crate::shard::transaction::{Committed, Refusal, Transaction, TransactionAppend};
use crate::state::ShardState;
use crate::state::kv::{Kv, KvError};
use crate::state::states::{StateAsk, StatePage};

/// Bytes of pushes that go into a commit before its transactions, at most: more than all rings hold
/// together by default, and what an append takes beside the transactions themselves.
const BEFORE_BYTES_MAX: u64 = 2 * COMMIT_BYTES_MAX;

impl Lane {
    /// Takes what waits in the shards that transactions push into, whether it is due or not: it came
    /// before them. Transactions that are too much for one commit wait for the next.
    pub(super) fn drain_before_transactions(&mut self, work: &mut Work, room: &mut u64) {
        if !work.commands.iter().any(|it| matches!(it, Command::Transact(_))) {
            return;
        }
        let (mut shards, mut bytes) = (BTreeSet::<ShardId>::new(), 0);
        let count = self.replica.count();
        let mut waits = |command: &mut Command| {
            let Command::Transact(whole) = command else { return false };
            let is_first = bytes == 0;
            bytes += whole.bytes();
            if bytes > COMMIT_BYTES_MAX && !is_first {
                return true;
            }
            shards.extend(whole.appends.iter().map(|append| count.of_hash(append.hash)));
            false
        };
        self.again.extend(work.commands.extract_if(.., &mut waits));
        *room = room.saturating_sub(bytes.min(COMMIT_BYTES_MAX));
        let mut left = BEFORE_BYTES_MAX;
        for shard in shards {
            let rings = self.buffers.drain(shard, left);
            let taken: u64 = rings.iter().map(Ring::bytes).sum();
            (left, *room) = (left.saturating_sub(taken), room.saturating_sub(taken));
            if !rings.is_empty() {
                work.rings.push((shard, rings));
            }
        }
    }

    /// Refuses transactions whose pushes would overtake what waits in the failover log, or are held
    /// back: a failover log keeps pushes one by one, and cannot promise that several stand together.
    pub(super) fn refuse_transactions(&self, work: &mut Work, must: impl Fn(u64) -> bool) {
        let must_wait = |append: &TransactionAppend| must(append.hash);
        let refused = work.commands.extract_if(.., |command| match command {
            Command::Transact(whole) => whole.appends.iter().any(must_wait),
            _ => false,
        });
        let why = "pushes to this partition wait in the failover log, and a transaction cannot";
        let error = CommandError::Append(AppendError::Unavailable(why.into()));
        refused.for_each(|command| fail_command(command, &error));
    }

    pub(super) fn answer_transaction(
        &mut self,
        whole: Transaction,
        decided: Result<Committed, Refusal>,
    ) {
        if let Ok(committed) = &decided {
            self.count_transaction(&whole, committed);
        }
        // Whoever hung up does not want to know; what stands, stands.
        let _ = whole.reply.send(match decided {
            Ok(committed) => Ok(Ok(committed)),
            Err(refusal) => match refusal.undecided() {
                Some(error) if error.is_passing() => Err(CommandError::Decide(error.clone())),
                _ => Ok(Err(refusal)),
            },
        });
    }

    /// Reads state keys as they are after everything that any engine was answered.
    pub(super) fn read_states(
        &mut self,
        read: &ReadStates,
    ) -> Result<Option<StatePage>, CommandError> {
        if !self.config.sole_writer {
            self.follow_all()?;
        }
        let query = self.replica.catalog.catalog().queries().get(read.query);
        let Some(owner) = query.map(|query| query.owner) else { return Ok(None) };
        let ask = StateAsk { owner, ..read.ask.clone() };
        let at = usize::from(self.replica.count().of_partition(ask.partition));
        let Some(shard) = self.replica.shards.get(at) else {
            return Ok(Some(StatePage::default()));
        };
        let page = match read.keys.is_empty() {
            true => shard.states(&*self.kv, &ask),
            false => named_states(shard, &*self.kv, &ask, &read.keys),
        };
        page.map(Some).map_err(|error| CommandError::Decide(error.into()))
    }
}

/// The values of some keys in the order asked, up to about as many bytes as `ask` allows.
fn named_states(
    shard: &ShardState,
    kv: &dyn Kv,
    ask: &StateAsk,
    keys: &[Bytes],
) -> Result<StatePage, KvError> {
    let (mut page, mut bytes) = (StatePage::default(), 0);
    for (at, key) in keys.iter().enumerate() {
        let rows = shard.states_at(kv, ask.owner, ask.partition, std::slice::from_ref(key))?;
        bytes += rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
        page.rows.extend(rows);
        if bytes > ask.bytes_max && at + 1 < keys.len() {
            page.more_after = Some(key.clone());
            break;
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::place::{ShardCount, StoreKey};
    use crate::state::effect::{Effect, Entry, Origin};
    use crate::state::kv::memory::MemoryKv;

    #[test]
    fn keys_that_are_named_come_in_pages_too() {
        let count = ShardCount::new(1).unwrap();
        let mut shard = ShardState::new(0, count, StoreKey([7; 16]));
        let number = count.number(0, 0).unwrap();
        let keys = ["a", "b", "c"].map(Bytes::from);
        let put = |key: &Bytes| Effect::PutState {
            owner: 1,
            partition: number,
            key: key.clone(),
            value: vec![0; 100].into(),
        };
        let mut effects = vec![Effect::CreatePartition { number, queue: 0, name: "p".into() }];
        effects.extend(keys.iter().map(put));
        shard.apply(&Entry { time_ms: 1, origin: Origin::default(), effects }, 0, 0);
        let (kv, ask) = (MemoryKv::new(), |bytes_max| StateAsk {
            owner: 1,
            partition: number,
            bytes_max,
            ..StateAsk::default()
        });
        let asked = |bytes_max, keys: &[Bytes]| {
            let page = named_states(&shard, &kv, &ask(bytes_max), keys).unwrap();
            let found: Vec<Bytes> = page.rows.into_iter().map(|row| row.key).collect();
            (found, page.more_after)
        };
        assert_eq!(asked(150, &keys), (keys[..2].to_vec(), Some(keys[1].clone())));
        assert_eq!(asked(150, &keys[2..]), (keys[2..].to_vec(), None));
        assert_eq!(asked(1_000, &keys), (keys.to_vec(), None));
    }
}
