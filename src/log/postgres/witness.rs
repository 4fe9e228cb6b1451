//! What this engine has seen of each shard's newest entry, held against every database it meets again.
//!
//! A failover to a standby that lagged, or a backup that somebody restored, leaves a database that has
//! forgotten entries, or has others in their place. An engine that went on there would mix two
//! histories. So a connection that is made again counts only where the newest entries are those that
//! were seen, and the store is the same. In: entries that were appended or read. Out: whether a database is the one they are in.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::base::place::ShardId;
use crate::journal::StoreId;

/// Bytes of an entry's start that tell it from all others: they say who wrote it and when.
const START_BYTES: usize = 64;

/// For each shard and entry asked for: the head, and the entry's length and start where it is there.
const COMPARE: &str = "
SELECT asked.shard, heads.head, entry.len, entry.start
  FROM unnest($1::int4[], $2::int8[]) AS asked (shard, head)
  JOIN heads ON heads.shard = asked.shard
  LEFT JOIN LATERAL (
       SELECT coalesce(len, octet_length(bytes)) AS len, substring(bytes FROM 1 FOR 64) AS start
         FROM log WHERE log.shard = asked.shard AND log.head = asked.head AND part = 0
  ) AS entry ON true";

#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    index: u64,
    len: usize,
    start: Vec<u8>,
}

/// Who the store is.
const STORE: &str = "SELECT id FROM store";

/// The newest entries seen, by shard; and which store they are of.
#[derive(Debug)]
pub(super) struct Witness {
    seen: Mutex<Vec<Option<Seen>>>,
    store: StoreId,
    /// The store that was met last is another one.
    is_other: AtomicBool,
    /// It is this one, but without entries that were seen.
    is_taken_back: AtomicBool,
}

/// Why a database is not the one that was seen.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Foreign {
    #[error(
        "the database was taken back: shard {shard} has {head} entries and had {seen}; \
         restart this server to begin again from what it has"
    )]
    TakenBack { shard: i32, head: u64, seen: u64 },
    #[error(
        "the database has another history: entry {index} of shard {shard} is not what it was; \
         restart this server to begin again from what it has"
    )]
    Other { shard: i32, index: u64 },
    #[error(
        "the schema does not hold the store that this server works on; restart this server to work \
         on what it holds"
    )]
    Store,
}

impl Witness {
    pub(super) fn new(shards: usize, store: StoreId) -> Self {
        Self {
            seen: Mutex::new(vec![None; shards]),
            store,
            is_other: AtomicBool::new(false),
            is_taken_back: AtomicBool::new(false),
        }
    }

    /// Whether the store that was met last is another one.
    pub(super) fn is_other(&self) -> bool {
        self.is_other.load(Ordering::Acquire)
    }

    /// Whether the store that was met last lacks entries that were seen, or has others.
    pub(super) fn is_taken_back(&self) -> bool {
        self.is_taken_back.load(Ordering::Acquire)
    }

    /// Notes which store was met; tells whether it is the one.
    pub(super) fn meet(&self, store: Option<&[u8]>) -> bool {
        let is_ours = store == Some(&self.store[..]);
        self.is_other.store(!is_ours, Ordering::Release);
        is_ours
    }

    /// Remembers an entry, given as a rope, if it is the newest one seen.
    pub(super) fn note(&self, shard: ShardId, index: u64, parts: &[Bytes]) {
        self.note_sized(shard, index, parts.iter().map(Bytes::len).sum(), parts);
    }

    /// The same of an entry of which only the start is here, or its brief, which begins as it does:
    /// what is left out of one comes behind all that is looked at.
    pub(super) fn note_sized(&self, shard: ShardId, index: u64, len: usize, parts: &[Bytes]) {
        let mut all = self.seen.lock();
        let Some(seen) = all.get_mut(usize::from(shard)) else { return };
        if seen.as_ref().is_some_and(|seen| seen.index >= index) {
            return;
        }
        let start = parts.iter().flat_map(|part| part.iter().copied()).take(START_BYTES).collect();
        *seen = Some(Seen { index, len, start });
    }

    /// Whether the entries seen are in the database behind `client`. Those whose piece is gone by
    /// now prove nothing either way. What is found is noted.
    ///
    /// # Errors
    /// The database's; or, within, why it is another one.
    pub(super) async fn compare(
        &self,
        client: &Client,
    ) -> Result<Result<(), Foreign>, tokio_postgres::Error> {
        let compared = self.look(client).await?;
        let is_taken_back =
            matches!(compared, Err(Foreign::TakenBack { .. } | Foreign::Other { .. }));
        self.is_taken_back.store(is_taken_back, Ordering::Release);
        Ok(compared)
    }

    async fn look(&self, client: &Client) -> Result<Result<(), Foreign>, tokio_postgres::Error> {
        let seen = self.seen.lock().clone();
        let known: Vec<(i32, Seen)> =
            (0..).zip(seen).filter_map(|(shard, seen)| Some((shard, seen?))).collect();
        let shards: Vec<i32> = known.iter().map(|(shard, _)| *shard).collect();
        let indexes: Vec<i64> = known.iter().map(|(_, seen)| seen.index as i64).collect();
        let asked: [&(dyn ToSql + Sync); 2] = [&shards, &indexes];
        let (stores, rows) =
            tokio::try_join!(client.query_opt(STORE, &[]), client.query(COMPARE, &asked))?;
        if !self.meet(stores.as_ref().map(|row| row.get(0))) {
            return Ok(Err(Foreign::Store));
        }
        for row in rows {
            let (shard, head): (i32, i64) = (row.get(0), row.get(1));
            let (len, start): (Option<i32>, Option<&[u8]>) = (row.get(2), row.get(3));
            let Some((_, seen)) = known.iter().find(|(known, _)| *known == shard) else { continue };
            let (head, index) = (head as u64, seen.index);
            if head <= index {
                return Ok(Err(Foreign::TakenBack { shard, head, seen: index + 1 }));
            }
            let is_same = |(len, start): (i32, &[u8])| {
                usize::try_from(len).is_ok_and(|len| len == seen.len) && start == seen.start
            };
            if !len.zip(start).is_none_or(is_same) {
                return Ok(Err(Foreign::Other { shard, index }));
            }
        }
        Ok(Ok(()))
    }
}
