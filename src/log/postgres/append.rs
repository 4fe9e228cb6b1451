//! Appending: one statement, one round trip, one commit.
//!
//! In: proposals. Out: that they stand, that other engines were first, or why it is not known. The
//! statement moves the heads that still are where the proposals expect them and adds the entries, all
//! or nothing, so no lock is ever held across a wait for us. Measured against the same with a binary
//! COPY, which needs two round trips with the locks held between: as fast at 64 entries of 16 KiB,
//! twice as fast at one of 200 bytes. Called by the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::types::ToSql;

use super::batch::{Batch, Body, ENTRY_BYTES_MAX, position};
use super::error::{of_append, words};
use super::session::Session;
use super::shared::Shared;
use crate::base::place::ShardId;
use crate::log::{Append, AppendError, Proposal};

impl Shared {
    pub(super) async fn append(&self, proposals: &[Proposal]) -> Result<Append, AppendError> {
        if proposals.is_empty() {
            return Ok(Append::Appended(Vec::new()));
        }
        self.check(proposals)?;
        let session = self.writer.session().map_err(AppendError::Unavailable)?;
        let batch = match Batch::of(proposals) {
            Ok(batch) => batch,
            Err(torn) => return self.conflict(&session, proposals, torn).await,
        };
        // From here on the statement may be on its way, whatever is heard of it.
        let sent = self.within(self.config.append_timeout, send(&session, &batch, proposals)).await;
        match sent {
            Ok(Ok(0)) => self.conflict(&session, proposals, Vec::new()).await,
            Ok(Ok(_)) => Ok(self.appended(&batch, proposals)),
            Ok(Err(error)) => Err(of_append(&error)),
            Err(_late) => {
                // Everything behind it on this connection would wait for as long.
                session.sever();
                Err(AppendError::OutcomeUnknown)
            }
        }
    }

    /// Whether the database answers where appends go.
    pub(super) async fn ping(&self) -> Result<(), String> {
        let session = self.writer.session()?;
        let none: [i32; 0] = [];
        let asked: [&(dyn ToSql + Sync); 1] = [&&none[..]];
        let asking = session.client.query(&session.statements.heads_of, &asked);
        match self.within(self.config.append_timeout, asking).await {
            Ok(answer) => answer.map(|_| ()).map_err(|error| words(&error)),
            Err(_late) => {
                session.sever();
                Err("the database did not answer in time".to_owned())
            }
        }
    }

    fn check(&self, proposals: &[Proposal]) -> Result<(), AppendError> {
        let bytes: u64 = proposals.iter().map(|proposal| proposal.len() as u64).sum();
        let limit = self.config.append_bytes_max.min(ENTRY_BYTES_MAX);
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        let shards = self.heads.len();
        match proposals.iter().find(|it| usize::from(it.shard) >= shards) {
            Some(it) => Err(AppendError::Unavailable(format!("shard {} of {shards}", it.shard))),
            None => Ok(()),
        }
    }

    fn appended(&self, batch: &Batch<'_>, proposals: &[Proposal]) -> Append {
        for ((shard, expected), (entries, bytes)) in
            batch.shards.iter().zip(&batch.expected).zip(batch.entries.iter().zip(&batch.bytes))
        {
            let head = expected.saturating_add(i64::from(*entries));
            self.note_appended(*shard as ShardId, head as u64, *bytes as u64);
        }
        for proposal in proposals {
            self.witness.note(proposal.shard, proposal.expected_head, &proposal.parts);
        }
        Append::Appended(proposals.iter().map(|it| position(it.expected_head)).collect())
    }

    /// Nothing was appended: which heads have moved?
    async fn conflict(
        &self,
        session: &Arc<Session>,
        proposals: &[Proposal],
        mut moved: Vec<ShardId>,
    ) -> Result<Append, AppendError> {
        let mut expected: BTreeMap<ShardId, u64> = BTreeMap::new();
        for proposal in proposals {
            expected.entry(proposal.shard).or_insert(proposal.expected_head);
        }
        let shards: Vec<i32> = expected.keys().map(|shard| i32::from(*shard)).collect();
        let (client, statements) = (&session.client, &session.statements);
        let asked: [&(dyn ToSql + Sync); 1] = [&shards];
        let asking = client.query(&statements.heads_of, &asked);
        let rows = match self.within(self.config.read_timeout, asking).await {
            Ok(rows) => rows.map_err(|error| AppendError::Unavailable(words(&error)))?,
            Err(_late) => {
                session.sever();
                return Err(AppendError::Unavailable("the heads did not come in time".into()));
            }
        };
        for row in rows {
            let (shard, head): (i32, i64) = (row.get(0), row.get(1));
            let (shard, head) = (shard as ShardId, head as u64);
            self.note_head(shard, head);
            if expected.get(&shard).is_some_and(|expected| *expected != head) {
                moved.push(shard);
            }
        }
        moved.sort_unstable();
        moved.dedup();
        if moved.is_empty() {
            // Heads only grow, so one that is in its place now was never away.
            return Err(AppendError::Unavailable("the append was refused for no reason".into()));
        }
        Ok(Append::Conflict(moved))
    }
}

/// How many entries were added: all or none.
async fn send(
    session: &Session,
    batch: &Batch<'_>,
    proposals: &[Proposal],
) -> Result<u64, tokio_postgres::Error> {
    let (client, statements) = (&session.client, &session.statements);
    if let ([proposal], [shard], [expected], [tail]) =
        (proposals, &batch.shards[..], &batch.expected[..], &batch.tails[..])
    {
        let body = Body(&proposal.parts);
        return client.execute(&statements.append_one, &[shard, expected, tail, &body]).await;
    }
    let Batch { shards, expected, entries, bytes, tails, entry_shards, entry_heads, bodies } =
        batch;
    let all: [&(dyn ToSql + Sync); 8] =
        [shards, expected, entries, bytes, tails, entry_shards, entry_heads, bodies];
    client.execute(&statements.append_many, &all).await
}
