//! Queries over queues: registered by name, each with state keys beside every partition of its source,
//! and moved on by cycles.
//!
//! A cycle is one transaction: changes of state keys, pushes into the sink, and a verdict on what was
//! read. A cycle that fails its batch gives it back at once. Cycles of one partition are decided one
//! after the other, whichever engine is asked, because its shard's log takes one entry after the
//! other. Called by `wire`.

use bytes::Bytes;
use onrush_protocol::name::GroupName;
use tokio::sync::oneshot;

use crate::base::place::PartitionNumber;
use crate::shard::command::{Command, CommandError, ReadStates, Register, Registered};
use crate::shard::transaction::Reach;
use crate::state::draft::ack::Verdict;
use crate::state::draft::transaction::StateOp;
use crate::state::effect::LeaseToken;
use crate::state::queries::{QueryDefinition, QueryId};
use crate::state::states::{
    STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX, StateAsk, StatePage, StateRow,
};
use crate::transaction::{AckOrder, Order, Transactions, Which};

/// Longest name or hash of a query in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most state keys that one question names, and most changes of one cycle.
pub const KEYS_MAX: usize = 10_000;
/// Bytes of one page of state keys: bounds how long others wait for the lane.
const PAGE_BYTES: usize = 4 << 20;
/// Rows of one page.
const PAGE_ROWS: usize = 10_000;
/// Bytes of state keys in one answer.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a query was not registered or read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// A field is empty or longer than it may be.
    #[error("{field} has {bytes} bytes; {min} to {limit} are allowed")]
    Length {
        /// The field.
        field: &'static str,
        /// How long it is.
        bytes: usize,
        /// How short it may be.
        min: usize,
        /// How long it may be.
        limit: usize,
    },
    /// There is no such query.
    #[error("the query does not exist")]
    NoQuery,
    /// All that was asked for is more than one answer may hold.
    #[error("the state keys asked for have over {ANSWER_BYTES_MAX} bytes; ask by prefix or by key")]
    TooMuch,
    /// The engine did not carry it out.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What a query is registered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueryOrder {
    /// Its name.
    pub name: Box<str>,
    /// The queue that it reads.
    pub source: Box<str>,
    /// The queue that it writes to; empty for none.
    pub sink: Box<str>,
    /// What tells one chain of operators from another.
    pub config_hash: Box<str>,
    /// Whether it begins without state, whatever it had.
    pub reset: bool,
}

/// Which state keys are asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateQuestion {
    /// Of which partition.
    pub partition: PartitionNumber,
    /// These; empty for all that `prefix` means.
    pub keys: Vec<Bytes>,
    /// Only keys that begin so.
    pub prefix: Bytes,
}

/// Checks the sizes of changes of state keys.
///
/// # Errors
/// [`StreamError::Length`].
pub fn check_ops(ops: &[StateOp]) -> Result<(), StreamError> {
    for op in ops {
        let (key, value) = match op {
            StateOp::Put { key, value } => (key, value.len()),
            StateOp::Remove { key } | StateOp::Take { key } | StateOp::Tally { key, .. } => {
                (key, 0)
            }
        };
        length("key", key.len(), 1, STATE_KEY_BYTES_MAX)?;
        length("value", value, 0, STATE_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

fn length(field: &'static str, bytes: usize, min: usize, limit: usize) -> Result<(), StreamError> {
    match (min..=limit).contains(&bytes) {
        true => Ok(()),
        false => Err(StreamError::Length { field, bytes, min, limit }),
    }
}

/// What a cycle that was refused still holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The group whose lease it is.
    pub group: GroupName,
    /// The lease.
    pub token: LeaseToken,
    /// The partition.
    pub partition: PartitionNumber,
}

impl Transactions {
    /// Gives back what a refused cycle holds, so that others may have it at once. Where it
    /// [`Failed`](Verdict::Failed), it is as if its lease had run out now: an attempt counts for each message.
    /// Returns whether the lease was still there to be given back. Waits for one commit; dropping the
    /// future does not take it back.
    pub async fn give_back(&self, held: Held, verdict: Verdict, why: &str) -> bool {
        let Held { group, token, partition } = held;
        let ack = AckOrder {
            group,
            token: Some(token),
            partition,
            which: Which::Range(0, 0),
            verdict,
            error: why.into(),
            reach: Reach::Held,
        };
        self.commit(Order { acks: vec![ack], ..Order::default() }).await.is_ok()
    }

    /// A query by its number, as of the last commit. Never waits.
    #[must_use]
    pub fn query(&self, id: QueryId) -> Option<QueryDefinition> {
        self.engine.catalog_now().queries().get(id).map(|query| (**query).clone())
    }

    /// Makes a query known, or finds it; answers when that is durable. With `reset` it loses its
    /// state, in all partitions at once. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`StreamError::Length`] and [`StreamError::Command`].
    pub async fn register(&self, order: QueryOrder) -> Result<Registered, StreamError> {
        let QueryOrder { name, source, sink, config_hash, reset } = order;
        for (field, text, min) in [
            ("name", &name, 1),
            ("source_queue", &source, 0),
            ("sink_queue", &sink, 0),
            ("config_hash", &config_hash, 1),
        ] {
            length(field, text.len(), min, TEXT_BYTES_MAX)?;
        }
        let (reply, answer) = oneshot::channel();
        let register = Register { name, source, sink, config_hash, reset, reply };
        self.engine.submit(Command::Register(Box::new(register)));
        Ok(answer.await.unwrap_or(Err(CommandError::ShuttingDown))?)
    }

    /// State keys of a query in one partition, in key order, as they are after all cycles that were
    /// answered. Waits for a turn of the lane per some megabytes; where several engines share a store,
    /// for a look at what the others did.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn states(
        &self,
        query: QueryId,
        question: StateQuestion,
    ) -> Result<Vec<StateRow>, StreamError> {
        let StateQuestion { partition, mut keys, prefix } = question;
        keys.sort_unstable();
        keys.dedup();
        let (mut found, mut bytes, mut after) = (Vec::new(), 0, None);
        loop {
            let ask = StateAsk {
                owner: 0,
                partition,
                prefix: prefix.clone(),
                after,
                rows_max: PAGE_ROWS,
                bytes_max: PAGE_BYTES,
            };
            let page = self.page(query, keys.clone(), ask).await?.ok_or(StreamError::NoQuery)?;
            bytes += page.rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
            if bytes > ANSWER_BYTES_MAX {
                return Err(StreamError::TooMuch);
            }
            found.extend(page.rows);
            after = page.more_after;
            let Some(seen_to) = &after else { return Ok(found) };
            // Those that are named come in their order.
            keys.retain(|key| key > seen_to);
        }
    }

    async fn page(
        &self,
        query: QueryId,
        keys: Vec<Bytes>,
        ask: StateAsk,
    ) -> Result<Option<StatePage>, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.engine.submit(Command::ReadStates(Box::new(ReadStates { query, keys, ask, reply })));
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }
}
