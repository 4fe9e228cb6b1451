//! Turns: of several engines that all want the same shards, each comes to append.
//!
//! A conditional append is all that correctness needs, but under load it is unfair: who has lost must
//! read and decide again, and the winner, who has only to decide, is always faster. So an engine that
//! loses twice in a row asks for a turn: for a tenth of a second, or until it has appended, the others'
//! appends to these shards are not taken. They wait, lose once, and ask for a turn themselves. Where
//! engines do not meet there are no turns. A turn is a courtesy and proves nothing: heads still decide.
//!
//! An engine that has lost lately also asks before it decides: what an append carries is sent in vain
//! when it is refused, a question is short.
//!
//! In: appends that were refused, shards that are about to be decided. Out: which heads have moved, or
//! how long to wait. Called by `append`, and by the lane through the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio_postgres::types::ToSql;

use super::error::words;
use super::session::Session;
use super::shared::Shared;
use crate::base::place::ShardId;
use crate::base::random::{Random, SystemRandom};
use crate::log::Claim;

/// How long a turn lasts that is not used: longer than it takes to read what was missed and decide.
const TURN_MS: i32 = 100;
/// Conflicts in a row that make an engine ask for a turn.
const PATIENCE: u32 = 2;

/// Turns asked for ahead, after a conflict, until it is tried without.
const WARY: u32 = 64;

/// Who we are among the engines, and how we fare.
#[derive(Debug)]
pub(super) struct Turns {
    /// Tells us from the others; never 0, which stands for nobody.
    pub(super) engine: i64,
    /// Conflicts since the last append that was taken.
    conflicts: AtomicU32,
    /// Turns that are still asked for ahead.
    wary: AtomicU32,
    /// Shards whose turn was given to us and not used yet.
    held: Mutex<Vec<i32>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            engine: (SystemRandom.next_u64() >> 1).max(1) as i64,
            conflicts: AtomicU32::new(0),
            wary: AtomicU32::new(0),
            held: Mutex::default(),
        }
    }
}

/// A shard as it was when an append was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refused {
    pub(super) shard: i32,
    pub(super) head: u64,
    /// It is another engine's turn.
    pub(super) is_taken: bool,
}

impl Shared {
    /// Looks at the shards of an append that was refused, and asks for a turn if that happens again
    /// and again.
    pub(super) async fn look_at(
        &self,
        session: &Session,
        shards: Vec<i32>,
    ) -> Result<Vec<Refused>, String> {
        let wanted = self.turns.conflicts.load(Ordering::Relaxed) + 1 >= PATIENCE;
        self.ask_turn(session, shards, wanted).await
    }

    /// Asks for the turn on shards that are about to be decided, if others were met lately.
    pub(super) async fn claim(&self, shards: &[ShardId]) -> Option<Claim> {
        let wary = &self.turns.wary;
        if wary.load(Ordering::Relaxed) == 0 || !self.news.has_others() {
            return None;
        }
        let session = self.follower.session().ok()?;
        let asked: Vec<i32> = shards.iter().map(|shard| i32::from(*shard)).collect();
        let found = self.ask_turn(&session, asked, true).await.ok()?;
        wary.fetch_sub(1, Ordering::Relaxed);
        let held = self.turns.held.lock();
        let is_ours = shards.iter().all(|shard| held.contains(&i32::from(*shard)));
        drop(held);
        let heads = found.iter().map(|it| (it.shard as ShardId, it.head)).collect();
        Some(Claim { is_ours, heads })
    }

    async fn ask_turn(
        &self,
        session: &Session,
        shards: Vec<i32>,
        wanted: bool,
    ) -> Result<Vec<Refused>, String> {
        let asked: [&(dyn ToSql + Sync); 4] = [&shards, &self.turns.engine, &TURN_MS, &wanted];
        let asking = session.client.query(&session.statements.turn, &asked);
        let rows = match self.within(self.config.append_timeout, asking).await {
            Ok(rows) => rows.map_err(|error| words(&error))?,
            Err(_late) => {
                self.sever_all();
                return Err("the heads did not come in time".to_owned());
            }
        };
        let mut held = self.turns.held.lock();
        let mut refused = Vec::with_capacity(rows.len());
        for row in rows {
            let (shard, head, is_taken): (i32, i64, bool) = (row.get(0), row.get(1), row.get(2));
            if row.get::<_, bool>(3) && !held.contains(&shard) {
                held.push(shard);
            }
            refused.push(Refused { shard, head: head as u64, is_taken });
        }
        Ok(refused)
    }

    /// An append lost against another engine's.
    pub(super) fn note_conflict(&self) {
        self.turns.conflicts.fetch_add(1, Ordering::Relaxed);
        self.turns.wary.store(WARY, Ordering::Relaxed);
    }

    /// An append to these shards was taken: their turns are over, and others that were given for it
    /// are passed on.
    pub(super) fn note_taken(&self, session: &Arc<Session>, shards: &[i32]) {
        self.turns.conflicts.store(0, Ordering::Relaxed);
        let mut held = self.turns.held.lock();
        held.retain(|shard| !shards.contains(shard));
        // The append beside this one may be what they were given for.
        if self.is_accompanied() {
            return;
        }
        let unused = std::mem::take(&mut *held);
        drop(held);
        if unused.is_empty() {
            return;
        }
        let (session, engine) = (Arc::clone(session), self.turns.engine);
        self.runtime().spawn(async move {
            let asked: [&(dyn ToSql + Sync); 2] = [&unused, &engine];
            // It ends by itself too, only later.
            let _ = session.client.execute(&session.statements.pass, &asked).await;
        });
    }
}
