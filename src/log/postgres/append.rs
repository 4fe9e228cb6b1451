//! Appending: one statement, one round trip, one commit.
//!
//! In: proposals. Out: that they stand, that other engines were first, or why it is not known. The
//! statement moves the heads that still are where the proposals expect them and adds the entries, all
//! or nothing, so no lock is ever held across a wait for us. Measured against the same with a binary
//! COPY, which needs two round trips with the locks held between: as fast at 64 entries of 16 KiB,
//! twice as fast at one of 200 bytes. Called by the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::batch::{Batch, Body, ENTRY_BYTES_MAX, position};
use super::error::{of_append, words};
use super::names::Names;
use super::session::Session;
use super::shared::Shared;
use super::statements::NO_SHARD;
use super::turns::Refused;
use crate::base::clock::{Clock, SystemClock};
use crate::base::place::ShardId;
use crate::log::{Append, AppendError, Proposal};

/// First pause while another engine has its turn, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(8);

impl Shared {
    pub(super) async fn append(&self, proposals: &[Proposal]) -> Result<Append, AppendError> {
        if proposals.is_empty() {
            return Ok(Append::Appended(Vec::new()));
        }
        self.check(proposals)?;
        let (session, _appending) = self.writer().map_err(AppendError::Unavailable)?;
        let batch = match Batch::of(proposals) {
            Ok(batch) => batch,
            Err(torn) => return self.torn(&session, proposals, torn).await,
        };
        let (mut pause, clock) = (PAUSE_MIN, SystemClock::new());
        // What it carries is not sent again before there is a reason to.
        let mut is_free = true;
        while u128::from(clock.monotonic_us()) < self.config.append_timeout.as_micros() {
            if is_free && self.offer(&session, &batch, proposals).await? {
                return Ok(self.appended(&session, &batch, proposals));
            }
            match self.standing(&session, &batch).await? {
                Standing::Moved(shards) => {
                    self.note_conflict();
                    return Ok(Append::Conflict(shards));
                }
                Standing::Waits => {
                    is_free = false;
                    self.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Standing::Free => is_free = true,
            }
        }
        Err(AppendError::Unavailable("other engines do not let go of the shards".to_owned()))
    }

    /// Sends an append once; tells whether it was taken.
    async fn offer(
        &self,
        session: &Arc<Session>,
        batch: &Batch<'_>,
        proposals: &[Proposal],
    ) -> Result<bool, AppendError> {
        // From here on the statement may be on its way, whatever is heard of it.
        let sending = send(session, batch, proposals, self.turns.engine);
        match self.within(self.config.append_timeout, sending).await {
            Ok(Ok(rows)) => Ok(rows > 0),
            Ok(Err(error)) => Err(of_append(&error)),
            Err(_late) => {
                self.sever_all();
                Err(AppendError::OutcomeUnknown)
            }
        }
    }

    /// Why an append was refused.
    async fn standing(
        &self,
        session: &Arc<Session>,
        batch: &Batch<'_>,
    ) -> Result<Standing, AppendError> {
        let looked = self.look_at(session, [&batch.shards[..], &batch.relied].concat()).await;
        let refused = looked.map_err(AppendError::Unavailable)?;
        let expected = || batch.shards.iter().zip(&batch.expected);
        let relied = || batch.relied.iter().zip(&batch.relied_heads);
        let (mut is_taken, mut moved) = (false, Vec::new());
        for it in refused {
            self.note_head(it.shard as ShardId, it.head);
            // Whose turn it is for a shard that is only relied on does not matter.
            is_taken |= it.is_taken && batch.shards.contains(&it.shard);
            let is_elsewhere = |(shard, head): (&i32, &i64)| {
                *shard == it.shard && u64::try_from(*head) != Ok(it.head)
            };
            if expected().chain(relied()).any(is_elsewhere) {
                moved.push(it.shard as ShardId);
            }
        }
        Ok(match moved.is_empty() {
            false => Standing::Moved(moved),
            true if is_taken => Standing::Waits,
            true => Standing::Free,
        })
    }

    /// Whether the database takes appends: asks for one to a shard that there is none of. A database that
    /// only reads, or that this server may not write to any more, refuses that one too.
    pub(super) async fn ping(&self) -> Result<(), String> {
        let (session, _appending) = self.writer()?;
        let (nothing, no_brief) = (Body(&[]), None::<&[u8]>);
        let asked: [&(dyn ToSql + Sync); 6] =
            [&NO_SHARD, &0_i64, &0_i32, &nothing, &self.turns.engine, &no_brief];
        let asking = session.client.execute(&session.statements.append_one, &asked);
        match self.within(self.config.append_timeout, asking).await {
            Ok(answer) => answer.map(|_| ()).map_err(|error| words(&error)),
            Err(_late) => {
                self.sever_all();
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

    fn appended(
        &self,
        session: &Arc<Session>,
        batch: &Batch<'_>,
        proposals: &[Proposal],
    ) -> Append {
        self.note_taken(session, &batch.shards);
        for ((shard, expected), (entries, bytes)) in
            batch.shards.iter().zip(&batch.expected).zip(batch.entries.iter().zip(&batch.bytes))
        {
            let head = expected.saturating_add(i64::from(*entries));
            self.note_appended(*shard as ShardId, head as u64, *bytes as u64);
        }
        for proposal in proposals {
            self.witness.note(proposal.shard, proposal.expected_head, &proposal.parts);
        }
        self.news.note_appended();
        Append::Appended(proposals.iter().map(|it| position(it.expected_head)).collect())
    }

    /// Proposals that do not follow each other conflict whatever the heads are; others may too.
    async fn torn(
        &self,
        session: &Session,
        proposals: &[Proposal],
        mut moved: Vec<ShardId>,
    ) -> Result<Append, AppendError> {
        let mut expected: BTreeMap<i32, u64> = BTreeMap::new();
        for proposal in proposals {
            expected.entry(i32::from(proposal.shard)).or_insert(proposal.expected_head);
        }
        let shards: Vec<i32> = expected.keys().copied().collect();
        let looked = self.look_at(session, shards).await.map_err(AppendError::Unavailable)?;
        let has_moved = |it: &Refused| expected.get(&it.shard).is_some_and(|head| *head != it.head);
        moved.extend(looked.iter().filter(|it| has_moved(it)).map(|it| it.shard as ShardId));
        moved.sort_unstable();
        moved.dedup();
        Ok(Append::Conflict(moved))
    }
}

/// How things are with an append that was refused.
enum Standing {
    /// These heads are not where it expects them.
    Moved(Vec<ShardId>),
    /// All are, but it is another engine's turn.
    Waits,
    /// It may be sent again.
    Free,
}

/// How many rows were added: those of all entries or none.
async fn send(
    session: &Session,
    batch: &Batch<'_>,
    proposals: &[Proposal],
    engine: i64,
) -> Result<u64, tokio_postgres::Error> {
    let (client, statements) = (&session.client, &session.statements);
    if let Some(names) = Names::of(proposals, session.is_unicode) {
        let all = [&batch.parameters(&engine)[..], &names.parameters()].concat();
        return client.execute(&statements.append_named, &all).await;
    }
    // All of it in one part, and resting on nothing else.
    if let ([proposal], [shard], [expected], [tail], [_], []) = (
        proposals,
        &batch.shards[..],
        &batch.expected[..],
        &batch.tails[..],
        &batch.places[..],
        &batch.relied[..],
    ) {
        let body = Body(&proposal.parts);
        let brief = proposal.brief.as_deref();
        let all: [&(dyn ToSql + Sync); 6] = [shard, expected, tail, &body, &engine, &brief];
        return client.execute(&statements.append_one, &all).await;
    }
    client.execute(&statements.append_many, &batch.parameters(&engine)).await
}
